"""The loop against a plain one, its augmentation by hand, and what it must never do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from proxyds.errors import DivergedError
from proxyds.recipe.models import Training
from proxyds.seeding import derive_seed
from proxyds.training.inference import predict_labels
from proxyds.training.loop import cut_batch, draw_epoch, pad_images, train_network
from proxyds.training.model import PixelNetwork, make_network
from proxyds.training.numerics import choose_computation

SMALL = {"depth": 8, "base_filters": 4, "kernel_size": 3, "multiplier": 1}


pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brighter half tells the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    pixels = rng.integers(0, 120, (n, 1, 8, 8))
    pixels[labels == 1, :, :4] += 100
    pixels[labels == 0, :, 4:] += 100
    return pixels.astype(np.uint8), labels


def settings_of(**changes: object) -> Training:
    return Training(
        **{"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "crop_padding": 0, "horizontal_flip": False, **changes}
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["one-cycle", "step"])
def test_the_loop_equals_a_plain_one_step_by_step(optimizer: str, schedule: str) -> None:
    pixels, labels = blobs(80)
    settings = settings_of(optimizer=optimizer, schedule=schedule, epochs=4)
    ours = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
    history = train_network(ours, pixels, labels, settings, seed=9)

    plain = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1).network.train()
    images = (torch.from_numpy(pixels).float() - pixels.mean()) / pixels.std()
    make = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    }
    steps = make[optimizer](plain.parameters())
    total = 4 * 5
    if schedule == "one-cycle":
        rate = torch.optim.lr_scheduler.OneCycleLR(steps, 0.01, total_steps=total + 1, cycle_momentum=False)
    else:
        rate = torch.optim.lr_scheduler.MultiStepLR(steps, [10, 15], 0.1)
    for epoch in range(4):
        order = torch.randperm(80, generator=torch.Generator().manual_seed(derive_seed(9, "epoch", epoch)))
        losses = []
        for step in range(5):
            chosen = order[step * 16 : (step + 1) * 16]
            loss = F.cross_entropy(plain(images[chosen]), torch.from_numpy(labels)[chosen])
            steps.zero_grad()
            loss.backward()
            steps.step()
            rate.step()
            losses.append(loss.item())
        assert history[epoch].loss == pytest.approx(np.mean(losses), abs=1e-4)


def test_each_of_twenty_steps_with_channels_last_and_augmentation_equals_a_plain_one() -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 200, (64, 3, 16, 16), np.uint8), rng.integers(0, 2, 64)
    pixels[labels == 1, :, :8] += 50
    settings = Training(epochs=20, batch_size=64, crop_padding=2, optimizer="sgd", learning_rate=0.02)
    # an epoch is a step, and tells its loss
    ours = make_network("resnet", {"depth": 14, "base_filters": 8}, 10, (3, 16, 16), seed=1)
    assert choose_computation(ours).memory_format == "channels_last"
    history = train_network(ours, pixels, labels, settings, seed=9)

    plain = make_network("resnet", {"depth": 14, "base_filters": 8}, 10, (3, 16, 16), seed=1).network.train()
    mean, deviation = (held.reshape(3, 1, 1) for held in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=21, cycle_momentum=False)
    losses = []
    for epoch in range(20):
        generator = torch.Generator().manual_seed(derive_seed(9, "epoch", epoch))
        chosen = torch.randperm(64, generator=generator).tolist()
        offsets = torch.randint(5, (2, 64), generator=generator).tolist()
        mirrored = (torch.rand(64, generator=generator) < 0.5).tolist()
        batch = []
        for number, above, left, is_mirrored in zip(chosen, *offsets, mirrored, strict=True):
            image = np.pad(pixels[number], ((0, 0), (2, 2), (2, 2)))[:, above : above + 16, left : left + 16]
            batch.append(((image[:, :, ::-1] if is_mirrored else image) - mean) / deviation)
        optimizer.zero_grad()
        loss = F.cross_entropy(
            plain(torch.from_numpy(np.stack(batch).astype(np.float32))), torch.from_numpy(labels[chosen])
        )
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert [epoch.loss for epoch in history] == pytest.approx(losses, abs=1e-4)
    assert losses[-1] < 0.5 * losses[0]


def test_it_learns_probabilities_as_it_learns_labels_that_are_certain_and_no_label_where_all_are_alike() -> None:
    pixels, labels = blobs(80)
    certain, alike = np.eye(2, dtype=np.float32)[labels], np.full((80, 2), 0.5, np.float32)
    losses, networks = {}, {}
    for name, targets in (("labels", labels), ("certain", certain), ("alike", alike)):
        networks[name] = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
        losses[name] = [each.loss for each in train_network(networks[name], pixels, targets, settings_of(), seed=9)]
    assert losses["certain"] == pytest.approx(losses["labels"], rel=1e-4)
    assert losses["labels"][-1] < 0.4
    with torch.no_grad():
        logits = networks["alike"](torch.from_numpy(pixels))
    assert (logits[:, 0] - logits[:, 1]).abs().mean() < 0.5  # it has learnt that nobody can tell
    assert losses["alike"][-1] >= np.log(2) - 1e-6  # the least that there is


def test_training_learns_and_is_the_same_twice() -> None:
    pixels, labels = blobs(200)
    predictions = []
    for _ in range(2):
        network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
        history = train_network(network, pixels, labels, settings_of(crop_padding=1, epochs=6), seed=2)
        predictions.append(predict_labels(network, blobs(300, seed=5)[0]))
        assert history[-1].loss < 0.5 * history[0].loss
    assert (predictions[0] == predictions[1]).all()
    assert (predictions[0] == blobs(300, seed=5)[1]).mean() > 0.95


def test_another_seed_gives_other_weights_and_another_order() -> None:
    a, b = (make_network("resnet", SMALL, 2, (1, 8, 8), seed=seed).state_dict() for seed in (1, 2))
    assert not torch.equal(a["network.stem.0.weight"], b["network.stem.0.weight"])


def test_building_a_network_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_an_infinite_loss_stops_and_says_what_to_change() -> None:
    pixels, labels = blobs(64)
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
    torch.nn.init.constant_(network.network.classifier.weight, float("inf"))
    settings = settings_of(learning_rate=100.0, optimizer="sgd")
    with pytest.raises(DivergedError, match=r"probe x: the training loss must stay finite.*learning_rate \(now 100\)"):
        train_network(network, pixels, labels, settings, seed=1, name="probe x")


def one_batch(pixels: np.ndarray, settings: Training) -> tuple[torch.Tensor, torch.Tensor]:
    draws = draw_epoch(len(pixels), len(pixels), 1, settings, torch.Generator().manual_seed(0), "cpu")
    return draws[0][0], cut_batch(pad_images(pixels, settings, "cpu"), settings, *(draw[0] for draw in draws))


def test_each_sample_gets_its_own_window_and_flip() -> None:
    image = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)
    padded = F.pad(image, (1, 1, 1, 1))[0, 0]
    windows = [padded[y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    possible = {tuple(w.flatten().tolist()) for w in windows} | {tuple(w.flip(1).flatten().tolist()) for w in windows}
    settings = settings_of(crop_padding=1, horizontal_flip=True)
    _, batch = one_batch(image.repeat(400, 1, 1, 1).numpy(), settings)
    assert batch.shape == (400, 1, 4, 4)
    assert {tuple(sample.flatten().tolist()) for sample in batch} == possible


def test_without_augmentation_samples_are_untouched() -> None:
    pixels = torch.from_numpy(blobs(10)[0])
    chosen, batch = one_batch(pixels.numpy(), settings_of())
    assert torch.equal(batch, pixels[chosen])


@pytest.mark.parametrize(
    ("n_channels", "height", "width", "padding"), [(3, 32, 32, 4), (1, 8, 8, 1), (3, 6, 10, 2), (2, 5, 4, 0)]
)
def test_windows_are_those_that_indexing_gives(n_channels: int, height: int, width: int, padding: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, n_channels, height, width), np.uint8)
    settings = settings_of(crop_padding=padding, horizontal_flip=True)
    chosen, offsets, mirrored = (draw[1] for draw in draw_epoch(30, 12, 2, settings, torch.Generator(), "cpu"))
    batch = cut_batch(pad_images(pixels, settings, "cpu"), settings, chosen, offsets, mirrored)
    for image, number, above, left, is_mirrored in zip(batch, chosen, *offsets, mirrored, strict=True):
        padded = np.pad(pixels[number], ((0, 0), (padding, padding), (padding, padding)))
        window = padded[:, above : above + height, left : left + width]
        assert (image.numpy() == (window[:, :, ::-1] if is_mirrored else window)).all()


def test_normalisation_is_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 3, 5, 5)).astype(np.uint8)
    pixels[:, 1] = 7
    network = make_network("resnet", SMALL, 2, (3, 5, 5), seed=1)
    network.fit_normalisation(pixels)
    np.testing.assert_allclose(network.mean.flatten(), pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(network.deviation.flatten()[[0, 2]], pixels.std(axis=(0, 2, 3))[[0, 2]], rtol=1e-6)
    assert network.deviation.flatten()[1] == 1  # a constant channel is not blown up


@pytest.mark.parametrize(
    ("base_filters", "n_channels", "expected"),
    [
        (4, 3, "contiguous"),
        (12, 3, "contiguous"),
        (8, 3, "channels_last"),
        (8, 1, "contiguous"),
    ],
)
def test_the_memory_format_follows_from_the_shape_alone(base_filters: int, n_channels: int, expected: str) -> None:
    network = make_network("resnet", {**SMALL, "base_filters": base_filters}, 2, (n_channels, 8, 8), seed=1)
    assert choose_computation(network).memory_format == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "schedule": "step", "learning_rate": 0.05}])
def test_a_gpu_learns_what_the_cpu_learns_and_the_same_twice(changes: dict[str, object]) -> None:
    pixels, labels = blobs(200)
    trained = []
    for _ in range(2):
        network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
        history = train_network(
            network, pixels, labels, settings_of(epochs=6, crop_padding=1, **changes), seed=2, device="cuda"
        )
        assert all(epoch.loss > 0 for epoch in history)  # steps of the recording count too
        assert history[-1].loss < 0.5 * history[0].loss
        held_out = blobs(300, seed=5)
        assert (predict_labels(network, held_out[0], "cuda") == held_out[1]).mean() > 0.95
        trained.append({name: held.cpu() for name, held in network.state_dict().items()})
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


class Waiting(torch.nn.Module):
    """Cannot be recorded: its forward pass waits for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1)) * (1.0 if x.mean().item() < 1e9 else 0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_network_that_cannot_be_recorded_is_trained_all_the_same() -> None:
    pixels, labels = blobs(200)
    history = train_network(PixelNetwork(Waiting(), 1), pixels, labels, settings_of(epochs=4), seed=2, device="cuda")
    assert history[-1].loss < history[0].loss
