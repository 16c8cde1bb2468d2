"""The speed of proxyds on this machine's CPU, beside what a user would write: `make bench`.

Every row runs ours and its yardstick in turns, in one go. Yardsticks with threads of their own run in processes of their own,
without the settings that proxyds gives its workers. Images are CIFAR-10's where `PROXYDS_DATA` has them, else noise.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import datasets
import loky
import numpy as np
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from proxyds.artifact import writer
from proxyds.data.samples import Origin, ReadEncoded, Samples, Source, SourceFacts
from proxyds.evaluation.runs import make_task
from proxyds.progress import ignore_progress
from proxyds.recipe.models import Similarity, Training
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.storage.store import Store, content_key
from proxyds.runtime.task import Done, run_stored
from proxyds.seeding import parse_ids
from proxyds.selection.records import Draw, NearestMap, Outcomes
from proxyds.selection.sampling import draw_successive, draw_systematic
from proxyds.selection.similarity import (
    SHARD,
    TILE,
    Features,
    feature_tasks,
    find_nearest,
    mapping_tasks,
    projection_task,
)
from proxyds.space.architecture import Architecture
from proxyds.space.cost import measure_cost
from proxyds.training.job import TrainingJob
from proxyds.training.loop import cut_batch, draw_epoch, pad_images
from proxyds.training.model import make_network, save_network
from proxyds.training.numerics import has_bfloat16
from tests.benchmarks.timing import (
    Report,
    Row,
    clean_environment,
    compare_rates,
    compare_seconds,
    run_yardstick,
    seconds_of,
    start_report,
    take_turns,
    write_report,
)
from tests.benchmarks.yardsticks import make_transforms

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
N_CORES = loky.cpu_count()
BATCH = 128
SETTINGS = Training(epochs=30, batch_size=BATCH, crop_padding=4)
IMAGE = (3, 32, 32)
LOADER = "a loop over a DataLoader with PIL transforms, one run in all threads, the better of 0 and 2 loader workers"


class LeftOutError(Exception):
    """A row needs images, or instructions of the processor, that are not here."""


class Bench:
    """What rows share: the images, warm workers, figures that several rows tell.

    Args:
        folder: For files, gone afterwards.
        repeats: Turns of the long rows.
    """

    def __init__(self, folder: Path, repeats: int) -> None:
        self.folder, self.repeats = folder, repeats
        self.pixels, self.encoded, self.are_real = load_images(folder)
        self.pixels_file = folder / "pixels.npy"
        np.save(self.pixels_file, self.pixels)
        self.origin = Origin("train", (SimpleNamespace(path=self.pixels_file),), (0,), "bench")
        self.store = Store(folder / "store")
        self.engine = LocalWorkers()
        self.seeds = count()
        self.architectures = {
            filters: measure_cost(f"resnet20 B{filters}", "resnet", parameters(filters), 10, IMAGE)
            for filters in (8, 16)
        }
        self.rates: dict[int, float] = {}

    def samples(self, n: int) -> Samples:
        """The first n images, repeated where there are fewer."""
        ids = make_ids(n)
        rows = np.arange(n) % len(self.pixels)
        return Samples(ids, np.arange(n) % 10, np.arange(n), ids, rows, self.origin)

    def train(self, filters: int, n_steps: int, n_train: int, n_test: int = 1, precision: str = "auto") -> list[Done]:
        """Runs a training for every core side by side as a check does, all new."""
        tasks = [
            make_task(
                TrainingJob(
                    architecture=self.architectures[filters],
                    train=self.samples(n_train),
                    held_out=self.samples(n_test),
                    n_steps=n_steps,
                    n_labels=10,
                    image_shape=IMAGE,
                    settings=SETTINGS.model_copy(update={"precision": precision}),
                    seed=next(self.seeds),
                    device="cpu",
                    arithmetic={},
                ),
                name=f"run {number}",
            )
            for number in range(N_CORES)
        ]
        return run_stored(tasks, self.store, self.engine, ignore_progress)

    def images_a_second(self, filters: int, precision: str = "auto") -> Callable[[], float]:
        """A contender: images a second over all workers."""
        n_steps = {8: 80, 16: 40}[filters]

        def measure() -> float:
            started = time.perf_counter()
            self.train(filters, n_steps, BATCH * n_steps, precision=precision)
            return N_CORES * BATCH * n_steps / (time.perf_counter() - started)

        return measure


def parameters(filters: int) -> dict[str, int]:
    """Of a ResNet20 K3 M2."""
    return {"depth": 20, "base_filters": filters, "kernel_size": 3, "multiplier": 2}


def make_ids(n: int) -> np.ndarray:
    """As many sample ids, in their order."""
    return np.sort(np.array([hashlib.sha256(str(number).encode()).hexdigest() for number in range(n)]))


def data_folder() -> Path:
    """Where CIFAR-10 is, if it is anywhere."""
    return Path(os.environ.get("PROXYDS_DATA", "/nowhere")) / "cifar10"


def load_images(folder: Path) -> tuple[np.ndarray, list[bytes], bool]:
    """Ten thousand images: pixels (N, 3, 32, 32) uint8, their files, whether they are CIFAR-10's; `folder` is for a cache."""
    cifar10 = data_folder()
    if cifar10.is_dir():
        files = sorted(str(file) for file in cifar10.rglob("*test*.parquet"))
        table = datasets.Dataset.from_parquet(files, cache_dir=str(folder / "images")).with_format("arrow")[:]
        encoded = [image["bytes"] for image in table[0].to_pylist()]
    else:
        rng = np.random.default_rng(0)
        encoded = [encode(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(10_000)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in encoded])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), encoded, cifar10.is_dir()


