"""Proxies at addresses: pushed to and fetched from a real S3 server, folders by `file://`, web servers; passwords in names.

The Hub stands in `tests/pipeline`.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import LITTLE_SPACE, Bucket, Run, check_manners, read_tree


@pytest.fixture
def run_apart(run_proxyds: Run, s3: dict[str, str]) -> Run:
    """`run_proxyds` as somebody who may use the bucket."""

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        done = run_proxyds(*arguments, **{**s3, **more})
        check_manners(done, "very-secret")
        return done

    return run


@pytest.fixture
def run(run_here: Run, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`run_here` as somebody who may use the bucket: most commands here are not worth a process of their own."""
    import s3fs

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = run_here(*arguments)
        check_manners(done, "very-secret")
        return done

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    yield run
    s3fs.S3FileSystem.clear_instance_cache()  # they keep the address of this server


@pytest.fixture
def web(tmp_path: Path, tiny_proxy: Path) -> Iterator[str]:
    """The address of a web server that has the tiny proxy as `tiny`."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "tiny").symlink_to(tiny_proxy)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


# What is there, and what a push puts there


def test_what_is_pushed_to_a_bucket_is_what_is_pulled_and_a_second_push_changes_nothing(
    run_apart: Run, bucket: Bucket, tiny_proxy: Path, tmp_path: Path
) -> None:
    planned = run_apart("push", tiny_proxy, "s3://bucket/a", "--dry-run")
    assert (planned.returncode, "nothing was done" in planned.stdout) == (0, True), planned.stderr
    assert run_apart("pull", "s3://bucket/a", "-o", "got").returncode == 50
    assert bucket.names("a") == set()
    assert "published: s3://bucket/a" in run_apart("push", tiny_proxy, "s3://bucket/a").stdout
    assert bucket.files("a") == read_tree(tiny_proxy)
    assert "nothing was changed" in run_apart("push", tiny_proxy, "s3://bucket/a/").stdout
    assert run_apart("pull", "s3://bucket/a", "-o", "got").returncode == 0
    assert read_tree(tmp_path / "got") == read_tree(tiny_proxy)
    assert "130 of 1,295 training samples" in run_apart("inspect", "s3://bucket/a").stdout


def test_files_that_were_exchanged_are_refused_and_of_another_size_nothing_is_fetched(
    run: Run, bucket: Bucket, tiny_proxy: Path, tmp_path: Path
) -> None:
    files = read_tree(tiny_proxy)
    bucket.put("exchanged", {**files, "recipe.yaml": b"#" * len(files["recipe.yaml"])})
    refused = run("pull", "s3://bucket/exchanged", "-o", "got")
    assert (refused.returncode, "recipe.yaml: its bytes have changed" in refused.stderr) == (50, True), refused.stderr
    bucket.put("exchanged", {"recipe.yaml": files["recipe.yaml"] + b"#"})
    refused = run("pull", "s3://bucket/exchanged", "-o", "got")
    assert (refused.returncode, "nothing was fetched" in refused.stderr) == (50, True), refused.stderr
    assert not list(tmp_path.iterdir())


BREAK_OFF = """
import s3fs
names, put = [], s3fs.S3FileSystem._put_file
async def give_up(self, here, there, *rest, **options):
    names.append(there)
    if len(names) > {n}:
        raise OSError("the line is dead")
    await put(self, here, there, *rest, **options)
