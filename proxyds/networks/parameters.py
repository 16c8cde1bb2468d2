"""What makes one network of each family: every parameter that a search space can vary, and what it may be.

This file imports no torch, so that a recipe can be validated in a moment. A parameter is a number, a text, true or false, a
tuple with an entry for each stage, or a mapping of names to plain values; `choices.py` makes a recipe's choices from it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Parameters(BaseModel):
    """What makes one network of a family; every field is a choice that a search space can vary.

    A family overrides what it knows better: `cost_class` and `is_connected` are what bounds of a large space are found by.

    Attributes:
        every: For a field whose values can be listed, the function that lists them; a recipe then says `every`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    every: ClassVar[dict[str, Callable[[], Sequence[object]]]] = {}

    def cost_class(self) -> Hashable | None:
        """What the cost depends on: networks of one class cost the same and are measured once; None: each has its own."""
        return None

    def is_connected(self) -> bool:
        """Whether the image reaches the output by every part that a bound of the space should have: others are no probes."""
        return True


def _is_odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that the output keeps the input's size")
    return value


OddSize = Annotated[int, Field(ge=1, le=15), AfterValidator(_is_odd)]
"""Side of a kernel in pixels."""


def _is_residual_depth(value: int) -> int:
    if (value - 2) % 6:
        below = max(8, value - (value - 2) % 6)
        raise ValueError(f"must be 6 n + 2 (8, 14, 20, ...); the nearest are {below} and {below + 6}")
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
