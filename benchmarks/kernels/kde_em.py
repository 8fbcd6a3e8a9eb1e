"""kde_em beside a bare read, torch and SciPy: one draw per parameter from a kernel density estimate.

    python -m benchmarks.kernels.kde_em [--elements 200000] [--rounds 5] [--device cpu] [--compile] [--isas]
                                        [--json FILE]

M = 50 members, R = 256 grid points, window = bandwidth, epsilon = 1 per draw; range and bandwidth per
parameter. The results are compared with the float64 reference before anything is timed. All contenders run
interleaved in one process; the slow ones do fewer parameters. Ratios are of CPU time per parameter on one
thread (on a GPU, and for several threads: of elapsed time).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy.stats import gaussian_kde
from threadpoolctl import threadpool_limits

from benchmarks.timing import Contender, Timing, for_each_instruction_set, interleaved, machine_facts
from privkernels import _files
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

MEMBERS, GRID_POINTS, WINDOW_RATIO, EPSILON = 50, 256, 1.0, 1.0
MULTIPLIER = EPSILON * MEMBERS / (2 * kde_peak(WINDOW_RATIO))
KEY = Key.from_seed(0)
OURS = "kde_em, 1 thread"
Inputs = dict[str, torch.Tensor]


def make_inputs(elements: int, device: torch.device) -> Inputs:
    """theta [M, N] of parameters as training leaves them, each with its own range and bandwidth [N]."""
    rng = torch.Generator().manual_seed(0)
    center = torch.randn(elements, generator=rng) * 0.05
    spread = 0.01 + 0.02 * torch.rand(elements, generator=rng)
    theta = center + spread * torch.randn(MEMBERS, elements, generator=rng)
    inputs = {"theta": theta, "lo": center - 4 * spread, "hi": center + 4 * spread, "bandwidth": spread * 0.5}
    return {name: value.to(device) for name, value in inputs.items()}


def first(inputs: Inputs, count: int) -> Inputs:
    """The first ``count`` parameters."""
    return {name: value[..., :count].contiguous() for name, value in inputs.items()}


def ours(inputs: Inputs) -> torch.Tensor:
    return kde_em(
        inputs["theta"],
        lo=inputs["lo"],
        hi=inputs["hi"],
        bandwidth=inputs["bandwidth"],
        multiplier=MULTIPLIER,
        key=KEY,
        label="benchmark",
        window_ratio=WINDOW_RATIO,
        grid_points=GRID_POINTS,
    )[0]


def torch_scores(theta: torch.Tensor, grid: torch.Tensor, bandwidth: torch.Tensor) -> torch.Tensor:
    """Eq. 3 as one would write it: theta [M, n], grid [n, R], bandwidth [n] -> [n, R]."""
    x = (grid - theta.unsqueeze(2)) / (bandwidth.unsqueeze(1) * math.sqrt(2))
    half = WINDOW_RATIO / (2 * math.sqrt(2))
    return (torch.erf(x + half) - torch.erf(x - half)).mean(0) / 2


def torch_draw(theta: torch.Tensor, grid: torch.Tensor, bandwidth: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Softmax and inverse CDF, float32, one uniform [n, 1] for each parameter."""
    probabilities = torch.softmax(MULTIPLIER * torch_scores(theta, grid, bandwidth), dim=1)
    cumulative = probabilities.cumsum(1)
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])
    return grid.gather(1, index.clamp_max(GRID_POINTS - 1)).squeeze(1)


def in_chunks(draw: Callable[..., torch.Tensor], inputs: Inputs, chunk: int) -> torch.Tensor:
    """The draw for all parameters, ``chunk`` at a time: [M, chunk, R] must stay in a cache."""
    theta, lo, hi, bandwidth = (inputs[name] for name in ("theta", "lo", "hi", "bandwidth"))
    pieces = []
    for begin in range(0, theta.shape[1], chunk):
        part = slice(begin, begin + chunk)
        grid = kde_grid(lo[part], hi[part], GRID_POINTS)
        uniform = torch.rand(len(grid), 1, device=theta.device)
        pieces.append(draw(theta[:, part], grid, bandwidth[part], uniform))
    return torch.cat(pieces)


