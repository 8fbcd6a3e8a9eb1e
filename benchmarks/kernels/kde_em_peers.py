"""What a user would run instead of kde_em: torch, and SciPy, KDEpy, numba and KeOps where they are installed.

torch's ways (and KeOps's and numba's) are Eq. 3 as one would write it, two error functions for each member and grid
point. SciPy and KDEpy give the density, which times the width of the window stands for its integral.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import gaussian_kde
from threadpoolctl import threadpool_limits

from benchmarks.case import Peer
from benchmarks.timing import Contender, interleaved
from privkernels.ops import kde_grid

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Task:
    """Inputs theta [M, N], lo, hi and bandwidth (each [N] or 0-dim), and the numbers that are the same for all."""

    inputs: Inputs
    multiplier: float
    window_ratio: float
    grid_points: int

    @property
    def size(self) -> int:
        return self.inputs["theta"].shape[1]

    def first(self, count: int) -> Task:
        """The first ``count`` parameters, with range and bandwidth for each."""
        inputs = per_parameter(first(self.inputs, count))
        return Task(inputs, self.multiplier, self.window_ratio, self.grid_points)


def first(inputs: Inputs, count: int) -> Inputs:
    return {name: value[..., :count].contiguous() if value.dim() else value for name, value in inputs.items()}


def per_parameter(inputs: Inputs) -> Inputs:
    """With 0-dim values repeated for every parameter."""
    theta = inputs["theta"]
    return {
        name: value if value.dim() else value.to(theta.device).repeat(theta.shape[1]) for name, value in inputs.items()
    }


def make_peers(task: Task, every: bool, quick: bool) -> tuple[list[Peer], list[str]]:
    """The ways, and the names of libraries that are not installed.

    Args:
        every: also those that compile, and KDEpy; else a read, torch eager and SciPy.
        quick: fewer parameters.
    """
    theta = task.inputs["theta"]
    on_gpu = theta.is_cuda
    peers = [Peer("bare read of the members", lambda: theta.sum(), threaded=True)]
    most = 64 if quick else 196_608 if on_gpu else 1024  # a multiple of every chunk size
    few = task.first(min(task.size, most * 256 // max(256, task.grid_points)))
    peers.append(torch_peer("torch eager", torch_draw, few, task.size))
    if every:
        peers.append(torch_peer("torch.compile", compiled_draw(), few, task.size))
    if on_gpu:
        return peers, []
    fewer = task.first(min(task.size, 10 if quick else 100))
    share = fewer.size / task.size
    peers.append(Peer("scipy.stats.gaussian_kde", partial(scipy_draw, fewer), share))
    if not every:
        return peers, []
    others = {"KDEpy": kdepy_draw(fewer), "numba": numba_draw(few), "KeOps": keops_draw(few)}
    names = {"KDEpy": "KDEpy FFTKDE", "numba": "numba, loops over erf", "KeOps": "KeOps (scores), torch (draw)"}
    for library, run in others.items():
        if run is not None:
            part = fewer.size if library == "KDEpy" else few.size
            peers.append(Peer(names[library], run, part / task.size))
    return peers, [library for library, run in others.items() if run is None]


# --- torch ---


def torch_scores(theta: torch.Tensor, grid: torch.Tensor, bandwidth: torch.Tensor, ratio: float) -> torch.Tensor:
    """Eq. 3 as one would write it: theta [M, n], grid [n, R], bandwidth [n] -> [n, R]."""
    x = (grid - theta.unsqueeze(2)) / (bandwidth.unsqueeze(1) * math.sqrt(2))
    half = ratio / (2 * math.sqrt(2))
    return (torch.erf(x + half) - torch.erf(x - half)).mean(0) / 2


def draw_from(scores: torch.Tensor, grid: torch.Tensor, uniform: torch.Tensor, multiplier: float) -> torch.Tensor:
    """Softmax and inverse CDF, float32, one uniform [n, 1] for each parameter."""
    cumulative = torch.softmax(multiplier * scores, dim=1).cumsum(1)
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])
    return grid.gather(1, index.clamp_max(grid.shape[1] - 1)).squeeze(1)


def torch_draw(
    theta: torch.Tensor, grid: torch.Tensor, bandwidth: torch.Tensor, uniform: torch.Tensor, multiplier: float,
    ratio: float,
) -> torch.Tensor:  # fmt: skip
    return draw_from(torch_scores(theta, grid, bandwidth, ratio), grid, uniform, multiplier)


@functools.cache
def compiled_draw() -> Callable[..., torch.Tensor]:
    compiled: Callable[..., torch.Tensor] = torch.compile(torch_draw, fullgraph=True, dynamic=False)
    return compiled


def in_chunks(draw: Callable[..., torch.Tensor], task: Task, chunk: int) -> torch.Tensor:
    """The draw for all parameters, ``chunk`` at a time: [M, chunk, R] must stay in a cache."""
    theta, lo, hi, bandwidth = (task.inputs[name] for name in ("theta", "lo", "hi", "bandwidth"))
    pieces = []
    for begin in range(0, theta.shape[1], chunk):
        part = slice(begin, begin + chunk)
        grid = kde_grid(lo[part], hi[part], task.grid_points)
        uniform = torch.rand(len(grid), 1, device=theta.device)
        pieces.append(draw(theta[:, part], grid, bandwidth[part], uniform, task.multiplier, task.window_ratio))
    return torch.cat(pieces)


def torch_peer(name: str, draw: Callable[..., torch.Tensor], few: Task, size: int) -> Peer:
    """With the fastest of a few chunk sizes, found on one thread."""
    on_gpu = few.inputs["theta"].is_cuda
    chunks = [chunk for chunk in ((1024, 4096, 16384) if on_gpu else (16, 64, 256, 1024)) if chunk <= few.size]
    trials = [Contender(str(chunk), partial(in_chunks, draw, few, chunk), few.size) for chunk in chunks or [few.size]]
    timed = interleaved(trials, 1, few.inputs["theta"].device) if len(trials) > 1 else []
    chunk = int(min(timed, key=lambda timing: timing.wall_ns).name) if timed else int(trials[0].name)
    run = partial(in_chunks, draw, few, chunk)
    return Peer(f"{name} (erf), chunks of {chunk}", run, few.size / size, threaded=True)


# --- others ---


def scipy_draw(task: Task) -> list[float]:
    """gaussian_kde evaluated on each parameter's grid."""

    def density(values: np.ndarray, grid: np.ndarray, b: float) -> Any:
        return gaussian_kde(values, bw_method=b / values.std(ddof=1))(grid)

    # One BLAS thread: SciPy solves a 1 x 1 system for each grid, and waking threads for it costs more.
    with threadpool_limits(1):
        return draw_by_density(task, density)


