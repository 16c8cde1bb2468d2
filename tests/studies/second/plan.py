"""What the second study runs: variants of training, and the trainings that each of its stages consists of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from proxyds.artifact.ranking_table import FEWER_EPOCHS, FULL
from proxyds.space.architecture import Architecture
from tests.studies.parts import take_half

Half = Literal["tuning", "judging"]


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        settings: What is changed of the recipe's training.
        smoothing: Share of the targets that is spread over all labels.
        temperature: Of the teacher's answers where these are the targets; None for labels.
        side: Pixels of a side that images are shrunk to; None for what they are.
        all_scores: Whether more is measured than accuracy, loss and margin.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    smoothing: float = 0.0
    temperature: float | None = None
    side: int | None = None
    all_scores: bool = False


BASE = "base"
FACTORS: dict[str, Variant] = {
    BASE: Variant(all_scores=True),
    "padding-0": Variant({"crop_padding": 0}),
    "padding-1": Variant({"crop_padding": 1}),
    "padding-4": Variant({"crop_padding": 4}),
    "not-mirrored": Variant({"horizontal_flip": False}),
    "rate-.003": Variant({"learning_rate": 0.003}),
    "rate-.03": Variant({"learning_rate": 0.03}),
    "batch-32": Variant({"batch_size": 32}),
    "batch-128": Variant({"batch_size": 128}),
    "epochs-6": Variant({"epochs": 6}),
    "epochs-26": Variant({"epochs": 26}),
    "epochs-52": Variant({"epochs": 52}, all_scores=True),
    "decay": Variant({"weight_decay": 5e-4}),
    "smoothing": Variant(smoothing=0.1),
    "soft-1": Variant(temperature=1.0),
    "soft-4": Variant(temperature=4.0),
    "side-12": Variant(side=12),
    "side-8": Variant(side=8),
}
"""One factor at a time, on subsets of 5 %."""
GROUPS: dict[str, tuple[str, ...]] = {
    "crop padding": ("padding-0", "padding-1", "padding-4"),
    "mirroring": ("not-mirrored",),
    "learning rate": ("rate-.003", "rate-.03"),
    "batch": ("batch-32", "batch-128"),
    "epochs": ("epochs-6", "epochs-26", "epochs-52"),
    "weight decay": ("decay",),
    "label smoothing": ("smoothing",),
    "soft labels": ("soft-1", "soft-4"),
    "image side": ("side-12", "side-8"),
}
"""The values of each factor besides the base's."""
_OF_FULL = {"batch_size": 128, "crop_padding": 2}
_SGD = {**_OF_FULL, "optimizer": "sgd", "weight_decay": 5e-4, "epochs": 20}
FULL_TRIED: dict[str, Variant] = {
    **{
        f"full-adam-{rate:g}": Variant({**_OF_FULL, "epochs": 20, "learning_rate": rate})
        for rate in (0.003, 0.01, 0.03)
    },
    **{f"full-sgd-{rate:g}": Variant({**_SGD, "learning_rate": rate}) for rate in (0.05, 0.1, 0.2)},
}
"""Trainings on everything that the reference's settings are chosen from, by accuracy on the evaluation samples."""
REFERENCE = "full-adam-0.03"
"""The best of these."""
LENGTHS: dict[str, Variant] = {
    f"full-{epochs}": Variant({**FULL_TRIED[REFERENCE].settings, "epochs": epochs}) for epochs in (40, 80)
}
"""Lengths of the reference; the longer one is taken if it gains half a point."""
LENGTH = "full-80"
"""The reference's training: the longer one gained more than half a point."""
CHOSEN = ("epochs-52", "soft-1", "batch-32")
"""The factors that gain most of those that gain enough, the best first."""


def combine(names: Sequence[str]) -> Variant:
    """Joins values of unlike factors into one variant."""
    of = [FACTORS[name] for name in names]
    return Variant(
        {key: value for each in of for key, value in each.settings.items()},
        smoothing=max(each.smoothing for each in of),
        temperature=next((each.temperature for each in of if each.temperature is not None), None),
        side=next((each.side for each in of if each.side is not None), None),
    )


TOGETHER = {"+".join(names): combine(names) for n in (2, 3) for names in combinations(CHOSEN, n)}
"""Each two of the chosen, and all three."""
CHOSEN_TRAINING = "epochs-52+soft-1+batch-32"
"""The best of the base, of the factors and of those together: what part B trains with."""
TRAINING = "epochs-52+batch-32"
"""The same without soft labels, which take a teacher."""
LONGER = "epochs-63"
"""The base with as many epochs as cost what the chosen training does."""
FORMER = "former-defaults"
"""The defaults of `training` before 2 December 2026."""
JUDGED = (BASE, LONGER, TRAINING, CHOSEN_TRAINING, FORMER)
OF_CELLS = "epochs-30+soft-1"
"""What part C trains with: with its teacher, two epochs' worth of everything for each cell."""
VARIANTS = {**FACTORS, **FULL_TRIED, **LENGTHS, **TOGETHER, LONGER: Variant({"epochs": 63})}
VARIANTS[FORMER] = Variant({"epochs": 30, "batch_size": 128, "learning_rate": 0.001})
VARIANTS[OF_CELLS] = Variant({"epochs": 30}, temperature=1.0)


