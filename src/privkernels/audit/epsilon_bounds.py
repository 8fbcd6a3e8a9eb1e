"""Lower bounds on the epsilon of a training procedure, from how well membership of canaries was guessed.

Each bound holds with its stated confidence, whatever was chosen on the way: numbers of guesses come from a grid that
is fixed before a score is seen and share the error, thresholds come from runs that the bound does not use. A bound of
0 says that nothing was shown, never that nothing leaks. Neighbouring data sets differ by the presence of one canary.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import CONFIDENCE, Array, check_confidence, clopper_pearson
from privkernels.audit.metrics import checked_scores
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.randomness import Key

Mask = npt.NDArray[np.bool_]

GRID_SIZE = 10
FEWEST_GUESSES = 10
# No bound is searched above this epsilon: e^-40 is far below anything that canaries could show.
_LARGEST_EPSILON = 40.0
_LARGEST_MU = 40.0
# Fair coins leave the number of included canaries this unlikely only where they were not thrown.
_IMPLAUSIBLE = 1e-6

_COINS = (
    "each canary was included by its own fair coin flip, and nothing else in training depends on the flips",
    "the scores depend on the flips through the trained model alone, and the canaries were listed before the flips",
)
_GAUSSIAN = "the trade-off between the errors of any test for one canary is that of a Gaussian mechanism"
_RUNS = (
    "the runs are independent and alike: one canary is in the training data of the first kind and not of the second",
    "each score depends on its own run alone",
)


@dataclass(frozen=True)
class EpsilonBound(JsonValue):
    """A lower bound on epsilon.

    Attributes:
        method: what the bound was computed by.
        epsilon: no (e, delta)-differentially private procedure with e < ``epsilon`` explains the guesses, with
            probability ``confidence``; 0 if they show nothing.
        ceiling: what a perfect attack would have been certified; ``epsilon`` near it is saturated, not measured.
        condition: what the bound holds under beyond differential privacy's definition, such as "if the mechanism is
            Gaussian"; None for a bound that needs no such condition.
        assumptions: what the confidence rests on. They are the caller's to keep, and are not checked.
        guesses, correct: the guesses that gave the bound, and how many of them were right; for runs, the evaluated
            runs and those called right.
        n: canaries, or runs of both kinds.
        seed: of the order among equal scores, or of the split of the runs.
    """

    method: str
    epsilon: float
    delta: float
    confidence: float
    ceiling: float
    condition: str | None
    assumptions: tuple[str, ...]
    guesses: int
    correct: int
    n: int
    seed: int

    def __str__(self) -> str:
        condition = f", {self.condition}" if self.condition else ""
        return (
            f"epsilon >= {self.epsilon:.4g} at delta = {self.delta:g} with {100 * self.confidence:g}% confidence"
            f"{condition} ({self.method}; {self.correct} of {self.guesses} guesses right, n = {self.n}; a perfect "
            f"attack would have shown {self.ceiling:.4g}). Assumed: {'; '.join(self.assumptions)}."
        )


def one_run_bound(
    scores: Array, included: Mask, delta: float, confidence: float = CONFIDENCE, *, seed: int = 0
) -> EpsilonBound:
    """Lower-bound epsilon from the canaries of one training run.

    Steinke, Nasr and Jagielski (NeurIPS 2023, "Privacy auditing with one (1) training run"), main theorem, with
    guesses on both sides: of r guesses, the canaries with the highest half of the scores are guessed in and those
    with the lowest half out. Departure: r is not chosen by looking. All r of :func:`guess_grid`, which depends on
    the number of canaries alone, are tried with an equal share of the error, and the best is reported.

    Equal scores are ordered by a random permutation drawn from ``seed``. Where the canaries are listed in an order
    that was fixed before the coin flips, any order among ties is independent of inclusion and the bound is valid for
    every seed; where the list was sorted by inclusion, it is valid over the draw of the permutation.

    Args:
        scores: float [m], one per canary, higher for likelier included, from the one trained model.
        included: bool [m]: the coin flips, thrown independently with probability 1/2. A fixed half is no coin flip
            and voids the bound.
        delta: of the (epsilon, delta) that is bounded; at most 1 / (2 m): up to there the theorem's p-value
            grows with epsilon, so that it can be inverted.
        confidence: of the bound.
        seed: of the order among equal scores.

    Raises:
        TooFewRecordsError: so few canaries that even a perfect attack would show nothing; says how many are needed.
        InvalidArgumentError: delta or confidence out of range, shapes or dtypes that do not match, or a number of
            included canaries that fair coins would not give.
        EmptyDataError, NonFiniteValueError: no scores, or scores that are not finite.
    """
    return _one_run(
        scores, included, delta, confidence, seed, _dp_epsilon, "one run, two-sided guesses (Steinke et al. 2023)"
    )


def one_run_gaussian_bound(
    scores: Array, included: Mask, delta: float, confidence: float = CONFIDENCE, *, seed: int = 0
) -> EpsilonBound:
    """As :func:`one_run_bound`, but only against Gaussian mechanisms: "if Gaussian".

    Mahloujifar, Melis and Chaudhuri ("Auditing f-differential privacy in one run", arXiv 2410.22235, 2024): the guesses
    refute mu-Gaussian differential privacy (Dong, Roth and Su 2022) for small mu; the largest refuted mu is turned
    into epsilon at ``delta``. A procedure that is not Gaussian, such as one that publishes a canary with probability
    delta, can have a smaller epsilon than this at the same delta.

    Args, Raises: as for :func:`one_run_bound`, and delta must be positive: at delta = 0 no Gaussian mechanism has a
    finite epsilon.
    """
    method = "one run, two-sided guesses against Gaussian mechanisms (Mahloujifar et al. 2024)"
    return _one_run(
        scores, included, delta, confidence, seed, _gaussian_epsilon, method, "if the mechanism is Gaussian"
    )


def runs_bound(
    scores_in: Array, scores_out: Array, delta: float, confidence: float = CONFIDENCE, *, seed: int = 0
) -> EpsilonBound:
    """Lower-bound epsilon from many independent training runs with and without one canary.

    A random half of the runs chooses the threshold, and the side of it, with the best bound. On the other half the two
    error rates get exact limits (Clopper and Pearson 1934), half of the error each, and
    ``epsilon >= ln((P_low - delta) / Q_high)`` where P and Q are the probabilities of the chosen side of the
    threshold for the likelier and the other kind of run. Equal scores fall on one side together.

    Args:
        scores_in: float [a]: the canary's score in each run that trained on it.
        scores_out: float [b]: in each run that did not. The runs must be independent: scores of several canaries of
            one model are not, and a bound from them is an estimate without confidence.
        seed: of the split.

    Raises:
        TooFewRecordsError: too few runs to show anything.
        Others as for :func:`one_run_bound`.
    """
    scores_in, scores_out = checked_scores(scores_in, "canary (in)"), checked_scores(scores_out, "canary (out)")
    _check_delta(delta, 1.0)
    check_confidence(confidence)
    tail = (1 - confidence) / 2
    rng = np.random.default_rng(Key.from_seed(seed).seed_for("split of the runs"))
    choose, judge = zip(*(_halves(kind, rng) for kind in (scores_in, scores_out)), strict=True)
    a, b = len(judge[0]), len(judge[1])
    ceiling = max(_two_rates_epsilon(a, a, 0, b, delta, tail), _two_rates_epsilon(b, b, 0, a, delta, tail))
    if ceiling == 0:
        needed = next(n for n in itertools.count(1) if _two_rates_epsilon(n, n, 0, n, delta, tail) > 0)
        raise TooFewRecordsError(
            f"{len(scores_in)} runs with the canary and {len(scores_out)} without show nothing at {confidence:g} "
            f"confidence and delta = {delta:g}, whatever the scores: at least {2 * needed} of each are needed"
        )
    threshold, above, in_likelier = _best_side(choose[0], choose[1], delta, tail)
    events = [(kind >= threshold) == above for kind in judge]
    likelier, other = events if in_likelier else events[::-1]
    hits, wrong = int(likelier.sum()), int(other.sum())
    return EpsilonBound(
        method="independent runs, threshold from a held-out half (Clopper-Pearson)",
        epsilon=_two_rates_epsilon(hits, len(likelier), wrong, len(other), delta, tail),
        delta=delta,
        confidence=confidence,
        ceiling=ceiling,
        condition=None,
        assumptions=_RUNS,
        guesses=a + b,
        correct=hits + len(other) - wrong,
        n=len(scores_in) + len(scores_out),
        seed=seed,
    )


def guess_grid(m: int) -> tuple[int, ...]:
    """Numbers of guesses to try on m canaries: ten, log-spaced from max(10, m / 200) to m; fewer for small m."""
    lowest = min(m, max(FEWEST_GUESSES, math.ceil(m / 200)))
    return tuple(sorted({round(float(r)) for r in np.geomspace(lowest, m, GRID_SIZE)}))


def one_run_p_value(epsilon: float, m: int, guesses: int, correct: int, delta: float) -> float:
    """The chance of so many right guesses under (epsilon, delta)-DP, at most (Steinke et al. 2023, main theorem).

    With W ~ Binomial(guesses, e^epsilon / (1 + e^epsilon)) it is
    ``P[W >= correct] + 2 m delta max_i P[correct > W >= correct - i] / i``, and never above 1. For 2 m delta <= 1 it
    does not decrease with epsilon: the derivative of each term of the maximum is a sum of probabilities with
    weights 1 - 2 m delta / i and 2 m delta / i.

    Args:
        m: canaries; guesses, correct: integers with 0 <= correct <= guesses <= m.
    """
    right = float(special.expit(epsilon))
    # P[W >= correct] as an incomplete beta function; scipy.stats takes ten times as long.
    tail = float(special.betainc(correct, guesses - correct + 1, right)) if correct > 0 else 1.0
    if delta > 0 and correct > 0:
        below = np.cumsum(stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
        tail += 2 * m * delta * float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, tail)


@functools.lru_cache(maxsize=65536)
def gaussian_refuted(mu: float, m: int, guesses: int, correct: int, level: float) -> bool:
    """Whether ``correct`` or more right guesses are less likely than ``level`` under mu-Gaussian DP.

    With p_j the probability of j right guesses and g(x) = Phi(Phi^-1(x) - mu), mu-GDP demands for every k that
    ``sum_{j >= k-1} (guesses - j) p_j / m >= g(sum_{j >= k} j p_j / m)``: flipping one canary's coin makes one right
    guess wrong, and g is convex. Mass ``level`` at ``correct``, and then as little below it as the demands allow,
    must fit into a total of 1 (Mahloujifar et al. 2024, their recursion for a general trade-off function).
    """
    hits, misses = level * correct / m, level * (guesses - correct) / m
    for j in range(correct - 1, -1, -1):
        demanded = float(special.ndtr(special.ndtri(hits) - mu))
        if demanded <= misses:
            return False  # every further demand is the same one
        hits += j / (guesses - j) * (demanded - misses)
        misses = demanded
        if hits + misses > guesses / m:
            return True
    return False


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at ``delta`` > 0 of mu-Gaussian differential privacy (Balle and Wang 2018, theorem 8)."""

    def too_small(epsilon: float) -> bool:
        log_second = epsilon + float(special.log_ndtr(-epsilon / mu - mu / 2))
        return float(special.ndtr(mu / 2 - epsilon / mu)) - math.exp(min(log_second, 0.0)) > delta

    return 0.0 if mu == 0 else _largest(too_small, mu * (mu / 2 + 40))


