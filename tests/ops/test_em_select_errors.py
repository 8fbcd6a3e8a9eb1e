"""Bad input to em_select raises a named error that says what was wrong; nothing to draw gives nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from privkernels.ops import em_select, em_select_accuracy
from privkernels.randomness import Key

DRAW: dict[str, Any] = {"multiplier": 1.0, "key": Key.from_seed(0), "label": "x"}
MECHANISMS = ("exponential", "permute-and-flip")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("segment", "candidate"), [(0, 0), (3, 299), (2, 128), (1, 31)])
def test_scores_that_are_not_finite_are_named(bad: float, dtype: torch.dtype, segment: int, candidate: int) -> None:
    scores = torch.zeros(4, 300, dtype=dtype)
    scores[segment, candidate] = bad
    for mechanism in MECHANISMS:
        for k in (None, 2):
            with pytest.raises(NonFiniteValueError, match=rf"score {candidate} of segment {segment} "):
                em_select(scores, k=k, mechanism=mechanism, **DRAW)
    with pytest.raises(NonFiniteValueError, match=rf"score {candidate} of segment {segment} "):
        em_select(scores.reshape(-1), offsets=torch.arange(0, 1201, 300), **DRAW)


def test_the_first_bad_score_is_named_whatever_the_threads(set_threads: Callable[[int], None]) -> None:
    scores = torch.zeros(3, 200_000)
    scores[1, 150_000], scores[1, 199_999], scores[2, 3] = math.nan, math.inf, math.nan
    many = torch.zeros(20_000, 10)
    many[13_000, 5], many[13_001, 2], many[19_000, 0] = math.inf, math.nan, math.nan
    for threads in (1, 2, 7):
        set_threads(threads)
        with pytest.raises(NonFiniteValueError, match="score 150000 of segment 1 "):
            em_select(scores, **DRAW)
        with pytest.raises(NonFiniteValueError, match="score 5 of segment 13000 "):
            em_select(many, **DRAW)


def test_the_largest_scores_allowed() -> None:
    scores = torch.tensor([-(2.0**1022), 2.0**1022, 0.0], dtype=torch.float64)
    assert em_select(scores, **DRAW | {"multiplier": 1e300}).item() == 1
    # 2^1023 apart, at a multiplier of 2^-1023: weights of 1, exp(-1) and exp(-1/2), so each is drawn at times.
    index = em_select(scores.expand(200, 3), **DRAW | {"multiplier": 2.0**-1023})
    assert index.unique().tolist() == [0, 1, 2]
    with pytest.raises(NonFiniteValueError, match="score 0 of segment 0 "):
        em_select(torch.nextafter(scores, scores * 2), **DRAW)


@pytest.mark.parametrize("multiplier", [-1.0, -1e-300, math.nan, math.inf, 1e301, "1", None, True])
def test_multiplier(multiplier: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="multiplier must be"):
        em_select(torch.zeros(3), **DRAW | {"multiplier": multiplier})


@pytest.mark.parametrize(
    "scores",
    [torch.zeros(()), torch.zeros(2, 2, 2), torch.zeros(3, dtype=torch.float16), torch.zeros(3, dtype=torch.int64),
     torch.zeros(3, dtype=torch.bool), [1.0, 2.0], np.zeros(3)],
    ids=str,
)  # fmt: skip
def test_shape_and_dtype_of_scores(scores: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="scores must be"):
        em_select(scores, **DRAW)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 3], "from 0 to the number of scores, 4; got 0 to 3"),
        ([1, 2, 4], "got 1 to 4"),
        ([0, 3, 2, 4], "must not decrease, but segment 1"),
        ([0, 9, 4], "must not decrease, but segment 1"),
        ([0], "got 0 to 0"),
    ],
)
def test_offsets(offsets: list[int], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        em_select(torch.zeros(4), offsets=torch.tensor(offsets), **DRAW)


def test_kind_of_offsets() -> None:
    for offsets in (torch.tensor([0, 4], dtype=torch.int32), torch.tensor([[0, 4]]), torch.zeros(0, dtype=torch.int64)):
        with pytest.raises(InvalidArgumentError, match=r"offsets must be int64 \[segments \+ 1\]"):
            em_select(torch.zeros(4), offsets=offsets, **DRAW)
    with pytest.raises(InvalidArgumentError, match=r"with offsets, scores must be \[N\]"):
        em_select(torch.zeros(1, 4), offsets=torch.tensor([0, 4]), **DRAW)


def test_empty_segments() -> None:
    for call in (
        lambda: em_select(torch.zeros(0), **DRAW),
        lambda: em_select(torch.zeros(3, 0), **DRAW),
        lambda: em_select(torch.zeros(4), offsets=torch.tensor([0, 2, 2, 4]), **DRAW),
    ):
        with pytest.raises(EmptyDataError, match="no candidates"):
            call()


def test_no_segments_give_an_empty_result() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for mechanism in MECHANISMS:
        for scores, offsets in (
            (torch.zeros(0, 5), None),
            (torch.zeros(0, 0), None),
            (torch.zeros(0), none.new_zeros(1)),
        ):
            assert em_select(scores, offsets=offsets, mechanism=mechanism, **DRAW).shape == (0,)
            assert em_select(scores, offsets=offsets, mechanism=mechanism, k=3, **DRAW).shape == (0, 3)


def test_shapes_of_the_result() -> None:
    assert em_select(torch.zeros(5), **DRAW).shape == ()
    assert em_select(torch.zeros(5), k=1, **DRAW).shape == (1,)
    assert em_select(torch.zeros(2, 5), k=4, **DRAW).shape == (2, 4)
    index = em_select(torch.zeros(5), offsets=torch.tensor([0, 2, 5]), k=2, **DRAW)
    assert index.shape == (2, 2)
    assert index.dtype == torch.int64


@pytest.mark.parametrize("k", [0, -1, 1.0, True, 2**33])
def test_k_that_is_no_count(k: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="k must be an integer"):
        em_select(torch.zeros(3), k=k, **DRAW)


def test_k_beyond_a_segment() -> None:
    with pytest.raises(InvalidArgumentError, match="k = 4 candidates cannot be drawn from a segment of 3"):
        em_select(torch.zeros(3), k=4, **DRAW)
    with pytest.raises(InvalidArgumentError, match="k = 3 candidates cannot be drawn from a segment of 2"):
        em_select(torch.zeros(9), k=3, offsets=torch.tensor([0, 4, 6, 9]), **DRAW)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"first_segment": -1}, "first_segment must be"),
        ({"first_segment": 2**32 - 1}, "first_segment \\+ segments is at most"),
        ({"first_segment": 2**70}, "first_segment must be"),
        ({"mechanism": "gumbel"}, "mechanism is one of exponential, permute-and-flip"),
        ({"key": b"0" * 32}, "key is a privkernels.Key"),
        ({"label": ""}, "a label is"),
    ],
)
def test_other_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        em_select(torch.zeros(2, 3), **DRAW | changed)


def test_accuracy_refuses_what_is_out_of_range() -> None:
    for candidates, rest in (
        (0, {}), (2**32 + 1, {}), (5, {"mechanism": "gumbel"}), (5, {"multiplier": -1.0, "score_range": 1.0}),
        (5, {"multiplier": 1.0, "score_range": math.nan}), (5, {"multiplier": 1.0, "score_range": -1.0}),
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError):
            em_select_accuracy(candidates, **rest)
