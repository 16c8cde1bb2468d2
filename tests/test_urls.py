"""Addresses as they are met: pushes that break off, what strangers put there, passwords in names; sources that moved."""

from __future__ import annotations

import functools
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_RECIPE
from PIL import Image

Run = Callable[..., subprocess.CompletedProcess[str]]
LITTLE_SPACE = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The variables with which programs talk to a stand-in for S3 that holds an empty bucket `bucket`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.1)
        secrets = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "very-secret"}
        yield {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **secrets}
        server.terminate()


@pytest.fixture
def proxyds_(run_proxyds: Run, s3: dict[str, str]) -> Run:
    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        done = run_proxyds(*arguments, **{**s3, **environment})
        assert "Traceback" not in done.stderr, done.stderr
        assert "very-secret" not in done.stdout + done.stderr
        if done.returncode not in (0, 2):
            assert done.stderr.count("proxyds: ") == 1, done.stderr
        return done

    return run


@pytest.fixture
def run_after(s3: dict[str, str], tmp_path: Path) -> Run:
    """Runs some Python, then `proxyds` in the same process."""

    def run(first: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        code = f"import sys\n{first}\nfrom proxyds.cli import main\nsys.argv[0] = 'proxyds'\nmain()"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, **s3}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return run


class Bucket:
    """The bucket by plain HTTP, behind everybody's back."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, method: str, name: str, held: bytes | None = None) -> bytes:
        asked = urllib.request.Request(f"{self._address}/bucket/{name}", held, method=method)
        signed = "Credential=somebody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"  # for moto
        asked.add_header("Authorization", f"AWS4-HMAC-SHA256 {signed}")
        asked.add_header("Content-Type", "application/octet-stream")  # or moto takes it for a form
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    def names(self, prefix: str) -> set[str]:
        listed = self.ask("GET", f"?list-type=2&prefix={prefix}/").decode()
        return {each.partition("</Key>")[0].removeprefix(f"{prefix}/") for each in listed.split("<Key>")[1:]}


@pytest.fixture
def bucket(s3: dict[str, str]) -> Bucket:
    return Bucket(s3["AWS_ENDPOINT_URL"])


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
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


BREAK_OFF = """
import s3fs
names, put = [], s3fs.S3FileSystem._put_file
async def give_up(self, here, there, *rest, **options):
    names.append(there)
    if len(names) > {n} or there.endswith("manifest.json"):
        raise OSError("the line is dead")
    await put(self, here, there, *rest, **options)
