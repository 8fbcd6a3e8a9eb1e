"""prune_random_mask: Eq. 7's probabilities, draws to the bit, slices, frequencies, errors."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import pack_mask, prune_keep_probabilities, prune_random_mask
from privkernels.randomness import Key
from tests.support import chacha20

KEY = Key.from_seed(21)
PURPOSE = 8  # kPurposePrune in csrc/core/chacha20.h
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def draw(importance: Any, **rest: Any) -> list[torch.Tensor]:
    return prune_random_mask(importance, **({"key": KEY, "label": "p"} | rest))


@given(st.sampled_from(DTYPES), st.lists(st.floats(-6e4, 6e4), min_size=1, max_size=300), st.integers(0, 2**62))
@settings(max_examples=60, deadline=None)
def test_masks_are_those_of_plain_integers(dtype: torch.dtype, values: list[float], first: int) -> None:
    x = torch.tensor(values, dtype=torch.float64).to(dtype)
    (got,) = draw(x, first_element=first)
    (p,) = prune_keep_probabilities(x)
    secret = KEY.derive("p").secret
    words = [chacha20.spread_bits(secret, first + i, 0, PURPOSE) for i in range(len(x))]
    assert got.tolist() == [Fraction(w >> 12, 2**52) < Fraction(q) for w, q in zip(words, p.tolist(), strict=True)]


@given(st.sampled_from(DTYPES), st.lists(st.floats(-6e4, 6e4), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_probabilities_are_equation_7(dtype: torch.dtype, values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64).to(dtype)
    (p,) = prune_keep_probabilities(x)
    w = [Fraction(v) for v in x.double().tolist()]
    low, high = min(w), max(w)
    for own, q in zip(w, p.tolist(), strict=True):
        assert Fraction(q) * 2**52 == int(q * 2**52)
        if low == high:
            assert q == 1
            continue
        ideal = (own - low) / (high - low)
        assert abs(Fraction(q) - ideal) <= Fraction(3, 2**52)
        assert (q == 1) or own != high
        assert (q == 0) or own != low


def test_a_draw_at_its_probability_is_pruned_and_one_below_it_kept() -> None:
    """The last of 52 bits decides; no frequency would show it."""
    secret = KEY.derive("p").secret
    draws = [chacha20.spread_bits(secret, 5 + i, 0, PURPOSE) >> 12 for i in range(300)]
    x = torch.tensor([k / 2**52 for k in draws], dtype=torch.float64)
    assert not draw(x, bounds=(0.0, 1.0), first_element=5)[0].any()
    assert draw(x + 2.0**-52, bounds=(0.0, 1.0), first_element=5)[0].all()


def test_extremes() -> None:
    for dtype in DTYPES:
        assert draw(torch.full((500,), 3.0, dtype=dtype))[0].all()  # all equal: all kept
        x = torch.tensor([0.0, 1.0] * 500, dtype=dtype)
        assert torch.equal(draw(x)[0], x.bool())
        tiny = torch.finfo(dtype).tiny * torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        assert prune_keep_probabilities(tiny.to(dtype))[0].tolist() == [0.0, 0.5, 1.0]
        large = torch.finfo(dtype).max / 4
        p = prune_keep_probabilities(torch.tensor([-large, 0.0, large], dtype=dtype))[0]
        assert p.tolist() == [0.0, 0.5, 1.0]
    assert draw(torch.zeros(0, 3))[0].shape == (0, 3)


def test_frequencies() -> None:
    p = 0.3
    x = torch.full((1_000_002,), p, dtype=torch.float64)
    x[0], x[1] = 0.0, 1.0
    kept = int(draw(x)[0][2:].sum())
    assert stats.binomtest(kept, 1_000_000, p).pvalue > 1e-6
    assert stats.binomtest(kept, 1_000_000, p * 1.01).pvalue < 1e-6


def test_slices_models_and_layouts() -> None:
    x = torch.randn(40_001, generator=torch.Generator().manual_seed(1))
    (whole,) = draw(x, first_element=5)
    bounds = (float(x.min()), float(x.max()))
    edges = [0, 1, 130, 20_000, 40_001]
    parts = [draw(x[a:b], first_element=5 + a, bounds=bounds)[0] for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(torch.cat(draw([x[a:b] for a, b in itertools.pairwise(edges)], first_element=5)), whole)
    wide = torch.zeros(40_001, 2)
    wide[:, 1] = x
    assert torch.equal(draw(wide[:, 1], first_element=5)[0], whole)
    square = x[:40_000].view(200, 200)
    assert torch.equal(draw(square.t().contiguous().t())[0], draw(square)[0])
    assert torch.equal(draw(x, first_element=5, as_bits=True)[0], pack_mask(whole))


def test_other_keys_and_labels_draw_otherwise() -> None:
    x = torch.rand(10_000, generator=torch.Generator().manual_seed(2))
    base = draw(x)[0]
    assert torch.equal(base, draw(x)[0])
    for other in (draw(x, label="q")[0], draw(x, key=Key.from_seed(1))[0], draw(x, first_element=128)[0]):
        assert 0.2 < (base != other).double().mean() < 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(dtype: torch.dtype, bad: float) -> None:
    x = torch.zeros(3, 20_000, dtype=dtype)
    x[1, 7], x[2, 3] = bad, bad
    for call in (draw, prune_keep_probabilities):
        with pytest.raises(NonFiniteValueError, match="importance 1 is NaN or infinite in element 20007 "):
            call([torch.zeros(3, dtype=dtype), x])
    operator = torch.ops.privkernels.prune_random_mask
    for end in (1.0, 1e6):  # 1e6: beyond the largest float16
        with pytest.raises(InvalidArgumentError, match=r"element 20007 .*outside"):
            operator(x, -end, end, KEY.tensor(), 0)


@pytest.mark.parametrize(
    ("importance", "rest", "message"),
    [
        (torch.zeros(3, dtype=torch.int32), {}, "must be dense"),
        ([1.0], {}, "importance 0 must be a tensor"),
        ([], {}, "at least one"),
        (None, {}, "importance must be a tensor or a sequence"),
        *((torch.zeros(3), {"bounds": bounds}, "bounds are two") for bounds in ((1.0,), 1.0, "ab", (0, 10**400))),
        (torch.zeros(3), {"key": b"0" * 32}, "key is a privkernels.Key"),
        (torch.zeros(3), {"first_element": -1}, "first_element"),
        (torch.zeros(3), {"first_element": 2**63 - 3}, "first_element"),
        (torch.zeros(3), {"first_element": True}, "first_element"),
        (torch.zeros(3), {"bounds": (1.0, 0.0)}, "bounds of importance"),
        (torch.zeros(3), {"bounds": (0.0, math.inf)}, "bounds of importance"),
        (torch.tensor([0.0, 2.0]), {"bounds": (0.0, 1.0)}, "element 1 .*outside the bounds"),
        (torch.tensor([-1e308, 1e308], dtype=torch.float64), {}, "differ by a finite number"),
    ],
)
def test_bad_arguments(importance: Any, rest: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        draw(importance, **rest)


def test_probabilities_refuse_what_is_outside() -> None:
    with pytest.raises(InvalidArgumentError, match="element 1 of importance 0"):
        prune_keep_probabilities(torch.tensor([0.0, 2.0]), bounds=(0.0, 1.0))
