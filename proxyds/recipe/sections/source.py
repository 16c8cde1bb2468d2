"""The section `source`: which data set, where it lies, how its images and splits are read."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PlainSerializer, ValidationInfo

from proxyds.section import Section


def _from_folder(path: str, info: ValidationInfo) -> str:
    """Takes a relative path from the recipe's folder, which is the validation's context where a file is read."""
    try:
        return path if info.context is None else str((info.context / Path(path).expanduser()).absolute())
    except RuntimeError as error:
        raise ValueError(f"must be a path, got {path}: {error}") from None


def _name_only(path: str) -> str:
    return PurePath(path).name or "root"


LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_from_folder), PlainSerializer(_name_only)]
"""A path on this machine; written as its last part, since somebody's folders are no part of a proxy."""


class Images(Section):
    """What every source needs to know about its images and splits.

    Attributes:
        natural_side: Side in pixels of its images as they are; 32 stands for one that only the images can tell.
    """

    natural_side: ClassVar[int] = 32

    image_mode: Literal["L", "RGB"] = Field("RGB", description="What networks see: grey (L) or colour (RGB).")
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        None,
        description="Side in pixels that networks see (scaled and cropped to the centre); null: as they are, all the same.",
        examples=[32],
    )
    on_bad_image: Literal["fail", "skip"] = Field(
        "fail",
        description="Images that cannot be decoded stop the build, which names them, or are left out and counted on the card.",
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1,
        description="Share of the training split set aside to measure importance on, where the source has no validation split.",
        examples=[0.1],
    )
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2,
        description="Share of the training split set aside before anything else, where the source has no test split.",
        examples=[0.2],
    )


class Columns(Images):
    """A source read by `datasets`: which splits and columns."""

    train_split: str = Field("train", description="The split to choose samples from.", examples=["train"])
    validation_split: str | None = Field(
        None,
        description="The split to measure importance on; null: `validation` if there is one, else carved from train.",
    )
    test_split: str | None = Field(
        None, description="The split that chooses nothing; null: `test` if there is one, else carved from train."
    )
    image_column: str | None = Field(None, description="null: the only column of images.", examples=["image"])
    label_column: str | None = Field(
        None,
        description="null: the only column of class labels, or `fine_label`, `label`, `cls`, `class`, `target`.",
        examples=["label"],
    )


class DigitsSource(Images):
    """scikit-learn's 1,797 handwritten digits, 8x8 grey: nothing to download."""

    natural_side: ClassVar[int] = 8

    kind: Literal["digits"] = "digits"
    image_mode: Literal["L", "RGB"] = "L"


class HubSource(Columns):
    """A data set on the Hugging Face Hub, at a revision; or its local copy, see `PROXYDS_DATA`."""

    kind: Literal["hub"]
    name: str = Field(
        description="`user/name` on the Hub.",
        pattern=r"^[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?$",
        examples=["uoft-cs/cifar10"],
    )
    config: str | None = Field(None, description="The data set's configuration; null: its default.")
    revision: str = Field(
        description="A commit or tag: a branch can change.",
        examples=["0b2714987fa4"],
        min_length=1,
    )


class FolderSource(Columns):
    """A folder: parquet files, images in a folder for each label, or WebDataset tars; see `docs/sources.md`."""

    later = frozenset({"split_folders", "labels_may_differ", "follow_links", "on_left_over"})

    kind: Literal["folder"]
    path: LocalPath = Field(
        description="Relative to the recipe's folder, or to `PROXYDS_DATA`.", examples=["data/my-images"]
    )
    split_folders: bool = Field(
        True, description="Whether folders named `train`, `validation`, `test` hold splits; else each is a label."
    )
    labels_may_differ: bool = Field(
        False, description="Whether splits of image folders may have other labels than the training split."
    )
    follow_links: bool = Field(False, description="Whether links to folders are followed, wherever they lead.")
    on_left_over: Literal["fail", "skip"] = Field(
        "fail", description="Files that no rule has a use for stop the build, or are left out and counted on the card."
    )


class TorchvisionSource(Images):
    """CIFAR-10 or CIFAR-100 as torchvision keeps them (the folder that holds `cifar-10-batches-py`)."""

    kind: Literal["torchvision"]
    dataset: Literal["CIFAR10", "CIFAR100"]
    path: LocalPath = Field(description="Relative to the recipe's folder, or to `PROXYDS_DATA`.", examples=["data"])


class MemorySource(Columns):
    """Data that a Python program passes as `source=`: arrays, or a data set of `datasets` or torch; see `docs/images.md`."""

    kind: Literal["memory"]
    name: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="What the data are called, for people; null: as what was passed is called.",
        examples=["flowers"],
    )
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None,
        description="Of the data, whatever their order: the manifest's `source.fingerprint`. A build fills it in; other data are refused.",
        examples=["acca979775f46aa2347cc8026e67a87d35f9a431843ec397227d98c5d0a02331"],
    )


SourceSpec = Annotated[
    DigitsSource | HubSource | FolderSource | TorchvisionSource | MemorySource, Field(discriminator="kind")
]
