"""Mapping, importance, draw and tables of more samples than memory holds, on made-up features: seconds of each step and the memory it takes, and
what a draw by each method takes.

`make bench-scale` runs it (ten to twenty minutes, 3 GB of disk) and writes `results/scale.json` and `scale.md`. Each size runs in a process of
its own, from files that another process has made, so that what is measured is the work's own memory, ten times a second: that of the process and
its workers together, what they share counted once (`Pss`), and that of the largest of them (`Rss`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxyds.artifact.writer import write_tables
from proxyds.data.samples import SHARD, Origin, Samples, Source, SourceFacts, StreamedSamples, write_shard
from proxyds.progress import ignore_progress
from proxyds.recipe.models import Similarity
from proxyds.recipe.sections.selection import Selection
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.machine import describe_arithmetic
from proxyds.runtime.storage.store import Entry, Store
from proxyds.runtime.task import Done, run_stored
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import draw_samples
from proxyds.selection.importance import score_importance
from proxyds.selection.records import SampleScores
from proxyds.selection.similarity import (
    Features,
    carry_importance,
    gather_features,
    mapping_tasks,
    open_mapping,
    projection_task,
)
from tests.benchmarks import drawing
from tests.benchmarks.timing import ROOT, start_report

HERE = Path(__file__).parent
ITSELF = (sys.executable, "-m", "tests.benchmarks.scale")
RUNS = ((1_280_000, 50_000, 2), (5_120_000, 50_000, 2), (1_280_000, 10_000, 2), (1_280_000, 10_000, 1))
"""Training samples, evaluation samples, workers."""
WIDTH = 64
MOST_LABELS, RATIO = 1000, 0.05


def make(folder: Path, n: int, n_evaluation: int) -> None:
    """Writes features as finished tasks leave them, samples as a streamed source has them, and answers of two probes."""
    store, rng, n_labels = Store(folder / "store"), np.random.default_rng(0), min(MOST_LABELS, n // 1000)
    places = rng.normal(size=(n_labels, WIDTH)).astype(np.float32)
    ids_of_bucket = np.arange(0, n, SHARD)
    files, counts, keys = [], [], []

    def write_features(name: str, labels: np.ndarray) -> str:
        features = (places[labels] + rng.normal(size=(len(labels), WIDTH))).astype(np.float32)
        with store.writing("features", name, name) as entry:
            np.save(entry / "features.npy", features)
        return name

    with store.writing("source", "index", "index") as index:
        for shard, start in enumerate(ids_of_bucket.tolist()):
            size = min(SHARD, n - start)
            samples, labels = _make_samples(size, f"{shard:06x}", n_labels, rng)
            write_shard(index / f"train-{shard:05d}.npz", samples)
            counts.append(size)
            keys.append(write_features(f"train-{shard}", labels))
    entry = store.find("source", "index")
    assert entry is not None
    files = [entry.file(f"train-{shard:05d}.npz") for shard in range(len(counts))]
    evaluation, labels = _make_samples(n_evaluation, "ffffff", n_labels, rng)
    starts = range(0, n_evaluation, SHARD)
    eval_keys = [write_features(f"evaluation-{start}", labels[start : start + SHARD]) for start in starts]
    train = StreamedSamples(tuple(files), tuple(counts), ORIGIN)
    answers = [np.where(rng.random(n_evaluation) < right, labels, (labels + 1) % n_labels) for right in (0.5, 0.7)]
    with (folder / "given.pickle").open("wb") as file:
        pickle.dump((train, evaluation, keys, eval_keys, answers, n_labels), file)


ORIGIN = Origin("train", (), (), "made up")


def _make_samples(n: int, prefix: str, n_labels: int, rng: np.random.Generator) -> tuple[Samples, np.ndarray]:
    ids = np.sort([prefix + hashlib.sha256(f"{prefix} {i}".encode()).hexdigest()[len(prefix) :] for i in range(n)])
    labels = rng.integers(0, n_labels, n)
    place = np.arange(n)
    encoded = np.array([hashlib.sha256(image_of(each)).hexdigest() for each in ids])
    return Samples(ids, labels, place, encoded, place, ORIGIN), labels


def image_of(sample_id: str) -> bytes:
    """Stands for an image file: as many bytes as a small one has."""
    return b"\x89PNG\r\n\x1a\n" + sample_id.encode() * 3


def open_made(folder: Path) -> tuple[Any, ...]:
    """What `make` has made: training and evaluation samples, features, answers of two probes, number of labels."""
    with (folder / "given.pickle").open("rb") as file:
        train, evaluation, keys, eval_keys, answers, n_labels = pickle.load(file)
    store = Store(folder / "store")

    def find(key: str) -> Done:
        entry = store.find("features", key)
        assert isinstance(entry, Entry)
        return Done(entry, was_stored=True)

    arithmetic = describe_arithmetic("cpu")
    features = Features([find(key) for key in keys], [find(key) for key in eval_keys], Similarity(), arithmetic)
    return train, evaluation, features, answers, n_labels


def measure_draws(n: int) -> dict[str, int]:
    """The most bytes in a draw of n samples by other methods than `cases`."""
    with tempfile.TemporaryDirectory() as place, LocalWorkers(1) as engine:
        make(Path(place), n, drawing.N_EVALUATION)
        train, _, features, _, n_labels = open_made(Path(place))
        task = projection_task(features)
        (projection,) = run_stored([task], Store(Path(place) / "store"), engine, ignore_progress)
        return drawing.measure_draws(train, n_labels, lambda: gather_features(features, projection))


def run(folder: Path, n_workers: int) -> dict[str, Any]:
    """Goes from features to tables; returns seconds of each step and bytes of memory."""
    train, evaluation, features, answers, n_labels = open_made(folder)
    store = Store(folder / "store")
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def end(step: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[step], started = now - started, now

    with LocalWorkers(n_workers) as engine:

        def do(tasks: list[Any]) -> list[Done]:
            return run_stored(tasks, store, engine, ignore_progress)

        (projection,) = do([projection_task(features)])
        end("PCA")
        mapped = do(mapping_tasks(features, projection))
        end("nearest evaluation samples")
    mapping = open_mapping([done.entry for done in mapped], len(train), in_memory=False)
    outcomes = score_importance([answers], evaluation.labels, (2.0, 1.0, 6.0, 1.0))
    names = tuple(str(label) for label in range(n_labels))
    case, importance = carry_importance(mapping, outcomes)
    scores = SampleScores(train.parsed_ids, train.labels, importance)
    draw = draw_samples(scores, case, names, DESIGNS["cases"], Selection(method="cases", ratio=RATIO), seed=0)
    end("importance and draw")
    facts = SourceFacts("made up", None, "folder", False, "0", {"train": len(train)}, {"train": 0}, 0, (), "", "")

    def open_encoded(split: str, places: np.ndarray) -> Any:
        return lambda samples: [image_of(each) for each in samples.ids.tolist()]

    source = Source(names, (3, 32, 32), train, evaluation, evaluation, facts, "", open_encoded)
    (folder / "proxy").mkdir()
    write_tables(folder / "proxy", source, outcomes, mapping, draw, 10_000)
    end("tables")
    return {
        "n_train": len(train),
        "n_evaluation": len(evaluation),
        "n_workers": n_workers,
        "n_selected": int(draw.selected.sum()),
        "seconds": seconds,
        "table_bytes": sum(path.stat().st_size for path in (folder / "proxy").rglob("*") if path.is_file()),
    }


def memory_of(pid: int) -> tuple[int, int]:
    """Memory of a process and all that it has started, in bytes: together (`Pss`), and of the largest alone (`Rss`)."""
    together, largest = 0, 0
    with suppress(OSError):  # it may be gone by now
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        together, largest = (1024 * int(lines[name].split()[0]) for name in ("Pss", "Rss"))
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            of_child = memory_of(int(child))
            together, largest = together + of_child[0], max(largest, of_child[1])
    return together, largest


def measure(n: int, n_evaluation: int, n_workers: int) -> dict[str, Any]:
    """Makes the files of one size and works on them, each in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([*ITSELF, "make", place, str(n), str(n_evaluation)], check=True, cwd=ROOT)
        command = [*ITSELF, "run", place, str(n_workers)]
        peaks = [0, 0]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            while process.poll() is None:
                peaks = [max(peak, now) for peak, now in zip(peaks, memory_of(process.pid), strict=True)]
                time.sleep(0.1)
            assert process.stdout is not None
            told = process.stdout.read()
        if process.returncode:
            sys.exit(f"the run with {n:,} samples failed")
    return {**json.loads(told), "together_bytes": peaks[0], "largest_bytes": peaks[1]}


