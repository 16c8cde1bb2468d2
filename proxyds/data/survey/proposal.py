"""Proposes the section `source` of a recipe for a folder, from what a survey and a look at its images tell."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from proxyds.data.images import DECODE_ERRORS, check_depth, describe_damage, open_image
from proxyds.data.survey.folder import OF_SYSTEMS, SIDE_CARS
from proxyds.data.survey.records import Label, Survey, name_paths
from proxyds.text import make_plain

SIDES = (64, 48, 32, 24, 16, 8)
"""Sides in pixels that are proposed: small ones, since the time of a training grows with the square."""
RATIOS = (0.05, 0.1, 0.2, 0.5)
LEAST_OF_LABEL = 20
"""Samples that a label should expect in the proxy, at least."""
MAX_BAD_SHARE = 0.1
"""Up to this share of bad images it is proposed to leave them out."""
_SMALL = (64, 64)
"""JPEG files are decoded at this size at least, which is quicker than all of it."""
MOST_OPENED = 500
"""Images of a split whose sides are looked at, at most."""


@dataclass
class Look:
    """What was seen of a split's images.

    Attributes:
        labels: How many of those that were read have each label.
        sides: Width and height of images that were opened, with how many have them.
        n_grey: Of these, how many are grey.
        bad: Where images lie that cannot be used, with what is wrong with them.
        n_opened: Images that were opened.
    """

    labels: Counter[Label] = field(default_factory=Counter)
    sides: Counter[tuple[int, int]] = field(default_factory=Counter)
    n_grey: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    n_opened: int = 0


def look_at(rows: Iterable[tuple[bytes, Label, str]]) -> Look:
    """Counts labels, and the sides of the first images; rows are those of `parts.Part`."""
    look = Look()
    for number, (encoded, label, name) in enumerate(rows):
        look.labels[label] += 1
        if number >= MOST_OPENED:
            continue
        look.n_opened += 1
        try:
            with open_image(encoded) as image:
                check_depth(image, encoded)
                size, is_grey = image.size, image.mode in ("1", "L")
                image.draft(None, _SMALL)
                image.load()  # what is cut off opens all the same
                look.sides[size] += 1
                look.n_grey += is_grey
        except DECODE_ERRORS as error:
            look.bad.append((name or f"image {number}", describe_damage(error)))
    return look


def propose_source(path: str, survey: Survey, looks: Mapping[str, Look]) -> str:
    """Writes the section `source`, with comments that say why.

    Args:
        path: The folder, as the recipe is to name it.
        survey: Of the folder.
        looks: What was seen of each split, by what it is for: `train`, perhaps `validation` and `test`.
    """
    lines = ["source:", "  kind: folder", f"  path: {json.dumps(path, ensure_ascii=False)}"]
    lines.append(f"  # read as: {_on_one_line(survey.describe())}")
    counts = looks["train"].labels
    if counts:
        few, many = min(counts.values()), max(counts.values())
        lines.append(f"  # labels in train: {len(counts):,}, with {few:,} to {many:,} images each")
    else:
        lines.append(
            "  # labels in train were not counted: whether selection.ratio is enough for each, see `proxyds build --dry-run`"
        )
    lines += _propose_size(looks)
    n_left = counts.total()
    for role, share, use in (("test", 0.2, "to test on"), ("validation", 0.1, "to rank on")):
        if role not in looks:
            n_aside = round(share * n_left)
            n_left -= n_aside
            how_many = f"about {n_aside:,} images" if n_aside else "this share"
            lines.append(
                f"  # {role}_fraction: {share:g} # there is no split {role}: {how_many} of train are set aside {use}"
            )
    amiss = {why: paths for why, paths in survey.left_out.items() if why not in (OF_SYSTEMS, SIDE_CARS)}
    if amiss:
        lines += [f"  # no rule has a use for {_name(why, paths)}" for why, paths in amiss.items()]
        lines.append("  on_left_over: skip # leaves them out; `fail` stops the build until the folder is mended")
    return "\n".join([*lines, *_propose_for_bad(looks)]) + "\n"


def _propose_for_bad(looks: Mapping[str, Look]) -> list[str]:
    """Proposes what to do about images that cannot be used; leaving out is proposed only for a few."""
    bad = [each for look in looks.values() for each in look.bad]
    if not bad:
        return []
    lines = [
        f"  # {_name('images that cannot be used', [name for name, _ in bad])}; the first: {_on_one_line(bad[0][1])}"
    ]
    if len(bad) > MAX_BAD_SHARE * sum(look.n_opened for look in looks.values()):
        return [*lines, "  on_bad_image: fail # so many are better mended; `skip` leaves them out"]
    return [*lines, "  on_bad_image: skip # leaves them out; `fail` stops the build until they are mended"]


def propose_ratio(looks: Mapping[str, Look]) -> float:
    """Proposes the smallest size of a proxy at which every label can expect some samples, or the preset's where labels were not counted."""
    if not looks["train"].labels:
        return RATIOS[0]
    kept = (1.0 if "test" in looks else 0.8) * (1.0 if "validation" in looks else 0.9)
    fewest = min(looks["train"].labels.values()) * kept
    return next((ratio for ratio in RATIOS if fewest * ratio >= LEAST_OF_LABEL), RATIOS[-1])


def tell_opened(looks: Mapping[str, Look], recipe: Path) -> str:
    """Says how many images were opened, where these are not all; nothing else tells which are damaged."""
    n_opened, n = sum(look.n_opened for look in looks.values()), sum(look.labels.total() for look in looks.values())
    if n and n_opened >= n:
        return ""
    of_all = f" of {n:,}" if n else ""
    return f"; opened {n_opened:,}{of_all} images, spread over all: `proxyds build {shlex.quote(str(recipe))} --dry-run` opens every one"


def _propose_size(looks: Mapping[str, Look]) -> list[str]:
    """Proposes the side that networks see, and whether they see grey."""
    sides = sum((look.sides for look in looks.values()), Counter[tuple[int, int]]())
    n = sides.total()
    if not n:
        return ["  image_size: 32 # no image was looked at"]
    shorter = sorted(side for width_height, times in sides.items() for side in [min(width_height)] * times)
    span = f"{shorter[0]}" if shorter[0] == shorter[-1] else f"{shorter[0]} to {shorter[-1]}"
    middle = int(median(shorter))
    side = middle if len(sides) == 1 and middle <= SIDES[0] else next((each for each in SIDES if each <= middle), 8)
    same = "all of one size; " if len(sides) == 1 else f"{len(sides):,} sizes; "
    lines = [
        f"  image_size: {max(side, 4)} # what networks see. Of {n:,} images the shorter side is {span}: {same}larger takes longer"
    ]
    if sum(look.n_grey for look in looks.values()) == n:
        lines.append("  image_mode: L # all of these are grey")
    return lines


def _name(why: str, paths: Iterable[str]) -> str:
    found = list(paths)
    return _on_one_line(f"{why}: {len(found):,} ({name_paths(found)})")


def _on_one_line(text: str) -> str:
    return " ".join(make_plain(text).split())
