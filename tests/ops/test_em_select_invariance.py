"""A draw depends on its segment's scores and address alone: not on layout, threads, slices or processor."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels.ops import em_select
from privkernels.randomness import Key
from tests.support.instruction_sets import assert_same_bits

KEY = Key.from_seed(7)
MECHANISMS = ("exponential", "permute-and-flip")
B, N = 41, 260


def make_scores(rows: int = B, size: int = N, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 2


def drawn(scores: torch.Tensor, mechanism: str, first_segment: int = 0, **rest: Any) -> torch.Tensor:
    arguments: dict[str, Any] = {"multiplier": 1.0, "k": 3, "key": KEY, "label": "x", "mechanism": mechanism}
    return em_select(scores, first_segment=first_segment, **(arguments | rest))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("k", [None, 3])
def test_any_strides_give_the_contiguous_result(mechanism: str, k: int | None) -> None:
    scores = make_scores()
    expected = drawn(scores, mechanism, k=k)
    wide = torch.zeros(2 * B, 3 * N)
    wide[::2, 1::3] = scores
    layouts = [
        scores.t().contiguous().t(),
        wide[::2, 1::3],
        scores.flip(0).flip(0),
        scores.clone().requires_grad_(),
    ]
    for layout in layouts:
        assert torch.equal(drawn(layout, mechanism, k=k), expected)
    row = make_scores(1)
    assert torch.equal(drawn(row.expand(B, N), mechanism, k=k), drawn(row.repeat(B, 1), mechanism, k=k))
    column = make_scores(B, 1)
    assert torch.equal(drawn(column.expand(B, N), mechanism, k=k), drawn(column.repeat(1, N), mechanism, k=k))


def test_scores_at_an_address_that_is_no_multiple_of_four() -> None:
    data = bytearray(b"\0\0\0" + make_scores().numpy().tobytes())
    array = np.ndarray((B, N), np.float32, data, offset=3)
    scores = torch.from_numpy(array)
    assert scores.data_ptr() % 4
    assert torch.equal(drawn(scores, "exponential"), drawn(make_scores(), "exponential"))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_rows_segments_and_single_calls_agree(mechanism: str) -> None:
    scores = make_scores()
    expected = drawn(scores, mechanism)
    offsets = torch.arange(0, B * N + 1, N)
    assert torch.equal(drawn(scores.reshape(-1), mechanism, offsets=offsets), expected)
    strided = torch.zeros(2 * B * N)
    strided[::2] = scores.reshape(-1)
    twice = torch.stack([offsets, offsets], 1)[:, 0]
    assert torch.equal(drawn(strided[::2], mechanism, offsets=twice), expected)
    for row in (0, 17, B - 1):
        assert torch.equal(drawn(scores[row], mechanism, first_segment=row), expected[row])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_threads(mechanism: str, set_threads: Callable[[int], None]) -> None:
    """Short segments, shared out whole, and one long enough to be split."""
    lengths = torch.tensor([5, 140_000, 1, 300, 131_072, 131_071, 77])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    scores = torch.randn(int(offsets[-1]), generator=torch.Generator().manual_seed(3))
    many = make_scores(2000, 33)
    set_threads(1)
    expected = drawn(scores, mechanism, offsets=offsets, k=1), drawn(many, mechanism)
    strided = torch.stack([scores, scores], 1)[:, 0]
    for threads in (2, 3, 64):
        set_threads(threads)
        assert torch.equal(drawn(scores, mechanism, offsets=offsets, k=1), expected[0])
        assert torch.equal(drawn(strided, mechanism, offsets=offsets, k=1), expected[0])
        assert torch.equal(drawn(many, mechanism), expected[1])


@pytest.mark.parametrize("mechanism", MECHANISMS)
@given(st.lists(st.integers(0, B), max_size=5), st.integers(0, 2**32 - B))
@settings(max_examples=20)
def test_any_slicing_gives_the_whole_draw(mechanism: str, cuts: list[int], first_segment: int) -> None:
    scores = make_scores()
    whole = drawn(scores, mechanism, first_segment)
    edges = [0, *sorted(cuts), B]
    parts = [drawn(scores[a:b], mechanism, first_segment + a) for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)


def test_other_keys_labels_segments_and_mechanisms_draw_otherwise() -> None:
    scores = torch.zeros(400, 1000)
    base = drawn(scores, "exponential", k=1)
    for other in (
        drawn(scores, "exponential", k=1, label="y"),
        drawn(scores, "exponential", k=1, key=Key.from_seed(8)),
        drawn(scores, "exponential", 400, k=1),
        drawn(scores, "permute-and-flip", k=1),
        drawn(scores, "exponential", k=2)[:, 1:],
    ):
        assert (other == base).float().mean() < 0.02  # by chance 1 in 1000


def test_inputs_are_not_written_and_global_generators_not_touched() -> None:
    scores = make_scores()
    before, torch_state, numpy_state = scores.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - read only
    for mechanism in MECHANISMS:
        drawn(scores, mechanism)
    assert torch.equal(scores, before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_calls_from_many_python_threads() -> None:
    scores = make_scores(300)
    expected = drawn(scores, "permute-and-flip")
    results: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(drawn(scores, "permute-and-flip"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(torch.equal(result, expected) for result in results)


def test_a_forked_process_draws_the_same() -> None:
    """There is no state to copy or to share: the parent's draws, before and after, are the child's."""
    program = (
        "import os, sys, torch\ntorch.set_num_threads(1)\n"
        "from privkernels.ops import em_select\nfrom privkernels.randomness import Key\n"
        "draw = lambda: em_select(torch.zeros(9, 50), multiplier=1.0, key=Key.from_seed(1), label='f').tolist()\n"
        "before = draw()\nchild = os.fork()\n"
        "if child == 0:\n    os._exit(0 if draw() == before else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (draw() != before))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# What every instruction set runs; it prints one digest of the indices for each case.
PROGRAM = """
from privkernels.ops import em_select
for rows, n, k, multiplier, scale, dtype in [
    (1, 1, 1, 1.0, 1.0, torch.float32), (700, 9, 9, 2.0, 1.0, torch.float32), (300, 257, 2, 0.1, 30.0, torch.float64),
    (40, 1000, 5, 1e-30, 1e30, torch.float32), (1, 300_001, 3, 1.0, 5.0, torch.float32),
    (50, 64, 64, 0.0, 1.0, torch.float64),
]:
    scores = torch.randn(rows, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(dtype) * scale
    for mechanism in ("exponential", "permute-and-flip"):
        index = em_select(scores, multiplier=multiplier, key=Key.from_seed(n), label="isa", k=k, mechanism=mechanism)
        digests[f"{rows} {n} {k} {mechanism}"] = hashlib.sha256(index.numpy().tobytes()).hexdigest()
"""


def test_every_instruction_set_gives_the_same_indices() -> None:
    assert_same_bits(PROGRAM, different=10)
