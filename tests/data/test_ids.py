"""One picture has one id, whatever its file: by the rule of `docs/format.md`, and by the one of proxies before format 2.0."""

from __future__ import annotations

import hashlib
import io
import struct
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from proxyds.data.decoding import decode_part
from proxyds.data.images import FORMER_ID_RULE, ID_RULE
from proxyds.data.samples import Source
from proxyds.data.source import load_source
from proxyds.progress import ignore_progress
from proxyds.recipe.sections.source import Images
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_stored
from tests.data.pngs import COLOUR, COLOUR_AND_ALPHA, GREY, GREY_AND_ALPHA, PALETTE, write_png
from tests.data.test_source import encode, picture, some_rows, write_image_folder

Files = dict[str, tuple[bytes, str]]
"""By what is told of them, image files and the mode of the picture that they show."""


class Given:
    """A part of a split with some images, all of the label «a»."""

    first, content = 0, "given"

    def __init__(self, files: list[bytes]) -> None:
        self._files = files

    def rows(self) -> Iterator[tuple[bytes, Any, str]]:
        """See `Part`."""
        return ((file, "a", "") for file in self._files)


def look(files: list[bytes], mode: str = "RGB", id_rule: int = ID_RULE) -> tuple[list[str], NDArray[np.uint8]]:
    """Decodes images of one size; returns their ids, and what networks see of them, (n, C, H, W)."""
    with tempfile.TemporaryDirectory() as folder:
        decode_part(
            folder=Path(folder),
            report=lambda done, total, note: None,
            part=Given(files),
            spec=Images(image_mode=mode),
            label_names=None,
            id_rule=id_rule,
        )
        rows = np.load(Path(folder) / "rows.npy")
        pixels = np.load(Path(folder) / "pixels-0.npy")
    return [each.decode() for each in rows[np.argsort(rows["place"])]["id"]], pixels


