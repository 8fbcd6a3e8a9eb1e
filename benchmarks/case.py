"""What a kernel's benchmark gives to the driver (``python -m benchmarks.kernels``): its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Of ChaCha20, 32-bit, for each 64-bit word: 80 quarter rounds of 12, and 16 additions, for 8 words.
CHACHA20_OPERATIONS = 122.0


@dataclass(frozen=True)
class Peer:
    """What a user would otherwise run for a case.

    Attributes:
        name: library and call, as a user would name it.
        run: does ``share`` of the case's job once.
        share: the part of the job that ``run`` does; a slow way gets a smaller one.
        threaded: it uses more threads when torch is allowed them; otherwise it is timed on one thread only.
    """

    name: str
    run: Callable[[], object]
    share: float = 1.0
    threaded: bool = False


@dataclass(frozen=True)
class Case:
    """One job of one kernel, checked and then timed beside its peers.

    Attributes:
        kernel: name of the kernel.
        name: what is special about this case, with its sizes: "M = 50, R = 256".
        size: elements that ``run`` does.
        run: does the whole job once, on as many threads as torch is allowed.
        peers: the other ways; those whose library is not installed are left out and named in ``skipped``.
        check: compares the result with the float64 reference (or the exact one) and returns the largest error, in
            the unit that the kernel's contract states; raises AssertionError, with what was wrong, when it is
            not within the contract. Runs before anything is timed.
        bytes_moved: what must be read and written at the least, in bytes.
        operations: arithmetic operations (32-bit, a fused multiply-add counts as two) that ``run`` does, for the
            share of the machine's ceiling; 0 where only the memory's ceiling makes sense. The ceiling is that of
            fused multiply-adds, so code of additions, or of integers, reaches half of it at the most.
        skipped: names of peers that are not installed.
        bytes_written: how many of ``bytes_moved`` are written. With 0 all of them are held against the speed of
            reading, which is the higher one.
    """

    kernel: str
    name: str
    size: int
    run: Callable[[], object]
    peers: Sequence[Peer]
    check: Callable[[], float]
    bytes_moved: float
    operations: float = 0.0
    skipped: Sequence[str] = ()
    bytes_written: float = 0.0
