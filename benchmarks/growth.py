"""How a kernel's cost grows with its sizes: M, R and N of kde_em, N of the others.

    python -m benchmarks.growth [--quick] [--kernel NAME ...] [--rounds 3] [--device cpu] [--json FILE] [--plot FILE]

One thread; CPU time (elapsed on a GPU), medians of interleaved rounds. A straight line of slope 1 in the plot is a cost
in proportion to the size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernels import em_select, kde_em, noise_add, randomized_response
from benchmarks.timing import Contender, interleaved, machine_facts
from privkernels import _files
from privkernels.ops import kmeans1d, mask_sum_, prune_mask

Maker = Callable[[int, torch.device], Callable[[], object]]


@dataclass(frozen=True)
class Series:
    """One curve: the cost of ``make(value, device)()`` at every value of ``axis``.

    Attributes:
        kernel, axis: what grows: "M", "R" or "N".
        fixed: the sizes that do not.
        values: increasing.
        make: prepares a job; what it returns is timed.
    """

    kernel: str
    axis: str
    fixed: str
    values: tuple[int, ...]
    make: Maker


def of_kde_em(members: int, grid_points: int, size: int, device: torch.device) -> Callable[[], object]:
    setting = kde_em.Setting(members=members, grid_points=grid_points)
    return partial(kde_em.ours, kde_em.make_inputs(setting, size, device), setting)


def of_em_select(mechanism: str) -> Maker:
    return lambda n, device: partial(em_select.ours, em_select.make_scores((n,), "alike", device), mechanism)


def of_noise_add(distribution: Any) -> Maker:
    return lambda n, device: partial(noise_add.ours, torch.zeros(n, device=device), distribution, 2.0**20)


def of_randomized_response(n: int, device: torch.device) -> Callable[[], object]:
    return partial(randomized_response.ours, randomized_response.make_values(n, device))


def of_prune(n: int, device: torch.device) -> Callable[[], object]:
    return partial(prune_mask, normal(n, device), sparsity=0.9)


def of_kmeans1d(n: int, device: torch.device) -> Callable[[], object]:
    return partial(kmeans1d, normal(n, device), 16, method="lloyd")


def of_mask_sum(n: int, device: torch.device) -> Callable[[], object]:
    seeds = torch.randint(0, 256, (10, 32), dtype=torch.uint8, device=device)
    return partial(mask_sum_, torch.zeros(n, dtype=torch.int32, device=device), seeds, [1, -1] * 5)


def normal(n: int, device: torch.device) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0)).to(device)


def all_series(quick: bool) -> list[Series]:
    size = 256 if quick else 4096
    members = (2, 8, 50) if quick else (2, 4, 8, 16, 32, 50, 100, 200, 500, 1000)
    points = (2, 256, 4096) if quick else tuple(2**i for i in range(1, 17))
    sizes = tuple(10**i for i in range(2, 5 if quick else 7))
    wide, narrow = f"M = 50, N = {size}", f"R = 256, N = {size}"
    return [
        Series("kde_em", "M", narrow, members, lambda m, device: of_kde_em(m, 256, size, device)),
        Series("kde_em", "R", wide, points, lambda r, device: of_kde_em(50, r, size, device)),
        Series("kde_em", "N", "M = 50, R = 256", sizes, lambda n, device: of_kde_em(50, 256, n, device)),
        Series("em_select", "N", "exponential mechanism", sizes, of_em_select("exponential")),
        Series("em_select", "N", "permute-and-flip", sizes, of_em_select("permute-and-flip")),
        Series("noise_add", "N", "Laplace, s = 2^20", sizes, of_noise_add("laplace")),
        Series("noise_add", "N", "Gaussian, s = 2^20", sizes, of_noise_add("gaussian")),
        Series("randomized_response", "N", "K = 10", sizes, of_randomized_response),
        Series("prune", "N", "mask, sparsity 0.9", sizes, of_prune),
        Series("kmeans1d", "N", "k = 16, Lloyd", sizes, of_kmeans1d),
        Series("mask_sum", "N", "10 seeds, int32", sizes, of_mask_sum),
    ]


def measure(series: Series, rounds: int, device: torch.device) -> dict[str, Any]:
    ways = [Contender(str(value), series.make(value, device), 1) for value in series.values]
    timed = interleaved(ways, rounds, device)
    nanoseconds = [timing.wall_ns if device.type == "cuda" else timing.cpu_ns for timing in timed]
    return {
        "kernel": series.kernel,
        "axis": series.axis,
        "fixed": series.fixed,
        "values": list(series.values),
        "seconds": [float(f"{value * 1e-9:.4g}") for value in nanoseconds],
    }


def plot(curves: list[dict[str, Any]], file: Path) -> None:
    """A panel for each axis, logarithmic both ways."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    axes_used = [axis for axis in ("M", "R", "N") if any(curve["axis"] == axis for curve in curves)]
    figure, panels = plt.subplots(1, len(axes_used), figsize=(4.2 * len(axes_used), 3.8), squeeze=False)
    for panel, axis in zip(panels[0], axes_used, strict=True):
        for curve in curves:
            if curve["axis"] == axis:
                label = f"{curve['kernel']}, {curve['fixed']}"
                panel.loglog(curve["values"], curve["seconds"], marker="o", markersize=3, label=label)
        panel.set_xlabel(axis)
        panel.set_ylabel("seconds, one thread")
        panel.grid(True, which="major", linewidth=0.4)
        panel.legend(fontsize=6.5)
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="how cost grows with M, R and N")
    names = sorted({series.kernel for series in all_series(quick=True)})
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that all of it runs")
    parser.add_argument("--kernel", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG file")
    arguments = parser.parse_args(words)
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no CUDA device")
    device = torch.device(arguments.device)
    curves = []
    for series in all_series(arguments.quick):
        if series.kernel in arguments.kernel:
            curves.append(curve := measure(series, arguments.rounds, device))
            points = (f"{n:,}: {s:.3g} s" for n, s in zip(curve["values"], curve["seconds"], strict=True))
            print(f"{series.kernel}, {series.fixed}, {series.axis} = " + "; ".join(points))
    if arguments.json is not None:
        result = {"benchmark": "growth", "machine": machine_facts(device), "curves": curves}
        _files.write_json(arguments.json, result)
    if arguments.plot is not None:
        plot(curves, arguments.plot)


if __name__ == "__main__":
    main()
