"""Builds a proxy, stage by stage; also checks one, and renders its card again.

recipe -> source -> space -> probes -> importance -> similarity -> selection -> artifact and card -> check
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import BaseModel

from proxyds.arguments import as_path
from proxyds.artifact.card.croissant import render_croissant
from proxyds.artifact.card.render import render_card
from proxyds.artifact.evidence_records import EvidenceRecord
from proxyds.artifact.manifest import CARD, CROISSANT, RECIPE, Manifest
from proxyds.artifact.ranking_table import TRAINED_HERE
from proxyds.artifact.reader import Built, read_manifest, verify_for_check, verify_proxy
from proxyds.artifact.summary import Summary, summarize_tables
from proxyds.artifact.tables import read_proxy
from proxyds.artifact.writer import (
    another_proxy,
    check_only_own_files,
    check_output,
    list_written,
    rewrite_manifest,
    write_croissant,
    write_tables,
)
from proxyds.errors import CardDriftError, OutputError, VerificationError, translate_os_errors
from proxyds.evaluation.runs import STAGE
from proxyds.pipeline.check import (
    check_ranking,
    choose_ranked,
)
from proxyds.pipeline.provenance import describe_build, tell_same_version
from proxyds.pipeline.reading import HandedOver, hand_over_to_build
from proxyds.pipeline.stages import (
    Session,
    ask_soft_labels,
    join_needs,
    list_space,
    open_build,
    prepare_probes,
    score_samples,
    train_probes,
)
from proxyds.progress import StageEnded
from proxyds.progress_bars import showing_progress
from proxyds.recipe.methods import Need
from proxyds.recipe.models import Check, Recipe
from proxyds.recipe.sections.training import choose_crop_padding
from proxyds.recipe.yaml import take_recipe, write_recipe
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.atomic import replace_file, sweep_half_files, try_folder, whole_folder
from proxyds.runtime.storage.store import retry_if_damaged
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import add_validation, draw_samples
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import describe_origin
from proxyds.text import short_json
from proxyds.training.job import list_trials

if TYPE_CHECKING:
    from proxyds.space.candidates import Candidates


@showing_progress
@retry_if_damaged
def build(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    source: Any = None,
    space: Candidates | None = None,
    trainer: object | None = None,
    force: bool = False,
    check: bool = True,
    **options: Unpack[Options],
) -> Built:
    """Builds a proxy (Algorithm 1 of the paper, whole).

    Finished stages are kept in the store, so that a build that was stopped goes on where it was, and another ratio
    trains nothing. The folder appears whole or not at all.

    Args:
        recipe: What to build, or the file that says so.
        out: The folder to make.
        source: What to build it from in place of the recipe's section `source`: data in memory (`(images, labels)`, a `datasets.Dataset`,
            a torch data set of pairs, a mapping of split names to these; see `docs/images.md`), a folder, or another recipe, whose
            section is taken. What the recipe itself says of images and splits stays. None for what the recipe says.
        space: The networks of a recipe that was made with `proxyds.Recipe(space=...)`, where another program made it.
        trainer: Trains all networks in place of the shipped loop: a function `(network, train, *, seed, device)` that returns the
            network, or an object with `fit`; see docs/trainer.md.
        force: Build anew, and replace another proxy at `out`. Anything but a proxy is never touched.
        check: Whether the check follows that the recipe's section `check` describes; `proxyds.check` does it later.
        options: How the work is done, such as `workers`, `device`, `store` and `quiet`; see docs/python.md.

    Raises:
        ProxydsError: Anything that the user can mend; each class says what.
    """
    execution = Execution.take(options, build)
    recipe = hand_over_to_build(take_recipe(recipe), HandedOver(source, space, trainer))
    if "://" in str(out):
        raise OutputError("must be a folder; build into one, then proxyds.push it to an address", place=out)
    out = as_path(out, "out").absolute()
    existing = check_destination(out, force)
    out = out.resolve()  # a link to a proxy stays a link
    if existing is not None and not force and source is None:
        _refuse_other_recipe(recipe, out, existing)
    with open_build(recipe, execution, source) as session:
        warnings = [*recipe.warnings, *session.data.warnings]
        if existing is not None and force:
            warnings += _tell_of_former(session, existing)
        session.clock.end_stage("source", warning="; ".join(warnings))
        architectures = list_space(session)
        ranked = choose_ranked(session, recipe.check, architectures) if recipe.check is not None else []
        if existing is not None and not force:
            built = _keep(session, out, existing)
        else:
            built = Built(out, _build(session, architectures, out, force))
        if not check or recipe.check is None or _has_evidence(built.manifest, recipe.check):
            return built
        if built.manifest.evidence is not None:
            warning = _tell_of_other_check(built.manifest.evidence, recipe.check)
            if warning:
                session.on_progress(StageEnded(STAGE, warning=warning))
        return Built(out, check_ranking(session, out, recipe.check, architectures, ranked))


def find_build_needs(recipe: Recipe) -> frozenset[Need]:
    """Finds what a build asks its probes for: what its method needs and the controls of its check, so that it is trained once."""
    return join_needs(recipe.selection.method, *(recipe.check.controls if recipe.check else ()))


def _build(session: Session, architectures: Sequence[Architecture], out: Path, force: bool) -> Manifest:
    """Does the stages after source and space, in order; see `build`."""
    recipe = session.recipe
    chosen, layer = prepare_probes(session, architectures)
    machine = session.describe_machine(chosen)
    session.clock.end_stage("space")

    needs = find_build_needs(recipe)
    session.run(list_trials(session.set_up_training(), chosen[0], session.data.train, recipe.selection.ratio))
    scored = score_samples(session, train_probes(session, chosen, needs), needs, layer)
    soft_labels = ask_soft_labels(session, architectures)
    rule = DESIGNS[recipe.selection.method]
    draw = draw_samples(scored.scores, scored.case, session.data.label_names, rule, recipe.selection, recipe.draw_seed)
    draw = add_validation(draw, session.data.evaluation, recipe)
    session.clock.end_stage("selection")

    write = partial(
        write_tables,
        source=session.data,
        outcomes=scored.outcomes,
        mapping=scored.mapping,
        draw=draw,
        samples_per_shard=recipe.output.samples_per_shard,
        soft_labels=soft_labels,
    )
    describe = partial(describe_build, session, architectures, scored, draw, machine)
    return write_proxy(session, out, write, describe, force=force)


def write_proxy(
    session: Session,
    out: Path,
    write: Callable[[Path], Summary],
    describe: Callable[[], Manifest],
    *,
    force: bool,
) -> Manifest:
    """Writes a proxy's folder, which appears whole or not at all.

    Args:
        session: The recipe at work.
        out: The folder.
        write: Writes tables, tars and index into it.
        describe: Makes the manifest, but for its list of files, once the tables are written.
        force: Replace another proxy at `out`.

    Raises:
        OutputError: The folder cannot be written; see the subclasses.
    """
    recipe = session.recipe
    check_destination(out, force)  # hours may have passed
    with (
        translate_os_errors(out, "choose another folder"),
        whole_folder(out, "replace" if force else "refuse") as folder,
    ):
        summary = write(folder)
        (folder / RECIPE).write_text(write_recipe(recipe), encoding="utf-8")
        session.clock.end_stage("artifact")
        manifest = write_croissant(folder, list_written(folder, describe()))
        card = render_card(manifest, summary)
        for name, content in card.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        rewrite_manifest(folder, manifest, written=card)
        return read_manifest(folder)  # what a reader would refuse is not written


def render(folder: str | Path, *, check_only: bool = False) -> list[str]:
    """Renders a proxy's card again from its records, and `croissant.json` where it has one.

    Args:
        folder: The proxy.
        check_only: Compare and change nothing.

    Returns:
        The card's files that differed from what the records render to (and, unless `check_only`, were replaced or, if the card has no such
        picture any more, removed).

    Raises:
        ArtifactError: The folder is no proxy.
        VerificationError: A file besides the card's is damaged.
        CardDriftError: With `check_only`, a file of the card differs.
    """
    folder = as_path(folder, "folder")
    manifest = read_manifest(folder)
    if not check_only:
        with translate_os_errors(folder, "copy the proxy to another place"):
            sweep_half_files(folder)
    own = {name for name in manifest.files if name in (CARD, CROISSANT) or name.startswith("assets/")}
    verify_proxy(folder, but_for=own)
    manifest, tables = read_proxy(folder, images_of=("data",))
    files = render_card(manifest, summarize_tables(tables))
    if CROISSANT in own:
        files[CROISSANT] = render_croissant(manifest)
    written = [name for name in files if not (folder / name).is_file() or (folder / name).read_bytes() != files[name]]
    gone = sorted(own - set(files))
    changed = [*written, *gone]
    if changed and check_only:
        raise CardDriftError(
            f"{', '.join(changed)} must be what the records render to; `proxyds card {shlex.quote(str(folder))}` renders them again",
            place=folder,
        )
    if changed:
        with translate_os_errors(folder, "copy the proxy to another place"):
            for name in written:
                replace_file(folder / name, files[name])
            for name in gone:
                (folder / name).unlink(missing_ok=True)
            rewrite_manifest(folder, manifest, written=written, gone=gone)
    return changed


def check_destination(out: Path, force: bool) -> Manifest | None:
    """Checks, before hours of work and again after them, that the folder may be written.

    Returns:
        The manifest of the proxy that is there; None where nothing is.

    Raises:
        OutputError: The folder may not be written; see the subclasses.
    """
    with translate_os_errors(out, "choose another folder"):
        existing = check_output(out)
        if existing is not None and force:
            check_only_own_files(out, existing)
        try_folder(out)
    return existing


def _has_evidence(manifest: Manifest, settings: Check) -> bool:
    """Tells whether a proxy holds the evidence of a whole check with the very same settings."""
    evidence = manifest.evidence
    if evidence is None or evidence.runs != TRAINED_HERE or evidence.failures:
        return False
    # the file of a reference may hold something else by now
    return settings.reference is None and evidence.check.model_dump() == settings.model_dump()


def _refuse_other_recipe(recipe: Recipe, out: Path, existing: Manifest) -> None:
    """Refuses what the recipe alone tells to be another proxy than the one that is there, before its source is read."""
    if recipe.source.kind == "memory" or existing.image_shape is None:
        return  # what a program passes may belong to the recipe
    padding = choose_crop_padding(min(existing.image_shape[1:]))  # other images are another source anyway
    if recipe.with_crop_padding(padding).sha256 != existing.recipe_sha256:
        raise another_proxy(out, existing)


def _tell_of_former(session: Session, existing: Manifest) -> list[str]:
    """Says that the proxy which gives way has the name and version of the new one, if it is another."""
    recipe = session.recipe
    is_same = (existing.recipe_sha256, existing.source.fingerprint) == (recipe.sha256, session.data.facts.fingerprint)
    remedy = "if the former was published, give the new one a version of its own"
    return [] if is_same else tell_same_version(recipe, existing, "gives way", remedy)


def _tell_of_other_check(evidence: EvidenceRecord, settings: Check) -> str:
    """Says that the evidence of a proxy gives way to that of the recipe's check, and why; nothing where the same check is only repeated."""
    if evidence.runs != TRAINED_HERE:
        return (
            f"the evidence of the {evidence.runs} gives way to that of this recipe's check; keep the file of these runs"
        )
    changed = [
        f"check.{name} was {short_json(former)}, is {short_json(new)}"
        for name in Check.model_fields
        if name != "reference"  # whose file does not travel with a proxy
        and (former := _as_plain(getattr(evidence.check, name))) != (new := _as_plain(getattr(settings, name)))
    ]
    cause = "; ".join(changed)
    return cause and f"another check replaces the evidence ({cause}); the trainings of both stay in the store"


def _as_plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _keep(session: Session, out: Path, existing: Manifest) -> Built:
    """Leaves a proxy alone that is there already; refuses one that is not the one asked for, or not whole."""
    recipe = session.recipe
    code = describe_origin(recipe.space.network).get("plugin")
    is_same = existing.recipe_sha256 == recipe.sha256 and existing.space.origin.get("plugin") == code
    is_same = is_same and existing.index_of is None  # which has no tables
    if not is_same or existing.source.fingerprint != session.data.facts.fingerprint:
        raise another_proxy(out, existing)
    # a check that is still to come writes its part again
    verify = verify_proxy if recipe.check is None or _has_evidence(existing, recipe.check) else verify_for_check
    try:
        return Built(out, verify(out), was_there=True)
    except VerificationError as error:
        raise VerificationError(
            f"{error.message}: force=True (--force) builds it anew over this one", place=error.place
        ) from None