s3fs.S3FileSystem._put_file = give_up
"""


def test_a_push_that_breaks_off_is_no_proxy_until_it_was_repeated(
    proxyds_: Run, run_after: Run, bucket: Bucket, tiny_proxy: Path, tmp_path: Path
) -> None:
    for n in (3, 1000):  # in the middle, and right before the manifest
        broken = run_after(BREAK_OFF.format(n=n), "push", tiny_proxy, "s3://bucket/broken")
        assert (broken.returncode, broken.stderr.count("\n")) == (70, 1), broken.stderr
        assert len(bucket.names("broken")) > 3
        assert "manifest.json" not in bucket.names("broken")
        assert proxyds_("pull", "s3://bucket/broken", "-o", "got").returncode == 50
    assert not (tmp_path / "got").exists()
    healed = proxyds_("push", tiny_proxy, "s3://bucket/broken")
    assert healed.returncode == 0, healed.stderr
    assert bucket.names("broken") == set(tree(tiny_proxy))
    full = run_after(LITTLE_SPACE.format(20_000), "pull", "s3://bucket/broken", "-o", "got")
    assert (full.returncode, "no space left" in full.stderr) == (42, True), full.stderr
    assert not list(tmp_path.iterdir())
    assert proxyds_("pull", "s3://bucket/broken", "-o", "got").returncode == 0
    assert tree(tmp_path / "got") == tree(tiny_proxy)


def test_a_dry_run_over_a_broken_push_removes_nothing(proxyds_: Run, bucket: Bucket, tiny_proxy: Path) -> None:
    bucket.ask("PUT", "dry/README.md", b"")
    bucket.ask("PUT", "dry/.proxyds", b"")  # names nothing: the card may be anybody's
    assert proxyds_("push", tiny_proxy, "s3://bucket/dry").returncode == 41
    bucket.ask("PUT", "dry/.proxyds", b"README.md")
    assert proxyds_("push", tiny_proxy, "s3://bucket/dry", "--dry-run").returncode == 0
    assert bucket.names("dry") == {".proxyds", "README.md"}


def test_a_file_that_somebody_put_beside_a_proxy_is_not_removed(
    proxyds_: Run, bucket: Bucket, tiny_proxy: Path
) -> None:
    assert proxyds_("push", tiny_proxy, "s3://bucket/beside").returncode == 0
    bucket.ask("PUT", "beside/notes.txt", b"mine")
    pushed = proxyds_("push", tiny_proxy, "s3://bucket/beside")
    assert "notes.txt" in bucket.names("beside")
    assert pushed.returncode == 41


def test_a_place_that_holds_something_else_is_not_touched(
    proxyds_: Run, bucket: Bucket, tiny_proxy: Path, checked_proxy: Path, write_recipe_file
) -> None:
    bucket.ask("PUT", "mine/notes.txt", b"mine")
    for command in (["push", tiny_proxy, "s3://bucket/mine"], ["build", write_recipe_file(), "-o", "s3://bucket/mine"]):
        refused = proxyds_(*command)
        assert (refused.returncode, "found notes.txt" in refused.stderr) == (41, True), refused.stderr
    assert proxyds_("push", tiny_proxy, "s3://bucket").returncode == 41
    assert bucket.names("mine") == {"notes.txt"}
    assert proxyds_("push", tiny_proxy, "s3://bucket/one").returncode == 0
    assert proxyds_("push", checked_proxy, "s3://bucket/one").returncode == 41
    assert bucket.ask("GET", "one/manifest.json") == (tiny_proxy / "manifest.json").read_bytes()


def test_resample_and_build_write_to_a_bucket_and_inspect_fetches_no_images(
    proxyds_: Run, bucket: Bucket, tiny_proxy: Path, write_recipe_file
) -> None:
    drawn = proxyds_("resample", tiny_proxy, "--ratio", "0.05", "-o", "s3://bucket/b")
    assert "drawn again: s3://bucket/b" in drawn.stdout, drawn.stderr
    assert "/tmp" not in drawn.stdout
    for name in bucket.names("b"):
        if name.startswith(("data/", "webdataset/", "assets/")):
            size = len(bucket.ask("GET", f"b/{name}"))
            bucket.ask("PUT", f"b/{name}", b"#" * size)  # nobody looks
    assert "65 of 1,295 training samples" in proxyds_("inspect", "s3://bucket/b").stdout
    assert proxyds_("pull", "s3://bucket/b", "-o", "got").returncode == 51
    built = proxyds_("build", write_recipe_file(), "-o", "s3://bucket/c")
    assert built.returncode == 0, built.stderr
    before = bucket.ask("GET", "c/manifest.json")
    assert "is there already, unchanged" in proxyds_("build", write_recipe_file(), "-o", "s3://bucket/c").stdout
    assert bucket.ask("GET", "c/manifest.json") == before
    assert ".proxyds" not in bucket.names("c")


def test_places_are_told_apart_and_each_says_what_is_wrong(
    proxyds_: Run, tiny_proxy: Path, web: str, write_recipe_file, tmp_path: Path
) -> None:
    lost = proxyds_("push", tiny_proxy, "s3://no-such-bucket/a")
    assert (lost.returncode in (70, 71), lost.stderr.count("\n")) == (True, 1), lost.stderr
    assert "proxyds[gs]" in proxyds_("inspect", "gs://x/y").stderr
    assert proxyds_("inspect", "nope://x").returncode == 71
    assert proxyds_("pull", "s3://bucket/../a").returncode == 71
    shelf = f"file://{tmp_path}/a%20shelf/tiny"
    built = proxyds_("build", write_recipe_file(), "-o", shelf)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "a shelf" / "tiny" / "manifest.json").is_file()
    assert proxyds_("inspect", shelf).returncode == 0
    again = proxyds_("resample", shelf, "--seed", "5", "-o", f"{shelf}-2")
    assert again.returncode == 0, again.stderr
    fetched = proxyds_("pull", f"http://{web}/tiny", "-o", "got")
    assert fetched.returncode == 0, fetched.stderr
    assert tree(tmp_path / "got") == tree(tiny_proxy)
    assert proxyds_("push", tiny_proxy, f"http://{web}/new").returncode in (70, 75)


def test_a_password_in_an_address_is_not_printed(proxyds_: Run, web: str) -> None:
    place = f"http://somebody:hidden-word@{web}/tiny?key=hidden-word"
    for command in (
        ["inspect", place],
        ["pull", place, "-o", "got", "--json"],
        ["pull", "ftp://u:hidden-word@127.0.0.1:9/x"],
    ):
        done = proxyds_(*command)
        assert "hidden-word" not in done.stdout + done.stderr, command


def test_the_default_folder_is_not_named_by_a_password(proxyds_: Run, web: str, tmp_path: Path) -> None:
    done = proxyds_("pull", f"http://somebody:hidden-word@{web}/tiny")
    assert "hidden-word" not in done.stdout
    assert (tmp_path / "tiny" / "manifest.json").exists()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_password_in_the_output_address_is_not_printed(proxyds_: Run, tiny_proxy: Path, options: list[str]) -> None:
    out = "memory://somebody:hidden-word@shelf/x"
    done = proxyds_("resample", tiny_proxy, "--ratio", "0.2", "-o", out, *options)
    assert "hidden-word" not in done.stdout


def test_no_part_of_a_password_with_an_at_sign_is_printed() -> None:
    from proxyds.places import show_address

    assert "word" not in show_address("ftp://somebody:hidden@word@example.org/x")


# Resampling from a source that moved


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    """A folder with `images`, dark and light noise, and `built`, a proxy of them."""
    import proxyds

    here = tmp_path_factory.mktemp("moved")
    write_images(here / "images")
    text = TINY_RECIPE.replace("{kind: digits}", "{kind: folder, path: images}")
    (here / "recipe.yaml").write_text(text.replace("crop_padding: 1", "crop_padding: 0").replace("0.1}", "0.2}"))
    recipe = proxyds.read_recipe(here / "recipe.yaml")
    proxyds.build(recipe, here / "built", store=proxyds.Store(session_store), device="cpu")
    return here


def write_images(folder: Path, *, shift: int = 0, leave_out: int = 0, add: int = 0, **options: object) -> None:
    rng = np.random.default_rng(0)
    pictures = {
        name: rng.integers(level, level + 60, (80, 8, 8, 3), np.uint8) for name, level in (("dark", 20), ("light", 180))
    }
    for name, those in pictures.items():
        (folder / name).mkdir(parents=True)
        for i, picture in enumerate(those):
            if name == "dark" or i >= leave_out:
                save(picture, folder / name / f"{(i * 7 + shift) % 80:02d}", options)
    for i in range(add):
        save(np.full((8, 8, 3), 100 + i, np.uint8), folder / "dark" / f"new{i}", options)


def save(picture: np.ndarray, place: Path, options: dict[str, object]) -> None:
    image = Image.fromarray(picture)
    suffix = str(options.get("suffix", "png"))
    image.save(place.with_suffix(f".{suffix}"), **{k: v for k, v in options.items() if k != "suffix"})


@pytest.mark.parametrize("options", [{"shift": 11, "compress_level": 0}, {"suffix": "webp", "lossless": True}])
def test_a_source_in_another_order_or_encoding_gives_the_same_samples(
    proxyds_: Run, of_images: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    import proxyds

    write_images(tmp_path / "again", **options)
    drawn = proxyds_("resample", of_images / "built", "--source", "again", "--ratio", "0.3", "-o", "new", "--json")
    assert drawn.returncode == 0, drawn.stderr
    assert proxyds_("verify", "new").returncode == 0
    new = proxyds.read_tables(tmp_path / "new")
    sizes = json.loads(drawn.stdout)["counts"]
    assert len(new.data) == round(0.3 * sizes["train"])
    assert str(tmp_path) not in (tmp_path / "new" / "recipe.yaml").read_text()
    expected = tmp_path / "expected"
    overrides = ["selection.ratio=0.3", f"source.path={of_images / 'images'}"]
    proxyds.resample(of_images / "built", expected, overrides=overrides)
    assert new.data["sample_id"].to_pylist() == proxyds.read_tables(expected).data["sample_id"].to_pylist()


def test_a_source_that_lost_and_gained_images_is_refused_with_counts(
    proxyds_: Run, of_images: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "changed", leave_out=3, add=2)
    refused = proxyds_("resample", of_images / "built", "--source", "changed", "-o", "new")
    assert refused.returncode == 27, refused.stderr
    assert "are gone" in refused.stderr
    assert "are new" in refused.stderr
    assert not (tmp_path / "new").exists()
    (tmp_path / "other").mkdir()
    assert proxyds_("resample", of_images / "built", "--source", "other", "-o", "new").returncode in (20, 21, 24)


def test_another_law_draws_as_many_and_a_check_may_change_but_not_a_probe(
    proxyds_: Run, tiny_proxy: Path, tmp_path: Path
) -> None:
    import proxyds

    assert proxyds_("resample", tiny_proxy, "--draw", "successive", "--seed", "5", "-o", "new").returncode == 0
    new, old = (proxyds.read_tables(folder).data["sample_id"].to_pylist() for folder in (tmp_path / "new", tiny_proxy))
    assert len(new) == len(old)
    assert set(new) != set(old)
    for override in ("seed=3", "training.epochs=9"):
        refused = proxyds_("resample", tiny_proxy, "--set", override, "-o", "x")
        assert refused.returncode == 10, (override, refused.stderr)
    assert proxyds_("resample", tiny_proxy, "--draw", "nope", "-o", "x").returncode == 14
    assert not (tmp_path / "x").exists()
