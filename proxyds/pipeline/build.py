"""The table of contents: the stages in order, and nothing else that is clever.

recipe -> source -> space -> probes -> importance -> similarity -> selection -> artifact and card -> check
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from proxyds.artifact import writer as artifact
from proxyds.artifact.card import render_card
from proxyds.artifact.manifest import CARD, RECIPE, Manifest
from proxyds.artifact.reader import read_bytes, read_manifest, verify_proxy
from proxyds.artifact.summary import Summary, summarize_tables
from proxyds.artifact.tables import read_proxy
from proxyds.data import source
from proxyds.data.chunked import count
from proxyds.data.samples import Source
from proxyds.errors import CardDriftError, OutputError, VerificationError, translate_os_errors
from proxyds.evaluation import runs as verification
from proxyds.pipeline import check as checking
from proxyds.pipeline import probes as probing
from proxyds.pipeline.provenance import Ledger, describe_build, describe_machine
from proxyds.recipe.methods import Need
from proxyds.recipe.models import Recipe
from proxyds.recipe.yaml import read_recipe, write_recipe
from proxyds.runtime import machine
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.atomic import replace_file, sweep_half_files, try_folder, whole_folder
from proxyds.runtime.storage.store import again_if_damaged
from proxyds.runtime.task import Engine, RunTasks, run_stored
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import check_ratio, draw_samples
from proxyds.space import listing as space
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import describe_origin


@dataclass(frozen=True)
class Built:
    """A proxy on disk.

    Attributes:
        folder: Where it is.
        manifest: What it says of itself.
        was_there: Whether the very proxy stood there already and nothing was written.
    """

    folder: Path
    manifest: Manifest
    was_there: bool


@again_if_damaged
def build(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    force: bool = False,
    **options: Unpack[Options],
) -> Built:
    """Builds a proxy (Algorithm 1 of the paper, whole).

    Finished stages are kept in the store, so that a build that was stopped goes on where it was, and another ratio
    trains nothing. The folder appears whole or not at all.

    Args:
        recipe: What to build, or the file that says so.
        out: The folder to make.
        force: Build anew, and replace another proxy at `out`. Anything but a proxy is never touched.
        options: How the work is done; see `Execution`.

    Raises:
        ProxydsError: Anything that the user can mend; each class says what.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if "://" in str(out):
        raise OutputError("must be a folder; build into one, then proxyds.push it to an address", place=out)
    execution, out = Execution(**options), Path(out).absolute()
    there = look_at_output(out, force)
    out = out.resolve()  # a link to a proxy stays a link
    ledger = Ledger(execution.on_progress)
    device, engine = execution.choose_engine()
    with engine:
        run = partial(run_stored, store=execution.store, engine=engine, on_progress=execution.on_progress)
        data = source.load_source(recipe, run, execution.streamed)
        ledger.end_stage("source")
        architectures = list_space(recipe, data)
        ranked = checking.choose_ranked(recipe, recipe.check, data, architectures) if recipe.check is not None else []
        if there is not None and not force:
            built = _keep(out, there, recipe, data)
        else:
            built = _build(recipe, data, architectures, out, force, device, engine, run, ledger)
        if recipe.check is None or checking.has_evidence(built.manifest, recipe.check):
            return built
        data = replace(data, train=data.train.load())
        checked = checking.check_ranking(
            out,
            recipe,
            recipe.check,
            data,
            architectures,
            ranked,
            device,
            execution.store,
            engine,
            execution.on_progress,
        )
        return Built(out, checked, was_there=False)


def list_space(recipe: Recipe, data: Source) -> list[Architecture]:
    """Lists a recipe's architectures, from the lightest to the heaviest, once it is known that the ratio leaves every label samples.

    Raises:
        RecipeError: The space cannot be listed; see `listing.list_architectures`.
        StarvedLabelError: A label can expect less than one sample.
        LabelError: More labels are to be kept than there are.
        ShortageError: The labels that are kept cannot have so many samples.
    """
    chosen_by = recipe.selection
    check_ratio(count(data.train.labels), data.label_names, chosen_by.ratio, chosen_by.labels)
    return space.list_architectures(recipe.space, len(data.label_names), data.image_shape, seed=recipe.seed)


def find_needs(recipe: Recipe) -> frozenset[Need]:
    """What a build's probes are asked for: what its method needs and the controls of its check, so that it is trained once."""
    return probing.find_needs(recipe.selection.method, *(recipe.check.controls if recipe.check else ()))


def _build(
    recipe: Recipe,
    data: Source,
    architectures: Sequence[Architecture],
    out: Path,
    force: bool,
    device: str,
    engine: Engine,
    run: RunTasks,
    ledger: Ledger,
) -> Built:
    """The stages after source and space, in order; see `build`."""
    chosen, layer = probing.prepare_probes(recipe, data, architectures)
    computations = engine.ask(
        device, verification.describe_computations, chosen, len(data.label_names), data.image_shape, device
    )
    here = engine.ask(device, describe_machine, device, engine.n_workers, computations)
    ledger.end_stage("space")

    needs = find_needs(recipe)
    trained = probing.train_probes(recipe, data, chosen, needs, device, engine, run)
    ledger.end_stage("probes", trained.done, sum(each.training_flops + each.asking_flops for each in trained.probes))
    learnt = probing.learn_samples(recipe, data, trained, needs, layer, device, engine, run, ledger)

    rule = DESIGNS[recipe.selection.method]
    draw = draw_samples(learnt.known, learnt.case, data.label_names, rule, recipe.selection, recipe.draw_seed)
    ledger.end_stage("selection")

    look_at_output(out, force)  # hours may have passed

    def describe() -> Manifest:
        return describe_build(
            recipe,
            data,
            architectures,
            trained.probes,
            learnt.outcomes.agreement,
            draw,
            layer,
            learnt.mapping,
            ledger.stages,
            here,
        )

    def write(folder: Path) -> Summary:
        samples_per_shard = recipe.output.samples_per_shard
        return artifact.write_tables(folder, data, learnt.outcomes, learnt.mapping, draw, samples_per_shard)

    return Built(out, write_proxy(out, recipe, write, ledger, describe, force=force), was_there=False)


