"""What a good user would write with the plain libraries. Each runs in a process of its own and prints its figure last.

python -m tests.benchmarks.yardsticks train PIXELS.npy BASE_FILTERS N_WORKERS N_STEPS    images a second of a DataLoader loop
python -m tests.benchmarks.yardsticks features PIXELS.npy WEIGHTS.pt BASE_FILTERS OUT.npy    images a second of an eager loop
python -m tests.benchmarks.yardsticks matmul    FLOP a second of one thread
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
N_WARMING_UP = 5


def make_resnet(base_filters: int) -> torch.nn.Module:
    """The same network: only the loop around it is compared."""
    from proxyds.space.networks.build import build_network

    return build_network("resnet", {"depth": 20, "base_filters": base_filters, "multiplier": 2}, 10, (3, 32, 32))


def make_transforms() -> transforms.Compose:
    """The usual ones for CIFAR-10."""
    return transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )


class Images(Dataset):
    """Pixels in memory, as torchvision's own CIFAR10 holds them.

    Args:
        pixels: (N, H, W, 3) uint8.
        labels: (N,).
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, make_transforms()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def train(pixels_file: str, base_filters: int, n_workers: int, n_steps: int) -> float:
    """Trains with Adam and a one-cycle schedule on batches of 128."""
    pixels = np.ascontiguousarray(np.load(pixels_file).transpose(0, 2, 3, 1))[: 128 * (n_steps + N_WARMING_UP)]
    network = make_resnet(base_filters).train()
    images = Images(pixels, np.arange(len(pixels)) % 10)
    loader = DataLoader(images, batch_size=128, shuffle=True, num_workers=n_workers, drop_last=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=len(loader) + 1)
    for step, (batch, targets) in enumerate(loader):
        if step == N_WARMING_UP:
            started = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(network(batch), targets)
        loss.backward()
        optimizer.step()
        schedule.step()
    return (len(loader) - N_WARMING_UP) * 128 / (time.perf_counter() - started)


@torch.inference_mode()
def features(pixels_file: str, weights_file: str, base_filters: int, out: str) -> float:
    """Reads the pooled features of every image, in batches of 256."""
    network = make_resnet(base_filters)
    weights = torch.load(weights_file, weights_only=True)
    network.load_state_dict(
        {name.removeprefix("network."): weight for name, weight in weights.items() if "network." in name}
    )
    network.eval()
    taken: list[torch.Tensor] = []
    network.pool.register_forward_hook(lambda module, inputs, output: taken.append(output.flatten(1)))
    pixels = torch.from_numpy(np.load(pixels_file))
    mean, deviation = weights["mean"], weights["deviation"]
    for start in (0, *range(0, len(pixels), 256)):
        if start == 0:  # the first batch twice: once to warm up
            taken.clear()
            started = time.perf_counter()
        network((pixels[start : start + 256].float() - mean) / deviation)
    seconds = time.perf_counter() - started
    np.save(out, torch.cat(taken).numpy())
    return len(pixels) / seconds


def matmul() -> float:
    """One thread's rate in a large float32 product, the median of some."""
    torch.set_num_threads(1)
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / float(np.median(seconds[2:]))


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "train":
        print(train(given[0], int(given[1]), int(given[2]), int(given[3])))
    elif what == "features":
        print(features(given[0], given[1], int(given[2]), given[3]))
    else:
        print(matmul())
