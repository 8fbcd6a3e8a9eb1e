"""Lower bounds on how far a model's outputs on members and on non-members are apart.

For paper 3 of the library (Wang et al., IJCAI 2021, "Against membership inference attack: pruning is all you need"),
which measures protection by the Jensen-Shannon divergence JS between the two distributions: its equation 10 says that
the best attacker gains ``-ln 4 + 2 JS``. A trained attacker is not the best one, so what it achieves on records that
it did not see bounds JS, and the total variation TV, from below only. Both describe the average record: one member
in a hundred fully exposed gives JS = 0.0035 nats.

JS is in nats, at most ln 2 = 0.693; TV is at most 1, and the best accuracy on as many members as non-members is
(1 + TV) / 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import CONFIDENCE, Array, check_confidence, clopper_pearson
from privkernels.audit.metrics import checked_scores
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.randomness import Key

MIN_PER_HALF = 10
CLIP = 0.02

_ASSUMPTIONS = (
    "the records are independent, and members and non-members come from the same source",
    "the attack did not learn from these records",
)


@dataclass(frozen=True)
class DivergenceBound(JsonValue):
    """Lower bounds on TV and JS that hold together with probability ``confidence``.

    Attributes:
        method: how they were found.
        tv: in [0, 1]; None where the method says nothing about it.
        js: in nats, in [0, ln 2].
        confidence: of both together.
        tv_estimate, js_estimate: without the allowance for chance; they can be above the truth.
        n_members, n_nonmembers: records that were judged.
        assumptions: what the confidence rests on.
    """

    method: str
    tv: float | None
    js: float
    confidence: float
    tv_estimate: float | None
    js_estimate: float
    n_members: int
    n_nonmembers: int
    assumptions: tuple[str, ...]

    def __str__(self) -> str:
        tv = "" if self.tv is None else f"TV >= {self.tv:.4g} and "
        return (
            f"{tv}JS >= {self.js:.4g} nats with {100 * self.confidence:g}% confidence ({self.method}; {self.n_members} "
            f"members, {self.n_nonmembers} non-members). Other attacks may find more: nothing here bounds them from "
            f"above. Assumed: {'; '.join(self.assumptions)}."
        )


def decision_bound(
    members: Array, nonmembers: Array, confidence: float = CONFIDENCE, *, seed: int = 0
) -> DivergenceBound:
    """Bound TV and JS from an attack's decisions at one threshold.

    The threshold with the largest |TPR - FPR| is chosen on a random half of the records. On the other half the two
    rates get exact one-sided limits (Clopper and Pearson), half of the error each. A decision is a function of the
    output, so by the data processing inequality TV >= a - b, and JS >= JS(Bernoulli(a), Bernoulli(b)) for the
    limits a > b of the two rates; the latter is at least Fano's ln 2 - h((1 - a + b) / 2) (h: binary entropy in
    nats), and larger where few records are accused.

    Args:
        members, nonmembers: scores, float [m] and [n], of an attack that did not learn from these records.
        seed: of the split.

    Raises:
        TooFewRecordsError: fewer than 20 members or non-members.
        EmptyDataError, NonFiniteValueError, InvalidArgumentError: as for the metrics.
    """
    kinds = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    check_confidence(confidence)
    if min(len(kind) for kind in kinds) < 2 * MIN_PER_HALF:
        raise TooFewRecordsError(
            f"a threshold from one half and its rates from the other need {2 * MIN_PER_HALF} members and non-members, "
            f"got {len(kinds[0])} and {len(kinds[1])}"
        )
    rng = np.random.default_rng(Key.from_seed(seed).seed_for("split of the records"))
    orders = [rng.permutation(len(kind)) for kind in kinds]
    choose, judge = (
        [kind[part] for kind, part in zip(kinds, parts, strict=True)]
        for parts in ([o[: len(o) // 2] for o in orders], [o[len(o) // 2 :] for o in orders])
    )
    threshold, reversed_ = _widest(choose[0], choose[1])
    counts = [(int((kind >= threshold).sum()), len(kind)) for kind in judge]
    likelier, other = counts[::-1] if reversed_ else counts
    # Two-sided intervals at this level have tails of half the error each: one per rate.
    at_least, at_most = clopper_pearson(*likelier, confidence)[0], clopper_pearson(*other, confidence)[1]
    rates = likelier[0] / likelier[1], other[0] / other[1]
    return DivergenceBound(
        method="decisions at a threshold from a held-out half",
        tv=max(0.0, at_least - at_most),
        js=bernoulli_js(at_least, at_most) if at_least > at_most else 0.0,
        confidence=confidence,
        tv_estimate=max(0.0, rates[0] - rates[1]),
        js_estimate=bernoulli_js(*rates) if rates[0] > rates[1] else 0.0,
        n_members=len(judge[0]),
        n_nonmembers=len(judge[1]),
        assumptions=_ASSUMPTIONS,
    )


def cross_entropy_bound(
    member_probabilities: Array, nonmember_probabilities: Array, confidence: float = CONFIDENCE, *, clip: float = CLIP
) -> DivergenceBound:
    """Bound JS from the probabilities of membership that a trained attacker gives to records it did not see.

    For every attacker D that sees the outputs, ``JS >= ln 2 - L``, L being the mean of the expected losses -ln D on
    members and -ln (1 - D) on non-members: paper 3's equation 10 for an attacker that need not be the best. Clipping
    D to [clip, 1 - clip] gives another attacker, with bounded losses; each mean gets the upper limit of Maurer and
    Pontil (COLT 2009), theorem 4 (empirical Bernstein), half of the error each.

    Args:
        member_probabilities, nonmember_probabilities: float [m] and [n] in [0, 1], for as many members as
            non-members in the attacker's training, or reweighted to that.
        clip: chosen before looking at these records, in (0, 1/2). Smaller values let a sure attacker show more, and
            cost more where the records are few.

    Raises:
        TooFewRecordsError: fewer than 2 of either kind.
        InvalidArgumentError: probabilities outside [0, 1], or clip or confidence out of range.
        EmptyDataError, NonFiniteValueError: as for the metrics.
    """
    kinds = checked_scores(member_probabilities, "member"), checked_scores(nonmember_probabilities, "non-member")
    check_confidence(confidence)
    if not 0 < clip < 0.5:
        raise InvalidArgumentError(f"probabilities are clipped to [clip, 1 - clip] with 0 < clip < 0.5, got {clip}")
    if any((kind < 0).any() or (kind > 1).any() for kind in kinds):
        raise InvalidArgumentError("expected probabilities of membership in [0, 1]; scores go to decision_bound")
    if min(len(kind) for kind in kinds) < 2:
        raise TooFewRecordsError(f"a spread needs 2 records of each kind, got {len(kinds[0])} and {len(kinds[1])}")
    given = np.clip(kinds[0], clip, 1 - clip), np.clip(1 - kinds[1], clip, 1 - clip)
    losses = [-np.log(part) for part in given]
    span = math.log((1 - clip) / clip)
    high = sum(_upper_mean(loss, span, (1 - confidence) / 2) for loss in losses) / 2
    return DivergenceBound(
        method="cross-entropy of a trained attacker",
        tv=None,
        js=max(0.0, math.log(2) - high),
        confidence=confidence,
        tv_estimate=None,
        js_estimate=max(0.0, math.log(2) - sum(float(loss.mean()) for loss in losses) / 2),
        n_members=len(losses[0]),
        n_nonmembers=len(losses[1]),
        assumptions=_ASSUMPTIONS,
    )


def bernoulli_js(a: float, b: float) -> float:
    """The Jensen-Shannon divergence of two coins with these probabilities, in nats."""
    middle = (a + b) / 2
    divergence = sum(special.rel_entr(p, q) for x in (a, b) for p, q in ((x, middle), (1 - x, 1 - middle))) / 2
    return max(0.0, float(divergence))


def _widest(members: Array, nonmembers: Array) -> tuple[float, bool]:
    """The threshold with the largest distance between the two rates, and whether non-members exceed it more often."""
    levels = np.unique(np.concatenate([members, nonmembers]))
    rates = [1 - np.searchsorted(np.sort(kind), levels, side="left") / len(kind) for kind in (members, nonmembers)]
    difference = rates[0] - rates[1]
    at = int(np.argmax(np.abs(difference)))
    return float(levels[at]), bool(difference[at] < 0)


def _upper_mean(losses: Array, span: float, error: float) -> float:
    """An upper limit of the mean of losses that lie within an interval of length ``span``, wrong with this chance."""
    n, log = len(losses), math.log(2 / error)
    return float(losses.mean() + math.sqrt(2 * losses.var(ddof=1) * log / n) + 7 * span * log / (3 * (n - 1)))