def write_proxy(
    out: Path,
    recipe: Recipe,
    write_tables: Callable[[Path], Summary],
    ledger: Ledger,
    describe: Callable[[], Manifest],
    *,
    force: bool,
) -> Manifest:
    """Writes a proxy's folder, which appears whole or not at all.

    Args:
        out: The folder.
        recipe: As run.
        write_tables: Fills the folder with the tables, and returns what is shown of them.
        ledger: Told when the files are written.
        describe: Gives the manifest, but for its list of files, when they are.
        force: Replace another proxy at `out`.

    Raises:
        OutputError: It cannot be written; see its subclasses.
    """
    with (
        translate_os_errors(out, "choose another -o"),
        whole_folder(out, "replace" if force else "refuse") as folder,
    ):
        shown = write_tables(folder)
        (folder / RECIPE).write_text(write_recipe(recipe), encoding="utf-8")
        ledger.end_stage("artifact")
        manifest = describe()
        for name, held in render_card(manifest, shown).files().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(held)
        artifact.write_manifest(folder, manifest)
        return read_manifest(folder)  # what a reader would refuse is not written


@again_if_damaged
def check(
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path | None = None,
    **options: Unpack[Options],
) -> Built:
    """Measures how well a proxy ranks architectures, and writes the evidence into it.

    Every architecture is trained on everything, on the proxy and on its controls, as its own recipe says; finished runs
    are kept in the store, so that a check that was stopped goes on where it was.

    Args:
        folder: The proxy.
        overrides: `check.a=b` assignments to its recipe; also `source.path=...`, where the source has moved.
        runs: A CSV file of runs made elsewhere, so that nothing is trained here.
        options: How the work is done; see `Execution`.

    Raises:
        ProxydsError: Anything that the user can mend; each class says what.
    """
    folder, execution = Path(folder).resolve(), Execution(**options)
    recipe, settings = checking.read_checked_recipe(folder, overrides)
    if runs is not None:
        device = machine.choose_device(execution.device)
        return Built(folder, checking.check_known_runs(folder, recipe, settings, Path(runs), device), was_there=False)
    device, engine = execution.choose_engine()
    with engine:
        run = partial(run_stored, store=execution.store, engine=engine, on_progress=execution.on_progress)
        data = source.load_source(recipe, run, execution.streamed)
        data = replace(data, train=data.train.load())
        architectures = list_space(recipe, data)
        ranked = checking.choose_ranked(recipe, settings, data, architectures)
        checked = checking.check_ranking(
            folder,
            recipe,
            settings,
            data,
            architectures,
            ranked,
            device,
            execution.store,
            engine,
            execution.on_progress,
        )
    return Built(folder, checked, was_there=False)


def render(folder: str | Path, *, check_only: bool = False) -> list[str]:
    """Renders a proxy's card again from its records.

    Args:
        folder: The proxy.
        check_only: Compare and change nothing.

    Returns:
        The card's files that differed from what the records render to (and, unless `check_only`, were replaced).

    Raises:
        ArtifactError: It is no proxy.
        VerificationError: A file besides the card's is damaged.
        CardDriftError: With `check_only`, a file of the card differs.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not check_only:
        with translate_os_errors(folder, "copy the proxy to another place"):
            sweep_half_files(folder)
    own = {name for name in manifest.files if name == CARD or name.startswith("assets/")}
    verify_proxy(folder, but_for=own)
    manifest, tables = read_proxy(folder)
    files = render_card(manifest, summarize_tables(tables)).files()
    changed = [name for name, held in files.items() if read_bytes(folder / name) != held]
    if changed and check_only:
        raise CardDriftError(
            f"{', '.join(changed)} must be what the records render to; `proxyds card {folder}` renders them again",
            place=folder,
        )
    if changed:
        with translate_os_errors(folder, "copy the proxy to another place"):
            for name in changed:
                replace_file(folder / name, files[name])
            artifact.rewrite_manifest(folder, manifest, written=changed)
    return changed


def look_at_output(out: Path, force: bool) -> Manifest | None:
    """Finds out, before hours of work and again after them, whether the folder may be written.

    Returns:
        The manifest of the proxy that is there; None where nothing is.

    Raises:
        OutputError: It may not; see its subclasses.
    """
    with translate_os_errors(out, "choose another -o"):
        there = artifact.check_output(out)
        if there is not None and force:
            artifact.check_only_own_files(out, there)
        try_folder(out)
    return there


def _keep(out: Path, there: Manifest, recipe: Recipe, data: Source) -> Built:
    """Leaves a proxy alone that is there already, if it is the one asked for and whole."""
    code = describe_origin(recipe.space.network).get("plugin")
    is_same = there.recipe_sha256 == recipe.sha256 and there.space.origin.get("plugin") == code
    if not is_same or there.source.fingerprint != data.facts.fingerprint:
        raise artifact.another_proxy(out, there)
    try:
        if recipe.check is not None and not checking.has_evidence(there, recipe.check):
            return Built(out, checking.verify_for_check(out), was_there=True)  # a check will write the rest again
        return Built(out, verify_proxy(out), was_there=True)
    except VerificationError as error:
        raise VerificationError(f"{error.message}: --force builds it anew over this one", place=error.place) from None
