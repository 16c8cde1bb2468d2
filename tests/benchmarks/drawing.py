"""Memory of a draw by each method that asks probes or looks at features, on made-up ones; part of `scale.py`, whose runs draw by `cases`."""

from __future__ import annotations

import hashlib
import tempfile
import tracemalloc
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyds.columns import Values
from proxyds.draws import draw_designed
from proxyds.known import MEASURES, Answers, Known
from proxyds.methods import METHODS
from proxyds.seeding import parse_ids

N, N_LABELS, N_EPOCHS, WIDTH, RATIO = 100_000, 100, 10, 64, 0.05


def measure_draws(n: int) -> dict[str, Any]:
    """What each such method takes to choose and draw, beside ids and labels: bytes of memory a sample, by its name; of how many samples, and the day."""
    rng = np.random.default_rng(0)
    ids = parse_ids(np.sort([hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]))
    labels = rng.integers(0, N_LABELS, n)
    with tempfile.TemporaryDirectory() as place:
        answers, features = Path(place) / "answers", Path(place) / "features.npy"
        rng.random((len(MEASURES), N_EPOCHS, n), dtype=np.float32).tofile(answers)
        np.save(features, rng.normal(size=(n, WIDTH)).astype(np.float32))

        def read(training: int, measure: int, epoch: int) -> NDArray[np.float32]:
            return np.fromfile(answers, np.float32, n, offset=4 * n * (measure * N_EPOCHS + epoch))

        of_method = {
            name: _measure_draw(name, ids, labels, Answers(read, method.n_seeds, N_EPOCHS), features)
            for name, method in METHODS.items()
            if method.needs & {"answers", "features"}
        }
    return {"n": n, "date": date.today().isoformat(), "numpy": np.__version__, "bytes_a_sample": of_method}


def _measure_draw(name: str, ids: Values, labels: Values, answers: Answers, features: Path) -> float:
    n, method = len(labels), METHODS[name]
    n_drawn = int(RATIO * n)
    tracemalloc.start()
    known = Known(
        ids,
        labels,
        features=np.load(features) if "features" in method.needs else None,
        answers=answers if "answers" in method.needs else None,
    )
    draw_designed(method.design(known, n_drawn, 0), n_drawn, ids, "systematic", 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / n


def render_draws(measured: dict[str, Any]) -> str:
    """The table as Markdown, the least first."""
    lines = ["| drawn by | asks for | memory, bytes a sample |", "|---|---|---|"]
    for name, of_method in sorted(measured["bytes_a_sample"].items(), key=lambda pair: pair[1]):
        lines.append(f"| `{name}` | {' and '.join(METHODS[name].needs)} | {of_method:,.0f} |")
    lines.append(
        f"\nThe most that is allocated in a draw of {RATIO:.0%} of {measured['n']:,} samples of {N_LABELS} labels, beside their ids and labels; answers of "
        f"{N_EPOCHS} epochs, features of {WIDTH} dimensions; numpy {measured['numpy']}, {measured['date']}."
    )
    return "\n".join(lines) + "\n"
