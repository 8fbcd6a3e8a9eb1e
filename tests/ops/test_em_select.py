"""em_select against the exact law of its integer weights, and that law against the ideal mechanisms."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels.ops import (
    em_select,
    em_select_accuracy,
    em_select_probabilities_reference,
    em_select_sequences_reference,
    permute_and_flip_probabilities_reference,
)
from privkernels.randomness import Key
from tests.support import em_select_mirror as mirror

KEY = Key.from_seed(2007)
MECHANISMS = ("exponential", "permute-and-flip")
mpmath.mp.dps = 80


def exact(number: mpmath.mpf) -> Fraction:
    """An mpf as the rational that it is."""
    sign, mantissa, exponent, _ = number._mpf_
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** int(exponent)


def ideal_weights(scores: np.ndarray, multiplier: float) -> list[Fraction]:
    """exp(multiplier (s - max)) to 80 digits."""
    largest = mpmath.mpf(float(scores.max()))
    exponents = [mpmath.mpf(multiplier) * (mpmath.mpf(float(s)) - largest) for s in scores]
    return [exact(mpmath.exp(x)) for x in exponents]


def rounded(weights: list[Fraction]) -> list[int]:
    """Weights in units of 2^-80, cut far below those units, for the mirror's exact formulae."""
    return [int(w * mirror.ONE) for w in weights]


