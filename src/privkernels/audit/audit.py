"""Attack several targets with the same attacks on the same records, and collect the figures."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
import torch

from privkernels.attacks.base import (
    Array,
    Attack,
    Fidelity,
    Predictor,
    target_logits,
    true_class_log_probability,
)
from privkernels.audit._json import JsonFile, JsonValue, plain
from privkernels.audit.guarantees import Guarantee, read_guarantee
from privkernels.audit.metrics import AttackMetrics, measure
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent

# Shadow models whose accuracy differs from the target's by more than this imitate it badly.
FIDELITY_GAP = 0.1
# And so do those whose training loss is more than this many times the target's, or as many times smaller.
FIDELITY_LOSS_RATIO = 3.0


@dataclass(frozen=True)
class Target:
    """A model to attack.

    Attributes:
        name: unique within one audit.
        model: a module, or a function from a batch x to logits.
        guarantee: what is claimed and proven for it (see :mod:`privkernels.audit.guarantees`);
            None where none came with it, as with an unprotected model.
        description: JSON-able facts for the report, such as the architecture.
        judged: False for a model that others are compared with: :func:`privkernels.audit.audit_models` decides no
            threshold for it.
    """

    name: str
    model: Predictor
    guarantee: Guarantee | None = None
    description: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True


@dataclass(frozen=True)
class RecordsFacts(JsonValue):
    """Which records were used: name, number, classes and a fingerprint of their contents."""

    name: str
    n: int
    n_classes: int
    fingerprint: str


@dataclass(frozen=True)
class AttackResult(JsonValue):
    """One attack on one target.

    Attributes:
        seconds: the time to score, without fitting.
        member_scores, nonmember_scores: one score per record, in the records' order. Private data.
    """

    attack: str
    metrics: AttackMetrics
    seconds: float
    member_scores: tuple[float, ...] = ()
    nonmember_scores: tuple[float, ...] = ()

    @property
    def scores(self) -> tuple[Array, Array]:
        """Scores of members and of non-members, float64 [m] and [n]."""
        return np.array(self.member_scores), np.array(self.nonmember_scores)


@dataclass(frozen=True)
class TargetResult(JsonValue):
    """Everything measured on one target.

    Attributes:
        test_accuracy: on the test records, or on the non-members where none were given.
        member_losses, nonmember_losses: cross-entropy per record, in nats. Private data.
    """

    name: str
    description: dict[str, Any]
    guarantee: dict[str, Any] | None
    test_accuracy: float
    member_accuracy: float
    nonmember_accuracy: float
    member_losses: tuple[float, ...]
    nonmember_losses: tuple[float, ...]
    attacks: tuple[AttackResult, ...]


@dataclass(frozen=True)
class AuditResult(JsonFile):
    """The outcome of :func:`audit`. Holds losses and scores of single training records: private data.

    Attributes:
        format: version of this layout.
        date: when the audit ran, UTC, ISO 8601.
        members, nonmembers, test: the records; ``test`` is None where none were given.
        class_names: one per class, or None.
        attacks: each attack's own description.
        targets: in the order given.
        warnings: what a reader must know before trusting the figures.
        environment: versions of what computed them.
    """

    FORMAT: ClassVar[str] = "privkernels audit 2"
    WORK: ClassVar[str] = "audit"

    format: str
    date: str
    members: RecordsFacts
    nonmembers: RecordsFacts
    test: RecordsFacts | None
    class_names: tuple[str, ...] | None
    attacks: tuple[dict[str, Any], ...]
    targets: tuple[TargetResult, ...]
    warnings: tuple[str, ...]
    environment: dict[str, Any]


def audit(
    targets: Sequence[Target],
    attacks: Sequence[Attack],
    members: Records,
    nonmembers: Records,
    *,
    test: Records | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> AuditResult:
    """Attack every target with every attack, on the same members and non-members.

    Args:
        targets: at least one; distinct names.
        attacks: at least one, fitted where they need it; distinct names.
        members: records that the targets were trained on.
        nonmembers: records from the same source that no target and no attack has seen.
        test: records for test accuracy; the non-members where None.
        class_names: names for the report, one per class.
        seed: of the split that accuracy thresholds are chosen on.

    Raises:
        InvalidArgumentError: no targets or attacks, names that repeat, records that do not fit
            together, or a guarantee that is not one.
        NonFiniteValueError: a target's outputs or an attack's scores are NaN or infinite.
    """
    _check_names([target.name for target in targets], "target")
    _check_names([attack.name for attack in attacks], "attack")
    kinds = [members, nonmembers] + ([] if test is None else [test])
    shapes = {(records.n_classes, tuple(records.x.shape[1:])) for records in kinds}
    if len(shapes) > 1:
        raise InvalidArgumentError(
            f"members, non-members and test records need the same classes and shape, got {sorted(shapes)}"
        )
    if class_names is not None and len(class_names) != members.n_classes:
        raise InvalidArgumentError(f"expected {members.n_classes} class names, got {len(class_names)}")
    # Read before the long work, so that a mistake in them shows at once.
    guarantees = [read_guarantee(target.guarantee) for target in targets]
    descriptions = [plain(target.description, f"the description of {target.name!r}") for target in targets]

    results = []
    for number, target in enumerate(targets):
        progress(number, len(targets), "attacking the targets")
        result = _audit_one(target, attacks, members, nonmembers, test, seed)
        results.append(replace(result, guarantee=guarantees[number], description=descriptions[number]))
    progress(len(targets), len(targets), "attacking the targets")
    return AuditResult(
        format=AuditResult.FORMAT,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        members=_facts(members),
        nonmembers=_facts(nonmembers),
        test=None if test is None else _facts(test),
        class_names=None if class_names is None else tuple(map(str, class_names)),
        attacks=tuple(attack.describe() for attack in attacks),
        targets=tuple(results),
        warnings=tuple(_warnings(results, attacks, members, nonmembers, test)),
        environment=_environment(),
    )


def _audit_one(
    target: Target,
    attacks: Sequence[Attack],
    members: Records,
    nonmembers: Records,
    test: Records | None,
    seed: int,
) -> TargetResult:
    accuracies, losses = [], []
    for records in (members, nonmembers):
        logits = target_logits(target.model, records)
        accuracies.append(_accuracy(logits, records))
        losses.append(-true_class_log_probability(logits, records.y))
    test_accuracy = accuracies[1]
    if test is not None:
        test_accuracy = _accuracy(target_logits(target.model, test), test)
    results = []
    for attack in attacks:
        start = time.perf_counter()
        scores = attack.score(target.model, members), attack.score(target.model, nonmembers)
        seconds = time.perf_counter() - start
        metrics = measure(
            *scores,
            member_classes=members.y.cpu().numpy(),
            nonmember_classes=nonmembers.y.cpu().numpy(),
            seed=seed,
        )
        results.append(AttackResult(attack.name, metrics, seconds, *(tuple(map(float, part)) for part in scores)))
    return TargetResult(
        name=target.name,
        description={},
        guarantee=None,
        test_accuracy=test_accuracy,
        member_accuracy=accuracies[0],
        nonmember_accuracy=accuracies[1],
        member_losses=tuple(losses[0].tolist()),
        nonmember_losses=tuple(losses[1].tolist()),
        attacks=tuple(results),
    )


def _accuracy(logits: Array, records: Records) -> float:
    return float((logits.argmax(axis=1) == records.y.cpu().numpy()).mean())


def _warnings(
    results: Sequence[TargetResult],
    attacks: Sequence[Attack],
    members: Records,
    nonmembers: Records,
    test: Records | None,
) -> Iterable[str]:
    shared = len(set(members.digests()) & set(nonmembers.digests()))
    if shared:
        yield (
            f"{shared} records are both members and non-members: no attack can tell them apart, so its "
            "figures are too low"
        )
    if test is not None and (shared := len(set(members.digests()) & set(test.digests()))):
        yield f"{shared} test records are training records too: the test accuracy is too high"
    if test is None:
        yield "no test records were given: the test accuracy is that on the non-members"
    for rate in results[0].attacks[0].metrics.tpr_at_fpr:
        if rate.tpr.value is None:
            yield f"TPR at {rate.nominal_fpr:.2g} FPR: {rate.tpr.reason}"
    for attack in attacks:
        fidelity = attack.fidelity()
        for note in attack.notes():
            yield f"{attack.name}: {note}"
        if fidelity is not None:
            for result in results:
                yield from _fidelity_warning(attack.name, fidelity, result, len(members))
    for result in results:
        if result.guarantee is not None and result.guarantee["reproducible"]:
            yield (
                f"{result.name}: its noise came from a seed, so whoever guesses the seed can remove it; "
                "this release is for experiments and is not private"
            )


def _fidelity_warning(attack: str, fidelity: Fidelity, result: TargetResult, n_members: int) -> Iterable[str]:
    gaps = [
        f"{which} accuracy {ours:.1%} against {theirs:.1%}"
        for which, ours, theirs in (
            ("training", fidelity.train_accuracy, result.member_accuracy),
            ("test", fidelity.test_accuracy, result.test_accuracy),
        )
        if abs(ours - theirs) > FIDELITY_GAP
    ]
    # A loss tells what an accuracy of 100 % no longer does: how long the target was trained after it.
    ours, theirs = fidelity.train_loss, float(np.mean(result.member_losses))
    if max(ours, theirs) > FIDELITY_LOSS_RATIO * min(ours, theirs) and abs(ours - theirs) > 0.01:
        gaps.append(f"training loss {ours:.3g} against {theirs:.3g}")
    if gaps:
        yield (
            f"{attack}: the shadow models differ from {result.name} ({', '.join(gaps)}; trained on "
            f"{fidelity.n_records} records, audited members {n_members}); an attacker who imitates the "
            "target better may do better"
        )


def _check_names(names: Sequence[str], kind: str) -> None:
    if not names:
        raise InvalidArgumentError(f"expected at least one {kind}, got none")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidArgumentError(f"{kind} names must differ, but {repeated} repeat: set another .name")


def _facts(records: Records) -> RecordsFacts:
    return RecordsFacts(records.name, len(records), records.n_classes, records.fingerprint())


def _environment() -> dict[str, Any]:
    versions = {}
    for package in ("privkernels", "numpy", "scipy", "scikit-learn", "matplotlib"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cuda": torch.version.cuda or "none",
        "torch": str(torch.__version__),  # the build too, which the package's metadata may leave out
        **versions,
    }
