"""The manifest: what a proxy says of itself, `manifest.json`, written last. `docs/format.md` is its specification."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxyds.artifact.ranking_table import AT_ONE_RATIO, METHOD_LABELS
from proxyds.recipe.models import MAX_IMPORTANCE, MAX_PROBES, MAX_REPEATS, Check, Training

FORMAT_VERSION = "1.5"
MANIFEST = "manifest.json"
CARD = "README.md"
RECIPE = "recipe.yaml"
CONFIGS = {
    "default": ("train", "data"),
    "importance": ("train", "importance"),
    "evaluation": ("evaluation", "evaluation"),
    "ranking": ("ranking", "ranking"),
}
"""For each configuration of the data set: its split and its folder. `ranking` is there once the ranking was checked."""

EVIDENCE_FILES = (
    "ranking/ranking-00000-of-00001.parquet",
    "assets/correlation.png",
    "assets/orders.png",
    "assets/accuracy.png",
    "assets/ratios.png",
)
"""Files that a check adds to a proxy, the last only where several ratios were checked."""

Verdict = Literal[
    "preserves the ranking",
    "worse than random",
    "no better than random",
    "no better than counting FLOPs",
    "no better than fewer epochs",
    "not enough evidence",
]


class Part(BaseModel):
    """A part of the manifest: frozen and strict; keys of a later minor version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Side = Annotated[int, Field(ge=1, le=4096)]
_Amount = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Ratio = Annotated[float, Field(gt=0, le=1)]
_Constant = Annotated[float, Field(ge=0, le=MAX_IMPORTANCE)]


def _in_utc(time: str) -> str:
    if datetime.fromisoformat(time).utcoffset() != timedelta(0):
        raise ValueError("must be a time of UTC")
    return time


_Time = Annotated[str, Field(pattern=r"^[0-9T:.Z+-]{20,40}$"), AfterValidator(_in_utc)]


class FileFacts(Part):
    """One file of the proxy: its size in bytes and its sha256."""

    bytes: _Count
    sha256: _Sha256


class SourceRecord(Part):
    """What the proxy was made from; see `data.samples.SourceFacts`."""

    name: str
    revision: str | None
    kind: str
    is_local_copy: bool
    fingerprint: _Sha256
    n_samples: dict[str, _Count]
    n_duplicates: dict[str, _Count]
    n_shared: _Count
    bad_images: tuple[str, ...]
    evaluation_from: str
    test_from: str


class ProbeRecord(Part):
    """One training of a probe network: cost for one image, accuracy on the evaluation samples, training."""

    name: str
    repeat: _Count = 0
    network: str
    parameters: dict[str, Any]
    forward_flops: _Count
    training_flops_per_sample: _Count
    n_parameters: _Count
    accuracy: _Share
    losses: Annotated[tuple[Annotated[float, Field(ge=-1e100, le=1e100)], ...], Field(min_length=1)]
    training_seconds: _Amount
    training_flops: _Count


class AgreementRecord(Part):
    """How far two trainings of the probes give evaluation samples the same case; see `selection.records.Agreement`."""

    share: _Share
    by_chance: _Share
    of_cases: tuple[float | None, float | None, float | None, float | None]


class SpaceRecord(Part):
    """The search space: what makes its networks, how many, the parameters that all share, the training cost of its bounds for one image.

    `origin` is that of `space.networks.build.describe_origin`.
    """

    network: str
    origin: dict[str, str] = {}
    shared_parameters: dict[str, Any] = {}
    n_architectures: _Count
    lightest_training_flops: _Count
    heaviest_training_flops: _Count


class TrainingRecord(Training):
    """The recipe's section `training` as run."""

    model_config = ConfigDict(extra="ignore")


class MappingRecord(Part):
    """How importance reached training samples."""

    layer: str
    metric: str
    neighbours: Annotated[int, Field(ge=1, lt=2**63)]
    n_dimensions: _Count
    explained_variance: float


class ReductionRecord(Part):
    """How labels were chosen: see `recipe.models.LabelReduction`; `share` is that of the kept labels' samples which the proxy holds."""

    order: Literal["samples-first", "labels-first"]
    choice: Literal["top", "drawn"]
    share: _Ratio


class DrawRecord(Part):
    """How the proxy was drawn; `labels` where it keeps some labels only."""

    method: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "cases"
    law: str
    ratio: _Ratio
    constants: tuple[_Constant, _Constant, _Constant, _Constant]
    labels: ReductionRecord | None = None


