"""Models of torchvision and timm by name: they are the libraries' own, suit small and grey images, and refuse bad input clearly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from proxyds.artifact.reader import verify_proxy
from proxyds.errors import MissingExtraError, RecipeError, UnknownNameError
from proxyds.pipeline.build import build
from proxyds.recipe.models import Training
from proxyds.recipe.yaml import read_recipe, write_recipe
from proxyds.runtime.storage.store import Store
from proxyds.selection.similarity import check_layer
from proxyds.space.architecture import Architecture
from proxyds.space.cost import measure_cost
from proxyds.space.listing import list_architectures
from proxyds.space.networks.build import build_network, describe_origin, sketch_network
from proxyds.training.inference import extract_features, list_layers
from proxyds.training.loop import train_network
from proxyds.training.model import PixelNetwork, make_network

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SMALL_VIT = {"depth": 1, "patch_size": 4}

RECIPE = """\
name: library
source: {kind: digits}
space:
  network: torchvision
  choices:
    model: [shufflenet_v2_x1_0, shufflenet_v2_x0_5]
    small_stem: true
selection: {ratio: 0.1}
training: {epochs: 2, batch_size: 64, learning_rate: 0.02, crop_padding: 0, horizontal_flip: false}
"""


def measure(
    network: str, model: str, shape: tuple[int, int, int] = (3, 32, 32), n_labels: int = 10, **parameters: Any
) -> Architecture:
    return measure_cost(model, network, {"model": model, **parameters}, n_labels, shape)


def pixels(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("network", "model", "arguments", "own"),
    [
        ("torchvision", "shufflenet_v2_x0_5", {}, {}),
        ("torchvision", "squeezenet1_1", {"dropout": 0.1}, {}),
        ("torchvision", "mobilenet_v2", {"width_mult": 0.25}, {}),
        ("torchvision", "regnet_y_400mf", {}, {}),
        ("timm", "resnet10t", {}, {}),
        ("timm", "test_vit", {}, {"img_size": 32}),  # made for another size of image
        ("timm", "vit_tiny_patch16_224", SMALL_VIT, {"img_size": 32}),
    ],
)
def test_a_model_is_the_librarys_own_weight_by_weight(
    network: str, model: str, arguments: dict[str, Any], own: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    built = build_network(network, {"model": model, "arguments": arguments}, 7, (3, 32, 32)).state_dict()
    create = torchvision.models.get_model if network == "torchvision" else timm.create_model
    torch.manual_seed(3)
    library: nn.Module = create(model, num_classes=7, **arguments, **own)
    held = library.state_dict()
    assert list(built) == list(held)
    assert all(torch.equal(built[name], held[name]) for name in held)
    measured = measure(network, model, n_labels=7, arguments=arguments)
    assert measured.n_parameters == sum(weight.numel() for weight in library.parameters())
    assert 0 < measured.forward_flops < measured.training_flops


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (
            "{network: torchvision, choices: {model: mobilenet_v2, arguments: {width_mult: [0.5, 0.25]}}}",
            ["torchvision width_mult=0.25", "torchvision width_mult=0.5"],
        ),
        (
            """
  network: timm
  choices:
    model: vit_tiny_patch16_224
    arguments:
      patch_size: 4
      depth:
        - 2
        - 1""",
            ["timm depth=1", "timm depth=2"],
        ),
        (
            "{network: torchvision, choices: {model: [squeezenet1_0, squeezenet1_1], arguments: {}}}",
            ["squeezenet1_1", "squeezenet1_0"],
        ),
        (
            "{network: timm, choices: {model: test_resnet, arguments: {act_layer: [relu]}, small_stem: [true, false]}}",
            ["timm small_stem=false", "timm small_stem=true"],
        ),
        (
            "{network: timm, architectures: [{model: resnet10t}, {model: test_resnet, small_stem: true}, {model: test_resnet}]}",
            [
                "timm model=test_resnet small_stem=false",
                "timm model=resnet10t small_stem=false",
                "timm model=test_resnet small_stem=true",
            ],
        ),
        (
            """
  network: torchvision
  architectures:
    - {model: squeezenet1_1}
    - {model: mobilenet_v2}
    - {model: mobilenet_v2, arguments: {width_mult: 0.25}}""",
            [
                "torchvision model=mobilenet_v2 width_mult=0.25",
                "squeezenet1_1",
                "mobilenet_v2",
            ],
        ),
    ],
)
def test_models_and_their_arguments_are_choices(
    write_recipe_file: Callable[..., Path], space: str, names: list[str]
) -> None:
    recipe = read_recipe(write_recipe_file(f"name: x\nspace: {space}\n"))
    architectures = list_architectures(recipe.space, 10, (3, 32, 32))
    assert [each.name for each in architectures] == names
    flops = [each.training_flops for each in architectures]
    assert all(light < heavy for light, heavy in pairwise(flops))
    assert read_recipe(write_recipe_file(write_recipe(recipe), "again.yaml")).sha256 == recipe.sha256


def test_arguments_that_differ_little_are_told_apart(write_recipe_file: Callable[..., Path]) -> None:
    choices = "{model: squeezenet1_1, arguments: {dropout: [0.1234567, 0.1234568]}}"
    recipe = read_recipe(write_recipe_file(f"name: x\nspace: {{network: torchvision, choices: {choices}}}\n"))
    names = [each.name for each in list_architectures(recipe.space, 10, (3, 32, 32))]
    assert names == ["torchvision dropout=0.1234567", "torchvision dropout=0.1234568"]


@pytest.mark.parametrize(
    ("network", "model"),
    [
        ("torchvision", "squeezenet1_1"),
        ("torchvision", "convnext_tiny"),
        ("timm", "resnet10t"),
        ("timm", "test_vit"),
    ],
)
def test_grey_images_have_a_first_convolution_of_their_own(network: str, model: str) -> None:
    built = sketch_network(network, {"model": model}, 5, (1, 32, 32))
    first = next(module for module in built.modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == 1
    grey, colour = (measure(network, model, (n_channels, 32, 32)) for n_channels in (1, 3))
    assert colour.n_parameters - grey.n_parameters == 2 * first.weight.numel()
    assert grey.forward_flops < colour.forward_flops


@pytest.mark.parametrize(
    ("network", "model", "after"),
    [
        ("torchvision", "resnet18", "layer1"),
        ("torchvision", "squeezenet1_1", "features.2"),
        ("torchvision", "densenet121", "features.pool0"),
        ("timm", "resnet10t", "layer1"),
        ("timm", "resnet50d", "layer1"),  # three convolutions before its pooling
    ],
)
def test_a_small_stem_leaves_images_their_size(network: str, model: str, after: str) -> None:
    built = sketch_network(network, {"model": model, "small_stem": True}, 10, (3, 32, 32))
    first = next(module for module in built.modules() if isinstance(module, nn.Conv2d))
    assert (first.kernel_size, first.stride, first.padding) == ((3, 3), (1, 1), (1, 1))
    sides: list[int] = []
    built.get_submodule(after).register_forward_hook(lambda module, inputs, output: sides.extend(output.shape[2:]))
    assert list_layers(built, torch.zeros(2, 3, 32, 32, device="meta"))
    assert sides == [32, 32]


def test_the_small_stem_of_resnet18_has_no_pooling() -> None:
    built = sketch_network("torchvision", {"model": "resnet18", "small_stem": True}, 10, (3, 32, 32))
    assert not [module for module in built.modules() if isinstance(module, nn.MaxPool2d)]
    assert built.conv1.bias is None
    small, large = (measure("torchvision", "resnet18", small_stem=is_small) for is_small in (True, False))
    assert large.n_parameters - small.n_parameters == (49 - 9) * 3 * 64


@pytest.mark.parametrize(("network", "model"), [("torchvision", "shufflenet_v2_x0_5"), ("timm", "resnet10t")])
def test_a_model_with_a_small_stem_learns(network: str, model: str) -> None:
    built = make_network(network, {"model": model, "small_stem": True}, 2, (1, 8, 8), seed=0)
    images, labels = pixels(16, 1, 8, 8), np.arange(16) % 2
    settings = Training(epochs=6, batch_size=16, learning_rate=0.01, crop_padding=0, horizontal_flip=False)
    first = next(module for module in built.modules() if isinstance(module, nn.Conv2d))
    before = first.weight.detach().clone()
    epochs = train_network(built, images, labels, settings, seed=0)
    assert epochs[-1].loss < 0.7 * epochs[0].loss
    assert not torch.equal(first.weight, before)


@pytest.mark.parametrize(
    ("network", "model", "said"),
    [
        ("torchvision", "convnext_tiny", "it begins with patches of 4x4 pixels"),
        ("torchvision", "vit_b_32", "it begins with patches of 32x32 pixels"),
        ("timm", "test_vit", "it begins with patches of 16x16 pixels"),
        ("torchvision", "vgg11", "its stem is of stride 1 already; leave small_stem out"),
        ("timm", "dla46_c", "its stem is of stride 1 already; leave small_stem out"),
    ],
)
def test_a_stem_that_cannot_be_smaller_is_refused(network: str, model: str, said: str) -> None:
    with pytest.raises(RecipeError, match=f"^space: {model} cannot have a small_stem, {said}"):
        measure(network, model, small_stem=True)


@pytest.mark.parametrize(
    ("network", "model", "parameters"),
    [
        ("torchvision", "shufflenet_v2_x0_5", {"small_stem": True}),
        ("torchvision", "squeezenet1_1", {}),
        ("timm", "test_resnet", {"small_stem": True}),
        ("timm", "vit_tiny_patch16_224", {"arguments": SMALL_VIT}),
    ],
)
def test_initial_weights_are_the_seeds(network: str, model: str, parameters: dict[str, Any]) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        return make_network(network, {"model": model, **parameters}, 3, (1, 16, 16), seed).state_dict()

    first, again, other = weights(5), weights(5), weights(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    stem = next(name for name, tensor in first.items() if tensor.dim() == 4 and "network" in name)
    assert not torch.equal(first[stem], other[stem])


@pytest.mark.parametrize(
    ("network", "model"),
    [("torchvision", "squeezenet1_1"), ("torchvision", "regnet_y_400mf"), ("timm", "resnet10t"), ("timm", "test_vit")],
)
def test_weights_are_never_fetched(monkeypatch: pytest.MonkeyPatch, network: str, model: str) -> None:
    def fetch(*_: object, **__: object) -> None:
        pytest.fail("weights were asked for")

    for loader in (
        "torch.hub.load_state_dict_from_url",
        "torchvision.models._api.load_state_dict_from_url",
        "timm.models._builder.load_pretrained",
        "socket.socket.connect",
    ):
        monkeypatch.setattr(loader, fetch)
    make_network(network, {"model": model}, 1000, (3, 32, 32), seed=0)  # as many labels as the weights have


@pytest.mark.parametrize(
    ("network", "asked"),
    [
        ("torchvision", "weights: DEFAULT"),
        ("timm", "pretrained: true"),
        ("timm", "checkpoint_path: here.pth"),
        ("timm", "in_chans: 3"),
        ("torchvision", "num_classes: 3"),
    ],
)
@pytest.mark.parametrize("section", ["choices: {%s}", "architectures: [{model: resnet18}, {%s}]"])
def test_arguments_load_nothing_and_leave_labels_and_channels_to_the_source(
    write_recipe_file: Callable[..., Path], network: str, section: str, asked: str
) -> None:
    models = section % f"model: resnet50, arguments: {{{asked}}}"
    path = write_recipe_file(f"name: x\nspace:\n  network: {network}\n  {models}\n")
    name = asked.partition(":")[0]
    with pytest.raises(RecipeError, match=rf"{path}:4:\d+ space\..*\.arguments\.{name}") as error:
        read_recipe(path)
    assert (
        f"must not be among the arguments: labels and channels are the source's, and no weights are ever loaded ({name})"
        in str(error.value)
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("network", "model"),
    [
        ("torchvision", "regnet_y_400mf"),  # its builder computes with tensors
        ("torchvision", "mobilenet_v3_small"),  # dropout
        ("timm", "resnet10t"),
    ],
)
def test_measuring_leaves_torchs_generator_where_it_was(network: str, model: str) -> None:
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    assert measure(network, model).forward_flops > 1e6
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("network", "model", "arguments", "layer", "width"),
    [
        ("timm", "vit_tiny_patch16_224", SMALL_VIT, None, 192),
        ("timm", "vit_tiny_patch16_224", SMALL_VIT, "blocks.0", 192),
        ("torchvision", "vit_b_32", {"image_size": 32}, None, 768),
        ("torchvision", "vit_b_32", {"image_size": 32}, "encoder.layers.encoder_layer_3", 768),
        ("torchvision", "shufflenet_v2_x0_5", {}, None, 1024),
        ("torchvision", "squeezenet1_1", {}, None, 512),  # its head is a convolution
        ("timm", "deit_tiny_distilled_patch16_224", SMALL_VIT, None, 192),  # two heads side by side
        ("timm", "efficientvim_m1", {}, None, 320),  # four of them
    ],
)
def test_features_are_one_vector_an_image(
    network: str, model: str, arguments: dict[str, Any], layer: str | None, width: int
) -> None:
    architecture = measure(network, model, n_labels=7, arguments=arguments)
    layer = check_layer(architecture, layer, 7, (3, 32, 32))
    # weights of any value, for speed: the width is what counts
    built = sketch_network(network, architecture.parameters, 7, (3, 32, 32)).to_empty(device="cpu")
    features = extract_features(PixelNetwork(built, 3).eval(), layer, pixels(5, 3, 32, 32))
    assert features.shape == (5, width)


def test_features_of_tokens_are_their_mean() -> None:
    parameters = {"model": "vit_tiny_patch16_224", "arguments": SMALL_VIT}
    built = make_network("timm", parameters, 3, (1, 16, 16), seed=0).eval()
    features = extract_features(built, "blocks.0", pixels(4, 1, 16, 16))
    tokens: list[torch.Tensor] = []
    built.network.get_submodule("blocks.0").register_forward_hook(
        lambda module, inputs, output: tokens.append(output.detach())
    )
    built(torch.from_numpy(pixels(4, 1, 16, 16)))
    assert tokens[0].shape == (4, 17, 192)  # one more than the patches
    np.testing.assert_allclose(features, tokens[0].numpy().mean(axis=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "parameters", "error", "said"),
    [
        (
            "torchvision",
            {"model": "resnet81"},
            UnknownNameError,
            r"models of torchvision, got 'resnet81'; did you mean `resnet18`\? near: resnet18",
        ),
        ("torchvision", {"model": "fcn_resnet50"}, UnknownNameError, r"models of torchvision, got .* near: .*resnet50"),
        ("torchvision", {"model": ""}, UnknownNameError, r"models of torchvision, got ''; near: alexnet"),
        (
            "timm",
            {"model": "rsnet18"},
            UnknownNameError,
            r"models of timm, got 'rsnet18'; did you mean `resnet18`\? near: resnet18",
        ),
        ("timm", {"model": "hf-hub:timm/resnet18.a1_in1k"}, UnknownNameError, r"models of timm, got 'hf-hub:"),
        (
            "torchvision",
            {"model": "mobilenet_v2", "arguments": {"widht_mult": 0.5}},
            RecipeError,
            r"mobilenet_v2 must be built of its parameters, got .*\{'widht_mult': 0\.5\}.*: .* 'widht_mult'",
        ),
        (
            "torchvision",
            {"model": "mobilenet_v2", "arguments": {"width_mult": "wide"}},
            RecipeError,
            r"must be built of its parameters, got .*\{'width_mult': 'wide'\}",
        ),
        (
            "torchvision",
            {"model": "squeezenet1_1", "arguments": {"dropout": 3}},
            RecipeError,
            r"\{'dropout': 3\}.*: .*dropout probability has to be between 0 and 1",
        ),
        (
            "torchvision",
            {"model": "resnet50", "arguments": {"width_per_group": "a"}},
            RecipeError,
            r"resnet50 must be built of its parameters, got .*\{'width_per_group': 'a'\}",
        ),
        (
            "timm",
            {"model": "test_vit", "arguments": {"dephth": 1}},
            RecipeError,
            r"test_vit must be built of its parameters, got .*\{'dephth': 1\}.*: .* 'dephth'",
        ),
        (
            "timm",
            {"model": "vit_tiny_patch16_224", "arguments": {"num_heads": 5}},
            RecipeError,
            r"\{'num_heads': 5\}.*: .*dim should be divisible by num_heads",
        ),
        (
            "timm",
            {"model": "resnet10t", "arguments": {"act_layer": "loud"}},
            RecipeError,
            r"resnet10t must be built of its parameters, got .*\{'act_layer': 'loud'\}",
        ),
        (
            "torchvision",
            {"model": "resnet50", "arguments": {"width_per_group": -4}},
            RecipeError,
            r"resnet50 must be built of its parameters, got .*\{'width_per_group': -4\}.*: .*negative dimension",
        ),
        (
            "torchvision",
            {"model": "mobilenet_v2", "arguments": {"width_mult": 1e18}},
            RecipeError,
            "mobilenet_v2 must be built of its parameters",
        ),
        (
            "timm",
            {"model": "test_vit", "arguments": {"num_heads": 0}},
            RecipeError,
            "test_vit must be built of its parameters",
        ),
        (
            "timm",
            {"model": "resnet10t", "arguments": {"block": "x"}},
            RecipeError,
            "resnet10t must be built of its parameters",
        ),
        (
            "torchvision",
            {"model": "googlenet"},
            RecipeError,
            r"it gives a torchvision\.GoogLeNetOutputs; .* need aux_logits: false",
        ),
        ("timm", {"model": "resnet10t", "arguments": {"features_only": True}}, RecipeError, "it gives a list"),
        (
            "torchvision",
            {"model": "alexnet"},
            RecipeError,
            r"must work on images of 3x32x32 .*\(source\.image_size\), a small_stem or smaller",
        ),
        (
            "timm",
            {"model": "vit_tiny_patch16_224", "arguments": {"depth": 1, "img_size": 64}},
            RecipeError,
            r"must work on images of 3x32x32 .* doesn't match model \(64\)",
        ),
    ],
)
def test_a_model_that_cannot_be_is_one_message(
    network: str, parameters: dict[str, Any], error: type[RecipeError], said: str
) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        measure(network, **parameters)
    assert type(caught.value) is error
    assert str(caught.value).startswith("space")
    assert "\n" not in str(caught.value)


def test_a_model_without_its_auxiliary_outputs_is_taken() -> None:
    assert measure("torchvision", "googlenet", arguments={"aux_logits": False}).n_parameters == 5_610_154


@pytest.mark.parametrize(
    ("value", "place", "field"),
    [
        ("[[0.25, 0.5]]", "6:42", r"width_mult\[0\]"),
        ("[0.25, [0.5]]", "6:48", r"width_mult\[1\]"),
        ("[0.25, null]", "6:48", r"width_mult\[1\]"),
        ("[0.25, .inf]", "6:48", r"width_mult\[1\]"),
        ("[0.25, .nan]", "6:48", r"width_mult\[1\]"),
        ("{a: 1}", "6:41", r"width_mult\[0\]"),
        ("null", "6:29", r"width_mult\[0\]"),
    ],
)
def test_an_argument_must_be_a_plain_value(
    write_recipe_file: Callable[..., Path], value: str, place: str, field: str
) -> None:
    text = "name: x\nspace:\n  network: torchvision\n  choices:\n    model: mobilenet_v2\n"
    path = write_recipe_file(f"{text}    arguments: {{dropout: 0, width_mult: {value}}}\n")
    said = rf"{path}:{place} space\.choices\.arguments\.{field}: must be a finite number, a text, true or false, got "
    with pytest.raises(RecipeError, match=said) as error:
        read_recipe(path)
    assert "\n" not in str(error.value)


def test_timm_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    assert describe_origin("timm") == {"library": f"timm {timm.__version__}"}
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("proxyds.space.networks.build.version", version)
    said = r"^network 'timm': must have timm installed, it is not; pip install 'proxyds\[timm\]'$"
    with pytest.raises(MissingExtraError, match=said):
        measure("timm", "resnet10t", shape=(3, 33, 33))  # counted by no other test
    with pytest.raises(MissingExtraError, match=said):
        describe_origin("timm")


def test_a_user_looks_at_a_recipe_of_torchvisions_models(
    run_proxyds: Run, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_recipe_file(RECIPE)
    validated = run_proxyds("validate", "recipe.yaml")
    assert validated.returncode == 0, validated.stderr
    inspected = run_proxyds("inspect", "recipe.yaml")
    assert inspected.returncode == 0, inspected.stderr
    assert "2 architectures of the family torchvision" in inspected.stdout
    planned = run_proxyds("build", "recipe.yaml", "-o", "p", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "nothing was trained" in planned.stdout
    for shown in inspected.stdout, planned.stdout:
        assert shown.index("shufflenet_v2_x0_5") < shown.index("shufflenet_v2_x1_0")
    assert not (tmp_path / "p").exists()


def test_a_user_is_told_of_a_model_that_timm_does_not_have(
    run_proxyds: Run, write_recipe_file: Callable[..., Path]
) -> None:
    write_recipe_file(RECIPE.replace("torchvision", "timm").replace("shufflenet_v2_x1_0", "rsnet18, resnet10t"))
    refused = run_proxyds("build", "recipe.yaml", "-o", "p", "--dry-run", "--quiet")
    assert refused.returncode == UnknownNameError.exit_code == 10
    assert "models of timm, got 'rsnet18'; did you mean `resnet18`?" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.e2e
def test_a_proxy_is_built_for_torchvisions_models(
    write_recipe_file: Callable[..., Path], tmp_path: Path, session_store: Path
) -> None:
    recipe = read_recipe(write_recipe_file(RECIPE))
    built = build(recipe, tmp_path / "proxy", store=Store(session_store), workers=1, device="cpu")
    probes = built.manifest.probes
    assert [probe.name for probe in probes] == ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"]
    assert all(probe.accuracy > 0.4 for probe in probes)  # chance is 0.1
    assert built.manifest.mapping.layer == "conv5"
    assert verify_proxy(built.folder).counts.proxy == 130