METHODS = ("random", "stratified", "cases", "easier", "entropy-tails", FEWER_EPOCHS)
"""Ways to choose samples, and fewer epochs of everything."""
BESIDE_RANDOM = ("stratified", "cases")
"""With random samples, which another stage has, the three methods that lead on the tuning half of CIFAR-10: those that CIFAR-100 judges."""
LEAD_BY_LABELS = ("cases", "easier", "entropy-tails")
"""The three that lead with the training of the base; CIFAR-100 judges them beside random and stratified samples."""


CHEAPER_PROBES = {"easier-by-middle": (13, 3), "easier-by-start": (24, 3)}
"""Methods with other probes than the recipe's: the heaviest of so many networks, the lightest first, after so many epochs."""
LOOKED_FOR = (*CHEAPER_PROBES, "entropy-tails-stratified", "cases-easier-half")
"""Other methods that part B looks at, with the training of the base."""


@dataclass(frozen=True)
class Set:
    """Trainings of some architectures on draws of one method.

    Attributes:
        variant: Of `VARIANTS`.
        method: How samples are chosen; `FULL` for everything, `FEWER_EPOCHS` for everything in as many steps as a share takes.
        ratio: That share.
        n_draws: How often; of everything, trainings.
        half: Of the architectures; None for all.
        on_evaluation: Whether accuracy is that on the evaluation samples.
        every: One of so many architectures, evenly by cost.
    """

    variant: str
    method: str
    ratio: float
    n_draws: int
    half: Half | None = None
    on_evaluation: bool = False
    every: int = 1

    @property
    def is_drawn(self) -> bool:
        """Whether samples are chosen."""
        return self.method not in (FULL, FEWER_EPOCHS)

    def choose(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """Takes the architectures that are trained."""
        return take_half(architectures, self.half)[self.every // 2 :: self.every]


def _try_on_everything(variants: Iterable[str]) -> tuple[Set, ...]:
    return tuple(Set(name, FULL, 1.0, 1, "tuning", on_evaluation=True, every=4) for name in variants)


STAGES: dict[str, dict[str, tuple[Set, ...]]] = {
    "cifar10": {
        "tune-reference": _try_on_everything(FULL_TRIED),
        "reference-length": _try_on_everything(LENGTHS),
        "factors": tuple(
            Set(name, method, 0.05, 3, "tuning") for name in FACTORS for method in ("random", "stratified")
        ),
        "together": tuple(
            Set(name, method, 0.05, 3, "tuning") for name in TOGETHER for method in ("random", "stratified")
        ),
        "reference": (Set(LENGTH, FULL, 1.0, 1, "tuning"), Set(LENGTH, FULL, 1.0, 3)),
        "judging": tuple(Set(name, "random", 0.05, 5, "judging") for name in JUDGED),
        "methods": (
            Set(CHOSEN_TRAINING, "random", 0.05, 3, "tuning"),
            *(Set(CHOSEN_TRAINING, name, 0.05, 3) for name in METHODS if name != "random"),
        ),
        "methods-base": (
            Set(BASE, "random", 0.05, 3, "tuning"),
            *(Set(BASE, name, 0.05, 3) for name in METHODS if name != "random"),
        ),
        "sizes": tuple(
            Set(CHOSEN_TRAINING, name, ratio, 2, "judging")
            for ratio in (0.02, 0.1)
            for name in ("random", "stratified", FEWER_EPOCHS)
        ),
        "sizes-base": tuple(
            Set(BASE, name, ratio, 3, "judging") for ratio in (0.02, 0.1) for name in ("random", "easier")
        ),
        "looked-for": (
            *(Set(BASE, name, 0.05, 3, "tuning") for name in LOOKED_FOR),
            *(Set(BASE, name, 0.05, 3, "judging") for name in CHEAPER_PROBES),
        ),
    },
    "cifar100": {
        "reference": (Set(LENGTH, FULL, 1.0, 3),),
        "judging": tuple(Set(name, "random", 0.05, 5) for name in JUDGED),
        "methods": tuple(Set(CHOSEN_TRAINING, name, 0.05, 3) for name in BESIDE_RANDOM),
        "methods-base": tuple(Set(BASE, name, 0.05, 3) for name in ("stratified", *LEAD_BY_LABELS)),
        "looked-for": tuple(Set(BASE, name, 0.05, 3) for name in CHEAPER_PROBES),
    },
    "nasbench201": {"random": (Set(OF_CELLS, "random", 0.05, 2, every=2), Set(OF_CELLS, "random", 0.05, 2))},
}
"""Each data set has its stages, in the order of the protocol. What depends on results of one comes into the next when these are committed."""


def list_draws(stages: Iterable[Iterable[Set]]) -> Iterator[tuple[str, float, int]]:
    """Lists which subsets some stages need: method, ratio, number of the draw; each once."""
    every = (each for sets in stages for each in sets if each.is_drawn)
    yield from dict.fromkeys((each.method, each.ratio, number) for each in every for number in range(each.n_draws))
