"""A trainer of one's own: what it is given, what it must do, and that nothing else sees a difference."""

from __future__ import annotations

import errno
import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from proxyds.data.pixels import Pixels
from proxyds.errors import CallableError, DivergedError, RecipeError, TrainingError
from proxyds.evaluation.runs import list_runs, list_training_sets, tabulate_runs, train_and_test
from proxyds.recipe.models import Check, Recipe, Training
from proxyds.recipe.yaml import read_recipe, write_recipe
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Done, Task
from proxyds.selection.probe import ProbeJob, open_answers, train_probe
from proxyds.selection.records import Drawn
from proxyds.training.inference import measure_answers
from proxyds.training.job import TrainingJob, TrainingSetup, list_trials
from proxyds.training.model import PixelNetwork
from proxyds.training.trainer import check_by, hand_over_trainer, train_by
from proxyds.training.training_images import TrainingImages
from tests import ranks

Images = Dataset[tuple[torch.Tensor, torch.Tensor]]
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "space": {"network": "resnet", "choices": {"base_filters": (4, 8, 12), "multiplier": (1, 2)}},
}


@pytest.fixture(autouse=True)
def _as_in_a_worker(one_thread: None) -> None:
    pass


# Trainers


def fit_epochs(network: nn.Module, train: Images, n: int) -> Iterator[float]:
    optimizer = torch.optim.Adam(network.train().parameters(), 0.01)
    for _ in range(n):
        for images, labels in DataLoader(train, 16, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            loss = cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        yield loss.item()


def fit_plainly(network: nn.Module, train: Images, *, seed: int, device: str, n: int = 3) -> nn.Module:
    list(fit_epochs(network, train, n))
    return network


class Telling:
    def __init__(self, n: int = 3, *, tells: bool = True) -> None:
        self.n, self.tells = n, tells

    def fit(
        self, network: nn.Module, train: Images, *, seed: int, device: str, after_epoch: Callable[..., None]
    ) -> nn.Module:
        for loss in fit_epochs(network, train, self.n):
            if self.tells:
                after_epoch(network, loss)
        return network


def by(trainer: object) -> Training:
    return Training(trainer=hand_over_trainer(trainer))


def job_of(folder: Path, trainer: object, **changes: Any) -> ProbeJob:
    return ranks.make_probe_job(folder, settings=by(trainer), data_parallel=1, **{"keep_answers": False, **changes})


def run(folder: Path, trainer: object) -> PixelNetwork:
    network, _, _ = TrainingJob.run(job_of(folder, trainer), lambda *_: None)
    return network


def train_into(folder: Path, trainer: object, **changes: Any) -> Path:
    out = folder / "out"
    out.mkdir()
    train_probe(folder=out, report=lambda *_: None, **vars(job_of(folder, trainer, **changes)))
    return out


# What it is given


def test_images_are_normalised_by_channel_and_give_their_pixels_back() -> None:
    pixels = np.array([[[[0, 0]], [[10, 10]]], [[[4, 4]], [[10, 30]]]], np.uint8)  # two of two channels, 1x2
    network = PixelNetwork(nn.Identity(), 2)
    network.fit_normalisation(pixels)
    train = TrainingImages(pixels, np.array([1, 0]), network)
    image, label = train[1]
    deviation = 75**0.5
    expected = torch.tensor([[[1.0, 1.0]], [[-5 / deviation, 15 / deviation]]])
    torch.testing.assert_close(image, expected)
    assert (image.dtype, label.dtype, label.item(), len(train)) == (torch.float32, torch.int64, 0, 2)
    torch.testing.assert_close(image * train.deviation + train.mean, torch.from_numpy(pixels[1]).float())
    assert torch.equal(train[-1][0], image)
    assert [label.item() for _, label in train] == train.labels.tolist() == [1, 0]
    with pytest.raises(IndexError):
        train[2]


def test_images_on_disk_are_those_in_memory_in_the_order_asked_for(tmp_path: Path) -> None:
    pixels, labels = ranks.images()
    network = PixelNetwork(nn.Identity(), 3)
    network.fit_normalisation(pixels)
    read: Pixels = ranks.on_disk(tmp_path, pixels)
    here, there = (TrainingImages(each, labels, network) for each in (pixels, read))
    for one, other in zip(DataLoader(here, 7), DataLoader(there, 7), strict=True):
        assert all(map(torch.equal, one, other))
    order = [40, 3, 11, 10]
    assert torch.equal(torch.stack([x for x, _ in there.__getitems__(order)]), torch.stack([here[i][0] for i in order]))


def test_a_network_is_asked_as_it_was_trained(tmp_path: Path) -> None:
    seen = {}

    def look(network: nn.Module, train: Images, *, seed: int, device: str) -> nn.Module:
        fit_plainly(network, train, seed=seed, device=device)
        images = torch.stack([image for image, _ in train])
        with torch.no_grad():
            seen["labels"] = network.eval()(images).argmax(1)
        seen["device"], seen["seed"] = device, seed
        torch.save(seen, tmp_path / "seen")
        return network

    out = train_into(tmp_path, look)
    found = torch.load(tmp_path / "seen")
    assert (np.load(out / "predictions.npy") == found["labels"].numpy()).all()
    assert found["device"] == "cpu"
    assert 0 <= found["seed"] < 2**32


def test_the_same_seed_gives_the_same_weights_and_leaves_all_generators_as_they_were(tmp_path: Path) -> None:
    def draw_from_all(network: nn.Module, train: Images, *, seed: int, device: str) -> nn.Module:
        torch.set_num_threads(2)
        torch.set_grad_enabled(False)
        noise = random.random() + np.random.rand() + torch.rand(1).item()  # noqa: NPY002
        for weight in network.parameters():
            weight.add_(noise)
        return network

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    first, second = run(tmp_path, draw_from_all), run(tmp_path, draw_from_all)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after
    assert torch.get_num_threads() == 1
    assert torch.is_grad_enabled()
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])


