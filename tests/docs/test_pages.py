"""Commands and code of the README and of the pages run as they stand, on a smaller check of the digits; and what cannot be run here says why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from proxyds.recipe.yaml import read_recipe
from proxyds.space.listing import list_architectures
from tests.commands import install_forked, run_forked_python
from tests.conftest import Run
from tests.shortcuts import WORKERS

ROOT = Path(__file__).parents[2]
NAMES = "first-proxy images candidates networks evidence ranking searching python publishing soft-labels"
RUN_HERE = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES.split())]
"""Pages whose commands run here one after the other, in this order, as who reads them would; then their Python."""
BLOCK = re.compile(
    r"(?P<reason><!-- not run: [^>]+ -->\n)?^```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A piece of code on a page."""

    page: Path
    language: str
    text: str
    is_run: bool


def list_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(page, each["language"], each["text"], not each["reason"]) for each in BLOCK.finditer(text)]


BETWEEN = "\n# next block\n"


def blocks(language: str) -> list[str]:
    return [each.text for page in RUN_HERE for each in list_blocks(page) if each.language == language and each.is_run]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the commands need of a checkout, with programs where the README finds them; the demo's check is a smaller one."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    demo = folder / "recipes" / "digits.yaml"
    demo.write_text(make_smaller(demo.read_text(encoding="utf-8"), SMALLER_DEMO), encoding="utf-8")
    (folder / "my-accuracies.csv").write_text(
        "architecture,accuracy\nresnet depth=8 base_filters=8,0.5\nresnet depth=14 base_filters=8,0.6\n"
    )
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:1000], digits.target, strict=False)):
        place = folder / "data" / "my-images" / "train" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(place / f"{number}.png")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (folder / "Makefile").write_text(makefile.replace("install: $(VENV)/installed", "install:"))
    with install_forked(programs / "proxyds"):
        yield folder


def run(command: list[str], checkout: Path, session_store: Path, **variables: str) -> str:
    environment = {**os.environ, "PROXYDS_STORE": str(session_store), **variables}
    ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def write_script() -> str:
    """Writes the commands of all pages as one script; where the README shows the recipe that its commands go on with, a smaller one is written."""
    parts = []
    for page in RUN_HERE:
        for each in list_blocks(page):
            if each.language == "sh" and each.is_run:
                parts.append(each.text)
            elif each.text.startswith("name:"):
                parts.append(f"cat > my-recipe.yaml <<'END'\n{make_smaller(each.text, SMALLER_RECIPE)}END\n")
    return "\n".join(parts)


SMALLER_DEMO = {
    "  epochs: 8 #": "  epochs: 2 #",
    "  epochs: 30 #": "  epochs: 4 #",
    "{ epochs: 8 }": "{ epochs: 2 }",
    "  draws: 3\n": "  draws: 1\n",
    "  full_seeds: 3\n": "  full_seeds: 1\n  architectures: 5\n",
}
SMALLER_RECIPE = {
    "image_size: 32": "image_size: 8",
    "training: {epochs: 13}": "training: {epochs: 3, batch_size: 32}",
    "[4, 8, 12, 16]": "[4, 8, 12]",
    "draws: 3, full_seeds: 3, full_training: {epochs: 40}": "draws: 1, full_seeds: 1, full_training: {epochs: 3}",
}
SMALLER_PYTHON = {
    '{"draws": 2, "full_seeds": 2}': '{"draws": 1, "full_seeds": 1}',
    'training, check = {"epochs": 5,': 'training, check = {"epochs": 2,',
    "for epoch in range(9):": "for epoch in range(3):",
    "for epoch in range(40):": "for epoch in range(10):",
}


def make_smaller(text: str, smaller: dict[str, str]) -> str:
    for setting, other in smaller.items():
        assert text.count(setting) == 1, setting
        text = text.replace(setting, other)
    return text


@pytest.mark.e2e
@pytest.mark.timeout(1500)  # builds, checks and searches the digits
def test_the_commands_run_in_order(checkout: Path, session_store: Path, hub_environment: dict[str, str]) -> None:
    shown = run(["bash", "-euc", write_script()], checkout, session_store, **hub_environment)
    assert "digits-proxy 1.0.0 built: digits-proxy" in shown
    assert "my-proxy 1.0.0 built: my-proxy" in shown
    assert "PngImageFile image mode=L size=8x8" in shown
    assert "cifar10-small-proxy 1.0.0" in shown
    assert "digits-proxy 1.0.0 published: me/digits-proxy@v1.0.0" in shown
    assert "digits-proxy 1.0.0 fetched and verified: digits-again" in shown
    assert "digits-5pct 1.0.0 drawn again: digits-5pct" in shown
    assert "digits-proxy 1.0.0 made from an index: digits-applied" in shown
    assert (checkout / "digits-from-the-shelf" / "manifest.json").is_file()
    environment, printed = {**os.environ, "PROXYDS_STORE": str(session_store), **hub_environment}, ""
    codes = make_smaller(BETWEEN.join(blocks("python")), SMALLER_PYTHON).split(BETWEEN)
    for number, code in enumerate(codes):  # the first, the README's own, with workers
        ran = run_forked_python(code, checkout, environment | ({WORKERS: "1"} if number == 0 else {}))
        assert ran.returncode == 0, ran.stderr
        printed += ran.stdout
    for reader in ("datasets", "webdataset"):
        assert re.search(rf"^by {reader} \['wide', 'narrow'\]", printed, re.MULTILINE)
    assert (checkout / "digits-20pct" / "manifest.json").is_file()
    assert re.search(r"^at random \{'depth': \d+, .*\} by halving \{'depth': \d+, .*\}$", printed, re.MULTILINE)
    assert re.search(r"^soft: accuracy 0\.[5-9]", printed, re.MULTILINE)
    assert re.search(r"^one shot resnet depth=\d+ base_filters=\d+ multiplier=\d+$", printed, re.MULTILINE)


