"""em_select beside OpenDP, diffprivlib and torch: private selection from a vector, or from every row of a matrix.

    python -m benchmarks.kernels.em_select [--candidates 1000000] [--rows 100000] [--rounds 5] [--device cpu]
                                           [--json FILE]

Multiplier 1 throughout: one draw from --candidates float32 scores, from --rows rows of 256, and by permute-and-flip
from a tenth of --candidates; for scores that are all alike (standard normal) and for one peak 30 above the others,
which is what samplers that end early take longest for. The laws are checked before anything is timed. All
contenders of a case run interleaved in one process; the slow ones do fewer candidates. Ratios are of CPU time per
candidate on one thread (on a GPU, and for several threads: of elapsed time). The two torch ways are what one would
write without privacy in mind: a float's uniform cannot give small probabilities, so neither is private.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.libraries import diffprivlib_mechanisms, opendp
from benchmarks.timing import Contender, Timing, interleaved, machine_facts
from privkernels import _files
from privkernels.ops import (
    em_select,
    em_select_accuracy,
    em_select_probabilities_reference,
    permute_and_flip_probabilities_reference,
)
from privkernels.randomness import Key

KEY = Key.from_seed(0)
COLUMNS, PEAK = 256, 30.0
ERROR_RATE = 1e-6  # that the check refuses a right result
Draw = Callable[[np.ndarray], object]


def ours(scores: torch.Tensor, mechanism: Any = "exponential") -> torch.Tensor:
    return em_select(scores, multiplier=1.0, key=KEY, label="benchmark", mechanism=mechanism)


def make_scores(shape: tuple[int, ...], kind: str, device: torch.device) -> torch.Tensor:
    if kind == "one peak":
        scores = torch.zeros(shape)
        scores[..., shape[-1] // 2] = PEAK
    else:
        scores = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return scores.to(device)


def check(device: torch.device) -> dict[str, float]:
    """Compare frequencies with the references, and the peak's index; ends the program when they are wrong."""
    scores = torch.linspace(-2, 2, 30)
    laws = {
        "exponential": em_select_probabilities_reference,
        "permute-and-flip": permute_and_flip_probabilities_reference,
    }
    result = {}
    for mechanism, law in laws.items():
        index = ours(scores.to(device).expand(50_000, -1), mechanism).cpu()
        counts = np.bincount(index.numpy(), minlength=30)
        p_value = float(stats.chisquare(counts, law(scores, 1.0).numpy() * 50_000).pvalue)
        peak = ours(make_scores((3001,), "one peak", device), mechanism).item()
        if p_value < ERROR_RATE or peak != 1500:
            sys.exit(f"the results are wrong: {mechanism}, chi-square p = {p_value:.2e}, index of the peak {peak}")
        result[f"p_value_{mechanism}"] = p_value
    result["total_variation_bound"] = em_select_accuracy(1_000_000).total_variation
    return result


def torch_gumbel(scores: torch.Tensor) -> torch.Tensor:
    return (scores - torch.empty_like(scores).exponential_().log()).argmax(-1)


