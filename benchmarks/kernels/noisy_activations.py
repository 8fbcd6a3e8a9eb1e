"""noisy_activations beside what a user would run otherwise: torch's own operations, fused by hand, and compiled.

torch's noise comes from a generator that is no cryptographic one, and like ours in floating point it gives values away;
it is there for the time. torch's alpha is the window times ours. "copy" is what moving the memory takes: like ours it
writes to a tensor that torch's allocator gives it anew, so both or neither pay for fresh pages.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.case import Case, Peer
from privkernels.ops import noisy_activations, noisy_activations_reference
from privkernels.randomness import Key

KERNEL = "noisy_activations"
KEY = Key.from_seed(1)
STD = 0.5
# 32-bit operations on an element: sums of 5 squares, inverse root, noise (60 for its bits, 50 for its quantile).
OPERATIONS = {"none": 30.0, "float": 140.0, "grid": 330.0, "backward": 50.0}


def eager(x: torch.Tensor, noise: bool) -> torch.Tensor:
    """As a user writes it."""
    y = F.local_response_norm(x.clamp(0, 1), 5, alpha=5.0, beta=0.5, k=2.0)
    return y + torch.randn_like(y) * STD if noise else y


def by_hand(x: torch.Tensor, noise: bool) -> torch.Tensor:
    """The same with as few passes as eager torch allows: sums of shifted squares, in place."""
    a = x.clamp(0, 1)
    squares = a * a
    sums = squares + 2.0
    for shift in (1, 2):
        sums[:, shift:] += squares[:, :-shift]
        sums[:, :-shift] += squares[:, shift:]
    a.mul_(sums.rsqrt_())
    return a.add_(squares.normal_(), alpha=STD) if noise else a


def check(x: torch.Tensor) -> float:
    """Largest error of y, relative to the largest y; 2**-20 is the contract's for this window."""
    part = x[:2]
    expected = noisy_activations_reference(part, clip=1.0)
    got = noisy_activations(part, clip=1.0, noise_std=0).double()
    error = float((got - expected).abs().max() / expected.abs().max())
    assert error <= 2.0**-19, f"y is off by {error:.2g}, beyond the contract's bound"
    for other in (eager, by_hand):
        assert torch.allclose(other(part, noise=False).double(), expected, atol=1e-5), other.__name__
    secure, plain = (
        noisy_activations(part, clip=1.0, noise_std=STD, secure=s, key=KEY, label="b") for s in (True, False)
    )
    for noisy in (secure, plain):
        std = float((noisy.double() - expected).std())
        assert abs(std / STD - 1) < 6 / part.numel() ** 0.5, f"the noise has standard deviation {std:.4g}, not {STD}"
    return error


def compiled_peers(make: Callable[[Any], Callable[[], object]]) -> tuple[list[Peer], list[str]]:
    name = "torch.compile"
    if shutil.which("g++") is None and shutil.which("c++") is None:
        return [], [name]
    return [Peer(name, make(torch.compile(eager, dynamic=False)), threaded=True)], []


def forward_case(x: torch.Tensor, name: str, operations: str, compile_too: bool, **stages: Any) -> Case:
    noise = operations != "none"
    peers = [
        Peer("torch eager", partial(eager, x, noise), threaded=True),
        Peer("torch eager, fused by hand", partial(by_hand, x, noise), threaded=True),
    ]
    skipped: Sequence[str] = ()
    if compile_too:
        compiled, skipped = compiled_peers(lambda function: partial(function, x, noise))
        peers += compiled
    peers.append(Peer("copy", x.clone))
    run = partial(noisy_activations, x, clip=1.0, noise_std=STD if noise else 0, key=KEY, label="b", **stages)
    moved = 2.0 * x.numel() * x.element_size()
    total = OPERATIONS[operations] * x.numel()
    return Case(KERNEL, name, x.numel(), run, peers, partial(check, x), moved, total, skipped)


def backward_case(x: torch.Tensor) -> Case:
    upstream = torch.cos(x)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()

    def run(function: Callable[[torch.Tensor], torch.Tensor], leaf: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(function(leaf), leaf, upstream)[0]

    mine = partial(noisy_activations, clip=1.0, noise_std=STD, secure=False, key=KEY, label="b")

    def right() -> float:
        error = float((run(mine, ours) - run(partial(eager, noise=False), theirs)).abs().max())
        assert error < 1e-5, f"the gradient is off by {error:.2g} from torch's"
        return error

    peers = [Peer("torch eager", partial(run, partial(eager, noise=True), theirs), threaded=True)]
    total = (OPERATIONS["float"] + OPERATIONS["backward"]) * x.numel()
    moved = 5.0 * x.numel() * x.element_size()
    return Case(
        KERNEL, "float noise, forward and backward", x.numel(), partial(run, mine, ours), peers, right, moved, total
    )


def cases(quick: bool, device: torch.device) -> list[Case]:
    """[64, 64, 32, 32] float32, window 5, beta 0.5; with ``quick`` four examples of 16 x 16."""
    shape = (4, 64, 16, 16) if quick else (64, 64, 32, 32)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    last = x.contiguous(memory_format=torch.channels_last)
    size = str(list(shape))
    return [
        forward_case(x, f"{size}, float noise", "float", not quick, secure=False),
        forward_case(x, f"{size}, grid noise", "grid", False),
        forward_case(x, f"{size}, no noise", "none", not quick),
        forward_case(last, f"{size} channels-last, float noise", "float", False, secure=False),
        backward_case(x),
    ]
