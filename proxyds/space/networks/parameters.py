"""What makes one network of each family: every parameter that a search space can vary, and what it may be.

This file imports no torch, so that a recipe can be validated in a moment. A parameter is a number, a text, true or false, a
tuple with an entry for each stage, or a mapping of names to plain values; `choices.py` makes a recipe's choices from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from proxyds.space.networks.cells import count_parts, list_cells, reaches_output, read_cell, write_cell
from proxyds.text import short_json


class Parameters(BaseModel):
    """What makes one network of a family; every field is a choice that a search space can vary.

    A family overrides what it knows better: `cost_parts` and `is_connected` are what bounds of a large space are found by.

    Attributes:
        every: For a field whose values can be listed, the function that lists them; a recipe then says `every`.
        named_by: The field that is each network's name; such networks are listed one by one. None: they are named by what varies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    every: ClassVar[dict[str, Callable[[], Sequence[object]]]] = {}
    named_by: ClassVar[str | None] = None

    def cost_parts(self) -> Mapping[Hashable, int] | None:
        """Counts what the cost is the sum of; None: each network has to be measured.

        FLOPs and weights of a network must be sums of so much for each part, whatever that is: `listing.py` finds it out from as
        many networks as there are parts.
        """
        return None

    def is_connected(self) -> bool:
        """Says whether the image reaches the output; a network where it does not is no probe, unless it is named."""
        return True


def _is_odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, so that the output keeps the input's size, got {value}")
    return value


OddSize = Annotated[int, Field(ge=1, le=15), AfterValidator(_is_odd)]
"""Side of a kernel in pixels."""


def _is_residual_depth(value: int) -> int:
    if (value - 2) % 6:
        below = max(8, value - (value - 2) % 6)
        raise ValueError(f"must be 6 n + 2 (8, 14, 20, ...); the nearest are {below} and {below + 6}, got {value}")
    return value


class ResNetParameters(Parameters):
    """The paper's ResNet variations (section 4): base filters B, kernel size K, multiplier M."""

    depth: Annotated[int, Field(ge=8, le=110), AfterValidator(_is_residual_depth)] = Field(
        20, description="Layers with weights: 6 n + 2.", examples=[20]
    )
    base_filters: Annotated[int, Field(ge=1, le=1024)] = Field(
        16, description="B: channels of the first stage.", examples=[16]
    )
    kernel_size: OddSize = Field(3, description="K: side of every kernel.", examples=[3])
    multiplier: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="M: stage widths are B, B*M, B*M^2.", examples=[2]
    )


Repeats = Annotated[int, Field(ge=1, le=64)]
Filters = Annotated[int, Field(ge=1, le=4096)]


class EfficientNetParameters(Parameters):
    """The paper's EfficientNet-B0 variations (section 4): repeats r, kernel sizes k, filters f of the seven stages.

    The paper gives seven filters for a stem and seven stages. They are the stages' inputs, and the first is the stem's
    output; the third setting is then B0's own. The last stage's output of 320 and the head of 1280 stay.
    """

    repeats: tuple[Repeats, Repeats, Repeats, Repeats, Repeats, Repeats, Repeats] = Field(
        (1, 2, 2, 3, 3, 4, 1), description="Blocks of each stage.", examples=[[1, 2, 2, 3, 3, 4, 1]]
    )
    kernel_sizes: tuple[OddSize, OddSize, OddSize, OddSize, OddSize, OddSize, OddSize] = Field(
        (3, 3, 5, 3, 5, 5, 3), description="Kernel size of each stage.", examples=[[3, 3, 5, 3, 5, 5, 3]]
    )
    filters: tuple[Filters, Filters, Filters, Filters, Filters, Filters, Filters] = Field(
        (32, 16, 24, 40, 80, 112, 192),
        description="Channels that enter each stage; the first are the stem's.",
        examples=[[32, 16, 24, 40, 80, 112, 192]],
    )
    small_stem: bool = Field(
        False,
        description="A stem of stride 1: images of 32x32 keep twice the side in every stage.",
        examples=[True],
    )
    width: Annotated[float, Field(gt=0, le=8)] = Field(
        1.0,
        description="All channels times this, rounded to whole numbers: to scale down what two cores train.",
        examples=[0.25],
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="Before the classifier.", examples=[0.2])
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Of the last block; rises evenly from 0.", examples=[0.2]
    )


def _is_cell(text: str) -> str:
    read_cell(text)
    return text


class NASBench201Parameters(Parameters):
    """NAS-Bench-201 (Dong and Yang 2020): the cell by its string; width and depth of the stack around it."""

    every = {"cell": list_cells}

    cell: Annotated[str, AfterValidator(_is_cell)] = Field(
        write_cell(("nor_conv_3x3",) * 6),
        description="Architecture string; `every`: all 15,625.",
        examples=["|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|"],
    )
    channels: Annotated[int, Field(ge=1, le=1024)] = Field(
        16, description="C: channels of the first stage; the others have 2C and 4C.", examples=[16]
    )
    cells: Annotated[int, Field(ge=1, le=64)] = Field(5, description="Cells of each of three stages.", examples=[5])

    def cost_parts(self) -> Mapping[Hashable, int]:
        """Counts the parts of `cells.count_parts`; what a part costs depends on width and depth."""
        return {(part, self.channels, self.cells): n for part, n in count_parts(read_cell(self.cell)).items()}

    def is_connected(self) -> bool:
        """Says whether a path leads from the cell's input to its output."""
        return reaches_output(read_cell(self.cell))


def _is_plain(value: object) -> object:
    if not isinstance(value, int | float | str | bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be a finite number, a text, true or false, got {short_json(value)}")
    return value


PlainValue = Annotated[
    int | float | str | bool, PlainValidator(_is_plain, json_schema_input_type=int | float | str | bool)
]


NOT_ARGUMENTS = ("weights", "pretrained", "checkpoint", "cache_dir", "num_classes", "in_chans")
"""How arguments begin that a recipe may not give: they load files, or say what the source says."""


def _is_argument(name: str) -> str:
    if name.startswith(NOT_ARGUMENTS):
        raise ValueError(
            f"must not be among the arguments: labels and channels are the source's, and no weights are ever loaded ({name})"
        )
    return name


class LibraryParameters(Parameters):
    """A classification model of a library, by its name there, with the arguments that its builder takes."""

    model: str = Field("resnet18", description="Name in the library.", examples=["resnet18"])
    arguments: dict[Annotated[str, AfterValidator(_is_argument)], PlainValue] = Field(
        {}, description="Arguments of the model's builder, such as its depth or width.", examples=[{"width_mult": 0.5}]
    )
    small_stem: bool = Field(
        False,
        description="For small images: the first convolution 3x3 at most and of stride 1, no pooling after it.",
        examples=[True],
    )


MAX_NAME = 100
"""Letters of a name that a program gives a network, at most."""


def _is_name(name: str) -> str:
    if name != name.strip() or not name.isprintable():
        raise ValueError(f"must be a name on one line, without blanks around it, got {short_json(name)}")
    return name


class HandedOverParameters(Parameters):
    """A network that a program hands over: which one."""

    named_by = "name"

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_is_name)] = Field(
        "network", description="What the program calls it.", examples=["wide"]
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        "0" * 64, description="Of its code, as proxyds.Recipe writes it.", examples=["0" * 64]
    )