def torch_multinomial(scores: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(torch.softmax(scores, -1), 1)


def opendp_draw(permute_and_flip: bool) -> Draw | None:
    """OpenDP's noisy max: the exponential mechanism for zCDP, permute-and-flip for pure DP."""
    dp = opendp()
    if dp is None:
        return None
    divergence = dp.max_divergence() if permute_and_flip else dp.zero_concentrated_divergence()
    domain = dp.vector_domain(dp.atom_domain(T=float, nan=False))
    measurement: Draw = dp.m.make_noisy_max(domain, dp.linf_distance(T=float), divergence, scale=1.0)
    return measurement


def diffprivlib_draw(permute_and_flip: bool) -> Draw | None:
    """diffprivlib's mechanism, built anew for each vector as its scores are given when it is built."""
    mechanisms = diffprivlib_mechanisms()
    if mechanisms is None:
        return None
    mechanism = mechanisms.PermuteAndFlip if permute_and_flip else mechanisms.Exponential
    return lambda scores: mechanism(epsilon=2.0, sensitivity=1.0, utility=scores.tolist()).randomise()


def for_rows(draw: Draw, scores: np.ndarray) -> None:
    for row in np.atleast_2d(scores):
        draw(row)


def make_contenders(scores: torch.Tensor, kind: str, mechanism: str) -> list[Contender]:
    count = scores.numel()
    flip = mechanism == "permute-and-flip"
    result = [Contender("em_select, 1 thread", lambda: ours(scores, mechanism), count)]
    if scores.device.type == "cpu":
        threads = torch.get_num_threads()
        if threads > 1:
            result.append(Contender(f"em_select, {threads} threads", lambda: ours(scores, mechanism), count, threads))
    result.append(Contender("bare read of the scores", lambda: scores.sum(), count))
    if not flip:
        result.append(Contender("torch, Gumbel and argmax (not private)", lambda: torch_gumbel(scores), count))
        if scores.shape[-1] <= 2**24:
            result.append(Contender("torch.multinomial (not private)", lambda: torch_multinomial(scores), count))
    if scores.device.type == "cuda":
        return result
    # diffprivlib removes rejected candidates from a list one by one, in quadratic time where few are accepted.
    limit = 10**4 if flip and kind == "one peak" else 10**5
    others = [
        ("OpenDP make_noisy_max", opendp_draw(flip), 10**6),
        ("diffprivlib PermuteAndFlip" if flip else "diffprivlib Exponential", diffprivlib_draw(flip), limit),
    ]
    for name, draw, most in others:
        if draw is None:
            continue
        rows = scores.dim() == 2
        few = scores[:200] if rows else make_scores((min(count, most),), kind, scores.device)
        result.append(Contender(name, partial(for_rows, draw, few.double().numpy()), few.numel()))
    return result


def show(timings: list[Timing], on_gpu: bool) -> list[dict[str, Any]]:
    """Print the table; returns it with each time as a multiple of ours."""
    own = timings[0]
    rows = []
    for timing in timings:
        # More threads are compared by elapsed time, one thread by CPU time, which others disturb less.
        by_wall = on_gpu or timing.threads > 1
        ratio = timing.wall_ns / own.wall_ns if by_wall else timing.cpu_ns / own.cpu_ns
        rows.append({**timing.to_dict(), "times_ours": round(ratio, 4)})
        print(f"  {timing.name:<42}{timing.wall_ns:>14,.2f}{timing.cpu_ns:>14,.2f}{ratio:>12,.2f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="em_select beside what a user would otherwise run")
    parser.add_argument("--candidates", type=int, default=1_000_000, help="scores of the long segment")
    parser.add_argument("--rows", type=int, default=100_000, help=f"rows of {COLUMNS} scores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.candidates < 10 or arguments.rows < 1 or arguments.rounds < 1:
        parser.error("--candidates is at least 10, --rows and --rounds at least 1")
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no CUDA device")
    checked = check(device)
    facts = machine_facts(device)
    for name in ("opendp", "diffprivlib"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            print(f"{name} is not installed: left out")
    print(f"em_select: {facts.get('gpu', facts['processor'])}, {facts['instruction_set']}, torch {facts['torch']}")
    print(f"{'':<44}{'wall ns':>14}{'cpu ns':>14}{'times ours':>12}   per candidate")
    results = {}
    shapes: list[tuple[str, tuple[int, ...], str]] = [
        ("one draw", (arguments.candidates,), "exponential"),
        ("one draw per row", (arguments.rows, COLUMNS), "exponential"),
        ("permute-and-flip", (arguments.candidates // 10,), "permute-and-flip"),
    ]
    for name, shape, mechanism in shapes:
        for kind in ("alike", "one peak"):
            case = f"{name}, {' x '.join(f'{n:,}' for n in shape)}, {kind}"
            print(case)
            contenders = make_contenders(make_scores(shape, kind, device), kind, mechanism)
            results[case] = show(interleaved(contenders, arguments.rounds, device), device.type == "cuda")
    if arguments.json is not None:
        settings = {"candidates": arguments.candidates, "rows": arguments.rows, "columns": COLUMNS, "multiplier": 1.0,
                    "peak": PEAK, "rounds": arguments.rounds, "device": device.type}  # fmt: skip
        result = {"benchmark": "em_select", "machine": facts, "settings": settings, "check": checked}
        _files.write_json(arguments.json, {**result, "results": results})


if __name__ == "__main__":
    main()