def render(report: dict[str, Any]) -> str:
    """The table as Markdown."""
    steps = list(report["runs"][0]["seconds"])
    lines = [
        f"| training samples | evaluation samples | workers | {' | '.join(steps)} | in all | memory, together | largest process |",
        "|---" * (len(steps) + 6) + "|",
    ]
    for each in report["runs"]:
        of_steps = " | ".join(f"{each['seconds'][step]:,.1f} s" for step in steps)
        memory = " | ".join(f"{each[name] / 1e9:.2f} GB" for name in ("together_bytes", "largest_bytes"))
        lines.append(
            f"| {each['n_train']:,} | {each['n_evaluation']:,} | {each['n_workers']} | {of_steps} | {sum(each['seconds'].values()):,.0f} s | {memory} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines.append(
        f"\nFeatures of {WIDTH} dimensions, {RATIO:.0%} drawn, one run of each, {report['date']}. Measured on {report['machine']}, {versions}."
    )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Task:
    """A data set and what is to be done with it.

    Attributes:
        name: For people.
        n_train: Images.
        n_evaluation: Images.
        side: Pixels that networks see.
        epochs: Of every training.
    """

    name: str
    n_train: int
    n_evaluation: int
    side: int
    epochs: int


TASKS = (Task("ImageNet", 1_280_000, 50_000, 224, 30), Task("100 times ImageNet", 128_000_000, 50_000, 224, 3))
N_GPUS = (1, 8, 64)
FORWARD_FLOPS, WIDEST = 8.2e9, 2048
"""Of ResNet-50 at 224 pixels, the heaviest network here, for one image; and the width of its features."""
LIGHTEST, MEAN = 1 / 8, 1 / 3
"""Cost of the lightest, and of the mean architecture of a check, as a share of the heaviest."""
N_RANKED, N_FULL, N_DRAWS, N_SETS = 16, 3, 3, 4
"""A check: architectures, full seeds, draws, and what each is drawn for: proxy, random, stratified, fewer epochs."""
GPU_FLOPS, CORES_OF_GPU, MOST_TOGETHER = 150e12, 16, 8
"""Assumed, since nothing has run on a GPU yet: 15 % of what an H100 can do in bfloat16; its cores; GPUs that train one probe."""


