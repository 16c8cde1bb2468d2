"""What a proxy is made from: the frozen, validated recipe, its canonical form and its identity.

Defaults are the paper's where the paper gives one. This module imports no torch, so that `proxyds validate` answers in a
moment. `yaml.py` reads and writes recipes as files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator

from proxyds.plain_values import write_mapping
from proxyds.recipe.methods import BY_IMPORTANCE, METHODS, MethodName
from proxyds.recipe.problems import Fault, refuse_faults, validate_words
from proxyds.recipe.sections.output import LICENCE, Output, check_licence, doubt_licence
from proxyds.recipe.sections.selection import Ratio, Selection
from proxyds.recipe.sections.source import DigitsSource, LocalPath, SourceSpec
from proxyds.recipe.sections.training import LEFT_TO_TRAINER, MAX_EPOCHS, FullTraining, Training, choose_crop_padding
from proxyds.section import CodeSpec, Section, check_distinct, fault
from proxyds.space.candidates import is_candidates, make_space
from proxyds.space.choices import SpaceSpec
from proxyds.space.known_models import find_unknown_models
from proxyds.space.networks.families import HANDED_OVER
from proxyds.text import find_active_text, iter_texts

_NAME = r"^[a-z0-9][a-z0-9._-]{0,95}$"
_VERSION = r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$"

MIN_RANKED = 5
"""Architectures without which nobody can speak of a ranking."""
MAX_PROBES, MAX_REPEATS, MAX_PARTS = 64, 100, 64


class Probes(Section):
    """The networks that are trained on everything to see which samples tell architectures apart (section 3.1)."""

    later = frozenset({"architectures", "seeds", "epochs", "data_parallel"})

    count: Annotated[int, Field(ge=2, le=MAX_PROBES)] = Field(
        2,
        description="Two: the lightest and the heaviest of the space. More: evenly spread over cost between them.",
        examples=[2],
    )
    architectures: (
        Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_PROBES), AfterValidator(check_distinct)] | None
    ) = Field(
        None,
        description="In place of count: the architectures of the space by name, as `proxyds inspect RECIPE` names them.",
    )
    seeds: Annotated[int, Field(ge=1, le=MAX_REPEATS)] = Field(
        1,
        description="Trainings of each probe, with a seed of its own each; importance is the mean over them.",
        examples=[3],
    )
    epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None = Field(
        None,
        description="Of each training of a probe; null: training.epochs. A few cost little, and show what is easy.",
        examples=[3],
    )
    data_parallel: Annotated[int, Field(ge=1, le=MAX_PARTS)] = Field(
        1,
        description="Processes that train each probe together, each with its own part of every batch, for networks too big for "
        "one GPU; batch norm normalises each part by itself.",
        examples=[2],
    )

    def choose_training(self, own: Training) -> Training:
        """Chooses how probes are trained, by the recipe's own section."""
        own = own.with_labels()
        return own if self.epochs is None else own.model_copy(update={"epochs": self.epochs})


def _not_all_zero(constants: tuple[float, ...]) -> tuple[float, ...]:
    if not any(constants):
        raise ValueError("must not all be zero: nothing could be drawn; for example [2, 1, 6, 1]")
    return constants


MAX_IMPORTANCE = 1e9
"""The largest constant of a case, and so the largest importance of a sample."""
MIN_CONSTANT = 1e-200
"""The least constant of a case besides 0: chances that follow from much smaller importances would overflow."""


def _not_tiny(constant: float) -> float:
    if 0 < constant < MIN_CONSTANT:
        raise ValueError(f"must be 0, or {MIN_CONSTANT:g} or more; write 0")
    return constant


_Constant = Annotated[float, Field(ge=0, le=MAX_IMPORTANCE, allow_inf_nan=False), AfterValidator(_not_tiny)]


class Importance(Section):
    """How much a sample's outcome counts (section 3, Algorithm 1 step 3)."""

    constants: Annotated[tuple[_Constant, _Constant, _Constant, _Constant], AfterValidator(_not_all_zero)] = Field(
        (2.0, 1.0, 6.0, 1.0),
        description="c1..c4: all probes right, all wrong, they differ in the order of their accuracies, against it.",
        examples=[[2, 1, 6, 1]],
    )
    protocol: Literal["validation", "paper"] = Field(
        "validation",
        description="Measure importance on the validation split; `paper`: on the test set, as the paper does "
        "(circular: only for reproducing its tables).",
    )


