"""What every section of a recipe has in common, and how its validators say what is wrong.

A validator of one value raises a `ValueError`, whose text is the message: requirement, what was found, what to do.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticCustomError

from proxyds.text import find_active_text, short_json


class Section(BaseModel):
    """A part of a recipe: frozen, strict about types, without unknown keys.

    Attributes:
        later: Fields that came after the first proxies were built. They are written, and count for a recipe's identity,
            only where they differ from their default, so that older proxies keep theirs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = self._list_unused()
        return {name: value for name, value in serialize(self).items() if name not in unused}

    def _list_unused(self) -> set[str]:
        """Lists the fields that are not written."""
        return {name for name in self.later if name not in self.list_set()}

    def list_set(self) -> list[str]:
        """Lists the fields that differ from their default."""
        fields = type(self).model_fields
        return [name for name in fields if getattr(self, name) != fields[name].get_default(call_default_factory=True)]


def _is_plain(name: str) -> str:
    if (trouble := find_active_text(name)) is not None:
        raise ValueError(f"must be plain text, it holds {trouble}")
    return name


class CodeSpec(Section):
    """Python code that a program hands over, as a section names it: whoever runs the recipe hands it over again."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_plain)] = Field(
        description="Of the function or class, for people.", examples=["train"]
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="Of the code, see docs/trainer.md.", examples=["0" * 64]
    )


def fault(message: str, place: str = "") -> PydanticCustomError:
    """Makes the error of a validator that looks at several fields.

    Args:
        message: Requirement, what was found, what to do.
        place: Dotted name, from the recipe's root, of the field at fault; empty for the section that the validator is of.
    """
    return PydanticCustomError("fault", "{message}", {"message": message, "place": place})


def unknown_name(message: str) -> PydanticCustomError:
    """Makes the error of a validator that finds a name which is not registered."""
    return PydanticCustomError("unknown_name", "{message}", {"message": message})


def check_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuses a list that holds a value twice."""
    numbers: dict[str, int] = {}
    for number, value in enumerate(values, 1):
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        first = numbers.setdefault(json.dumps(plain, sort_keys=True), number)
        if first != number:
            raise ValueError(
                f"must hold each choice once, {short_json(plain)} stands twice, as entries {first} and {number}; leave one out"
            )
    return values
