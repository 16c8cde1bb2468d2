"""Trains twelve candidates on the digits proxy, nearly as its recipe says, and writes what they reach: `python docs/examples/candidates.py PROXY OUT.csv`."""

import csv
import itertools
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2 import RandomCrop

import proxyds

SHAPES = list(itertools.product((8, 14, 20), (6, 10), (1, 2)))


def name(shape: tuple[int, int, int]) -> str:
    """Names a candidate."""
    return "resnet depth={} base_filters={} multiplier={}".format(*shape)


def make(shape: tuple[int, int, int]) -> torch.nn.Module:
    """Makes a candidate: depth, filters of the first stage, by how much each stage is wider."""
    parameters = dict(zip(("depth", "base_filters", "multiplier"), shape, strict=True))
    torch.manual_seed(0)
    return proxyds.build_network("resnet", parameters, n_labels=10, image_shape=(1, 8, 8))


def train(
    network: torch.nn.Module,
    data: TensorDataset,
    held_out: TensorDataset,
    recipe: proxyds.Recipe,
    *,
    on_everything: bool = False,
) -> tuple[float, float]:
    """Trains a network with a recipe's epochs, batches, learning rate and crops; returns its accuracy and its loss on other samples."""
    settings = recipe.training
    if on_everything and recipe.check is not None:
        settings = recipe.check.choose_full_training(settings)
    mean, deviation = data.tensors[0].mean(), data.tensors[0].std()
    augment = RandomCrop(data.tensors[0].shape[-2:], padding=settings.crop_padding)
    batches = DataLoader(data, settings.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(network.parameters())
    n_steps = settings.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=n_steps)
    for _ in range(settings.epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            cropped = augment(images)  # a batch at once
            cross_entropy(network((cropped - mean) / deviation), labels).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    images, labels = held_out.tensors
    with torch.inference_mode():
        outputs = network((images - mean) / deviation)
    return (outputs.argmax(1) == labels).float().mean().item(), cross_entropy(outputs, labels).item()


if __name__ == "__main__":
    proxy, out = sys.argv[1:]
    recipe = proxyds.read_recipe(Path(proxy, "recipe.yaml"))
    data = proxyds.torch_dataset(proxy, soft_labels=recipe.training.soft_labels)
    held_out = proxyds.torch_dataset(proxy, "validation")
    rows = []
    for shape in SHAPES:
        network = make(shape)
        n_parameters = sum(weight.numel() for weight in network.parameters())
        accuracy, loss = train(network, data, held_out, recipe)
        rows.append({"architecture": name(shape), "accuracy": accuracy, "n_parameters": n_parameters})
        if recipe.training.soft_labels:  # else networks may rank the wrong way round by their loss
            rows[-1]["loss"] = loss
    with Path(out).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