class Similarity(Section):
    """How importance reaches training samples: the nearest evaluation sample in feature space (section 3.2)."""

    layer: str | None = Field(
        None,
        description="Layer of the heaviest probe to take features from; null: the family's own.",
        examples=["stages.2"],
    )
    dimensions: Annotated[int, Field(ge=1, le=4096)] = Field(64, description="Of the features after PCA, at most.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance between features.")
    neighbours: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Evaluation samples whose importances are averaged; 1 is the paper.", examples=[1]
    )


class Reference(Section):
    """Full-data accuracies that are known already: a table, or another proxy's own runs."""

    path: LocalPath = Field(
        description="A CSV file with a row for each architecture, or a proxy's folder; relative to the recipe's folder.",
        examples=["published.csv"],
    )
    architecture_column: str = Field("architecture", description="Column of the architectures' names.")
    accuracy_column: str = Field("accuracy", description="Column of the accuracies, in [0, 1] or in percent.")


def _as_reference(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


_Correlation = Annotated[float, Field(ge=-1, le=1)]


class Check(Section):
    """How the ranking is checked: architectures trained on everything, on the proxy and on controls of its size."""

    later = frozenset({"controls", "parameter_weight", "full_training", "trainer"})

    architectures: Annotated[int, Field(ge=MIN_RANKED, le=10_000)] = Field(
        16, description="At most so many, drawn from the space and spread over cost.", examples=[12]
    )
    draws: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="Proxies and controls drawn, each trained with a seed of its own.", examples=[5]
    )
    full_seeds: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="Trainings on everything; the noise ceiling needs two.", examples=[3]
    )
    controls: Annotated[tuple[MethodName, ...], AfterValidator(check_distinct)] = Field(
        (),
        description="Selection methods to compare with, besides `random` and `stratified`.",
        examples=[["easiest", "herding"]],
    )
    ratios: Annotated[tuple[Ratio, ...], AfterValidator(check_distinct)] = Field(
        (), description="Other sizes of the proxy to check besides its own.", examples=[[0.02, 0.1, 0.2]]
    )
    threshold: _Correlation | None = Field(
        None,
        description="The lower end of Kendall tau's interval must reach it, or `check` exits with 3.",
        examples=[0.7],
    )
    target: _Correlation | None = Field(
        None, description="The smallest ratio whose lower end reaches it is named; null: the threshold.", examples=[0.7]
    )
    parameter_weight: Annotated[float, Field(ge=0, le=10)] = Field(
        0.5,
        description="What the number of parameters counts beside accuracy, in normal scores, where both rank together.",
        examples=[0.25],
    )
    reference: Annotated[Reference, BeforeValidator(_as_reference, json_schema_input_type=str | Reference)] | None = (
        Field(None, description="Full-data accuracies known already, so that nothing is trained on everything.")
    )
    full_training: FullTraining | None = Field(
        None,
        description="Settings that replace those of the section training where networks train on everything; null: none.",
    )
    trainer: CodeSpec | None = Field(
        None, description="Who trains here, `trainer=` of `proxyds.check`; null: as the section training says."
    )

    @model_validator(mode="after")
    def _leaves_all_to_its_trainer(self) -> Check:
        if self.trainer is not None and self.full_training is not None:
            raise fault(LEFT_TO_TRAINER, "check.full_training")
        return self

    def choose_training(self, own: Training) -> Training:
        """Chooses how architectures are trained, by the recipe's own section."""
        return own if self.trainer is None else Training(trainer=self.trainer)

    def choose_full_training(self, own: Training) -> Training:
        """Chooses how architectures are trained on everything.

        Args:
            own: How they are trained on a proxy.
        """
        own = own.with_labels()
        return own if self.full_training is None else self.full_training.change(own)


IN_FULL = "# The recipe as run, with every default filled in."
"""First line of the recipe in a proxy."""


