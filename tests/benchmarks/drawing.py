"""Memory of a draw by each method that asks probes or looks at features; part of `scale.py`, whose runs draw by `cases`.

`k-center` is left out: its time grows with the square of the number of samples.
"""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import map_chunks
from proxyds.data.samples import StreamedSamples
from proxyds.recipe.methods import METHODS
from proxyds.recipe.sections.selection import Selection
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import draw_samples
from proxyds.selection.records import MEASURES, Answers, SampleScores

SIZES, N_EVALUATION, N_EPOCHS, RATIO = (400_000, 800_000), 1000, 10, 0.05
"""Two numbers of training samples, so that what grows with them can be told from what does not."""
MEASURED = tuple(
    name for name, method in METHODS.items() if method.needs & {"answers", "features"} and name != "k-center"
)


def measure_draws(train: StreamedSamples, n_labels: int, gather: Callable[[], NDArray[np.float32]]) -> dict[str, int]:
    """What each method takes from ids and labels on disk to the samples that are drawn: the most bytes that are allocated at once, by its name.

    Args:
        train: Samples to draw from.
        n_labels: How many labels they have.
        gather: Makes their features as a build does, (N, d).
    """
    n = len(train)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "answers"
        np.random.default_rng(0).random((len(MEASURES), N_EPOCHS, n), dtype=np.float32).tofile(path)

        def read(training: int, measure: int, epoch: int) -> NDArray[np.float32]:
            return np.fromfile(path, np.float32, n, offset=4 * n * (measure * N_EPOCHS + epoch))

        return {
            name: _measure_draw(name, train, n_labels, gather, Answers(read, METHODS[name].n_seeds, N_EPOCHS))
            for name in MEASURED
        }


def compare_sizes(sizes: tuple[int, int], small: dict[str, int], large: dict[str, int]) -> dict[str, Any]:
    """Bytes of each method that grow with the samples, for one of them, and those that do not."""
    growing = {name: (large[name] - small[name]) / (sizes[1] - sizes[0]) for name in small}
    fixed = {name: small[name] - growing[name] * sizes[0] for name in small}
    about = {"sizes": sizes, "date": date.today().isoformat(), "numpy": np.__version__}
    return {**about, "bytes_a_sample": growing, "fixed_bytes": fixed}


def _measure_draw(
    name: str, train: StreamedSamples, n_labels: int, gather: Callable[[], NDArray[np.float32]], answers: Answers
) -> int:
    method = METHODS[name]
    case = map_chunks(lambda labels: 1 + labels % 4, train.labels)
    importance = map_chunks(lambda case: np.array([2.0, 1.0, 6.0, 1.0])[case - 1], case)
    tracemalloc.start()
    known = SampleScores(
        train.parsed_ids,
        train.labels,
        importance,
        gather() if "features" in method.needs else None,
        answers if "answers" in method.needs else None,
    )
    names = [str(label) for label in range(n_labels)]
    draw_samples(known, case, names, DESIGNS[name], Selection(method=name, ratio=RATIO), seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def render_draws(measured: dict[str, Any]) -> str:
    """The table as Markdown, the least first."""
    lines = ["| drawn by | asks for | bytes a sample | beside them |", "|---|---|---|---|"]
    for name, growing in sorted(measured["bytes_a_sample"].items(), key=lambda pair: pair[1]):
        fixed = max(measured["fixed_bytes"][name], 0) / 1e6
        lines.append(f"| `{name}` | {' and '.join(METHODS[name].needs)} | {growing:,.0f} | {fixed:,.0f} MB |")
    small, large = measured["sizes"]
    lines.append(
        f"\nMemory in a draw of {RATIO:.0%}: the most that is allocated at {small:,} and at {large:,} streamed samples; answers of {N_EPOCHS} epochs, features as above; "
        f"numpy {measured['numpy']}, {measured['date']}."
    )
    return "\n".join(lines) + "\n"
