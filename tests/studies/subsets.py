"""The study's subsets: chosen once, by probes of this machine, and kept as bits, so that runs can be made anywhere later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import materialize
from proxyds.data.samples import Source
from proxyds.pipeline.stages import Session, StageClock, prepare_probes, score_samples, train_probes
from proxyds.progress import OnProgress
from proxyds.recipe.models import Recipe
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Engine
from proxyds.seeding import derive_seed
from proxyds.selection.draw import draw_control
from proxyds.selection.probe import Probe
from proxyds.selection.records import SampleScores
from proxyds.space.architecture import Architecture
from tests.studies.candidates import ALL_METHODS, ALL_RULES

NEEDS = frozenset(("cases", "features", "answers"))
LABELS = "labels"
"""Key of the samples' labels, (N,) uint16, beside the subsets: who has the file can count them."""


@dataclass
class Probes:
    """Probes of a study, trained when the first subset is chosen that asks for them and is not kept yet.

    Draw d of a method is by the probes' training d, so that an interval over draws holds their noise; where scores are averaged over three
    trainings, by d and the next two.
    """

    recipe: Recipe
    data: Source
    architectures: list[Architecture]
    store: Store
    engine: Engine
    on_progress: OnProgress

    def __post_init__(self) -> None:
        self._scores: dict[tuple[int, ...], SampleScores] = {}

    @cached_property
    def trained(self) -> list[Probe]:
        """Every probe with every seed."""
        return train_probes(self._session, self._chosen[0], NEEDS)

    def know(self, method: str, draw: int) -> SampleScores:
        """What a draw of a method is chosen by; probes are trained for those that ask for them."""
        n = ALL_METHODS[method].n_seeds
        if not ALL_METHODS[method].needs:
            return SampleScores(self.data.train.parsed_ids, self.data.train.labels)
        repeats = tuple((draw + i) % self.recipe.probes.seeds for i in range(n))
        if repeats not in self._scores:
            self._scores = {key: scores for key, scores in self._scores.items() if len(key) != n}  # one is 200 MB
            trained = take_repeats(self.trained, repeats)
            self._scores[repeats] = score_samples(self._session, trained, NEEDS, self._chosen[1]).scores
        return self._scores[repeats]

    @cached_property
    def _chosen(self) -> tuple[list[Architecture], str]:
        return prepare_probes(self._session, self.architectures)

    @cached_property
    def _session(self) -> Session:
        clock = StageClock(self.on_progress)
        return Session(self.recipe, self.data, "cpu", self.engine, self.store, self.on_progress, clock)


def take_repeats(probes: Sequence[Probe], repeats: Sequence[int]) -> list[Probe]:
    """Takes the probes of some repeats, in this order."""
    return [probe for repeat in repeats for probe in probes if probe.job.repeat == repeat]


def find_subset(
    path: Path, method: str, ratio: float, draw: int, probes: Probes, kept_labels: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """The samples of a draw of a method, (N,) bool in the order of ids: those that are kept, or chosen now and kept.

    Args:
        path: Where the study's subsets are kept: an `.npz` file of bits.
        method: A key of `ALL_METHODS`.
        ratio: Size as a share of N.
        draw: Number of the draw.
        probes: To choose by.
        kept_labels: (L,) to choose of; None for all.

    Raises:
        SystemExit: Those that are kept are of other samples.
    """
    of_labels = "" if kept_labels is None else f" of {len(kept_labels)} labels"
    name, n_train = f"{method} {ratio:g} {draw}{of_labels}", len(probes.data.train)
    kept = dict(np.load(path)) if path.exists() else {}
    labels = materialize(probes.data.train.labels).astype(np.uint16)
    if not np.array_equal(kept.get(LABELS, labels), labels):
        raise SystemExit(f"{path}: must be subsets of the samples at hand, its labels are others; move the file away")
    if name not in kept:
        kept[LABELS] = labels
        kept[name] = np.packbits(_choose(method, ratio, draw, probes, kept_labels))
        half = path.with_suffix(".half.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(half, **kept)
        half.replace(path)
    return np.unpackbits(kept[name], count=n_train).astype(np.bool_)


def count_labels(path: Path, method: str, ratio: float, n_draws: int) -> tuple[int, int] | None:
    """How many samples the label that has the fewest, and the one that has the most, has in any draw; None where that was not kept.

    Args:
        path: Where the study's subsets are kept.
        method: A key of `ALL_METHODS`.
        ratio: Size as a share of N.
        n_draws: How many draws there are, of all labels.
    """
    kept = np.load(path) if path.exists() else {}
    names = [f"{method} {ratio:g} {draw}" for draw in range(n_draws)]
    if any(name not in kept for name in (LABELS, *names)):
        return None
    labels = kept[LABELS]
    taken = [labels[np.unpackbits(kept[name], count=len(labels)).astype(np.bool_)] for name in names]
    counts = [np.bincount(each, minlength=labels.max() + 1) for each in taken]
    return int(np.min(counts)), int(np.max(counts))


def _choose(
    method: str, ratio: float, draw: int, probes: Probes, kept_labels: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    scores, recipe = probes.know(method, draw), probes.recipe
    n, seed, law = (
        round(ratio * len(scores.ids)),
        derive_seed(recipe.seed, "study", method, draw),
        recipe.selection.draw,
    )
    return draw_control(ALL_RULES[method], scores, n, law=law, seed=seed, kept=kept_labels).selected