@pytest.mark.e2e
def test_two_networks_are_ranked_without_proxyds_and_without_the_source(
    run_on_hub: Run, hub_environment: dict[str, str], repo: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    assert run_on_hub("push", tiny_proxy, repo).returncode == 0
    alone = {
        reader: next(code for code in blocks("python") if f'print("by {reader}"' in code)
        for reader in ("datasets", "webdataset")
    }
    found = []
    for reader, code in alone.items():
        script = tmp_path / reader / "rank.py"
        script.parent.mkdir()
        without = "import sys\n\nsys.modules['proxyds'] = sys.modules['sklearn'] = None  # the package, and the source of the digits\n"
        script.write_text(without + code.replace("me/digits-proxy", repo))
        environment = {**os.environ, **hub_environment, "HF_HOME": str(script.parent / "hf")}
        environment["PYTHONPATH"] = ""
        ran = subprocess.run(
            [sys.executable, str(script)], cwd=script.parent, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        said = re.fullmatch(rf"by {reader} (\['wide', 'narrow'\] .*)\n", ran.stdout)
        assert said, ran.stdout
        found.append(said[1])
    assert found[0] == found[1]  # both read the very samples


@pytest.mark.e2e
def test_networks_of_ones_own_are_a_search_space(tmp_path: Path, session_store: Path) -> None:
    (code,) = (code for code in blocks("python") if "FAMILIES" in code)
    (tmp_path / "my_networks.py").write_text(code)
    recipe = "name: towers\nspace: {network: tower, choices: {width: [4, 8], depth: [1, 2, 3]}}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    command = [sys.executable, "-m", "proxyds", "build", "recipe.yaml", "--dry-run", "--plugin", "my_networks"]
    assert "space: 6 architectures" in run(command, tmp_path, session_store)


def test_every_block_on_every_page_is_run_or_says_why_not() -> None:
    elsewhere = {
        page: [each for each in list_blocks(page) if each.is_run and each.language != "text"]
        for page in (ROOT / "docs").rglob("*.md")
        if page not in RUN_HERE
    }
    assert not {
        page: left for page, left in elsewhere.items() if [each for each in left if not each.language.startswith("{")]
    }
    known = {"sh", "python", "yaml", "text"}
    assert not [each for page in RUN_HERE for each in list_blocks(page) if each.is_run and each.language not in known]


def test_the_recipe_is_valid_and_the_mistakes_are_told_as_shown(tmp_path: Path) -> None:
    recipe, *_ = blocks("yaml")
    path = tmp_path / "my-recipe.yaml"
    path.write_text(recipe)
    assert read_recipe(path).selection.ratio == 0.1
    broken = recipe.replace("selection: {ratio: 0.1} #", "selection:\n  ratio: 5\n  drw: systematic #")
    path.write_text(broken)
    ran = subprocess.run(
        [sys.executable, "-m", "proxyds", "validate", "my-recipe.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    shown = next(block for block in blocks("text") if "problems" in block)
    assert ran.stderr == shown


def test_the_sections_that_are_shown_are_valid_and_make_what_they_say(tmp_path: Path) -> None:
    recipe, *sections = blocks("yaml")
    made = []
    for section in sections:
        name = section.partition(":")[0]
        path = tmp_path / "my-recipe.yaml"
        text, n = re.subn(rf"^{name}:.*\n(  .*\n)*", section, recipe, flags=re.MULTILINE)
        path.write_text(text if n else recipe + section)
        read = read_recipe(path)
        made.append((name, len(list_architectures(read.space, 10, (3, 32, 32))), read.selection.labels is not None))
        if read.space.network == "efficientnet":
            assert read.space.n_listed == 4 * 2 * 2
    assert made == [
        ("selection", 8, True),
        ("output", 8, False),
        ("space", 8, False),
        ("space", 5, False),
        ("training", 8, False),
    ]


def test_every_file_that_the_readme_links_to_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(links) > 3
    assert all((ROOT / link).exists() for link in links)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 180
    assert len(text.encode()) <= 12_000
    (code,) = [each.text for each in list_blocks(ROOT / "README.md") if each.language == "python"]
    assert len([line for line in code.splitlines() if line]) <= 15


def test_no_figure_was_left_to_be_filled_in() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").glob("*.yaml")]:
        assert not re.search(r"\b(MEASURED|CIFAR|DIGITS|TIMES)_[A-Z]+\b", path.read_text(encoding="utf-8")), path
