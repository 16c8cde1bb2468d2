"""Images in folders: which folder gives which split and which label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxyds.data.survey.naming import name_split, normalize
from proxyds.data.survey.records import FoundFile, SurveyedSplit, name_paths
from proxyds.errors import LabelError, SourceError
from proxyds.recipe.sections.source import FolderSource
from proxyds.text import make_plain

BESIDE = "images beside the folders of splits"
ASTRAY = "images that lie less deep or deeper than others, whose folders are their labels"


@dataclass(frozen=True)
class Place:
    """Where an image lies: the folders between that of its split, or the topmost one of all images, and the image itself."""

    file: FoundFile
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Where images lie.

    Attributes:
        top: The folder that all images are in and that is neither split nor label, as a path that ends with `/`; empty for the source's own.
        split_folders: Name of each split's folder in there; of `train` an empty one where there are no folders of splits.
        places: By split, in the order of paths.
        beside: Images that lie beside the folders of splits.
    """

    top: str
    split_folders: dict[str, str]
    places: dict[str, list[Place]]
    beside: list[str]

    def show(self, split: str, *folders: str) -> str:
        """Writes the path of a folder within a split."""
        return self.top + "/".join(filter(None, (self.split_folders[split], *folders)))


def find_layout(images: Sequence[FoundFile], spec: FolderSource) -> Layout:
    """Finds the folders of splits: those at the top whose whole name is a split's, if there are any.

    Raises:
        SourceError: Two folders are named as one split, or folders that hold images may be splits or labels.
    """
    paths = [image.path.split("/") for image in images]
    n_above = 0  # a folder that stands alone is neither split nor label, as long as there is one in it that can be
    while (
        len(first := {path[n_above] for path in paths}) == 1
        and min(map(len, paths)) > n_above + 2
        and not (spec.split_folders and name_split(next(iter(first)), spec))
    ):
        n_above += 1
    top = "".join(f"{folder}/" for folder in paths[0][:n_above])
    places = [Place(image, tuple(path[n_above:-1])) for image, path in zip(images, paths, strict=True)]
    names = sorted({place.folders[0] for place in places if place.folders})
    splits = {name: split for name in names if spec.split_folders and (split := name_split(name, spec))}
    if not splits:
        return Layout(top, {"train": ""}, {"train": places}, [])
    for split, n in Counter(splits.values()).items():
        if n > 1:
            rivals = ", ".join(make_plain(top + name) for name, other in splits.items() if other == split)
            raise SourceError(
                f"source: one folder must be the split {split}, found {rivals}; rename the others, or name the one that is meant "
                "(source.train_split, source.validation_split, source.test_split)"
            )
    others = [name for name in names if name not in splits]
    if others and all(len(place.folders) == 1 for place in places if place.folders):
        raise SourceError(
            f"source: folders must be splits or labels, found {name_paths([top + name for name in splits])}, named as splits, beside "
            f"{name_paths([top + name for name in others])}, with images in all; where all are labels, put them into a folder {top}train "
            "or set source.split_folders: false"
        )
    by_split: dict[str, list[Place]] = {split: [] for split in splits.values()}
    beside = []
    for place in places:
        if place.folders and place.folders[0] in splits:
            by_split[splits[place.folders[0]]].append(Place(place.file, place.folders[1:]))
        else:
            beside.append(place.file.path)
    return Layout(top, {split: name for name, split in splits.items()}, by_split, beside)