class CountsRecord(Part):
    """Samples: that may be drawn, that importance was measured on, that chose nothing, in the proxy."""

    train: _Count
    evaluation: _Count
    test: _Count
    proxy: _Count


class ParentRecord(Part):
    """The proxy whose importance table a proxy was drawn from, without training anything again."""

    name: str
    version: str
    recipe_sha256: _Sha256
    manifest_sha256: _Sha256


class StageRecord(Part):
    """What one stage took: its work, task by task, in whichever build did it; and the wall clock of this build."""

    stage: str
    work_seconds: _Amount
    elapsed_seconds: _Amount
    flops: _Count
    was_stored: bool


class MachineRecord(Part):
    """Where the proxy was built, and with which versions."""

    device: str
    processor: str
    n_cores: _Count
    python: str
    libraries: dict[str, str]
    n_workers: _Count | None = None
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
    """A statistic with its 95 % bootstrap interval; null where it has no value."""

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
    seeds of itself is the noise ceiling. `ratio` is null where there is none. `tau_of_repeats` holds each repeat's own Kendall tau.
    """

    method: MethodName
    ratio: float | None
    n_draws: _Count
    mean_accuracy: float | None
    tau_of_repeats: tuple[float | None, ...]
    statistics: dict[str, EstimateRecord]

    @model_validator(mode="after")
    def _has_tau(self) -> MethodRecord:
        if "tau" not in self.statistics and (self.statistics or self.method != "full"):
            raise ValueError("statistics must hold tau; full data alone may have none")
        return self


class ComparisonRecord(Part):
    """The proxy's Kendall tau less a control's, resample by resample."""

    control: MethodName
    ratio: float
    difference: EstimateRecord
    outcome: Literal["better", "no better", "worse", "undecided"]


class SpendingRecord(Part):
    """What the proxy costs and saves.

    Of one architecture: FLOPs and seconds of training and test, the mean over architectures and repeats, as they were while
    other runs went on beside; null where nothing was trained here. `speed_up` is of the training alone.
    """

    full_flops: _Amount | None
    full_seconds: _Amount | None
    proxy_flops: _Amount | None
    proxy_seconds: _Amount | None
    speed_up: _Amount | None
    build_flops: _Amount
    build_seconds: _Amount
    check_flops: _Amount
    check_seconds: _Amount
    pays_after: _Count | None
    pays_after_with_check: _Count | None


class EvidenceRecord(Part):
    """How well the proxy ranks architectures, measured; see `evaluation/evidence.py`."""

    check: CheckRecord
    own_ratio: float
    runs: str
    reference: str
    n_architectures: _Count
    n_like_cost_pairs: _Count
    n_top: _Count
    n_full_seeds: _Count
    n_draws: _Count
    left_out: tuple[str, ...]
    failures: tuple[str, ...]
    methods: tuple[MethodRecord, ...]
    comparisons: tuple[ComparisonRecord, ...]
    verdict: Verdict
    explanation: str
    own_tau: EstimateRecord
    passed: bool | None
    sufficient_ratio: float | None
    spending: SpendingRecord
    elapsed_seconds: _Amount
    machine: MachineRecord
    created: _Time

    @property
    def target(self) -> float | None:
        """What the lower end of Kendall tau's interval must reach for a ratio to be large enough."""
        return self.check.threshold if self.check.target is None else self.check.target

    def of(self, method: str, ratio: float | None) -> MethodRecord | None:
        """Finds the record of one way to rank, if it is there."""
        return next((each for each in self.methods if (each.method, each.ratio) == (method, ratio)), None)

    def compare_with(self, control: str, ratio: float) -> ComparisonRecord | None:
        """Finds the proxy's comparison with a control at a ratio, if it is there."""
        return next((each for each in self.comparisons if (each.control, each.ratio) == (control, ratio)), None)

    @property
    def in_order(self) -> list[MethodRecord]:
        """The ways to rank at the proxy's own ratio, as tables and pictures list them; those without statistics aside."""
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
        return sorted(each.ratio for each in self.methods if each.method == "proxy" and each.ratio is not None)


