"""noise_add beside a bare read and write, torch's float noise, OpenDP and diffprivlib: noise for a tensor.

    python -m benchmarks.kernels.noise_add [--elements 4194304] [--rounds 7] [--device cpu] [--isas] [--json FILE]

Discrete Laplace and Gaussian noise at s = 2^10 and 2^20 steps of the grid, float32. torch's noise is here to show what
plain noise costs: it is a float from a generator that is no cryptographic one, and gives the value away. Noise and sum
are compared with the exact references before anything is timed. All contenders run interleaved in one process; the slow
ones do fewer elements. Ratios are of elapsed time per element to a bare read and write of the same tensor on as many
threads. OpenDP and diffprivlib are timed where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.libraries import diffprivlib_mechanisms, opendp
from benchmarks.timing import Contender, Timing, for_each_instruction_set, interleaved, machine_facts
from privkernels import _files
from privkernels.ops import noise_add, noise_add_reference, noise_law, noise_steps
from privkernels.ops.noise_law import Distribution
from privkernels.randomness import Key

KEY = Key.from_seed(0)
GRANULARITY = 2.0**-20
DISTRIBUTIONS: tuple[Distribution, Distribution] = ("laplace", "gaussian")
STEPS = (2.0**10, 2.0**20)
BARE = "bare read and write"


def ours(x: torch.Tensor, distribution: Distribution, steps: float) -> torch.Tensor:
    scale = steps * GRANULARITY
    return noise_add(
        x, distribution=distribution, scale=scale, granularity=GRANULARITY, key=KEY, label=f"{distribution} {steps}"
    )


def check(x: torch.Tensor) -> dict[str, float]:
    """Compare sums with the exact reference, and scales with the law; ends the program when they are wrong."""
    result = {}
    for distribution in DISTRIBUTIONS:
        for steps in STEPS:
            sample = x[: min(2000, len(x))]
            draw: dict[str, Any] = {"distribution": distribution, "key": KEY, "label": f"{distribution} {steps}"}
            noise = noise_steps(len(sample), steps=steps, **draw, device=x.device)
            wrong = ours(sample, distribution, steps).cpu() != noise_add_reference(
                sample.cpu(), noise.cpu(), GRANULARITY
            )
            # The mean of |K| / s is 1 (Laplace) or sqrt(2 / pi); standard errors 1 and 0.603 over sqrt(n).
            mean, deviation = (1.0, 1.0) if distribution == "laplace" else (math.sqrt(2 / math.pi), 0.603)
            got = noise_steps(100_000, steps=steps, **draw).abs().double().mean().item() / steps
            errors = abs(got - mean) / deviation * math.sqrt(100_000)
            if wrong.any() or not errors < 5:
                sys.exit(
                    f"the results are wrong: {int(wrong.sum())} sums of {len(sample)}, mean size of the noise "
                    f"{got:.4f} steps ({errors:.1f} standard errors from {mean:.4f})"
                )
            result[f"{distribution}, s = {steps:g}, mean |K| / s"] = got
    return result


def opendp_contenders(x: torch.Tensor) -> list[Contender]:
    """OpenDP's samplers on a vector of floats: exact rationals, by rejection."""
    dp = opendp()
    if dp is None:
        return []
    values = x.cpu().double().tolist()
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False), size=len(values))
    scale = STEPS[1] * GRANULARITY
    laplace = dp.m.make_laplace(space, dp.l1_distance(T=float), scale=scale, k=-20)
    gaussian = dp.m.make_gaussian(space, dp.l2_distance(T=float), scale=scale, k=-20)
    name = f"OpenDP {importlib.metadata.version('opendp')}"
    return [
        Contender(f"{name} make_laplace, s = 2^20", lambda: laplace(values), len(values)),
        Contender(f"{name} make_gaussian, s = 2^20", lambda: gaussian(values), len(values)),
    ]


def diffprivlib_contenders(x: torch.Tensor) -> list[Contender]:
    """diffprivlib's Laplace and Gaussian, one call for each value."""
    mechanisms = diffprivlib_mechanisms()
    if mechanisms is None:
        return []
    values = x.cpu().double().tolist()
    laplace = mechanisms.Laplace(epsilon=1.0, sensitivity=1.0)
    gaussian = mechanisms.Gaussian(epsilon=0.9, delta=1e-6, sensitivity=1.0)
    return [
        Contender("diffprivlib Laplace", lambda: [laplace.randomise(v) for v in values], len(values)),
        Contender("diffprivlib Gaussian", lambda: [gaussian.randomise(v) for v in values], len(values)),
    ]