def test_weights_of_a_copy_are_taken_and_the_network_works_from_its_file(tmp_path: Path) -> None:
    import copy

    def average(network: nn.Module, train: Images, *, seed: int, device: str) -> nn.Module:
        other = copy.deepcopy(network)
        return fit_plainly(other, train, seed=seed, device=device)

    out = train_into(tmp_path, average)
    (tmp_path / "plain").mkdir()
    plain = train_into(tmp_path / "plain", fit_plainly)
    saved, expected = (load_file(folder / "weights.safetensors") for folder in (out, plain))
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)


# What it must return


def wrap(network: nn.Module) -> nn.Module:
    wrapper = nn.Module()
    wrapper.network = network
    return wrapper


def average(network: nn.Module) -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(network)


def widen(network: nn.Module) -> nn.Module:
    network.add_module("head", nn.Linear(2, 2))
    return network


def reshape(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(torch.zeros(7, module.in_features))
    return network


def change_activations(network: nn.Module) -> nn.Module:
    network.register_forward_hook(lambda module, given, output: output * 2)
    return network


def spoil(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    return network


def divide(network: nn.Module) -> nn.Module:
    raise ZeroDivisionError("no batches\nat all")


def leave(network: nn.Module) -> nn.Module:
    raise SystemExit(1)


def lose(network: nn.Module) -> nn.Module:
    raise DivergedError("lost")


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda network: None, CallableError, "return network"),
        (lambda network: {"a": 1}, CallableError, "dict"),
        (wrap, CallableError, "attribute `network`"),
        (average, CallableError, "attribute `module`"),
        (widen, CallableError, r"head\.weight"),
        (reshape, CallableError, r"\(7, "),
        (change_activations, CallableError, "something else"),
        (spoil, DivergedError, "finite"),
        (divide, TrainingError, r"ZeroDivisionError: no batches \(line \d+, in divide\)"),
        (leave, TrainingError, "SystemExit"),
        (lose, DivergedError, "^lost"),
    ],
    ids=[
        "none",
        "dict",
        "wrapped",
        "averaged",
        "wider",
        "shape",
        "another-function",
        "nan",
        "raises",
        "exits",
        "our-own",
    ],
)
def test_what_a_trainer_must_not_do_is_told_by_name(
    change: Callable[[nn.Module], nn.Module], kind: type[Exception], said: str, tmp_path: Path
) -> None:
    def fit_badly(network: nn.Module, train: Images, *, seed: int, device: str) -> nn.Module:
        return change(network)

    with pytest.raises(kind, match=said) as caught:
        run(tmp_path, fit_badly)
    assert type(caught.value) is kind
    assert change is lose or "fit_badly on small" in str(caught.value)