class Manifest(Part):
    """The whole manifest."""

    format: Literal["proxyds"] = "proxyds"
    format_version: str = FORMAT_VERSION
    name: str
    version: str
    licence: str
    recipe_sha256: _Sha256
    protocol: Literal["validation", "paper"]
    seed: int
    label_names: tuple[str, ...]
    kept_labels: Annotated[tuple[_Count, ...], Field(min_length=2)] | None = None
    image_shape: tuple[Literal[1, 3], _Side, _Side] | None = None
    counts: CountsRecord
    source: SourceRecord
    space: SpaceRecord
    training: TrainingRecord | None = None
    probes: Annotated[tuple[ProbeRecord, ...], Field(min_length=2)]
    agreement: AgreementRecord | None = None
    mapping: MappingRecord
    draw: DrawRecord
    stages: tuple[StageRecord, ...]
    machine: MachineRecord
    created: _Time
    gallery: bool
    resampled_from: ParentRecord | None = None
    evidence: EvidenceRecord | None = None
    files: dict[str, FileFacts] = {}

    @model_validator(mode="after")
    def _keeps_its_own_labels(self) -> Manifest:
        kept = self.kept_labels
        if kept is not None and (list(kept) != sorted(set(kept)) or kept[-1] >= len(self.label_names)):
            raise ValueError("kept_labels must be numbers of label_names, each once, in order")
        if (kept is None) != (self.draw.labels is None):
            raise ValueError("kept_labels and draw.labels must both be there, or neither")
        return self

    @model_validator(mode="after")
    def _is_of_its_ratio(self) -> Manifest:
        n = round(self.draw.ratio * self.counts.train)
        if self.counts.proxy != n:
            raise ValueError(f"counts.proxy must be draw.ratio of counts.train, {n}, it is {self.counts.proxy}")
        if self.mapping.neighbours > self.counts.evaluation:
            raise ValueError("mapping.neighbours must be counts.evaluation at most")
        return self

    @model_validator(mode="after")
    def _repeats_its_probes(self) -> Manifest:
        n_repeats, names = self.n_repeats, list(dict.fromkeys(probe.name for probe in self.probes))
        n_probes, is_whole = len(names), len(names) * n_repeats == len(self.probes)
        trainings = [(probe.repeat, probe.name) for probe in self.probes]
        if n_probes < 2 or not is_whole or trainings != [(i, name) for i in range(n_repeats) for name in names]:
            raise ValueError("probes must be two or more, each once in each repeat, the repeats numbered from 0")
        if n_probes > MAX_PROBES or n_repeats > MAX_REPEATS:
            raise ValueError(f"probes must be {MAX_PROBES} at most, trained {MAX_REPEATS} times at most")
        costs = [each.training_flops_per_sample for each in self.probes[:n_probes]]
        if costs != sorted(costs):
            raise ValueError("probes must stand from the lightest to the heaviest, by training_flops_per_sample")
        if (self.agreement is None) != (n_repeats == 1):
            raise ValueError("agreement must be there where probes were trained several times, and only there")
        return self

    @property
    def n_repeats(self) -> int:
        """The number of trainings of each probe."""
        return self.probes[-1].repeat + 1

    @property
    def proxy_label_names(self) -> tuple[str, ...]:
        """The text of each label of the proxy, by its number there."""
        return self.label_names if self.kept_labels is None else tuple(self.label_names[i] for i in self.kept_labels)

    @property
    def has_lighter_winner(self) -> bool:
        """Whether some probe is more accurate than the heaviest, in the mean over its trainings."""
        means = np.reshape([probe.accuracy for probe in self.probes], (self.n_repeats, -1)).mean(axis=0)
        return bool(means.max() > means[-1])

    @property
    def is_saturated(self) -> bool:
        """Whether the heaviest probe is right on every evaluation sample, in each of its trainings."""
        n_probes = len(self.probes) // self.n_repeats
        return all(probe.accuracy == 1 for probe in self.probes[n_probes - 1 :: n_probes])

    def name_of(self, probe: ProbeRecord) -> str:
        """Names a training of a probe for people: its name, and its seed where there are several."""
        return probe.name if self.n_repeats == 1 else f"{probe.name}, seed {probe.repeat + 1}"


def list_configs(manifest: Manifest) -> list[dict[str, Any]]:
    """Lists the tables of a proxy as a card's metadata has them, for `datasets.load_dataset`."""
    return [
        {
            "config_name": config,
            **({"default": True} if config == "default" else {}),
            "data_files": [{"split": split, "path": f"{folder}/{split}-*.parquet"}],
        }
        for config, (split, folder) in CONFIGS.items()
        if config != "ranking" or manifest.evidence is not None
    ]
