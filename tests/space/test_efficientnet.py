"""EfficientNet-B0 of the paper's section 4: torchvision's network by default, the paper's widths to the channel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import efficientnet_b0
from torchvision.models.efficientnet import MBConv

from proxyds.recipe.presets import preset_text
from proxyds.recipe.yaml import read_recipe
from proxyds.space.cost import measure_cost
from proxyds.space.listing import list_architectures
from proxyds.space.networks.build import build_network

R = {1: [1, 2, 2, 2, 2, 3, 1], 2: [1, 2, 2, 3, 3, 4, 1]}
K = {1: [3, 3, 3, 3, 3, 3, 3], 2: [3, 3, 5, 3, 5, 5, 3]}
F = {1: [18, 16, 16, 24, 48, 68, 116], 2: [24, 16, 20, 32, 64, 90, 152], 3: [32, 16, 24, 40, 80, 112, 192]}
"""As printed in section 4."""


def build(n_labels: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32), **parameters: Any) -> Any:
    with torch.device("meta"):
        return build_network("efficientnet", parameters, n_labels, image_shape)


def blocks(network: nn.Module) -> list[list[MBConv]]:
    return [list(stage) for stage in network.features[1:8]]


def depthwise(block: MBConv) -> nn.Conv2d:
    return next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)


@pytest.mark.parametrize("n_labels", [10, 1000])
def test_the_default_is_torchvisions_b0_weight_by_weight(n_labels: int) -> None:
    with torch.device("meta"):
        theirs = efficientnet_b0(weights=None, num_classes=n_labels)
    ours = build(n_labels)
    assert {name: weight.shape for name, weight in ours.state_dict().items()} == {
        name: weight.shape for name, weight in theirs.state_dict().items()
    }
    n_parameters = sum(weight.numel() for weight in ours.parameters())
    assert n_parameters == {10: 4_020_358, 1000: 5_288_548}[n_labels]
    assert str(ours) == str(theirs)  # strides, paddings, dropout, depth of the paths


def test_the_default_computes_what_torchvisions_does() -> None:
    ours = build_network("efficientnet", {}, 10, (3, 32, 32)).eval()
    theirs = efficientnet_b0(weights=None, num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("setting", F)
def test_the_papers_filters_are_not_rounded(setting: int) -> None:
    network = build(filters=F[setting])
    assert network.features[0][0].out_channels == F[setting][0]
    entering = [stage[0].block[0][0].in_channels for stage in blocks(network)]
    assert entering == F[setting]
    leaving = [stage[-1].block[-1][0].out_channels for stage in blocks(network)]
    assert leaving == [*F[setting][1:], 320]
    assert network.features[8][0].out_channels == network.classifier[1].in_features == 1280


@pytest.mark.parametrize("r", R)
@pytest.mark.parametrize("k", K)
def test_repeats_and_kernel_sizes_are_those_of_each_stage(r: int, k: int) -> None:
    stages = blocks(build(repeats=R[r], kernel_sizes=K[k]))
    assert [len(stage) for stage in stages] == R[r]
    assert [{depthwise(block).kernel_size[0] for block in stage} for stage in stages] == [{size} for size in K[k]]


@pytest.mark.parametrize(("small_stem", "side"), [(False, 16), (True, 32)])
def test_a_small_stem_keeps_the_images_side(small_stem: bool, side: int) -> None:
    network = build_network("efficientnet", {"small_stem": small_stem, "width": 0.25}, 10, (3, 32, 32))
    assert network.features[0](torch.randn(2, 3, 32, 32)).shape[-2:] == (side, side)


def test_all_widths_scale_together() -> None:
    network = build(width=0.25)
    assert [stage[0].block[0][0].in_channels for stage in blocks(network)] == [8, 4, 6, 10, 20, 28, 48]
    assert network.classifier[1].in_features == 320


def test_operations_are_counted_once_for_depthwise_convolutions_too() -> None:
    measured = measure_cost("b0", "efficientnet", {}, 10, (3, 32, 32))
    # backward costs twice the forward pass, but for the gradient of the images themselves
    stem = 2 * 16 * 16 * 9 * 3 * 32
    assert measured.training_flops == 3 * measured.forward_flops - stem
    # by hand, the first block alone: depthwise 3x3, squeeze and excitation over 8 channels, 1x1 to 16
    with torch.device("meta"):
        block = build_network("efficientnet", {}, 10, (3, 32, 32)).features[1]
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted, torch.device("meta"):
        block(torch.zeros(1, 32, 16, 16))
    assert counted.get_total_flops() == 2 * (16 * 16 * 9 * 32 + 2 * 32 * 8 + 16 * 16 * 32 * 16)


@pytest.mark.parametrize("preset", ["cifar10-efficientnet-b0", "cifar10-efficientnet-b0-small"])
def test_the_recipes_hold_the_papers_twelve(preset: str, tmp_path: Any) -> None:
    (tmp_path / "r.yaml").write_text(preset_text(preset))
    space = read_recipe(tmp_path / "r.yaml").space
    listed = list_architectures(space, 10, (3, 20, 20))
    settings = {(str(p["repeats"]), str(p["kernel_sizes"]), str(p["filters"])) for p in (a.parameters for a in listed)}
    assert settings == {(str(r), str(k), str(f)) for r in R.values() for k in K.values() for f in F.values()}
    assert len({each.name for each in listed}) == 12
