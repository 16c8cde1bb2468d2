"""The section `output` of a recipe: the proxy's files, and which samples they hold besides those that were drawn; and their licence.

Licences are named as the Hub names them in a card's metadata. It may know others by now, and refuses the card where it does not.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from proxyds.section import Section
from proxyds.text import short_json, suggest_names

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
        description="How many evaluation samples the proxy holds with their images, to rank on without the source. A number takes the same "
        "share of every label; `all` takes all; `none` is for where size or licence speak against them. `auto` is 10000 at most, and none where "
        "importance.protocol is paper, since test samples never travel.",
        examples=["auto"],
    )

    def count_validation(self, n: int) -> int:
        """Counts the samples that the proxy holds to rank on, of n evaluation samples of the labels that it keeps."""
        words = {"all": n, "none": 0, "auto": MAX_VALIDATION}
        return min(n, self.validation if isinstance(self.validation, int) else words[self.validation])


LICENCE = r"^[a-z0-9][a-z0-9.+-]{0,63}$"
"""How their names look."""

LICENCES = tuple(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0
    grok2-community h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2
    llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0
    other pddl postgresql unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905 - a table to read, not a hundred lines
)
"""Names that the Hub documents (huggingface.co/docs/hub/repositories-licenses), compared with copies of that page in public repositories, December 2026."""


def check_licence(name: str) -> str:
    """Refuses what cannot be a licence's name on the Hub."""
    if not re.fullmatch(LICENCE, name):
        near = suggest_names(re.sub(r"[\s_]+", "-", name.lower()), LICENCES)
        raise ValueError(
            f"must be a name of lower-case letters, digits, `.`, `+`, `-`, as the Hub names licences, got {short_json(name)}; {near}; "
            "`other` is always taken"
        )
    return name


def doubt_licence(name: str) -> str | None:
    """Says what may be wrong with a licence that the Hub may not know; None for the others."""
    if name in LICENCES:
        return None
    return f"should be one that the Hub knows, or it refuses the card, got {name!r}; {suggest_names(name, LICENCES)}; `other` is always taken"