def encode(pixels: np.ndarray) -> bytes:
    """A PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def row_1_to_3(bench: Bench) -> Iterator[Row]:
    """Training: beside a loader's loop, beside the machine's own rate, and with a core taken away."""
    bench.train(8, 2, 2 * BATCH)  # starts the workers
    for filters, reach, aim, share in ((8, 1.7, 2.2, 0.50), (16, 1.25, 1.5, 0.75)):
        name = f"ResNet20 B{filters}"
        n_steps = {8: 60, 16: 36}[filters]
        ours, alone, two, product, disturbed = take_turns(
            [
                bench.images_a_second(filters),
                lambda f=filters, n=n_steps: run_yardstick("train", bench.pixels_file, f, 0, n),
                lambda f=filters, n=n_steps: run_yardstick("train", bench.pixels_file, f, 2, n),
                lambda: run_yardstick("matmul"),
                disturb(bench.images_a_second(filters)),
            ],
            bench.repeats,
        )
        better = max(alone, two, key=statistics.median)
        yield compare_rates("1", f"a check's trainings, {name}", ours, better, LOADER, "images/s", reach, aim=aim)
        flops = bench.architectures[filters].training_flops
        done = [rate * flops / 1e9 for rate in ours]
        ceiling = [rate * N_CORES / 1e9 for rate in product]
        yield compare_rates(
            "2", f"the same, {name}", done, ceiling, "one thread's fp32 matrix product, times cores", "GFLOP/s", share
        )
        yield compare_rates(
            "3", f"the same with one core kept busy, {name}", disturbed, ours, "itself, undisturbed", "images/s", 0.40
        )
        bench.rates[filters] = statistics.median(ours)


def disturb(measure: Callable[[], float]) -> Callable[[], float]:
    """A contender that shares the machine with a process that computes all the time."""

    def disturbed() -> float:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            return measure()
        finally:
            busy.kill()
            busy.wait()

    return disturbed


def row_4(bench: Bench) -> Iterator[Row]:
    """Input alone, per sample: crop, flip, normalise; in one thread."""
    transform = make_transforms()
    pictures = [Image.fromarray(image) for image in bench.pixels[:BATCH].transpose(0, 2, 3, 1)]
    network = make_network("resnet", parameters(8), 10, IMAGE, 0)
    network.fit_normalisation(bench.pixels)
    network.network = torch.nn.Identity()
    images, generator = pad_images(bench.pixels, SETTINGS, "cpu"), torch.Generator()

    def ours() -> None:
        for draws_of_step in zip(*draw_epoch(len(images), BATCH, 50, SETTINGS, generator, "cpu"), strict=True):
            network(cut_batch(images, SETTINGS, *draws_of_step).contiguous(memory_format=torch.channels_last))

    def theirs() -> None:
        torch.stack([transform(picture) for picture in pictures])

    with one_thread():
        mine, other = take_turns([seconds_of(ours), seconds_of(theirs, 5)], 7)
    mine, other = [seconds / 50 / BATCH for seconds in mine], [seconds / BATCH for seconds in other]
    yield compare_seconds("4", "input, a sample", mine, other, "torchvision transforms on PIL images", 6)
    if 8 in bench.rates:
        step = BATCH * N_CORES / bench.rates[8]
        shares = [seconds * BATCH / step for seconds in mine]
        yield Row(
            "4", "input, a batch of 128", statistics.median(mine) * BATCH, step, "a step of ResNet20 B8", "s",
            statistics.median(shares), shares, 0.05, at_least=False,
        )  # fmt: skip


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets this process compute in one thread, as a worker does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def row_5(bench: Bench) -> Iterator[Row]:
    """Features of trained networks, over all workers, beside an eager loop with all threads."""
    pixels_file = bench.folder / "many.npy"
    n = 2 * SHARD
    samples = bench.samples(n)
    np.save(pixels_file, samples.pixels())
    for filters, reach in ((8, 1.6), (16, 1.3)):
        architecture = bench.architectures[filters]
        network = make_network("resnet", architecture.parameters, 10, IMAGE, 0)
        network.fit_normalisation(bench.pixels)
        with torch.no_grad():  # batch norms with statistics of their own
            for start in range(0, 2000, 250):
                network.train()(torch.from_numpy(bench.pixels[start : start + 250]))
        network.eval()
        weights, plain, out = (bench.folder / f"{filters}.{ending}" for ending in ("safetensors", "pt", "npy"))
        save_network(network, weights, 10, IMAGE)
        torch.save(network.state_dict(), plain)
        found: list[Done] = []

        def ours(
            architecture: Architecture = architecture, weights: Path = weights, found: list[Done] = found
        ) -> float:
            key = content_key("bench", {"seed": next(bench.seeds)})  # another each time, so that nothing is stored yet
            with bench.store.writing("bench", key, "weights") as folder:
                shutil.copy(weights, folder / "weights.safetensors")
            trained = bench.store.find("bench", key)
            assert trained is not None
            tasks = feature_tasks(architecture, trained, "pool", samples, "bench", "cpu", "auto")
            started = time.perf_counter()
            found[:] = run_stored(tasks, bench.store, bench.engine, ignore_progress)
            return n / (time.perf_counter() - started)

        def theirs(plain: Path = plain, filters: int = filters, out: Path = out) -> float:
            return run_yardstick("features", pixels_file, plain, filters, out)

        ours()  # starts the workers where they are not
        mine, other = take_turns([ours, theirs], bench.repeats)
        features = np.concatenate([np.load(done.entry.folder / "features.npy") for done in found])
        difference = float(np.abs(features - np.load(out)).max())
        assert difference < 1e-4, difference
        note = f"differences up to {difference:.0e}"
        yield compare_rates(
            "5", f"features, ResNet20 B{filters}", mine, other, "eager loop", "images/s", reach, note=note
        )


def row_6(bench: Bench) -> Iterator[Row]:
    """Nearest neighbours: the search alone in one thread, and as a build does it, in shards over all workers."""
    rng = np.random.default_rng(0)
    queries, references = (rng.standard_normal((n, 64)).astype(np.float32) for n in (50_000, 10_000))
    brute = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(references)
    found: list[np.ndarray] = []

    def ours() -> None:
        found[:] = [find_nearest(queries, references, 1)]

    def theirs() -> None:
        found[1:] = [brute.kneighbors(queries, return_distance=False)]

    with one_thread():
        mine, other = take_turns([seconds_of(ours), seconds_of(theirs)], 5)
    assert (found[0] == found[1]).mean() > 0.9999  # random float32 points have hardly any ties
    what = "nearest neighbours, 50,000 x 10,000 x 64"
    megabytes = TILE * len(references) * 4 / 2**20
    note = f"holds {megabytes:.0f} MB of distances"
    yield compare_seconds("6", f"{what}, one thread", mine, other, "scikit-learn, brute, one thread", 3, note=note)

    shards = [queries[start : start + SHARD] for start in range(0, len(queries), SHARD)]
    training = [stand_in(bench, f"t{number}", shard) for number, shard in enumerate(shards)]
    evaluation = [stand_in(bench, "e", references)]

    def whole() -> None:
        features = Features(training, evaluation, Similarity(), {"again": str(next(bench.seeds))})
        (projection,) = run_stored([projection_task(features)], bench.store, bench.engine, ignore_progress)
        run_stored(mapping_tasks(features, projection), bench.store, bench.engine, ignore_progress)

    whole()
    mine, other = take_turns([seconds_of(whole), seconds_of(theirs)], 5)
    yield compare_seconds(
        "6",
        f"{what} with PCA, as a build does it over all workers",
        mine,
        other,
        "scikit-learn, brute, all threads",
        None,
    )


def stand_in(bench: Bench, name: str, features: np.ndarray) -> Done:
    """A finished task of features."""
    with bench.store.writing("bench", name, name) as folder:
        np.save(folder / "features.npy", features)
    entry = bench.store.find("bench", name)
    assert entry is not None
    return Done(entry, was_stored=False)


def row_7(bench: Bench) -> Iterator[Row]:
    """Weighted draws of 1.28 million samples."""
    n = 1_280_000
    rng = np.random.default_rng(0)
    weights = rng.choice([1.0, 2.0, 6.0], n, p=[0.3, 0.6, 0.1])
    texts = make_ids(n)
    started = time.perf_counter()
    ids = parse_ids(texts)
    note = f"the ids were parsed before, once for all draws: {(time.perf_counter() - started) * 1000:.0f} ms"
    for share, reach, reach_exact in ((0.05, 2.5, 0.5), (0.5, 20, 4)):
        n_drawn = int(share * n)

        def choose(n_drawn: int = n_drawn) -> None:
            np.random.default_rng(0).choice(n, n_drawn, replace=False, p=weights / weights.sum(), shuffle=False)

        turns = take_turns(
            [
                seconds_of(lambda k=n_drawn: draw_successive(weights, k, ids, 1), 3),
                seconds_of(lambda k=n_drawn: draw_systematic(weights, k, ids, 1), 3),
                seconds_of(choose, 3),
            ],
            9,
        )
        what = f"of 1.28 million, {share:.0%}"
        yield compare_seconds("7", f"successive draw {what}", turns[0], turns[2], "numpy `choice`", reach, note=note)
        yield compare_seconds(
            "7", f"draw of exact probabilities {what}", turns[1], turns[2], "numpy `choice`", reach_exact
        )


def row_8(bench: Bench) -> Iterator[Row]:
    """Parquet of the proxy and all tables, beside decoding and encoding again; tars are written by `webdataset`, and left out here."""
    n_proxy = 5000
    source, outcomes, mapping, draw = pretend_build(bench, n_proxy)
    names = list(source.label_names)
    places = count()

    def subset() -> None:
        folder = bench.folder / f"tables {next(places)}"
        folder.mkdir()
        with patch.object(writer, "write_tars"):
            writer.write_tables(folder, source, outcomes, mapping, draw, 10_000)

    parquet = bench.folder / "source.parquet"
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    labels = [number % 10 for number in range(len(bench.encoded))]
    images = [{"bytes": file, "path": None} for file in bench.encoded]
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(parquet)
    chosen = np.flatnonzero(draw.selected)

    whole = datasets.Dataset.from_parquet(str(parquet), cache_dir=str(bench.folder / "cache"))

    def their_subset() -> None:
        some = whole.select(chosen)
        again = {"image": [row["image"] for row in some], "label": some["label"]}
        datasets.Dataset.from_dict(again, features=features).to_parquet(bench.folder / f"{next(places)}.parquet")

    def as_they_are() -> None:
        whole.select(chosen).to_parquet(bench.folder / f"{next(places)}.parquet")

    mine, again, passed = take_turns([seconds_of(subset), seconds_of(their_subset), seconds_of(as_they_are)], 5)
    what = f"parquet of {n_proxy:,} of 10,000 samples, with all their columns"
    yield compare_seconds("8", what, mine, again, "decode and encode again", 10)
    yield compare_seconds("8", what, mine, passed, "`datasets`' `select` and `to_parquet`, two columns", None)


def pretend_build(bench: Bench, n_proxy: int) -> tuple[Source, Outcomes, NearestMap, Draw]:
    """What a build hands to its artifact: ten thousand images, some of them drawn."""
    n = len(bench.encoded)
    sha256 = np.array([hashlib.sha256(file).hexdigest() for file in bench.encoded])
    ids = make_ids(n)
    train = Samples(ids, np.arange(n) % 10, np.arange(n), sha256, np.arange(n), bench.origin)
    few = train.take(np.arange(100))
    facts = SourceFacts("bench", None, "hub", True, "0", {"train": n}, {"train": 0}, 0, (), "bench", "bench")

    def open_encoded(split: str, source_index: np.ndarray) -> ReadEncoded:
        return lambda samples: [bench.encoded[index] for index in samples.source_index]

    source = Source(tuple(f"label {number}" for number in range(10)), IMAGE, train, few, few, facts, "", open_encoded)
    flags, ones = np.ones((100, 2), np.bool_), np.ones(n)
    outcomes = Outcomes(
        flags.astype(np.int64), flags, np.ones(100, np.int64), np.ones(100), np.ones((100, 4), np.int64)
    )
    mapping = NearestMap(np.zeros((n, 1), np.int64), ones, 1, 64, 1.0)
    selected = np.random.default_rng(0).permutation(n) < n_proxy
    return (
        source,
        outcomes,
        mapping,
        Draw(
            selected=selected,
            case=ones.astype(np.int64),
            importance=ones,
            weight=None,
            keep_probability=ones / n,
            inclusion_probability=ones,
        ),
    )


def row_9(bench: Bench) -> Iterator[Row]:
    """Commands that need nothing heavy."""
    proxyds = Path(sys.executable).parent / "proxyds"
    commands = [[proxyds, "--help"], [proxyds, "validate", ROOT / "recipes" / "cifar10-small.yaml"]]

    def run(command: list[str | Path]) -> None:
        subprocess.run(command, check=True, capture_output=True, env=clean_environment())

    torch_alone = [sys.executable, "-c", "import torch"]
    turns = take_turns([seconds_of(lambda c=c: run(c)) for c in (*commands, torch_alone)], 7)
    for name, seconds in zip(("--help", "validate"), turns, strict=False):
        ratios = [mine / theirs for mine, theirs in zip(seconds, turns[2], strict=True)]
        yield Row(
            "9", f"`proxyds {name}`", statistics.median(seconds), statistics.median(turns[2]), '`python -c "import torch"`', "s",
            statistics.median(ratios), ratios, 0.3, at_least=False,
        )  # fmt: skip


def row_10(bench: Bench) -> Iterator[Row]:
    """One architecture's training and test on everything and on a proxy of 5 %, of 30 epochs: put together from measured parts."""
    seconds = {}
    for name, n_train in (("proxy", 2250), ("everything", 45_000)):
        n_steps = n_train // BATCH
        parts = []
        for _ in range(3 if name == "proxy" else 1):
            for done in bench.train(8, n_steps, n_train, n_test=10_000):
                about = json.loads((done.entry.folder / "run.json").read_text())
                set_up = done.entry.seconds - about["training_seconds"] - about["test_seconds"]
                parts.append((set_up, about["training_seconds"], about["test_seconds"]))
        set_up, epoch, test = (statistics.median(part) for part in zip(*parts, strict=True))
        seconds[name] = set_up + SETTINGS.epochs * epoch + test
    yield compare_seconds(
        "10",
        "training and test of ResNet20 B8 on a proxy of 5 %",
        [seconds["proxy"]],
        [seconds["everything"]],
        "the same on all 45,000 images",
        17,
        note="30 epochs, from measured set-up, epoch and test",
    )


