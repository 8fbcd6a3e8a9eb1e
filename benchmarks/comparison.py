"""Times the cases of a kernel beside their peers: checked first, in paired rounds, over the machine's ceilings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.ceilings import Ceilings
from benchmarks.timing import Contender, rounds_of


class WrongResultError(Exception):
    """A kernel's result is not what its contract says; the message names the case."""


@dataclass(frozen=True)
class Row:
    """One case on some number of threads beside one peer.

    Attributes:
        kernel, case, threads: which.
        size: elements of the case.
        ours: median seconds for the whole case: CPU time on one thread, elapsed on several and on a GPU.
        peer: name of the other way, or None where there is none.
        peer_seconds: its median, scaled up to the whole case.
        ratio: median over the rounds of the peer's time over ours in the same round.
        fraction: of the machine's ceiling that we reach, or None where no ceiling was measured.
        ceiling: "memory" or "arithmetic": which one is the nearer.
        error: the largest error, as the kernel's contract measures it.
    """

    kernel: str
    case: str
    threads: int
    size: int
    ours: float
    peer: str | None
    peer_seconds: float | None
    ratio: float | None
    fraction: float | None
    ceiling: str | None
    error: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def checked(cases: Sequence[Case]) -> list[float]:
    """The error of every case; ends with :class:`WrongResultError` at the first wrong one."""
    errors = []
    for case in cases:
        try:
            errors.append(float(case.check()))
        except AssertionError as wrong:
            reason = " ".join(str(wrong).split()) or "its check failed"
            raise WrongResultError(f"{case.kernel}, {case.name}: {reason}") from wrong
    return errors


def compare(
    case: Case, error: float, rounds: int, device: torch.device, ceilings: Mapping[int, Ceilings], alone: bool = False
) -> list[Row]:
    """Rows for one thread and, on a CPU with more, for all.

    Args:
        error: what the case's check returned.
        ceilings: by number of threads; may be empty.
        alone: leave the peers out.
    """
    rows = []
    for threads in [1] if device.type == "cuda" else sorted({1, torch.get_num_threads()}):
        # One number of threads after the other: idle threads of OpenMP spin for a while, which would count as CPU time.
        peers = [] if alone else [peer for peer in case.peers if peer.threaded or threads == 1]
        ways = [Contender("ours", case.run, case.size, threads)]
        ways += [Contender(peer.name, peer.run, case.size, threads) for peer in peers]
        own, *others = rounds_of(ways, rounds, device)
        by_cpu = device.type == "cpu" and threads == 1
        ours = own.cpu if by_cpu else own.wall
        seconds = statistics.median(ours)
        fraction, ceiling = ceilings[threads].fraction(case, seconds) if threads in ceilings else (None, None)

        found: list[tuple[str | None, float | None, float | None]] = []
        for peer, timed in zip(peers, others, strict=True):
            theirs = [time / peer.share for time in (timed.cpu if by_cpu else timed.wall)]
            found.append((peer.name, statistics.median(theirs), ratio_of(ours, theirs)))
        rows += [
            Row(case.kernel, case.name, threads, case.size, seconds, *beside, fraction, ceiling, error)
            for beside in found or [(None, None, None)]
        ]
    return rows


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of their time over ours in the same round."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
