"""How much of a record can be brought back from what a layer of an audited model puts out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from privkernels.attacks.base import Array
from privkernels.attacks.inversion import Inversion, InversionSettings, invert, representation_at
from privkernels.attacks.similarity import ReconstructionReport, reconstruction_report
from privkernels.audit._json import JsonValue
from privkernels.audit.audit import Target
from privkernels.audit.intervals import CONFIDENCE, Figure, clopper_pearson
from privkernels.audit.inversions import InversionPanel
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent
from privkernels.randomness import Key

# Records that are reconstructed; more cost time and show the same.
RECORDS = 8
# Weights of the total variation that are tried: deep layers and noise take large ones (``benchmarks/inversion.py``).
TV_WEIGHTS = (0.03, 0.3, 1.0)
# In dB: what is exact, as binary records often are, has no finite ratio, and float32 ends here anyway.
MOST_PSNR = 150.0
# Stands for the network's own output, where no layer has that name.
OUTPUT = "output"


@dataclass(frozen=True)
class Reconstruction(JsonValue):
    """What the inversion of one layer of one target brought back. Means are over the records.

    Attributes:
        target, layer: what was inverted; the layer ``"output"`` is the network's own.
        n_records: members that were reconstructed.
        identified: share of them whose reconstruction is nearer to the record itself than to any other audited
            record, with its Clopper-Pearson interval.
        chance: that share for a blind guess.
        psnr: peak signal-to-noise ratio to the original, in dB of the records' range; an exact record counts as 150.
        neighbour_psnr: that of the non-member nearest to the original: what is reached without the record.
        class_mean_psnr: that of the mean non-member of its class.
        ssim: structural similarity; None where records are no pictures.
        relative_error: median of what the search left of the representation, squared and relative: where it is not
            small the search failed, and the figures say less than the layer gives away.
        seconds: that it took.
    """

    target: str
    layer: str
    n_records: int
    identified: Figure
    chance: float
    psnr: float
    neighbour_psnr: float
    class_mean_psnr: float
    ssim: float | None
    relative_error: float
    seconds: float

    def __str__(self) -> str:
        found = round((self.identified.value or 0.0) * self.n_records)
        return (
            f"from {self.layer}: {found} of {self.n_records} reconstructions are nearest to their own record (blind: "
            f"{self.chance:.2g}); PSNR {self.psnr:.1f} dB, nearest other record {self.neighbour_psnr:.1f} dB"
        )


def reconstruct(
    targets: Sequence[Target],
    layers: Sequence[str],
    members: Records,
    nonmembers: Records,
    *,
    records: int = RECORDS,
    settings: InversionSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[list[Reconstruction], list[InversionPanel]]:
    """Invert layers of every target (:func:`privkernels.attacks.inversion.invert`) for a few members chosen at random.

    Args:
        targets: networks, not functions.
        layers: names of ``module.named_modules()``; ``"output"`` is the network's own where no layer has that name.
        members, nonmembers: the audited records, among which a reconstruction must find its original.
            The search starts at the mean of ``nonmembers``, which an attacker with records of their own has.
        records: how many members; all where there are fewer.
        settings: of the search; its range is that of the records' values whatever they say. Where None, pictures are
            searched with three weights of the total variation, and the one with the highest mean PSNR counts. Whoever
            attacks has no originals to choose by: this favours the attack. The interval of ``identified`` allows for
            the choice.
        seed: of the choice and the search.

    Returns:
        One figure per target and layer, and one panel each for the report where records are pictures of one or three
        channels.

    Raises:
        InvalidArgumentError: a target is a function.
        UnknownNameError: a target has no such layer.
        Others as :func:`privkernels.attacks.inversion.invert` and
        :func:`privkernels.attacks.similarity.reconstruction_report`.
    """
    networks = check_layers(targets, layers)
    if not networks:
        return [], []
    order = torch.randperm(len(members), generator=Key.from_seed(seed).generator("reconstructions"))
    originals = members.subset(order[:records])
    tried = [settings or InversionSettings()]
    if settings is None and originals.x.dim() == 4:
        tried = [replace(tried[0], tv_weight=weight) for weight in TV_WEIGHTS]
    search = _Search(originals, members, nonmembers, tried, seed)
    figures, panels = [], []
    for target, network in zip(targets, networks, strict=True):
        for layer in layers:
            begin = time.perf_counter()
            found, report = search(network, layer, progress)
            seconds = time.perf_counter() - begin
            confidence = 1 - (1 - CONFIDENCE) / len(tried)
            error = float(np.median(found.relative_error))
            figures.append(_figures(target.name, layer, report, confidence, error, seconds))
            if originals.x.dim() == 4 and originals.x.shape[1] in (1, 3):
                title = f"{target.name}, inverted from {layer}"
                panels.append(_panel(title, found.x, originals, members, nonmembers, report, search.limits))
    return figures, panels


class _Search:
    """Inverts a layer for the originals with each of the settings; the reconstructions with the highest mean PSNR."""

    def __init__(
        self,
        originals: Records,
        members: Records,
        nonmembers: Records,
        tried: Sequence[InversionSettings],
        seed: int,
    ) -> None:
        low, high = self.limits = float(members.x.min()), float(members.x.max())
        self.originals, self.members, self.nonmembers, self.seed = originals, members, nonmembers, seed
        self.tried = [replace(settings, low=low, high=high) for settings in tried]

    def __call__(self, network: nn.Module, layer: str, progress: Progress) -> tuple[Inversion, ReconstructionReport]:
        name, x = _layer(network, layer), self.originals.x
        with torch.no_grad():
            observed = representation_at(network, name)(x)
        results = []
        for number, settings in enumerate(self.tried, 1):
            which = f"reconstructing records from {layer}" + (f" ({number})" if len(self.tried) > 1 else "")
            found = invert(
                network, observed, tuple(x.shape[1:]), layer=name, start=self.nonmembers.x.mean(dim=0),
                settings=settings, seed=self.seed, progress=_named(progress, which),
            )  # fmt: skip
            report = reconstruction_report(
                found.x, self.originals, self.members, self.nonmembers,
                data_range=self.limits[1] - self.limits[0], seed=self.seed,
            )  # fmt: skip
            results.append((found, report))
        return max(results, key=lambda result: _mean_psnr(result[1].psnr))


def check_layers(targets: Sequence[Target], layers: Sequence[str]) -> list[nn.Module]:
    """The targets' networks, none where there is no layer to invert.

    Raises:
        InvalidArgumentError: a target is a function.
        UnknownNameError: a target has no such layer.
    """
    networks = [_network(target) for target in targets] if layers else []
    for network in networks:
        for layer in layers:
            representation_at(network, _layer(network, layer))
    return networks


def _network(target: Target) -> nn.Module:
    if not isinstance(target.model, nn.Module):
        raise InvalidArgumentError(
            f"{target.name!r} is a prediction function: a layer can be inverted in a network only; leave the layers out"
        )
    return target.model


def _layer(network: nn.Module, name: str) -> str | None:
    own = name == OUTPUT and name not in dict(network.named_modules())
    return None if own else name


def _named(progress: Progress, what: str) -> Progress:
    return lambda done, total, _what: progress(done, total, what)


def _figures(
    target: str, layer: str, report: ReconstructionReport, confidence: float, error: float, seconds: float
) -> Reconstruction:
    n = report.n_records
    share = Figure(report.n_identified / n, *clopper_pearson(report.n_identified, n, confidence), CONFIDENCE)
    return Reconstruction(
        target,
        layer,
        n,
        share,
        float((1 / report.n_candidates).mean()),
        _mean_psnr(report.psnr),
        _mean_psnr(report.neighbour_psnr),
        _mean_psnr(report.class_mean_psnr),
        None if report.ssim is None else float(report.ssim.mean()),
        error,
        seconds,
    )


def _mean_psnr(values: Array) -> float:
    return float(np.minimum(values, MOST_PSNR).mean())


def _panel(
    title: str,
    found: Tensor,
    originals: Records,
    members: Records,
    nonmembers: Records,
    report: ReconstructionReport,
    limits: tuple[float, float],
) -> InversionPanel:
    low, high = limits

    def shown(x: Tensor) -> np.ndarray:
        values: np.ndarray = ((x.detach().cpu().double() - low) / (high - low)).clamp(0, 1).numpy()
        return values

    numbers = {"PSNR (dB)": report.psnr.tolist()}
    if report.ssim is not None:
        numbers["SSIM"] = report.ssim.tolist()
    return InversionPanel(
        title,
        shown(found),
        shown(originals.x),
        shown(_nearest(found, members)),
        shown(_nearest(found, nonmembers)),
        {"originals": numbers},
    )


def _nearest(found: Tensor, records: Records) -> Tensor:
    """The record nearest to each reconstruction, the original among them if it is a member."""
    distances = torch.cdist(found.detach().cpu().double().flatten(1), records.x.cpu().double().flatten(1))
    return records.x.cpu()[distances.argmin(dim=1)]
