"""Predictions of trained networks: labels, losses, the features of a layer.

Batch norms are folded into the convolutions before them. Networks are anybody's: a folded one is used only where it gives the same
outputs as the network itself on a few images.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from proxyds.data.pixels import ImageArray
from proxyds.training.model import PixelNetwork
from proxyds.training.numerics import Computation, choose_computation

CPU_BATCH, GPU_BATCH = 64, 512
"""Images of a batch. On a CPU so few that a layer's output is still in the cache when the next layer reads it (32 and 64 were the fastest)."""
LARGEST_SIDE = 64
"""A GPU takes fewer images at once where their side has more pixels than this: as many fewer as they have more pixels."""
N_COMPARED, TOLERANCE = 8, 1e-3
"""Images on which a folded network is compared with what it was, and how far they may differ, as a share of their length."""


class PreparedNetwork(NamedTuple):
    """A network that is asked, how it computes, and the layer whose output is read, if any."""

    network: PixelNetwork
    computation: Computation
    layer: str | None


@torch.inference_mode()
def prepare_network(
    network: PixelNetwork, pixels: ImageArray, device: str = "cpu", precision: str = "auto", layer: str | None = None
) -> PreparedNetwork:
    """Copies a network to a device, its batch norms folded where its outputs stay the same.

    Args:
        network: In evaluation mode.
        pixels: (N, C, H, W) uint8; on the first of them the outputs are compared.
        device: `cpu` or a CUDA device.
        precision: `training.precision`; `auto` is float32 here, on GPUs too.
        layer: A name of `list_layers` whose output is read, and so must stay the same too.
    """
    plain = copy.deepcopy(network)
    exact = choose_computation(network, device, "float32")
    computation = choose_computation(network, device, precision) if precision != "auto" else exact
    plain.to(device=device, memory_format=exact.torch_format)  # type: ignore[call-overload]
    some = pixels[: min(N_COMPARED, _batch_size(device, pixels))]  # one batch of them
    (expected,) = _run(PreparedNetwork(plain, exact, layer), some)
    try:
        folded = fold_batch_norms(plain, layer or "")
        (outputs,) = _run(PreparedNetwork(folded, exact, layer), some)
        is_same = all((a - b).norm() <= TOLERANCE * b.norm() for a, b in zip(outputs, expected, strict=True))
    except Exception:  # noqa: BLE001 - anybody's network code, which may look at its own layers
        is_same = False
    return PreparedNetwork(folded if is_same else plain, computation, layer)


@torch.inference_mode()
def predict_labels(
    network: PixelNetwork, pixels: ImageArray, device: str = "cpu", precision: str = "auto"
) -> NDArray[np.int64]:
    """Returns the label with the largest logit for uint8 pixels (N, C, H, W), as (N,) int64."""
    prepared = prepare_network(network, pixels, device, precision)
    return np.concatenate([logits.argmax(1).cpu().numpy() for logits, _ in _run(prepared, pixels)])