def name_by_hand(seen: NDArray[np.uint8], mode: str) -> str:
    """The id of a picture of the label «a», (H, W, 3), by what `docs/format.md` says."""
    height, width = seen.shape[:2]
    pixels = seen[..., 0] if mode == "L" else seen
    return hashlib.sha256(f"{mode} {width}x{height} a\n".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def lay_on_white(values: NDArray[Any]) -> NDArray[np.uint8]:
    """What is seen of values with an opacity, (..., 4); a half is rounded up, which does not occur."""
    alpha = values[..., 3:].astype(np.int64)
    return ((2 * (alpha * values[..., :3] + (255 - alpha) * 255) + 255) // 510).astype(np.uint8)


def save(values: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    return encode(Image.fromarray(values), kind, **options)


def turn(values: NDArray[np.uint8], orientation: int) -> bytes:
    """A PNG file whose EXIF asks for a turn, after which it is as the values are."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(values).transpose(back[orientation]), "PNG", exif=exif.tobytes())


def by_palette(colours: NDArray[np.uint8], grid: NDArray[np.int64], depth: int = 8) -> bytes:
    return write_png(grid, PALETTE, depth, colours[:, :3].tobytes(), colours[:, 3].tobytes())


def list_files(colours: NDArray[np.uint8], grid: NDArray[np.int64], is_grey: bool) -> Files:
    """Every way to write a picture: the colours, (k, 4), of a grid of their indices, (H, W)."""
    values = colours[grid]
    seen = lay_on_white(values)
    mode = "L" if is_grey else "RGB"
    plain = np.ascontiguousarray(values[..., 0] if is_grey else values[..., :3])
    with_alpha = np.ascontiguousarray(values[..., [0, 3]] if is_grey else values)
    of_palette = "L" if (seen == seen[..., :1]).all() else "RGB"
    mixed = np.concatenate([[(9, 200, 30, 255)], colours[::-1], [(80, 0, 0, 0)]]).astype(np.uint8)
    files: Files = {
        "palette": (by_palette(colours, grid), of_palette),
        "palette of 4 bits": (by_palette(colours, grid, 4), of_palette),
        "palette in disorder": (by_palette(mixed, len(colours) - grid), of_palette),
        "alpha": (write_png(with_alpha, GREY_AND_ALPHA if is_grey else COLOUR_AND_ALPHA), mode),
        "alpha, turned": (turn(with_alpha, 6), mode),
    }
    if not is_grey:
        files["webp"] = save(with_alpha, "WEBP", lossless=True), mode
        files["tiff with alpha"] = save(with_alpha, "TIFF"), mode
    hidden = np.unique(plain[values[..., 3] == 0].reshape(-1, plain[0, 0].size), axis=0)
    shown = plain[values[..., 3] > 0].reshape(-1, plain[0, 0].size)
    if set(values[..., 3].ravel().tolist()) == {255}:
        files |= {kind: (save(plain, kind), mode) for kind in ("PNG", "BMP", "TIFF", "PPM")}
        files |= {f"turned {each}": (turn(plain, each), mode) for each in range(2, 9)}
        files["gif"] = save(plain, "GIF"), of_palette
        files |= list_shallow(plain, b"", mode) if is_grey else {}
    elif len(hidden) == 1 and not (shown == hidden).all(axis=1).any() and set(np.unique(values[..., 3])) == {0, 255}:
        transparency = b"".join(struct.pack(">H", each) for each in hidden[0].tolist())
        files["one colour"] = write_png(plain, GREY if is_grey else COLOUR, transparency=transparency), mode
        files |= list_shallow(plain, transparency, mode) if is_grey else {}
    return files


def list_shallow(grey: NDArray[np.uint8], transparency: bytes, mode: str) -> Files:
    """A grey picture in as few bits as hold it, and in more."""
    files = {}
    for depth, step in ((1, 255), (2, 85), (4, 17)):
        if not (grey % step).any():
            level = struct.pack(">H", int.from_bytes(transparency, "big") // step) if transparency else b""
            files[f"{depth} bits"] = write_png(grey // step, GREY, depth, transparency=level), mode
    return files


LEVELS = st.sampled_from([0, 17, 85, 100, 255])
OPAQUE, SOLID_OR_NOT, ANY_ALPHA = st.just(255), st.sampled_from([0, 255]), st.sampled_from([0, 1, 128, 254, 255])


@st.composite
def pictures(draw: st.DrawFn) -> Files:
    is_grey, alphas = draw(st.booleans()), draw(st.sampled_from([OPAQUE, SOLID_OR_NOT, ANY_ALPHA]))
    n_colours = draw(st.integers(1, 4))
    colours = []
    for _ in range(n_colours):
        level = draw(LEVELS)
        rgb = (level,) * 3 if is_grey else (level, draw(LEVELS), draw(LEVELS))
        colours.append((*rgb, draw(alphas)))
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    grid = draw(st.lists(st.integers(0, n_colours - 1), min_size=height * width, max_size=height * width))
    table, cells = np.array(colours, np.uint8), np.array(grid).reshape(height, width)
    seen = lay_on_white(table[cells])
    files = list_files(table, cells, is_grey)
    return {f"{name}: {name_by_hand(seen, mode)}": (file, mode) for name, (file, mode) in files.items()}


@given(pictures())
@settings(max_examples=150)
def test_an_id_is_of_the_picture_whatever_its_file(files: Files) -> None:
    encoded = [file for file, _ in files.values()]
    ids, colour = look(encoded)
    _, grey = look(encoded, "L")
    assert [f"{name.partition(': ')[0]}: {each}" for name, each in zip(files, ids, strict=True)] == list(files)
    for pixels in (colour, grey):
        assert (pixels == pixels[:1]).all()


def test_every_value_of_every_opacity_is_laid_on_white_as_the_format_says() -> None:
    value, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    (grey,), _ = look([save(np.stack([value, alpha], -1), "PNG")])
    (colour,), _ = look([save(np.stack([value, value // 2, 255 - value, alpha], -1), "PNG")])
    assert grey == name_by_hand(lay_on_white(np.stack([value, value, value, alpha], -1)), "L")
    assert colour == name_by_hand(lay_on_white(np.stack([value, value // 2, 255 - value, alpha], -1)), "RGB")


@pytest.mark.parametrize("level", [0, 85, 255])
def test_a_transparent_grey_is_white_in_however_few_bits(level: int) -> None:
    grey = np.array([[0, 85], [255, 85]], np.uint8)
    files = list_shallow(grey, struct.pack(">H", level), "L")
    ids, _ = look([file for file, _ in files.values()])
    assert len(ids) == 2
    seen = np.where(grey == level, 255, grey)
    assert set(ids) == {name_by_hand(np.stack([seen] * 3, -1), "L")}


def test_a_photo_that_exif_turns_has_the_id_of_the_upright_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture(3, size=(8, 12))
    for kind in ("JPEG", "TIFF"):
        plain, turned = encode(image, kind), encode(image, kind, exif=exif.tobytes())
        with Image.open(io.BytesIO(plain)) as opened:
            upright = encode(opened.transpose(Image.Transpose.ROTATE_270), "PNG")
        ids, pixels = look([turned, upright])
        assert ids[0] == ids[1]
        assert np.array_equal(*pixels)
        assert look([plain])[0][0] != ids[0]


def test_grey_that_is_written_as_colour_has_another_id_and_equal_pixels() -> None:
    image = picture(5, "L")
    ids, pixels = look([encode(image), encode(image.convert("RGB")), encode(image, "WEBP", lossless=True)])
    assert ids[0] != ids[1] == ids[2]
    assert (pixels == pixels[:1]).all()


# Goldens: ids that proxies have which were made before format 2.0


def with_palette(transparency: bytes | int | None = None) -> bytes:
    image = Image.new("P", (8, 8))
    image.putdata([number % 3 for number in range(64)])
    image.putpalette([9, 8, 7, 200, 100, 50, 1, 2, 3])
    return encode(image, "PNG") if transparency is None else encode(image, "PNG", transparency=transparency)


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(Image.new("RGB", (8, 16), (200, 100, 50)), "JPEG", exif=exif.tobytes())


SAME_BY_BOTH = {
    "RGB": (encode(picture(1)), "448671c48d493da2c9043c8abad50518e48b7a86b14015f98d1dab42a5ff0071"),
    "L": (encode(picture(2, "L")), "a547478834f8bd4f213a10a7806c9cb99eb017c6a517dd42d00af7d65f013871"),
}
FORMER = {
    **SAME_BY_BOTH,
    "1": (encode(picture(3, "L").convert("1")), "428b9fde301276da0f0168382e9684ae226886114378c81275a6e4dd570075cd"),
    "LA": (encode(picture(4, "LA")), "a716adddc1a3dc2539dd7bc002450af385429f39e3dc3dbeabf5b75cc5d5e56f"),
    "RGBA": (encode(picture(5, "RGBA")), "8ec7b55d3c3c17d005df942413ed5083c3beff9288434cfb0edcc5f1a1f1bd8c"),
    "CMYK": (encode(picture(6, "CMYK"), "TIFF"), "65f1c294b6ab7c6e0e3272c551c03ee3f7ec71c13d44fac0d0509c33fa6872ee"),
    "P": (with_palette(), "138be5b339bacc1183963aead56628c456fbc48dfda27add016f0bf930e7098e"),
    "P, transparent": (
        with_palette(b"\x10\x80\xff"),
        "8f4e61e6f2a7419656a2729e013a27272bc636f963a75f274265b9331c183043",
    ),
    "P, one colour transparent": (with_palette(1), "8f4e61e6f2a7419656a2729e013a27272bc636f963a75f274265b9331c183043"),
    "RGB, one colour transparent": (
        encode(picture(7), transparency=(1, 2, 3)),
        "48c777a63e2bca60efef4aa3bc1acede8b6db8a3eba7d6200140e2a4c34b98bc",
    ),
    "RGB, turned": (turned_jpeg(), "93c46855c859f09bc9feacb6b4b7c85f8bd06ef6f8c90a0499fe72350628efec"),
}


@pytest.mark.parametrize(("encoded", "expected"), FORMER.values(), ids=FORMER)
def test_ids_of_proxies_before_format_2_are_made_again(encoded: bytes, expected: str) -> None:
    assert look([encoded], id_rule=FORMER_ID_RULE)[0] == [expected]


@pytest.mark.parametrize(("encoded", "expected"), SAME_BY_BOTH.values(), ids=SAME_BY_BOTH)
def test_grey_and_rgb_images_keep_their_ids(encoded: bytes, expected: str) -> None:
    assert look([encoded])[0] == [expected]


def test_each_rule_splits_a_source_by_its_own_ids(tmp_path: Path) -> None:
    rows = {"": [(encode(picture(number).quantize(8)), number % 2) for number in range(40)]}
    now, former = (load_pictures(tmp_path, rows, rule) for rule in (ID_RULE, FORMER_ID_RULE))
    assert (now.facts.id_rule, former.facts.id_rule) == (ID_RULE, FORMER_ID_RULE)
    for use in ("train", "evaluation", "test"):
        one, other = getattr(now, use), getattr(former, use)
        assert len(one) == len(other)
        assert not set(one.ids) & set(other.ids)
        assert sorted(one.source_index) != sorted(other.source_index)


# What stands twice


def load_pictures(folder: Path, rows: dict[str, list[tuple[bytes | None, int]]], id_rule: int = ID_RULE) -> Source:
    for split, held in rows.items():
        write_image_folder(folder / "pictures" / split, held)
    space = "space: {network: resnet, choices: {depth: [8, 14]}}\n"
    (folder / "recipe.yaml").write_text(f"name: tiny\nsource: {{kind: folder, path: pictures}}\n{space}")
    run = partial(run_stored, store=Store(folder / "store"), engine=InProcess(), on_progress=ignore_progress)
    return load_source(read_recipe(folder / "recipe.yaml"), run, False, id_rule)


def write_as(number: int, how: str) -> bytes:
    """One of a few pictures with few colours, in one of the ways that networks see alike."""
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) // 8 * (number + 1))
    match how:
        case "colour":
            return encode(image.convert("RGB"))
        case "webp":
            return encode(image, "WEBP", lossless=True)
        case "palette":
            return encode(image.convert("P"))
        case _:
            return encode(image)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["grey", "colour", "webp", "palette"]),
            st.sampled_from(["train", "validation", "test"]),
            st.integers(0, 1),
        ),
        max_size=8,
    )
)
@settings(max_examples=15)
def test_what_stands_twice_is_counted_by_what_networks_see(images: list[tuple[int, str, str, int]]) -> None:
    rows = {split: some_rows(8, start) for start, split in ((100, "train"), (200, "validation"), (300, "test"))}
    for number, how, split, label in images:
        rows[split].append((write_as(number, how), label))
    with tempfile.TemporaryDirectory() as folder:
        source = load_pictures(Path(folder), rows)
    labels_of: dict[int, set[int]] = {}
    uses_of: dict[tuple[int, int], set[str]] = {}
    for number, _, split, label in images:
        labels_of.setdefault(number, set()).add(label)
        uses_of.setdefault((number, label), set()).add(split)
    n_conflicting = sum(len(labels_of[number]) > 1 for number, *_ in images)
    n_shared = sum(
        split == "train" and bool({"validation", "test"} & uses_of[number, label]) for number, _, split, label in images
    )
    n_twice = sum(split == "validation" and "test" in uses_of[number, label] for number, _, split, label in images)
    assert (source.facts.n_conflicting, source.facts.n_shared) == (n_conflicting, n_shared)
    counts = (("two labels", n_conflicting), ("training samples", n_shared), ("evaluation samples that", n_twice))
    told = [(what, n) for what, n in counts if n]
    assert len(source.warnings) == len(told)
    for warning, (what, n) in zip(source.warnings, told, strict=True):
        assert what in warning
        assert f": {n}" in warning
