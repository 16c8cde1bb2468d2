"""Builds a proxy with Lightning, which tells of each epoch: `python docs/examples/lightning_trainer.py RECIPE OUT`."""

import sys
from collections.abc import Callable

import lightning
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import proxyds


class Classifier(lightning.LightningModule):
    """A network with its loss and its optimiser."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Computes the loss of a batch."""
        images, labels = batch
        loss = cross_entropy(self.network(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Chooses the optimiser."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Teller(lightning.Callback):
    """Tells proxyds of each epoch's end."""

    def __init__(self, after_epoch: Callable[[torch.nn.Module, float], None]) -> None:
        self.after_epoch = after_epoch

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Hands over the network as it is now, and the epoch's mean loss."""
        self.after_epoch(pl_module.network, trainer.callback_metrics["loss"].item())


class WithLightning:
    """Trains networks with Lightning.

    Args:
        epochs: Of each training.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def fit(
        self,
        network: torch.nn.Module,
        train: Dataset,
        *,
        seed: int,
        device: str,
        after_epoch: Callable[[torch.nn.Module, float], None],
    ) -> torch.nn.Module:
        """Trains a network and returns it."""
        generator = torch.Generator().manual_seed(seed)
        batches = DataLoader(train, batch_size=32, shuffle=True, drop_last=True, generator=generator)
        is_cpu = device == "cpu"
        trainer = lightning.Trainer(
            max_epochs=self.epochs,
            accelerator="cpu" if is_cpu else "gpu",
            devices=1 if is_cpu else [torch.device(device).index or 0],
            callbacks=[Teller(after_epoch)],
            logger=False,  # files of trainings side by side would get in each other's way
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Classifier(network), batches)
        return network  # and not the Classifier around it


if __name__ == "__main__":
    recipe, out = sys.argv[1:]
    built = proxyds.build(recipe, out, trainer=WithLightning(epochs=4))
    print([f"{probe.name}: {probe.accuracy:.1%}" for probe in built.manifest.probes])
