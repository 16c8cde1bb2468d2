"""How networks are trained: a recipe's section `training`, and what a check may do otherwise on everything."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from proxyds.section import CodeSpec, Section, fault

MAX_EPOCHS, MAX_PADDING = 10_000, 64
FORMER_SETTINGS: dict[str, Any] = {"epochs": 30, "batch_size": 128, "learning_rate": 1e-3, "crop_padding": 4}
"""Defaults before 2 December 2026: what a recipe in full or a manifest means that lacks a setting."""
LEFT_TO_TRAINER = "must be left out with a trainer of one's own, which trains in its own way"
"""Why a recipe with a trainer may not have a setting."""

_Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
_BatchSize = Annotated[int, Field(ge=2, le=65_536)]
_Rate = Annotated[float, Field(gt=0, le=100)]
_Decay = Annotated[float, Field(ge=0, le=1)]
_Optimizer = Literal["adam", "sgd"]
_Schedule = Literal["one-cycle", "step"]


class Training(Section):
    """How networks are trained, unless `probes.epochs` or `check.full_training` says otherwise. The paper names Adam and no more."""

    later = frozenset({"precision", "trainer", "soft_labels"})

    trainer: CodeSpec | None = Field(
        None,
        description="In place of all else here: a trainer of the program's own, which passes it as `trainer=` of `proxyds.build`.",
    )
    epochs: _Epochs = Field(13, description="Passes over the data.", examples=[13])
    batch_size: _BatchSize = Field(64, description="Samples a step.", examples=[64])
    optimizer: _Optimizer = Field("adam", description="sgd: with Nesterov momentum of 0.9.")
    learning_rate: _Rate = Field(1e-2, description="At its highest.", examples=[0.01])
    weight_decay: _Decay = Field(0.0, description="L2 penalty.", examples=[0.0005])
    schedule: _Schedule = Field(
        "one-cycle", description="one-cycle: up, then down to nothing; step: a tenth at half and at three quarters."
    )
    crop_padding: Annotated[int, Field(ge=0, le=MAX_PADDING)] | None = Field(
        None,
        description="Augmentation: random crops from images padded by so many pixels, or 0 for none. null is an eighth of the smaller "
        "side that networks see, a half rounded up: 4 at 32 pixels, 2 at 16, 64 at most.",
        examples=[4],
    )
    horizontal_flip: bool = Field(True, description="Augmentation: mirror half of the images.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="What layers compute in. bfloat16 has half the bits; weights, statistics and the loss stay in float32. It is for "
        "training and for asking networks, where the processor or GPU has instructions for it. auto is float32 on CPUs, and on GPUs "
        "that have it bfloat16 in training alone.",
    )
    soft_labels: bool = Field(
        False,
        description="Whether networks learn what the heaviest probe makes of each image, a probability for every label, in place of its "
        "label. Probes, and trainings on everything in full, always learn labels.",
    )

    @model_validator(mode="after")
    def _leaves_all_to_its_trainer(self) -> Training:
        if self.trainer is not None and (trouble := self.find_useless()):
            raise fault(trouble)
        return self

    def find_useless(self) -> str:
        """Says which settings have no effect with a trainer of the program's own; nothing where there are none."""
        useless = ", ".join(name for name in self.list_set() if name != "trainer")
        return (
            useless
            and f"must leave all to the trainer, found {useless} besides, without effect; take that out of the recipe"
        )

    def with_labels(self) -> Training:
        """Returns how probes, and networks on everything, are trained: the same, but by labels."""
        return self.model_copy(update={"soft_labels": False})

    def _list_unused(self) -> set[str]:
        return super()._list_unused() if self.trainer is None else {*type(self).model_fields} - {"trainer"}

    @property
    def padding(self) -> int:
        """Returns `crop_padding` as trainings need it: a number, which `Recipe.with_crop_padding` has filled in."""
        assert self.crop_padding is not None
        return self.crop_padding


def choose_crop_padding(side: int) -> int:
    """Chooses the padding of random crops where a recipe names none: an eighth of the side in pixels, a half rounded up."""
    return min((side + 4) // 8, MAX_PADDING)


class FullTraining(Section):
    """Settings that replace those of the section `training` where a check trains on everything; null keeps one.

    What serves a few samples best, small batches for many epochs, need not be how networks are trained in the end.
    """

    later = frozenset({"epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule"})

    epochs: _Epochs | None = Field(None, description="Passes over the data.", examples=[80])
    batch_size: _BatchSize | None = Field(None, description="Samples a step.", examples=[128])
    optimizer: _Optimizer | None = Field(None, description="As in training.")
    learning_rate: _Rate | None = Field(None, description="At its highest.", examples=[0.03])
    weight_decay: _Decay | None = Field(None, description="L2 penalty.", examples=[0.0005])
    schedule: _Schedule | None = Field(None, description="As in training.")

    @model_validator(mode="after")
    def _names_something(self) -> FullTraining:
        if not self.list_set():
            raise fault("must name a setting to replace, it names none; for example {epochs: 80}, or leave it out")
        return self

    def change(self, own: Training) -> Training:
        """Returns the training on everything, by how networks are trained on a proxy."""
        return own.model_copy(update=self.model_dump())
