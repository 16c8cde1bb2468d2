"""One network of a search space, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """One network of the search space, and its cost on one image.

    Attributes:
        name: Short and unique in the space, for example `resnet depth=8 base_filters=4`.
        network: Registered family.
        parameters: The family's parameters, as JSON has them.
        forward_flops: Floating-point operations forward (a multiply-add is two).
        training_flops: The same, forward and backward.
        n_parameters: Weights.
    """

    name: str
    network: str
    parameters: dict[str, Any]
    forward_flops: int
    training_flops: int
    n_parameters: int


def by_cost(architecture: Architecture) -> tuple[int, int, str]:
    """Orders architectures from the lightest to the heaviest: by FLOPs, then parameters, then name."""
    return architecture.training_flops, architecture.n_parameters, architecture.name
