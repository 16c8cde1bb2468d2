"""Pixels and labels as programs hold them, made uniform; what they cannot be is refused with what to do about it."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from proxyds.data.images import see_picture
from proxyds.data.survey.records import LABEL_BITS, Label
from proxyds.errors import LabelError, SourceError
from proxyds.text import describe_type, first_line

CHANNELS = (1, 3, 4)
"""Channels of grey, of colour, and of colour with transparency."""
_MODES_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA")
_DEEP_MODES = ("I", "F")
"""Pillow's modes of 32 bits a channel."""


def as_array(value: Any) -> Any:
    """Returns the array of a tensor, which is no copy of one on the CPU, or of what else offers one; anything else as it is."""
    if is_tensor(value):
        try:
            return value.detach().cpu().numpy()
        except (
            TypeError,
            NotImplementedError,
            RuntimeError,
        ) as error:  # of a kind that numpy does not have, or without values
            raise SourceError(f"source: tensors must have values that numpy can hold: {first_line(error)}") from None
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic | Image.Image):
        return np.asarray(value)
    return value


def is_tensor(value: Any) -> bool:
    """Says whether a value is torch's."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def lay_out(values: Any, n_axes: int, place: str) -> NDArray[np.uint8]:
    """Lays out pixels with channels last, as a view.

    Args:
        values: uint8, an array or a tensor, (..., H, W), (..., H, W, C) or torch's (..., C, H, W).
        n_axes: Axes before these: 0 for an image, 1 for many.
        place: What they are, for messages, such as `train`.

    Returns:
        (..., H, W) or (..., H, W, C) with C of 3 or 4.

    Raises:
        SourceError: They are not uint8, or of another shape.
    """
    channels_first, array = is_tensor(values), as_array(values)
    if array.dtype != np.uint8:
        raise SourceError(f"source: {place} must be of uint8, from 0 to 255, {_describe_values(array)}")
    shape = array.shape[n_axes:]
    fitting = []
    if len(shape) == 3:
        fitting = [axis for axis in ((0, 2) if channels_first else (2, 0)) if shape[axis] in CHANNELS]
    if 0 in array.shape or not (len(shape) == 2 or fitting):
        wanted = ", ".join(f"({'n, ' * n_axes}{axes})" for axes in ("H, W", "H, W, C", "C, H, W"))
        raise SourceError(
            f"source: {place} must have a shape such as {wanted} with C of 1, 3 or 4 channels, found {array.shape}; "
            "reshape them"
        )
    if fitting and fitting[0] == 0:
        array = np.moveaxis(array, n_axes, -1)
    laid: NDArray[np.uint8] = array[..., 0] if fitting and array.shape[-1] == 1 else array
    return laid


def to_picture(image: Any, place: str) -> NDArray[np.uint8] | Image.Image:
    """Takes one image, an array, a tensor or Pillow's, for something that PNG can hold.

    Raises:
        SourceError: It is none of these, or cannot be read.
    """
    if isinstance(image, Image.Image):
        if image.mode in _DEEP_MODES or image.mode.startswith("I;16"):
            raise SourceError(
                f"source: {place} must have 8 bits a channel, found Pillow's mode {image.mode}; convert it, which decides "
                "what becomes of the others"
            )
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # whatever a decoder stumbles over
            raise SourceError(f"source: {place} must be an image that can be read: {first_line(error)}") from error
        return upright if upright.mode in _MODES_OF_PNG else see_picture(upright)
    array = as_array(image)
    if not isinstance(array, np.ndarray):
        raise SourceError(
            f"source: {place} must be an image: Pillow's, or an array or a tensor of uint8, found {describe_type(image)}"
        )
    return lay_out(image, 0, place)


def list_labels(labels: Any, place: str) -> tuple[Label, ...]:
    """Makes labels plain numbers, texts and None.

    Args:
        labels: (n,) whole numbers or texts, in an array, a tensor, a list or a column of pandas or Arrow.
        place: Whose they are, for messages, such as `train`.

    Raises:
        LabelError: They are something else, or both numbers and texts.
    """
    array = as_array(labels)
    if isinstance(array, np.ndarray):
        if array.ndim != 1:
            raise LabelError(
                f"source: labels of {place} must be one label for each image, of the shape (n,), found {array.shape}; of one-hot labels take "
                "labels.argmax(1)"
            )
        array = array.tolist()
    if not isinstance(array, Sequence) or isinstance(array, str | bytes):
        raise LabelError(
            f"source: labels of {place} must be a list, an array or a tensor, found {describe_type(labels)}"
        )
    plain = tuple(_to_label(label, index, place) for index, label in enumerate(array))
    if len({isinstance(label, str) for label in plain if label is not None}) > 1:
        raise LabelError(f"source: labels of {place} must be all numbers or all texts, found both; write texts for all")
    return plain


def _to_label(label: Any, index: int, place: str) -> Label:
    label = as_array(label)
    if isinstance(label, np.ndarray | np.generic) and label.size == 1:
        label = label.item()
    if label is None or isinstance(label, str):
        return label
    if isinstance(label, numbers.Integral):
        if int(label).bit_length() >= LABEL_BITS:
            raise LabelError(
                f"source: labels of {place} must be whole numbers of {LABEL_BITS} bits, label {index} is longer; write texts"
            )
        return int(label)
    advice = "; of one-hot labels take the argmax" if isinstance(label, np.ndarray | Sequence) else ""
    advice = "; turn them into whole numbers: labels.astype(int)" if isinstance(label, float) else advice
    raise LabelError(
        f"source: labels of {place} must be whole numbers or texts, label {index} is {describe_type(label)}{advice}"
    )


def _describe_values(array: NDArray[Any]) -> str:
    """Says what pixels are instead of uint8, and what to do."""
    if array.dtype.kind not in "iufb" or not array.size:
        return f"found {array.dtype}"
    some = array.reshape(-1)[:1_000_000] if array.flags.c_contiguous else array[:100]
    low, high = float(some.min()), float(some.max())
    found = f"found {array.dtype} from {low:.3g} to {high:.3g}"
    if array.dtype.kind == "b":
        return f"{found}; take images.astype('uint8') * 255"
    if array.dtype.kind == "f":
        scaled = "; (images * 255).round() and then uint8 undoes a scaling" if low >= 0 and 0 < high <= 1 else ""
        return (
            f"{found}; pass images before they are scaled or normalised, a data set without its transform (transform=None)"
            f"{scaled}"
        )
    if low >= 0 and high <= 255:
        return f"{found}; take images.astype('uint8')"
    return f"{found}; make 8 bits of them, which decides what becomes of the others"
