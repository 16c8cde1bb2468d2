"""What goes wrong, as a user meets it: an exit code of its own, one message that says where, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proxyds import errors
from tests.conftest import TINY_RECIPE, Run, read_tree

# Run before `proxyds` in its process.
LITTLE_SPACE = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
"""Lets no file grow beyond some bytes: writing more fails as on a full disk."""
NOT_ALMIGHTY = "import ctypes; drop = ctypes.CDLL(None).prctl; drop(24, 1, 0, 0, 0), drop(24, 2, 0, 0, 0)"
"""Takes from root the right to write (CAP_DAC_OVERRIDE) and read (CAP_DAC_READ_SEARCH) what it has no permission for."""

TINY_TRAINING = "training: {epochs: 5, batch_size: 16, learning_rate: 0.02, crop_padding: 0, horizontal_flip: false}\n"


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder: files' bytes, links' targets, folders; but for stores."""
    held: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] != "store":
            held[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return held


@pytest.fixture
def run_after(tmp_path: Path) -> Run:
    """Runs some Python, then `proxyds` in the same process, as `run_proxyds` does."""

    def run(first: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        code = f"import os, sys\n{first}\nos.execv(sys.executable, [sys.executable, '-m', 'proxyds', *sys.argv[1:]])"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            timeout=300,
        )

    return run


@pytest.fixture
def refused(tmp_path: Path, session_store: Path) -> Callable[..., str]:
    """Runs something that must fail with an exit code, one message, and no trace; returns the message."""

    def check(code: int, run: Run, *arguments: str | Path, **environment: str) -> str:
        before = tree(tmp_path)
        done = run(*arguments, **environment)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("proxyds: ")
        assert done.stderr.count("proxyds: ") == 1
        message = done.stderr.removeprefix("proxyds: ").strip()
        if "--json" in arguments:
            told = json.loads(done.stdout)
            assert told["exit_code"] == done.returncode
            assert told["message"] == message
            assert getattr(errors, told["error"]).exit_code == done.returncode
        else:
            assert done.stdout == ""
        assert tree(tmp_path) == before
        left, deadline = list(session_store.rglob(".unfinished-*")), time.monotonic() + 60
        while any(path.exists() for path in left):  # such as another test's, in the other worker
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        return message

    return check


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    yield folder
    folder.chmod(0o700)


def encoded_picture(label: int, number: int) -> bytes:
    """A picture of the colour of its label, easy to tell apart."""
    noise = np.random.default_rng(number).integers(0, 40, (8, 8, 3), np.uint8)
    colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))
    stream = io.BytesIO()
    Image.fromarray(noise + np.array(colours[label], np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_pictures(folder: Path, names: tuple[str, ...] = ("bee", "cat", "elk", "owl"), n: int = 40) -> None:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            (folder / name / f"{number:03d}.png").write_bytes(encoded_picture(label, label * n + number))


def folder_recipe(source: str = "{kind: folder, path: pictures}", rest: str = TINY_TRAINING) -> str:
    space = "space: {network: resnet, choices: {depth: 8, base_filters: [4, 8]}}\n"
    return f"name: tiny\nsource: {source}\n{space}selection: {{ratio: 0.2}}\n{rest}"


# Recipes


BAD_RECIPES = {
    "bad YAML": (TINY_RECIPE + "seed: [1\n", 10, "bad.yaml:9:1: not valid YAML"),
    "not a mapping": ("- name\n", 10, "bad.yaml:1:1: a recipe must be a mapping"),
    "duplicate key": (TINY_RECIPE + "name: again\n", 10, "bad.yaml:8:1 name: a key must stand once"),
    "unknown network": (
        TINY_RECIPE.replace("network: resnet", "network: resnt"),
        10,
        'bad.yaml:4:12 space.network: must be a known name (of a module of yours after load_plugins, --plugin), got "resnt"; did you mean `resnet`?',
    ),
    "unknown key": (TINY_RECIPE + "sede: 1\n", 10, "bad.yaml:8:1 sede: unknown key; did you mean `seed`?"),
    "ratio 0": (
        TINY_RECIPE.replace("ratio: 0.1", "ratio: 0"),
        10,
        "bad.yaml:6:20 selection.ratio: must be in (0, 1], got 0; for five percent write 0.05",
    ),
    "ratio 1.5": (
        TINY_RECIPE.replace("ratio: 0.1", "ratio: 1.5"),
        10,
        "bad.yaml:6:20 selection.ratio: must be in (0, 1], got 1.5; for five percent write 0.05",
    ),
    "constants negative": (
        TINY_RECIPE + "importance: {constants: [2, 1, -6, 1]}\n",
        10,
        "bad.yaml:8:32 importance.constants[2]: must be at least 0, got -6",
    ),
    "constants all zero": (
        TINY_RECIPE + "importance: {constants: [0, 0, 0, 0]}\n",
        10,
        "bad.yaml:8:25 importance.constants: must not all be zero: nothing could be drawn",
    ),
}


@pytest.mark.parametrize(("text", "code", "said"), BAD_RECIPES.values(), ids=BAD_RECIPES)
def test_a_bad_recipe_is_refused_with_its_place(
    refused: Callable[..., str],
    run_proxyds: Run,
    write_recipe_file: Callable[..., Path],
    text: str,
    code: int,
    said: str,
) -> None:
    write_recipe_file(text, "bad.yaml")
    assert refused(code, run_proxyds, "validate", "bad.yaml", "--json").startswith(said)


def test_a_missing_recipe_is_refused(refused: Callable[..., str], run_proxyds: Run) -> None:
    said = refused(10, run_proxyds, "validate", "nowhere.yaml")
    assert said.startswith("nowhere.yaml: no such recipe; `proxyds init nowhere.yaml` writes one")


def test_a_build_refuses_a_bad_recipe_before_anything_else(
    refused: Callable[..., str], run_proxyds: Run, write_recipe_file: Callable[..., Path]
) -> None:
    write_recipe_file()
    said = refused(10, run_proxyds, "build", "recipe.yaml", "-o", "out", "--set", "selection.ratio=5", "--json")
    assert (
        said
        == "override (--set) selection.ratio=5: selection.ratio: must be in (0, 1], got 5; for five percent write 0.05"
    )


def test_a_recipe_that_may_not_be_read_is_refused(
    refused: Callable[..., str], run_after: Run, write_recipe_file: Callable[..., Path]
) -> None:
    path = write_recipe_file()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        path.chmod(0)
        try:
            return run_after(NOT_ALMIGHTY, *arguments)
        finally:
            path.chmod(0o600)

    assert "recipe.yaml: the recipe cannot be read: Permission denied" in refused(10, run, "validate", "recipe.yaml")


def test_a_value_that_is_no_yaml_is_refused(
    refused: Callable[..., str], run_proxyds: Run, write_recipe_file: Callable[..., Path]
) -> None:
    write_recipe_file()
    said = refused(10, run_proxyds, "validate", "recipe.yaml", "--set", "seed=2026-13-45")
    assert said == "override (--set) seed=2026-13-45: the value is not valid YAML"


def test_an_unknown_preset_lists_the_known_ones(refused: Callable[..., str], run_proxyds: Run) -> None:
    said = refused(10, run_proxyds, "init", "new.yaml", "--preset", "digts")
    assert said.startswith("preset digts: must be a known preset; did you mean `digits`? known: ")


@pytest.mark.parametrize("there", ["recipe.yaml", "folder"])
def test_init_touches_nothing_that_is_there(
    refused: Callable[..., str], run_proxyds: Run, tmp_path: Path, there: str
) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    (tmp_path / "folder").mkdir()
    said = refused(40, run_proxyds, "init", there)
    assert said.startswith(f"{there}: is there already and was not touched")


def test_init_below_a_file_is_refused(refused: Callable[..., str], run_proxyds: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file/recipe.yaml" in refused(40, run_proxyds, "init", "file/recipe.yaml")


def test_init_without_permission_is_refused(refused: Callable[..., str], run_after: Run, locked: Path) -> None:
    said = refused(40, run_after, NOT_ALMIGHTY, "init", "locked/recipe.yaml")
    assert said.startswith("locked/recipe.yaml: may not be written")


def test_init_without_space_leaves_no_half_recipe(refused: Callable[..., str], run_after: Run) -> None:
    said = refused(40, run_after, LITTLE_SPACE.format(20), "init", "recipe.yaml")
    assert said.startswith("recipe.yaml: no space left to write it")


# Sources


def test_a_ratio_that_leaves_a_class_without_samples_says_which_would_do(
    refused: Callable[..., str], run_here: Run, write_recipe_file: Callable[..., Path], tiny_proxy: Path
) -> None:
    write_recipe_file()
    said = refused(20, run_here, "build", "recipe.yaml", "-q", "--set", "selection.ratio=0.002", "--json")
    # 1,295 of the digits are left to draw from, 125 of them an 8: of eleven samples, one can be
    assert said.startswith(
        "selection.ratio: must leave every label a sample; 0.002 of 1,295 is 3 samples, and label '8'"
    )
    assert said.endswith("use 0.0085 or more, or keep fewer labels: selection.labels: {keep: 3}")


def test_a_corrupt_image_is_named_or_left_out_and_counted_on_the_card(
    refused: Callable[..., str], run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "pictures")
    whole = encoded_picture(0, 1000)
    (tmp_path / "pictures" / "cat" / "017.png").write_bytes(whole[: len(whole) // 2])
    write_recipe_file(folder_recipe())
    build = ("build", "recipe.yaml", "-o", "out", "-q", "--json", "--workers", "1")
    said = refused(20, run_here, *build)
    assert said.startswith("source: every image must decode, 1 of 160 do not")
    assert "train[57] (cat/017.png): " in said
    assert "source.on_bad_image: skip" in said

    done = run_here(*build, "--set", "source.on_bad_image=skip")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"]["bad_images"] == ["train[57] (cat/017.png)"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "017.png" in card or "1 image" in card
    assert str(tmp_path) not in card


@pytest.mark.e2e
def test_probes_that_are_always_right_are_told_of_and_no_choice_by_cases_is_made(
    refused: Callable[..., str], run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "pictures")
    write_recipe_file(folder_recipe(rest=TINY_TRAINING.replace("epochs: 5", "epochs: 20")))
    build = ("build", "recipe.yaml", "-o", "out", "--json", "--workers", "1")
    done = run_here(*build, "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: probes: saturated")
    assert len(done.stderr.splitlines()) == 1
    assert [each["accuracy"] for each in json.loads(done.stdout)["probes"]] == [1, 1]
    assert "right on every evaluation sample" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    other = ("build", "recipe.yaml", "-o", "other", *build[4:])
    said = refused(30, run_here, *other, "-q", "--set", "selection.method=cases")
    assert said.startswith("probes: some must be wrong")


def _unlabelled(folder: Path) -> None:
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").write_bytes(encoded_picture(0, number))


def _single(folder: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["bee"])})
    images = [{"bytes": encoded_picture(0, number), "path": None} for number in range(8)]
    folder.mkdir()
    table = datasets.Dataset.from_dict({"image": images, "label": [0] * 8}, features)
    table.to_parquet(folder / "train.parquet")


def _whole(folder: Path) -> None:
    write_pictures(folder, n=4)


def _texts(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("no pictures\n")


BAD_SOURCES = {
    "missing": (None, "", 20, "source.path: must be a folder, found none at "),
    "empty": (Path.mkdir, "", 20, "source: must be a data set that can be opened, found none in pictures: "),
    "no images": (
        _texts,
        "",
        20,
        "source: must be a data set that can be opened, found none in pictures: it holds no ",
    ),
    "unknown split": (
        _whole,
        ", train_split: trian",
        20,
        "source.train_split: must be a split of the source, got 'trian'",
    ),
    "unlabelled": (_unlabelled, "", 20, "source: each image must lie in a folder that is named as its label, "),
    "single class": (_single, "", 20, "source: must have two labels or more, found 1"),
}


@pytest.mark.parametrize(("make", "key", "code", "said"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_a_source_that_is_none_is_refused(
    refused: Callable[..., str],
    run_here: Run,
    write_recipe_file: Callable[..., Path],
    tmp_path: Path,
    make: Callable[[Path], None] | None,
    key: str,
    code: int,
    said: str,
) -> None:
    if make:
        make(tmp_path / "pictures")
    write_recipe_file(folder_recipe(f"{{kind: folder, path: pictures{key}}}"))
    assert refused(code, run_here, "build", "recipe.yaml", "-o", "out", "-q", "--json").startswith(said)


# Output


def test_an_output_folder_that_is_something_else_is_not_touched(
    refused: Callable[..., str], run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_recipe_file()
    (tmp_path / "thesis" / "chapters").mkdir(parents=True)
    (tmp_path / "thesis" / "chapters" / "one.tex").write_text("precious")
    said = refused(40, run_here, "build", "recipe.yaml", "-o", "thesis", "-q", "--force", "--json")
    assert "thesis: must be a new folder or a proxy, it holds something else" in said
    assert "it was not touched: choose another folder" in said


def test_nothing_is_written_into_a_proxy_or_where_no_folder_can_be(
    refused: Callable[..., str], run_here: Run, write_recipe_file: Callable[..., Path], proxy: Path
) -> None:
    write_recipe_file()
    before = read_tree(proxy)
    (proxy.parent / "link").symlink_to(proxy / "data")
    for command in (
        ("resample", "proxy", "--seed", "5", "-o", "link/new", "-q"),
        ("build", "recipe.yaml", "-o", "proxy/data/new", "-q"),
        ("resample", "proxy", "--seed", "5", "-o", "proxy/new", "-q"),
        ("push", "proxy", f"file://{proxy}/new"),
        ("push", "proxy", f"file://{proxy.parent}/recipe.yaml"),
    ):
        said = refused(40, run_here, *command)
        assert "must not lie within the proxy" in said or "must be a folder, found a file" in said, command
    assert read_tree(proxy) == before
    done = run_here("resample", "proxy", "--seed", "5", "-o", "proxy/../beside", "-q")
    assert done.returncode == 0, done.stderr
    assert "no folders can be made there" in refused(
        40, run_here, "resample", "proxy", "--seed", "5", "-o", "/proc/x", "-q"
    )


def test_a_recipe_that_is_not_there_is_not_taken_for_a_place(refused: Callable[..., str], run_here: Run) -> None:
    assert "no such recipe" in refused(10, run_here, "inspect", "nowhere.yaml")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("recipe.yaml", "recipe.yaml: must be a folder, found a file; it was not touched"),
        ("recipe.yaml/out", "recipe.yaml/out"),
        ("o" * 300, "o" * 300),
        ("link", "link"),
    ],
    ids=["a file", "below a file", "a name that is too long", "a link to nowhere"],
)
def test_an_output_that_cannot_be_a_folder_is_refused_before_any_work(
    refused: Callable[..., str],
    run_here: Run,
    write_recipe_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    out: str,
    said: str,
) -> None:
    def work(*arguments: object) -> None:
        pytest.fail("the source is read")

    monkeypatch.setattr("proxyds.pipeline.reading.load_source", work)
    (tmp_path / "link").symlink_to("nowhere")
    write_recipe_file()
    assert said in refused(40, run_here, "build", "recipe.yaml", "-o", out, "-q", "--force")


def test_another_proxy_is_replaced_only_by_force(
    refused: Callable[..., str],
    run_here: Run,
    write_recipe_file: Callable[..., Path],
    tmp_path: Path,
    tiny_proxy: Path,
) -> None:
    write_recipe_file()
    shutil.copytree(tiny_proxy, tmp_path / "out")
    other = ("build", "recipe.yaml", "-o", "out", "-q", "--json", "--set", "selection.ratio=0.2")
    said = refused(40, run_here, *other)
    assert "out: must be a new folder, found the proxy tiny 1.0.0 of another recipe, source or code of networks" in said
    assert "replace it: force=True (--force)" in said
    assert run_here(*other, "--force").returncode == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["draw"]["ratio"] == 0.2
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "out"}


def test_force_through_a_link_leaves_nothing_behind(
    run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path, tiny_proxy: Path
) -> None:
    write_recipe_file()
    shutil.copytree(tiny_proxy, tmp_path / "real")
    (tmp_path / "out").symlink_to("real")
    done = run_here("build", "recipe.yaml", "-o", "out", "-q", "--force", "--set", "selection.ratio=0.2")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "out", "real"}


def test_an_output_folder_without_permission_is_refused_before_any_work(
    refused: Callable[..., str], run_after: Run, write_recipe_file: Callable[..., Path], locked: Path, tmp_path: Path
) -> None:
    write_recipe_file()
    arguments = ("build", "recipe.yaml", "-o", "locked/deep/out", "-q", "--json")
    said = refused(40, run_after, NOT_ALMIGHTY, *arguments, PROXYDS_STORE=str(tmp_path / "store"))
    assert "locked/deep/out: may not be written" in said
    assert not (tmp_path / "store").exists()


@pytest.mark.e2e
def test_a_full_disk_leaves_no_half_proxy(
    refused: Callable[..., str], run_after: Run, write_recipe_file: Callable[..., Path], tiny_proxy: Path
) -> None:
    write_recipe_file()
    said = refused(40, run_after, LITTLE_SPACE.format(20_000), "build", "recipe.yaml", "-o", "out", "-q", "--json")
    assert "out: no space left to write it" in said


@pytest.fixture(scope="module")
def on_a_full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, list[str]]]:
    """For each way of writing: the error that the store raises, its message, and the files it leaves."""
    script = """
import json, resource, sys
from pathlib import Path
import numpy as np
from proxyds.runtime.local import InProcess
from proxyds.runtime.task import Task, run_stored
from proxyds.runtime.storage.store import Store
from proxyds.training.model import make_network, save_network

parameters = {"depth": 8, "base_filters": 4, "kernel_size": 3, "multiplier": 1}
network = make_network("resnet", parameters, 10, (1, 8, 8), seed=0)
functions = {
    "array": lambda folder, report: np.save(folder / "x.npy", np.zeros(10_000)),
    "arrays": lambda folder, report: np.savez(folder / "x.npz", x=np.zeros(10_000)),
    "text": lambda folder, report: (folder / "x.json").write_text("0" * 10_000),
    "weights": lambda folder, report: save_network(network, folder / "x.safetensors", 10, (1, 8, 8)),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
outcomes = {}
for name, function in functions.items():
    store = Store(Path(sys.argv[1]) / name)
    try:
        run_stored([Task("stage", name, {}, function, {})], store, InProcess(), print)
    except Exception as error:
        left = [path.name for path in store.root.rglob("*") if path.is_file()]
        outcomes[name] = type(error).__name__, str(error), left
print(json.dumps(outcomes))
"""
    folder = tmp_path_factory.mktemp("full")
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["array", "arrays", "text", "weights"])
def test_a_full_disk_leaves_no_half_entry_in_the_store(
    on_a_full_disk: dict[str, tuple[str, str, list[str]]], what: str
) -> None:
    kind, message, left = on_a_full_disk[what]
    assert kind == "NoSpaceError", message
    assert "no space left to write it" in message
    assert left == []