def check_one_run(m: int, delta: float, confidence: float, *, positive_delta: bool = False) -> None:
    """Refuse what :func:`one_run_bound` could make no statement about; errors as there."""
    check_confidence(confidence)
    _check_delta(delta, 1 / (2 * m), positive=positive_delta)

    def shows(count: int) -> bool:
        grid = guess_grid(count)
        return any(one_run_p_value(0.0, count, r, r, delta) < (1 - confidence) / len(grid) for r in grid)

    if shows(m):
        return
    needed = next((count for count in range(m + 1, m + 500) if shows(count)), None)
    todo = "choose a smaller delta" if needed is None else f"at least {needed} canaries are needed"
    raise TooFewRecordsError(
        f"{m} canaries show nothing at {confidence:g} confidence and delta = {delta:g}, whatever their scores: {todo}"
    )


# (m, guesses, correct, delta, level) -> the largest epsilon that the guesses refute.
_Inversion = Callable[[int, int, int, float, float], float]


def _one_run(
    scores: Array,
    included: Mask,
    delta: float,
    confidence: float,
    seed: int,
    invert: _Inversion,
    method: str,
    condition: str | None = None,
) -> EpsilonBound:
    scores, included = checked_scores(scores, "canary"), _coins(included, scores)
    m = len(scores)
    check_one_run(m, delta, confidence, positive_delta=condition is not None)
    grid = guess_grid(m)
    level = (1 - confidence) / len(grid)
    correct = _right_guesses(scores, included, grid, seed)
    bounds = [invert(m, r, v, delta, level) for r, v in zip(grid, correct, strict=True)]
    best = int(np.argmax(bounds))
    return EpsilonBound(
        method=method,
        epsilon=bounds[best],
        delta=delta,
        confidence=confidence,
        ceiling=max(invert(m, r, r, delta, level) for r in grid),
        condition=condition,
        assumptions=(*_COINS, _GAUSSIAN) if condition else _COINS,
        guesses=grid[best],
        correct=correct[best],
        n=m,
        seed=seed,
    )


