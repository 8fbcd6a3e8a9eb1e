"""The cases of prune: masks, projection, random masks and patterns, beside torch and NumPy.

Every case is checked against its reference before it is timed; the largest error of a case is the number of entries
that differ, so 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.utils.prune

from benchmarks.case import Case, Peer
from benchmarks.libraries import compiled
from privkernels.ops import (
    prune_apply_,
    prune_keep_probabilities,
    prune_mask,
    prune_mask_reference,
    prune_pattern_mask,
    prune_pattern_mask_reference,
    prune_project,
    prune_random_mask,
    unpack_mask,
)
from privkernels.randomness import Key

KEY = Key.from_seed(0)


def cases(quick: bool, device: torch.device) -> list[Case]:
    size = 100_000 if quick else 10_000_000
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    found = [mask_case(x, sparsity, as_bits) for sparsity in (0.9, 0.5) for as_bits in (False, True)]
    found.append(mask_case(x.bfloat16(), 0.9, False))
    return [*found, project_case(x, 0.9), apply_case(x), random_case(x), pattern_case(x.view(-1, 1000))]


def mask_case(x: torch.Tensor, sparsity: float, as_bits: bool) -> Case:
    keep = x.numel() - round(sparsity * x.numel())

    def check() -> float:
        mask = prune_mask(x, keep=keep, as_bits=as_bits)[0][0]
        return different(unpack_mask(mask, x.shape) if as_bits else mask, prune_mask_reference([x], keep)[0][0])

    name = f"{'bits' if as_bits else 'bools'}, {dtype_of(x)}, N = {x.numel():,}, sparsity {sparsity}"
    peers = selection_peers(x, sparsity, keep)
    written = x.numel() / 8 if as_bits else x.numel()
    run = partial(prune_mask, x, keep=keep, as_bits=as_bits)
    return Case("prune", name, x.numel(), run, peers, check, x.numel() * x.element_size() + written)


def selection_peers(x: torch.Tensor, sparsity: float, keep: int) -> list[Peer]:
    class Fresh(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(x)

    def l1() -> None:
        torch.nn.utils.prune.l1_unstructured(Fresh(), "weight", sparsity)

    def topk() -> torch.Tensor:
        return torch.zeros_like(x, dtype=torch.bool).scatter_(0, torch.topk(x.abs(), keep, sorted=False).indices, True)

    def kthvalue() -> torch.Tensor:
        magnitudes = x.abs()
        return magnitudes >= magnitudes.kthvalue(x.numel() - keep + 1).values

    peers = [
        Peer("torch.nn.utils.prune.l1_unstructured", l1, threaded=True),
        Peer("torch.topk and scatter", topk, threaded=True),
        Peer("torch.kthvalue and compare", kthvalue, threaded=True),
    ]
    if x.device.type == "cpu" and x.dtype == torch.float32:
        array = x.numpy()

        def partition() -> np.ndarray:
            magnitudes = np.abs(array)
            return magnitudes >= np.partition(magnitudes, len(array) - keep)[len(array) - keep]

        def argpartition() -> np.ndarray:
            mask = np.zeros(len(array), dtype=bool)
            mask[np.argpartition(np.abs(array), len(array) - keep)[len(array) - keep :]] = True
            return mask

        peers += [Peer("numpy.partition and compare", partition), Peer("numpy.argpartition", argpartition)]
    return peers


def project_case(x: torch.Tensor, sparsity: float) -> Case:
    keep = x.numel() - round(sparsity * x.numel())

    def check() -> float:
        expected = torch.where(prune_mask_reference([x], keep)[0][0], x, 0.0)
        return different(prune_project(x, keep=keep)[0], expected)

    def topk() -> torch.Tensor:
        kept = torch.topk(x.abs(), keep, sorted=False).indices
        return torch.zeros_like(x).scatter_(0, kept, x[kept])

    name = f"projection, {dtype_of(x)}, N = {x.numel():,}, sparsity {sparsity}"
    peers = [Peer("torch.topk and scatter", topk, threaded=True)]
    return Case("prune", name, x.numel(), partial(prune_project, x, keep=keep), peers, check, 8.0 * x.numel())


def apply_case(x: torch.Tensor) -> Case:
    bits = prune_mask(x, sparsity=0.5, as_bits=True)[0]
    mask = unpack_mask(bits[0], x.shape)
    values, other = x.clone(), x.clone()

    def check() -> float:
        changed = x.clone()
        prune_apply_(changed, bits)
        return different(changed, torch.where(mask, x, 0.0))

    peers = [Peer("torch mul_ by a bool mask", lambda: other.mul_(mask), threaded=True)]
    name = f"bits applied in place, {dtype_of(x)}, N = {x.numel():,}"
    return Case("prune", name, x.numel(), partial(prune_apply_, values, bits), peers, check, 8.125 * x.numel())


def random_case(x: torch.Tensor) -> Case:
    """Both sides scan for the least and the largest importance first; torch's draws can be predicted."""
    ours = partial(prune_random_mask, x, key=KEY, label="benchmark")

    def check() -> float:
        (p,) = prune_keep_probabilities(x)
        kept = ours()[0].double()
        deviations = abs(float((kept - p).sum())) / float((p * (1 - p)).sum()) ** 0.5
        assert deviations < 6, f"the number of kept entries is {deviations} standard deviations from its mean"
        return 0.0

    def bernoulli() -> torch.Tensor:
        low, high = torch.aminmax(x)
        return torch.bernoulli((x - low) / (high - low)).bool()

    peers = [Peer("torch.bernoulli of the probabilities (not private)", bernoulli, threaded=True)]
    name = f"random mask by Eq. 7, {dtype_of(x)}, N = {x.numel():,}"
    # 20 rounds of 16 additions, exclusive ors and rotations (three operations) on eight words each, for eight entries
    return Case("prune", name, x.numel(), ours, peers, check, 5.0 * x.numel(), 120.0 * x.numel())


def pattern_case(x: torch.Tensor) -> Case:
    def topk() -> torch.Tensor:
        return top_of_groups(x)

    def check() -> float:
        return different(prune_pattern_mask(x, 2, 4), prune_pattern_mask_reference(x, 2, 4))

    peers: Sequence[Peer] = [
        Peer("torch.topk on a view of fours", topk, threaded=True),
        Peer("torch.compile of the same", partial(compiled(top_of_groups), x), threaded=True),
    ]
    name = f"2:4 pattern, {dtype_of(x)}, N = {x.numel():,}"
    return Case("prune", name, x.numel(), partial(prune_pattern_mask, x, 2, 4), peers, check, 5.0 * x.numel())


def top_of_groups(x: torch.Tensor) -> torch.Tensor:
    groups = x.abs().view(-1, 4)
    kept = torch.topk(groups, 2, dim=1).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, kept, True).view(x.shape)


def different(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """How many entries differ; none may."""
    count = float((ours != expected).sum())
    assert count == 0, f"{count:.0f} entries differ from the reference"
    return count


def dtype_of(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