@torch.inference_mode()
def measure_network(prepared: PreparedNetwork, pixels: ImageArray, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Measures accuracy and loss.

    Args:
        prepared: Of `prepare_network`; once for all that it is measured on.
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64, the true ones.

    Returns:
        The share of samples whose label `predict_labels` finds, and the mean cross-entropy in nats.
    """
    n_right, loss = 0, 0.0
    for logits, true in _run_labelled(prepared, pixels, labels):
        n_right += int((logits.argmax(1) == true).sum())
        loss += float(F.cross_entropy(logits, true, reduction="sum"))
    return n_right / len(labels), loss / len(labels)


@torch.inference_mode()
def measure_answers(
    network: PixelNetwork, pixels: ImageArray, labels: NDArray[np.int64], device: str = "cpu", precision: str = "auto"
) -> NDArray[np.float32]:
    """Measures of each sample how sure a network is, and how right.

    Args:
        network: In evaluation mode.
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64, the true ones.
        device: `cpu` or a CUDA device.
        precision: See `prepare_network`.

    Returns:
        (4, N) float32, in the order of `selection.records.MEASURES`.
    """
    batches = []
    for logits, labels_of_batch in _run_labelled(prepare_network(network, pixels, device, precision), pixels, labels):
        true = labels_of_batch[:, None]
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        p_true = p.gather(1, true)
        other = p.scatter(1, true, -1.0).amax(1)
        error = p.scatter(1, true, p_true - 1.0)
        measured = [-log_p.gather(1, true)[:, 0], -(p * log_p).sum(1), error.norm(dim=1), p_true[:, 0] - other]
        batches.append(torch.stack(measured).cpu().numpy())
    return np.concatenate(batches, axis=1)


@torch.inference_mode()
def measure_probabilities(
    network: PixelNetwork, pixels: ImageArray, device: str = "cpu", precision: str = "auto", *, mirrored: bool = False
) -> NDArray[np.float32]:
    """Measures how likely a network takes each label of each sample to be.

    Args:
        network: In evaluation mode.
        pixels: (N, C, H, W) uint8.
        device: `cpu` or a CUDA device.
        precision: See `prepare_network`.
        mirrored: Whether to average with what it makes of the mirror image.

    Returns:
        (N, L) float32, the logarithms of the probabilities.
    """
    prepared, answers = prepare_network(network, pixels, device, precision), []
    for flip in (False, True)[: 1 + mirrored]:
        batches = [logits.float().log_softmax(1).cpu() for logits, _ in _run(prepared, pixels, mirrored=flip)]
        answers.append(torch.cat(batches))
    mean = answers[0] if len(answers) == 1 else torch.logaddexp(*answers) - math.log(2)
    return np.asarray(mean.numpy())


@torch.inference_mode()
def extract_features(
    network: PixelNetwork, layer: str, pixels: ImageArray, device: str = "cpu", precision: str = "auto"
) -> NDArray[np.float32]:
    """Reads one layer's output for each sample.

    Args:
        network: In evaluation mode.
        layer: A name of `list_layers`.
        pixels: (N, C, H, W) uint8.
        device: `cpu` or a CUDA device.
        precision: See `prepare_network`.

    Returns:
        (N, D) float32. A spatial output (n, D, h, w) is averaged over its positions, one of tokens (n, tokens, D) over the tokens:
        the paper does not say how a layer becomes a vector, and averages keep D small at every layer. Outputs (n, h, w, D), of some
        transformers' inner layers, look like (n, D, h, w): take a later layer of those.
    """
    prepared = prepare_network(network, pixels, device, precision, layer)
    return np.concatenate([vectors.cpu().numpy() for _, vectors in _run(prepared, pixels)])


def _run_labelled(
    prepared: PreparedNetwork, pixels: ImageArray, labels: NDArray[np.int64]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each batch's logits (n, L) float32 and true labels (n,) int64."""
    device = prepared.computation.device
    labels_of_batches = torch.split(torch.from_numpy(labels).to(device), _batch_size(device, pixels))
    for (logits, _), true in zip(_run(prepared, pixels), labels_of_batches, strict=True):
        yield logits.float(), true


def _run(prepared: PreparedNetwork, pixels: ImageArray, *, mirrored: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one batch's logits after the other's, and the layer's output as vectors (n, D); without a layer no vectors (n, 0).

    Images may be mirrored before.
    """
    network, computation, layer = prepared
    outputs: list[Tensor] = []
    handle = None
    if layer is not None:
        handle = network.network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output: outputs.append(_as_vectors(output))  # noqa: ARG005
        )
    device, batch_size = computation.device, _batch_size(computation.device, pixels)
    try:
        for start in range(0, len(pixels), batch_size):
            batch = torch.from_numpy(np.array(pixels[start : start + batch_size])).to(device)
            batch = batch.flip(3) if mirrored else batch
            with computation.arithmetic():
                logits = network(batch.contiguous(memory_format=computation.torch_format))
            yield logits, outputs[-1] if outputs else logits[:, :0]  # of a layer that is used more than once
            outputs.clear()
    finally:
        if handle is not None:
            handle.remove()


def _batch_size(device: str, pixels: ImageArray) -> int:
    if not device.startswith("cuda"):
        return CPU_BATCH
    *_, height, width = pixels.shape
    return min(GPU_BATCH, max(1, GPU_BATCH * LARGEST_SIDE**2 // (height * width)))


def _as_vectors(output: Tensor) -> Tensor:
    """Turns a layer's output into (n, D) float32, not in the layer's own memory: what follows may write into that."""
    output = output.float()
    if output.dim() > 2:
        return output.mean(1) if output.dim() == 3 else output.flatten(2).mean(2)
    return output.clone()


def fold_batch_norms(network: PixelNetwork, layer: str = "") -> PixelNetwork:
    """Copies a network, with every batch norm that follows a convolution made part of it.

    Args:
        network: In evaluation mode.
        layer: Of the inner network, whose output must stay what it is: what lies across its end is not folded.

    Returns:
        A network with the same outputs but for rounding, if it does nothing with its layers but call them; a mere copy where
        torch cannot trace it.
    """
    folded = copy.deepcopy(network)
    for convolution_name, norm_name in _find_pairs(folded.network):
        if _is_within(convolution_name, layer) and not _is_within(norm_name, layer):
            continue
        convolution, norm = (folded.network.get_submodule(name) for name in (convolution_name, norm_name))
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
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
        """Says whether a node calls a module of just this class (a subclass may do more), which has no other name and no other call."""
        if node.op != "call_module" or used[str(node.target)] > 1:
            return False
        module = modules[str(node.target)]
        return type(module) is kind and names[id(module)] == 1

    pairs = []
    for node in graph.nodes:
        if not is_own(node, nn.BatchNorm2d):
            continue
        norm = modules[str(node.target)]
        if norm.training or norm.running_mean is None:  # normalises by the batch
            continue
        before = node.args[0] if node.args else None
        if isinstance(before, fx.Node) and is_own(before, nn.Conv2d) and len(before.users) == 1:
            pairs.append((str(before.target), str(node.target)))
    return pairs


def _is_within(module: str, layer: str) -> bool:
    return module == layer or module.startswith(f"{layer}.")


def list_layers(network: nn.Module, images: Tensor) -> list[str]:
    """Names every layer that features can be read from, in the order of computation.

    Args:
        network: On any device; on torch's meta device nothing is computed.
        images: (n, C, H, W) float32 on that device.

    Returns:
        The modules whose output for n images is one tensor (n, D) or (n, D, ...).
    """
    layers: list[str] = []

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() > 1:
            layers.append(name)

    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(partial(note, name))
    with torch.no_grad():
        network.eval()(images)
    return layers
