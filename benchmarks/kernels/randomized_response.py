"""randomized_response beside OpenDP and torch: K-ary randomised response of a vector of values, K = 10, epsilon = 1.

OpenDP is called once for each value. The torch way takes 24-bit uniforms from a generator that can be predicted, so it
is not private to the epsilon that it is written for.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy import stats

from benchmarks.case import CHACHA20_OPERATIONS, Case, Peer
from benchmarks.libraries import opendp
from privkernels.ops import randomized_response, randomized_response_law
from privkernels.randomness import Key

CATEGORIES, EPSILON = 10, 1.0
KEEP = math.exp(EPSILON) / (math.exp(EPSILON) + CATEGORIES - 1)
KEY = Key.from_seed(0)
ERROR_RATE = 1e-6  # that the check refuses a right result


def cases(quick: bool, device: torch.device) -> list[Case]:
    size = 100_000 if quick else 20_000_000 if device.type == "cuda" else 1_000_000
    values = make_values(size, device)
    peers = [Peer("torch (not private)", partial(torch_response, values), threaded=True)]
    dp = opendp()
    if dp is not None and device.type == "cpu":
        respond = dp.m.make_randomized_response(categories=list(range(CATEGORIES)), prob=KEEP)
        few = values[: min(size, 500)].tolist()
        peers.append(Peer("OpenDP make_randomized_response", lambda: [respond(v) for v in few], len(few) / size))
    return [
        Case(
            kernel="randomized_response",
            name=f"K = {CATEGORIES}, epsilon = {EPSILON:g}, N = {size:,}",
            size=size,
            run=partial(ours, values),
            peers=peers,
            check=partial(check, device),
            bytes_moved=16 * size,
            bytes_written=8 * size,
            operations=2 * CHACHA20_OPERATIONS * size,
            skipped=["OpenDP"] if dp is None else [],
        )
    ]


def make_values(size: int, device: torch.device) -> torch.Tensor:
    return torch.randint(0, CATEGORIES, (size,), generator=torch.Generator().manual_seed(0)).to(device)


def ours(values: torch.Tensor) -> torch.Tensor:
    return randomized_response(values, categories=CATEGORIES, epsilon=EPSILON, key=KEY, label="benchmark")


def torch_response(values: torch.Tensor) -> torch.Tensor:
    keep = torch.rand(values.shape, device=values.device) < KEEP
    other = torch.randint(0, CATEGORIES - 1, values.shape, device=values.device)
    return torch.where(keep, values, other + (other >= values))


def check(device: torch.device) -> float:
    """The frequency of every pair of value and output follows the law; returns how far the law's probability to keep a
    value lies from the ideal one."""
    law = randomized_response_law(CATEGORIES, EPSILON)
    values = torch.arange(200_000) % CATEGORIES
    pairs = values * CATEGORIES + ours(values.to(device)).cpu()
    counts = np.bincount(pairs.numpy(), minlength=CATEGORIES**2)
    wanted = [float(law.probability(v, y)) for v in range(CATEGORIES) for y in range(CATEGORIES)]
    p_value = float(stats.chisquare(counts, np.array(wanted) * len(values) / CATEGORIES).pvalue)
    error = abs(float(law.keep) - KEEP)
    if p_value < ERROR_RATE or law.epsilon > EPSILON or error > 1e-12:
        raise AssertionError(f"chi-square p = {p_value:.2e}, epsilon {law.epsilon}, keep {float(law.keep)}")
    return error
