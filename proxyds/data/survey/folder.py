"""Surveys a folder that a recipe names as its source, by the rules of `docs/sources.md`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from proxyds.data.survey.labels import ASTRAY, BESIDE, check_labels, find_empty, find_layout, label_by_folder
from proxyds.data.survey.listing import (
    ARCHIVE_SUFFIXES,
    READ_SUFFIXES,
    UNREAD_SUFFIXES,
    Listing,
    find_unnamed_images,
    list_folder,
    suffix_of,
)
from proxyds.data.survey.metadata import NAMES, UNLISTED, label_by_tables, read_tables
from proxyds.data.survey.naming import find_split
from proxyds.data.survey.records import FoundFile, Survey, SurveyedSplit, name_paths
from proxyds.data.survey.tars import check_end
from proxyds.errors import SourceError, SourceNotFoundError
from proxyds.recipe.sections.source import FolderSource
from proxyds.text import make_plain

UNREAD = "images of formats that are not read"
UNNAMED = "images whose names do not end as those of images"
ARCHIVES = "archives, which are not looked into"
OTHER_DATA = "files of another form than the others"
NO_SPLIT = "files whose names tell no split, beside others that do"
OF_SYSTEMS = "hidden files, or those of systems"
SIDE_CARS = "other files"

NAMES_OF_FORMS = {"parquet": "parquet files", "tars": "tars", "images": "images in folders"}
_ORDER = {"train": 0, "validation": 1, "test": 2}
_INSTRUCTIONS = re.compile(r"^(configs|dataset_info)\s*:", re.MULTILINE)
_MOST_README_BYTES = 1_000_000


def survey_folder(folder: Path, spec: FolderSource) -> Survey:
    """Surveys a folder; see `docs/sources.md` for the rules.

    Args:
        folder: The folder.
        spec: The recipe's section.

    Raises:
        SourceNotFoundError: It holds no images, parquet files or tars.
        LabelError: Images have no labels, or splits other ones.
        SourceError: It cannot be read, something in it can be taken in two ways, or is left over and the recipe does not say that it may be.
    """
    listing = list_folder(folder, follow_links=spec.follow_links)
    kinds = _sort_files(listing.files)
    by_form = {"parquet": kinds["parquet"], "tars": kinds["tars"], "images": kinds["images"]}
    followed = _find_instructions(folder)
    if followed and (by_form["parquet"] or by_form["tars"]):
        files = SurveyedSplit(tuple(listing.files))
        rule = "splits and columns by its README.md, which tells `datasets` what to read"
        return Survey(folder, "configs", {"all": files}, rule)
    if by_form["images"]:  # `metadata.parquet` is a table beside them
        is_table = [PurePosixPath(file.path).name in NAMES for file in by_form["parquet"]]
        kinds["tables"] += [file for file, is_one in zip(by_form["parquet"], is_table, strict=True) if is_one]
        by_form["parquet"] = [file for file, is_one in zip(by_form["parquet"], is_table, strict=True) if not is_one]
    forms = [form for form, files in by_form.items() if files]
    left_over = {
        **listing.unusable,
        UNREAD: _paths(kinds["unread"]),
        UNNAMED: find_unnamed_images(folder, kinds["others"]),
        ARCHIVES: _paths(kinds["archives"]),
        OTHER_DATA: sorted(path for form in forms[1:] for path in _paths(by_form[form])),
    }
    if not forms:
        raise SourceNotFoundError(_tell_nothing(folder, listing, left_over))
    if left_over[OTHER_DATA] and spec.on_left_over == "fail":
        found = " beside ".join(_name_form(_paths(by_form[form])) for form in forms)
        raise SourceError(
            f"source: must hold one form of data, found {found}; move away what is not meant, or have {NAMES_OF_FORMS[forms[0]]} alone read "
            "(source.on_left_over: skip)"
        )
    if forms[0] == "images":
        survey = _survey_images(folder, by_form["images"], kinds["tables"], listing, spec, left_over)
    elif forms[0] == "tars":
        survey = _survey_containers(folder, "tars", by_form["tars"], spec, left_over)
    else:
        survey = _survey_containers(folder, "parquet", by_form["parquet"], spec, left_over)
    used = {file.path for split in survey.splits.values() for file in split.files}
    known = used.union(
        *left_over.values(), _paths(kinds["tables"]) if forms[0] == "images" and survey.label_names is None else ()
    )
    harmless = {
        OF_SYSTEMS: listing.of_systems,
        SIDE_CARS: [file.path for file in listing.files if file.path not in known],
    }
    notes = list(survey.notes)
    if "configs" in followed:
        notes.append(f"{folder.name}/README.md has `configs`, which tell of parquet files and tars alone: not followed")
    left_out = {why: tuple(paths) for why, paths in (left_over | harmless).items() if paths}
    splits = {name: survey.splits[name] for name in sorted(survey.splits, key=lambda name: (_ORDER.get(name, 3), name))}
    return Survey(folder, survey.form, splits, survey.rule, survey.label_names, left_out, tuple(notes))


def check_one_form(survey: Survey) -> None:
    """Makes sure that a folder whose left-overs may be left out has not two forms of data, either of which can be meant.

    A few pictures in one folder beside parquet files or tars are none: they belong to a page.

    Raises:
        SourceError: It has.
    """
    others = survey.left_out.get(OTHER_DATA, ())
    folders = {path.rpartition("/")[0] for path in others}
    is_data = len(folders) > 1 or any(path.endswith((".parquet", ".tar")) for path in others)
    if is_data:
        used = [file.path for split in survey.splits.values() for file in split.files]
        raise SourceError(
            f"source: must hold one form of data, found {_name_form(used)} beside {_name_form(others)}; move away what is not meant, such as "
            "a backup, or name a folder that holds one form"
        )


def _name_form(paths: Sequence[str]) -> str:
    """Names files by their form, with how many they are and where they lie."""
    suffixes = {PurePosixPath(path).suffix.lower() for path in paths}
    forms = {{".parquet": "parquet", ".tar": "tars"}.get(suffix, "images") for suffix in suffixes}
    form = " and ".join(NAMES_OF_FORMS[each] for each in sorted(forms))
    return f"{form}: {len(paths):,} ({name_paths(paths)})"


def _paths(files: Sequence[FoundFile]) -> list[str]:
    return [file.path for file in files]


def _sort_files(files: Sequence[FoundFile]) -> dict[str, list[FoundFile]]:
    """Sorts files by what they can be, from how their names end."""
    names = ("images", "unread", "archives", "parquet", "tars", "tables", "others")
    kinds: dict[str, list[FoundFile]] = {name: [] for name in names}
    for file in files:
        suffix = suffix_of(file)
        if suffix in READ_SUFFIXES:
            kinds["images"].append(file)
        elif suffix in UNREAD_SUFFIXES:
            kinds["unread"].append(file)
        elif suffix in ARCHIVE_SUFFIXES:
            kinds["archives"].append(file)
        elif suffix == ".parquet":
            kinds["parquet"].append(file)
        elif suffix == ".tar":
            kinds["tars"].append(file)
        else:
            kinds["tables" if PurePosixPath(file.path).name in NAMES else "others"].append(file)
    return kinds


def _survey_images(
    folder: Path,
    images: Sequence[FoundFile],
    tables: Sequence[FoundFile],
    listing: Listing,
    spec: FolderSource,
    left_over: dict[str, list[str]],
) -> Survey:
    """Surveys images in folders; what is left over is put to the rest."""
    layout = find_layout(images, spec)
    left_over[BESIDE] = layout.beside
    labelling, others = read_tables(folder, tables, spec)
    shown = ", ".join(f"{split} from {layout.show(split) or '.'}/" for split in layout.places)
    if labelling:
        splits, left_over[UNLISTED] = label_by_tables(layout, labelling)
        _refuse_left_over(folder, left_over, splits, spec)
        named = name_paths([table.path for table in labelling])
        return Survey(folder, "images", splits, f"labels by {named}, splits by folders: {shown}")
    splits, left_over[ASTRAY], depth = label_by_folder(layout, folder.name)
    _refuse_left_over(folder, left_over, splits, spec)
    empty = find_empty(listing.folders, layout, splits, depth, spec)
    check_labels(splits, layout, spec, folder.name, empty)
    notes = []
    if empty:
        notes.append(
            f"folders of labels or splits that hold no image that is used: {len(empty):,} ({name_paths(empty)})"
        )
    if others:
        notes.append(f"{name_paths(others)} names no files with labels and is not used")
    names = tuple(sorted({str(label) for split in splits.values() for label in split.labels}))
    return Survey(
        folder,
        "images",
        splits,
        f"labels by the folders that images lie in, splits by folders: {shown}",
        names,
        {},
        tuple(notes),
    )


def _survey_containers(
    folder: Path,
    form: Literal["parquet", "tars"],
    files: Sequence[FoundFile],
    spec: FolderSource,
    left_over: dict[str, list[str]],
) -> Survey:
    """Surveys parquet files or tars."""
    found: dict[str | None, list[FoundFile]] = {}
    for file in files:
        if form == "tars":
            check_end(folder / file.path, file.n_bytes)
        found.setdefault(find_split(file.path, spec), []).append(file)
    without = found.pop(None, [])
    if not found:
        found["train"] = without
    else:
        left_over[NO_SPLIT] = _paths(without)
    splits = {str(split): SurveyedSplit(tuple(held)) for split, held in found.items()}
    _refuse_left_over(folder, left_over, {}, spec)
    rule = "splits by the names of files" + ("" if len(splits) > 1 else ", where they tell any")
    return Survey(folder, form, splits, rule)


def _find_instructions(folder: Path) -> set[str]:
    """Finds what the README.md of a folder tells `datasets`: which files to read (`configs`), and what is in them (`dataset_info`)."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(_MOST_README_BYTES).decode(errors="replace")
    except OSError:
        return set()
    _, _, header = text.partition("---")
    return set(_INSTRUCTIONS.findall(header.partition("\n---")[0])) if text.startswith("---") else set()