def row_11(bench: Bench) -> Iterator[Row]:
    """A whole build beside its probes' trainings alone, from its own ledger."""
    if not bench.are_real:
        raise LeftOutError("row 11 builds cifar10-small, which wants CIFAR-10 in the folder that PROXYDS_DATA names")
    from proxyds.pipeline.build import build
    from proxyds.recipe.yaml import read_recipe

    recipe = read_recipe(ROOT / "recipes" / "cifar10-small.yaml", ["check=null"])
    built = build(recipe, bench.folder / "built", store=Store(bench.folder / "store of the build"), device="cpu")
    stages = {stage.stage: stage.elapsed_seconds for stage in built.manifest.stages}
    whole = sum(stages.values())
    others = ", ".join(
        f"{name} {seconds:.1f} s" for name, seconds in stages.items() if name != "probes" and seconds > 0.5
    )
    yield Row(
        "11", "a build of cifar10-small", whole, stages["probes"], "its probes' trainings", "s", whole / stages["probes"],
        [whole / stages["probes"]], 1.10, at_least=False, note=others,
    )  # fmt: skip


def row_12(bench: Bench) -> Iterator[Row]:
    """Training in bfloat16, beside a loader's loop in float32 and our own."""
    if not has_bfloat16("cpu"):
        raise LeftOutError("row 12 trains in bfloat16, for which this processor has no instructions")
    bench.train(8, 2, 2 * BATCH)  # starts the workers
    for filters, reach in ((8, 2.0), (16, 2.2)):
        n_steps = {8: 60, 16: 36}[filters]
        half, ours, alone, two = take_turns(
            [
                bench.images_a_second(filters, "bfloat16"),
                bench.images_a_second(filters, "float32"),
                lambda f=filters, n=n_steps: run_yardstick("train", bench.pixels_file, f, 0, n),
                lambda f=filters, n=n_steps: run_yardstick("train", bench.pixels_file, f, 2, n),
            ],
            bench.repeats,
        )
        name = f"a check's trainings in bfloat16, ResNet20 B{filters}"
        better = max(alone, two, key=statistics.median)
        yield compare_rates("12", name, half, better, f"{LOADER}; in float32", "images/s", reach)
        yield compare_rates("12", name, half, ours, "the same in float32", "images/s", 1.4)


ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "1": row_1_to_3, "4": row_4, "5": row_5, "6": row_6, "7": row_7, "8": row_8, "9": row_9, "10": row_10, "11": row_11, "12": row_12,
}  # fmt: skip


