"""How often each statement of the audit claims a leak where there is none, and what the epsilon bound finds of one.

    python -m benchmarks.null_calibration [--runs 2000] [--sizes 200 1000 5000] [--json FILE]

For each size: audits of scores that are independent of membership, every second one with ties, with so many records
of each kind, canaries and runs. A valid statement claims a leak in at most its stated share of them. Then audits of
randomised response, which gives every canary its largest leak for an epsilon: how often a bound is above the truth
(at most 5 %), how often above 0, and its median.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import machine_facts
from privkernels import _files
from privkernels.audit.epsilon_bounds import one_run_bound
from privkernels.audit.self_test import DELTA, self_test

POWER_RUNS = 200
EPSILONS = (0.5, 1.0, 2.0, 4.0)


def power(size: int, epsilon: float, runs: int) -> dict[str, float]:
    """The one-run bound on randomised response of ``size`` canaries with this epsilon."""
    rng, right = np.random.default_rng(size), 1 / (1 + np.exp(-epsilon))
    bounds = []
    for run in range(runs):
        included = rng.random(size) < 0.5
        told = included ^ (rng.random(size) >= right)
        bounds.append(one_run_bound(told.astype(np.float64), included, DELTA, seed=run).epsilon)
    return {
        "canaries": size,
        "epsilon": epsilon,
        "runs": runs,
        "share above the truth": float(np.mean(np.array(bounds) > epsilon)),
        "share above 0": float(np.mean(np.array(bounds) > 0)),
        "median": float(np.median(bounds)),
    }


def main() -> int:
    """Run the audits, print the tables, and write them; 1 if a statement fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1000, 5000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tests: list[dict[str, Any]] = []
    found: list[dict[str, float]] = []
    passed = True
    for size in arguments.sizes:
        start = time.perf_counter()
        result = self_test(arguments.runs, arguments.seed, size=size)
        passed &= result.passed
        tests.append(result.to_dict() | {"passed": result.passed, "seconds": time.perf_counter() - start})
        print(f"{result}\n", flush=True)
        for epsilon in EPSILONS:
            row = power(size, epsilon, POWER_RUNS)
            found.append(row)
            print(
                f"randomised response, {size} canaries, epsilon {epsilon:g}: median bound {row['median']:.3f}, above "
                f"the truth in {row['share above the truth']:.1%}, above 0 in {row['share above 0']:.1%}",
                flush=True,
            )
        if arguments.json:
            facts = {"machine": machine_facts(torch.device("cpu")), "null": tests, "randomised response": found}
            _files.write_json(arguments.json, facts, public=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
