"""A draw depends on its element's inputs and address alone: not on layout, threads, chunks or processor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels import _native
from privkernels.errors import NativeModuleError
from privkernels.ops import kde_em, kde_scores
from privkernels.randomness import Key
from tests.support.instruction_sets import assert_same_bits, run_with

KEY = Key.from_seed(7)
M, N = 11, 2500
DEFAULTS: dict[str, Any] = {"lo": -1.0, "hi": 1.0, "bandwidth": 0.1, "window_ratio": 1.0, "grid_points": 80}
Rows = torch.Tensor | Sequence[torch.Tensor]


def members(num_members: int = M, size: int = N, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_members, size, generator=torch.Generator().manual_seed(seed)) * 0.3


def results(theta: Rows, first_element: int = 0, **changed: Any) -> tuple[torch.Tensor, ...]:
    arguments = DEFAULTS | changed
    address: dict[str, Any] = {"multiplier": 60.0, "key": KEY, "label": "x", "first_element": first_element}
    lazy, fixed = (kde_em(theta, work=work, **address, **arguments) for work in ("lazy", "fixed"))
    return (*lazy, *fixed, kde_scores(theta, **arguments))


def assert_same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("window_ratio", [0.7, 2.5])
def test_any_strides_give_the_contiguous_result(window_ratio: float) -> None:
    theta = members()
    expected = results(theta, window_ratio=window_ratio)
    wide = torch.zeros(M, 3 * N)
    wide[:, 1::3] = theta
    layouts: dict[str, Rows] = {
        "transposed": theta.t().contiguous().t(),
        "every third column of a larger tensor": wide[:, 1::3],
        "separate tensors": [row.clone() for row in theta],
        "separate tensors, each with its own stride": [wide[i, 1::3] if i % 2 else theta[i].clone() for i in range(M)],
        "a tuple": tuple(theta),
        "requires_grad": theta.clone().requires_grad_(),
    }
    for layout in layouts.values():
        assert_same(results(layout, window_ratio=window_ratio), expected)


def test_expanded_rows_and_parameters() -> None:
    theta = members(M, 1)
    assert_same(results(theta.expand(M, N)), results(theta.repeat(1, N)))
    one_row = members(1, N)
    assert_same(results(one_row.expand(M, N)), results(one_row.repeat(M, 1)))


def test_unaligned_rows_of_a_memory_mapped_file(tmp_path: Path) -> None:
    theta = members()
    file = tmp_path / "members.bin"
    file.write_bytes(b"\x00" * 3 + theta.numpy().tobytes())
    mapped = np.memmap(file, dtype=np.uint8, mode="r+")
    rows = [torch.from_numpy(np.ndarray((N,), np.float32, mapped, offset=3 + 4 * N * i)) for i in range(M)]
    assert all(row.data_ptr() % 4 == 3 for row in rows)
    assert_same(results(rows), results(theta))


def test_numbers_and_vectors_of_parameters_agree() -> None:
    theta = members()
    expected = results(theta)
    for name in ("lo", "hi", "bandwidth"):
        number = DEFAULTS[name]
        strided = torch.full((2 * N,), number)[::2]
        for vector in (torch.full((N,), number), torch.tensor(number), torch.tensor([number]), strided):
            assert_same(results(theta, **{name: vector}), expected)
        assert_same(results(theta, **{name: torch.tensor(number).expand(N)}), expected)


def test_per_element_parameters_are_those_of_the_element() -> None:
    """Each element by itself, with numbers, gives what the call with vectors gave."""
    theta = members(size=40)
    rng = torch.Generator().manual_seed(1)
    lo = torch.rand(40, generator=rng) - 2
    hi = lo + torch.rand(40, generator=rng) * 3
    bandwidth = torch.rand(40, generator=rng) + 0.05
    whole = results(theta, lo=lo, hi=hi, bandwidth=bandwidth)
    for j in range(40):
        own = {"lo": lo[j].item(), "hi": hi[j].item(), "bandwidth": bandwidth[j].item()}
        single = results(theta[:, j : j + 1], first_element=j, **own)
        assert_same(single, [tensor[j : j + 1] for tensor in whole])


def test_one_and_two_threads(set_threads: Callable[[int], None]) -> None:
    theta = members(size=20_001)
    set_threads(1)
    expected = results(theta)
    for threads in (2, 3, 64):
        set_threads(threads)
        assert_same(results(theta), expected)


@given(st.lists(st.integers(0, N), max_size=5), st.integers(0, 2**62))
@settings(max_examples=25)
def test_any_slicing_gives_the_whole_draw(cuts: list[int], first_element: int) -> None:
    theta = members()
    whole = results(theta, first_element)
    edges = [0, *sorted(cuts), N]
    parts = [results(theta[:, a:b], first_element + a) for a, b in itertools.pairwise(edges)]
    assert_same([torch.cat(pieces) for pieces in zip(*parts, strict=True)], whole)


def test_inputs_are_not_written() -> None:
    theta, lo = members(), torch.full((N,), -1.0)
    before = theta.clone()
    results(theta, lo=lo)
    assert torch.equal(theta, before)
    assert torch.equal(lo, torch.full((N,), -1.0))


def test_global_generators_are_not_touched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - read only
    results(members())
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


# What every instruction set runs; it prints one digest of the bits for each case.
PROGRAM = """
from privkernels.ops import kde_em, kde_scores
for m, n, r, ratio, scale in [
    (2, 1, 2, 1.0, 0.3), (3, 19, 5, 0.01, 1e-30), (50, 1025, 256, 1.0, 0.3), (50, 1031, 64, 2.5, 0.3),
    (9, 333, 33, 30.0, 1e20), (8, 64, 300, 1e6, 1.0), (200, 77, 65, 0.999, 1e-38), (17, 40, 16, 1e-6, 3.0),
    (20, 100, 1000, 2.0, 0.3),
]:
    rng = torch.Generator().manual_seed(m * n)
    theta = torch.randn(m, n, generator=rng) * scale
    theta[0] *= 1e3
    b = max((torch.rand(1, generator=rng).item() + 0.1) * scale, 1.2e-38)
    same = dict(lo=-2.0 * scale, hi=2.0 * scale, bandwidth=b, window_ratio=ratio, grid_points=r)
    address = dict(multiplier=m / 2.0, key=Key.from_seed(n), label="isa", first_element=5)
    drawn = [kde_em(theta, work=work, **address, **same) for work in ("lazy", "fixed")]
    digest = hashlib.sha256()
    for tensor in (*drawn[0], *drawn[1], kde_scores(theta, **same)):
        digest.update(tensor.numpy().tobytes())
    digests[f"M={m} N={n} R={r} window={ratio} scale={scale}"] = digest.hexdigest()
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    assert_same_bits(PROGRAM, different=6)


def test_an_unknown_or_missing_instruction_set_is_refused() -> None:
    program = "from privkernels import _native\n_native.cpu()"
    missing = [isa["name"] for isa in _native.cpu().build_info()["instruction_sets"] if not isa["supported"]]
    for isa in ["neon", "AVX2", *missing]:
        done = run_with(isa, program)
        assert done.returncode != 0
        assert NativeModuleError.__name__ in done.stderr
        assert f"PRIVKERNELS_ISA={isa}" in done.stderr
