"""Trained networks asked: the same answers as from the network as it is, saved or not, folded or not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from proxyds.recipe.models import Training
from proxyds.selection.records import MEASURES
from proxyds.training.inference import (
    extract_features,
    fold_batch_norms,
    measure_answers,
    measure_network,
    predict_labels,
    prepare_network,
)
from proxyds.training.loop import train_network
from proxyds.training.model import PixelNetwork, load_network, make_network, save_network

SMALL = {"depth": 8, "base_filters": 4, "kernel_size": 3, "multiplier": 1}


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), np.uint8)


def test_saved_networks_give_the_same_features(tmp_path: Path) -> None:
    pixels, labels = images(300), np.arange(300) % 2
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
    train_network(network, pixels, labels, Training(epochs=1, batch_size=64, crop_padding=1), seed=2)
    save_network(network, tmp_path / "w.safetensors", 2, (1, 8, 8))
    again = load_network(tmp_path / "w.safetensors", "resnet", SMALL)
    features = extract_features(network, "pool", pixels)
    assert features.shape == (300, 4)
    assert (features == extract_features(again, "pool", pixels)).all()


def test_features_of_a_spatial_layer_are_its_means_over_positions() -> None:
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1).eval()
    pixels = images(5)
    features = extract_features(network, "stages.1", pixels)
    taken = []
    network.network.stages[1].register_forward_hook(lambda module, inputs, output: taken.append(output.mean((2, 3))))
    network(torch.from_numpy(pixels))
    np.testing.assert_allclose(features, taken[0].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_answers_are_measured_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """For distributions (0.7, 0.2, 0.1) and (1/3, 1/3, 1/3), of which label 0 and label 2 are true."""
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]]))
    batches = [(logits, logits[:, :0])] * 2
    monkeypatch.setattr("proxyds.training.inference.CPU_BATCH", 2)
    on_cpu = SimpleNamespace(computation=SimpleNamespace(device="cpu"))
    monkeypatch.setattr("proxyds.training.inference.prepare_network", lambda *_: on_cpu)
    monkeypatch.setattr("proxyds.training.inference._run", lambda *_: iter(batches))
    measured = dict(zip(MEASURES, measure_answers(None, images(4), np.array([0, 2, 1, 0])), strict=True))  # type: ignore[arg-type]
    np.testing.assert_allclose(measured["loss"], [0.35667, 1.09861, 1.60944, 1.09861], atol=1e-4)
    np.testing.assert_allclose(measured["entropy"], [0.80182, 1.09861, 0.80182, 1.09861], atol=1e-4)
    thirds = np.sqrt(4 / 9 + 1 / 9 + 1 / 9)
    np.testing.assert_allclose(
        measured["el2n"], [np.sqrt(0.09 + 0.04 + 0.01), thirds, np.sqrt(0.49 + 0.64 + 0.01), thirds], atol=1e-4
    )
    np.testing.assert_allclose(measured["margin"], [0.5, 0, -0.5, 0], atol=1e-6)


def test_answers_agree_with_the_labels_that_a_network_gives() -> None:
    pixels, labels = images(150), np.arange(150) % 2
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
    train_network(network, pixels, labels, Training(epochs=1, batch_size=50, crop_padding=1), seed=2)
    loss, _, el2n, margin = measure_answers(network, pixels, labels)
    right = predict_labels(network, pixels) == labels
    prepared = prepare_network(network, pixels)
    assert measure_network(prepared, pixels, labels) == (right.mean(), pytest.approx(loss.mean(), abs=1e-6))
    assert 0 < right.sum() < 150
    assert ((margin > 0) == right).all()
    assert ((loss < np.log(2)) == right).all()  # of two labels
    np.testing.assert_allclose(el2n, np.sqrt(2) * (1 - np.exp(-loss)), atol=1e-5)


def trained(network: torch.nn.Module, image_shape: tuple[int, int, int]) -> torch.nn.Module:
    """Gives batch norms statistics and weights that are not those of a new network."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randint(0, 255, (16, *image_shape)).float())
    return network.eval()


def count_norms(network: torch.nn.Module) -> int:
    return sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("family", "parameters", "n_left"),
    [
        ("resnet", {"depth": 14, "base_filters": 8}, 0),
        ("efficientnet", {"width": 0.25, "small_stem": True}, 0),
        ("torchvision", {"model": "resnet18", "small_stem": True}, 0),
        ("torchvision", {"model": "densenet121"}, 62),  # most of its norms come before a convolution
        ("timm", {"model": "resnet10t"}, 0),
        (
            "nasbench201",
            {"cell": "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"},
            1,  # the last, behind a sum
        ),
    ],
)
def test_folding_batch_norms_changes_no_output(family: str, parameters: dict[str, Any], n_left: int) -> None:
    image_shape = (3, 32, 32)
    network = make_network(family, parameters, 10, image_shape, seed=1)
    trained(network.network, image_shape)
    pixels = torch.randint(0, 256, (8, *image_shape), dtype=torch.uint8)
    folded = fold_batch_norms(network)
    assert count_norms(folded) == n_left
    assert count_norms(network) > n_left  # which stays what it was
    with torch.inference_mode():
        expected = network(pixels)
        torch.testing.assert_close(folded(pixels), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


class Odd(torch.nn.Module):
    """Every way in which a batch norm behind a convolution may not be folded, and one in which it may."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.nn.Conv2d(1, 4, 1)  # somebody else reads it
        self.seen_norm = torch.nn.BatchNorm2d(4)
        self.twice = torch.nn.Conv2d(4, 4, 1)
        self.twice_norm = torch.nn.BatchNorm2d(4)
        self.named = self.also_named = torch.nn.Conv2d(4, 4, 1)
        self.named_norm = torch.nn.BatchNorm2d(4)
        self.whole = torch.nn.Conv2d(4, 4, 1)
        self.whole_norm = torch.nn.BatchNorm2d(4, track_running_stats=False)
        self.own = torch.nn.Conv2d(4, 4, 1)
        self.own_norm = torch.nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.seen(x)
        x = self.seen_norm(seen) + seen
        x = self.twice_norm(self.twice(x)) + self.twice(x)
        x = self.named_norm(self.also_named(x))
        x = self.whole_norm(self.whole(x))
        return self.own_norm(self.own(x)).mean((2, 3))


class Branching(torch.nn.Module):
    """Cannot be traced: what it does depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(x)
        return (x if x.sum() > 0 else -x).mean((2, 3))


@pytest.mark.parametrize(("kind", "n_folded"), [(Odd, 1), (Branching, 0)])
def test_only_what_may_be_folded_is(kind: type[torch.nn.Module], n_folded: int) -> None:
    torch.manual_seed(0)
    network = PixelNetwork(trained(kind(), (1, 8, 8)), 1)
    folded = fold_batch_norms(network)
    n_norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules()) == n_norms - n_folded
    pixels = torch.from_numpy(images(6))
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), network(pixels), rtol=1e-4, atol=1e-4)


