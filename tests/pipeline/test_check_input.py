"""`proxyds check` as a user meets it: bad input is refused with one message, runs made elsewhere become evidence."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from datasets import load_dataset
from scipy.stats import kendalltau

import proxyds
from proxyds import errors
from proxyds.artifact.evidence_records import Verdict
from proxyds.artifact.reader import read_manifest, verify_proxy
from proxyds.evaluation.rank_metrics import normal_scores
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.storage.store import Store
from proxyds.space.listing import list_architectures
from tests.artifact.hostile import make_former
from tests.conftest import TINY_RECIPE, Run

EIGHT = TINY_RECIPE.replace("depth: 8", "depth: [8, 14]")
SIXTEEN = TINY_RECIPE.replace("depth: 8", "depth: [8, 14]").replace("[4, 8]", "[4, 5, 6, 8]")

NOT_ALMIGHTY = "import ctypes; drop = ctypes.CDLL(None).prctl; drop(24, 1, 0, 0, 0), drop(24, 2, 0, 0, 0)"
"""Takes from root the right to write and to read what it has no permission for; see test_bad_input.py."""


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    """A proxy for a space of eight architectures that was not checked. Do not change it: copy it."""
    return build_unchecked(tmp_path_factory.mktemp("eight"), EIGHT, session_store)


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    """The same for sixteen. Do not change it: copy it."""
    return build_unchecked(tmp_path_factory.mktemp("sixteen"), SIXTEEN, session_store)


def build_unchecked(folder: Path, recipe: str, store: Path) -> Path:
    (folder / "recipe.yaml").write_text(recipe)
    return proxyds.build(folder / "recipe.yaml", folder / "proxy", store=Store(store), device="cpu").folder


@pytest.fixture(scope="module")
def names(eight: Path) -> list[str]:
    """The eight architectures, from the lightest."""
    return [each.name for each in list_architectures(read_recipe(eight / "recipe.yaml").space, 10, (1, 8, 8))]


@pytest.fixture
def proxy(eight: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(eight, tmp_path / "proxy"))


@pytest.fixture
def four(tiny_proxy: Path, tmp_path: Path) -> Path:
    """A proxy for a space of four architectures."""
    return Path(shutil.copytree(tiny_proxy, tmp_path / "four"))


@pytest.fixture
def run_after(tmp_path: Path) -> Run:
    """Runs some Python, then `proxyds` in the same process."""

    def run(first: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        code = f"import os, sys\n{first}\nos.execv(sys.executable, [sys.executable, '-m', 'proxyds', *sys.argv[1:]])"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "120"},
            timeout=300,
        )

    return run


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder but the store."""
    paths = [path for path in sorted(folder.rglob("*")) if path.relative_to(folder).parts[0] != "store"]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture
def refused(tmp_path: Path, run_here: Run) -> Callable[..., str]:
    """Runs a command that must fail with an exit code and one message and change nothing; returns the message."""

    def check(code: int, *arguments: str | Path, run: Run = run_here) -> str:
        before = tree(tmp_path)
        done = run(*arguments)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("proxyds: ")
        assert done.stderr.count("proxyds: ") == 1
        message = done.stderr.removeprefix("proxyds: ").strip()
        if "--json" in arguments:
            told = json.loads(done.stdout)
            assert (told["exit_code"], told["message"]) == (code, message)
            assert getattr(errors, told["error"]).exit_code == code
        else:
            assert done.stdout == ""
        assert tree(tmp_path) == before
        return message

    return check


def quiet(*arguments: str | Path) -> tuple[str | Path, ...]:
    return ("check", *arguments, "-q", "--workers", "1")


# Proxies that cannot be checked


def test_a_check_of_a_folder_that_is_not_there_is_refused(
    refused: Callable[..., str], run_proxyds: Run, tmp_path: Path
) -> None:
    said = refused(50, "check", "nowhere", run=run_proxyds)
    assert said.startswith(f"{tmp_path / 'nowhere'}: no such folder; `proxyds list` shows")