def scipy_draw(inputs: Inputs) -> list[float]:
    """gaussian_kde evaluated on each parameter's grid; the window becomes density times width."""
    drawn = []
    grids = kde_grid(inputs["lo"], inputs["hi"], GRID_POINTS).double().cpu()
    rng = torch.Generator().manual_seed(1)
    columns = inputs["theta"].double().cpu().T
    # One BLAS thread: SciPy solves a 1 x 1 system for each grid, and waking threads for it costs more.
    with threadpool_limits(1):
        for values, grid, b in zip(columns, grids, inputs["bandwidth"].tolist(), strict=True):
            density = gaussian_kde(values.numpy(), bw_method=b / values.std().item())
            scores = torch.from_numpy(density(grid.numpy())) * (WINDOW_RATIO * b)
            weights = torch.softmax(MULTIPLIER * scores, 0)
            drawn.append(grid[torch.multinomial(weights, 1, generator=rng)].item())
    return drawn


def check(inputs: Inputs) -> dict[str, float]:
    """Compare scores and draws with the float64 reference; ends the program when they are wrong."""
    sample = first(inputs, min(2000, inputs["theta"].shape[1]))
    lo, hi, bandwidth = sample["lo"], sample["hi"], sample["bandwidth"]
    grid = kde_grid(lo, hi, GRID_POINTS)
    reference = kde_scores_reference(sample["theta"], grid, bandwidth, WINDOW_RATIO)
    scores = kde_scores(
        sample["theta"], lo=lo, hi=hi, bandwidth=bandwidth, window_ratio=WINDOW_RATIO, grid_points=GRID_POINTS
    )
    error = (scores - reference).abs().max().item()
    bound = kde_em_accuracy(
        MEMBERS, multiplier=MULTIPLIER, window_ratio=WINDOW_RATIO, grid_points=GRID_POINTS
    ).score_error
    eager_error = (torch_scores(sample["theta"], grid, bandwidth) - reference).abs().max().item()
    # The mean rank of the draws in their own laws: 1/2, with a standard error of 1/sqrt(12 n).
    probabilities = kde_em_probabilities_reference(reference, MULTIPLIER)
    index = torch.searchsorted(grid, ours(sample).unsqueeze(1)).clamp_max(GRID_POINTS - 1)
    middle = probabilities.cumsum(1) - probabilities / 2
    rank = middle.gather(1, index).mean().item()
    deviation = abs(rank - 0.5) * math.sqrt(12 * len(index))
    if not (error <= bound and eager_error < 1e-4 and deviation < 5):
        sys.exit(
            f"the results are wrong: score error {error:.2e} (bound {bound:.2e}), torch's {eager_error:.2e}, "
            f"mean rank {rank:.4f} ({deviation:.1f} standard errors from 1/2)"
        )
    return {
        "score_error": error,
        "score_error_bound": bound,
        "torch_score_error": eager_error,
        "mean_rank": rank,
    }


def best_chunk(draw: Callable[..., torch.Tensor], inputs: Inputs, device: torch.device) -> int:
    """The fastest of a few chunk sizes, on one thread."""
    chunks = (16, 64, 256, 1024) if device.type == "cpu" else (1024, 4096, 16384)
    elements = inputs["theta"].shape[1]
    trials = [Contender(str(chunk), partial(in_chunks, draw, inputs, chunk), elements) for chunk in chunks]
    return int(min(interleaved(trials, 2, device), key=lambda timing: timing.wall_ns).name)