CASES: dict[str, tuple[list[float], float]] = {
    "one": ([3.0], 2.0),
    "two": ([0.0, 1.0], 0.7),
    "ties": ([1.0, 1.0, 1.0], 5.0),
    "spread": ([0.0, -1.5, 2.0, 0.25, 1.875], 1.3),
    "at the resolution": ([0.0, -50.0, -55.0, -55.45, -55.5, -80.0, -300.0], 1.0),
    "offset": ([1e6, 1e6 - 0.5, 1e6 + 0.25, 1e6 + 1.0], 3.0),
    "tiny multiplier": ([1e30, -1e30, 0.0], 1e-30),
    "zero multiplier": ([1e30, -5.0, 0.0, 7.0], 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_law_of_the_integers_is_within_the_stated_distance(name: str) -> None:
    """Total variation and log ratios between the exact laws, implemented and ideal; nothing is sampled."""
    values, multiplier = CASES[name]
    scores = np.array(values, dtype=np.float32)
    integers = mirror.weights(scores, multiplier)
    ideal = ideal_weights(scores, multiplier)
    for w, a in zip(integers, ideal, strict=True):
        # A weight is cut down by less than 2^-80, after an error of at most e in its logarithm.
        error = em_select_accuracy(len(scores)).log_weight_error
        assert a * Fraction(math.exp(-error)) * mirror.ONE - 1 < w <= a * Fraction(math.exp(error)) * mirror.ONE
    total = sum(ideal)
    law = mirror.exact_exponential(integers)
    assert sum(law) == 1
    accuracy = em_select_accuracy(len(scores))
    bound = accuracy.total_variation + math.expm1(accuracy.epsilon_shift / 2)
    assert mirror.distance(law, [a / total for a in ideal]) <= bound
    # Where no weight is near the cut, ratios of probabilities are off by little more than e each.
    if min(ideal) > Fraction(1, 2**20):
        for p, a in zip(law, ideal, strict=True):
            assert abs(mirror.log_ratio(p, a / total)) <= accuracy.epsilon_shift / 2 + 2.0**-58


@pytest.mark.parametrize("name", CASES)
def test_the_law_of_permute_and_flip_is_within_the_stated_distance(name: str) -> None:
    values, multiplier = CASES[name]
    scores = np.array(values, dtype=np.float32)
    ideal = [Fraction(w) / 2**200 for w in [int(a * 2**200) for a in ideal_weights(scores, multiplier)]]
    wanted = exact_permute_and_flip_of(ideal)
    law = mirror.exact_permute_and_flip(mirror.weights(scores, multiplier))
    assert sum(law) == 1
    accuracy = em_select_accuracy(len(scores), mechanism="permute-and-flip")
    assert mirror.distance(law, wanted) <= accuracy.total_variation + math.expm1(accuracy.epsilon_shift / 2)


def exact_permute_and_flip_of(a: list[Fraction]) -> list[Fraction]:
    """McKenna and Sheldon's Algorithm 1 by its recursion: a random candidate first, then the rest if its coin fails."""
    if len(a) == 1:
        return [Fraction(1)]
    n, result = len(a), [Fraction(0)] * len(a)
    largest = max(a)
    for first in range(n):
        result[first] += a[first] / n
        if a[first] == 1:
            continue
        rest = [i for i in range(n) if i != first]
        assert max(a[i] for i in rest) == largest  # a maximum accepts, so it is never passed over
        for i, p in zip(rest, exact_permute_and_flip_of([a[i] for i in rest]), strict=True):
            result[i] += (1 - a[first]) / n * p
    return result


def test_references_agree_with_the_exact_laws() -> None:
    for values, multiplier in CASES.values():
        scores = torch.tensor(values)
        ideal = ideal_weights(scores.numpy(), multiplier)
        wanted = [float(a / sum(ideal)) for a in ideal]
        got = em_select_probabilities_reference(scores, multiplier).numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
        wanted = [float(p) for p in mirror.exact_permute_and_flip(rounded(ideal))]
        got = permute_and_flip_probabilities_reference(scores, multiplier).numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-22)


def test_permute_and_flip_reference_at_hundreds_of_candidates() -> None:
    """All equal: uniform. One far above the others: it alone. Two equal on top: a half each."""
    for n in (2, 3, 100, 301):
        np.testing.assert_allclose(permute_and_flip_probabilities_reference(torch.zeros(n), 1.0), 1 / n, rtol=1e-11)
        peak = torch.full((n,), -1000.0)
        peak[n // 2] = 0
        assert permute_and_flip_probabilities_reference(peak, 1.0)[n // 2] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_sequences_reference(mechanism: Any) -> None:
    scores = torch.tensor([0.0, 1.0, -0.5, 0.5])
    sequences = em_select_sequences_reference(scores, 1.1, 2, mechanism)
    assert len(sequences) == 12
    assert sum(sequences.values()) == pytest.approx(1)
    single = em_select_sequences_reference(scores, 1.1, 1, mechanism)
    law = em_select_probabilities_reference if mechanism == "exponential" else permute_and_flip_probabilities_reference
    np.testing.assert_allclose([single[(i,)] for i in range(4)], law(scores, 1.1))
    # By hand: 1 first, then 3 among 0, 2, 3.
    assert sequences[1, 3] == pytest.approx(single[(1,)] * law(scores[[0, 2, 3]], 1.1)[2].item())


def mirrored(scores: torch.Tensor, offsets: list[int], multiplier: float, k: int, mechanism: str) -> list[list[int]]:
    secret = KEY.derive("bits").secret
    segments = itertools.pairwise(offsets)
    return [
        mirror.draw(scores[a:b].numpy(), multiplier, secret, 11 + s, k, mechanism == "permute-and-flip")
        for s, (a, b) in enumerate(segments)
    ]


@st.composite
def ragged(draw: st.DrawFn) -> tuple[torch.Tensor, list[int], float, int]:
    """Scores [N], offsets, multiplier and k: lengths around the widths and the block of 128, scores of every size."""
    lengths = draw(
        st.lists(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17, 33, 127, 128, 129, 300]), min_size=1, max_size=6)
    )
    k = draw(st.integers(1, min(4, *lengths)) if len(lengths) > 1 else st.integers(1, min(4, lengths[0])))
    seed, scale = draw(st.integers(0, 999)), draw(st.sampled_from([0.0, 1e-3, 1.0, 20.0, 1e30]))
    scores = torch.randn(sum(lengths), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    scores = scores.to(draw(st.sampled_from([torch.float32, torch.float64])))
    if draw(st.booleans()):
        scores = scores.round()  # ties
    multiplier = draw(st.sampled_from([0.0, 0.3, 1.0, 7.0])) / max(scale, 1e-3)
    return scores, [0, *np.cumsum(lengths).tolist()], multiplier, k


@pytest.mark.parametrize("mechanism", MECHANISMS)
@given(ragged())
@settings(max_examples=40)
def test_draws_are_the_mirrors(mechanism: Any, case: tuple[torch.Tensor, list[int], float, int]) -> None:
    scores, offsets, multiplier, k = case
    index = em_select(
        scores, offsets=torch.tensor(offsets), multiplier=multiplier, k=k, mechanism=mechanism, key=KEY, label="bits",
        first_segment=11,
    )  # fmt: skip
    assert index.tolist() == mirrored(scores, offsets, multiplier, k, mechanism)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_score_wins_and_not_the_smallest(mechanism: Any, dtype: torch.dtype) -> None:
    scores = torch.tensor([[5.0, -3.0, 9.0, 0.0], [-1.0, -2.0, -3.0, -4.0], [0.0, 1e20, -1e30, 7.0]], dtype=dtype)
    for multiplier in (100.0, 1e6, 1e300):
        index = em_select(scores, multiplier=multiplier, key=KEY, label="max", mechanism=mechanism)
        assert index.tolist() == [2, 0, 1]
    order = em_select(scores, multiplier=1e4, key=KEY, label="max", mechanism=mechanism, k=4)
    assert order.tolist() == [[2, 0, 3, 1], [0, 1, 2, 3], [1, 3, 0, 2]]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_k_draws_are_without_replacement(mechanism: Any) -> None:
    scores = torch.randn(50, 37, generator=torch.Generator().manual_seed(0))
    for multiplier in (0.0, 3.0):
        order = em_select(scores, multiplier=multiplier, key=KEY, label="k", k=37, mechanism=mechanism)
        assert torch.equal(order.sort(1).values, torch.arange(37).expand(50, 37))
        first = em_select(scores, multiplier=multiplier, key=KEY, label="k", mechanism=mechanism)
        assert torch.equal(first, order[:, 0])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_one_candidate(mechanism: Any) -> None:
    for score in (0.0, -1e300, 1e-310):
        scores = torch.full((3, 1), score, dtype=torch.float64)
        assert em_select(scores, multiplier=2.0, key=KEY, label="1", mechanism=mechanism).tolist() == [0, 0, 0]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_float32_and_float64_agree_where_both_hold_the_scores(mechanism: Any) -> None:
    scores = torch.randn(400, 150, generator=torch.Generator().manual_seed(1))
    arguments: dict[str, Any] = {"multiplier": 1.5, "key": KEY, "label": "d", "k": 2, "mechanism": mechanism}
    assert torch.equal(em_select(scores, **arguments), em_select(scores.double(), **arguments))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_shift_that_is_exact_changes_nothing(mechanism: Any) -> None:
    scores = torch.randint(-30, 30, (300, 40), generator=torch.Generator().manual_seed(2)).float() / 8
    arguments: dict[str, Any] = {"multiplier": 0.9, "key": KEY, "label": "s", "k": 3, "mechanism": mechanism}
    expected = em_select(scores, **arguments)
    for shift in (1024.0, -77.5):
        assert torch.equal(em_select(scores + shift, **arguments), expected)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_million_candidates(mechanism: Any) -> None:
    """A peak among 1.2 million equals is drawn with the probability that it should have; the index is the mirror's."""
    scores = torch.zeros(1_200_001)
    scores[777_777] = 1.0
    index = em_select(scores, multiplier=60.0, key=KEY, label="m", mechanism=mechanism)
    assert index.item() == 777_777
    ramp = torch.linspace(-5, 5, 1_000_003)
    drawn = em_select(ramp, multiplier=1.0, key=KEY, label="m", k=40, mechanism=mechanism)
    # The rank of exp(score) in its own law is uniform, so its mean over 40 draws is 1/2 +- 0.046.
    rank = (torch.exp(ramp[drawn].double()) - math.exp(-5)) / (math.exp(5) - math.exp(-5))
    assert abs(rank.mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / 40)
    assert drawn.unique().numel() == 40


def test_a_million_candidates_to_the_bit() -> None:
    scores = torch.randn(1_000_003, generator=torch.Generator().manual_seed(5))
    drawn = em_select(scores, multiplier=1.0, key=KEY, label="bits", first_segment=11)
    assert [[drawn.item()]] == mirrored(scores, [0, len(scores)], 1.0, 1, "exponential")


def test_accuracy_is_what_the_header_states() -> None:
    accuracy = em_select_accuracy(10**7)
    assert accuracy.log_weight_error < 2.0**-45.0
    assert accuracy.epsilon_shift == 4 * accuracy.log_weight_error
    assert accuracy.total_variation == 1e7 * (2.0**-80 + 2.0**-128)
    flip = em_select_accuracy(10**6, mechanism="permute-and-flip")
    assert flip.total_variation == 1e6 * 2.0**-80 + 1e12 * 2.0**-129
    narrow = em_select_accuracy(100, multiplier=0.5, score_range=2.0)
    assert narrow.log_weight_error == 4.01 * 2.0**-53 + 2.0**-50
    assert em_select_accuracy(100, multiplier=1e9, score_range=2.0) == em_select_accuracy(100)


def test_weights_of_every_exponent_are_within_the_stated_error() -> None:
    """The bound e, at 20,000 places over all exponents; the worst is not far below it, so the bound says something."""
    exponents = -np.random.default_rng(0).uniform(0, 55.4, 20_000)
    scores = np.append(exponents, 0.0)
    integers = mirror.weights(scores, 1.0)
    bound = em_select_accuracy(2).log_weight_error
    worst = 0.0
    for x, w in zip(exponents[::10], integers[::10], strict=False):
        ratio = (mpmath.mpf(w) + mpmath.mpf(0.5)) / mirror.ONE / mpmath.exp(mpmath.mpf(float(x)))
        if w > 2**54:  # else the cut to an integer is larger than the error
            worst = max(worst, abs(float(mpmath.log(ratio))))
    assert bound / 50 < worst <= bound
