"""What each layer's representation gives away of a picture, and the first two layers' with noise on them.

    python -m benchmarks.inversion [--quick] [--data-root DIR] [--steps 500] [--json FILE] [--plot FILE]

On scikit-learn's digits with a small convolutional network, and on CIFAR-10 with CIFAR-Net where --data-root has it.
The pictures are training records; the search starts at the mean of the held-out ones. Beside the inversion stands what
needs no attack: the mean of the class, and the held-out picture nearest to the original, which one must know the
original to choose. Pruned networks are benchmarks/inversion_pruning.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import machine_facts
from privkernels import _files, inference, models
from privkernels.attacks.inversion import Inversion, InversionSettings, invert, representation_at
from privkernels.attacks.similarity import ReconstructionReport, reconstruction_report, ssim
from privkernels.audit.intervals import clopper_pearson
from privkernels.data import DataSet, Records, load
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, fit_stacked

# Which is best depends on layer and noise; of each row it is the one with the greatest mean PSNR. That choice needs the
# originals, so the attack is favoured.
TV_WEIGHTS = (0.03, 0.3, 1.0)
NOISE = 0.5  # standard deviation of the noise, in standard deviations of the representation


@dataclass(frozen=True)
class Study:
    """One network on one data set.

    Attributes:
        data: train is what the network is trained on; pictures are its first records.
        layers: the label of each layer to invert, and its name in the network.
        images: pictures to invert.
    """

    data: DataSet
    make_model: Callable[[], nn.Module]
    training: TrainingConfig
    layers: dict[str, str]
    images: int


def digits_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def studies(quick: bool, data_root: Path | None) -> list[Study]:
    images = 2 if quick else 24
    found = [
        Study(
            load("digits"),
            digits_network,
            TrainingConfig(epochs=1 if quick else 20, batch_size=32, learning_rate=0.05),
            {"convolution 1": "1", "pooling": "4", "dense 1": "7", "logits": "8"},
            images,
        )
    ]
    if data_root is not None:
        cifar = load("cifar-10", data_root)
        records = cifar.train.subset(range(500 if quick else 5000))
        found.append(
            Study(
                DataSet(cifar.name, records, cifar.test.subset(range(5000))),
                lambda: models.build("cifar-net"),
                TrainingConfig(epochs=1 if quick else 8, batch_size=64, learning_rate=0.02),
                {"convolution 1": "features.1", "pooling 1": "features.4", "pooling 2": "features.10",
                 "dense 1": "classifier.2", "logits": "classifier.4"},
                images // 3,
            )
        )  # fmt: skip
    return found


def trained(study: Study, key: Key) -> nn.Module:
    with models.seeded(key.seed_for("initialisation")):
        module = study.make_model()
    everything = [torch.arange(len(study.data.train))]
    seeds = [key.seed_for("training")]
    states = fit_stacked(study.make_model, module.state_dict(), study.data.train, everything, study.training, seeds)
    module.load_state_dict(states[0])
    return module


def run(study: Study, settings: InversionSettings) -> tuple[dict[str, Any], list[tuple[str, Tensor]]]:
    """The figures, and the rows of the picture: a label and pictures [images, channels, height, width] each."""
    key = Key.from_seed(0).derive(study.data.name)
    module, train, heldout = trained(study, key), study.data.train, study.data.test
    originals = train.subset(range(study.images))
    rows, shown = [], [("original", originals.x)]
    for index, (label, layer) in enumerate(study.layers.items()):
        with torch.no_grad():
            seen = representation_at(module, layer)(originals.x)
        noise = torch.randn(seen.shape, generator=key.generator(f"noise/{label}"))
        for share in (0.0, NOISE) if index < 2 else (0.0,):
            observed = seen + share * seen.std() * noise
            found, report, weight = best_of(module, layer, observed, originals, study.data, settings)
            numbers = figures(report, found.relative_error, found.steps)
            rows.append({"layer": label, "noise": share, "tv_weight": weight, **numbers})
            print(study.data.name, rows[-1], flush=True)
            what = f"{label}, noise" if share else label
            shown.append((f"{what}\n{report.psnr.mean():.1f} dB, {report.n_identified}/{study.images}", found.x))
    without_attack = report.class_mean_psnr, report.neighbour_psnr
    shown += [
        (f"{name}\n{values.mean():.1f} dB", pictures)
        for name, values, pictures in zip(
            ("class mean", "nearest other"), without_attack, control_pictures(originals, heldout), strict=True
        )
    ]
    result = {
        "data": study.data.name,
        "network": type(module).__name__,
        "training_records": len(train),
        "heldout_records": len(heldout),
        "train_accuracy": round(inference.accuracy(module, train), 4),
        "test_accuracy": round(inference.accuracy(module, heldout), 4),
        "images": study.images,
        **controls(report, originals, heldout),
        "rows": rows,
    }
    return result, shown


def best_of(
    module: nn.Module,
    layer: str,
    observed: Tensor,
    originals: Records,
    data: DataSet,
    settings: InversionSettings,
    weights: Sequence[float] = TV_WEIGHTS,
) -> tuple[Inversion, ReconstructionReport, float]:
    """The reconstructions with the best of ``weights`` by mean PSNR, and that weight."""
    start = data.test.x.mean(dim=0)
    tried = []
    for weight in weights:
        chosen = replace(settings, tv_weight=weight)
        found = invert(module, observed, originals.x.shape[1:], layer=layer, start=start, settings=chosen)
        tried.append((found, reconstruction_report(found.x, originals, data.train, data.test), weight))
    return max(tried, key=lambda one: float(one[1].psnr.mean()))


def figures(report: ReconstructionReport, relative_error: Any, steps: int) -> dict[str, Any]:
    low, high = clopper_pearson(report.n_identified, report.n_records)
    return {
        "psnr": mean(report.psnr),
        "psnr_se": standard_error(report.psnr),
        "ssim": mean(report.ssim),
        "ssim_se": standard_error(report.ssim),
        "identified": report.n_identified,
        "identified_low": round(low, 4),
        "identified_high": round(high, 4),
        "candidates": int(report.n_candidates.min()),
        "beyond_neighbour": report.n_beyond_neighbour,
        "distance_to_original": mean(report.distance_to_original),
        "distance_to_train": mean(report.distance_to_train),
        "distance_to_heldout": mean(report.distance_to_heldout),
        "relative_error": float(f"{np.median(relative_error):.2g}"),
        "steps": steps,
    }


def controls(report: ReconstructionReport, originals: Records, heldout: Records) -> dict[str, float]:
    """What needs no attack; "neighbour" is the held-out picture nearest to the original."""
    similarity = ssim(control_pictures(originals, heldout)[1], originals.x)
    return {
        "mean_image_psnr": mean(report.mean_image_psnr),
        "class_mean_psnr": mean(report.class_mean_psnr),
        "neighbour_psnr": mean(report.neighbour_psnr),
        "neighbour_psnr_se": standard_error(report.neighbour_psnr),
        "neighbour_ssim": mean(similarity),
        "neighbour_ssim_se": standard_error(similarity),
    }


def mean(values: Any) -> float:
    return float(f"{np.mean(values):.4g}")


def standard_error(values: Any) -> float:
    """Of the mean over pictures; of one network it says nothing about others."""
    return float(f"{np.std(values, ddof=1) / np.sqrt(len(values)):.2g}")


def control_pictures(originals: Records, heldout: Records) -> tuple[Tensor, Tensor]:
    means = torch.stack([heldout.x[heldout.y == label].mean(dim=0) for label in range(heldout.n_classes)])
    nearest = torch.cdist(originals.x.flatten(1), heldout.x.flatten(1)).argmin(dim=1)
    return means[originals.y], heldout.x[nearest]


def plot(panels: list[tuple[str, list[tuple[str, Tensor]]]], file: Path, columns: int = 6) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    height = max(len(rows) for _, rows in panels)
    figure = plt.figure(figsize=(5.6 * len(panels), 0.62 * height + 0.5), layout="constrained")
    for panel, (title, rows) in zip(figure.subfigures(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel.suptitle(title, fontsize=11)
        grid = panel.subplots(len(rows), columns, squeeze=False)
        for axes, (label, pictures) in zip(grid, rows, strict=True):
            axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.5)
            for ax, picture in zip(axes, pictures, strict=False):
                ax.imshow(picture.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
            for ax in axes:
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    parser.add_argument("--data-root", type=Path, help="a folder with CIFAR-10")
    parser.add_argument("--steps", type=int, default=InversionSettings().steps)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    settings = InversionSettings(steps=5 if options.quick else options.steps)
    results: list[dict[str, Any]] = []
    panels: list[tuple[str, list[tuple[str, Tensor]]]] = []
    for study in studies(options.quick, options.data_root):
        result, shown = run(study, settings)
        results.append(result)
        panels.append((study.data.name, shown))
    if options.json:
        _files.write_json(
            options.json,
            {
                "benchmark": "inversion",
                "steps": settings.steps,
                "learning_rates": list(settings.learning_rates),
                "tv_weights": list(TV_WEIGHTS),
                "alpha_weight": settings.alpha_weight,
                "machine": machine_facts(torch.device("cpu")),
                "studies": results,
            },
        )
    if options.plot:
        plot(panels, options.plot)


if __name__ == "__main__":
    main()
