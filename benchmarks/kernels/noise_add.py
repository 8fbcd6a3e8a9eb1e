"""noise_add beside a bare read and write, torch's float noise, OpenDP and diffprivlib: noise for a tensor.

Discrete Laplace and Gaussian noise at s = 2^10 and 2^20 steps of the grid, float32. torch's noise is here to show what
plain noise costs: it is a float from a generator that is no cryptographic one, and gives the value away.
"""

from __future__ import annotations

import functools
import math
from functools import partial
from typing import Any

import torch

from benchmarks.case import CHACHA20_OPERATIONS, Case, Peer
from benchmarks.libraries import diffprivlib_mechanisms, opendp
from privkernels.ops import noise_add, noise_add_reference, noise_law, noise_steps
from privkernels.ops.noise_law import Distribution
from privkernels.randomness import Key

KEY = Key.from_seed(0)
GRANULARITY = 2.0**-20
DISTRIBUTIONS: tuple[Distribution, Distribution] = ("laplace", "gaussian")
STEPS = (2.0**10, 2.0**20)


def cases(quick: bool, device: torch.device) -> list[Case]:
    size = 100_000 if quick else 2**25 if device.type == "cuda" else 2**22
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    return [make_case(x, distribution, steps) for distribution in DISTRIBUTIONS for steps in STEPS]


def make_case(x: torch.Tensor, distribution: Distribution, steps: float) -> Case:
    size = x.numel()
    peers, skipped = make_peers(x, distribution, steps)
    return Case(
        kernel="noise_add",
        name=f"{distribution}, s = 2^{int(math.log2(steps))}, N = {size:,}",
        size=size,
        run=partial(ours, x, distribution, steps),
        peers=peers,
        check=partial(check, x, distribution, steps),
        bytes_moved=8 * size,
        bytes_written=4 * size,
        operations=CHACHA20_OPERATIONS * noise_law(distribution, steps).words_per_element * size,
        skipped=skipped,
    )


def ours(x: torch.Tensor, distribution: Distribution, steps: float) -> torch.Tensor:
    scale = steps * GRANULARITY
    return noise_add(
        x, distribution=distribution, scale=scale, granularity=GRANULARITY, key=KEY, label=f"{distribution} {steps}"
    )


def check(x: torch.Tensor, distribution: Distribution, steps: float) -> float:
    """Sums are those of the exact reference, and the mean size of the noise is that of the law; returns the largest
    difference of a sum, which must be 0."""
    sample = x[: min(2000, len(x))]
    draw: dict[str, Any] = {"distribution": distribution, "key": KEY, "label": f"{distribution} {steps}"}
    noise = noise_steps(len(sample), steps=steps, **draw, device=x.device)
    wanted = noise_add_reference(sample.cpu(), noise.cpu(), GRANULARITY)
    error = (ours(sample, distribution, steps).cpu().double() - wanted.double()).abs().max().item()
    # The mean of |K| / s is 1 (Laplace) or sqrt(2 / pi); standard errors 1 and 0.603 over sqrt(n).
    mean, deviation = (1.0, 1.0) if distribution == "laplace" else (math.sqrt(2 / math.pi), 0.603)
    got = noise_steps(100_000, steps=steps, **draw).abs().double().mean().item() / steps
    off = abs(got - mean) / deviation * math.sqrt(100_000)
    # Not `assert`, which python -O leaves out.
    if error != 0 or not off < 5:
        raise AssertionError(
            f"a sum is off by {error:.3g}; the mean size of the noise is {got:.4f} steps, {off:.1f} standard errors "
            f"from {mean:.4f}"
        )
    return error


def make_peers(x: torch.Tensor, distribution: Distribution, steps: float) -> tuple[list[Peer], list[str]]:
    """The ways to add such noise, and the names of what is not installed."""
    out = torch.empty_like(x)
    peers = [Peer("bare read and write", lambda: out.copy_(x), threaded=True)]
    if distribution == "laplace":
        peers.append(Peer("torch float Laplace (not private)", partial(float_laplace, x), threaded=True))
    else:
        peers.append(Peer("torch float normal (not private)", lambda: x + torch.randn_like(x), threaded=True))
    if x.is_cuda:
        return peers, []
    few = x[:2000].double().tolist()
    others = {"OpenDP": opendp_peer(few, distribution, steps), "diffprivlib": diffprivlib_peer(few, distribution)}
    for name, run in others.items():
        if run is not None:
            peers.append(Peer(f"{name} {distribution}", run, len(few) / x.numel()))
    return peers, [name for name, run in others.items() if run is None]


def float_laplace(x: torch.Tensor) -> torch.Tensor:
    u = torch.empty_like(x).uniform_(-0.5, 0.5)
    return x - u.sign() * torch.log1p(-2 * u.abs())


def opendp_peer(values: list[float], distribution: Distribution, steps: float) -> Any:
    """OpenDP's samplers on a vector of floats: exact rationals, by rejection."""
    dp = opendp()
    if dp is None:
        return None
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False), size=len(values))
    scale = steps * GRANULARITY
    if distribution == "laplace":
        measurement = dp.m.make_laplace(space, dp.l1_distance(T=float), scale=scale, k=-20)
    else:
        measurement = dp.m.make_gaussian(space, dp.l2_distance(T=float), scale=scale, k=-20)
    return functools.partial(measurement, values)


def diffprivlib_peer(values: list[float], distribution: Distribution) -> Any:
    """diffprivlib's Laplace and Gaussian, one call for each value."""
    mechanisms = diffprivlib_mechanisms()
    if mechanisms is None:
        return None
    if distribution == "laplace":
        mechanism = mechanisms.Laplace(epsilon=1.0, sensitivity=1.0)
    else:
        mechanism = mechanisms.Gaussian(epsilon=0.9, delta=1e-6, sensitivity=1.0)
    return lambda: [mechanism.randomise(v) for v in values]
