"""A recipe's section `space`: what a search may choose from, made from the parameters of each family of networks.

A parameter's choices are a list of values. Where a value has an entry for each stage (or for each name), an entry may be a
list of its own: every combination of them is then a value. Nothing is expanded here: a space of 10^20 architectures is
counted by arithmetic, and any one of them is taken by its number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    PlainValidator,
    SerializationInfo,
    TypeAdapter,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo

from proxyds.section import Section, check_distinct, fault
from proxyds.space.networks.families import FAMILIES
from proxyds.space.networks.plugins import offer_installed
from proxyds.text import show_value

EVERY = "every"
"""In place of a list: all values that a parameter has."""


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"must be the lowest, then the highest, got {bounds[0]:g} and {bounds[1]:g}")
    return bounds


_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Range = Annotated[tuple[_Amount, _Amount], AfterValidator(_in_order)]


class Bounds(Section):
    """What an architecture may cost; others are left out of the space."""

    forward_flops: _Range | None = Field(
        None,
        description="Lowest and highest FLOPs of one image, forward (a multiply-add is two).",
        examples=[[1e6, 5e7]],
    )
    n_parameters: _Range | None = Field(
        None, description="Lowest and highest number of weights.", examples=[[0, 300_000]]
    )


class Space(Section):
    """The architectures to be ranked: every combination of a family's choices, or a list; within bounds, or a sample.

    The recipe's section is one of the models made by `_section_of`; this is what they share.
    """

    later = frozenset({"architectures", "bounds", "sample"})

    network: str
    choices: Any = None
    architectures: Any = None
    bounds: Bounds | None = Field(None, description="What an architecture may cost; null: anything.")
    sample: Annotated[int, Field(ge=2, le=100_000)] | None = Field(
        None,
        description="So many of the architectures, drawn by the recipe's seed; null: all of them.",
        examples=[500],
    )

    @model_validator(mode="after")
    def _is_chosen_or_listed(self) -> Space:
        if (self.choices is None) == (self.architectures is None):
            raise fault(
                "must hold either choices (for each parameter a value or a list) or architectures (a list), it holds "
                + ("neither" if self.choices is None else "both")
            )
        if self.architectures is None and FAMILIES[self.network].parameters.named_by is not None:
            raise fault(
                f"must list networks of the family {self.network} one by one, as architectures, it holds choices"
            )
        return self

    @property
    def n_listed(self) -> int:
        """Counts the architectures before bounds and sample, without listing them."""
        if self.architectures is not None:
            return len(self.architectures)
        return math.prod(n for n, _ in self._values.values())

    @property
    def n_most(self) -> int:
        """Counts the architectures that the space can hold, or its sample. Bounds may leave fewer."""
        return self.n_listed if self.sample is None else min(self.sample, self.n_listed)

    def parameters_at(self, number: int) -> dict[str, Any]:
        """Returns the parameters of one architecture, number in [0, n_listed), as JSON has them; bounds and sample aside.

        Raises:
            IndexError: There is no such number.
        """
        if not 0 <= number < self.n_listed:
            raise IndexError(f"architecture {number}: must be from 0 to {self.n_listed - 1}")
        if self.architectures is not None:
            listed: dict[str, Any] = self.architectures[number].model_dump(mode="json")
            return listed
        parameters = {}
        for name, (n, values) in reversed(self._values.items()):  # the last parameter changes first
            number, place = divmod(number, n)
            parameters[name] = _at(values, place)
        return {name: parameters[name] for name in self._values}

    def name_of(self, parameters: Mapping[str, Any]) -> str:
        """Names an architecture by the network and what varies in this space; a text that alone varies is the name; some families' have names."""
        if (named_by := FAMILIES[self.network].parameters.named_by) is not None:
            return str(parameters[named_by])
        varied = self._varied
        shown = {name: value for name, value in _flatten(parameters).items() if name in varied}
        if len(shown) == 1 and isinstance(alone := next(iter(shown.values())), str):
            return alone
        return " ".join(
            [self.network, *(f"{name.rpartition('.')[2]}={show_value(value)}" for name, value in shown.items())]
        )

    @cached_property
    def _values(self) -> dict[str, tuple[int, Any]]:
        """Lists each parameter's choices and how many values they make."""
        every = FAMILIES[self.network].parameters.every
        listed = {name: tuple(every[name]()) if values == (EVERY,) else values for name, values in self.choices}
        return {name: (_count(values), values) for name, values in listed.items()}

    @cached_property
    def _varied(self) -> set[str]:
        """Finds the parameters that not all architectures share; where all are the same, every one."""
        if self.architectures is not None:
            listed = [_flatten(each.model_dump(mode="json")) for each in self.architectures]
            names = dict.fromkeys(name for each in listed for name in each)
            n_values = {
                name: len({json.dumps(each[name]) if name in each else "" for each in listed}) for name in names
            }
        else:
            choices = _flatten(dict(self.choices))
            n_values = {name: 2 if values == (EVERY,) else _count(values) for name, values in choices.items()}
        return {name for name, n in n_values.items() if n > 1} or set(n_values)


def space_section() -> TypeAdapter[Space]:
    """Returns the reader of the section `space` for the families that are registered now."""
    return _section_for(tuple(FAMILIES))


def space_sections() -> dict[str, type[Space]]:
    """Returns the model of the section `space` for each family that is registered now."""
    return {network: _section_of(network) for network in FAMILIES}


@cache
def _section_for(networks: tuple[str, ...]) -> TypeAdapter[Space]:
    any_of: Any = Annotated[Union[tuple(map(_section_of, networks))], Field(discriminator="network")]  # noqa: UP007
    return TypeAdapter(any_of)


