"""The second study: its loop is the shipped one where nothing more is asked for, and what else it measures is right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from proxyds.artifact.ranking_table import FEWER_EPOCHS
from proxyds.errors import AccuracyTableError
from proxyds.evaluation.external import find_reference, read_csv
from proxyds.recipe.models import Training
from proxyds.space.architecture import Architecture
from proxyds.space.networks.plugins import load_plugins
from proxyds.training.inference import measure_network, prepare_network
from proxyds.training.loop import train_network
from proxyds.training.model import PixelNetwork, make_network
from tests.studies.candidates import CHEAPER
from tests.studies.results import open_study
from tests.studies.rows import read_whole_lines
from tests.studies.second import expecting, run
from tests.studies.second.choosing import list_published
from tests.studies.second.page import render_benchmark, tabulate_together, weigh_together
from tests.studies.second.plan import (
    CHOSEN,
    CHOSEN_TRAINING,
    FACTORS,
    GROUPS,
    LENGTH,
    LENGTHS,
    OF_CELLS,
    REFERENCE,
    STAGES,
    TOGETHER,
    VARIANTS,
    Set,
    Variant,
    combine,
)
from tests.studies.second.run import (
    COLUMNS,
    PLUGIN,
    Images,
    Job,
    Key,
    append_row,
    fingerprint,
    key_of,
    run_all,
    run_job,
    shrink,
    teach,
)
from tests.studies.second.training import Extras, ask, measure, take_statistics_again, train
from tests.studies.second.weighing import (
    PARAMETERS_ALONE,
    Ranked,
    Way,
    choose,
    choose_length,
    choose_reference,
    find_cost,
    keep_whole,
    rank,
    read_first_seed,
    read_reference,
    weigh_variants,
)
from tests.studies.subsets import Probes

STACKED = {"widths": (8, 8, 16), "blocks": (1, 1, 1)}
N_LABELS, N = 4, 320
SETTINGS = Training(epochs=3, batch_size=32, learning_rate=0.01, crop_padding=2)


@pytest.fixture(autouse=True)
def _alone():
    load_plugins([PLUGIN])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make() -> PixelNetwork:
    return make_network("stacked", STACKED, N_LABELS, (3, 16, 16), seed=1)


def images(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_LABELS, N)
    return (rng.integers(0, 150, (N, 3, 16, 16)) + 30 * labels[:, None, None, None]).astype(np.uint8), labels


def test_without_extras_weights_are_those_of_the_shipped_loop_to_the_bit() -> None:
    pixels, labels = images()
    shipped = make()
    history = train_network(shipped, pixels, labels, SETTINGS, seed=5)
    trained = train(make(), pixels, labels, SETTINGS, Extras(), seed=5, n_steps=30)
    assert list(trained.losses) == pytest.approx([epoch.loss for epoch in history], abs=1e-6)
    ours = trained.network.state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in shipped.state_dict().items())


def test_scores_are_those_of_the_shipped_inference() -> None:
    pixels, labels = images()
    trained = train(make(), pixels, labels, SETTINGS, Extras(), seed=5, n_steps=30)
    held_out, true = images(1)
    scores = measure(trained, pixels, held_out, true, all_scores=True)
    accuracy, loss = measure_network(prepare_network(trained.network, held_out), held_out, true)
    assert scores["accuracy"] == accuracy > 0.5
    assert scores["loss"] == pytest.approx(loss, rel=1e-3)
    assert set(scores) <= set(COLUMNS)
    p = ask(trained.network, held_out).exp().numpy()
    right = p[np.arange(N), true]
    p[np.arange(N), true] = -1
    assert scores["margin"] == pytest.approx((right - p.max(1)).mean(), abs=1e-6)


def test_of_mirrored_images_probabilities_are_averaged() -> None:
    pixels, labels = images()
    trained = train(make(), pixels, labels, SETTINGS, Extras(), seed=5, n_steps=30)
    both = ask(trained.network, pixels, mirrored=True).exp()
    one, other = ask(trained.network, pixels).exp(), ask(trained.network, pixels[..., ::-1]).exp()
    assert torch.allclose(both, (one + other) / 2, atol=1e-6)


def test_statistics_are_taken_again_over_the_images_as_they_are() -> None:
    pixels, _ = images()
    network = make()
    network.fit_normalisation(pixels)
    again = take_statistics_again(network.eval(), pixels[:250])
    stem = network.network.stem[0]
    expected = stem((torch.from_numpy(pixels[:250]).float() - network.mean) / network.deviation).mean((0, 2, 3))
    assert torch.allclose(again.network.stem[1].running_mean, expected, atol=1e-5)
    assert torch.equal(network.network.stem[1].running_mean, torch.zeros(8))


def test_mean_weights_are_those_of_the_last_quarter() -> None:
    pixels, labels = images()
    trained = train(make(), pixels, labels, SETTINGS, Extras(), seed=5, n_steps=4)  # the mean of one step: the last
    for mean, last in zip(trained.mean_weights.parameters(), trained.network.parameters(), strict=True):
        assert torch.allclose(mean, last)
    longer = train(make(), pixels, labels, SETTINGS, Extras(), seed=5, n_steps=8)
    pairs = zip(longer.mean_weights.parameters(), longer.network.parameters(), strict=True)
    assert any(not torch.allclose(mean, last) for mean, last in pairs)


def test_targets_are_smoothed_or_a_teachers() -> None:
    pixels, labels = images()
    certain = np.eye(N_LABELS, dtype=np.float32)[labels]
    plain, taught, smoothed = (
        train(make(), pixels, labels, SETTINGS, extras, seed=5, n_steps=10).losses
        for extras in (Extras(), Extras(teacher=certain), Extras(smoothing=0.1))
    )
    assert taught == pytest.approx(plain, rel=1e-4)
    assert smoothed[0] > plain[0]


def test_images_are_shrunk_by_areas() -> None:
    pixels = np.zeros((1, 1, 4, 4), np.uint8)
    pixels[0, 0, :2, :2] = [[10, 20], [30, 40]]
    assert shrink(pixels, 2).tolist() == [[[[25, 0], [0, 0]]]]


def test_rows_go_on_where_they_stop(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    key = Key("factors", "base", "random", 0.05, 2, "stacked widths=8x8x16")
    row = {**dict.fromkeys(COLUMNS), **key._asdict(), "accuracy": 0.5}
    append_row(path, row)
    with path.open("a") as file:
        file.write("factors,ba")  # a kill
    assert [key_of(each) for each in read_whole_lines(path)] == [key]
    append_row(path, {**row, "number": 3})
    assert [key_of(each).number for each in read_whole_lines(path)] == [2, 3]


def test_what_two_sets_of_a_stage_hold_is_run_once(tmp_path: Path) -> None:
    _, recipe, architectures = open_study(run.STUDIES["cifar10"])
    probes = Probes(recipe, None, architectures, None, None, None)
    sets = (Set("full-40", "full", 1.0, 1, "tuning"), Set("full-40", "full", 1.0, 2))
    keys = [job.key for job in run.list_jobs({"reference": sets}, probes, tmp_path / "rows.csv", tmp_path, tmp_path)]
    assert len(keys) == len(set(keys)) == 48
    assert {key.number for key in keys[:24]} == {0}
    assert [key.architecture for key in keys[:12]] == [each.name for each in architectures[::2]]


def small_images() -> Images:
    train_set, held_out = images(), images(1)
    return Images(train_set, held_out, held_out, N_LABELS, 7, SETTINGS.model_copy(update={"epochs": 1}))


def make_job(variant: str, teacher: Path) -> Job:
    key = Key("factors", variant, "random", 0.5, 0, "small")
    chosen = np.packbits(np.arange(N) % 2 == 0)
    return Job(key, Architecture("small", "stacked", STACKED, 1, 1, 1), chosen, False, teacher)


@pytest.mark.parametrize("variant", FACTORS)
def test_every_variant_gives_a_row(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_images", small_images())
    monkeypatch.setattr(
        run,
        "VARIANTS",
        {name: replace(each, settings=dict(each.settings) | {"epochs": 1}) for name, each in FACTORS.items()},
    )
    short = {**run.TEACHER, "epochs": 1}
    job = make_job(variant, tmp_path / "teacher.npy")
    teach(small_images(), job.architecture, job.teacher, short)
    row = run_job(job)
    assert set(row) <= set(COLUMNS)
    assert 0 <= row["accuracy"] <= 1
    assert row["n_steps"] == N // 2 // SETTINGS.model_copy(update=FACTORS[variant].settings).batch_size
    assert run_job(job) | {"seconds": 0} == row | {"seconds": 0}


def test_a_training_that_diverges_gives_a_row_without_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_images", small_images())
    hopeless = Variant({"optimizer": "sgd", "learning_rate": 100.0, "weight_decay": 1.0, "epochs": 20})
    monkeypatch.setitem(run.VARIANTS, "base", hopeless)
    row = run_job(make_job("base", tmp_path / "none"))
    assert "accuracy" not in row
    append_row(tmp_path / "rows.csv", row)
    assert [each["accuracy"] for each in read_whole_lines(tmp_path / "rows.csv")] == [""]


def test_every_job_is_run_and_none_begins_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_job", lambda job: {"number": job.key.number})
    jobs = [
        replace(make_job("base", tmp_path), key=Key("factors", "base", "random", 0.5, n, "small")) for n in range(7)
    ]
    kept: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        run_all(pool, jobs, 2, float("inf"), lambda row: kept.append(row["number"]))
        assert sorted(kept) == list(range(7))
        kept.clear()
        run_all(pool, jobs, 2, 0.0, lambda row: kept.append(row["number"]))
    assert sorted(kept) == [0, 1]


def make_rows(noise: dict[str, float], n: int = 12, draws: int = 3) -> tuple[list[dict[str, str]], list[Architecture]]:
    """Made-up rows: a variant's accuracies are the reference's with so much noise."""
    rng = np.random.default_rng(0)
    quality = rng.normal(size=n)
    architectures = [Architecture(f"net {i:02}", "stacked", {}, 100 + 20 * i, 300 + 60 * i, 10 + i) for i in range(n)]
    rows = []
    for stage, variant, method, deviation, number in (
        *(("reference", "full", "full", 0.05, seed) for seed in range(3)),
        *(
            ("factors", name, method, noise[name], draw)
            for name in noise
            for method in ("random", "stratified")
            for draw in range(draws)
        ),
    ):
        for each, worth in zip(architectures, quality, strict=True):
            accuracy = 0.5 + 0.05 * (worth + deviation * rng.normal())
            row = {
                "stage": stage,
                "variant": variant,
                "method": method,
                "ratio": 0.05,
                "number": number,
                "architecture": each.name,
                "accuracy": accuracy,
            }
            rows.append({name: str(value) for name, value in row.items()})
    return rows, architectures


def factors(rows: list[dict[str, str]], architectures: list[Architecture]) -> Ranked:
    of_stage = [row for row in rows if row["stage"] == "factors"]
    return Ranked(of_stage, architectures, read_reference(rows, architectures))


def test_what_gains_is_chosen_by_the_protocols_rules() -> None:
    rows, architectures = make_rows(
        {"base": 1.2, "padding-1": 0.3, "padding-4": 0.5, "rate-.03": 1.2, "epochs-52": 1.1, "smoothing": 0.5}
    )
    gains = weigh_variants(factors(rows, architectures))
    of = {each.variant: each for each in gains}
    assert list(of) == ["padding-1", "padding-4", "rate-.03", "epochs-52", "smoothing"]
    assert of["padding-1"].gain.value > of["padding-4"].gain.value > 0.03
    assert of["padding-1"].gain.low > 0
    assert of["epochs-52"].cost == 4
    assert of["epochs-52"].needed == pytest.approx(0.09)
    chosen = choose(gains)
    assert "padding-1" in chosen
    assert "padding-4" not in chosen
    assert chosen == sorted(chosen, key=lambda name: -of[name].gain.value)


def test_the_reference_is_what_is_most_accurate_and_did_not_diverge() -> None:
    trials = {"a": ("0.6", "0.8"), "b": ("0.9", ""), "c": ("0.7", "0.6")}
    rows = [
        {"stage": "tune-reference", "variant": variant, "accuracy": each}
        for variant, of in trials.items()
        for each in of
    ]
    later = {"stage": "reference-length", "variant": "c", "accuracy": "1.0"}  # decides nothing
    assert choose_reference([*rows, later]) == "a"


def test_the_longer_reference_is_taken_if_it_gains_half_a_point() -> None:
    shorter, longer = LENGTHS
    of_reference = {"stage": "reference", "variant": longer, "accuracy": "0.1"}  # on test samples: decides nothing
    for last, chosen in (("0.714", shorter), ("0.716", longer)):
        trials = [(shorter, "0.70"), (shorter, "0.72"), (longer, "0.715"), (longer, last)]
        rows = [{"stage": "reference-length", "variant": name, "accuracy": accuracy} for name, accuracy in trials]
        assert choose_length([*rows, of_reference]) == chosen


def test_a_network_is_left_out_on_every_data_set() -> None:
    rows, architectures = make_rows({"base": 1.0})
    half, everything = architectures[::2], factors(rows, architectures)
    of_half = Ranked(everything.rows, half, everything.reference[::2])
    both, one, other = (
        rank([everything, of_half], Way("base")),
        rank([everything], Way("base")),
        rank([of_half], Way("base")),
    )
    assert both.n_architectures == 12
    assert both.values[:, 0] == pytest.approx((one.values[:, 0] + other.values[:, 0]) / 2)
    without = [each for each in architectures if each is not architectures[2]]
    alone = rank(
        [replace(everything, architectures=without, reference=np.delete(everything.reference, 2))], Way("base")
    )
    of_rest = rank([Ranked(everything.rows, half[:1] + half[2:], np.delete(of_half.reference, 1))], Way("base"))
    assert both.values[:, 3] == pytest.approx((alone.values[:, 0] + of_rest.values[:, 0]) / 2)


def test_parameters_rank_with_accuracy() -> None:
    rows, architectures = make_rows({"base": 1.0})
    by_parameters = rank([factors(rows, architectures)], Way("base", parameter_weight=1e6))
    reference = read_reference(rows, architectures)
    expected = kendalltau(reference, [each.n_parameters for each in architectures]).statistic
    assert by_parameters.values[:, 0] == pytest.approx(expected)


def test_combined_methods_rank_by_the_mean_of_their_normal_scores() -> None:
    architectures = [Architecture(f"net {i}", "stacked", {}, 1, 3, 10) for i in range(3)]
    reached = {"random": ("0.5", "0.3", "0.4"), FEWER_EPOCHS: ("0.1", "0.9", "0.5")}
    rows = [
        {"variant": "base", "method": method, "number": "0", "architecture": each.name, "accuracy": accuracy}
        for method, accuracies in reached.items()
        for each, accuracy in zip(architectures, accuracies, strict=True)
    ]
    way = Way("base", (*reached,), n_draws=1, is_combined=True)
    ranked = Ranked(rows, architectures, np.array([0.6, 0.7, 0.8]))
    assert np.isnan(rank([ranked], way).mean[0])  # ranks 3, 1, 2 and 1, 3, 2: all stand equal
    rows[2]["accuracy"] = "0.6"  # ranks 2, 1, 3: mean scores of (-q, 0, q) are -q/2, 0, q/2
    assert rank([ranked], way).mean[0] == 1
    assert rank([ranked], replace(way, is_combined=False)).mean[0] == pytest.approx(1 / 3)


def test_a_reference_is_the_mean_of_the_seeds_that_are_whole() -> None:
    rows, architectures = make_rows({"base": 1.0})
    of_seed = [[float(row["accuracy"]) for row in rows[12 * seed : 12 * seed + 12]] for seed in range(3)]
    assert read_reference(rows, architectures) == pytest.approx(np.mean(of_seed, axis=0))
    assert read_reference(rows[1:], architectures) == pytest.approx(np.mean(of_seed[1:], axis=0))
    assert read_reference(rows[36:], architectures) is None


def test_taus_are_means_over_methods_and_draws() -> None:
    rows, architectures = make_rows({"base": 1.0, "decay": 0.8})
    reference = read_reference(rows, architectures)
    (gain,) = weigh_variants(factors(rows, architectures))
    taus = []
    for method, number in product(("random", "stratified"), range(3)):
        of = {
            row["architecture"]: float(row["accuracy"])
            for row in rows
            if (row["variant"], row["method"], row["number"]) == ("decay", method, str(number))
        }
        taus.append(kendalltau(reference, [of[each.name] for each in architectures]).statistic)
    assert gain.tau == pytest.approx(np.mean(taus))


def test_a_variant_with_a_training_that_diverged_is_left_out() -> None:
    rows, architectures = make_rows({"base": 1.0, "decay": 0.1})
    rows[-1]["accuracy"] = ""
    assert weigh_variants(factors(rows, architectures)) == []


def test_every_factor_has_a_group_and_costs_are_those_of_epochs_pixels_and_teachers() -> None:
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(set(FACTORS) - {"base"})
    costs = {name: find_cost(name) for name in FACTORS}
    assert costs["base"] == costs["padding-0"] == costs["batch-32"] == 1
    assert costs["epochs-26"] == 2
    assert costs["side-8"] == 0.25
    assert costs["soft-1"] == pytest.approx(1 + 20 / 24)


def test_rows_of_another_variant_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job("base", tmp_path)
    before = fingerprint(job)
    monkeypatch.setitem(run.VARIANTS, "base", Variant({"epochs": 14}))
    assert fingerprint(job) != before
    assert fingerprint(replace(job, chosen=None)) != before


def test_as_many_steps_are_taken_as_the_share_of_everything_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_images", small_images())
    monkeypatch.setitem(run.VARIANTS, "base", Variant({"epochs": 2}))
    job = make_job("base", tmp_path)
    fewer = replace(job, key=job.key._replace(method="fewer-epochs"), chosen=None)
    assert run_job(fewer)["n_steps"] == run_job(job)["n_steps"] == 2 * (N // 2 // SETTINGS.batch_size)


def test_the_plan_is_that_of_the_protocol() -> None:
    _, recipe, architectures = open_study(run.STUDIES["cifar10"])
    assert len(architectures) == 24
    assert 1e6 < architectures[0].training_flops < architectures[-1].training_flops < 6.5e6
    stages = STAGES["cifar10"]
    tuning = stages["factors"][0].choose(architectures)
    assert len(tuning) == 12
    assert [each.name for each in tuning] == [each.name for each in architectures[::2]]
    assert all(each in tuning for each in stages["tune-reference"][0].choose(architectures))
    rows = read_whole_lines(run.STUDIES["cifar10"].folder / "rows.csv")
    assert choose_reference(rows) == REFERENCE
    assert choose_length(rows) == LENGTH
    reference = read_first_seed(rows, tuning)
    of_factors, of_together = (
        Ranked([row for row in rows if row["stage"] == name], tuning, reference) for name in ("factors", "together")
    )
    gains = weigh_variants(of_factors)
    assert choose(gains) == [*CHOSEN]
    best = max([*gains, *weigh_variants(of_together, beside=of_factors)], key=lambda each: each.tau)
    assert best.variant == CHOSEN_TRAINING
    for variant in VARIANTS.values():
        Training.model_validate({**recipe.training.model_dump(), **variant.settings})
    base = recipe.training.model_dump()
    changed = [name for variant in FACTORS.values() for name, value in variant.settings.items() if base[name] == value]
    assert not changed  # every value of a factor is another than the base's


def test_the_first_draws_are_those_of_the_whole_stage() -> None:
    _, _, architectures = open_study(run.STUDIES["cifar10"])
    probes = Probes(None, None, architectures, None, None, None)
    places = [Path("no-rows.csv"), Path("none.npz"), Path("none.npy")]
    first, every = (
        [
            job.key
            for job in run.list_jobs({"reference": run.keep_draws(STAGES["cifar10"]["reference"], n)}, probes, *places)
        ]
        for n in (1, None)
    )
    assert first == every[:24]
    assert {key.number for key in first} == {0}
    assert len(every) == 3 * 24


def test_values_of_unlike_factors_are_joined() -> None:
    joined = combine(("epochs-52", "soft-4", "batch-32", "side-8", "smoothing"))
    assert joined.settings == {"epochs": 52, "batch_size": 32}
    assert (joined.temperature, joined.side, joined.smoothing) == (4.0, 8, 0.1)
    assert find_cost("epochs-52+soft-1") == pytest.approx(4 + 20 / 24)
    assert len(TOGETHER) == 4


def test_on_both_data_sets_networks_and_training_are_the_same() -> None:
    one, other = (open_study(run.STUDIES[name])[1] for name in ("cifar10", "cifar100"))
    assert one.space == other.space
    assert one.training == other.training
    assert one.seed == other.seed


@pytest.mark.parametrize("method", CHEAPER)
def test_cheaper_probes_are_networks_of_the_space_that_train_for_less(method: str) -> None:
    _, recipe, architectures = open_study(run.STUDIES["cifar10"])
    probes = Probes(recipe, None, architectures, None, None, None)
    cheaper = run.change_probes(probes, method)
    epochs, heaviest = cheaper.recipe.training.epochs, cheaper.architectures[-1]
    paid = epochs * (
        heaviest.training_flops + heaviest.forward_flops
    )  # trained, and asked about every sample after each epoch
    mean = np.mean([each.training_flops for each in architectures])
    assert (
        paid / (min(each.settings["epochs"] for each in LENGTHS.values()) * mean) < 0.3
    )  # of a training on everything
    assert run.change_probes(probes, "easier") is probes


def test_chosen_factors_together_are_weighed_against_the_base_of_another_stage() -> None:
    rows, architectures = make_rows({"base": 1.2, "epochs-52+soft-1": 0.2})
    together = [{**row, "stage": "together"} if row["variant"] == "epochs-52+soft-1" else row for row in rows]
    one_stage, beside = factors(rows, architectures), factors(together, architectures)
    gains = weigh_together(together, beside)
    assert gains == weigh_variants(one_stage)
    assert tabulate_together(gains)[4].startswith("| epochs-52+soft-1 | ")
    assert tabulate_together(weigh_together(rows, one_stage)) == []


def test_the_benchmarks_cells_are_rows_of_its_table_drawn_by_seed_0() -> None:
    _, recipe, architectures = open_study(run.STUDIES["nasbench201"])
    reference = recipe.check.reference
    try:
        path = find_reference(reference)
    except AccuracyTableError:
        pytest.skip("needs NAS-Bench-201 in PROXYDS_DATA")
    names = [row[reference.architecture_column] for _, row in read_csv(path, (reference.architecture_column,))]
    drawn = np.random.default_rng(0).choice(len(names), len(architectures), replace=False)
    assert {each.name for each in architectures} == {names[place] for place in drawn}
    costs = [each.training_flops for each in architectures]
    taught = run.TEACHER_OF_CELLS["epochs"] * costs[run.TEACHER_AT] / sum(costs)
    epochs_of_everything = VARIANTS[OF_CELLS].settings["epochs"] * STAGES["nasbench201"]["random"][0].ratio
    assert epochs_of_everything + taught == pytest.approx(2, abs=0.1)


def test_the_benchmark_is_weighed_beside_what_it_publishes() -> None:
    _, recipe, architectures = open_study(run.STUDIES["nasbench201"])
    rng, rows = np.random.default_rng(0), []
    try:
        published = list_published(recipe.check.reference, architectures)
    except AccuracyTableError:
        pytest.skip("needs NAS-Bench-201 in PROXYDS_DATA")
    true = {each["architecture"]: each["accuracy"] for each in published if each["dataset"] == "full"}
    for number in range(2):
        for name, accuracy in true.items():
            row = dict.fromkeys(COLUMNS, "") | {"stage": "random", "variant": OF_CELLS, "method": "random"}
            noisy = accuracy + rng.normal(0, 0.001)
            rows.append(
                row
                | {
                    "loss": str(2 - accuracy),
                    "ratio": "0.05",
                    "number": str(number),
                    "architecture": name,
                    "accuracy": str(noisy),
                    "seconds": "9",
                }
            )
    page = render_benchmark(keep_whole(rows, architectures), recipe, architectures)
    of = {line.split("|")[1].strip(): line.split("|") for line in page.splitlines() if line.startswith("| ")}
    twelve = spearmanr(
        [true[each["architecture"]] for each in published[:32]], [each["accuracy"] for each in published[32:]]
    )
    assert of["full data, fewer epochs"][6].split()[0] == f"{twelve.statistic:.2f}"
    assert float(of["random"][4].split()[0]) > 0.9
    assert of["random"][3].strip() == "2"
    assert keep_whole(rows[1:], architectures) == rows[32:]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_what_to_expect_of_candidates_is_read_of_the_committed_rows(name: str) -> None:
    study, _, architectures = open_study(run.STUDIES[name])
    rows = read_whole_lines(study.folder / "rows.csv")
    measured = expecting.read_measured(rows, architectures)
    assert measured is not None
    loss = [float(row["loss"]) for row in rows if row["method"] == "random" and row["loss"]]
    assert set(measured.losses[expecting.WAY].ravel()) <= set(loss)
    by_accuracy, by_loss = (expecting.rehearse(each) for each in (replace(measured, losses={}), measured))
    assert by_accuracy != by_loss
    assert by_accuracy.n_candidates == len(architectures) // 2
    assert expecting.read_measured([row for row in rows if row["stage"] == "reference"], architectures) is None


def test_the_number_of_parameters_ranks_with_an_interval_of_networks_alone() -> None:
    rows, architectures = make_rows({"base": 0.0})
    ranked = factors(rows, architectures)
    found = rank([ranked], Way("base", score=PARAMETERS_ALONE))
    assert found is not None
    true = kendalltau([each.n_parameters for each in architectures], ranked.reference).statistic
    estimate = found.estimate().as_agreement()
    assert found.mean[0] == pytest.approx(true)
    assert estimate.low < true < estimate.high
    assert not found.has_common_draws
