"""The manifest: what a proxy says of itself, `manifest.json`, written last. `docs/format.md` is its specification."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from proxyds.artifact.evidence_records import Amount, Count, EvidenceRecord, MachineRecord, Part, Share, Time
from proxyds.artifact.ranking_table import TRAINED_HERE
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import MAX_IMPORTANCE, MAX_PROBES, MAX_REPEATS
from proxyds.recipe.sections.training import FORMER_SETTINGS, MAX_PADDING, Training
from proxyds.section import CodeSpec

FORMAT_VERSION = "2.0"
FORMER_VERSION = "1.7"
"""The last version before 2.0. A check adds no more than its evidence: proxies of 1.x stay of 1.x."""
MANIFEST = "manifest.json"
CARD = "README.md"
RECIPE = "recipe.yaml"
INDEX = "indices.csv"
CROISSANT = "croissant.json"
INDEXES = {"data": INDEX, "validation": "validation.csv"}
"""The list of the samples of each table with images. These tables have tars, too, and labels as the proxy numbers them."""


class TablePlace(NamedTuple):
    """Where a table stands: configuration and split of the data set, and the folder of its files."""

    config: str
    split: str
    folder: str


TABLES = {
    "data": TablePlace("default", "train", "data"),
    "validation": TablePlace("default", "validation", "data"),
    "importance": TablePlace("importance", "train", "importance"),
    "evaluation": TablePlace("evaluation", "evaluation", "evaluation"),
    "ranking": TablePlace("ranking", "ranking", "ranking"),
}
"""Every table by name. `has_table` says which are there."""

SOFT_LABELS = "soft labels"
"""The stage that asks the heaviest probe for them."""

RUNS_FILE = "ranking/ranking-00000-of-00001.parquet"
"""The table of runs."""

EVIDENCE_FILES = (
    RUNS_FILE,
    "assets/correlation.png",
    "assets/orders.png",
    "assets/accuracy.png",
    "assets/searches.png",
    "assets/ratios.png",
)
"""Files that a check adds to a proxy, the last two only where there is something to show."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Side = Annotated[int, Field(ge=1, le=4096)]
_Ratio = Annotated[float, Field(gt=0, le=1)]
_Constant = Annotated[float, Field(ge=0, le=MAX_IMPORTANCE)]


class FileFacts(Part):
    """One file of the proxy: its size in bytes and its sha256."""

    bytes: Count
    sha256: _Sha256


class SourceRecord(Part):
    """What the proxy was made from; see `data.samples.SourceFacts`."""

    name: str
    revision: str | None
    kind: str
    is_local_copy: bool
    fingerprint: _Sha256
    n_samples: dict[str, Count]
    n_duplicates: dict[str, Count]
    n_shared: Count
    bad_images: tuple[str, ...]
    evaluation_from: str
    test_from: str
    layout: str = ""
    left_out: dict[str, Count] = Field(default_factory=dict)
    n_conflicting: Count = 0
    id_rule: Literal[1, 2] = 1


class ProbeRecord(Part):
    """One training of a probe network: cost for one image, accuracy on the evaluation samples, training.

    A trainer of one's own may tell no `losses`, and its `training_flops` are not known.
    """

    name: str
    repeat: Count = 0
    network: str
    parameters: dict[str, Any]
    forward_flops: Count
    training_flops_per_sample: Count
    n_parameters: Count
    accuracy: Share
    losses: tuple[Annotated[float, Field(ge=-1e100, le=1e100)], ...]
    training_seconds: Amount
    training_flops: Count | None


class AgreementRecord(Part):
    """How far two trainings of the probes give evaluation samples the same case; see `selection.records.Agreement`."""

    share: Share
    by_chance: Share
    of_cases: tuple[float | None, float | None, float | None, float | None]


class SpaceRecord(Part):
    """The search space: what makes its networks, how many, the parameters that all share, the training cost of its bounds for one image.

    `origin` is that of `space.networks.build.describe_origin`.
    """

    network: str
    origin: dict[str, str] = Field(default_factory=dict)
    shared_parameters: dict[str, Any] = Field(default_factory=dict)
    n_architectures: Count
    lightest_training_flops: Count
    heaviest_training_flops: Count


