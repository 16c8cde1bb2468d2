"""A proxy as an object: its samples, its tables as data frames, its evidence and its pictures; shown in a notebook.

Nothing is read before it is asked for. What is read is verified first: a proxy may be a stranger's.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from proxyds.arguments import as_path, as_place
from proxyds.artifact.card.plots import Draw, as_figure, as_png
from proxyds.artifact.card.render import list_all_pictures
from proxyds.artifact.manifest import CARD, RECIPE, FileFacts, Manifest
from proxyds.artifact.ranking_table import METHOD_LABELS, PROXY, RANDOM
from proxyds.artifact.reader import list_shards, read_manifest, read_own_recipe, verify_files
from proxyds.artifact.summary import Tables, summarize_tables
from proxyds.artifact.tables import find_extras, read_proxy
from proxyds.errors import EvidenceError, SplitNotFoundError
from proxyds.progress import OnProgress, ignore_progress
from proxyds.progress_bars import showing_progress
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import Recipe
from proxyds.runtime.storage.address import read_place
from proxyds.runtime.storage.store import SHELF, Store, as_store

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from matplotlib.figure import Figure
    from torch.utils.data import TensorDataset


@showing_progress
def open(  # noqa: A001 - read as `proxyds.open`
    place: str | os.PathLike[str],
    *,
    store: Store | None = None,
    on_progress: OnProgress = ignore_progress,
    quiet: bool | None = None,  # noqa: ARG001 - for `showing_progress`
) -> Proxy:
    """Opens a proxy.

    One that lies elsewhere is fetched once, and everything in it is verified; it is kept in the store's folder until `proxyds store clean` removes it.

    Args:
        place: A folder, `user/name@v1.0.0` on the Hub, or an address; or what `build`, `check` and the others return.
        store: Where proxies from elsewhere are kept; None for the user's own.
        on_progress: Called as files arrive.
        quiet: See `runtime.execution.Options`.

    Raises:
        ArtifactError: There is no proxy, or it holds what it may not.
        VerificationError: Files that were fetched differ from the manifest.
        RemoteError: The place cannot be reached.
    """
    target = read_place(as_place(place, "place"))
    if isinstance(target, Path):
        return Proxy(target)
    from proxyds.pipeline.sharing.pull import keep_here  # with torch, as auditing is

    return Proxy(keep_here(target, as_store(store).root / SHELF, on_progress))


class Proxy:
    """A proxy in a folder, made by `proxyds.open`.

    Data frames are those of pandas; `tables` holds the same as Arrow. `docs/format.md` names their columns.

    Args:
        folder: The folder.

    Attributes:
        folder: The folder.
        manifest: What the proxy says of itself.

    Raises:
        ArtifactError: The folder holds no proxy. Other members raise it, or `VerificationError`, where what they read is not sound.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = as_path(folder, "folder")
        self.manifest: Manifest = read_manifest(self.folder)

    @property
    def card(self) -> str:
        """The card, as Markdown."""
        verify_files(self.folder, {CARD: self.manifest.files[CARD]})
        return (self.folder / CARD).read_text(encoding="utf-8")

    @cached_property
    def recipe(self) -> Recipe:
        """What the proxy was made from; `recipe.space` is the search space."""
        verify_files(self.folder, {RECIPE: self.manifest.files[RECIPE]})
        return read_own_recipe(self.folder)

    @property
    def verdict(self) -> str:
        """What a check found, in a few words."""
        evidence = None if self.manifest.evidence is None else self._audited.evidence
        return "not checked" if evidence is None else evidence.verdict

    @cached_property
    def train(self) -> datasets.Dataset:
        """The samples to train on: columns `image`, `label` and those of `samples`."""
        return self._read_images("data")

    @cached_property
    def validation(self) -> datasets.Dataset:
        """The samples to rank candidates on; raises `SplitNotFoundError` where the proxy holds none."""
        if not self.manifest.counts.validation:
            raise SplitNotFoundError(
                "must hold samples to rank on, it holds none; proxy.torch('evaluation') has those of its source",
                place=self.folder,
            )
        return self._read_images("validation")

    def torch(
        self, split: str = "train", *, soft_labels: bool = False, source: Any = None, store: Store | None = None
    ) -> TensorDataset:
        """Opens a split for torch: `train`, `validation`, or `evaluation` and `test` of its source; see `torch_dataset`."""
        from proxyds.torch_data import torch_dataset

        return torch_dataset(self.folder, split, soft_labels=soft_labels, source=source, store=store)

    @property
    def tables(self) -> Tables:
        """The tables as Arrow, without images. What they say of each other and of the evidence is audited when they are first read."""
        return self._audit[1]

    @property
    def samples(self) -> pd.DataFrame:
        """The proxy's samples, a row for each, without images."""
        return _as_frame(self.tables.data)

    @property
    def importance(self) -> pd.DataFrame:
        """Every sample that could have been drawn, a row for each."""
        return _as_frame(self.tables.importance)

    @property
    def evaluation(self) -> pd.DataFrame:
        """Every evaluation sample, with the probes' answers, a row for each."""
        return _as_frame(self.tables.evaluation)

    @property
    def runs(self) -> pd.DataFrame:
        """Every training of the check, a row for each; raises `EvidenceError` where there was no check."""
        self._require_check()
        return _as_frame(self.tables.ranking)

    @property
    def evidence(self) -> pd.DataFrame:
        """Every way to rank that was checked, a row for each, with each statistic and the ends of its 95 % interval.

        Raises `EvidenceError` where there was no check. `manifest.evidence` holds the rest: verdict, comparisons, costs.
        """
        import pandas as pd

        self._require_check()
        evidence = self._audited.evidence
        assert evidence is not None
        rows = []
        for each in evidence.methods:
            row = each.model_dump(exclude={"statistics", "tau_of_repeats"}) | {"label": METHOD_LABELS[each.method]}
            for name, estimate in each.statistics.items():
                row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            rows.append(row)
        return pd.DataFrame(rows)

    def plot_accuracy(self) -> Figure:
        """Draws each architecture's accuracy on the proxy, or its loss where that ranks, against its accuracy on everything."""
        return self._plot("accuracy.png")

    def plot_correlation(self) -> Figure:
        """Draws how well each way to rank agrees with everything."""
        return self._plot("correlation.png")

    def plot_orders(self) -> Figure:
        """Draws which pairs of architectures change order."""
        return self._plot("orders.png")

    def plot_searches(self) -> Figure:
        """Draws what a search pays and loses."""
        return self._plot("searches.png")

    def plot_ratios(self) -> Figure:
        """Draws how well sizes of the proxy rank, where several were checked."""
        return self._plot("ratios.png")

    def plot_labels(self) -> Figure:
        """Draws each label's share, before and after."""
        return self._plot("labels.png")

    def plot_probes(self) -> Figure:
        """Draws the training losses of the probes."""
        return self._plot("probes.png")

    def plot_weights(self) -> Figure:
        """Draws the shares of samples by what they were drawn by."""
        return self._plot("importance.png" if self.manifest.draw.method == BY_IMPORTANCE else "weights.png")

    def plot_cases(self) -> Figure:
        """Draws the shares of the four cases, where samples were drawn by them."""
        return self._plot("cases.png")

    def plot_gallery(self) -> Figure:
        """Draws some of the samples, where the recipe allows it."""
        if not self.manifest.gallery:
            raise SplitNotFoundError("must allow pictures of its samples, its recipe does not", place=self.folder)
        verify_files(self.folder, self._list_files("data"))
        manifest, tables = read_proxy(self.folder, with_ranking=False, images_of=("data",))
        return as_figure(list_all_pictures(manifest, summarize_tables(tables))["gallery.png"])

    def __fspath__(self) -> str:
        """The folder: a proxy serves where one is asked for."""
        return os.fspath(self.folder)

    def __repr__(self) -> str:
        counts = self.manifest.counts
        name = f"{self.manifest.name} {self.manifest.version}"
        return f"<Proxy {name}: {counts.proxy:,} of {counts.train:,} samples; {self.folder}>"

    def _repr_html_(self) -> str:
        """Shows a notebook what the proxy is, the verdict, and one picture."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th><td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self._list_facts().items()
        )
        shown = next((name for name in ("accuracy.png", "labels.png") if name in self._pictures), None)
        picture = ""
        if shown is not None:
            encoded = base64.b64encode(as_png(self._pictures[shown])).decode()
            picture = f'<img alt="{shown}" style="max-width:700px" src="data:image/png;base64,{encoded}">'
        title = html.escape(f"{self.manifest.name} {self.manifest.version}")
        return f"<div><b>{title}</b><table>{rows}</table>{picture}</div>"

    def _list_facts(self) -> dict[str, str]:
        """Lists what a person sees first, by name."""
        manifest = self._audited
        counts, evidence = manifest.counts, manifest.evidence
        facts = {
            "samples": f"{counts.proxy:,} of {counts.train:,}, {counts.validation:,} more to rank on",
            "labels": f"{len(manifest.proxy_label_names):,}",
            "source": manifest.source.name,
            "method": manifest.draw.method,
            "licence": manifest.licence,
            "verdict": self.verdict,
        }
        if evidence is None:
            return facts
        facts["verdict"] += f". {evidence.explanation}"
        for method in (PROXY, RANDOM):
            if (found := evidence.of(method, evidence.own_ratio)) is not None:
                facts[f"Kendall tau, {METHOD_LABELS[method]}"] = found.statistics["tau"].shown()
        return facts

    @cached_property
    def _audit(self) -> tuple[Manifest, Tables]:
        from proxyds.pipeline.audit import audit_tables  # with torch

        return audit_tables(self.folder)

    @property
    def _audited(self) -> Manifest:
        """The manifest, whose claims follow from the tables."""
        return self._audit[0]

    @cached_property
    def _pictures(self) -> dict[str, Draw]:
        """What draws each picture but the gallery."""
        pictures = list_all_pictures(self._audited, summarize_tables(self.tables))
        return {name: draw for name, draw in pictures.items() if name != "gallery.png"}

    def _plot(self, name: str) -> Figure:
        if name in self._pictures:
            return as_figure(self._pictures[name])
        if name in ("accuracy.png", "correlation.png", "orders.png"):
            self._require_check()
        methods = [
            f"plot_{'weights' if each == 'importance.png' else each.removesuffix('.png')}" for each in self._pictures
        ]
        drawn = ", ".join([*methods, *(["plot_gallery"] if self.manifest.gallery else [])]) or "none"
        raise EvidenceError(
            f"must have what the picture {name.removesuffix('.png')} shows, it has not; it has: {drawn}",
            place=self.folder,
        )

    def _require_check(self) -> None:
        if self.manifest.evidence is None:
            raise EvidenceError(
                "must be checked for evidence and runs, it was not when it was opened; proxyds.check(proxy.folder) does that, then open it again",
                place=self.folder,
            )

    def _list_files(self, table: str) -> dict[str, FileFacts]:
        return {name: self.manifest.files[name] for name in (RECIPE, *list_shards(self.manifest, table))}

    def _read_images(self, name: str) -> datasets.Dataset:
        import datasets

        from proxyds.artifact.writer import list_features

        files = self._list_files(name)
        verify_files(self.folder, files)
        manifest, tables = read_proxy(self.folder, with_ranking=False, images_of=(name,))
        table = tables.data if name == "data" else tables.validation
        assert table is not None
        kept = None if manifest.kept_labels is None else np.array(manifest.kept_labels)
        features = list_features(manifest.label_names, kept, find_extras(manifest))["data"]
        content = hashlib.sha256("".join(each.sha256 for each in files.values()).encode()).hexdigest()
        return datasets.Dataset(
            datasets.table.InMemoryTable(table.select(list(features)).cast(features.arrow_schema)),
            datasets.DatasetInfo(features=features),
            split=datasets.NamedSplit("train" if name == "data" else name),
            fingerprint=content[:16],
        )


def _as_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