def _right_guesses(scores: Array, included: Mask, grid: tuple[int, ...], seed: int) -> list[int]:
    """Right guesses for each r of ``grid``: in for the highest r - r // 2 scores, out for the lowest r // 2."""
    rng = np.random.default_rng(Key.from_seed(seed).seed_for("order of equal scores"))
    order = np.lexsort((rng.permutation(len(scores)), -scores))
    found = np.concatenate([[0], np.cumsum(included[order])])
    spared = np.concatenate([[0], np.cumsum(~included[order][::-1])])
    return [int(found[r - r // 2] + spared[r // 2]) for r in grid]


@functools.lru_cache(maxsize=65536)
def _dp_epsilon(m: int, guesses: int, correct: int, delta: float, level: float) -> float:
    return _largest(lambda epsilon: one_run_p_value(epsilon, m, guesses, correct, delta) < level, _LARGEST_EPSILON)


@functools.lru_cache(maxsize=65536)
def _gaussian_epsilon(m: int, guesses: int, correct: int, delta: float, level: float) -> float:
    mu = _largest(lambda mu: gaussian_refuted(mu, m, guesses, correct, level), _LARGEST_MU)
    return gaussian_epsilon(mu, delta)


def _largest(refuted: Callable[[float], bool], high: float) -> float:
    """The largest value in [0, high] that is refuted, from below, where smaller ones are too; 0 if none is."""
    if not refuted(0.0):
        return 0.0
    low = 0.0
    while high - low > 1e-9 * max(1.0, low):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _two_rates_epsilon(hits: int, n: int, wrong: int, n_other: int, delta: float, tail: float) -> float:
    low, high = clopper_pearson(hits, n, 1 - 2 * tail)[0], clopper_pearson(wrong, n_other, 1 - 2 * tail)[1]
    return max(0.0, math.log((low - delta) / high)) if low > delta else 0.0


def _best_side(scores_in: Array, scores_out: Array, delta: float, tail: float) -> tuple[float, bool, bool]:
    """The event with the best bound on these runs: a threshold, whether it is at or above it, and whether in likelier.

    Both sides of a threshold and both kinds of run as the likelier one are tried.
    """
    levels = np.unique(np.concatenate([scores_in, scores_out]))
    below = [np.searchsorted(np.sort(kind), levels, side="left") for kind in (scores_in, scores_out)]
    best, answer = -math.inf, (float(levels[0]), True, True)
    for above, in_likelier in itertools.product((True, False), repeat=2):
        counts = [
            (len(kind) - under if above else under, len(kind))
            for kind, under in zip((scores_in, scores_out), below, strict=True)
        ]
        (hits, n), (wrong, n_other) = counts if in_likelier else counts[::-1]
        # Limits of Jeffreys' kind need no case for 0 or n, and here they only rank.
        low = stats.beta.ppf(tail, hits + 0.5, n - hits + 0.5)
        ratio = (low - delta) / stats.beta.isf(tail, wrong + 1, n_other - wrong + 0.5)
        at = int(np.argmax(ratio))
        if ratio[at] > best:
            best, answer = float(ratio[at]), (float(levels[at]), above, in_likelier)
    return answer


def _halves(scores: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    order = rng.permutation(len(scores))
    return scores[order[: len(scores) // 2]], scores[order[len(scores) // 2 :]]


def _coins(included: Mask, scores: Array) -> Mask:
    included = np.asarray(included)
    if included.dtype != np.bool_ or included.shape != scores.shape:
        raise InvalidArgumentError(
            f"expected whether each canary was included, bool [{len(scores)}], "
            f"got {included.dtype} {list(included.shape)}"
        )
    count = int(included.sum())
    if stats.binomtest(count, len(included), 0.5).pvalue < _IMPLAUSIBLE:
        raise InvalidArgumentError(
            f"{count} of {len(included)} canaries were included, which fair coin flips would not give: "
            "include each canary with probability 1/2, on its own"
        )
    return included


def _check_delta(delta: float, most: float, *, positive: bool = False) -> None:
    if not 0 <= delta <= most or delta == 1 or (positive and delta == 0):
        raise InvalidArgumentError(
            f"expected delta {'above 0' if positive else 'of at least 0'} and at most {most:.3g}, got {delta:g}"
        )