def make_contenders(inputs: Inputs, device: torch.device, compiled: bool) -> list[Contender]:
    elements = inputs["theta"].shape[1]
    on_gpu = device.type == "cuda"
    result = [Contender(OURS, lambda: ours(inputs), elements)]
    result.append(Contender("bare read of the members", lambda: inputs["theta"].sum(), elements))
    threads = torch.get_num_threads()
    if threads > 1 and not on_gpu:
        result.append(Contender(f"kde_em, {threads} threads", lambda: ours(inputs), elements, threads))
    few = first(inputs, min(elements, 196_608 if on_gpu else 1024))  # a multiple of every chunk size
    ways = [("torch eager", torch_draw)]
    if compiled:
        ways.append(("torch.compile", torch.compile(torch_draw, fullgraph=True, dynamic=False)))
    for name, draw in ways:
        chunk = best_chunk(draw, few, device)
        run = partial(in_chunks, draw, few, chunk)
        result.append(Contender(f"{name} (erf), chunks of {chunk}", run, few["theta"].shape[1]))
    fewer = first(inputs, min(elements, 100))
    result.append(Contender("scipy.stats.gaussian_kde", lambda: scipy_draw(fewer), fewer["theta"].shape[1]))
    return result


def each_instruction_set(elements: int, rounds: int) -> dict[str, float]:
    """CPU nanoseconds per parameter on one thread for every supported instruction set."""
    found = for_each_instruction_set("benchmarks.kernels.kde_em", elements, rounds)
    return {isa: timings[0]["cpu_ns_per_element"] for isa, timings in found.items()}


def show(timings: list[Timing], on_gpu: bool) -> list[dict[str, Any]]:
    """Print the table; returns it with each time as a multiple of ours."""
    own = next(timing for timing in timings if timing.name == OURS)
    rows = []
    print(f"{'':<44}{'wall ns':>16}{'cpu ns':>16}{'parameters/s':>15}{'times ours':>12}")
    for timing in timings:
        # More threads are compared by elapsed time, one thread by CPU time, which others disturb less.
        by_wall = on_gpu or timing.threads > 1
        ratio = timing.wall_ns / own.wall_ns if by_wall else timing.cpu_ns / own.cpu_ns
        rows.append({**timing.to_dict(), "times_ours": round(ratio, 4)})
        print(
            f"{timing.name:<44}{timing.wall_ns:>16,.1f}{timing.cpu_ns:>16,.1f}"
            f"{1e9 / timing.wall_ns:>15,.0f}{ratio:>12,.3f}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="kde_em beside what a user would otherwise run")
    parser.add_argument("--elements", type=int, default=200_000, help="parameters N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (needs a C++ compiler)")
    parser.add_argument("--isas", action="store_true", help="also every supported instruction set")
    parser.add_argument("--only-ours", action="store_true", help="time kde_em on one thread, and nothing else")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.elements < 1 or arguments.rounds < 1:
        parser.error("--elements and --rounds are at least 1")
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no CUDA device")
    inputs = make_inputs(arguments.elements, device)
    checked = check(inputs)
    if arguments.only_ours:
        contenders = [Contender(OURS, lambda: ours(inputs), arguments.elements)]
    else:
        contenders = make_contenders(inputs, device, arguments.compile)
    facts = machine_facts(device)
    settings = {
        "members": MEMBERS,
        "elements": arguments.elements,
        "grid_points": GRID_POINTS,
        "window_ratio": WINDOW_RATIO,
        "epsilon": EPSILON,
        "rounds": arguments.rounds,
        "device": device.type,
    }
    print(f"kde_em: M = {MEMBERS}, R = {GRID_POINTS}, window = b, N = {arguments.elements:,}")
    print(f"{facts.get('gpu', facts['processor'])}, {facts['instruction_set']}, torch {facts['torch']}")
    result = {
        "benchmark": "kde_em",
        "machine": facts,
        "settings": settings,
        "check": checked,
        "results": show(interleaved(contenders, arguments.rounds, device), device.type == "cuda"),
    }
    if arguments.isas:
        result["cpu_ns_per_element_by_instruction_set"] = each_instruction_set(arguments.elements, arguments.rounds)
        print(json.dumps(result["cpu_ns_per_element_by_instruction_set"]))
    if arguments.json is not None:
        _files.write_json(arguments.json, result)


if __name__ == "__main__":
    main()
