"""randomized_response beside OpenDP and torch: K-ary randomised response of a vector of values.

    python -m benchmarks.kernels.randomized_response [--elements 1000000] [--rounds 5] [--device cpu] [--json FILE]

K = 10, epsilon = 1. The law is checked before anything is timed. All contenders run interleaved in one process;
OpenDP, which is called once for each value, does fewer. Ratios are of CPU time per value on one thread (on a GPU, and
for several threads: of elapsed time). The torch way takes 24-bit uniforms from a generator that can be predicted, so
it is not private to the epsilon that it is written for.
"""

from __future__ import annotations

import argparse
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.libraries import opendp
from benchmarks.timing import Contender, Timing, interleaved, machine_facts
from privkernels import _files
from privkernels.ops import randomized_response, randomized_response_law
from privkernels.randomness import Key

CATEGORIES, EPSILON = 10, 1.0
KEEP = math.exp(EPSILON) / (math.exp(EPSILON) + CATEGORIES - 1)
KEY = Key.from_seed(0)
ERROR_RATE = 1e-6  # that the check refuses a right result


def ours(values: torch.Tensor) -> torch.Tensor:
    return randomized_response(values, categories=CATEGORIES, epsilon=EPSILON, key=KEY, label="benchmark")


def torch_response(values: torch.Tensor) -> torch.Tensor:
    keep = torch.rand(values.shape, device=values.device) < KEEP
    other = torch.randint(0, CATEGORIES - 1, values.shape, device=values.device)
    return torch.where(keep, values, other + (other >= values))


def check(device: torch.device) -> dict[str, float]:
    """Compare the frequency of every pair of value and output with the law; ends the program when it is wrong."""
    law = randomized_response_law(CATEGORIES, EPSILON)
    values = torch.arange(200_000) % CATEGORIES
    pairs = values * CATEGORIES + ours(values.to(device)).cpu()
    counts = np.bincount(pairs.numpy(), minlength=CATEGORIES**2)
    wanted = [float(law.probability(v, y)) for v in range(CATEGORIES) for y in range(CATEGORIES)]
    p_value = float(stats.chisquare(counts, np.array(wanted) * len(values) / CATEGORIES).pvalue)
    if p_value < ERROR_RATE or law.epsilon > EPSILON or abs(float(law.keep) - KEEP) > 1e-12:
        sys.exit(f"the results are wrong: chi-square p = {p_value:.2e}, epsilon {law.epsilon}, keep {float(law.keep)}")
    return {"p_value": p_value, "implemented_epsilon": law.epsilon}


def make_contenders(elements: int, device: torch.device) -> list[Contender]:
    values = torch.randint(0, CATEGORIES, (elements,), generator=torch.Generator().manual_seed(0)).to(device)
    result = [Contender("randomized_response, 1 thread", lambda: ours(values), elements)]
    threads = torch.get_num_threads()
    if threads > 1 and device.type == "cpu":
        result.append(Contender(f"randomized_response, {threads} threads", lambda: ours(values), elements, threads))
    result.append(Contender("torch (not private)", lambda: torch_response(values), elements))
    dp = opendp()
    if device.type == "cpu" and dp is not None:
        respond = dp.m.make_randomized_response(categories=list(range(CATEGORIES)), prob=KEEP)
        few = values[: min(elements, 500)].tolist()
        result.append(Contender("OpenDP make_randomized_response", lambda: [respond(v) for v in few], len(few)))
    return result


def show(timings: list[Timing], on_gpu: bool) -> list[dict[str, Any]]:
    """Print the table; returns it with each time as a multiple of ours."""
    own = timings[0]
    rows = []
    print(f"{'':<40}{'wall ns':>14}{'cpu ns':>14}{'times ours':>12}   per value")
    for timing in timings:
        # More threads are compared by elapsed time, one thread by CPU time, which others disturb less.
        by_wall = on_gpu or timing.threads > 1
        ratio = timing.wall_ns / own.wall_ns if by_wall else timing.cpu_ns / own.cpu_ns
        rows.append({**timing.to_dict(), "times_ours": round(ratio, 4)})
        print(f"{timing.name:<40}{timing.wall_ns:>14,.2f}{timing.cpu_ns:>14,.2f}{ratio:>12,.2f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="randomized_response beside what a user would otherwise run")
    parser.add_argument("--elements", type=int, default=1_000_000, help="values")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.elements < 1 or arguments.rounds < 1:
        parser.error("--elements and --rounds are at least 1")
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no CUDA device")
    checked = check(device)
    facts = machine_facts(device)
    if opendp() is not None:
        facts["opendp"] = version("opendp")
    print(f"randomized_response: K = {CATEGORIES}, epsilon = {EPSILON}, N = {arguments.elements:,}")
    print(f"{facts.get('gpu', facts['processor'])}, {facts['instruction_set']}, torch {facts['torch']}")
    timings = interleaved(make_contenders(arguments.elements, device), arguments.rounds, device)
    results = show(timings, device.type == "cuda")
    if arguments.json is not None:
        settings = {"categories": CATEGORIES, "epsilon": EPSILON, "elements": arguments.elements,
                    "rounds": arguments.rounds, "device": device.type}  # fmt: skip
        result = {"benchmark": "randomized_response", "machine": facts, "settings": settings, "check": checked}
        _files.write_json(arguments.json, {**result, "results": results})


if __name__ == "__main__":
    main()
