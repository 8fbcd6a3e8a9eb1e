"""kde_em beside a bare read, torch, SciPy, KDEpy, numba and KeOps: one draw per parameter from a density estimate.

Window = bandwidth, epsilon = 1 per draw. Range and bandwidth are each parameter's own, or public and 50 bandwidths
wide. The ways of others are in kde_em_peers.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.case import Case
from benchmarks.kernels import kde_em_peers as peers
from privkernels.ops import (
    kde_em,
    kde_em_accuracy,
    kde_em_probabilities_reference,
    kde_grid,
    kde_peak,
    kde_scores,
    kde_scores_reference,
)
from privkernels.randomness import Key

WINDOW_RATIO, EPSILON = 1.0, 1.0
KEY = Key.from_seed(0)


@dataclass(frozen=True)
class Setting:
    """M, R, whether range and bandwidth are public numbers or each parameter's own, work and epsilon of a draw."""

    members: int = 50
    grid_points: int = 256
    public: bool = False
    work: str = "lazy"
    epsilon: float = EPSILON

    @property
    def multiplier(self) -> float:
        return self.epsilon * self.members / (2 * kde_peak(WINDOW_RATIO))

    @property
    def name(self) -> str:
        kind = "public range 50 b wide" if self.public else "range and bandwidth per parameter"
        rest = ", fixed work" if self.work == "fixed" else ""
        rest += f", epsilon = {self.epsilon:g}" if self.epsilon != EPSILON else ""
        return f"M = {self.members}, R = {self.grid_points}, {kind}{rest}"


USUAL = Setting()
FIXED = Setting(work="fixed")
SETTINGS = (
    USUAL,
    Setting(grid_points=64),
    Setting(grid_points=1024),
    Setting(members=8),
    Setting(members=200),
    Setting(public=True),
    Setting(epsilon=0.1),
    Setting(epsilon=10.0),
    FIXED,
)


def cases(quick: bool, device: torch.device) -> list[Case]:
    return [make_case(setting, size_of(setting, quick, device), quick, device) for setting in SETTINGS]


def size_of(setting: Setting, quick: bool, device: torch.device) -> int:
    if quick:
        return 1024
    whole = 1_200_000 if device.type == "cuda" else 200_000
    return whole * 50 // max(50, setting.members)


def make_case(setting: Setting, size: int, quick: bool, device: torch.device) -> Case:
    inputs = make_inputs(setting, size, device)
    ends = 0 if setting.public else 3
    task = peers.Task(inputs, setting.multiplier, WINDOW_RATIO, setting.grid_points)
    # All peers at the usual setting; elsewhere those that do not take minutes to compile or to run.
    found, skipped = peers.make_peers(task, every=setting in (USUAL, FIXED) and not quick, quick=quick)
    return Case(
        kernel="kde_em",
        name=f"{setting.name}, N = {size:,}",
        size=size,
        run=partial(ours, inputs, setting),
        peers=found,
        check=partial(check, inputs, setting),
        bytes_moved=4 * size * (setting.members + ends) + 8 * size,
        bytes_written=8 * size,
        operations=size * operations_of(setting),
        skipped=skipped,
    )


def operations_of(setting: Setting) -> float:
    """Of one parameter, counted from the code: for each member two at each of 33 nodes half a bandwidth apart, 46 for
    its share in them, and 33 for its part in a score, of which there is one in a trial. With fixed work, two at each
    node (four to a bandwidth, and 11 on either side), 105 for its share in each 45 of them, 60 for each node and the
    point after it, and 45 for each grid point.
    """
    width = 50 if setting.public else 16
    if setting.work == "fixed":
        nodes = 4 * width + 23
        return setting.members * (105 * math.ceil(nodes / 45) + 2 * nodes) + 60 * nodes + 45 * setting.grid_points
    return setting.members * (math.ceil((2 * width + 1) / 33) * (2 * 33 + 46) + 33 * 1.4)


def make_inputs(setting: Setting, size: int, device: torch.device) -> peers.Inputs:
    """theta [M, N] of parameters as training leaves them; lo, hi and bandwidth [N], or numbers for all (0-dim)."""
    rng = torch.Generator().manual_seed(0)
    center = torch.randn(size, generator=rng) * 0.05
    spread = torch.tensor(0.02) if setting.public else 0.01 + 0.02 * torch.rand(size, generator=rng)
    theta = center + spread * torch.randn(setting.members, size, generator=rng)
    bandwidth = spread * 0.5
    if setting.public:
        inputs = {"theta": theta, "lo": -25 * bandwidth, "hi": 25 * bandwidth, "bandwidth": bandwidth}
    else:
        inputs = {"theta": theta, "lo": center - 4 * spread, "hi": center + 4 * spread, "bandwidth": bandwidth}
    return {name: value.to(device) if value.dim() else value for name, value in inputs.items()}


def ours(inputs: peers.Inputs, setting: Setting) -> torch.Tensor:
    lo, hi, bandwidth = (
        value if value.dim() else value.item() for value in (inputs[name] for name in ("lo", "hi", "bandwidth"))
    )
    return kde_em(
        inputs["theta"],
        lo=lo,
        hi=hi,
        bandwidth=bandwidth,
        multiplier=setting.multiplier,
        key=KEY,
        label="benchmark",
        window_ratio=WINDOW_RATIO,
        grid_points=setting.grid_points,
        work=setting.work,
    )[0]


def check(inputs: peers.Inputs, setting: Setting) -> float:
    """Scores and draws against the float64 reference, and torch's scores too; returns the largest error of a score."""
    few = min(2000, 2000 * 256 * 50 // (setting.grid_points * setting.members))
    sample = peers.first(inputs, few)
    every = peers.per_parameter(sample)
    grid = kde_grid(every["lo"], every["hi"], setting.grid_points)
    reference = kde_scores_reference(sample["theta"], grid, every["bandwidth"], WINDOW_RATIO)
    scores = kde_scores(**every, window_ratio=WINDOW_RATIO, grid_points=setting.grid_points)
    error = (scores - reference).abs().max().item()
    bound = kde_em_accuracy(
        setting.members, multiplier=setting.multiplier, window_ratio=WINDOW_RATIO, grid_points=setting.grid_points
    ).score_error
    eager = peers.torch_scores(sample["theta"], grid, every["bandwidth"], WINDOW_RATIO)
    eager_error = (eager - reference).abs().max().item()
    # The mean rank of the draws in their own laws: 1/2, with a standard error of 1/sqrt(12 n).
    probabilities = kde_em_probabilities_reference(reference, setting.multiplier)
    index = torch.searchsorted(grid, ours(sample, setting).unsqueeze(1)).clamp_max(setting.grid_points - 1)
    middle = probabilities.cumsum(1) - probabilities / 2
    rank = middle.gather(1, index).mean().item()
    deviation = abs(rank - 0.5) * math.sqrt(12 * len(index))
    if not (error <= bound and eager_error < 1e-4 and deviation < 5):
        raise AssertionError(
            f"score error {error:.2e} (bound {bound:.2e}), torch's {eager_error:.2e}, "
            f"mean rank {rank:.4f} ({deviation:.1f} standard errors from 1/2)"
        )
    return error
