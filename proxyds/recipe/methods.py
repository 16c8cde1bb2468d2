"""Selection methods by name: whose each is, the rule it chooses by, what it needs, how its draws differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from proxyds.section import unknown_name
from proxyds.text import suggest_names

Need = Literal["cases", "features", "answers"]
"""What a method needs: importances by cases; features of the heaviest probe; its answers for every sample after each epoch."""


@dataclass(frozen=True)
class Method:
    """A way to select.

    Attributes:
        summary: What it takes, for people.
        source: Who proposed it; empty for what everybody does.
        needs: What the rule needs besides ids and labels.
        n_seeds: Trainings of the heaviest probe that its scores are averaged over, at least.
        is_weighting: Whether its designs are weights alone, the same for every size and seed: then the weights are all that is needed to
            draw another size, or some labels.
        is_fixed: Whether every draw takes the same samples, but for ties: then draws differ in training alone.
        follows_epochs: Whether its rule looks at answers after each epoch; else the last ones are enough.
        caution: What whoever trains on its samples must know, for the card.
    """

    summary: str
    source: str
    needs: frozenset[Need] = frozenset()
    n_seeds: int = 1
    is_weighting: bool = False
    is_fixed: bool = False
    follows_epochs: bool = False
    caution: str = ""


_CASES, _FEATURES, _ANSWERS = frozenset[Need]({"cases"}), frozenset[Need]({"features"}), frozenset[Need]({"answers"})
N_SEEDS = 3
"""Trainings that scores of single samples are averaged over; Paul et al. (2021) take ten."""

_SHLEIFER = "Shleifer and Prokop, Using small proxy datasets to accelerate hyperparameter search, 2019"
_NA = "Na et al., Accelerating neural architecture search via proxy data, IJCAI 2021"

_BY_ACCURACY = (
    "Rank networks that were trained on such easy samples by accuracy: by their loss on held-out samples, a study on CIFAR-10 found them "
    "ranked the wrong way round."
)

METHODS: dict[str, Method] = {
    "random": Method("every sample with the same chance", "", is_weighting=True),
    "stratified": Method("the same share of every label, at random", ""),
    "cases": Method(
        "in proportion to the importance of cases",
        "Park, Data proxy generation for fast and efficient neural architecture search, 2019",
        _CASES,
        is_weighting=True,
    ),
    "cases-stratified": Method(
        "in proportion to the importance of cases, the same share of every label",
        "Park 2019, with quotas",
        _CASES,
    ),
    "easier": Method(
        "the likelier the easier for the heaviest probe, the same share of every label on average",
        f"{_SHLEIFER}, as weights",
        _ANSWERS,
        is_weighting=True,
        caution=_BY_ACCURACY,
    ),
    "easiest": Method(
        "the smallest loss, the same share of every label",
        _SHLEIFER,
        _ANSWERS,
        is_fixed=True,
        caution=_BY_ACCURACY,
    ),
    "hardest": Method("the largest loss, the same share of every label", _SHLEIFER, _ANSWERS, is_fixed=True),
    **{
        name: Method(f"what is rare among entropies, by P{power}", _NA, _ANSWERS, is_weighting=True)
        for name, power in (("entropy-tails", 1), ("entropy-tails-p2", 2), ("entropy-tails-p3", 3))
    },
    "el2n": Method(
        "the largest errors early in training",
        "Paul et al., Deep learning on a data diet, NeurIPS 2021",
        _ANSWERS,
        N_SEEDS,
        is_fixed=True,
        follows_epochs=True,
    ),
    "forgetting": Method(
        "what is most often forgotten",
        "Toneva et al., An empirical study of example forgetting, ICLR 2019",
        _ANSWERS,
        N_SEEDS,
        is_fixed=True,
        follows_epochs=True,
    ),
    "ccs": Method(
        "evenly over the range of margins, without the hardest",
        "Zheng et al., Coverage-centric coreset selection for high pruning rates, ICLR 2023",
        _ANSWERS,
        follows_epochs=True,
    ),
    "k-center": Method(
        "always the farthest from what was taken",
        "Sener and Savarese, Active learning for convolutional neural networks: a core-set approach, ICLR 2018",
        _FEATURES,
    ),
    "herding": Method(
        "what keeps the mean of each label's features",
        "Welling, Herding dynamical weights to learn, ICML 2009",
        _FEATURES,
        is_fixed=True,
    ),
    "moderate": Method(
        "at a middling distance from the label's median feature",
        "Xia et al., Moderate coreset, ICLR 2023",
        _FEATURES,
        is_fixed=True,
    ),
}
"""Every method by its name."""


def _check_known(name: str) -> str:
    if name not in METHODS:
        raise unknown_name(f"must be a selection method, got {name!r}; {suggest_names(name, METHODS)}")
    return name


MethodName = Annotated[str, AfterValidator(_check_known), Field(json_schema_extra={"enum": list(METHODS)})]
"""The name of a method, as a recipe holds it."""
BY_IMPORTANCE = "cases"
"""The paper's method, whose weights are the importances: an artifact holds them once. Proxies without a method were drawn by it."""
UNKNOWN_METHOD = Method("of another version", "")
"""Stands for a method that a proxy of a later version was drawn by."""


def chooses_by_evaluation(name: str) -> bool:
    """Tells whether a method looks at the cases of evaluation samples; one that is not known may."""
    method = METHODS.get(name, UNKNOWN_METHOD)
    return method is UNKNOWN_METHOD or "cases" in method.needs