class TrainerRecord(Part):
    """A program's own trainer that trained every network; how is its own matter."""

    trainer: CodeSpec

    @model_validator(mode="before")
    @classmethod
    def _stands_alone(cls, value: Any) -> Any:
        settings = set(Training.model_fields) - {"trainer"}
        if isinstance(value, dict) and (others := sorted(settings & value.keys())):
            raise ValueError(f"must leave all to the trainer, found {', '.join(others)} besides")
        return value

    def list_settings(self) -> dict[str, Any]:
        """Lists how networks were trained: by whom."""
        return self.model_dump()


class TrainingRecord(Training):
    """The recipe's section `training` as run; see `TrainerRecord` where a program's own trainer ran."""

    model_config = ConfigDict(extra="ignore")

    crop_padding: Annotated[int, Field(ge=0, le=MAX_PADDING)] = FORMER_SETTINGS["crop_padding"]

    @model_validator(mode="before")
    @classmethod
    def _has_former_defaults(cls, value: Any) -> Any:
        return {**FORMER_SETTINGS, **value} if isinstance(value, dict) else value

    def list_settings(self) -> dict[str, Any]:
        """Lists how networks were trained, by setting: also what is left out where it is the default."""
        return {name: getattr(self, name) for name in Training.model_fields}


TRAINED_BY = ("(shipped loop)", "(own trainer)")
"""What tells the two records of `Manifest.training` apart, in the places of pydantic's errors."""


def _tell_trained_by(value: Any) -> str:
    trainer = value.get("trainer") if isinstance(value, dict) else getattr(value, "trainer", None)
    return TRAINED_BY[trainer is not None]


_Trained = Annotated[
    Annotated[TrainingRecord, Tag(TRAINED_BY[0])] | Annotated[TrainerRecord, Tag(TRAINED_BY[1])],
    Discriminator(_tell_trained_by),
]


class MappingRecord(Part):
    """How importance reached training samples."""

    layer: str
    metric: str
    neighbours: Annotated[int, Field(ge=1, lt=2**63)]
    n_dimensions: Count
    explained_variance: float


class ReductionRecord(Part):
    """How labels were chosen: see `recipe.sections.selection.LabelReduction`; `share` is that of the kept labels' samples which the proxy holds."""

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
    """Samples: that may be drawn, that importance was measured on, that chose nothing, in the proxy to train on and to rank on."""

    train: Count
    evaluation: Count
    test: Count
    proxy: Annotated[Count, Field(ge=1)]
    validation: Count = 0


class ParentRecord(Part):
    """The proxy whose importance table a proxy was drawn from, without training anything again."""

    name: str
    version: str
    recipe_sha256: _Sha256
    manifest_sha256: _Sha256


class IndexedRecord(ParentRecord):
    """The proxy whose index a proxy was made from: also the sha256 of the index, and the fingerprint of the source that it is of."""

    index_sha256: _Sha256
    fingerprint: _Sha256