# Proxies


@pytest.fixture
def proxy(tiny_proxy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_proxy, tmp_path / "proxy")


def _change_a_byte(proxy: Path) -> None:
    file = proxy / "data" / "train-00000-of-00004.parquet"
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    file.write_bytes(held)


def _cut(proxy: Path) -> None:
    file = proxy / "webdataset" / "train-000000.tar"
    file.write_bytes(file.read_bytes()[:-1])


def _link(proxy: Path) -> None:
    shutil.move(proxy / "recipe.yaml", proxy.parent / "elsewhere.yaml")
    (proxy / "recipe.yaml").symlink_to(proxy.parent / "elsewhere.yaml")


def _link_a_folder(proxy: Path) -> None:
    shutil.move(proxy / "evaluation", proxy.parent / "elsewhere")
    (proxy / "evaluation").symlink_to(proxy.parent / "elsewhere")


DAMAGE = {
    "a changed byte": (_change_a_byte, "data/train-00000-of-00004.parquet: its bytes have changed (sha256)"),
    "a byte less": (_cut, "webdataset/train-000000.tar: must have "),
    "a missing file": (lambda proxy: (proxy / "recipe.yaml").unlink(), "recipe.yaml: missing"),
    "a file more": (lambda proxy: (proxy / "data" / "x.parquet").touch(), "data/x.parquet: not in the manifest"),
    "a hidden file more": (lambda proxy: (proxy / ".hidden").touch(), ".hidden: not in the manifest"),
    "a link more": (lambda proxy: (proxy / "x").symlink_to("recipe.yaml"), "x: not in the manifest"),
    "a link to the same bytes": (_link, "recipe.yaml: must be a file inside the folder"),
    "a folder for a file": (
        lambda proxy: ((proxy / "recipe.yaml").unlink(), (proxy / "recipe.yaml").mkdir()),
        "recipe.yaml: missing",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_verify_names_each_file_that_differs(
    refused: Callable[..., str], run_here: Run, proxy: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(proxy)
    message = refused(50, run_here, "verify", "proxy", "--json")
    assert message.startswith("proxy: 1 file differs from manifest.json:\n")
    assert f"\n  {said}" in message
    is_more = said.endswith("not in the manifest")
    assert message.endswith("\nmove away what is not in the manifest" if is_more else "\nfetch or build it again")


def test_a_folder_that_is_a_link_is_refused(refused: Callable[..., str], run_here: Run, proxy: Path) -> None:
    _link_a_folder(proxy)
    message = refused(50, run_here, "verify", "proxy")
    assert "\n  evaluation: not in the manifest" in message
    assert "evaluation-00000-of-00001.parquet: must be a file inside the folder, found a link" in message


def test_verify_names_every_file_that_differs_at_once(refused: Callable[..., str], run_here: Run, proxy: Path) -> None:
    _change_a_byte(proxy)
    _cut(proxy)
    (proxy / "x").touch()
    lines = refused(50, run_here, "verify", "proxy").splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == [
        "data/train-00000-of-00004.parquet",
        "webdataset/train-000000.tar",
        "x",
    ]


def test_a_proxy_that_may_not_be_read_is_refused(refused: Callable[..., str], run_after: Run, proxy: Path) -> None:
    file = proxy / "data" / "train-00000-of-00004.parquet"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        file.chmod(0)
        try:
            return run_after(NOT_ALMIGHTY, *arguments)
        finally:
            file.chmod(0o600)

    assert refused(40, run, "verify", "proxy").startswith("proxy/data/train-00000-of-00004.parquet: may not be read")


def _manifest(**changes: object) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **changes})


def _listing(name: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        held = json.loads(text)
        held["files"][name] = {"bytes": 0, "sha256": "0" * 64}
        return json.dumps(held)

    return change


BAD_MANIFESTS = {
    "empty": (lambda text: "", 50, "proxy/manifest.json: must be JSON"),
    "half": (lambda text: text[: len(text) // 2], 50, "proxy/manifest.json: must be JSON"),
    "a list": (lambda text: "[]", 50, "proxy/manifest.json: must be a proxy's manifest"),
    "another format": (_manifest(format="safetensors"), 50, "proxy/manifest.json: must be a proxy's manifest"),
    "a later version": (
        _manifest(format_version="3.0"),
        50,
        "proxy/manifest.json: format_version must be 1.x or 2.x, got '3.0'; use another version of proxyds",
    ),
    "a version that is a number": (
        _manifest(format_version=1.0),
        50,
        "proxy/manifest.json: must be a proxy's manifest",
    ),
    "a wrong type": (_manifest(seed="0"), 50, "proxy/manifest.json: seed: "),
    "a missing part": (_manifest(counts=None), 50, "proxy/manifest.json: counts: "),
    "a file outside": (_listing("../recipe.yaml"), 50, "files: '../recipe.yaml' must be a path inside the folder"),
    "a file anywhere": (_listing("/etc/hostname"), 50, "files: '/etc/hostname' must be a path inside the folder"),
    "a roundabout name": (
        _listing("data/../recipe.yaml"),
        50,
        "files: 'data/../recipe.yaml' must be a path inside the folder",
    ),
    "a name of no length": (_listing(""), 50, "files: '' must be a path inside the folder"),
    "a name that is too long": (_listing("x" * 300), 50, f"files: '{'x' * 100}' must be a path"),
    "a name with a zero byte": (_listing("x\0"), 50, "must be plain text, it holds control characters"),
}


@pytest.mark.parametrize(("change", "code", "said"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_hostile_manifest_is_refused(
    refused: Callable[..., str], run_here: Run, proxy: Path, change: Callable[[str], str], code: int, said: str
) -> None:
    manifest = proxy / "manifest.json"
    manifest.write_text(change(manifest.read_text(encoding="utf-8")), encoding="utf-8")
    assert said in refused(code, run_here, "verify", "proxy")


def test_a_manifest_that_is_too_deep_is_refused(refused: Callable[..., str], run_proxyds: Run, proxy: Path) -> None:
    (proxy / "manifest.json").write_text("[" * 100_000, encoding="utf-8")
    assert refused(50, run_proxyds, "verify", "proxy").startswith("proxy/manifest.json: must be JSON")


def test_a_later_minor_version_is_read(run_here: Run, proxy: Path) -> None:
    manifest = proxy / "manifest.json"
    later = _manifest(format_version="2.9", something="new")
    manifest.write_text(later(manifest.read_text(encoding="utf-8")), encoding="utf-8")
    assert run_here("verify", "proxy").returncode == 0


@pytest.mark.parametrize("command", ["verify", "inspect", "card"])
def test_what_is_no_proxy_is_refused_as_such(
    refused: Callable[..., str], run_here: Run, tmp_path: Path, command: str
) -> None:
    (tmp_path / "folder").mkdir()
    said = refused(50, run_here, command, "folder")
    assert said.startswith("folder: must be a proxy, it has no manifest.json")
