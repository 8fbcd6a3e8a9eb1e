"""The noise of an element depends on its address alone: not on threads, slices, processes or the processor."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels.ops import noise_add, noise_steps
from privkernels.randomness import Key
from tests.support.instruction_sets import assert_same_bits
from tests.support.least_times import assert_alike

KEY = Key.from_seed(7)
N = 40_001  # three chunks of 128 groups
DRAW: dict[str, Any] = {"distribution": "gaussian", "scale": 3.0, "granularity": 2.0**-12, "key": KEY, "label": "x"}


def values(size: int = N) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def test_one_and_more_threads(set_threads: Callable[[int], None]) -> None:
    set_threads(1)
    expected = noise_add(values(), **DRAW)
    for threads in (2, 3, 64):
        set_threads(threads)
        assert torch.equal(noise_add(values(), **DRAW), expected)


@given(st.lists(st.integers(0, N), max_size=5), st.integers(0, 2**62))
@settings(max_examples=25)
def test_any_slicing_gives_the_whole(cuts: list[int], first_element: int) -> None:
    x = values()
    whole = noise_add(x, **DRAW, first_element=first_element)
    edges = [0, *sorted(cuts), N]
    parts = [noise_add(x[a:b], **DRAW, first_element=first_element + a) for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)


def test_noise_is_the_same_for_all_dtypes_and_values() -> None:
    noise = noise_steps(N, distribution="gaussian", steps=30.0, key=KEY, label="x")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for x in (torch.zeros(N), values().round()):
            got = noise_add(x.to(dtype), **DRAW | {"scale": 30.0, "granularity": 1.0})
            assert torch.equal(got, (x + noise).to(dtype))


def test_global_generators_are_not_touched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - read only
    noise_add(values(), **DRAW)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_calls_from_several_python_threads(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    expected = noise_add(values(), **DRAW)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: noise_add(values(), **DRAW), range(12)):
            assert torch.equal(got, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork() -> None:
    """In a process of its own, whose parent has used the kernel with threads; a child that hangs is killed."""
    program = """
import hashlib, os, torch
from privkernels.ops import noise_steps
from privkernels.randomness import Key
torch.set_num_threads(2)
def digest():
    noise = noise_steps(40_001, distribution="laplace", steps=1e5, key=Key.from_seed(1), label="fork")
    return hashlib.sha256(noise.numpy().tobytes()).hexdigest()
before = digest()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, digest().encode())
    os._exit(0)
os.close(write)
child = os.read(read, 64).decode()
os.wait()
print(before, child, digest())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    digests = done.stdout.split()
    assert len(digests) == 3
    assert len(set(digests)) == 1


# What every instruction set runs; it prints one digest of the bits for each case.
PROGRAM = """
from privkernels.ops import noise_add, noise_steps
key = Key.from_seed(3)
for distribution in ("laplace", "gaussian"):
    for steps in (0.125, 0.3, 10.0, 300.0, 2.0**20, 2.0**40):
        draw = dict(distribution=distribution, key=key, label="isa", first_element=5)
        digest = hashlib.sha256(noise_steps(1033, steps=steps, **draw).numpy().tobytes())
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for exponent in (-100, -20, 0, 100):
                x = torch.randn(777, generator=torch.Generator().manual_seed(1))
                x = torch.cat([x * 2.0**-140, x * 2.0**-20, x, x * 2.0**10]).to(dtype)
                y = noise_add(x, scale=steps * 2.0**exponent, granularity=2.0**exponent, **draw)
                digest.update(y.view(torch.int16).numpy().tobytes())
        digests[f"{distribution} {steps}"] = digest.hexdigest()
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    assert_same_bits(PROGRAM, different=12)


def test_known_answer() -> None:
    """The same bits in every version and on every machine: a change here breaks every key that was kept."""
    digest = hashlib.sha256()
    for distribution in ("laplace", "gaussian"):
        for steps in (0.3, 1000.0, 2.0**20):
            noise = noise_steps(1000, distribution=distribution, steps=steps, key=KEY, label="known", first_element=9)
            digest.update(noise.numpy().tobytes())
    assert digest.hexdigest() == "63898efaf293cf69a915a47267a03bc2613b97c31d4c126228ba7dd085d73a1a"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_time_does_not_depend_on_the_values(dtype: torch.dtype) -> None:
    """On values that slow other code down or speed it up.

    The code has no branch on a value (csrc/core/noise.h); this sees what a processor does with denormals and the like.
    """
    size = 1 << 17
    limit = torch.finfo(dtype).max
    denormal = torch.finfo(dtype).smallest_normal / 4
    alternating = torch.tensor([0.0, limit, denormal, -1.0]).repeat(size // 4)
    inputs = {
        "zeros": torch.zeros(size),
        "huge": torch.full((size,), limit),
        "denormal": torch.full((size,), denormal),
        "alternating": alternating,
        "random": values(size),
    }
    inputs = {name: x.to(dtype) for name, x in inputs.items()}
    assert_alike({name: partial(noise_add, x, **DRAW) for name, x in inputs.items()}, rounds=40, limit=1.5)