def test_a_trial_comes_first_with_as_many_samples_as_the_smallest_proxy_and_finds_what_is_wrong(tmp_path: Path) -> None:
    def fit_nothing(network: nn.Module, train: Images, *, seed: int, device: str) -> None:
        (tmp_path / "n").write_text(str(len(train)))  # type: ignore[arg-type]

    job = job_of(tmp_path, fit_nothing)
    setup = TrainingSetup(**{name: getattr(job, name) for name in TrainingSetup.__dataclass_fields__})
    (task,) = list_trials(setup, job.architecture, job.train, 0.25)
    with pytest.raises(CallableError, match="return network"):
        task.function(folder=tmp_path, report=lambda *_: None, **task.arguments)
    assert (tmp_path / "n").read_text() == "16"
    shipped = TrainingSetup(**{**vars(setup), "settings": Training()})
    assert list_trials(shipped, job.architecture, job.train, 0.25) == []


# What it tells


def test_a_trainer_that_tells_of_epochs_is_asked_after_each_and_trains_the_same(tmp_path: Path) -> None:
    asked = train_into(tmp_path, Telling(), keep_answers=True)
    (tmp_path / "plain").mkdir()
    plain = train_into(tmp_path / "plain", fit_plainly)
    weights, expected = (load_file(folder / "weights.safetensors") for folder in (asked, plain))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert {file.name for file in asked.iterdir()} == {
        *("answers.npy", "predictions.npy", "training.json", "weights.safetensors")
    }
    answers = np.load(asked / "answers.npy")
    assert answers.shape == (4, 3, 64)
    assert (answers[:, 0] != answers[:, 2]).any()
    pixels, labels = ranks.images()
    job = job_of(tmp_path, Telling())
    network, losses, _ = TrainingJob.run(job, lambda *_: None)
    assert (answers[:, -1] == measure_answers(network, pixels, labels)).all()
    assert len(losses) == 3


@pytest.mark.parametrize("is_hidden", [False, True])
def test_an_error_of_ours_after_an_epoch_is_not_the_trainers(is_hidden: bool, tmp_path: Path) -> None:
    class Catching(Telling):
        def fit(self, network: nn.Module, train: Any, **arguments: Any) -> nn.Module:
            try:
                return super().fit(network, train, **arguments)
            except OSError as error:
                if is_hidden:
                    return network
                raise RuntimeError("wrapped") from error

    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(OSError, match="no space left"):
        job_of(tmp_path, Catching()).run(lambda *_: None, fill_the_disk)


def test_a_function_is_asked_once_at_the_end(tmp_path: Path) -> None:
    answers = np.load(train_into(tmp_path, fit_plainly, keep_answers=True) / "answers.npy")
    assert answers.shape == (4, 1, 64)


def test_a_trainer_that_never_tells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallableError, match="after_epoch"):
        run(tmp_path, Telling(tells=False))


