"""What the machine can do at the most, measured: reading, reading with writing, and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.timing import Contender, rounds_of


@dataclass(frozen=True)
class Ceilings:
    """Of one thread, or of all.

    Attributes:
        read: bytes per second, read alone.
        copy: bytes per second, read and written together, as many of each.
        operations: float32 operations per second; a fused multiply-add counts as two.
    """

    read: float
    copy: float
    operations: float

    def to_dict(self) -> dict[str, Any]:
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}

    def fraction(self, case: Case, seconds: float) -> tuple[float, str]:
        """The least time that the machine needs for a case over ``seconds``, and what sets it: memory or arithmetic.

        Above 1 where the data stay in a cache, which the ceiling of memory does not know of.
        """
        copied = min(2 * case.bytes_written, case.bytes_moved)
        memory = (case.bytes_moved - copied) / self.read + copied / self.copy
        arithmetic = case.operations / self.operations
        return max(memory, arithmetic) / seconds, "memory" if memory >= arithmetic else "arithmetic"


def measure_all(counts: Sequence[int], device: torch.device, quick: bool = False) -> dict[int, Ceilings]:
    """By number of threads, ascending: more can do no less, so a disturbed measurement is raised to that of fewer."""
    found: dict[int, Ceilings] = {}
    last = Ceilings(0.0, 0.0, 0.0)
    for threads in counts:
        own = measure(threads, device, quick)
        pairs = zip(astuple(own), astuple(last), strict=True)
        found[threads] = last = Ceilings(*(max(a, b) for a, b in pairs))
    return found


def measure(threads: int, device: torch.device, quick: bool = False) -> Ceilings:
    """The best of a few rounds: a ceiling that is too low would flatter what is held against it."""
    megabytes = 64 if quick else 1024 if device.type == "cuda" else 256  # well beyond the caches
    x = torch.ones(megabytes * 2**18, device=device)
    y = torch.zeros_like(x)
    n = 1024 if quick or device.type == "cpu" else 8192
    a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
    c = torch.empty_like(a)

    def best(*runs: Callable[[], object]) -> float:
        contenders = [Contender(str(i), run, 1, threads) for i, run in enumerate(runs)]
        timed = rounds_of(contenders, 2 if quick else 5, device)
        by_cpu = device.type == "cpu" and threads == 1  # as the kernels are timed
        return min(min(rounds.cpu if by_cpu else rounds.wall) for rounds in timed)

    size = x.numel() * x.element_size()
    read = size / best(lambda: x.sum(), lambda: torch.dot(x, x), lambda: x.amax())
    copy = 2 * size / best(lambda: y.copy_(x), lambda: x.add_(1))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # a GPU's TF32 is no float32
    try:
        operations = 2 * math.pow(n, 3) / best(lambda: torch.mm(a, b, out=c))
    finally:
        torch.set_float32_matmul_precision(precision)
    return Ceilings(read, copy, operations)