def other_libraries(x: torch.Tensor, skipped: dict[str, str]) -> list[Contender]:
    """Those that import; for the others `skipped` says why not."""
    result = []
    makers: list[tuple[str, Callable[[torch.Tensor], list[Contender]], int]] = [
        ("opendp", opendp_contenders, 2000),
        ("diffprivlib", diffprivlib_contenders, 2000),
    ]
    for name, make, count in makers:
        contenders = make(x[:count])
        result += contenders
        if not contenders:
            skipped[name] = "not installed"
    return result


def make_contenders(x: torch.Tensor, skipped: dict[str, str], only_ours: bool) -> list[Contender]:
    """The bare read and write first, then ours, then the others."""
    size, out = x.numel(), torch.empty_like(x)
    threads = (1,) if x.is_cuda or only_ours else (1, 2)
    result = []
    for count in threads:
        result.append(Contender(f"{BARE}, {plural(count)}", lambda: out.copy_(x), size, count))
        for distribution in DISTRIBUTIONS:
            for steps in STEPS:
                name = f"noise_add {distribution}, s = 2^{int(math.log2(steps))}, {plural(count)}"
                result.append(Contender(name, partial(ours, x, distribution, steps), size, count))
    if only_ours:
        return result
    uniform = torch.empty_like(x)

    def float_laplace() -> torch.Tensor:
        u = uniform.uniform_(-0.5, 0.5)
        return x - u.sign() * torch.log1p(-2 * u.abs())

    result += [
        Contender("torch float normal (not private), 1 thread", lambda: x + torch.randn_like(x), size),
        Contender("torch float Laplace (not private), 1 thread", float_laplace, size),
    ]
    return result + other_libraries(x, skipped)


def plural(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def each_instruction_set(elements: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU nanoseconds per element on one thread for every supported instruction set."""
    found = for_each_instruction_set("benchmarks.kernels.noise_add", elements, rounds)
    return {isa: {timed["name"]: timed["cpu_ns_per_element"] for timed in timings} for isa, timings in found.items()}


def show(timings: list[Timing], on_gpu: bool) -> list[dict[str, Any]]:
    """Print the table; returns it with each time as a multiple of a bare read and write on as many threads."""

    def cost(timing: Timing) -> float:
        return timing.wall_ns if on_gpu or timing.threads > 1 else timing.cpu_ns

    bare = {timing.threads: cost(timing) for timing in timings if timing.name.startswith(BARE)}
    rows = []
    print(f"{'':<48}{'wall ns':>14}{'cpu ns':>14}{'elements/s':>16}{'times bare':>12}")
    for timing in timings:
        ratio = cost(timing) / bare[timing.threads]
        rows.append({**timing.to_dict(), "times_bare": round(ratio, 3)})
        print(
            f"{timing.name:<48}{timing.wall_ns:>14,.2f}{timing.cpu_ns:>14,.2f}"
            f"{1e9 / timing.wall_ns:>16,.0f}{ratio:>12,.2f}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="noise_add beside what a user would otherwise run")
    parser.add_argument("--elements", type=int, default=4_194_304)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--isas", action="store_true", help="also every supported instruction set")
    parser.add_argument("--only-ours", action="store_true", help="noise_add and the bare copy on one thread alone")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.elements < 1 or arguments.rounds < 1:
        parser.error("--elements and --rounds are at least 1")
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no CUDA device")
    x = torch.randn(arguments.elements, generator=torch.Generator().manual_seed(0)).to(device)
    checked = check(x)
    facts = machine_facts(device)
    skipped: dict[str, str] = {}
    contenders = make_contenders(x, skipped, arguments.only_ours)
    print(f"noise_add: float32, N = {arguments.elements:,}, granularity 2^-20")
    print(f"{facts.get('gpu', facts['processor'])}, {facts['instruction_set']}, torch {facts['torch']}")
    result = {
        "benchmark": "noise_add",
        "machine": facts,
        "settings": {
            "elements": arguments.elements,
            "rounds": arguments.rounds,
            "device": device.type,
            "granularity": GRANULARITY,
            "words_per_element": {
                f"{d}, s = {s:g}": noise_law(d, s).words_per_element for d in DISTRIBUTIONS for s in STEPS
            },
        },
        "check": checked,
        "results": show(interleaved(contenders, arguments.rounds, device), device.type == "cuda"),
        "skipped": skipped,
    }
    for name, reason in skipped.items():
        print(f"skipped: {name} ({reason})")
    if arguments.isas:
        result["cpu_ns_per_element_by_instruction_set"] = each_instruction_set(arguments.elements, arguments.rounds)
        print(json.dumps(result["cpu_ns_per_element_by_instruction_set"], indent=1))
    if arguments.json is not None:
        _files.write_json(arguments.json, result)


if __name__ == "__main__":
    main()