def test_answers_of_unlike_many_epochs_are_refused_before_they_are_averaged(tmp_path: Path) -> None:
    store, entries = Store(tmp_path / "store"), []
    for n in (2, 3):
        with store.writing("probes", f"{n:064x}", "probe") as folder:
            np.save(folder / "answers.npy", np.zeros((4, n, 5), np.float32))
        entry = store.find("probes", f"{n:064x}")
        assert entry is not None
        entries.append(entry)
    with pytest.raises(CallableError, match="2 and 3 times"):
        open_answers(entries)


# How it is handed over


def takes_too_little(network: nn.Module, train: Images) -> nn.Module:
    return network


class Misfit:
    def fit(self, network: nn.Module, train: Images, *, seed: int, device: str) -> nn.Module:
        return network


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        (Telling, "make one of it"),
        ("fit_plainly", "str"),
        (takes_too_little, "takes_too_little: must take"),
        (Misfit(), "after_epoch"),
        (functools.partial(fit_plainly, n=open(__file__, "rb")), "fit_plainly.*copied"),  # noqa: PTH123, SIM115
    ],
    ids=["class", "text", "arguments", "fit", "open-file"],
)
def test_what_is_no_trainer_is_refused_at_once(trainer: Any, said: str) -> None:
    with pytest.raises(CallableError, match=said):
        hand_over_trainer(trainer)


def test_a_training_depends_on_the_trainers_code_and_not_on_its_name(tmp_path: Path) -> None:
    def make(n: int) -> Any:
        def fit_one(network: nn.Module, train: Images, *, seed: int, device: str) -> nn.Module:
            return fit_plainly(network, train, seed=seed, device=device, n=n)

        def fit_two(network: nn.Module, train: Images, *, seed: int, device: str) -> nn.Module:
            return fit_plainly(network, train, seed=seed, device=device, n=n)

        return fit_one, fit_two

    (one, renamed), (other, _) = make(1), make(2)
    keys = [job_of(tmp_path, each).task.key for each in (one, renamed, other)]
    assert keys[0] == keys[1] != keys[2]
    assert by(one).trainer != by(renamed).trainer


# What recipes say of it


def recipe_of(**sections: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **sections})


def test_a_recipe_names_its_trainer_and_nothing_else_of_training(tmp_path: Path) -> None:
    recipe = train_by(recipe_of(), fit_plainly)
    code = hand_over_trainer(fit_plainly)
    assert recipe.model_dump()["training"] == {"trainer": {"name": "fit_plainly", "sha256": code.sha256}}
    assert recipe.sha256 != recipe_of().sha256
    assert recipe.with_crop_padding(3) == recipe
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert train_by(again, fit_plainly) == recipe
    (tmp_path / "recipe.yaml").write_text(write_recipe(recipe))
    assert read_recipe(tmp_path / "recipe.yaml") == recipe  # as a proxy holds it
    assert train_by(recipe_of(), None) == recipe_of()


@pytest.mark.parametrize("place", ["training", "check"])
def test_a_recipe_that_names_a_trainer_takes_no_other(place: str) -> None:
    code = hand_over_trainer(fit_plainly)
    recipe = recipe_of(**{place: {"trainer": code.model_dump()}})
    with pytest.raises(CallableError, match=f"{place}.trainer: .*fit_plainly .code {code.sha256[:12]}"):
        train_by(recipe, None)
    other = hand_over_trainer(Telling())
    with pytest.raises(
        CallableError, match=f"{place}.trainer: .*{code.sha256[:12]}.*Telling .code {other.sha256[:12]}"
    ):
        train_by(recipe, Telling())


