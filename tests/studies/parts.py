"""What is studied: parts, each a data set that architectures are trained on at some cost, and the studies that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxyds.artifact.ranking_table import FEWER_EPOCHS, FULL
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Recipe, Training
from proxyds.space.architecture import Architecture
from tests.studies.candidates import CANDIDATES

RESULTS = Path(__file__).parent.parent.parent / "cards" / "fidelity"
"""A folder for each study, and the page of those that are weighed together."""
RECIPES = Path(__file__).parent
N_TRAIN, N_EVALUATION = 45_000, 5_000
"""Samples to choose from, and evaluation samples, of CIFAR-10 and CIFAR-100 alike."""


@dataclass(frozen=True)
class Part:
    """What architectures are trained on, in every draw.

    Attributes:
        dataset: Its name in the rows.
        ratio: What it costs, as a share of training on everything.
        method: How samples are chosen; None for everything.
        size: Share of the samples that it holds; None for the ratio.
        settings: What is changed of the training.
        n_labels: Labels that are kept, at random; None for all.
        n_draws: How often; None for as often as the recipe says.
    """

    dataset: str
    ratio: float
    method: str | None = None
    size: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    n_labels: int | None = None
    n_draws: int | None = None

    @property
    def share(self) -> float:
        """Of the samples, that a subset holds."""
        return self.size or self.ratio


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        name: Of the results' folder.
        recipe: Its file's name without `.yaml`, and the results' folder that holds its subsets.
        parts: In the order in which they are run.
        half: `tuning` or `judging` where only these architectures are trained and weighed, see `take_half`; None for all.
        beside: Studies with the same recipe, whose rows count too.
        note: What must be known of its rows.
        n_labels: Labels of its source; its images are those of CIFAR.
    """

    name: str
    recipe: str
    parts: tuple[Part, ...]
    half: str | None = None
    beside: tuple[str, ...] = ()
    note: str = ""
    n_labels: int = 10

    @property
    def folder(self) -> Path:
        """Of its rows and its page."""
        return RESULTS / self.name

    @property
    def subsets(self) -> Path:
        """Where the subsets of its recipe are kept."""
        return RESULTS / self.recipe / "subsets.npz"


def by_method(ratio: float, *methods: str) -> list[Part]:
    """A part for each method, and by its name."""
    return [Part(method, ratio, method) for method in methods]


def fewer_epochs(ratio: float) -> Part:
    """Everything, for as many steps as a subset of the ratio takes."""
    return Part(FEWER_EPOCHS, ratio, size=1.0)