class Recipe(Section):
    """A whole recipe. Frozen; recipes of equal proxies have equal `sha256`."""

    name: str = Field(
        description="Of the proxy: lower case, digits, `.`, `_`, `-`.", pattern=_NAME, examples=["cifar10-proxy-5pct"]
    )
    version: str = Field("1.0.0", description="Of the proxy: major.minor.patch.", pattern=_VERSION, examples=["1.0.0"])
    licence: Annotated[str, AfterValidator(check_licence)] = Field(
        "unknown",
        json_schema_extra={"pattern": LICENCE},
        description="Of the images, as the Hub names licences, or `other`; `license` is taken too.",
        examples=["cc-by-4.0"],
        validation_alias=AliasChoices("licence", "license"),
    )
    seed: Annotated[int, Field(ge=0, lt=2**53)] = Field(
        0, description="Every random number comes from it.", examples=[0]
    )
    source: SourceSpec = Field(default_factory=DigitsSource, description="The whole data set.")
    space: SpaceSpec = Field(description="The architectures that the proxy must rank.")
    probes: Probes = Field(default_factory=Probes, description="Networks trained on everything.")
    importance: Importance = Field(default_factory=Importance, description="What an outcome counts.")
    similarity: Similarity = Field(default_factory=Similarity, description="From evaluation to training samples.")
    selection: Selection = Field(default_factory=Selection, description="The draw.")
    training: Training = Field(default_factory=Training, description="How networks are trained.")
    output: Output = Field(default_factory=Output, description="The proxy's files.")
    check: Check | None = Field(
        None, description="Check the ranking after the build; null: leave it to `proxyds check`."
    )

    def __init__(self, /, *, ratio: float | None = None, method: str | None = None, **sections: Any) -> None:
        """Makes a recipe in Python: `Recipe(name="mine", space={...}, ratio=0.05, training={"epochs": 10})`.

        Values are those of a file. A section is a mapping, and a folder is taken from the working folder. Without `source`, or with one
        that names no `kind`, the recipe is of data in memory, which `proxyds.build(recipe, out, source=...)` is given.

        Args:
            ratio: The same as `selection={"ratio": ...}`.
            method: The same as `selection={"method": ...}`.
            sections: The fields by name; `name` and `space` must be given. `space` may also be networks at hand, see `make_space`.

        Raises:
            UnknownNameError: The first problem is a name that is not registered.
            CallableError: Networks at hand cannot be used.
            RecipeError: Anything else is wrong; the message lists every problem.
        """
        if is_candidates(sections.get("space")):
            sections["space"] = make_space(sections["space"])
        shorthands = {"ratio": ("selection", "ratio"), "method": ("selection", "method")}
        source = sections.get("source", {})
        if isinstance(source, Mapping):
            sections["source"] = {"kind": "memory", **source}
        validate_words(self, {**sections, "ratio": ratio, "method": method}, shorthands)
        unknown = find_unknown_models(self.space)
        refuse_faults([Fault(place, message, is_unknown_name=True) for place, message in unknown], {})

    def __str__(self) -> str:
        return self.to_yaml()

    def __repr__(self) -> str:
        return f"<Recipe {self.name} {self.version}: {self.selection.ratio:g} of {self.source.kind}, networks {self.space.network}>"

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # or pydantic would call it for files, too

    @model_validator(mode="after")
    def _has_enough_architectures(self) -> Recipe:
        n, n_probes = self.space.n_most, self.probes.count if self.probes.architectures is None else 2
        place, more = "space.choices" if self.space.choices is not None else "space.architectures", "choices"
        if self.space.network == HANDED_OVER:
            place, more = "space", "networks"
        if n < n_probes:
            raise fault(
                f"must make at least probes.count = {n_probes} architectures to rank, found {n}; give more {more}",
                place,
            )
        if self.check is not None and n < MIN_RANKED:
            raise fault(
                f"must make at least {MIN_RANKED} architectures for their ranking to be checked, found {n}; give more {more}, "
                "or leave out the section check",
                place,
            )
        return self

    @model_validator(mode="after")
    def _leaves_training_to_its_trainer(self) -> Recipe:
        if self.training.trainer is not None and (place := self.find_left_to_trainer()):
            raise fault(LEFT_TO_TRAINER, place)
        return self

    @model_validator(mode="after")
    def _has_equal_parts(self) -> Recipe:
        n, batch_size = self.probes.data_parallel, self.training.batch_size
        fitting = [n for n in range(1, MAX_PARTS + 1) if batch_size % n == 0 and batch_size >= 2 * n]
        if n not in fitting:
            raise fault(
                f"must divide training.batch_size = {batch_size} into equal parts of two samples or more, got {n}; possible: "
                f"{', '.join(map(str, fitting))}",
                "probes.data_parallel",
            )
        return self

    @model_validator(mode="after")
    def _trains_and_weighs_for_its_methods(self) -> Recipe:
        """Checks that scores are averaged over the trainings that their method needs, and that labels are dropped by weights alone."""
        method, n_seeds = self.selection.method, self.probes.seeds
        controls = self.check.controls if self.check else ()
        for name, place in ((method, "selection.method"), *((control, "check.controls") for control in controls)):
            n_needed = METHODS[name].n_seeds
            if n_needed > n_seeds:
                raise fault(
                    f"{name} averages scores over at least {n_needed} trainings of the heaviest probe, probes.seeds is {n_seeds}; "
                    f"set probes.seeds: {n_needed}",
                    place,
                )
        if self.selection.labels is not None and not METHODS[method].is_weighting:
            raise fault(
                f"must be left out with the method {method}, which does not choose by weights alone; possible: "
                f"{', '.join(name for name in METHODS if METHODS[name].is_weighting)}",
                "selection.labels",
            )
        return self

    @model_validator(mode="after")
    def _keeps_test_samples_at_home(self) -> Recipe:
        if self.importance.protocol == "paper" and self.output.validation not in ("auto", "none"):
            raise fault(
                "must be auto or none where importance.protocol is paper: evaluation samples are the test samples then, which never "
                f"travel, got {self.output.validation}",
                "output.validation",
            )
        return self

    @model_validator(mode="after")
    def _is_plain_text(self) -> Recipe:
        """Checks that the manifest and the card, which may hold plain text alone, can hold the recipe's texts."""
        for place, text in iter_texts(self.model_dump(mode="json", exclude={"check"})):
            if (trouble := find_active_text(text)) is not None:
                raise fault(f"must be plain text, it holds {trouble}", ".".join(place))
        return self

    def find_left_to_trainer(self) -> str:
        """Names a setting besides the section `training` that a trainer of one's own does not take; nothing where there is none."""
        has_full_training = self.check is not None and self.check.full_training is not None
        useless = [f"probes.{name}" for name in ("epochs", "data_parallel") if name in self.probes.list_set()]
        return next(iter([*useless, *(["check.full_training"] if has_full_training else [])]), "")

    @property
    def warnings(self) -> list[str]:
        """Says what is allowed and may not be meant: a licence that the Hub may not know, and choosing by probes beside soft labels."""
        found = [f"licence: {doubt}"] if (doubt := doubt_licence(self.licence)) else []
        if self.training.soft_labels and self.selection.method not in ("random", "stratified"):
            found.append(
                f"selection.method: {self.selection.method} is not shown to rank better than random samples where networks learn soft labels; take stratified"
            )
        return found

    @property
    def draw_seed(self) -> int:
        """Returns the seed that draws come from."""
        return self.seed if self.selection.seed is None else self.selection.seed

    def with_crop_padding(self, padding: int) -> Recipe:
        """Fills in `training.crop_padding`, in pixels, where the recipe leaves it to its images."""
        if self.training.crop_padding is not None or self.training.trainer is not None:
            return self
        return self.model_copy(update={"training": self.training.model_copy(update={"crop_padding": padding})})

    def to_yaml(self) -> str:
        """Writes the recipe as YAML with every default filled in (but for `Section.later`); reading it gives an equal `sha256`.

        Of a folder it holds the name alone. A crop padding that is left to the images is null until a build has read them.
        """
        return f"{IN_FULL} Identity (sha256): {self.sha256}\n{write_mapping(self.model_dump(mode='json'))}"

    @property
    def canonical(self) -> str:
        """Writes what the proxy is made from, every default filled in (but for `Section.later`), as JSON with sorted keys and no spaces.

        Left out are local paths and the name of data in memory; `check`, which changes nothing in the proxy; the method `cases`, once the only one.
        A `training.crop_padding` that is left to images whose side the recipe does not tell is that of 32 pixels; a build fills in
        the one of the images that it finds.
        """
        padding = choose_crop_padding(self.source.image_size or self.source.natural_side)
        recipe = self.with_crop_padding(padding).model_dump(mode="json", exclude={"check"})
        if self.selection.method == BY_IMPORTANCE:
            del recipe["selection"]["method"]
        if self.source.kind == "memory":
            del recipe["source"]["name"]
        return json.dumps(recipe, sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """Returns the recipe's identity: the sha256 of its canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def recipe_json_schema() -> str:
    """Writes the JSON Schema of recipes, for editors; shipped as `recipe.schema.json`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    schema["properties"]["license"] = {"$ref": "#/properties/licence"}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
