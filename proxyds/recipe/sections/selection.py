"""The section `selection` of a recipe: what is chosen, how much of it, by which draw law; and which labels are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from proxyds.recipe.methods import MethodName
from proxyds.section import Section
from proxyds.text import short_json


def _is_count_or_share(keep: Any) -> Any:
    is_count = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 2
    if not is_count and not (isinstance(keep, float) and 0 < keep < 1) and keep != "auto":
        raise ValueError(
            f"must be a number of labels from 2, a share of them in (0, 1), or `auto`, got {short_json(keep)}; for example 20"
        )
    return keep


class LabelReduction(Section):
    """Which labels the proxy keeps where there are too many for its size (section 3.3)."""

    keep: Annotated[
        int | float | str, PlainValidator(_is_count_or_share, json_schema_input_type=int | float | Literal["auto"])
    ] = Field(
        description="Labels to keep: how many, their share, or `auto`: as many as leave samples_per_label.",
        examples=[20],
    )
    samples_per_label: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        100, description="For auto: samples that a kept label has in the proxy, on average.", examples=[100]
    )
    order: Literal["samples-first", "labels-first"] = Field(
        "samples-first",
        description="samples-first (section 4) draws samples of all labels, and keeps labels by what was drawn. labels-first (section "
        "3.3) keeps labels by the importance of all their samples, and then draws.",
    )
    choice: Literal["top", "drawn"] = Field(
        "top", description="Of the labels: those with the largest importance in sum, or drawn in proportion to it."
    )


def _is_ratio(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise ValueError(f"must be in (0, 1], got {ratio:g}; for five percent write 0.05")
    return ratio


Ratio = Annotated[float, AfterValidator(_is_ratio), Field(json_schema_extra={"exclusiveMinimum": 0, "maximum": 1})]


class Selection(Section):
    """How the proxy is drawn (Algorithm 1 steps 8 and 9)."""

    later = frozenset({"labels", "seed"})

    method: MethodName = Field(
        "easier",
        description="What is chosen: `easier` is more of what a probe finds easy; `cases` is the paper's, in proportion to importance; "
        "`proxyds list` tells the others.",
        examples=["easier"],
    )
    ratio: Ratio = Field(
        0.05, description="Size of the proxy as a share of the samples that may be drawn.", examples=[0.05]
    )
    draw: Literal["systematic", "successive"] = Field(
        "systematic",
        description="Draw law without replacement. By `systematic` the chance of a sample is exactly proportional to its weight, 1 at most. "
        "By `successive`, one after the other, large weights are taken less than in proportion.",
    )
    labels: LabelReduction | None = Field(None, description="Keep some labels only; null: all of them.")
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = Field(
        None, description="Of the draws alone; null: the recipe's. Another one is another proxy from the same probes."
    )
