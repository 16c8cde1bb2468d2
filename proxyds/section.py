"""What every section of a recipe has in common."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


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
        fields = type(self).model_fields
        unused = {name for name in self.later if getattr(self, name) == fields[name].get_default()}
        return {name: value for name, value in serialize(self).items() if name not in unused}