@cache
def _section_of(network: str) -> type[Space]:
    """Makes the section `space` for one family."""
    family = FAMILIES[network]
    parameters: Any = family.parameters
    choices: dict[str, Any] = {
        name: (
            _choices_of(field, has_every=name in family.parameters.every),
            Field(_as_choices(field.default), description=field.description, examples=[field.examples]),
        )
        for name, field in family.parameters.model_fields.items()
    }
    title = "".join(part.capitalize() for part in network.replace("-", "_").split("_"))
    grid = create_model(f"{title}Choices", __base__=Section, __doc__=f"Choices for {network}.", **choices)
    sections: dict[str, Any] = {
        "network": (Literal[(network,)], Field(description=family.summary)),
        "choices": (
            grid | None,
            Field(None, description="For each parameter one value or a list; else the family's default."),
        ),
        "architectures": (
            Annotated[tuple[parameters, ...], Field(min_length=1), AfterValidator(check_distinct)] | None,
            Field(None, description="In place of choices: a list of architectures, each with its parameters."),
        ),
    }
    return create_model(f"{title}Space", __base__=Space, __doc__=Space.__doc__, **sections)


def _read_space(value: Any) -> Space:
    """Reads a section `space` by the families that are registered when it is read: plugins come after this file."""
    if isinstance(value, Space):
        return value
    network = value.get("network") if isinstance(value, dict) else None
    if isinstance(network, str):
        offer_installed(network)
    return space_section().validate_json(json.dumps(value))


def _write_space(space: Space, info: SerializationInfo) -> dict[str, Any]:
    return space.model_dump(mode=info.mode)


SpaceSpec = Annotated[
    Space,
    PlainValidator(_read_space),
    PlainSerializer(_write_space),
    GetPydanticSchema(get_pydantic_json_schema=lambda _, handler: handler(space_section().core_schema)),
]


def _choices_of(field: FieldInfo, *, has_every: bool) -> Any:
    """Makes the type of one parameter's choices."""
    kind = get_origin(field.annotation)
    if kind is tuple:  # an entry for each stage
        stages = get_args(field.annotation)
        written: Any = list[stages[0] | list[stages[0]]]  # type: ignore[valid-type]
        setting: Any = Annotated[
            tuple[_list_of(stages[0]), ...],  # type: ignore[misc]
            BeforeValidator(_as_tuple),
            AfterValidator(lambda setting: _check_entries(setting, len(stages))),
        ]
        return Annotated[
            tuple[setting, ...],
            Field(min_length=1),
            BeforeValidator(_as_settings, json_schema_input_type=written | list[written]),
            AfterValidator(check_distinct),
        ]
    if kind is dict:  # an entry for each name
        key, of_name = get_args(field.annotation)
        return dict[key, _list_of(of_name)]  # type: ignore[valid-type,misc]
    or_every = WrapValidator(lambda value, check: value if value == EVERY else check(value))
    checks = (*field.metadata, or_every if has_every else AfterValidator(_not_every))
    return _list_of(Annotated[(field.annotation, *checks)])


def _list_of(value: Any) -> Any:
    """Makes the type of one value or a list of them, held as a tuple; each once."""
    several = Annotated[list[value], Field(min_length=1)]
    return Annotated[
        tuple[value, ...],
        Field(min_length=1),
        BeforeValidator(_as_values, json_schema_input_type=value | several),
        AfterValidator(check_distinct),
        AfterValidator(_every_alone),
    ]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_values(value: Any) -> Any:
    """Takes one value for a list of it."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _as_settings(value: Any) -> Any:
    """Takes one setting for a list of it; it is one where an entry is no list."""
    if isinstance(value, list | tuple) and any(not isinstance(entry, list | tuple) for entry in value):
        return (value,)
    return _as_tuple(value)


def _as_choices(default: Any) -> Any:
    """Returns a family's default as choices have it."""
    if isinstance(default, tuple):
        return (tuple((entry,) for entry in default),)
    return {name: (value,) for name, value in default.items()} if isinstance(default, dict) else (default,)


def _check_entries(setting: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    if len(setting) != n:
        raise ValueError(f"must hold {n} entries, one for each stage (an entry may be a list), it holds {len(setting)}")
    return setting


def _not_every(value: Any) -> Any:
    if value == EVERY:
        raise ValueError(f"must be a value or a list of values: nothing lists all of them, as `{EVERY}` asks")
    return value


def _every_alone(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if EVERY in values and len(values) > 1:
        raise ValueError(f"must be `{EVERY}` alone, or a list of values")
    return values


def _blocks(values: Any) -> list[list[Sequence[Any]]]:
    """Returns the choices of one parameter as blocks of lists: each combination of entries of a block's lists is a value."""
    if isinstance(values, dict):
        return [list(values.values())]
    return [list(setting) for setting in values] if isinstance(values[0], tuple) else [[values]]


def _count(values: Any) -> int:
    """Counts the values that the choices of one parameter make."""
    return sum(math.prod(map(len, block)) for block in _blocks(values))


def _at(values: Any, number: int) -> Any:
    """Returns one of the values that the choices of one parameter make, as JSON has it; the last entry changes first."""
    for block in _blocks(values):
        n = math.prod(map(len, block))
        if number >= n:
            number -= n
            continue
        entries: list[Any] = []
        for entry in reversed(block):
            number, place = divmod(number, len(entry))
            entries.insert(0, entry[place])
        if isinstance(values, dict):
            return dict(zip(values, entries, strict=True))
        return entries if isinstance(values[0], tuple) else entries[0]
    raise IndexError(number)


def _flatten(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Names the entries of parameters that are mappings `parameter.name`."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat |= {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
    return flat
