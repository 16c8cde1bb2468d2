"""Trained networks asked: labels, and the features of a layer.

A batch norm that follows a convolution is a scale and a shift of its channels once a network is trained, so both become one
convolution: a third of the time at no cost but rounding.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from proxyds.computation import choose_computation
from proxyds.pixel_network import PixelNetwork

BATCH_SIZE = 64
"""Small enough for what a layer leaves behind to be in the processor's cache when the next one reads it."""


@torch.inference_mode()
def predict_labels(network: PixelNetwork, pixels: NDArray[np.uint8], device: str = "cpu") -> NDArray[np.int64]:
    """Returns the label with the largest logit for uint8 pixels (N, C, H, W), as (N,) int64."""
    asked = fold_batch_norms(network)
    return np.concatenate([logits.argmax(1).cpu().numpy() for logits in _ask(asked, pixels, device)])


@torch.inference_mode()
def extract_features(
    network: PixelNetwork, layer: str, pixels: NDArray[np.uint8], device: str = "cpu"
) -> NDArray[np.float32]:
    """Reads one layer's output for each sample.

    Args:
        network: In evaluation mode.
        layer: A name of `list_layers`.
        pixels: (N, C, H, W) uint8.
        device: `cpu` or a CUDA device.

    Returns:
        (N, D) float32. A spatial output (n, D, h, w) is averaged over its positions, one of tokens (n, tokens, D) over these:
        the paper does not say how a layer becomes a vector, and this keeps D small at every layer. Outputs (n, h, w, D), of some
        transformers' inner layers, are not told apart from (n, D, h, w): take a later layer of those.
    """
    asked = fold_batch_norms(network, layer)
    outputs: list[Tensor] = []
    asked.network.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: outputs.append(_as_vectors(output))  # noqa: ARG005
    )
    features = []
    for _ in _ask(asked, pixels, device):
        features.append(outputs[-1].float().cpu().numpy())  # of a layer that is used more than once
        outputs.clear()
    return np.concatenate(features)


def _as_vectors(output: Tensor) -> Tensor:
    """A layer's output as (n, D), not in the layer's own memory: what follows may write into that."""
    if output.dim() == 2:
        return output.clone()
    return output.mean(1) if output.dim() == 3 else output.flatten(2).mean(2)


def _ask(network: PixelNetwork, pixels: NDArray[np.uint8], device: str) -> Iterator[Tensor]:
    """Yields the logits of one batch after the other."""
    computation = choose_computation(network, device)
    network.to(device=device, memory_format=computation.torch_format)  # type: ignore[call-overload]
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = torch.from_numpy(np.array(pixels[start : start + BATCH_SIZE])).to(device)
        with computation.arithmetic():
            yield network(batch.contiguous(memory_format=computation.torch_format))


def fold_batch_norms(network: PixelNetwork, layer: str = "") -> PixelNetwork:
    """Copies a network, with every batch norm that follows a convolution made part of it.

    Args:
        network: In evaluation mode.
        layer: Of the inner network, whose output must stay what it is: what lies across its end is not folded.

    Returns:
        A network with the same outputs but for rounding; a mere copy where torch cannot trace it.
    """
    folded = copy.deepcopy(network)
    for convolution_name, norm_name in _find_pairs(folded.network):
        if _is_within(convolution_name, layer) and not _is_within(norm_name, layer):
            continue
        convolution, norm = (folded.network.get_submodule(name) for name in (convolution_name, norm_name))
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        folded.network.set_submodule(convolution_name, fuse_conv_bn_eval(convolution, norm))
        folded.network.set_submodule(norm_name, nn.Identity())
    return folded


def _find_pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Names every convolution and the batch norm that alone takes its output, where both are used once."""
    try:
        graph = fx.Tracer().trace(network)
    except Exception:  # noqa: BLE001 - anybody's network code, which may branch on values: then nothing is folded
        return []
    modules = dict(network.named_modules())
    used = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    names = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))

    def is_own(node: fx.Node, kind: type[nn.Module]) -> bool:
        """Whether it calls a module of just this class (a subclass may do more), which has no other name and no other call."""
        if node.op != "call_module" or used[str(node.target)] > 1:
            return False
        module = modules[str(node.target)]
        return type(module) is kind and names[id(module)] == 1

    pairs = []
    for node in graph.nodes:
        if not is_own(node, nn.BatchNorm2d) or modules[str(node.target)].running_mean is None:
            continue
        before = node.args[0]
        if isinstance(before, fx.Node) and is_own(before, nn.Conv2d) and len(before.users) == 1:
            pairs.append((str(before.target), str(node.target)))
    return pairs


def _is_within(module: str, layer: str) -> bool:
    return module == layer or module.startswith(f"{layer}.")


def list_layers(network: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """Names every layer that features can be read from, in the order of computation.

    Args:
        network: On the meta device: nothing is computed.
        image_shape: (C, H, W).

    Returns:
        The modules whose output for n images is one tensor (n, D) or (n, D, ...).
    """
    layers: list[str] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() > 1:
            layers.append(name)

    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(lambda module, inputs, output, name=name: note(name, output))  # noqa: ARG005
    network.eval()(torch.zeros(2, *image_shape, device="meta"))
    return layers
