"""The audit of any model: guards, shadow models, attacks within a budget, a choice, a verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from privkernels.attacks import Attack, LossThreshold, ShadowAttack, train_shadows
from privkernels.attacks.base import MOST_PUBLIC
from privkernels.attacks.shadows import Transform
from privkernels.audit import guards as checks
from privkernels.audit._json import JsonFile, JsonValue
from privkernels.audit.audit import AttackResult, AuditResult, Target, TargetResult, audit
from privkernels.audit.canaries import Canaries
from privkernels.audit.epsilon_bounds import EpsilonBound
from privkernels.audit.exposed_records import ExposedRecords, exposed_records
from privkernels.audit.guards import Guard
from privkernels.audit.intervals import CONFIDENCE
from privkernels.audit.null_tests import leak_p_values
from privkernels.audit.plan import (
    OWN_SHADOWS,
    Clock,
    Knowledge,
    PlannedAttack,
    fit,
    shadows_within,
)
from privkernels.audit.power import MinimumDetectable, detectable_auc, detectable_tpr
from privkernels.audit.reconstructions import Reconstruction
from privkernels.audit.rehearsal import choose, rehearse
from privkernels.audit.selection import AttackChoice
from privkernels.audit.subgroups import (
    Attributes,
    Groups,
    Subgroups,
    groups_by_attribute,
    groups_by_class,
    measure_subgroups,
)
from privkernels.audit.thresholds import Decision, Threshold, decide, worst
from privkernels.audit.white_box import WhiteBoxAdvantage, white_box_advantage
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.progress import Progress, silent
from privkernels.training import TrainingConfig

_RATES = (0.001, 0.01)
_NO_SUBGROUPS = (
    "nothing is said of the subgroups that were asked for: with so few shadow models no attack could be chosen "
    "beforehand (8 suffice)"
)


@dataclass(frozen=True)
class TargetVerdict(JsonValue):
    """What the chosen attack says of one target.

    Attributes:
        name: the target's.
        outcome: ``"below"``, ``"above"`` or ``"undecided"`` against the thresholds; ``"void"`` where a guard failed
            that makes the figures meaningless; ``"not asked"`` without thresholds; ``"not judged"`` for a target that
            is there for comparison.
        decisions: one per threshold; where no attack could be chosen beforehand, one per threshold and attack, which
            share the error.
        exposed: records that the chosen attack exposes; None where they cannot be listed.
        subgroups: the chosen attack within each class (``class 3``) and each value of the attributes that were given
            (``sex = female``), all with one error together; None without a chosen attack.
        detectable: the smallest leaks that this audit could have found.
        epsilon: lower bounds on the epsilon of the training, from canaries; empty without.
        white_box: whether the best attack on weights beats the best on outputs, both chosen on held-out shadow models;
            None where one of them is missing.
    """

    name: str
    outcome: str
    decisions: tuple[Decision, ...]
    exposed: ExposedRecords | None
    subgroups: Subgroups | None
    detectable: tuple[MinimumDetectable, ...]
    epsilon: tuple[EpsilonBound, ...] = ()
    white_box: WhiteBoxAdvantage | None = None

    @property
    def contradicted(self) -> bool:
        """Whether every decision is below, and the outcome is not because another attack of the audit is above."""
        return self.outcome == "undecided" and all(decision.outcome == "below" for decision in self.decisions)


@dataclass(frozen=True)
class ModelAudit(JsonFile):
    """The outcome of :func:`audit_models`. Holds scores of single training records: private data.

    Attributes:
        format: version of this layout.
        result: every attack's figures on every target.
        guards: what would make the figures mean something else.
        plan: every attack that was considered, and why some were not made.
        choice: the attack chosen on held-out shadow models; None without them.
        n_shadows: shadow models trained; 0 without.
        seconds, budget: time taken and given; no budget is None.
        confidence: of all decisions together.
        verdicts: one per target.
        reconstructions: what was brought back from layers (:func:`privkernels.audit.reconstruct`); empty where not
            asked.
        attributes: whose values were asked for as subgroups.
    """

    FORMAT: ClassVar[str] = "privkernels model audit 1"
    WORK: ClassVar[str] = "audit"

    format: str
    result: AuditResult
    guards: tuple[Guard, ...]
    plan: tuple[PlannedAttack, ...]
    choice: AttackChoice | None
    n_shadows: int
    seconds: float
    budget: float | None
    confidence: float
    verdicts: tuple[TargetVerdict, ...]
    reconstructions: tuple[Reconstruction, ...] = ()
    attributes: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """The worst outcome of all judged targets, in the order void, above, undecided, below, not asked."""
        found = {verdict.outcome for verdict in self.verdicts}
        return next(kind for kind in ("void", "above", "undecided", "below", "not asked") if kind in found)


def audit_models(
    targets: Sequence[Target],
    attacks: Sequence[Attack],
    members: Records,
    nonmembers: Records,
    *,
    make_model: Callable[[], nn.Module] | None = None,
    config: TrainingConfig | None = None,
    public: Records | None = None,
    test: Records | None = None,
    thresholds: Sequence[Threshold] = (),
    budget: float | None = None,
    n_shadows: int | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    transforms: Mapping[str, Transform] | None = None,
    canaries: Canaries | None = None,
    subgroups: Attributes | None = None,
    delta: float = 1e-5,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    progress: Progress = silent,
) -> ModelAudit:
    """Audit models with everything that the given time and knowledge allow.

    1. Guards: could members be told from non-members without a model? Are records shared, repeated, nearly the same?
    2. Shadow models, if the architecture is known: trained on random halves of members and non-members together, as
       an auditor can who holds both. As many as fit into 60 % of the budget.
    3. Each attack first attacks two held-out shadow models, fitted on the others. The attack with the highest mean
       figure there is chosen; the target has no part in that.
    4. The attacks are fitted on all shadow models and attack the targets. The thresholds are decided by the chosen
       attack alone; without shadow models by all attacks. All decisions of an audit share the error: with
       ``confidence`` none of them is wrong, on any target or threshold.

    Args:
        targets: at least one that is judged; distinct names. Those that are not judged are attacked like the others,
            but no threshold is decided for them, and they take no share of the error.
        attacks: unfitted; those that cannot be made are named with the reason. Cheapest first: what no longer fits into
            the budget is left out.
        members: records that the targets were trained on, or a random part of them.
        nonmembers: records from the same source that they were not trained on.
        make_model: a new network of the targets' architecture, for shadow models.
        config: how the targets were trained, as far as known.
        public: further non-members, for attacks that learn from them.
        test: records for test accuracy; the non-members where None.
        thresholds: what is allowed.
        budget: seconds, all in all; nothing is left out where None.
        n_shadows: at most so many; 64 without a budget.
        cache: see :func:`privkernels.attacks.train_shadows`; an interrupted audit finds its shadow models there again,
            and the scores of the attacks that were made. Private.
        canaries: what :func:`privkernels.audit.make_canaries` made and the targets' training included by coin flips:
            they bound its epsilon from below at ``delta``. Their scores are minus the loss, fixed beforehand.
        subgroups: attribute -> a value for each member [m] and for each non-member [n], integers, bools or strings: the
            chosen attack is measured within each of its values. Fix them before looking at any score. All values of
            all attributes and all classes are one family with one error, ``1 - confidence`` per target.
        transforms: augmentations that the target may have been trained with, by name; for pictures mirroring and a
            shift where None.

    Raises:
        InvalidArgumentError: no target that is judged, no attack that can be made, public records that are audited
            too, or subgroups without ``make_model`` or that :func:`privkernels.audit.groups_by_attribute` refuses.
        Others as :func:`privkernels.audit.audit` and :func:`privkernels.attacks.train_shadows` do.
    """
    if not any(target.judged for target in targets):
        raise InvalidArgumentError("expected at least one target that is judged, got none")
    clock, pool = Clock(budget), _joined(members, nonmembers)
    if subgroups and make_model is None:
        raise InvalidArgumentError(
            "subgroups are measured with an attack that was chosen beforehand, which takes shadow models: give the "
            "targets' architecture too"
        )
    groups = _groups(members, nonmembers, subgroups or {})
    if public is not None:
        _check_public(public, members, nonmembers)
    # Before the long work, so that canaries that can show nothing are refused at once.
    bounds: dict[str, tuple[EpsilonBound, ...]] = {target.name: () for target in targets}
    if canaries is not None:
        for target in targets:
            scores = LossThreshold().score(target.model, canaries.records)
            bounds[target.name] = canaries.bound(scores, delta, confidence)
    progress(0, 1, "checking members and non-members")
    found = [checks.blind_baseline(members, nonmembers, seed=seed), *checks.duplicates(members, nonmembers, seed=seed)]
    progress(1, 1, "checking members and non-members")
    shadows = own = None
    if make_model is not None:
        shadows = shadows_within(
            make_model, pool, config or TrainingConfig(), clock,
            most=n_shadows, seed=seed, cache=cache, workers=workers, progress=progress,
        )  # fmt: skip
        if public is not None and any(isinstance(attack, ShadowAttack) and attack.needs_own_pool for attack in attacks):
            own = train_shadows(
                make_model, public, config or TrainingConfig(), min(OWN_SHADOWS, len(shadows)), seed=seed, cache=cache,
                workers=workers, progress=progress,
            )  # fmt: skip
        asked = checks.usual_transforms(members) if transforms is None else transforms
        for target in targets:
            found += checks.augmentation(target.model, shadows, members, asked)
    known = Knowledge(shadows, own, public)
    keep = None if cache is None else Path(cache) / "scores"
    plan, held_out = rehearse(targets, attacks, members, nonmembers, known, clock, keep, progress)
    ready = [fit(attack, known, keep) for attack in attacks if attack.name in held_out]
    if not ready:
        raise InvalidArgumentError("no attack can be made: " + "; ".join(f"{row.attack}: {row.reason}" for row in plan))
    result = audit(targets, ready, members, nonmembers, test=test, seed=seed, progress=progress)
    choice = choose(held_out, thresholds) if shadows is not None and any(held_out.values()) else None
    if subgroups and choice is None:
        result = replace(result, warnings=(_NO_SUBGROUPS, *result.warnings))
    void = checks.voided(found)
    families = sum(target.judged for target in targets) * max(1, len(thresholds))
    verdicts, doubts = [], []
    for target, outcome in zip(targets, result.targets, strict=True):
        limits = thresholds if target.judged else ()
        verdict = _verdict(outcome, choice, limits, members, nonmembers, void, confidence, families)
        if verdict.outcome == "below" and (doubt := _doubt(outcome, choice, limits, confidence)):
            verdict = replace(verdict, outcome="undecided")
            doubts.append(doubt)
        verdict = replace(
            verdict,
            outcome=verdict.outcome if target.judged or void else "not judged",
            subgroups=_subgroups(outcome, choice, groups, confidence),
            epsilon=bounds[target.name],
            white_box=_white_box(outcome, choice, attacks, confidence),
        )
        verdicts.append(verdict)
    result = replace(result, warnings=(*doubts, *result.warnings))
    return ModelAudit(
        ModelAudit.FORMAT, result, tuple(found), tuple(plan), choice, 0 if shadows is None else len(shadows),
        clock.elapsed(), budget, confidence, tuple(verdicts), attributes=tuple(subgroups or ()),
    )  # fmt: skip


def _verdict(
    target: TargetResult,
    choice: AttackChoice | None,
    thresholds: Sequence[Threshold],
    members: Records,
    nonmembers: Records,
    void: bool,
    confidence: float,
    families: int,
) -> TargetVerdict:
    judged = [attack for attack in target.attacks if choice is None or attack.attack == choice.name]
    # Every threshold, target and, without a choice made beforehand, attack is another chance to be wrong.
    each = 1 - (1 - confidence) / (families * len(judged))
    decisions = [
        decide(threshold, *attack.scores, each, attack=attack.attack) for threshold in thresholds for attack in judged
    ]
    outcome = "void" if void else worst(decisions) if decisions else "not asked"
    first = judged[0]
    return TargetVerdict(
        target.name,
        outcome,
        tuple(decisions),
        _exposed(first) if choice is not None else None,
        None,  # audit_models adds the subgroups
        tuple(_detectable(len(members), len(nonmembers), len(target.attacks) * len(leak_p_values(first.metrics)))),
    )


def _doubt(
    target: TargetResult, choice: AttackChoice | None, thresholds: Sequence[Threshold], confidence: float
) -> str | None:
    """Why a target is not below although the chosen attack is: another attack that is above; None where none is."""
    others = [attack for attack in target.attacks if choice is not None and attack.attack != choice.name]
    each = 1 - (1 - confidence) / max(1, len(others) * len(thresholds))
    for threshold in thresholds:
        for attack in others:
            decision = decide(threshold, *attack.scores, each, attack=attack.attack)
            if decision.outcome == "above":
                return (
                    f"{target.name}: undecided, although the chosen attack is below: {decision.reason}. The attack was "
                    "chosen on shadow models that may not resemble this model: train them as it was trained"
                )
    return None


def _white_box(
    target: TargetResult, choice: AttackChoice | None, attacks: Sequence[Attack], confidence: float
) -> WhiteBoxAdvantage | None:
    if choice is None:
        return None
    inside = {attack.name for attack in attacks if attack.access == "weights"}
    best = [next((row.name for row in choice.table if (row.name in inside) is kind), None) for kind in (True, False)]
    scores = {attack.attack: attack.scores for attack in target.attacks}
    if best[0] is None or best[1] is None:
        return None
    return white_box_advantage(scores[best[0]], scores[best[1]], confidence=confidence)


def _exposed(attack: AttackResult) -> ExposedRecords | None:
    try:
        return exposed_records(*attack.scores)
    except TooFewRecordsError:
        return None


def _groups(members: Records, nonmembers: Records, attributes: Attributes) -> Groups:
    """The classes, and then the values of each attribute."""
    groups = groups_by_class(members.y.cpu().numpy(), nonmembers.y.cpu().numpy())
    for name, values in attributes.items():
        for part, given, role in zip((members, nonmembers), values, ("members", "non-members"), strict=True):
            if np.shape(given) != (len(part),):
                raise InvalidArgumentError(
                    f"attribute {name!r} of the {role} is {list(np.shape(given))}, and there are {len(part)} of them: "
                    "give one value per record"
                )
        groups |= groups_by_attribute(name, *values)
    return groups


def _subgroups(
    target: TargetResult, choice: AttackChoice | None, groups: Groups, confidence: float
) -> Subgroups | None:
    if choice is None:
        return None
    scores = next(attack.scores for attack in target.attacks if attack.attack == choice.name)
    return measure_subgroups(*scores, groups, confidence=confidence)


def _detectable(m: int, n: int, statements: int) -> list[MinimumDetectable]:
    found = []
    with contextlib.suppress(TooFewRecordsError):
        found.append(detectable_auc(m, n, statements=statements))
    for rate in _RATES:
        with contextlib.suppress(TooFewRecordsError):
            found.append(detectable_tpr(m, n, rate, statements=statements))
    return found


def _check_public(public: Records, members: Records, nonmembers: Records) -> None:
    known = set(public.digests())
    for records, role in ((members, "members"), (nonmembers, "non-members")):
        shared = sum(digest in known for digest in records.digests())
        if shared > MOST_PUBLIC * len(records):
            raise InvalidArgumentError(
                f"{shared} of {len(records)} {role} are public records too: attacks that learn from these as known "
                "non-members would find them by that; give other public records"
            )


def _joined(members: Records, nonmembers: Records) -> Records:
    if members.x.shape[1:] != nonmembers.x.shape[1:] or members.n_classes != nonmembers.n_classes:
        raise InvalidArgumentError(
            f"members and non-members need the same shape and classes, got {list(members.x.shape[1:])}, "
            f"{members.n_classes} and {list(nonmembers.x.shape[1:])}, {nonmembers.n_classes}"
        )
    x, y = torch.cat([members.x, nonmembers.x]), torch.cat([members.y, nonmembers.y])
    return Records(x, y, members.n_classes, "members and non-members")