def draw_by_density(task: Task, density: Callable[[np.ndarray, np.ndarray, float], Any]) -> list[float]:
    """One draw for each parameter, from density(members [M], grid [R], bandwidth) on a grid of its own."""
    inputs = task.inputs
    grids = kde_grid(inputs["lo"], inputs["hi"], task.grid_points).double().numpy()
    columns = np.ascontiguousarray(inputs["theta"].double().numpy().T)
    rng = np.random.default_rng(1)
    drawn = []
    for values, grid, b in zip(columns, grids, inputs["bandwidth"].tolist(), strict=True):
        logits = task.multiplier * density(values, grid, b) * (task.window_ratio * b)
        weights = np.exp(logits - logits.max())
        drawn.append(float(rng.choice(grid, p=weights / weights.sum())))
    return drawn


def optional(name: str) -> Any:
    """The module, or None where it is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def kdepy_draw(task: Task) -> Callable[[], list[float]] | None:
    """KDEpy's FFT, on a grid wider than all members, as it wants one, read at the task's grid."""
    module = optional("KDEpy")
    if module is None:
        return None

    def density(values: np.ndarray, grid: np.ndarray, b: float) -> Any:
        low, high = min(values.min(), grid[0]) - 3 * b, max(values.max(), grid[-1]) + 3 * b
        points = np.linspace(low, high, len(grid))
        return np.interp(grid, points, module.FFTKDE(bw=b).fit(values).evaluate(points))

    return lambda: draw_by_density(task, density)


def numba_draw(task: Task) -> Callable[[], object] | None:
    numba = optional("numba")
    if numba is None:
        return None

    def draw(  # the arrays' types are numba's to find
        theta: Any, lo: Any, hi: Any, bandwidth: Any, uniform: Any, points: int, multiplier: float, ratio: float
    ) -> Any:
        members, size = theta.shape
        out = np.empty(size, np.float32)
        for j in range(size):
            cumulative = np.empty(points)
            total, scale, half = 0.0, 1 / (bandwidth[j] * math.sqrt(2)), ratio / (2 * math.sqrt(2))
            step = (hi[j] - lo[j]) / (points - 1)
            for k in range(points):
                score = 0.0
                for i in range(members):
                    x = (lo[j] + k * step - theta[i, j]) * scale
                    score += math.erf(x + half) - math.erf(x - half)
                total += math.exp(multiplier * score / (2 * members))
                cumulative[k] = total
            index = np.searchsorted(cumulative, uniform[j] * total)
            out[j] = lo[j] + min(index, points - 1) * step
        return out

    compiled = numba.njit(draw)
    arrays = [task.inputs[name].numpy() for name in ("theta", "lo", "hi", "bandwidth")]
    rng = np.random.default_rng(1)
    return lambda: compiled(*arrays, rng.random(task.size), task.grid_points, task.multiplier, task.window_ratio)


def keops_draw(task: Task) -> Callable[[], torch.Tensor] | None:
    """The scores as one reduction over the members, without a [n, R, M] array; the draw is torch's. KeOps has no
    error function, so the density stands for its integral, as with SciPy."""
    if optional("pykeops") is None:
        return None
    lazy = importlib.import_module("pykeops.torch").LazyTensor
    theta, lo, hi, bandwidth = (task.inputs[name] for name in ("theta", "lo", "hi", "bandwidth"))
    columns = theta.T.contiguous()

    def run() -> torch.Tensor:
        grid = kde_grid(lo, hi, task.grid_points)
        scale = 1 / bandwidth.unsqueeze(1)
        x, y = (grid * scale)[:, :, None, None], (columns * scale)[:, None, :, None]
        density = (-((lazy(x) - lazy(y)) ** 2).sum(-1) / 2).exp().sum(dim=2).squeeze(-1)
        scores = density * (task.window_ratio / (math.sqrt(2 * math.pi) * theta.shape[0]))
        return draw_from(scores, grid, torch.rand(len(grid), 1), task.multiplier)

    return run
