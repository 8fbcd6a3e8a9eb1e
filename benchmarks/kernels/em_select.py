"""em_select beside OpenDP, diffprivlib and torch: private selection from a vector, or from every row of a matrix.

Multiplier 1 throughout: one draw from a million float32 scores, from rows of 256, and by permute-and-flip from a tenth
as many; for scores that are all alike (standard normal) and for one peak 30 above the others, which is what samplers
that end early take longest for. The two torch ways are what one would write without privacy in mind: a float's uniform
cannot give small probabilities, so neither is private.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.case import CHACHA20_OPERATIONS, Case, Peer
from benchmarks.libraries import diffprivlib_mechanisms, opendp
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


def cases(quick: bool, device: torch.device) -> list[Case]:
    candidates, rows = (10_000, 100) if quick else (1_000_000, 100_000)
    shapes: list[tuple[str, tuple[int, ...], str]] = [
        ("one draw", (candidates,), "exponential"),
        ("one draw per row", (rows, COLUMNS), "exponential"),
        ("permute-and-flip", (candidates // 10,), "permute-and-flip"),
    ]
    return [
        make_case(f"{name}, {' x '.join(f'{n:,}' for n in shape)}, {kind}", shape, kind, mechanism, device)
        for name, shape, mechanism in shapes
        for kind in ("alike", "one peak")
    ]


def make_case(name: str, shape: tuple[int, ...], kind: str, mechanism: str, device: torch.device) -> Case:
    scores = make_scores(shape, kind, device)
    peers, skipped = make_peers(scores, kind, mechanism)
    words = 4 if mechanism == "permute-and-flip" else 0  # 256 bits for each candidate; else a block for each row
    return Case(
        kernel="em_select",
        name=name,
        size=scores.numel(),
        run=partial(ours, scores, mechanism),
        peers=peers,
        check=partial(check, mechanism, device),
        bytes_moved=4 * scores.numel(),
        operations=words * CHACHA20_OPERATIONS * scores.numel(),
        skipped=skipped,
    )


def ours(scores: torch.Tensor, mechanism: Any = "exponential") -> torch.Tensor:
    return em_select(scores, multiplier=1.0, key=KEY, label="benchmark", mechanism=mechanism)


def make_scores(shape: tuple[int, ...], kind: str, device: torch.device) -> torch.Tensor:
    if kind == "one peak":
        scores = torch.zeros(shape)
        scores[..., shape[-1] // 2] = PEAK
    else:
        scores = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return scores.to(device)


def check(mechanism: str, device: torch.device) -> float:
    """Frequencies follow the reference, and a peak is found; returns the bound on the total variation."""
    scores = torch.linspace(-2, 2, 30)
    flip = mechanism == "permute-and-flip"
    law = permute_and_flip_probabilities_reference if flip else em_select_probabilities_reference
    index = ours(scores.to(device).expand(50_000, -1), mechanism).cpu()
    counts = np.bincount(index.numpy(), minlength=30)
    p_value = float(stats.chisquare(counts, law(scores, 1.0).numpy() * 50_000).pvalue)
    peak = ours(make_scores((3001,), "one peak", device), mechanism).item()
    if p_value < ERROR_RATE or peak != 1500:
        raise AssertionError(f"{mechanism}, chi-square p = {p_value:.2e}, index of the peak {peak}")
    return em_select_accuracy(1_000_000).total_variation


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


def make_peers(scores: torch.Tensor, kind: str, mechanism: str) -> tuple[list[Peer], list[str]]:
    """The other ways, and the names of what is not installed."""
    count = scores.numel()
    flip = mechanism == "permute-and-flip"
    peers = [Peer("bare read of the scores", lambda: scores.sum(), threaded=True)]
    if not flip:
        peers.append(Peer("torch, Gumbel and argmax (not private)", partial(torch_gumbel, scores), threaded=True))
        if scores.shape[-1] <= 2**24:
            peers.append(Peer("torch.multinomial (not private)", partial(torch_multinomial, scores), threaded=True))
    if scores.is_cuda:
        return peers, []
    # diffprivlib removes rejected candidates from a list one by one, in quadratic time where few are accepted.
    limit = 10**4 if flip and kind == "one peak" else 10**5
    others = [
        ("OpenDP make_noisy_max", opendp_draw(flip), 10**6),
        ("diffprivlib PermuteAndFlip" if flip else "diffprivlib Exponential", diffprivlib_draw(flip), limit),
    ]
    for name, draw, most in others:
        if draw is not None:
            few = scores[:200] if scores.dim() == 2 else make_scores((min(count, most),), kind, scores.device)
            peers.append(Peer(name, partial(for_rows, draw, few.double().numpy()), few.numel() / count))
    return peers, [name for name, draw, _ in others if draw is None]
