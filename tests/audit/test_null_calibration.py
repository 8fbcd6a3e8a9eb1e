"""Do the 95 % intervals cover? Each is tried on many simulated audits whose truth is known.

With N audits and at most 5 % misses, a correct interval fails its test with probability below
1e-4 (binomial tail); seeds are fixed, so it does not flicker. The same test must reject the
interval shrunk to half its width about the estimate, which misses about 33 % of the time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.intervals import Figure, auc, mean_of_proportions
from privkernels.audit.metrics import _best_threshold, measure, tpr_at_fpr

AUDITS = 1200
ALLOWED_MISSES = int(stats.binom.isf(1e-4, AUDITS, 0.05))

Sample = Callable[[np.random.Generator, int], np.ndarray]
# An audit: its figure, and the truth that the figure should cover.
Audit = Callable[[np.random.Generator], tuple[Figure, float]]


def misses(audit: Audit) -> tuple[int, int]:
    """How often the truth lies outside the interval, and outside the interval of half the width."""
    missed = [0, 0]
    for seed in range(AUDITS):
        figure, truth = audit(np.random.default_rng(seed))
        if figure.value is None:
            continue
        for i, shrink in enumerate((1.0, 0.5)):
            low = figure.value - shrink * (figure.value - figure.low)
            high = figure.value + shrink * (figure.high - figure.value)
            missed[i] += not low <= truth <= high
    return missed[0], missed[1]


def check(audit: Audit, *, rejects_half: bool = True) -> None:
    whole, half = misses(audit)
    assert whole <= ALLOWED_MISSES
    if rejects_half:
        assert half > ALLOWED_MISSES


def normal(mean: float) -> Sample:
    return lambda rng, n: rng.normal(mean, 1, n)


def test_the_allowance_tells_a_calibrated_interval_from_a_halved_one() -> None:
    halved = 2 * stats.norm.sf(stats.norm.isf(0.025) / 2)
    assert stats.binom.cdf(ALLOWED_MISSES, AUDITS, halved) < 1e-12


@pytest.mark.parametrize(("m", "n"), [(25, 25), (12, 200)])
@pytest.mark.parametrize(
    ("members", "nonmembers", "truth"),
    [
        (normal(0), normal(0), 0.5),
        (normal(1), normal(0), stats.norm.cdf(1 / np.sqrt(2))),
        (normal(3), normal(0), stats.norm.cdf(3 / np.sqrt(2))),
        (lambda rng, n: np.round(rng.normal(0, 1, n)), lambda rng, n: np.round(rng.normal(0, 1, n)), 0.5),
        # Half of the members stand out at the top and half at the bottom.
        (lambda rng, n: rng.choice([-9.0, 9.0], n), normal(0), 0.5),
        # A tenth is exposed beyond doubt, the rest not at all.
        (lambda rng, n: rng.normal(0, 1, n) + 9 * (rng.random(n) < 0.1), normal(0), 0.55),
    ],
    ids=["null", "shifted", "nearly perfect", "tied", "two-sided", "few exposed"],
)
def test_auc(members: Sample, nonmembers: Sample, truth: float, m: int, n: int) -> None:
    check(lambda rng: (auc(members(rng, m), nonmembers(rng, n)), truth))


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("step", [None, 0.5], ids=["continuous", "tied"])
def test_tpr_and_fpr_at_one_percent(shift: float, step: float | None) -> None:
    # With scores rounded down to multiples of `step`, exceeding t means reaching t + step.
    def draw(rng: np.random.Generator, mean: float, n: int) -> np.ndarray:
        scores = rng.normal(mean, 1, n)
        return scores if step is None else np.floor(scores / step) * step

    def tpr(rng: np.random.Generator) -> tuple[Figure, float]:
        rate = tpr_at_fpr(draw(rng, shift, 400), draw(rng, 0.0, 700), 0.01)
        return rate.tpr, float(stats.norm.sf(rate.threshold + (step or 0.0) - shift))

    def fpr(rng: np.random.Generator) -> tuple[Figure, float]:
        rate = tpr_at_fpr(draw(rng, shift, 1), draw(rng, 0.0, 700), 0.01)
        return rate.fpr, float(stats.norm.sf(rate.threshold + (step or 0.0)))

    # With few expected successes, Clopper-Pearson covers so much more than it must that half of it may do.
    check(tpr, rejects_half=shift > 0)
    check(fpr, rejects_half=step is None)


def test_figures_at_the_held_out_threshold_under_the_null() -> None:
    def held(rng: np.random.Generator) -> tuple[Figure, Figure, Figure]:
        figures = measure(rng.normal(size=200), rng.normal(size=200), seed=int(rng.integers(1 << 30)))
        return (
            figures.at_threshold.balanced_accuracy,
            figures.at_threshold.precision,
            figures.at_threshold.recall,
        )

    check(lambda rng: (held(rng)[0], 0.5))
    check(lambda rng: (held(rng)[1], 0.5), rejects_half=False)


def test_a_threshold_chosen_on_the_evaluated_records_is_rejected() -> None:
    def flattering(rng: np.random.Generator) -> tuple[Figure, float]:
        members, nonmembers = rng.normal(size=100), rng.normal(size=100)
        threshold = _best_threshold(members, nonmembers)
        right = int((members >= threshold).sum()), int((nonmembers < threshold).sum())
        return mean_of_proportions((right[0], 100), (right[1], 100)), 0.5

    assert misses(flattering)[0] > ALLOWED_MISSES


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.9, 0.2), (0.99, 0.97)])
def test_mean_of_proportions(p: tuple[float, float]) -> None:
    def audit(rng: np.random.Generator) -> tuple[Figure, float]:
        counts = rng.binomial(80, p[0]), rng.binomial(50, p[1])
        return mean_of_proportions((int(counts[0]), 80), (int(counts[1]), 50)), sum(p) / 2

    check(audit, rejects_half=p != (0.99, 0.97))
