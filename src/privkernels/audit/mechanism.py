"""What draws from a mechanism show of its epsilon: a lower bound that holds with stated confidence.

The mechanism is run many times on two neighbouring inputs. On one half of the draws an event is chosen that tells the
two apart best; on the other half its probabilities are bounded (Clopper and Pearson 1934), and with them epsilon:
under (epsilon, delta)-DP, P(S) <= e^epsilon P'(S) + delta for every event S. As Ding et al. 2018 (StatDP) and
Bichsel et al. 2021 (DP-Sniper) do. It says what one pair of inputs shows, never that a mechanism is private.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privkernels.audit.intervals import CONFIDENCE, clopper_pearson
from privkernels.errors import InvalidArgumentError, TooFewRecordsError

_FEWEST = 100
Outcomes = npt.NDArray[np.generic]


@dataclass(frozen=True)
class MechanismAudit:
    """A lower bound on epsilon from draws.

    Attributes:
        epsilon_low: epsilon is at least this with probability ``confidence``; 0 if the draws show nothing.
        ceiling: the largest value that this many draws could have shown (an event that always and never happens).
        event: the outcomes that the bound comes from, or a range of them.
        probabilities: how often the event happened in the second half, on the likelier input and on the other.
        draws: per input.
        delta: that was allowed for.
    """

    epsilon_low: float
    ceiling: float
    event: tuple[object, ...]
    probabilities: tuple[float, float]
    draws: int
    delta: float
    confidence: float

    def __str__(self) -> str:
        return (
            f"epsilon >= {self.epsilon_low:.4g} with {self.confidence:.0%} confidence (delta {self.delta:g}; at most "
            f"{self.ceiling:.4g} could have been shown by {self.draws} draws of each)"
        )


def audit_mechanism(
    draw: Callable[[bool, int], Outcomes],
    draws: int,
    *,
    delta: float = 0.0,
    confidence: float = CONFIDENCE,
    largest_event: int = 1000,
) -> MechanismAudit:
    """Lower-bound the epsilon of a mechanism from its draws on two neighbouring inputs.

    Args:
        draw: ``draw(second, count)`` returns ``count`` independent outcomes on the first (False) or second (True)
            input, 1-D: integers, or floats, which are compared as they are. Map richer outcomes to integers first.
            It is called four times. The outcomes must be independent, within a call and between calls: the confidence
            rests on that. A mechanism with a key needs another label in each call.
        draws: per input; half of them choose the event.
        delta: of the (epsilon, delta) that is audited.
        largest_event: with more different outcomes than this (2 or more), ranges of ordered outcomes are tried beside
            single ones, and the confidence is shared between the two.

    Raises:
        TooFewRecordsError: fewer than 100 draws.
        InvalidArgumentError: delta or confidence out of range, or outcomes of a wrong shape.
    """
    if draws < _FEWEST:
        raise TooFewRecordsError(f"an audit of a mechanism needs at least {_FEWEST} draws of each input, got {draws}")
    if not 0 <= delta < 1 or not 0 < confidence < 1:
        raise InvalidArgumentError(f"expected 0 <= delta < 1 and 0 < confidence < 1, got {delta} and {confidence}")
    if largest_event < 2:
        raise InvalidArgumentError(f"an event is chosen among 2 or more outcomes, got largest_event = {largest_event}")
    half = draws // 2
    pairs = [[_outcomes(draw(second, count), count) for second in (False, True)] for count in (half, draws - half)]
    values, counts = np.unique(np.concatenate(pairs[0]), return_counts=True)
    cells = [values] if len(values) <= largest_event else [values, _ranges(values, counts, largest_event)]
    # Four one-sided statements (two directions, two probabilities) for each kind of cells share the error.
    inner = 1 - (1 - confidence) / (2 * len(cells))
    best = MechanismAudit(0.0, _ceiling(draws - half, delta, inner), (), (0.0, 0.0), draws, delta, confidence)
    for edges in cells:
        choose, judge = ([_histogram(edges, outcomes) for outcomes in pair] for pair in pairs)
        for first, second in ((0, 1), (1, 0)):
            inside = _best_event(choose[first], choose[second], half, delta)
            hits = int(judge[first][inside].sum()), int(judge[second][inside].sum())
            epsilon = _bound(*hits, draws - half, delta, inner)
            if epsilon > best.epsilon_low:
                shares = (hits[0] / (draws - half), hits[1] / (draws - half))
                event = tuple(edges[inside].tolist())
                best = MechanismAudit(epsilon, best.ceiling, event, shares, draws, delta, confidence)
    return best


def _outcomes(values: Outcomes, count: int) -> Outcomes:
    array = np.asarray(values)
    if array.shape != (count,):
        raise InvalidArgumentError(f"draw must return {count} outcomes, 1-D, got shape {array.shape}")
    return array


def _ranges(values: Outcomes, counts: npt.NDArray[np.int64], most: int) -> Outcomes:
    """Lower ends of ranges, at quantiles of the outcomes seen: with fewer than 1000 draws in one, chance picks it."""
    cumulative = np.cumsum(counts)
    wanted = np.linspace(0, cumulative[-1], min(most, max(10, int(cumulative[-1]) // 1000)), endpoint=False)
    ends: Outcomes = values[np.unique(np.searchsorted(cumulative, wanted, side="right"))]
    return ends


def _histogram(edges: Outcomes, outcomes: Outcomes) -> npt.NDArray[np.int64]:
    """Draws in each cell. Cells come from the half that chooses; what only the other half saw goes to its neighbour."""
    at = np.maximum(np.searchsorted(edges, outcomes, side="right") - 1, 0)
    return np.bincount(at, minlength=len(edges)).astype(np.int64)


def _best_event(
    first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], total: int, delta: float
) -> npt.NDArray[np.bool_]:
    """The event with the best bound on the draws that may be looked at.

    Candidates are the cells in order of their likelihood ratio, up to any of them, and the lower and upper tails,
    which suffer less from chance where outcomes are many and ordered.
    """
    by_ratio = np.argsort(-(first + 0.5) / (second + 0.5), kind="stable")
    best, inside = -1.0, np.zeros(len(first), dtype=bool)
    for order in (by_ratio, np.arange(len(first)), np.arange(len(first))[::-1]):
        p, q = np.cumsum(first[order]) / total, np.cumsum(second[order]) / total
        # A normal approximation ranks the events; only the judging half gives the bound.
        low = p - 2 * np.sqrt(p * (1 - p) / total) - delta
        high = q + 2 * np.sqrt((q + 1 / total) * (1 - q) / total) + 2 / total
        ratio = np.where(low > 0, low, 0.0) / high
        at = int(np.argmax(ratio))
        if ratio[at] > best:
            best, inside = float(ratio[at]), np.zeros(len(first), dtype=bool)
            inside[order[: at + 1]] = True
    return inside


def _bound(hits: int, other: int, total: int, delta: float, confidence: float) -> float:
    low, _ = clopper_pearson(hits, total, confidence)
    _, high = clopper_pearson(other, total, confidence)
    return max(0.0, math.log((low - delta) / high)) if low > delta else 0.0


def _ceiling(total: int, delta: float, confidence: float) -> float:
    return _bound(total, 0, total, delta, confidence)