def expect(task: Task, rates: dict[str, float], n_gpus: int) -> dict[str, float]:
    """Hours of each stage on paper.

    Args:
        task: What is to be done.
        rates: Measured here: `decode`, images a second of a core; `nearest`, operations a second of a core; `draw` and `tables`, seconds a
            sample of one process.
        n_gpus: Each with `CORES_OF_GPU`.
    """
    n, cores = task.n_train, n_gpus * CORES_OF_GPU
    of_image = 3 * FORWARD_FLOPS  # forward and backward
    heaviest = of_image * n * task.epochs
    together = min(n_gpus, MOST_TOGETHER)
    asking = FORWARD_FLOPS * n * task.epochs  # the heaviest, about every training sample after each epoch
    probes = (heaviest * (1 + LIGHTEST) + asking) / together
    check = N_RANKED * MEAN * heaviest * (N_FULL + N_DRAWS * N_SETS * RATIO)
    seconds = {
        "decode": (n + task.n_evaluation) / rates["decode"] / cores,
        "probes": probes / GPU_FLOPS,
        "features": FORWARD_FLOPS * (n + task.n_evaluation) / GPU_FLOPS / n_gpus,
        "nearest": 2 * (WIDTH + 1) * n * task.n_evaluation / rates["nearest"] / cores,
        "draw and tables": (rates["draw"] + rates["tables"]) * n,
        "check": max(check / n_gpus, heaviest) / GPU_FLOPS,  # one training is on one GPU
    }
    return {stage: value / 3600 for stage, value in seconds.items()}


def find_rates(report: dict[str, Any]) -> dict[str, float]:
    """What the measured runs say of one core; see `expect`."""
    run = report["runs"][0]
    products = 2 * (WIDTH + 1) * run["n_train"] * run["n_evaluation"]
    return {
        "decode": report["decoded_a_second"],
        "nearest": products / run["seconds"]["nearest evaluation samples"] / run["n_workers"],
        "draw": run["seconds"]["importance and draw"] / run["n_train"],
        "tables": run["seconds"]["tables"] / run["n_train"],
    }


