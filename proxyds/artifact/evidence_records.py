"""Evidence as the manifest holds it: estimates, comparisons, the verdict, what it cost. `docs/format.md` is its specification."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxyds.artifact.ranking_table import AT_ONE_RATIO, BY_ACCURACY, METHOD_LABELS, RankedBy, Score
from proxyds.recipe.models import Check

Verdict = Literal[
    "preserves the ranking",
    "ranks better than its controls",
    "worse than random",
    "no better than random",
    "no better than counting FLOPs",
    "no better than counting parameters",
    "no better than fewer epochs",
    "no better than random with parameters",
    "not enough evidence",
]


class Part(BaseModel):
    """A part of the manifest: frozen and strict; keys of a later minor version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _in_utc(time: str) -> str:
    if datetime.fromisoformat(time).utcoffset() != timedelta(0):
        raise ValueError("must be a time of UTC")
    return time


Time = Annotated[str, Field(pattern=r"^[0-9T:.Z+-]{20,40}$"), AfterValidator(_in_utc)]


class MachineRecord(Part):
    """Where the proxy was built, and with which versions."""

    device: str
    processor: str
    n_cores: Count
    python: str
    libraries: dict[str, str]
    n_workers: Count | None = None
    computations: dict[str, str] = Field(default_factory=dict)


class CheckRecord(Check):
    """The recipe's section `check` as run."""

    model_config = ConfigDict(extra="ignore")


def _is_way_to_rank(name: str) -> str:
    if name not in METHOD_LABELS:
        raise ValueError(f"must be one of {', '.join(METHOD_LABELS)}")
    return name


MethodName = Annotated[str, AfterValidator(_is_way_to_rank)]