class StageRecord(Part):
    """What one stage took: its work, task by task, in whichever build did it; and the wall clock of this build.

    `flops` is null where a trainer of one's own did the work.
    """

    stage: str
    work_seconds: Amount
    elapsed_seconds: Amount
    flops: Count | None
    was_stored: bool


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
    kept_labels: Annotated[tuple[Count, ...], Field(min_length=2)] | None = None
    image_shape: tuple[Literal[1, 3], _Side, _Side] | None = None
    counts: CountsRecord
    source: SourceRecord
    space: SpaceRecord
    training: _Trained | None = None
    probes: Annotated[tuple[ProbeRecord, ...], Field(min_length=2)]
    agreement: AgreementRecord | None = None
    mapping: MappingRecord
    draw: DrawRecord
    stages: tuple[StageRecord, ...]
    machine: MachineRecord
    created: Time
    gallery: bool
    resampled_from: ParentRecord | None = None
    index_of: IndexedRecord | None = None
    evidence: EvidenceRecord | None = None
    files: dict[str, FileFacts] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _keeps_its_own_labels(self) -> Manifest:
        kept = self.kept_labels
        if kept is not None and (list(kept) != sorted(set(kept)) or kept[-1] >= len(self.label_names)):
            raise ValueError("kept_labels must be numbers of label_names, each once, in order")
        if (kept is None) != (self.draw.labels is None):
            raise ValueError("kept_labels and draw.labels must both be there, or neither")
        return self

    @model_validator(mode="after")
    def _knows_its_trainings(self) -> Manifest:
        if self.trainer is None and any(not probe.losses or probe.training_flops is None for probe in self.probes):
            raise ValueError("probes must have losses and training_flops, unless training.trainer trained them")
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
    def _keeps_test_samples_at_home(self) -> Manifest:
        if self.counts.validation > (0 if self.protocol == "paper" else self.counts.evaluation):
            raise ValueError(
                "counts.validation must be counts.evaluation at most, and 0 where protocol is paper: those are the test samples"
            )
        return self

    @model_validator(mode="after")
    def _has_what_its_format_has(self) -> Manifest:
        if self.major < 2 and self.counts.validation:
            raise ValueError(f"counts.validation must be 0 before format 2.0, it is {self.counts.validation}")
        return self

    @model_validator(mode="after")
    def _shows_no_more_than_an_index(self) -> Manifest:
        if self.index_of is not None and (self.resampled_from is not None or self.evidence is not None):
            raise ValueError("resampled_from and evidence must be null where index_of is not")
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
    def major(self) -> int:
        """The first number of the format's version."""
        return int(self.format_version.partition(".")[0])

    @property
    def n_repeats(self) -> int:
        """The number of trainings of each probe."""
        return self.probes[-1].repeat + 1

    @property
    def flops(self) -> int | None:
        """What networks computed in the build; None where that of a stage is not known."""
        known = [stage.flops for stage in self.stages if stage.flops is not None]
        return sum(known) if len(known) == len(self.stages) else None

    @property
    def has_losses(self) -> bool:
        """Whether the training loss of every probe is known."""
        return all(probe.losses for probe in self.probes)

    @property
    def trainer(self) -> CodeSpec | None:
        """The trainer of one's own that trained the probes, if there is one."""
        return None if self.training is None else self.training.trainer

    @property
    def has_weight(self) -> bool:
        """Whether samples were drawn by something else than their importance."""
        return self.draw.method != BY_IMPORTANCE

    @property
    def has_soft_labels(self) -> bool:
        """Whether its samples have soft labels: networks learnt these, and it was not made from an index, which lists none."""
        learns = isinstance(self.training, TrainingRecord) and self.training.soft_labels
        return learns and self.index_of is None

    @property
    def heaviest(self) -> ProbeRecord:
        """The first training of the heaviest probe."""
        return self.probes[len(self.probes) // self.n_repeats - 1]

    @property
    def check_trainer(self) -> CodeSpec | None:
        """The trainer of one's own that the evidence is of, if there is one."""
        if self.evidence is None or self.evidence.runs != TRAINED_HERE:
            return None
        return self.evidence.check.trainer or self.trainer

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


def version_with_evidence(manifest: Manifest) -> str:
    """Names the version that a proxy has once evidence is written into it: what its files are does not change."""
    return FORMER_VERSION if manifest.major < 2 else FORMAT_VERSION


def has_table(manifest: Manifest, table: str) -> bool:
    """Tells whether a proxy has the table of a key of `TABLES`: those of all samples unless it was made from an index."""
    is_there = {"data": True, "validation": manifest.counts.validation > 0, "ranking": manifest.evidence is not None}
    return is_there.get(table, manifest.index_of is None)


def count_rows(manifest: Manifest, table: str) -> int:
    """Counts the samples that a table of samples must have, by its key of `TABLES`."""
    counts = manifest.counts
    n_rows = {"data": counts.proxy, "validation": counts.validation, "importance": counts.train}
    return n_rows.get(table, counts.evaluation)


def list_configs(manifest: Manifest) -> list[dict[str, Any]]:
    """Lists the tables of a proxy as a card's metadata has them, for `datasets.load_dataset`."""
    configs: dict[str, dict[str, Any]] = {}
    for table, (config, split, folder) in TABLES.items():
        if has_table(manifest, table):
            default = {"default": True} if config == "default" else {}
            listed = configs.setdefault(config, {"config_name": config, **default, "data_files": []})
            listed["data_files"].append({"split": split, "path": f"{folder}/{split}-*.parquet"})
    return list(configs.values())