@pytest.mark.parametrize("option", ["--json", "--dry-run", "--strict"])
def test_a_check_of_a_folder_that_is_no_proxy_is_refused(
    refused: Callable[..., str], tmp_path: Path, option: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").write_text("mine")
    assert "folder: must be a proxy, it has no manifest.json; `proxyds build" in refused(50, *quiet("folder", option))


def test_a_check_of_a_file_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file: must be a proxy" in refused(50, *quiet("file"))


def damage(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


DATA = "data/train-00000-of-00004.parquet"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (lambda proxy: damage(proxy / DATA), f"{DATA}: its bytes have changed (sha256)"),
    "missing": (lambda proxy: (proxy / DATA).unlink(), f"{DATA}: missing"),
    "another file": (lambda proxy: (proxy / "mine.txt").write_text("mine"), "mine.txt: not in the manifest"),
    "in the folder of runs": (
        lambda proxy: ((proxy / "ranking").mkdir(), (proxy / "ranking" / "mine.parquet").write_text("mine")),
        "ranking/mine.parquet: not in the manifest",
    ),
}


@pytest.mark.parametrize("option", ["--json", "--dry-run"])
@pytest.mark.parametrize(("do", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_proxy_is_not_checked(
    refused: Callable[..., str], proxy: Path, do: Callable[[Path], object], said: str, option: str
) -> None:
    do(proxy)
    advice = "move away what is not in the manifest" if "not in the manifest" in said else "fetch or build it again"
    assert f"\n  {said}\n{advice}" in refused(50, *quiet("proxy", option))


def test_a_proxy_whose_recipe_was_changed_is_not_checked(refused: Callable[..., str], proxy: Path) -> None:
    recipe = proxy / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 5", "epochs: 6"))
    assert "proxy/recipe.yaml: must be the recipe that the proxy was built from" in refused(10, *quiet("proxy"))
    recipe.write_text("name: [")
    assert "proxy/recipe.yaml:" in refused(10, *quiet("proxy"))
    recipe.unlink()
    assert "proxy/recipe.yaml: no such recipe" in refused(10, *quiet("proxy"))


def test_a_proxy_for_too_few_architectures_is_not_checked(refused: Callable[..., str], four: Path) -> None:
    for option in ("--json", "--dry-run"):
        said = refused(60, *quiet("four", option))
        assert said.startswith("check: must have at least 5 architectures to speak of a ranking, the space holds 4;")


def test_a_recipe_with_a_check_of_too_few_architectures_is_refused_with_its_place(
    refused: Callable[..., str], write_recipe_file: Callable[..., Path]
) -> None:
    write_recipe_file(f"{TINY_RECIPE}check: {{}}\n")
    for command in (("validate", "recipe.yaml", "--json"), ("build", "recipe.yaml", "-q")):
        said = refused(10, *command)
        assert said.startswith(
            "recipe.yaml:5:12 space.choices: must make at least 5 architectures for their ranking to be"
        )
        assert "found 4" in said


# Settings


SETTINGS = {
    "unknown": ("{drws: 2}", 10, "8:9 check.drws: unknown key; did you mean `draws`? known: architectures, controls, draws, "),
    "unknown below": ("{reference: {path: a, file: b}}", 10, "8:30 check.reference.file: unknown key; known: accuracy_column, "),
    "no draws": ("{draws: 0}", 10, "8:16 check.draws: must be at least 1, got 0; for example 5"),
    "half a draw": ("{draws: 2.5}", 10, "8:16 check.draws: must be a whole number, got 2.5; for example 5"),
    "no seeds": ("{full_seeds: 0}", 10, "8:21 check.full_seeds: must be at least 1, got 0; for example 3"),
    "few": ("{architectures: 4}", 10, "8:24 check.architectures: must be at least 5, got 4; for example 12"),
    "ratio 0": ("{ratios: [0]}", 10, "8:18 check.ratios[0]: must be in (0, 1], got 0; for five percent write 0.05"),
    "ratio 5": ("{ratios: [0.2, 5]}", 10, "8:23 check.ratios[1]: must be in (0, 1], got 5; for five percent write"),
    "ratios twice": ("{ratios: [0.2, 0.2]}", 10, "8:17 check.ratios: must hold each choice once, 0.2 "),
    "target": ("{target: 3}", 10, "8:17 check.target: must be at most 1, got 3; for example 0.7"),
    "threshold": ("{threshold: 70}", 10, "8:20 check.threshold: must be at most 1, got 70; for example 0.7"),
    "no path": ("{reference: {accuracy_column: top1}}", 10, "must be given, it is missing; add it (for example `path: "),
    "reference": ("{reference: 3}", 10, "8:20 check.reference: must be "),
}  # fmt: skip


@pytest.mark.parametrize(("section", "code", "said"), SETTINGS.values(), ids=SETTINGS)
def test_a_bad_section_check_is_refused_with_its_place_and_advice(
    refused: Callable[..., str], write_recipe_file: Callable[..., Path], section: str, code: int, said: str
) -> None:
    write_recipe_file(f"{EIGHT}check: {section}\n")
    found = refused(code, "validate", "recipe.yaml", "--json")
    assert said in found
    assert found.startswith("recipe.yaml:8:")
    assert found.count("\n") == 0  # one problem, told once


ASSIGNMENTS = {
    "check.drws=2": (10, "check.drws: unknown key; did you mean `draws`?"),
    "check.draws=0": (10, "check.draws: must be at least 1, got 0; for example 5"),
    "check.architectures=4": (10, "check.architectures: must be at least 5, got 4; for example 12"),
    "check.threshold=2": (10, "check.threshold: must be at most 1, got 2; for example 0.7"),
    "check=3": (10, "check: must be "),
}


@pytest.mark.parametrize("option", ["--json", "--dry-run"])
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_a_bad_assignment_to_the_check_is_refused_with_advice(
    refused: Callable[..., str], proxy: Path, assignment: str, option: str
) -> None:
    code, said = ASSIGNMENTS[assignment]
    assert refused(code, *quiet("proxy", "--set", assignment, option)).startswith(
        f"override (--set) {assignment}: {said}"
    )


@pytest.mark.parametrize("assignment", ["selection.ratio=0.3", "training.epochs=6", "seed=1", "name=other"])
def test_a_check_does_not_change_what_the_proxy_was_made_from(
    refused: Callable[..., str], proxy: Path, assignment: str
) -> None:
    said = refused(10, *quiet("proxy", "--set", assignment, "--set", "check.draws=1", "--json"))
    assert "recipe.yaml: must be the recipe that the proxy was built from, but for the section check; found" in said
    assert said.endswith("set check.* alone, or build again")


RATIOS = {
    "5": (10, "check.ratios[0]: must be in (0, 1], got 5; for five percent write 0.05"),
    "0.2,0": (10, "check.ratios[1]: must be in (0, 1], got 0; for five percent write 0.05"),
    "abc": (10, 'check.ratios[0]: must be a number, got "abc"'),
    "nan": (10, "check.ratios[0]: must be "),
    "0.2,0.2": (10, "check.ratios: must hold each choice once"),
    "0.2;0.3": (10, "check.ratios[0]: must be a number"),
    "0.2]": (10, "not valid YAML"),
}


@pytest.mark.parametrize("ratios", RATIOS)
def test_bad_ratios_are_refused(refused: Callable[..., str], proxy: Path, ratios: str) -> None:
    code, said = RATIOS[ratios]
    assert said in refused(code, *quiet("proxy", "--ratios", ratios, "--json"))


def test_a_ratio_that_leaves_a_label_without_samples_is_refused_before_anything_is_trained(
    refused: Callable[..., str], proxy: Path
) -> None:
    for option in ("--json", "--dry-run"):
        said = refused(20, *quiet("proxy", "--ratios", "0.2,0.001", option))
        assert "must leave every label a sample; 0.001 of 1,295 is" in said
        assert said.endswith("use 0.0085 or more")
        assert said.startswith("check.ratios")  # the proxy's own selection.ratio is not what is wrong


@pytest.mark.parametrize("target", ["3", "-1.5", "high"])
def test_a_target_that_is_no_correlation_is_a_wrong_command_line(run_here: Run, proxy: Path, target: str) -> None:
    before = tree(proxy)
    done = run_here(*quiet("proxy", "--target", target))
    assert done.returncode == 2
    assert "Invalid value for '--target': " in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(proxy) == before


def test_a_target_that_is_no_number_is_refused(refused: Callable[..., str], proxy: Path) -> None:
    assert "check.target: must be a number" in refused(10, *quiet("proxy", "--target", "nan", "--json"))


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(refused: Callable[..., str], proxy: Path, device: str) -> None:
    refused(15, *quiet("proxy", "--device", device, "--json"))


# References


@pytest.mark.parametrize("option", ["--json", "--dry-run"])
def test_a_reference_that_is_not_there_is_refused(
    refused: Callable[..., str], proxy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    said = refused(60, *quiet("proxy", "--reference", "known.csv", option))
    assert said.startswith("check.reference: must be a CSV file or a proxy's folder, found nothing at ")
    assert f"{tmp_path / 'known.csv'}" in said


@pytest.mark.parametrize("name", ["known.csv", 'it\'s "known" #1.csv', "größe.csv", "\U0001f600.csv", "a\\b.csv"])
def test_a_reference_may_have_any_name_and_must_hold_every_architecture(
    refused: Callable[..., str], proxy: Path, names: list[str], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("architecture,accuracy\n" + "".join(f"{each},0.5\n" for each in names[:6]))
    said = refused(60, *quiet("proxy", "--reference", name, "--json"))
    assert said.startswith(
        f"{tmp_path / name}: must hold every architecture that is checked; it misses 2 of 8, such as "
    )


def test_a_reference_in_other_words_is_refused(
    refused: Callable[..., str], proxy: Path, names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "known.csv").write_text("model,top1\n" + "".join(f"{each},0.5\n" for each in names))
    said = refused(60, *quiet("proxy", "--reference", "known.csv"))
    assert "it lacks architecture, accuracy" in said
    assert "model, top1" in said


def test_a_folder_that_is_no_proxy_is_no_reference(refused: Callable[..., str], proxy: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "folder: must be a proxy" in refused(50, *quiet("proxy", "--reference", "folder"))


def test_a_proxy_that_was_not_checked_or_made_otherwise_is_no_reference(
    refused: Callable[..., str], proxy: Path, four: Path, tmp_path: Path
) -> None:
    said = refused(60, *quiet("proxy", "--reference", "four"))
    assert said.startswith("check.reference: proxy tiny 1.0.0 must have been checked; run `proxyds check`")
    other = Path(shutil.copytree(four, tmp_path / "other"))
    recipe = other / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 5", "epochs: 6"))
    assert "must have the same training on everything as this proxy" in refused(
        60, *quiet("proxy", "--reference", "other")
    )


# Runs that were made elsewhere

Accuracies = Mapping[str, Sequence[float] | np.ndarray]


def write_runs(
    path: Path,
    names: list[str],
    accuracies: Accuracies,
    *,
    backwards: bool = False,
    digits: int = 3,
    noise: float = 0.001,
) -> Path:
    """Writes a table of runs: for each data set the accuracies of the architectures, twice with a little noise."""
    rows = [
        (
            name,
            dataset,
            f"{accuracy + repeat * noise:.{digits}f}",
            "" if dataset in ("full", "fewer-epochs") else repeat,
            repeat,
        )
        for dataset, of_set in accuracies.items()
        for repeat in range(2)
        for name, accuracy in zip(names, of_set, strict=True)
    ]
    with path.open("w", newline="") as held:
        table = csv.writer(held)
        table.writerow(["architecture", "dataset", "accuracy", "draw_seed", "training_seed"])
        table.writerows(rows[::-1] if backwards else rows)
    return path


RISING = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85]
"""The heavier an architecture, the better: as counting FLOPs has it."""
FALLING = RISING[::-1]
PERFECT = {"full": FALLING, "proxy": FALLING, "random": RISING, "stratified": RISING, "fewer-epochs": RISING}


def make_accuracies(verdict: str, n_parameters: np.ndarray) -> Accuracies:
    """Makes up accuracies that earn a verdict, of architectures whose FLOPs rise."""
    n = len(n_parameters)
    rising = np.linspace(0.5, 0.85, n)
    perfect: dict[str, np.ndarray] = dict.fromkeys(PERFECT, rising) | dict.fromkeys(("full", "proxy"), rising[::-1])
    # ranked by nothing that parameters tell, as the controls are; and what parameters make a perfect ranking of that
    unlike = rising[np.random.default_rng(8).permutation(n)]
    less_parameters = 0.7 + 0.05 * (normal_scores(unlike) - 0.5 * normal_scores(n_parameters))
    by_parameters = 0.5 + 0.3 * n_parameters / n_parameters.max()
    weak = rising[::-1].copy()
    weak[[0, -1, 1, -2]] = weak[[-1, 0, -2, 1]]
    return {
        "preserves the ranking": perfect,
        "ranks better than its controls": perfect | {"proxy": weak},
        "not enough evidence": {name: perfect[name] for name in ("full", "proxy")},
        "no better than fewer epochs": perfect | {"fewer-epochs": rising[::-1]},
        "no better than counting FLOPs": perfect | {"full": rising, "proxy": rising, "random": rising[::-1]},
        "no better than counting parameters": perfect
        | {"full": by_parameters, "proxy": by_parameters, "random": rising[::-1]},
        "no better than random": perfect | {"random": rising[::-1]},
        "worse than random": perfect | {"proxy": rising, "random": rising[::-1]},
        "no better than random with parameters": {
            **dict.fromkeys(("full", "proxy"), unlike),
            "random": less_parameters,
            "fewer-epochs": 1.4 - unlike,
        },
    }[verdict]


WORSE_THAN_RANDOM: Accuracies = {**PERFECT, "proxy": RISING, "random": FALLING}


@pytest.fixture
def perfect(names: list[str], tmp_path: Path) -> Path:
    return write_runs(tmp_path / "runs.csv", names, PERFECT)


TABLES = {
    "no such file": (None, "runs.csv: must be a CSV file"),
    "empty": ("", "runs.csv: must be a CSV file with the columns architecture, dataset, accuracy; it is empty"),
    "header only": ("architecture,dataset,accuracy\n", "runs.csv: must hold rows, it has none"),
    "no data set": ("architecture,accuracy\nx,0.5\n", "it lacks dataset"),
    "unknown architecture": (
        "architecture,dataset,accuracy\nx,full,0.5\n",
        "runs.csv:2 architecture: must be one of the search space's 8, got 'x'; known: resnet depth=8",
    ),
    "a quote": ('architecture,dataset,accuracy\n"x,full,0.5\n', "runs.csv: must be a CSV file that can be read: "),
}


@pytest.mark.parametrize(("text", "said"), TABLES.values(), ids=TABLES)
def test_a_malformed_table_of_runs_is_refused(
    refused: Callable[..., str], proxy: Path, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "runs.csv").write_text(text)
    assert said in refused(60, *quiet("proxy", "--runs", "runs.csv", "--json"))


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("full", "check: must have accuracies on full data, there are none"),
        ("proxy", "check: must have accuracies on the proxy at its ratio 0.1, there are none"),
    ],
)
def test_runs_without_what_is_compared_are_refused(
    refused: Callable[..., str], proxy: Path, names: list[str], tmp_path: Path, lacks: str, said: str
) -> None:
    write_runs(tmp_path / "runs.csv", names, {key: value for key, value in PERFECT.items() if key != lacks})
    assert refused(60, *quiet("proxy", "--runs", "runs.csv", "--json")).startswith(said)


def test_runs_that_cannot_be_ranked_are_refused(
    refused: Callable[..., str], proxy: Path, names: list[str], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs.csv", names, {**PERFECT, "proxy": [0.1] * 8})
    said = refused(60, *quiet("proxy", "--runs", "runs.csv"))
    assert said.startswith(
        "check: accuracies must differ to be ranked; all 8 architectures have 0.1 on proxy 0.1, number 1"
    )


def test_runs_of_too_few_architectures_are_refused(
    refused: Callable[..., str], proxy: Path, four: Path, names: list[str], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs.csv", names[:4], {name: of_set[:4] for name, of_set in PERFECT.items()})
    said = refused(60, *quiet("proxy", "--runs", "runs.csv"))
    assert said.startswith("check: must have at least 5 architectures with every run to speak of a ranking, found 4")
    of_four = [each.name for each in list_architectures(read_recipe(four / "recipe.yaml").space, 10, (1, 8, 8))]
    write_runs(tmp_path / "runs.csv", of_four, {name: of_set[:4] for name, of_set in PERFECT.items()})
    assert "must have at least 5 architectures" in refused(60, *quiet("four", "--runs", "runs.csv"))


def test_a_proxy_of_the_first_format_must_be_built_again_for_runs_made_elsewhere(
    refused: Callable[..., str], proxy: Path, perfect: Path
) -> None:
    manifest = make_former(proxy, "1.0")
    del manifest["image_shape"], manifest["evidence"]
    (proxy / "manifest.json").write_text(json.dumps(manifest))
    verify_proxy(proxy)
    said = refused(50, *quiet("proxy", "--runs", perfect))
    assert said.endswith("must say its images' shape, which format 1.0 did not; build it again")


def test_a_proxy_that_may_not_be_written_is_left_as_it_was(
    refused: Callable[..., str], run_after: Run, proxy: Path, perfect: Path
) -> None:
    folders = [proxy, *(path for path in proxy.rglob("*") if path.is_dir())]

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        for folder in folders:
            folder.chmod(0o500)
        try:
            return run_after(NOT_ALMIGHTY, *arguments)
        finally:
            for folder in folders:
                folder.chmod(0o700)

    assert "may not be written" in refused(40, *quiet("proxy", "--runs", perfect), run=run)


def test_a_check_that_finds_the_disk_full_can_be_done_again(
    pictures: None, run_here: Run, proxy: Path, perfect: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # the table of runs is smaller, pictures are larger
    try:
        done = run_here(*quiet("proxy", "--runs", perfect))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (done.returncode, done.stdout) == (40, "")
    assert done.stderr.startswith(f"proxyds: {proxy}: no space left to write it; free some space, or copy")
    with pytest.raises(errors.VerificationError):
        verify_proxy(proxy)
    assert run_here(*quiet("proxy", "--runs", perfect)).returncode == 0
    verify_proxy(proxy)
    assert not list(proxy.rglob(".*"))


def test_runs_made_elsewhere_become_the_proxys_evidence(
    run_here: Run, proxy: Path, perfect: Path, names: list[str], tmp_path: Path
) -> None:
    before = tree(proxy)
    assert "Not checked yet" in (proxy / "README.md").read_text()
    done = run_here(*quiet("proxy", "--runs", "runs.csv"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("verdict: preserves the ranking. The proxy's Kendall tau is ")
    assert "(table runs.csv)" in done.stdout

    evidence = read_manifest(proxy).evidence
    assert evidence is not None
    assert (evidence.verdict, evidence.passed, evidence.reference) == ("preserves the ranking", None, "table runs.csv")
    assert (evidence.n_architectures, evidence.n_full_seeds, evidence.n_draws) == (8, 2, 2)
    assert (evidence.left_out, evidence.failures) == ((), ())
    taus = {each.method: each.statistics["tau"].value for each in evidence.methods if each.ranked_by == "accuracy"}
    assert taus == pytest.approx(
        {**dict.fromkeys(taus, -1), "full": 1, "proxy": 1, "parameters": taus["parameters"]}
    )  # fmt: skip

    assert run_here("verify", "proxy").returncode == 0
    assert run_here("card", "proxy", "--check").returncode == 0
    assert "verdict: preserves the ranking." in run_here("inspect", "proxy").stdout
    card = (proxy / "README.md").read_text()
    assert "> **Preserves the ranking.** Kendall tau " in card
    assert "The proxy's Kendall tau is 2.00 \\[1.93, 2.07\\] above random subsets" in card
    assert "Not checked yet" not in card

    after = tree(proxy)
    changed = {name for name in after if after[name] is not None and after[name] != before.get(name)}
    assert changed == {
        *("README.md", "croissant.json", "manifest.json", "recipe.yaml", "ranking/ranking-00000-of-00001.parquet"),
        *("assets/correlation.png", "assets/orders.png", "assets/accuracy.png"),
    }
    assert not set(before) - set(after)
    assert read_recipe(proxy / "recipe.yaml").sha256 == read_manifest(proxy).recipe_sha256

    rows = load_dataset(str(proxy), "ranking", cache_dir=str(tmp_path / "cache"))["ranking"]
    assert rows.num_rows == 8 * 2 * 5
    assert {(row["dataset"], row["origin"]) for row in rows} == {(name, "table runs.csv") for name in PERFECT}
    proxies = [row for row in rows if (row["dataset"], row["draw_seed"]) == ("proxy", 1)]
    assert [(row["architecture"], row["accuracy"]) for row in proxies] == [
        (name, pytest.approx(accuracy + 0.001)) for name, accuracy in zip(names, FALLING, strict=True)
    ]
    assert {(row["ratio"], row["training_seed"], row["n_steps"]) for row in proxies} == {(0.1, 1, None)}


def test_the_same_runs_in_any_order_give_the_same_bytes_again(
    run_here: Run, proxy: Path, perfect: Path, names: list[str], tmp_path: Path
) -> None:
    assert run_here(*quiet("proxy", "--runs", "runs.csv")).returncode == 0
    first = tree(proxy)
    write_runs(tmp_path / "runs.csv", names, PERFECT, backwards=True)
    assert run_here(*quiet("proxy", "--runs", "runs.csv")).returncode == 0
    verify_proxy(proxy)
    again = tree(proxy)
    assert again.keys() == first.keys()
    assert {name for name in first if again[name] != first[name]} <= {
        "README.md",
        "manifest.json",
    }  # which tell the time


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_strict_exits_with_3_unless_the_ranking_is_preserved(
    run_here: Run, sixteen: Path, tmp_path: Path, verdict: str
) -> None:
    folder = shutil.copytree(sixteen, tmp_path / "proxy")
    architectures = list_architectures(read_recipe(folder / "recipe.yaml").space, 10, (1, 8, 8))
    n_parameters = np.array([float(each.n_parameters) for each in architectures])
    write_runs(tmp_path / "runs.csv", [each.name for each in architectures], make_accuracies(verdict, n_parameters))
    done = run_here(*quiet("proxy", "--runs", "runs.csv", "--strict"))
    assert done.stdout.startswith(f"verdict: {verdict}. "), done.stdout
    assert done.returncode == (0 if verdict == "preserves the ranking" else 3)
    assert (verdict in done.stderr) == bool(done.returncode)
    assert f"> **{verdict[0].upper()}{verdict[1:]}.** " in (folder / "README.md").read_text()
    verify_proxy(folder)


def reorder(places: np.ndarray, tau: float, seed: int) -> np.ndarray:
    """Exchanges neighbours of a falling order until Kendall's tau with it is this, or just below."""
    rng, order = np.random.default_rng(seed), places.copy()
    while kendalltau(places, order).statistic > tau:
        i = rng.choice(np.flatnonzero(np.diff(order) < 0))
        order[[i, i + 1]] = order[[i + 1, i]]
    return order


def test_a_tau_of_26_beside_a_ceiling_of_96_preserves_no_ranking(run_here: Run, sixteen: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sixteen, tmp_path / "proxy")
    names = [each.name for each in list_architectures(read_recipe(folder / "recipe.yaml").space, 10, (1, 8, 8))]
    best_first = np.arange(16)[::-1]  # the cheapest is the best, so that no counting ranks
    taus = {"full": 0.97, "proxy": 0.25, "random": -0.6, "stratified": -0.6, "fewer-epochs": -0.6}
    rows = []
    for dataset, tau in taus.items():
        for repeat in range(3):
            order = reorder(best_first, tau, repeat + 10 * list(taus).index(dataset))
            draw = "" if dataset in ("full", "fewer-epochs") else repeat
            rows += [
                f"{name},{dataset},{0.4 + place / 50},{draw},{repeat}" for name, place in zip(names, order, strict=True)
            ]
    (tmp_path / "runs.csv").write_text("\n".join(["architecture,dataset,accuracy,draw_seed,training_seed", *rows, ""]))
    done = run_here(*quiet("proxy", "--runs", "runs.csv", "--strict"))
    evidence = read_manifest(folder).evidence
    assert evidence is not None
    taus_found = {
        each.method: each.statistics["tau"].value for each in evidence.methods if each.ranked_by == "accuracy"
    }
    assert taus_found["full"] == pytest.approx(0.96, abs=0.015)
    assert taus_found["proxy"] == pytest.approx(0.26, abs=0.015)
    assert evidence.compare_with("random", 0.1, "accuracy").outcome == "better"
    assert evidence.verdict != "preserves the ranking"
    assert (done.returncode, "not enough evidence" in done.stderr or "ranks better" in done.stderr) == (3, True)


@pytest.mark.parametrize(("level", "words"), [(0.1, "train longer"), (0.995, "train shorter")])
def test_accuracies_that_test_samples_cannot_rank_are_cautioned(
    run_here: Run, proxy: Path, names: list[str], tmp_path: Path, level: float, words: str
) -> None:
    saturated = [level + 0.0002 * i for i in range(8)]
    with_repeats = dict(PERFECT) | {"full": saturated, "proxy": saturated}
    write_runs(tmp_path / "runs.csv", names, with_repeats, digits=5, noise=1e-5)
    told = json.loads(run_here(*quiet("proxy", "--runs", "runs.csv", "--json")).stdout)
    assert words in told["caution"]
    assert words in (proxy / "README.md").read_text()
    assert words in run_here("inspect", "proxy").stdout
    manifest = json.loads((proxy / "manifest.json").read_text())
    manifest["evidence"]["caution"] = "Former words."  # of a version that said it otherwise
    (proxy / "manifest.json").write_text(json.dumps(manifest))
    shown = run_here("inspect", "proxy")
    assert shown.returncode == 0, shown.stderr
    assert words in shown.stdout
    assert "Former words" not in shown.stdout


def test_architectures_that_are_always_right_are_refused_and_told_to_train_shorter(
    refused: Callable[..., str], proxy: Path, names: list[str], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs.csv", names, {**PERFECT, "full": [1.0] * 8, "proxy": [1.0] * 8}, noise=0)
    assert "train shorter" in refused(60, *quiet("proxy", "--runs", "runs.csv", "--strict"))


def test_a_verdict_is_no_failure_unless_it_is_asked_to_be(
    run_here: Run, proxy: Path, names: list[str], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs.csv", names, WORSE_THAN_RANDOM)
    done = run_here(*quiet("proxy", "--runs", "runs.csv"))
    assert done.stdout.startswith("verdict: worse than random. ")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_proxy_below_its_threshold_exits_with_3_and_keeps_the_evidence(
    run_here: Run, proxy: Path, names: list[str], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs.csv", names, WORSE_THAN_RANDOM)
    done = run_here(*quiet("proxy", "--runs", "runs.csv", "--set", "check.threshold=0.7"))
    assert done.returncode == 3
    assert done.stderr == "proxyds: the lower end of Kendall tau's interval is below check.threshold = 0.7\n"
    assert re.search(r"threshold 0.7 for the lower end of Kendall tau, -?\d\.\d\d: NOT passed", done.stdout)
    manifest = verify_proxy(proxy)
    assert manifest.evidence is not None
    assert manifest.evidence.passed is False
    assert "it does **not**" in (proxy / "README.md").read_text()
    # the threshold stands in the proxy's recipe from now on
    assert run_here(*quiet("proxy", "--runs", "runs.csv", "--strict")).returncode == 3


def test_a_proxy_that_reaches_its_threshold_passes(run_here: Run, proxy: Path, perfect: Path) -> None:
    done = run_here(*quiet("proxy", "--runs", perfect, "--set", "check.threshold=0.6", "--strict"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "threshold 0.6 for the lower end of Kendall tau, 0.67: passed" in done.stdout


def test_json_is_the_evidence(run_here: Run, proxy: Path, perfect: Path) -> None:
    done = run_here(*quiet("proxy", "--runs", perfect, "--json", "--set", "check.threshold=0.6"))
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    evidence = read_manifest(proxy).evidence
    assert evidence is not None
    assert told == json.loads(evidence.model_dump_json())
    assert (told["verdict"], told["passed"]) == ("preserves the ranking", True)
    assert told["check"]["threshold"] == 0.6


def test_json_is_the_evidence_of_a_proxy_below_its_threshold_too(
    run_here: Run, proxy: Path, names: list[str], tmp_path: Path
) -> None:
    write_runs(tmp_path / "runs.csv", names, WORSE_THAN_RANDOM)
    done = run_here(*quiet("proxy", "--runs", "runs.csv", "--json", "--set", "check.threshold=0.7"))
    assert done.returncode == 3
    assert (json.loads(done.stdout)["verdict"], json.loads(done.stdout)["passed"]) == ("worse than random", False)


def test_runs_of_several_ratios_name_the_smallest_that_is_large_enough(
    run_here: Run, proxy: Path, names: list[str], tmp_path: Path
) -> None:
    table = write_runs(tmp_path / "runs.csv", names, PERFECT)
    more = {0.05: RISING, 0.2: FALLING, 0.4: FALLING}
    others = [f"{name},proxy,{accuracy},0,0,{ratio}" for ratio, of_ratio in more.items()
              for name, accuracy in zip(names, of_ratio, strict=True)]  # fmt: skip
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},ratio", *(f"{line}," for line in lines[1:]), *others, ""]))
    done = run_here(*quiet("proxy", "--runs", "runs.csv", "--ratios", "0.05,0.2,0.4", "--target", "0.6"))
    assert done.returncode == 0, done.stderr
    assert "smallest ratio whose lower end reaches 0.6: 0.1\n" in done.stdout
    assert "The smallest ratio whose lower end reaches 0.6: **10 %**." in (proxy / "README.md").read_text()
    assert (proxy / "assets" / "ratios.png").is_file()
    verify_proxy(proxy)
    # and without them, what only they had is gone
    write_runs(tmp_path / "runs.csv", names, PERFECT)
    assert run_here(*quiet("proxy", "--runs", "runs.csv", "--ratios", "")).returncode == 0
    assert not (proxy / "assets" / "ratios.png").exists()
    verify_proxy(proxy)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("--reference", "gone.csv"), "check.reference (--reference): must be left out"),
        (("--set", "check.reference=gone.csv"), "check.reference (--reference): must be left out"),
        (("--source", "."), "source: must be left out"),
        (("--dry-run",), "Leave out --dry-run"),
    ],
)
def test_runs_bring_their_own_reference_and_train_nothing(
    run_here: Run, proxy: Path, perfect: Path, other: tuple[str, ...], said: str
) -> None:
    ran = run_here(*quiet("proxy", "--runs", perfect, *other))
    assert ran.returncode in (2, 10)
    assert said in " ".join(ran.stderr.split())


def test_seeds_as_pandas_writes_them_are_read(run_here: Run, proxy: Path, names: list[str], tmp_path: Path) -> None:
    path = write_runs(tmp_path / "runs.csv", names, PERFECT)
    header, *lines = path.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    floats = [",".join([*row[:3], row[3] and f"{row[3]}.0", f"{row[4]}.0"]) for row in cells]
    path.write_text("\n".join([header, *floats, ""]))
    assert run_here(*quiet("proxy", "--runs", "runs.csv")).returncode == 0
    assert read_manifest(proxy).evidence.n_draws == 2
