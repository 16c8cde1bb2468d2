"""What networks compute in: `training.precision`, on processors with and without instructions for bfloat16."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from proxyds.errors import DeviceError, DivergedError
from proxyds.recipe.models import Training
from proxyds.training import numerics
from proxyds.training.inference import extract_features, measure_network, predict_labels, prepare_network
from proxyds.training.loop import train_network
from proxyds.training.model import PixelNetwork, make_network
from proxyds.training.numerics import choose_computation, has_bfloat16

RESNET = {"depth": 8, "base_filters": 16, "kernel_size": 3, "multiplier": 2}
IMAGE = (3, 16, 16)
N_LABELS = 4
needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16("cpu"), reason="this processor has no instructions for bfloat16 (avx512_bf16, amx_bf16 or ARM's)"
)


pytestmark = pytest.mark.usefixtures("one_thread")


def quarters(n: int = 640) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brighter quarter tells the label, and labels of which a fifth is wrong, so that no loss comes near 0."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, N_LABELS, n)
    pixels = rng.integers(0, 200, (n, *IMAGE))
    for label in range(N_LABELS):
        above, left = 8 * (label // 2), 8 * (label % 2)
        pixels[labels == label, :, above : above + 8, left : left + 8] += 50
    wrong = rng.random(n) < 0.2
    labels[wrong] = rng.integers(0, N_LABELS, wrong.sum())
    return pixels.astype(np.uint8), labels


def train(precision: str, **changes: object) -> tuple[PixelNetwork, list[float]]:
    """Trains for 50 steps; returns the network and the mean loss of every ten."""
    settings = Training(
        **{"epochs": 5, "batch_size": 64, "learning_rate": 0.003, "crop_padding": 2, "precision": precision, **changes}
    )
    network = make_network("resnet", RESNET, N_LABELS, IMAGE, seed=1)
    return network, [epoch.loss for epoch in train_network(network, *quarters(), settings, seed=2)]


@needs_bfloat16
def test_losses_of_fifty_steps_in_bfloat16_stay_within_2_percent_of_those_in_float32() -> None:
    network, losses = train("bfloat16")
    exact, expected = train("float32")
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses != expected
    assert losses[-1] < 0.8 * losses[0]
    assert all(tensor.dtype == torch.float32 for tensor in network.parameters())
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in network.buffers())
    assert any((a != b).any() for a, b in zip(network.parameters(), exact.parameters(), strict=True))


@needs_bfloat16
def test_training_in_bfloat16_is_the_same_twice() -> None:
    (network, losses), (again, same) = train("bfloat16"), train("bfloat16")
    assert losses == same
    assert all((a == b).all() for a, b in zip(network.parameters(), again.parameters(), strict=True))


@needs_bfloat16
def test_inference_follows_where_bfloat16_is_asked_for() -> None:
    network, _ = train("float32")
    pixels, labels = quarters()
    exact, loss_of_exact = measure_network(prepare_network(network, pixels), pixels, labels)
    accuracy, loss = measure_network(prepare_network(network, pixels, precision="bfloat16"), pixels, labels)
    assert loss != loss_of_exact
    assert accuracy == pytest.approx(exact, abs=0.02)
    assert (predict_labels(network, pixels, precision="bfloat16") == predict_labels(network, pixels)).mean() > 0.97
    features = extract_features(network, "pool", pixels[:64], precision="bfloat16")
    expected = extract_features(network, "pool", pixels[:64])
    assert features.dtype == np.float32
    assert 0 < np.abs(features - expected).max() < 0.05 * np.abs(expected).max()


@needs_bfloat16
def test_an_infinite_loss_in_bfloat16_stops_as_ever() -> None:
    with pytest.raises(DivergedError):
        train("bfloat16", optimizer="sgd", learning_rate=100, weight_decay=1)


def test_auto_is_float32_on_a_cpu_whatever_it_has() -> None:
    network = make_network("resnet", RESNET, N_LABELS, IMAGE, seed=1)
    assert choose_computation(network).precision == choose_computation(network, "cpu", "auto").precision == "float32"
    (first, losses), (second, same) = train("auto"), train("float32")
    assert losses == same
    assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_what_bfloat16_computes_is_seen_on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps, emulated where the processor has no instructions: autocast is on, and weights stay float32."""
    monkeypatch.setattr(numerics, "has_bfloat16", lambda device: True)
    seen = []
    network = make_network("resnet", RESNET, N_LABELS, IMAGE, seed=1)
    network.network.stem[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    settings = Training(epochs=2, batch_size=16, crop_padding=2, precision="bfloat16")
    pixels, labels = quarters(16)
    (_, last) = train_network(network, pixels, labels, settings, seed=2)
    assert seen == [torch.bfloat16] * 2
    assert all(weight.dtype == weight.grad.dtype == torch.float32 for weight in network.parameters())
    assert last.loss == pytest.approx(
        train_network(
            make_network("resnet", RESNET, N_LABELS, IMAGE, seed=1),
            pixels,
            labels,
            settings.model_copy(update={"precision": "float32"}),
            seed=2,
        )[1].loss,
        rel=0.05,
    )


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [
        ({"avx2": True, "avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
        (None, False),
    ],
)
def test_bfloat16_is_refused_with_the_reason_where_it_would_be_emulated(
    capabilities: dict[str, bool] | None, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = SimpleNamespace() if capabilities is None else SimpleNamespace(get_capabilities=lambda: capabilities)
    monkeypatch.setattr(torch, "cpu", cpu)
    assert has_bfloat16("cpu") == has
    network = make_network("resnet", RESNET, N_LABELS, IMAGE, seed=1)
    if has:
        assert choose_computation(network, "cpu", "bfloat16").precision == "bfloat16"
    else:
        with pytest.raises(DeviceError, match=r"training\.precision.*(avx512_bf16|too old)"):
            choose_computation(network, "cpu", "bfloat16")
    assert choose_computation(network, "cpu", "float32").precision == "float32"