def _tell_nothing(folder: Path, listing: Listing, left_over: Mapping[str, Sequence[str]]) -> str:
    found = [f"{why}: {len(paths):,} ({name_paths(paths)})" for why, paths in left_over.items() if paths]
    n_others = len(listing.files) - sum(
        len(paths) for why, paths in left_over.items() if why in (UNREAD, UNNAMED, ARCHIVES)
    )
    found += [f"{SIDE_CARS}: {n_others:,} ({name_paths(_paths(listing.files))})"] * bool(n_others)
    return (
        f"source: must be a data set that can be opened, found none in {make_plain(folder.name)}: it holds no parquet files, images or tars, "
        f"but {'; '.join(found) or 'nothing'}; name another folder (source.path)"
    )


def _refuse_left_over(
    folder: Path, left_over: Mapping[str, Sequence[str]], splits: Mapping[str, SurveyedSplit], spec: FolderSource
) -> None:
    """Refuses what is left over, unless the recipe says that it may be.

    Raises:
        SourceError: Something is, and it may not.
    """
    found = "; ".join(f"{why}: {len(paths):,} ({name_paths(paths)})" for why, paths in left_over.items() if paths)
    if found and spec.on_left_over == "fail":
        examples = [split.files[0].path for split in splits.values()]
        needed = f"; images must lie like {make_plain(examples[0])}" if examples else ""
        raise SourceError(
            f"source: everything in {make_plain(folder.name)} must be used, or harmless, found {found}{needed}. Mend the folder, or leave "
            "them out (source.on_left_over: skip)"
        )