LEADING = ("random", "stratified", "cases", "easier", "entropy-tails")
"""Methods that are looked at in other sizes than 5 %, and on another data set, too: more would not fit into eight hours."""
TRIED = 2
"""Draws of what is tried: five of a few would have told less."""
OTHER_TRAININGS = (
    Part("random-half-the-size", 0.05, "random", size=0.025),
    Part("random-twice-the-size", 0.05, "random", size=0.1),
    Part("random-four-times-the-size", 0.05, "random", size=0.2),
    Part("random-low-rate", 0.05, "random", settings={"learning_rate": 0.003}),
    Part("random-high-rate", 0.05, "random", settings={"learning_rate": 0.03}),
    Part("random-small-batches", 0.05, "random", settings={"batch_size": 32}),
    Part("random-large-batches", 0.05, "random", settings={"batch_size": 128}),
    Part("random-tiny-batches", 0.05, "random", settings={"batch_size": 16}),
    Part("random-as-it-is", 0.05, "random", settings={"crop_padding": 0, "horizontal_flip": False}),
    Part("random-five-labels", 0.05, "random", n_labels=5),
    Part("random-three-labels", 0.05, "random", n_labels=3),
    Part("random-two-labels", 0.05, "random", n_labels=2),
    Part("easiest-half-the-size", 0.05, "easiest", size=0.025),
    Part("easiest-small-batches", 0.05, "easiest", settings={"batch_size": 32}),
    Part("easiest-tiny-batches", 0.05, "easiest", settings={"batch_size": 16}),
    Part("easiest-five-labels", 0.05, "easiest", n_labels=5),
    Part("easier-five-labels", 0.05, "easier", n_labels=5),
    Part("easier-two-labels", 0.05, "easier", n_labels=2),
)
"""Random, easiest and easier samples trained otherwise, at the same cost: which settings rank best."""
JUDGED = ("easiest-small-batches", "random-small-batches")
"""What ranked best of all that was tried, and the same of random samples: on the other half of the networks, with every draw."""
STRONG_CROPS = "Images of 16x16 were cropped with a padding of 4, a quarter of their side. In later runs with a padding of 2 random samples ranked far better. So differences between methods here are of that training."
"""What must be known of rows that were trained before the default padding went by the images' side."""
STUDIES = {
    "cifar10": Study(
        "cifar10",
        "cifar10",
        (
            Part(FULL, 1.0),
            *by_method(0.05, *METHODS),
            fewer_epochs(0.05),
            *by_method(0.1, *LEADING),
            fewer_epochs(0.1),
            *by_method(0.02, *LEADING),
            fewer_epochs(0.02),
        ),
        note=STRONG_CROPS,
    ),
    "search": Study(
        "search",
        "cifar10",
        tuple(replace(part, n_draws=TRIED) for part in (*by_method(0.05, *CANDIDATES), *OTHER_TRAININGS)),
        half="tuning",
        beside=("cifar10",),
        note="They are every second one of cifar10's by cost. What stands first of about fifty by two draws stands there by luck, too. The easiest samples in small batches were run again on [the other half](../judging/README.md): "
        "there they cannot be told from random samples. What has two draws is compared with controls of five. The first two draws happen to favour easy samples over random ones, which flatters such differences.",
    ),
    "judging": Study(
        "judging",
        "cifar10",
        tuple(part for part in OTHER_TRAININGS if part.dataset in JUDGED),
        half="judging",
        beside=("cifar10",),
        note="They are the half of cifar10's that [the search](../search/README.md) did not look at. This tests the easiest samples in small batches, which ranked best in the search. It does not test `easier`, "
        "which was chosen when the results of all were known.",
    ),
    "cifar100": Study(
        "cifar100",
        "cifar100",
        (Part(FULL, 1.0), *by_method(0.05, *LEADING, "easiest"), fewer_epochs(0.05)),
        note="Its images were read from a copy that had been encoded as JPEG (quality 90) again: accuracies are not those of the original pixels. "
        + STRONG_CROPS,
        n_labels=100,
    ),
}

TOGETHER = ("cifar10", "cifar100")
"""Studies of unlike data sets and architectures, which are weighed together, too."""
ABOUT_TOGETHER = (
    "Their networks differ, but are of one family and trained alike. `easier` was found by looking at those of cifar10, which flatters it there, and so in the mean. For cifar100 nothing was tuned. "
    "The other methods were published before, or are variants of such. Their authors set the bins of `entropy-tails` for each of these two data sets. To take the mean was decided after each data set had been looked at alone. "
    "The ways here were chosen from the seventeen that were tried on all networks of cifar10. On half of those, other forms of `easier` were looked at before it, and in the end [about fifty ways](search/README.md)."
)
"""What must be known of their mean."""


def take_half(architectures: Sequence[Architecture], half: str | None) -> list[Architecture]:
    """Every second architecture by cost, from the lightest (`tuning`) or from the one after it (`judging`); None for all."""
    return list(architectures[{"tuning": slice(0, None, 2), "judging": slice(1, None, 2), None: slice(None)}[half]])


def count_draws(part: Part, recipe: Recipe) -> int:
    """How often everything is trained on a part's data set."""
    assert recipe.check is not None
    return part.n_draws or (recipe.check.full_seeds if part.dataset == FULL else recipe.check.draws)


def change_training(part: Part, recipe: Recipe) -> Training:
    """A part's training settings."""
    return Training.model_validate({**recipe.training.model_dump(), **part.settings})
