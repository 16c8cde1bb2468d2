"""Builds a proxy with a trainer of one's own, in plain torch: `python docs/examples/trainer.py RECIPE OUT`."""

import sys

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import RandomCrop

import proxyds


def fit_network(network: torch.nn.Module, train: Dataset, *, seed: int, device: str) -> torch.nn.Module:
    """Trains a network for six epochs on crops of the images, which are normalised already, and returns it."""
    network.to(device).train()
    generator = torch.Generator().manual_seed(seed)
    batches = DataLoader(train, batch_size=32, shuffle=True, drop_last=True, generator=generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6 * len(batches))
    for _ in range(6):
        for images, labels in batches:
            cropped = RandomCrop(images.shape[-2:], padding=1)(images)  # a batch at once
            loss = cross_entropy(network(cropped.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


if __name__ == "__main__":
    recipe, out = sys.argv[1:]
    built = proxyds.build(recipe, out, trainer=fit_network)
    print([f"{probe.name}: {probe.accuracy:.1%}" for probe in built.manifest.probes])