def render_costs(report: dict[str, Any]) -> str:
    """What larger data sets would cost, as Markdown."""
    rates = find_rates(report)
    stages = list(expect(TASKS[0], rates, 1))
    lines = [f"| hours | GPUs | {' | '.join(stages)} | build | with its check |", "|---" * (len(stages) + 4) + "|"]
    for task in TASKS:
        for n_gpus in N_GPUS:
            hours = expect(task, rates, n_gpus)
            build = sum(hours.values()) - hours["check"]
            shown = " | ".join(show_hours(hours[stage]) for stage in stages)
            lines.append(
                f"| {task.name} | {n_gpus} | {shown} | **{show_hours(build)}** | **{show_hours(build + hours['check'])}** |"
            )
    lines.append(
        f"\nMeasured here: a core decodes {rates['decode']:,.0f} JPEG images of 500x375 to 224x224 a second, and searches neighbours at {rates['nearest'] / 1e9:,.0f} GFLOP/s. "
        f"For a million samples the draw takes {1e6 * rates['draw']:,.1f} s, and the tables take {1e6 * rates['tables']:,.1f} s. Assumed: {GPU_FLOPS / 1e12:,.0f} TFLOP/s a GPU, "
        f"{CORES_OF_GPU} cores beside it."
    )
    return "\n".join(lines) + "\n"


def show_hours(hours: float) -> str:
    """Hours in two digits or as a whole number."""
    if hours < 0.01:
        return "< 0.01"
    return f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"


def measure_decoding() -> float:
    """Images a second that a core decodes: like photographs, 500x375 pixels and about 85 kB, to 224x224."""
    import io

    from PIL import Image

    from proxyds.data.decoding import convert_image
    from proxyds.data.images import open_image
    from proxyds.recipe.sections.source import Images

    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(375, 500, 3)).cumsum(0).cumsum(1)
    smooth = 255 * (smooth - smooth.min()) / (smooth.max() - smooth.min())
    stream = io.BytesIO()
    Image.fromarray((smooth + 12 * rng.normal(size=smooth.shape)).clip(0, 255).astype(np.uint8)).save(
        stream, "JPEG", quality=92
    )
    spec, started, n = Images(image_size=224), time.perf_counter(), 0
    while time.perf_counter() - started < 5:
        with open_image(stream.getvalue()) as image:
            image.load()
            hashlib.sha256(image.tobytes())
            convert_image(image, spec)
        n += 1
    return n / (time.perf_counter() - started)


def render_all(report: dict[str, Any]) -> str:
    """All tables."""
    return f"{render(report)}\n{drawing.render_draws(report['draws'])}\n{render_costs(report)}"


def main() -> None:
    """Measures all sizes, or does one half of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=["all", "make", "run"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("n", nargs="*", type=int, help="make: training and evaluation samples; run: workers")
    parser.add_argument(
        "--run",
        type=int,
        nargs=3,
        action="append",
        metavar=("TRAIN", "EVALUATION", "WORKERS"),
        help="for `all`: one of the runs, in place of the usual ones",
    )
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of scale.json and scale.md")
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder, *given.n)
    elif given.what == "run":
        print(json.dumps(run(given.folder, *given.n)))
    else:
        about = asdict(start_report("scale"))
        report: dict[str, Any] = {name: about[name] for name in ("machine", "versions", "date")}
        report["decoded_a_second"] = measure_decoding()
        runs = given.run or RUNS
        sizes = drawing.SIZES if given.run is None else (runs[0][0], 2 * runs[0][0])
        report["draws"] = drawing.compare_sizes(sizes, *map(measure_draws, sizes))
        report["runs"] = []
        for sizes in runs:
            print("{:,} training samples, {:,} evaluation samples, {} workers ...".format(*sizes), file=sys.stderr)
            report["runs"].append(measure(*sizes))
            print(json.dumps(report["runs"][-1]), file=sys.stderr)
        given.output.mkdir(exist_ok=True)
        (given.output / "scale.json").write_text(json.dumps(report, indent=1) + "\n")
        shown = render_all(report)
        (given.output / "scale.md").write_text(shown)
        print(shown)


if __name__ == "__main__":
    main()
