"""Frequencies of em_select's draws: what the mechanism says is accepted, 2 % away from it is rejected."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from privkernels.ops import (
    em_select,
    em_select_probabilities_reference,
    em_select_sequences_reference,
    permute_and_flip_probabilities_reference,
)
from privkernels.randomness import Key

DRAWS = 400_000
# A test fails by chance, over all keys, with this probability; with the fixed keys here it never does.
ERROR_RATE = 1e-6
LAWS: dict[str, Any] = {
    "exponential": em_select_probabilities_reference,
    "permute-and-flip": permute_and_flip_probabilities_reference,
}
SCORES = {
    "five": torch.tensor([0.0, -1.5, 2.0, 0.25, 1.875]),
    "two on top": torch.tensor([1.0, 1.0, 0.0, -1.0]),
    "many": torch.linspace(-2, 2, 40),
}


def counts_of(scores: torch.Tensor, multiplier: float, mechanism: Any, draws: int = DRAWS) -> np.ndarray:
    """How often each candidate is drawn, when the same scores stand in ``draws`` rows."""
    index = em_select(
        scores.expand(draws, -1), multiplier=multiplier, key=Key.from_seed(11), label="frequencies",
        mechanism=mechanism,
    )  # fmt: skip
    return np.bincount(index.numpy(), minlength=len(scores))


def p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square, with the candidates of fewer than 10 expected draws put together."""
    expected = probabilities / probabilities.sum() * counts.sum()
    rare = expected < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    return float(stats.chisquare(observed[keep], expected[keep]).pvalue)


@pytest.mark.parametrize("mechanism", LAWS)
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("multiplier", [0.0, 0.5, 2.0])
def test_frequencies_follow_the_reference(mechanism: str, name: str, multiplier: float) -> None:
    scores = SCORES[name]
    counts = counts_of(scores, multiplier, mechanism, 150_000)
    assert p_value(counts, LAWS[mechanism](scores, multiplier).numpy()) > ERROR_RATE / 18


@pytest.mark.parametrize("mechanism", LAWS)
def test_the_same_test_rejects_a_multiplier_that_is_slightly_wrong(mechanism: str) -> None:
    """Power: at 2 % and 400,000 draws the expected statistic lies far beyond what chance gives."""
    scores, multiplier = SCORES["many"], 1.5
    counts = counts_of(scores, multiplier, mechanism)
    law = LAWS[mechanism]
    assert p_value(counts, law(scores, multiplier).numpy()) > ERROR_RATE
    for wrong in (multiplier * 1.02, multiplier * 0.98):
        assert p_value(counts, law(scores, wrong).numpy()) < ERROR_RATE
    other = LAWS["permute-and-flip" if mechanism == "exponential" else "exponential"]
    assert p_value(counts, other(scores, multiplier).numpy()) < ERROR_RATE
    assert p_value(counts, np.roll(law(scores, multiplier).numpy(), 1)) < ERROR_RATE


@pytest.mark.parametrize("mechanism", LAWS)
def test_sequences_of_k_draws_follow_the_reference(mechanism: Any) -> None:
    scores, multiplier, k = SCORES["five"], 1.2, 3
    order = em_select(
        scores.expand(DRAWS, -1), multiplier=multiplier, key=Key.from_seed(12), label="k", k=k, mechanism=mechanism
    )
    code = (order * torch.tensor([25, 5, 1])).sum(1)
    counts = np.bincount(code.numpy(), minlength=125)
    sequences = list(itertools.permutations(range(5), k))
    observed = counts[[25 * a + 5 * b + c for a, b, c in sequences]]
    assert observed.sum() == DRAWS

    def law(m: float) -> np.ndarray:
        reference = em_select_sequences_reference(scores, m, k, mechanism)
        return np.array([reference[s] for s in sequences])

    assert p_value(observed, law(multiplier)) > ERROR_RATE
    for wrong in (multiplier * 1.02, multiplier * 0.98):
        assert p_value(observed, law(wrong)) < ERROR_RATE


@pytest.mark.parametrize("mechanism", LAWS)
def test_ties_are_uniform(mechanism: Any) -> None:
    """Also over more than one block of 128 candidates, and where the ties lie among others."""
    counts = counts_of(torch.full((300,), -7.0), 3.0, mechanism, 60_000)
    assert p_value(counts, np.full(300, 1 / 300)) > ERROR_RATE
    scores = torch.full((30,), -60.0)
    scores[[0, 13, 29]] = 4.0
    counts = counts_of(scores, 1.0, mechanism, 60_000)
    assert counts[[0, 13, 29]].sum() == 60_000
    assert p_value(counts[[0, 13, 29]], np.full(3, 1 / 3)) > ERROR_RATE


@pytest.mark.parametrize("mechanism", LAWS)
def test_draws_of_segments_and_peels_are_independent(mechanism: Any) -> None:
    """Pairs of neighbouring rows, and the first and second of all-equal draws, fill their tables evenly."""
    order = em_select(
        torch.zeros(200_000, 8), multiplier=1.0, key=Key.from_seed(13), label="i", k=2, mechanism=mechanism
    )
    first, second = order[:, 0], order[:, 1]
    pairs = np.bincount((first[::2] * 8 + first[1::2]).numpy(), minlength=64)
    assert p_value(pairs, np.full(64, 1 / 64)) > ERROR_RATE
    table = np.bincount((first * 8 + second).numpy(), minlength=64).reshape(8, 8)
    assert np.diagonal(table).sum() == 0
    off = table[~np.eye(8, dtype=bool)]
    assert p_value(off, np.full(56, 1 / 56)) > ERROR_RATE


def test_permute_and_flip_does_better_than_the_exponential_mechanism() -> None:
    """McKenna and Sheldon prove that the expected error is never larger; measured here, and computed."""
    scores = torch.tensor([0.0, -1.0, -1.0, -1.5, -2.0, -4.0])
    means = {}
    for name, law in LAWS.items():
        counts = counts_of(scores, 1.0, name, 100_000)
        means[name] = float((counts / counts.sum() * scores.numpy()).sum())
        assert means[name] == pytest.approx((law(scores, 1.0) * scores.double()).sum().item(), abs=0.02)
    assert means["permute-and-flip"] > means["exponential"] + 0.05
