"""Finished work is kept whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxyds.errors import NoPermissionError, NoSpaceError, OutputError, OutputExistsError
from proxyds.runtime.storage import store as store_module
from proxyds.runtime.storage.atomic import name_processes, sweep_unfinished, temporary_folder, whole_folder
from proxyds.runtime.storage.store import SHELF, Store, content_key


def test_equal_inputs_have_one_key_and_any_change_another() -> None:
    assert content_key("probes", {"a": 1, "b": [1, 2]}) == content_key("probes", {"b": [1, 2], "a": 1})
    keys = {content_key(stage, inputs) for stage in ("probes", "features") for inputs in ({"a": 1}, {"a": 2}, {"b": 1})}
    assert len(keys) == 6


def test_an_entry_is_found_after_it_is_written_with_its_facts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("probes", "k1") is None
    with store.writing("probes", "k1", "probe one") as folder:
        (folder / "x").write_bytes(b"12345")
        assert store.find("probes", "k1") is None
        assert store.entries() == []
    entry = store.find("probes", "k1")
    assert entry is not None
    assert entry.name == "probe one"
    assert (entry.folder / "x").read_bytes() == b"12345"
    assert entry.n_bytes > 5
    assert [e.key for e in store.entries()] == ["k1"]


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def work() -> None:
        with store.writing("probes", "k1", "n") as folder:
            (folder / "x").write_bytes(b"1")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        work()
    assert store.find("probes", "k1") is None
    assert not list(tmp_path.rglob("*"))


def test_the_second_of_two_builds_that_finish_the_same_work_gives_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing("s", "k", "slow") as slow:
        (slow / "x").write_text("slow")
        other = "from proxyds.runtime.storage.store import Store\nwith Store(%r).writing('s', 'k', 'fast') as f: (f / 'x').write_text('fast')"
        subprocess.run([sys.executable, "-c", other % str(tmp_path)], check=True)
    entry = store.find("s", "k")
    assert entry is not None
    assert (entry.folder / "x").read_text() == "fast"
    assert len(list((tmp_path / "s").iterdir())) == 1


def test_what_a_killed_process_left_is_swept_and_a_running_ones_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from proxyds.runtime.storage.atomic import whole_folder\n"
        "with whole_folder(Path(sys.argv[1]) / 'x', 'refuse') as f: (f / 'half').write_text('1'); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    sweep_unfinished(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    process.kill()
    process.wait()
    process.stdout.close()
    sweep_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_another_container_writes_is_not_swept(tmp_path: Path) -> None:
    theirs = (
        tmp_path / f".unfinished-{socket.gethostname()}.4026532000-99999999-x"
    )  # it may share the name, not the numbers
    theirs.mkdir()
    sweep_unfinished(tmp_path)
    assert theirs.exists()


def fill(final: Path, text: str, if_there: str) -> None:
    with whole_folder(final, if_there) as folder:
        (folder / "x").write_text(text)


def test_a_folder_that_is_there_is_kept_replaced_or_refused_as_told(tmp_path: Path) -> None:
    final = tmp_path / "out"
    for text, if_there, expected in (("a", "refuse", "a"), ("b", "give way", "a"), ("c", "replace", "c")):
        fill(final, text, if_there)
        assert (final / "x").read_text() == expected
    with pytest.raises(OutputExistsError, match="something appeared there meanwhile and was not touched"):
        fill(final, "d", "refuse")
    assert (final / "x").read_text() == "c"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failed_work_takes_the_parents_that_it_made_with_it(tmp_path: Path) -> None:
    def work() -> None:
        with whole_folder(tmp_path / "a" / "b" / "out", "refuse"):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        work()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_always_gives_way(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", "1", "refuse")
    assert (tmp_path / "out" / "x").exists()


def test_a_folder_comes_back_when_its_successor_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "out", "old", "refuse")
    rename = Path.rename

    def fail_second(self: Path, target: Path) -> Path:
        if self.name.startswith(".unfinished"):
            raise OSError(5, "broken disk")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OSError, match="broken disk"):
        fill(tmp_path / "out", "new", "replace")
    assert (tmp_path / "out" / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_comes_back_when_its_replacement_was_killed_between_the_renames(tmp_path: Path) -> None:
    aside = tmp_path / f".replaced-{name_processes()}-99999999-my-out"
    aside.mkdir()
    (aside / "x").write_text("old")
    sweep_unfinished(tmp_path)
    assert (tmp_path / "my-out" / "x").read_text() == "old"
    aside.mkdir()
    sweep_unfinished(tmp_path)  # its successor is there: now it goes
    assert [path.name for path in tmp_path.iterdir()] == ["my-out"]


def test_cleaning_takes_an_entry_away_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    with store.writing("s", "k", "n"):
        pass

    def stop(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("proxyds.runtime.storage.atomic.shutil.rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        store.clean()
    monkeypatch.undo()
    assert store.find("s", "k") is None


@pytest.mark.parametrize("file", ["entry.json", "values.npy", "more/values.npy"])
@pytest.mark.parametrize("left", ["", "val", None])
def test_a_damaged_entry_counts_as_absent_and_can_be_written_again(file: str, left: str | None, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for text in ("first", "second"):
        with store.writing("s", "k", text) as folder:
            (folder / "more").mkdir()
            for name in ("values.npy", "more/values.npy"):
                (folder / name).write_text("values")
        entry = store.find("s", "k")
        assert entry is not None
        assert entry.name == text
        if left is None:
            (entry.folder / file).unlink()
        else:
            (entry.folder / file).write_text(left)
        assert store.find("s", "k") is None


def test_an_entry_of_an_earlier_version_that_does_not_say_its_files_sizes_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing("s", "k", "a"):
        pass
    about = tmp_path / "s" / "k" / "entry.json"
    about.write_text(json.dumps({"name": "a", "seconds": 1.0, "created": 2.0}))
    assert store.find("s", "k") is not None


def test_a_fetched_proxy_that_another_process_removes_meanwhile_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("p1", "p2"):
        (tmp_path / SHELF / key).mkdir(parents=True)

    def remove(folder: Path) -> str:
        if folder.name == "p1":
            folder.rmdir()
        return folder.name

    monkeypatch.setattr(store_module, "_name_proxy", remove)
    assert [entry.key for entry in Store(tmp_path).entries()] == ["p2"]
    assert Store(tmp_path).clean() == (1, 0)


def test_fetched_proxies_are_listed_and_removed_as_other_work(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing("s", "k", "a"):
        pass
    for key in ("p1", "p2"):
        (tmp_path / SHELF / key).mkdir(parents=True)
        (tmp_path / SHELF / key / "manifest.json").write_text('{"name": "tiny", "version": "1.0.0"}')
    (tmp_path / SHELF / "p2" / "manifest.json").write_text("[]")
    os.utime(tmp_path / SHELF / "p1", (1.0, 1.0))
    assert [each.name for each in store.entries()] == ["tiny 1.0.0", "a", "p2"]
    assert store.clean(older_than_days=1) == (1, 36)
    assert [path.name for path in (tmp_path / SHELF).iterdir()] == ["p2"]
    assert store.clean()[0] == 2
    assert not list((tmp_path / SHELF).iterdir())


def test_a_relative_store_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    with store.writing("s", "k", "n"):
        pass
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.find("s", "k") is not None
    assert store.name == "here"


def test_cleaning_beside_another_counts_what_it_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for key in ("mine", "theirs"):
        with store.writing("s", key, "n"):
            pass
    listed = store.entries()
    monkeypatch.setattr(store, "entries", lambda: listed)
    shutil.rmtree(tmp_path / "s" / "theirs")
    assert store.clean()[0] == 1


def test_clean_removes_what_is_older(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in ("k1", "k2"):
        with store.writing("s", key, key):
            pass
    assert store.clean(older_than_days=1) == (0, 0)
    n_entries, n_bytes = store.clean()
    assert n_entries == 2
    assert n_bytes > 0
    assert store.entries() == []


@pytest.mark.parametrize(
    ("code", "kind"), [(28, NoSpaceError), (13, NoPermissionError), (30, NoPermissionError), (5, OutputError)]
)
def test_a_full_forbidden_or_broken_disk_is_said_and_leaves_nothing(
    tmp_path: Path, code: int, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"the store .*PROXYDS_STORE"), Store(tmp_path).writing("s", "k", "n"):
        raise OSError(code, os.strerror(code), "some/file")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (28, NoSpaceError, "temporary files: no space left to write it; free some space, or set TMPDIR"),
        (2, NoPermissionError, "temporary files: must have a place that may be written and has room; set TMPDIR"),
    ],
)
def test_no_place_for_temporary_files_is_said(
    code: int, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("tempfile.mkdtemp", fail)
    with pytest.raises(kind, match=said), temporary_folder():
        pass


def test_a_passing_folder_is_gone_and_one_that_fills_up_is_said() -> None:
    with pytest.raises(NoSpaceError, match="temporary files: no space left"), temporary_folder() as folder:
        raise OSError(28, os.strerror(28))
    assert not folder.exists()


def test_entries_are_listed_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in ("b", "a", "c"):
        with store.writing("s", key, key):
            pass
        time.sleep(0.01)
    assert [entry.key for entry in store.entries()] == ["b", "a", "c"]


def test_folders_that_come_and_go_beside_the_stages_are_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command tries whether it may write there, and is done before we look."""
    store = Store(tmp_path)
    with store.writing("s", "k", "n"):
        pass
    (tmp_path / ".proxyds-gone").mkdir()
    scandir = os.scandir

    def look(path: object = ".") -> object:
        if ".proxyds-gone" in str(path):
            raise FileNotFoundError(2, "gone", str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", look)
    assert [entry.key for entry in store.entries()] == ["k"]
    store.sweep()
