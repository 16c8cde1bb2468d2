"""Every registered family keeps the contract; the ResNet is the paper's."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from proxyds.errors import RecipeError
from proxyds.recipe.models import Probes, Recipe
from proxyds.selection.probe import choose_probes
from proxyds.selection.similarity import check_layer
from proxyds.space.candidates import make_space
from proxyds.space.cost import _measure, measure_cost
from proxyds.space.listing import list_architectures
from proxyds.space.networks.build import ask_network, build_network
from proxyds.space.networks.families import FAMILIES, HANDED_OVER
from proxyds.training.inference import extract_features, list_layers
from proxyds.training.model import make_network

SHAPES = [(1, 8, 8), (3, 32, 32), (3, 17, 23)]


class HandedOver(torch.nn.Module):
    """A network as a program might have it."""

    def __init__(self, n_labels: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(image_shape[0], 4, 3)
        self.head = torch.nn.Linear(4, n_labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images).relu().mean((2, 3)))
        return logits


def defaults(network: str) -> dict[str, Any]:
    if network == HANDED_OVER:
        (given,) = make_space({"own": HandedOver})["architectures"]
        return dict(given)
    return FAMILIES[network].parameters().model_dump()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("network", FAMILIES)
def test_a_family_maps_images_to_logits_and_learns_from_them(network: str, shape: tuple[int, int, int]) -> None:
    built = build_network(network, defaults(network), 7, shape)
    optimizer = torch.optim.SGD(built.parameters(), lr=1e-3)
    for _ in range(2):  # a weight of zero, such as of timm's last norm in a block, lets gradients through a step later
        logits = built(torch.randn(4, *shape))
        assert logits.shape == (4, 7)
        logits.square().sum().backward()
        optimizer.step()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in built.parameters())


class NormalisedFirst(HandedOver):
    """Gradients of its convolution reach the weights of a batch norm before it."""

    def __init__(self, n_labels: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__(n_labels, image_shape)
        self.body = torch.nn.Sequential(torch.nn.BatchNorm2d(image_shape[0]), self.body)


class WritesInPlace(HandedOver):
    """Writes into what an activation gave."""

    def __init__(self, n_labels: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__(n_labels, image_shape)
        self.body = torch.nn.Sequential(self.body, InPlace())


class InPlace(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.silu(x)
        y *= torch.sigmoid(x)
        return y


@pytest.mark.parametrize("network", [*FAMILIES, NormalisedFirst, WritesInPlace])
def test_what_is_left_out_of_counting_costs_no_flops(
    network: str | type[HandedOver], monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(network, str):
        about: tuple[str, dict[str, Any]] = network, defaults(network)
    else:
        (given,) = make_space({"own": network})["architectures"]
        about = HANDED_OVER, dict(given)
    monkeypatch.setattr("proxyds.space.networks.build.build_network", forbid_values)
    counted = _measure("one", *about, 7, (3, 32, 32))
    monkeypatch.setattr("proxyds.space.cost._OnlyCounted", nullcontext)
    assert _measure("one", *about, 7, (3, 32, 32)) == counted


def forbid_values(*about: Any) -> torch.nn.Module:
    """Builds on the meta device alone, where large networks take no memory."""
    assert torch.empty(0).is_meta
    return build_network(*about)


class Mismatched(torch.nn.Module):
    """Normalises more channels than there are."""

    def __init__(self, n_labels: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(image_shape[0], 4, 3), torch.nn.BatchNorm2d(8))
        self.head = torch.nn.Linear(4, n_labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images).mean((2, 3)))
        return logits


def test_a_batch_norm_that_does_not_fit_is_found_by_counting() -> None:
    (given,) = make_space({"own": Mismatched})["architectures"]
    with pytest.raises(RecipeError, match=r"own'? must work on images of 3x32x32"):
        measure_cost("own", HANDED_OVER, dict(given), 7, (3, 32, 32))


def test_a_network_of_this_package_is_counted_once_and_its_parameters_are_the_callers() -> None:
    parameters = defaults("resnet")
    first, second = (measure_cost(f"one {i}", "resnet", dict(parameters), 7, (3, 9, 9)) for i in (0, 0))
    first.parameters["depth"] = 0
    assert second.parameters == parameters


@pytest.mark.parametrize("network", FAMILIES)
def test_a_family_has_its_feature_layer_defaults_and_descriptions(network: str) -> None:
    family, shape = FAMILIES[network], (3, 16, 16)
    layer = check_layer(measure_cost(network, network, defaults(network), 2, shape), None, 2, shape)
    assert layer in ask_network(network, defaults(network), 2, shape, list_layers)
    assert family.feature_layer in (layer, None)
    built = make_network(network, defaults(network), 2, shape, seed=0).eval()
    last = [module for module in built.modules() if isinstance(module, torch.nn.Linear)][-1]
    features = extract_features(built, layer, np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8))
    assert features.shape == (5, last.in_features)
    assert family.summary
    for field in family.parameters.model_fields.values():
        assert field.description
        assert field.default is not None


@pytest.mark.parametrize("network", FAMILIES)
def test_a_familys_initial_weights_come_from_torchs_generator(network: str) -> None:
    def weights() -> list[torch.Tensor]:
        torch.manual_seed(3)
        return list(build_network(network, defaults(network), 3, (3, 16, 16)).parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


@pytest.mark.parametrize("network", FAMILIES)
def test_a_family_refuses_a_parameter_it_does_not_take(network: str) -> None:
    with pytest.raises(RecipeError, match="colour"):
        build_network(network, {"colour": 3}, 3, (3, 16, 16))


def test_resnet_20_is_he_et_als() -> None:
    architecture = measure_cost(
        "r20", "resnet", {"depth": 20, "base_filters": 16, "kernel_size": 3, "multiplier": 2}, 10, (3, 32, 32)
    )
    assert architecture.n_parameters == 269_722
    # by hand: multiply-adds of every convolution and of the classifier, two operations each
    stem = 32 * 32 * 9 * 3 * 16
    first = 32 * 32 * 9 * 16 * 16 * 6
    second = 16 * 16 * 9 * (16 * 32 + 32 * 32 * 5)
    third = 8 * 8 * 9 * (32 * 64 + 64 * 64 * 5)
    forward = 2 * (stem + first + second + third + 64 * 10)
    assert architecture.forward_flops == forward
    assert architecture.training_flops == 3 * forward - 2 * stem  # no gradient for the images themselves


@pytest.mark.parametrize(
    ("parameters", "widths"),
    [
        ({"base_filters": 8, "multiplier": 2}, [8, 16, 32]),
        ({"base_filters": 8, "multiplier": 4}, [8, 32, 128]),
        ({"base_filters": 4, "multiplier": 1}, [4, 4, 4]),
    ],
)
def test_stage_widths_are_b_bm_and_bm2(parameters: dict[str, int], widths: list[int]) -> None:
    built = build_network("resnet", {"depth": 8, "kernel_size": 5, **parameters}, 10, (3, 32, 32))
    assert [stage[0].conv1.out_channels for stage in built.stages] == widths
    assert all(c.kernel_size == (5, 5) for c in built.modules() if isinstance(c, torch.nn.Conv2d))
    assert built.classifier.in_features == widths[-1]


def space_of(choices: str) -> Recipe:
    return Recipe.model_validate_json(f'{{"name": "x", "space": {{"network": "resnet", "choices": {choices}}}}}')


def test_the_papers_space_has_twelve_architectures_and_its_bounds() -> None:
    recipe = space_of('{"depth": 20, "base_filters": [8, 16, 32], "kernel_size": [3, 5], "multiplier": [2, 4]}')
    architectures = list_architectures(recipe.space, 10, (3, 32, 32))
    assert len({architecture.name for architecture in architectures}) == 12
    flops = [architecture.training_flops for architecture in architectures]
    assert flops == sorted(flops)
    lightest, heaviest = choose_probes(architectures, Probes())
    assert lightest.parameters == {"depth": 20, "base_filters": 8, "kernel_size": 3, "multiplier": 2}
    assert heaviest.parameters == {"depth": 20, "base_filters": 32, "kernel_size": 5, "multiplier": 4}
    assert heaviest.training_flops / 1e6 == pytest.approx(17_500, rel=0.01)


def test_more_probes_are_spread_evenly_over_cost_between_the_bounds() -> None:
    architectures = list_architectures(
        space_of('{"depth": [8, 14, 20], "base_filters": [2, 3, 4]}').space, 10, (3, 16, 16)
    )
    chosen = choose_probes(architectures, Probes(count=5))
    assert [architectures.index(architecture) for architecture in chosen] == [0, 2, 4, 6, 8]


def test_a_space_smaller_than_the_number_of_probes_is_refused() -> None:
    architectures = list_architectures(space_of('{"depth": [8, 14]}').space, 10, (3, 16, 16))
    with pytest.raises(RecipeError, match=r"at least probes\.count = 3 architectures, it holds 2"):
        choose_probes(architectures, Probes(count=3))


def test_layers_are_those_that_give_one_tensor() -> None:
    with torch.device("meta"):
        built = build_network("resnet", defaults("resnet"), 2, (3, 16, 16))
    layers = list_layers(built, torch.zeros(2, 3, 16, 16, device="meta"))
    assert {"stem", "stages.0", "stages.1.0.conv1", "stages.2", "pool", "classifier"} <= set(layers)
    assert "stages" not in layers  # a list of modules has no output of its own