def run(only: list[str], repeats: int) -> Report:
    """Measures rows; says each as it is known."""
    report = start_report("CPU")
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="proxyds-bench-"))
    bench = Bench(folder, repeats)
    if not bench.are_real:
        report.left_out.append("anything on real images, which PROXYDS_DATA did not have: noise took their place")
    try:
        with bench.engine:
            for name in only or ROWS:
                try:
                    for row in ROWS[name](bench):
                        report.rows.append(row)
                        print(f"{row.row:>3} {row.what}: {row.ratio:.2f} (to reach: {row.reach})", flush=True)
                except LeftOutError as error:
                    report.left_out.append(str(error))
                    print(error, flush=True)
    finally:
        shutil.rmtree(folder)
    report.seconds = time.perf_counter() - started
    return report


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], choices=list(ROWS), help="rows to measure; 1 gives 1 to 3")
    parser.add_argument("--repeats", type=int, default=5, help="turns of rows 1 to 3 and 5")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        help="where the table goes, as cpu.json and cpu.md, or cpu-ROWS; a whole run's default is results/",
    )
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error("--repeats: must be at least 1")
    out = given.out or (None if given.only else HERE / "results")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    datasets.disable_progress_bars()
    measured = run(given.only, given.repeats)
    if out is not None:
        write_report(measured, out, "-".join(["cpu", *given.only]))


if __name__ == "__main__":
    main()