def label_by_folder(layout: Layout, source: str) -> tuple[dict[str, SurveyedSplit], list[str], int]:
    """Takes for each image's label the name of the folder that it lies in, which all lie equally deep.

    Args:
        layout: Where the images lie.
        source: The folder's name, for messages.

    Returns:
        The splits; the images that lie less deep or deeper than most; how deep the labels lie in their splits, from 1.

    Raises:
        LabelError: No image lies in a label's folder, or two folders of a split mean one label.
    """
    depths = Counter(len(place.folders) for places in layout.places.values() for place in places)
    below = {depth: n for depth, n in depths.items() if depth}
    if not below:
        paths = [place.file.path for places in layout.places.values() for place in places]
        needed = f"{source}/{layout.show(next(iter(layout.places)), 'LABEL', 'NAME.png')}"
        hint = (
            "; where these folders are labels, set source.split_folders: false"
            if any(layout.split_folders.values())
            else ""
        )
        raise LabelError(
            f"source: each image must lie in a folder that is named as its label, {make_plain(needed)}; found {len(paths):,} that lie "
            f"in none of a label ({name_paths(paths)}){hint}"
        )
    depth = min(below, key=lambda each: (-below[each], each))
    splits: dict[str, SurveyedSplit] = {}
    astray: list[str] = []
    for split, places in layout.places.items():
        folder_of: dict[str, tuple[str, ...]] = {}
        files: list[FoundFile] = []
        labels: list[str] = []
        for place in places:
            if len(place.folders) != depth:
                astray.append(place.file.path)
                continue
            label = normalize(place.folders[-1])
            if folder_of.setdefault(label, place.folders) != place.folders:
                rivals = ", ".join(make_plain(layout.show(split, *each)) for each in (folder_of[label], place.folders))
                raise LabelError(
                    f"source: a label must have one folder in a split, found {rivals}, both named {make_plain(label)}; rename or join "
                    "them, or, where they are of several splits, name these (source.train_split, source.test_split)"
                )
            files.append(place.file)
            labels.append(label)
        if files:
            splits[split] = SurveyedSplit(tuple(files), tuple(labels))
    return splits, astray, depth


def check_labels(
    splits: dict[str, SurveyedSplit], layout: Layout, spec: FolderSource, source: str, empty: Sequence[str]
) -> None:
    """Makes sure that there are two labels or more, and that all splits that the recipe uses have the same.

    Args:
        splits: What was found.
        layout: Where it lies.
        spec: The recipe's section.
        source: The folder's name.
        empty: Folders that hold no image that is used, see `find_empty`.

    Raises:
        LabelError: They have not.
    """
    roles = (spec.train_split, spec.validation_split or "validation", spec.test_split or "test")
    used = {role: set(splits[role].labels) for role in roles if role in splits}
    train = used.pop(spec.train_split, None)
    if train is None:
        return  # there is no such split, which is for whoever takes the splits to say
    if len(train) < 2:
        one = next(iter(train))
        needed = f"{source}/{layout.show(spec.train_split, 'LABEL', 'NAME.png')}"
        raise LabelError(
            f"source: must have two labels or more, found {len(train)} in split {spec.train_split} ({make_plain(str(one))}); each needs "
            f"a folder of its own: {make_plain(needed)}"
        )
    if spec.labels_may_differ:
        return
    for split, labels in used.items():
        more, fewer = sorted(map(str, labels - train)), sorted(map(str, train - labels))
        if more or fewer:
            said = [f"{split} alone has {name_paths(more)}"] * bool(more) + [
                f"{split} lacks {name_paths(fewer)}"
            ] * bool(fewer)
            lacking = {normalize(name) for name in (*more, *fewer)}
            if there := [path for path in empty if normalize(path.rpartition("/")[2]) in lacking]:
                said.append(f"no image that is used is in {name_paths(there)}")
            raise LabelError(
                f"source: splits must have the same labels, {' and '.join(said)}, beside {spec.train_split}; rename folders, or set "
                "source.labels_may_differ: true"
            )


def find_empty(
    folders: Iterable[str], layout: Layout, splits: dict[str, SurveyedSplit], depth: int, spec: FolderSource
) -> list[str]:
    """Finds folders that would be labels or splits and hold no image that is used."""
    used = {file.path.rpartition("/")[0] for split in splits.values() for file in split.files}
    holding = {"/".join(parts[:n]) for path in used for parts in [path.split("/")] for n in range(1, len(parts) + 1)}
    has_splits = any(layout.split_folders.values())
    empty = []
    for path in folders:
        if not path.startswith(layout.top) or path in holding:
            continue
        inner = path[len(layout.top) :].split("/")
        split = name_split(inner[0], spec) if has_splits else "train"
        if split and (len(inner) - has_splits == depth or (has_splits and len(inner) == 1)):
            empty.append(path)
    return empty
