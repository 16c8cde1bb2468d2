"""The section `output` of a recipe: the proxy's files, and which samples they hold besides those that were drawn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from proxyds.section import Section
from proxyds.text import short_json

MAX_VALIDATION = 10_000
"""Evaluation samples that a proxy holds unless the recipe says more: an accuracy on so many has a standard error of half a point at most."""


def _check_validation(validation: Any) -> Any:
    """Refuses what is neither a count nor one of the words."""
    is_count = isinstance(validation, int) and not isinstance(validation, bool) and validation >= 1
    if not is_count and validation not in ("auto", "all", "none"):
        raise ValueError(
            f"must be a number of samples from 1, `all`, `none` or `auto`, got {short_json(validation)}; for example 5000"
        )
    return validation


class Output(Section):
    """How the proxy is laid out."""

    later = frozenset({"validation"})

    samples_per_shard: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        10_000, description="Samples in each parquet file and tar, at most.", examples=[10_000]
    )
    gallery: bool = Field(True, description="Sample images on the card; off where images may not be redistributed.")
    validation: Annotated[
        int | str, PlainValidator(_check_validation, json_schema_input_type=int | Literal["auto", "all", "none"])
    ] = Field(
        "auto",
        description="Evaluation samples that the proxy holds with their images, to rank on without the source: at most so many, the same "
        "share of every label; `all`; `none`, where size or licence speak against them; `auto`: 10000 at most, and none where "
        "importance.protocol is paper, since test samples never travel.",
        examples=["auto"],
    )

    def count_validation(self, n: int) -> int:
        """Counts the samples that the proxy holds to rank on, of n evaluation samples of the labels that it keeps."""
        words = {"all": n, "none": 0, "auto": MAX_VALIDATION}
        return min(n, self.validation if isinstance(self.validation, int) else words[self.validation])