class Using(torch.nn.Module):
    """Uses its convolution's weight beside it: folding would change what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = torch.nn.functional.conv2d(x, self.convolution.weight, padding=1)
        return (self.norm(self.convolution(x)) + beside).mean((2, 3))


class Asking(Using):
    """Asks its norm how wide it is: folded, there would be none to ask."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(x)).mean((2, 3)) * self.norm.num_features


class Keyword(Using):
    """Calls its norm by keyword."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(input=self.convolution(x)).mean((2, 3))


class Hooked(Using):
    """Has a hook that changes what the convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution.register_forward_hook(lambda module, inputs, output: 2 * output)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(x)).mean((2, 3))


@pytest.mark.parametrize("kind", [Using, Asking, Keyword, Hooked, Odd, Branching])
def test_labels_and_features_of_odd_networks_are_their_own(kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    network = PixelNetwork(trained(kind(), (1, 8, 8)), 1).eval()
    pixels = images(70)  # two batches
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels))
    assert (predict_labels(network, pixels) == expected.argmax(1).numpy()).mean() > 0.95  # ties aside
    if issubclass(kind, Using):
        taken: list[torch.Tensor] = []
        handle = network.network.norm.register_forward_hook(
            lambda module, inputs, output: taken.append(output.mean((2, 3)))
        )
        with torch.inference_mode():
            network(torch.from_numpy(pixels))
        handle.remove()
        np.testing.assert_allclose(extract_features(network, "norm", pixels), taken[0], rtol=1e-3, atol=1e-3)


def test_features_between_a_convolution_and_its_norm_are_the_convolutions() -> None:
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
    trained(network.network, (1, 8, 8))
    pixels = images(5)
    for layer in ("stem.0", "stem.1", "stem", "stages.1.0.conv2", "stages.1.0.norm2"):
        taken = []
        handle = network.network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, taken=taken: taken.append(output.detach().mean((2, 3)))
        )
        network(torch.from_numpy(pixels))
        handle.remove()
        np.testing.assert_allclose(extract_features(network, layer, pixels), taken[0], rtol=1e-4, atol=1e-4)


def test_layers_that_share_weights_are_kept_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tied(*_: object) -> torch.nn.Module:
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
        network[2].weight = network[1].weight
        return network

    monkeypatch.setattr("proxyds.training.model.build_network", tied)
    network = make_network("tied", {}, 64, (1, 8, 8), seed=1)
    save_network(network, tmp_path / "weights.safetensors", 64, (1, 8, 8))
    again = load_network(tmp_path / "weights.safetensors", "tied", {})
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_a_layer_that_is_used_twice_gives_its_last_output() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.flatten = torch.nn.ReLU(), torch.nn.Flatten()
            self.one, self.two = torch.nn.Linear(64, 8), torch.nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.act(self.one(self.act(self.flatten(x)))))

    network = PixelNetwork(Twice(), 1).eval()
    pixels = images(300)
    features = extract_features(network, "act", pixels)
    assert features.shape == (300, 8)
    hidden = network.network.one(network.network.flatten(torch.from_numpy(pixels).float()))
    np.testing.assert_allclose(features, torch.relu(hidden).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_a_network_is_prepared_once_for_all_that_it_is_measured_on() -> None:
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1).eval()
    prepared = prepare_network(network, images(150))
    for n in (150, 70):
        labels = np.arange(n) % 2
        alone = measure_network(prepare_network(network, images(n)), images(n), labels)
        assert measure_network(prepared, images(n), labels) == alone


def test_a_batch_norm_that_normalises_by_the_batch_is_not_folded() -> None:
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1).eval()
    norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm.train()
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in fold_batch_norms(network).modules()) == 1


def test_images_too_large_for_a_batch_of_those_that_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network("resnet", {"depth": 8, "base_filters": 2}, 3, (3, 8, 8), seed=0).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), np.uint8)
    whole = predict_labels(network, pixels)
    monkeypatch.setattr("proxyds.training.inference._batch_size", lambda device, pixels: 5)
    assert np.array_equal(predict_labels(network, pixels), whole)