class EstimateRecord(Part):
    """A statistic with its 95 % interval; null where it has no value."""

    value: float | None
    low: float | None
    high: float | None

    def shown(self, *, scale: float = 1, digits: int = 2) -> str:
        """Writes the estimate for people: `0.83 [0.61, 0.94]`."""
        if self.value is None:
            return "none"
        if self.low is None or self.high is None:
            return f"{scale * self.value:.{digits}f} [no interval]"
        value, low, high = (f"{scale * number:.{digits}f}" for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


class MethodRecord(Part):
    """How one way to rank architectures agrees with full data.

    `method` is a data set of the table `ranking`, or `flops` or `parameters` (ranking for nothing); `full` against other
    seeds of itself is the noise ceiling. `ratio` is null where there is none. `ranked_by` is what a data set ranks by.
    `tau_of_repeats` holds the Kendall tau of each draw, of each seed where nothing is drawn.
    """

    method: MethodName
    ratio: float | None
    ranked_by: RankedBy = BY_ACCURACY
    n_draws: Count
    mean_accuracy: float | None
    tau_of_repeats: tuple[float | None, ...]
    statistics: dict[str, EstimateRecord]

    @model_validator(mode="after")
    def _has_tau(self) -> MethodRecord:
        if "tau" not in self.statistics and (self.statistics or self.method != "full"):
            raise ValueError("statistics must hold tau; full data alone may have none")
        return self


class ComparisonRecord(Part):
    """The proxy's Kendall tau less a control's, both ranked by the same."""

    control: MethodName
    ratio: float
    ranked_by: RankedBy = BY_ACCURACY
    difference: EstimateRecord
    outcome: Literal["better", "no better", "worse", "undecided"]


class SpendingRecord(Part):
    """What the proxy costs and saves.

    Of one architecture: FLOPs and seconds of training and test, the mean over architectures and repeats, as they were while
    other runs went on beside; null where nothing was trained here. FLOPs are null where a trainer of one's own trained. `speed_up` is of the training alone.
    """

    full_flops: Amount | None
    full_seconds: Amount | None
    proxy_flops: Amount | None
    proxy_seconds: Amount | None
    speed_up: Amount | None
    build_flops: Amount | None
    build_seconds: Amount
    check_flops: Amount | None
    check_seconds: Amount
    pays_after: Count | None
    pays_after_with_check: Count | None


HALVING = "halving"
"""Successive halving on everything, among the ways to search."""


def _is_way_to_search(name: str) -> str:
    return name if name == HALVING else _is_way_to_rank(name)


class SearchRecord(Part):
    """What a search over the ranked architectures would have paid, and what it would have lost.

    Attributes:
        method: A way to rank, `full` for training all on everything, or `halving`.
        ranked_by: What ranks.
        n_finalists: How many of the best are trained on everything in the end.
        flops: Of choosing samples, of ranking and of the finalists' trainings.
        lost: Accuracy on everything that is lost.
    """

    method: Annotated[str, AfterValidator(_is_way_to_search)]
    ranked_by: RankedBy = BY_ACCURACY
    n_finalists: Count
    flops: Amount
    lost: Share


class RankedRecord(Part):
    """One architecture: accuracies are means of all repeats, with their standard deviations where there are several; place 1 is the best."""

    name: str
    n_parameters: Count
    forward_flops: Count
    full_accuracy: float
    full_deviation: Amount | None
    full_place: Count
    proxy_accuracy: float
    proxy_deviation: Amount | None
    proxy_place: Count
    proxy_loss: Amount | None = None


class RehearsalRecord(Part):
    """Whether what `proxyds rank` says comes true: parts of the check's architectures ranked by what the others tell.

    Attributes:
        n_fitted: Architectures that tell.
        n_candidates: Architectures that are ranked.
        intervals_hold: Share of the accuracies on everything that lie in their 90 % interval.
        chance_of_best: Chance that the best candidate was given, the mean.
        shortlists_hold: Share of the shortlists of 90 % that hold the best.
        shortlist_size: Their mean length.
    """

    n_fitted: Count
    n_candidates: Count
    intervals_hold: Share
    chance_of_best: Share
    shortlists_hold: Share
    shortlist_size: Amount


class OnEvaluationRecord(Part):
    """Kendall's tau between two rankings by the same trainings: by accuracy on evaluation samples, and on test samples.

    `full` is of the trainings on everything, `proxy` of those on the proxy at its own ratio, the mean over trainings; null where these
    were not measured on evaluation samples.
    """

    full: EstimateRecord | None
    proxy: EstimateRecord | None


class EvidenceRecord(Part):
    """How well the proxy ranks architectures, measured; see `evaluation/evidence.py`.

    `ranked_by` is what candidates rank by: the loss where they learned soft labels. Verdict, gate, own tau, the distance to
    the noise ceiling, places and searches go by it.
    """

    check: CheckRecord
    ranked_by: Score = BY_ACCURACY
    own_ratio: float
    runs: str
    reference: str
    n_architectures: Count
    n_like_cost_pairs: Count
    n_top: Count
    n_full_seeds: Count
    n_draws: Count
    left_out: tuple[str, ...]
    failures: tuple[str, ...]
    methods: tuple[MethodRecord, ...]
    comparisons: tuple[ComparisonRecord, ...]
    verdict: Verdict
    explanation: str
    own_tau: EstimateRecord
    below_ceiling: EstimateRecord | None = None
    on_evaluation: OnEvaluationRecord | None = None
    caution: str | None = None
    architectures: Annotated[tuple[RankedRecord, ...], Field(max_length=2000)] = ()
    searches: Annotated[tuple[SearchRecord, ...], Field(max_length=1000)] = ()
    rehearsal: RehearsalRecord | None = None
    passed: bool | None
    sufficient_ratio: float | None
    spending: SpendingRecord
    elapsed_seconds: Amount
    machine: MachineRecord
    created: Time

    @property
    def target(self) -> float | None:
        """What the lower end of Kendall tau's interval must reach for a ratio to be large enough."""
        return self.check.threshold if self.check.target is None else self.check.target

    def of(self, method: str, ratio: float | None, ranked_by: RankedBy | None = None) -> MethodRecord | None:
        """Finds the record of one way to rank, if it is there; by what candidates rank by unless told.

        What has no ratio, training on everything and the free rankings, has one record alone, called by accuracy.
        """
        key = (method, ratio, ranked_by or (BY_ACCURACY if ratio is None else self.ranked_by))
        return next((each for each in self.methods if (each.method, each.ratio, each.ranked_by) == key), None)

    def compare_with(self, control: str, ratio: float, ranked_by: RankedBy | None = None) -> ComparisonRecord | None:
        """Finds the proxy's comparison with a control at a ratio, if it is there; by what candidates rank by unless told."""
        key = (control, ratio, ranked_by or self.ranked_by)
        return next((each for each in self.comparisons if (each.control, each.ratio, each.ranked_by) == key), None)

    def list_held_out(self) -> dict[str, EstimateRecord]:
        """Lists how far rankings on evaluation samples agree with those on test samples, by what is measured."""
        record = self.on_evaluation
        pairs = {} if record is None else {"full": record.full, "proxy": record.proxy}
        return {f"tau on evaluation samples of {name}": each for name, each in pairs.items() if each is not None}

    def list_ways(self) -> list[MethodRecord]:
        """Lists the ways to rank at the proxy's own ratio, as tables and pictures do; those without statistics aside."""
        methods = [self.of(name, self.own_ratio if name in AT_ONE_RATIO else None) for name in METHOD_LABELS]
        return [each for each in methods if each is not None and each.statistics]

    @property
    def at_one_ratio(self) -> list[str]:
        """The data sets that were checked at each ratio."""
        methods = {each.method for each in self.methods}
        return [name for name in AT_ONE_RATIO if name in methods]

    @property
    def ratios(self) -> list[float]:
        """Every ratio of the proxy that was checked, the smallest first."""
        return sorted({each.ratio for each in self.methods if each.method == "proxy" and each.ratio is not None})


def list_claims(evidence: EvidenceRecord) -> dict[str, Any]:
    """Lists what evidence claims, by name: the values of every statistic, and what follows from them."""
    counts = {"n_architectures", "n_draws", "n_full_seeds", "n_top"}
    claims = evidence.model_dump(include={"own_ratio", "ranked_by", "verdict", "passed", "sufficient_ratio", *counts})
    for each in evidence.methods:
        for name, estimate in each.statistics.items():
            claims[f"{name} of {each.method} {each.ratio or ''} by {each.ranked_by}"] = estimate.value
    for comparison in evidence.comparisons:
        name = f"difference to {comparison.control} {comparison.ratio} by {comparison.ranked_by}"
        claims[name] = comparison.difference.value
    held_out = {name: each.value for name, each in evidence.list_held_out().items()}
    return {**claims, **held_out, "own tau": evidence.own_tau.value}


def list_later_claims(evidence: EvidenceRecord) -> dict[str, Any]:
    """Lists what is compared from format 1.7 on: intervals, outcomes, architectures, searches, costs."""
    claims: dict[str, Any] = {
        "whether there is a caution": evidence.caution is not None,
        "n_searches": len(evidence.searches),
    }
    claims |= {f"spending: {name}": value for name, value in evidence.spending.model_dump().items()}
    claims["n_listed"] = len(evidence.architectures)
    estimates = {"own tau": evidence.own_tau, "below the ceiling": evidence.below_ceiling, **evidence.list_held_out()}
    for each in evidence.methods:
        place = f"{each.method} {each.ratio or ''} by {each.ranked_by}"
        estimates |= {f"{name} of {place}": estimate for name, estimate in each.statistics.items()}
    for comparison in evidence.comparisons:
        place = f"difference to {comparison.control} {comparison.ratio} by {comparison.ranked_by}"
        estimates[place], claims[f"outcome of {place}"] = comparison.difference, comparison.outcome
    for name, estimate in estimates.items():
        claims[f"interval of {name}: low"] = estimate.low if estimate else None
        claims[f"interval of {name}: high"] = estimate.high if estimate else None
    for architecture in evidence.architectures:
        claims |= {f"{key} of {architecture.name}": value for key, value in architecture.model_dump().items()}
    for search in evidence.searches:
        name = f"search by {search.method} {search.ranked_by}, {search.n_finalists}"
        claims |= {f"{name}: flops": search.flops / 1e9, f"{name}: lost": search.lost}
    return claims
