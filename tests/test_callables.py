"""Code that a program hands over: its identity is that of what it does, and it reaches workers as it is."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from proxyds.callables import hand_over, identify_code, list_handed_over, receive, take_over
from proxyds.errors import CallableError

SCRIPT = """
import functools
from proxyds.callables import identify_code

WIDTH, NAMES = 4, {"a", "bb", "ccc", "dddd", "eeeee"}

class Net:
    depth = 2

    def __init__(self, width):
        super().__init__()
        self.layer = [width] * WIDTH

    def __call__(self, x):
        return self.layer[x]

    @property
    def size(self):
        return WIDTH

def count(n):
    return count(n - 1) if n > 0 and "x" not in {"y", "z", "w"} else len(NAMES)

print(identify_code(functools.partial(Net, 8), "net"), identify_code(count, "count"))
"""


def run_script(folder: Path, text: str, seed: str) -> list[str]:
    folder.mkdir()
    (folder / "script.py").write_text(text)
    env = {**os.environ, "PYTHONHASHSEED": seed}
    told = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return told.stdout.split()


def test_an_identity_is_the_same_in_another_session_from_another_file_on_other_lines(tmp_path: Path) -> None:
    first = run_script(tmp_path / "one", SCRIPT, "1")
    assert run_script(tmp_path / "two", f"# a comment\n\n{SCRIPT}", "2") == first
    assert len(set(first)) == 2


@pytest.mark.parametrize(
    ("old", "new"), [("WIDTH, NAMES = 4", "WIDTH, NAMES = 5"), ("Net, 8", "Net, 9"), ("depth = 2", "depth = 3")]
)
def test_another_global_argument_or_member_is_another_identity(tmp_path: Path, old: str, new: str) -> None:
    assert old in SCRIPT
    first, changed = (
        run_script(tmp_path / name, text, "1") for name, text in [("a", SCRIPT), ("b", SCRIPT.replace(old, new))]
    )
    assert first[0] != changed[0]


def make_adder(n: int) -> Any:
    return lambda x: x + n


def make_subtracter(n: int) -> Any:
    return lambda x: x - n


def test_what_a_function_does_and_closes_over_counts() -> None:
    identities = [identify_code(each, "f") for each in (make_adder(1), make_adder(2), make_subtracter(1), make_adder)]
    assert len(set(identities)) == 4
    assert identities[0] == identify_code(make_adder(1), "another name")


def test_the_files_of_an_imported_module_count(tmp_path: Path) -> None:
    identities = []
    text = "import nets; from proxyds.callables import identify_code; print(identify_code(nets.make, 'n'))"
    for width in (3, 4):
        (tmp_path / "nets.py").write_text(f"WIDTH = {width}\ndef make():\n    return WIDTH\n")
        told = subprocess.run(
            [sys.executable, "-B", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        identities.append(told.stdout)
    assert identities[0] != identities[1]


def test_the_files_that_a_local_module_imports_count_too(tmp_path: Path) -> None:
    identities = []
    text = "from proxyds.callables import identify_code\ndef f():\n    import nets\n    return nets\nprint(identify_code(f, 'n'))"
    for width in (3, 3, 4):
        (tmp_path / "nets.py").write_text("def make():\n    from layers import WIDTH\n    return WIDTH\n")
        (tmp_path / "layers.py").write_text(f"WIDTH = {width}\n")
        told = subprocess.run(
            [sys.executable, "-B", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        identities.append(told.stdout)
    assert identities[0] == identities[1] != identities[2]


def compile_cells(*cells: str) -> Any:
    """Runs cells as a notebook does, each compiled by itself, and returns the `f` that they define."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        exec(cell, space)
    return space["f"]


IMPORT = "import functools, dataclasses, math\n"
CODE = "def f(x):\n    return math.sqrt(functools.reduce(max, x)) if x else 0\n"


def test_code_is_the_same_in_one_cell_or_several_and_with_other_words_about_it() -> None:
    told = 'def f(x):\n    """What it does."""\n    # a comment\n\n    return (\n        math.sqrt(functools.reduce(max, x))\n        if x\n        else 0\n    )\n'
    ways = [compile_cells(IMPORT + CODE), compile_cells(IMPORT, CODE), compile_cells(IMPORT, told)]
    assert len({identify_code(each, "f") for each in ways}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CODE, CODE.replace("max", "min")),
        (
            "def f():\n  try:\n    a()\n    b()\n  except E:\n    pass\n",
            "def f():\n  try:\n    a()\n  except E:\n    pass\n  else:\n    b()\n",
        ),
        ("def f(x):\n  while x:\n    x -= 1\n    x += 2\n", "def f(x):\n  while x:\n    x -= 1\n  x += 2\n"),
        (
            "@dataclasses.dataclass\nclass C:\n  n: int = 1\ndef f(): return C()\n",
            "@dataclasses.dataclass\nclass C:\n  n: int = 2\ndef f(): return C()\n",
        ),
        ("@functools.cache\ndef f(): return 1\n", "@functools.cache\ndef f(): return 2\n"),
        ("def f(): return 1\n", "def f(): return True\n"),
        ("def g(): return 1\nN = {g}\ndef f(): return N\n", "def g(): return 2\nN = {g}\ndef f(): return N\n"),
        ("N = [1]\nN.append(N)\ndef f(): return N\n", "N = [1]\nN.append([1, N])\ndef f(): return N\n"),
    ],
    ids=[
        "a name",
        "what is tried",
        "a loop",
        "a dataclass",
        "a cached function",
        "a constant's type",
        "a set",
        "a cycle",
    ],
)
def test_other_code_is_another_identity(one: str, other: str) -> None:
    first, again, changed = (identify_code(compile_cells(IMPORT, each), "f") for each in (one, one, other))
    assert first == again != changed


def test_a_value_that_was_handed_over_reaches_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = hand_over(functools.partial(make_adder, 3), "adder")
    held = list_handed_over()
    monkeypatch.setattr("proxyds.callables._PICKLED", {})  # as in a worker
    with pytest.raises(CallableError):
        take_over(identity, "missing")
    receive(held)
    assert take_over(identity, "missing")()(1) == 4


def test_what_was_not_handed_over_is_asked_for() -> None:
    with pytest.raises(CallableError, match="hand it over"):
        take_over("0" * 64, "hand it over")


def nothing() -> Any:
    yield


@pytest.mark.parametrize("value", [threading.Lock(), nothing()], ids=["lock", "generator"])
def test_what_cannot_be_copied_is_named(value: Any) -> None:
    with pytest.raises(CallableError, match="net-a"):
        hand_over(value, "net-a")
