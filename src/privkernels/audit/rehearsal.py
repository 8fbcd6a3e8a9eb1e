"""The rehearsal of an audit: every attack on shadow models that play the target, and the choice of one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from privkernels.attacks import Attack, Shadows
from privkernels.attacks.base import Predictor
from privkernels.audit.audit import Target
from privkernels.audit.plan import Clock, Knowledge, OutOfTime, PlannedAttack, fit, seconds_per_query, why_not
from privkernels.audit.selection import AttackChoice, ShadowScores, choose_attack
from privkernels.audit.thresholds import Threshold
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.progress import Progress

# Shadow models that play the target when the attack is chosen.
HELD_OUT = 2
# False positive rates to choose by where no threshold says one, the most wanted first.
_RATES = (0.001, 0.01)


def rehearse(
    targets: Sequence[Target],
    attacks: Sequence[Attack],
    members: Records,
    nonmembers: Records,
    known: Knowledge,
    clock: Clock,
    keep: Path | None,
    progress: Progress,
) -> tuple[list[PlannedAttack], dict[str, list[ShadowScores]]]:
    """Let every attack that can be made attack the held-out shadow models.

    The first one is made whatever it takes: an audit without any attack says nothing.

    Args:
        keep: folder of scores of earlier audits; None without.

    Returns:
        Every attack with the reason where it cannot be made, and by name of those that can the scores of members and
        non-members of each held-out shadow model; no scores where none can be spared.
    """
    query = seconds_per_query(targets[0].model, [members, nonmembers])
    held_out = [] if known.shadows is None else _held_out(known.shadows)
    plan: list[PlannedAttack] = []
    scores: dict[str, list[ShadowScores]] = {}
    for number, attack in enumerate(attacks):
        progress(number, len(attacks), "trying the attacks on held-out shadow models")
        reason = next((why for target in targets if (why := why_not(attack, target.model, known))), None)
        expected = query * attack.queries_per_record() * (len(targets) + len(held_out))
        timer = clock if scores else Clock(None)
        if reason is None and expected > timer.left():
            reason = f"it would take about {expected:.0f} s, and {max(0.0, timer.left()):.0f} s are left"
        begin = time.perf_counter()
        tried: list[ShadowScores] = []
        if reason is None:
            if held_out:
                reason = _try(attack, known, held_out, len(targets), timer, keep, tried)
            else:
                reason = _cannot(attack, known, targets[0].model, (members, nonmembers), keep)
        plan.append(PlannedAttack(attack.name, reason is None, reason or "", time.perf_counter() - begin))
        if reason is None:
            scores[attack.name] = tried
    progress(len(attacks), len(attacks), "trying the attacks on held-out shadow models")
    return plan, scores


def _try(
    attack: Attack,
    known: Knowledge,
    held_out: Sequence[int],
    n_targets: int,
    clock: Clock,
    keep: Path | None,
    scores: list[ShadowScores],
) -> str | None:
    """Attack the held-out shadow models one after the other; why it was given up, or None."""
    for position, shadow in enumerate(held_out):
        shadows = known.shadows
        assert shadows is not None
        begin = time.perf_counter()
        # Each fit that is still to come, the one for the targets included, takes as long as this one.
        fits = len(held_out) - position + 1
        allowed = clock.left() / fits
        try:
            fitted = fit(attack, known.without_pair_of(shadow), keep, clock.within(allowed))
            values = fitted.score(shadows.model(shadow), shadows.pool)
        except (InvalidArgumentError, TooFewRecordsError) as error:
            return str(error)
        except OutOfTime:
            return (
                f"it was given up after {allowed:.0f} s of learning: it learns {fits} times, and more time is not left"
            )
        inside = shadows.trained_on(shadows.pool)[shadow]
        scores.append((values[inside], values[~inside]))
        seconds = time.perf_counter() - begin
        still = seconds * (len(held_out) - position - 1 + n_targets)
        if still > clock.left():
            return f"it would take another {still:.0f} s, and {max(0.0, clock.left()):.0f} s are left"
    return None


def _cannot(
    attack: Attack, known: Knowledge, model: Predictor, records: Sequence[Records], keep: Path | None
) -> str | None:
    """Why an attack fails with so few shadow models or records, or None; its scores are not looked at."""
    try:
        fitted = fit(attack, known, keep)
        for part in records:
            fitted.score(model, part)
    except (InvalidArgumentError, TooFewRecordsError) as error:
        return str(error)
    return None


def _held_out(shadows: Shadows) -> list[int]:
    """The first shadow of as many of the last pairs as can be spared: at least three pairs are left."""
    pairs = sorted(set(shadows.pairs))
    spared = pairs[len(pairs) - min(HELD_OUT, max(0, len(pairs) - 3)) :]
    return [shadows.pairs.index(pair) for pair in spared]


def choose(held_out: Mapping[str, Sequence[ShadowScores]], thresholds: Sequence[Threshold]) -> AttackChoice:
    """By the figure that the first threshold asks for, or the lowest rate that the held-out records allow."""
    wanted = ["auc" if each.fpr is None else f"tpr@{each.fpr:g}" for each in thresholds[:1]]
    for criterion in (*wanted, *(f"tpr@{rate:g}" for rate in _RATES), "auc"):
        try:
            return choose_attack(held_out, criterion)
        except TooFewRecordsError:
            continue
    raise TooFewRecordsError("too few records to choose an attack: at least 10 members and non-members are needed")