def test_settings_that_a_trainer_makes_useless_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"training: .*epochs, precision"):
        train_by(recipe_of(training={"epochs": 5, "precision": "float32"}), fit_plainly)
    with pytest.raises(RecipeError, match=r"probes\.data_parallel"):
        train_by(recipe_of(probes={"data_parallel": 2}), fit_plainly)
    with pytest.raises(RecipeError, match=r"probes\.epochs"):
        train_by(recipe_of(probes={"epochs": 2}), fit_plainly)
    with pytest.raises(RecipeError, match=r"check\.full_training"):
        check_by(Check(full_training={"epochs": 2}), recipe_of(), fit_plainly)
    code = hand_over_trainer(fit_plainly).model_dump()
    for section in (
        {"training": {"epochs": 5, "trainer": code}},
        {"training": {"trainer": code}, "probes": {"data_parallel": 2}},
        {"training": {"trainer": code}, "probes": {"epochs": 2}},
        {"training": {"trainer": code}, "check": {"full_training": {"epochs": 2}}},
        {"check": {"trainer": code, "full_training": {"epochs": 2}}},
    ):
        with pytest.raises(ValueError, match="trainer"):
            recipe_of(**section)


@pytest.mark.parametrize("method", ["el2n", "forgetting", "ccs"])
def test_methods_that_follow_epochs_need_a_trainer_that_tells_of_them(method: str) -> None:
    recipe = recipe_of(selection={"method": method}, probes={"seeds": 3})
    with pytest.raises(RecipeError, match=f"{method} must"):
        train_by(recipe, fit_plainly)
    assert train_by(recipe, Telling()).training.trainer is not None
    recipe = recipe_of(check={"controls": (method,)}, probes={"seeds": 3})
    with pytest.raises(RecipeError, match=f"{method} must"):
        train_by(recipe, fit_plainly)
    own = train_by(recipe_of(probes={"seeds": 3}), fit_plainly)
    with pytest.raises(RecipeError, match=f"{method} must"):
        check_by(Check(controls=(method,)), own, fit_plainly)


def test_a_check_may_have_another_trainer_and_says_so() -> None:
    shipped, own = recipe_of(), train_by(recipe_of(), fit_plainly)
    code = hand_over_trainer(Telling())
    for recipe in (shipped, own):
        settings = check_by(Check(), recipe, Telling())
        assert settings.trainer == code
        assert settings.choose_training(recipe.training) == Training(trainer=code)
    assert check_by(Check(), own, fit_plainly) == Check()
    assert Check().choose_training(own.training) == own.training
    assert check_by(Check(), shipped, None) == Check()
    with pytest.raises(CallableError, match=r"training\.trainer"):
        check_by(Check(), own, None)
    with pytest.raises(CallableError, match=r"check\.trainer=null"):
        check_by(Check(trainer=code), shipped, None)


# What is known of the trainings


def test_runs_of_a_trainer_have_no_steps_and_no_flops_and_no_rival_of_fewer_epochs(tmp_path: Path) -> None:
    job = job_of(tmp_path, fit_plainly)
    assert (job.training_flops, job.flops) == (None, None)
    setup = TrainingSetup(**{name: getattr(job, name) for name in TrainingSetup.__dataclass_fields__})
    draws = {"proxy": lambda ratio, number: Drawn(np.arange(64) % 2 == number % 2)}
    sets = list_training_sets(job.train, draws, Check(draws=1, full_seeds=1), 0.5, setup.settings)
    assert [(each.dataset, each.n_steps) for each in sets] == [("full", None), ("proxy", None)]
    runs = list_runs([job.architecture], sets, job.held_out, setup)
    tasks: list[Task] = [run.task for run in runs if run.task is not None]
    store = Store(tmp_path / "store")
    for task in tasks:
        with store.writing(task.stage, task.key, task.name) as folder:
            train_and_test(folder=folder, report=lambda *_: None, **task.arguments)
    entries = [store.find(task.stage, task.key) for task in tasks]
    table = tabulate_runs(runs, [Done(entry, was_stored=False) for entry in entries if entry is not None])
    for row in table.to_pylist():
        assert (row["n_steps"], row["n_epochs"], row["run_flops"]) == (None, None, None)
        assert row["training_seconds"] > 0