s3fs.S3FileSystem._put_file = give_up
"""


def test_a_push_that_breaks_off_is_no_proxy_until_it_was_repeated(
    run: Run, run_apart: Run, bucket: Bucket, tiny_proxy: Path, tmp_path: Path
) -> None:
    whole = read_tree(tiny_proxy)
    for n in (3, len(whole) - 1):  # in the middle, and right before the last file
        broken = run_apart("push", tiny_proxy, "s3://bucket/broken", first=BREAK_OFF.format(n=n))
        assert (broken.returncode, broken.stderr.count("\n")) == (70, 1), broken.stderr
        assert len(bucket.names("broken")) == n + 1
        assert "manifest.json" not in bucket.names("broken")
        assert run("pull", "s3://bucket/broken", "-o", "got").returncode == 50
    assert not (tmp_path / "got").exists()
    healed = run("push", tiny_proxy, "s3://bucket/broken")
    assert healed.returncode == 0, healed.stderr
    assert bucket.files("broken") == whole


def test_a_full_disk_on_the_way_down_leaves_nothing(
    run_apart: Run, bucket: Bucket, tiny_proxy: Path, tmp_path: Path
) -> None:
    bucket.put("large", read_tree(tiny_proxy))
    full = run_apart("pull", "s3://bucket/large", "-o", "got", first=LITTLE_SPACE)
    assert (full.returncode, "no space left" in full.stderr) == (40, True), full.stderr
    assert not list(tmp_path.iterdir())


def test_only_what_the_marker_of_a_broken_push_names_may_be_replaced_and_a_dry_run_replaces_nothing(
    run: Run, bucket: Bucket, tiny_proxy: Path
) -> None:
    bucket.put("half", {"README.md": b""})  # the card may be anybody's
    assert run("push", tiny_proxy, "s3://bucket/half").returncode == 40
    bucket.put("half", {".proxyds": b""})  # names nothing
    assert run("push", tiny_proxy, "s3://bucket/half").returncode == 40
    bucket.put("half", {".proxyds": b"README.md"})
    unfinished = run("pull", "s3://bucket/half")
    assert (unfinished.returncode, "a push to it has not ended" in unfinished.stderr) == (50, True), unfinished.stderr
    assert run("push", tiny_proxy, "s3://bucket/half", "--dry-run").returncode == 0
    assert bucket.names("half") == {".proxyds", "README.md"}


def test_a_place_that_holds_something_else_is_not_touched(
    run: Run, bucket: Bucket, tiny_proxy: Path, checked_proxy: Path, write_recipe_file: Callable[..., Path]
) -> None:
    bucket.put("mine", {"notes.txt": b"mine"})
    bucket.put("one", read_tree(tiny_proxy))
    for command in (["push", tiny_proxy, "s3://bucket/mine"], ["build", write_recipe_file(), "-o", "s3://bucket/mine"]):
        refused = run(*command)
        assert (refused.returncode, "found notes.txt" in refused.stderr) == (40, True), refused.stderr
    assert run("push", tiny_proxy, "s3://bucket").returncode == 40
    assert bucket.files("mine") == {"notes.txt": b"mine"}
    assert run("push", checked_proxy, "s3://bucket/one").returncode == 40  # another proxy is there
    assert bucket.files("one") == read_tree(tiny_proxy)
    bucket.put("one", {"notes.txt": b"mine"})
    assert run("push", tiny_proxy, "s3://bucket/one").returncode == 40  # somebody's file is beside the very proxy
    assert bucket.files("one") == {**read_tree(tiny_proxy), "notes.txt": b"mine"}


# Proxies made at addresses


@pytest.mark.e2e
def test_a_proxy_is_made_at_an_address_left_alone_when_it_is_the_same_and_replaced_only_by_force(
    run: Run, run_apart: Run, bucket: Bucket, write_recipe_file: Callable[..., Path]
) -> None:
    build = ("build", write_recipe_file(), "-o", "s3://bucket/built")
    built = run_apart(*build)
    assert "tiny 1.0.0 built: s3://bucket/built" in built.stdout, built.stderr
    before = bucket.files("built")
    assert ".proxyds" not in before
    again = run(*build)
    assert "is there already, unchanged" in again.stdout, again.stderr
    other = run(*build, "--set", "selection.ratio=0.2")
    assert (other.returncode, "s3://bucket/built: must be a new folder" in other.stderr) == (40, True), other.stderr
    assert bucket.files("built") == before
    forced = run(*build, "--set", "selection.ratio=0.2", "--force")
    assert "259 of 1,295" in forced.stdout, forced.stderr


def test_a_proxy_is_fetched_and_drawn_again_from_one_address_to_another_and_inspected_without_its_images(
    run: Run, bucket: Bucket, tiny_proxy: Path, tmp_path: Path
) -> None:
    bucket.put("parent", read_tree(tiny_proxy))
    copied = f"file://{tmp_path}/copied"
    assert run("pull", "s3://bucket/parent", "-o", copied).returncode == 0
    drawn = run("resample", copied, "--ratio", "0.05", "--draw", "successive", "-o", "s3://bucket/drawn")
    assert "drawn again: s3://bucket/drawn" in drawn.stdout, drawn.stderr
    assert "drawn successive" in drawn.stdout
    assert "/tmp" not in drawn.stdout
    assert run("pull", "s3://bucket/drawn", "-o", "whole").returncode == 0
    images = {n: held for n, held in bucket.files("drawn").items() if n.startswith(("data/", "webdataset/", "assets/"))}
    bucket.put("drawn", {name: b"#" * len(held) for name, held in images.items()})  # nobody looks
    assert "65 of 1,295 training samples" in run("inspect", "s3://bucket/drawn").stdout
    assert run("pull", "s3://bucket/drawn", "-o", "broken").returncode == 50


def test_a_folder_is_a_place_by_its_address(
    run: Run, run_apart: Run, tiny_proxy: Path, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    shelf = f"file://{tmp_path}/a%20shelf"
    assert run("push", tiny_proxy, f"{shelf}/tiny").returncode == 0
    assert read_tree(tmp_path / "a shelf" / "tiny") == read_tree(tiny_proxy)
    for command in (
        ["inspect", f"{shelf}/tiny"],
        ["pull", f"{shelf}/tiny", "-o", "got"],
        ["resample", f"{shelf}/tiny", "--seed", "5", "-o", f"{shelf}/drawn"],
        ["build", write_recipe_file(), "-o", f"{shelf}/built"],
    ):
        done = run(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert {path.name for path in (tmp_path / "a shelf").iterdir()} == {"tiny", "drawn", "built"}
    full = run_apart("push", tiny_proxy, f"{shelf}/full", first=LITTLE_SPACE)
    assert (full.returncode, "no space left there" in full.stderr) == (40, True), full.stderr
    assert (tmp_path / "a shelf" / "built" / "manifest.json").is_file()


def test_a_link_at_an_address_is_not_followed(run: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / ".proxyds").write_text("README.md")  # as if a push had begun
    (tmp_path / "shelf" / "README.md").symlink_to(tmp_path / "mine")
    refused = run("push", tiny_proxy, f"file://{tmp_path}/shelf")
    assert (refused.returncode, "must hold files alone" in refused.stderr) == (50, True), refused.stderr
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_web_server_gives_a_proxy_and_takes_none(run_apart: Run, web: str, tiny_proxy: Path, tmp_path: Path) -> None:
    fetched = run_apart("pull", f"http://{web}/tiny", "-o", "got")
    assert fetched.returncode == 0, fetched.stderr
    assert read_tree(tmp_path / "got") == read_tree(tiny_proxy)
    longer = Path(shutil.copytree(tiny_proxy, tmp_path / "web" / "longer"))
    with (longer / "recipe.yaml").open("a") as stream:
        stream.write("#" * 1000)
    refused = run_apart("pull", f"http://{web}/longer", "-o", "new")  # which cannot be listed
    assert (refused.returncode, "recipe.yaml: must have" in refused.stderr) == (70, True), refused.stderr
    assert not (tmp_path / "new").exists()
    refused = run_apart("push", tiny_proxy, f"http://{web}/new")
    assert (refused.returncode, "cannot be written to" in refused.stderr) == (70, True), refused.stderr


# What cannot be reached


def test_what_is_no_place_is_told_in_one_message(run: Run, tiny_proxy: Path) -> None:
    for arguments, code, said in [
        (("push", tiny_proxy, "gs://shelf/a"), 15, "pip install 'proxyds[gs]'"),
        (("inspect", "gs://shelf/a"), 15, "pip install 'proxyds[gs]'"),
        (("pull", "nope://shelf/a"), 70, "no such protocol"),
        (("inspect", "nope://x"), 70, "no such protocol"),
        (("push", tiny_proxy, "s3://"), 70, "must name a place after ://"),
        (("pull", "http://127.0.0.1:9/a?key=x"), 70, "it has a query"),
        (("inspect", "http://127.0.0.1:9/a"), 70, "cannot be reached"),
        (("pull", "s3://bucket/../a"), 70, "must not hold `..`"),
        (("push", tiny_proxy, "s3://bucket/b", "--tag", "v1.0.0"), 70, "only the Hub has tags"),
        (("build", "x.yaml", "-o", "me/x"), 10, "x.yaml"),  # a folder like any other
    ]:
        done = run(*arguments)
        assert (done.returncode, said in done.stderr) == (code, True), (arguments, done.stderr)


def test_what_cannot_be_reached_is_told_in_one_line(run_apart: Run, tiny_proxy: Path) -> None:
    lost = run_apart("push", tiny_proxy, "s3://no-such-bucket/a")
    assert (lost.returncode == 70, lost.stderr.count("\n")) == (True, 1), lost.stderr
    assert (
        run_apart(
            "pull", "s3://bucket/a", "-o", "x", AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1"
        ).returncode
        == 70
    )


# Passwords in addresses


def test_a_password_in_an_address_is_not_printed_and_does_not_name_the_folder(
    run_apart: Run, web: str, tmp_path: Path
) -> None:
    place = f"http://somebody:hidden-word@{web}/tiny"
    with_key = f"{place}?key=hidden-word"
    for arguments, code in ((["pull", place], 0), (["inspect", with_key], 70), (["pull", with_key, "--json"], 70)):
        done = run_apart(*arguments)
        assert (done.returncode, "hidden-word" in done.stdout + done.stderr) == (code, False), arguments
    assert (tmp_path / "tiny" / "manifest.json").is_file()
    lost = run_apart("pull", "ftp://somebody:hidden-word@127.0.0.1:9/x")
    assert (lost.returncode, "hidden-word" in lost.stdout + lost.stderr) == (70, False)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["for people", "for programs"])
def test_a_password_in_the_output_address_is_not_printed(run: Run, tiny_proxy: Path, options: list[str]) -> None:
    out = f"memory://somebody:hidden-word@shelf/x{len(options)}"
    done = run("resample", tiny_proxy, "--ratio", "0.2", "-o", out, *options)
    assert done.returncode == 0, done.stderr
    assert "hidden-word" not in done.stdout


def test_no_part_of_a_password_with_an_at_sign_is_printed() -> None:
    from proxyds.runtime.storage.address import show_address

    assert "word" not in show_address("ftp://somebody:hidden@word@example.org/x")
