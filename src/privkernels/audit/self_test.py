"""The audit's own false alarms, measured on this machine: audits of scores that know nothing.

A statement that claims a leak in more than its stated share of such audits would be worthless. :func:`self_test`
counts how often each one does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from privkernels.audit._json import JsonValue
from privkernels.audit.audit import AttackResult
from privkernels.audit.divergence import cross_entropy_bound, decision_bound
from privkernels.audit.epsilon_bounds import one_run_bound, one_run_gaussian_bound, runs_bound
from privkernels.audit.exposed_records import exposed_records
from privkernels.audit.intervals import CONFIDENCE, Array, Figure, auc, check_confidence, clopper_pearson
from privkernels.audit.mechanism import audit_mechanism
from privkernels.audit.metrics import AttackMetrics, measure
from privkernels.audit.selection import choose_attack
from privkernels.audit.subgroups import groups_by_label, measure_subgroups
from privkernels.audit.summary import FALSE_ALARMS, leaks
from privkernels.audit.thresholds import Threshold, decide
from privkernels.audit.white_box import white_box_advantage
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent
from privkernels.randomness import Key

RUNS = 1000
# Records of each kind, canaries and runs in one audit.
SIZE = 200
DELTA = 1e-5
# The self-test as a whole fails a sound library with at most this probability.
ERROR = 0.01

_VERDICT = "verdict on four attacks"
_RATE = 0.05
_CLASSES = 5
_ATTACKS = 4


@dataclass(frozen=True)
class Calibration(JsonValue):
    """How often one statement claimed a leak where there was none.

    Attributes:
        statement: what would have been printed.
        runs, claims: audits without a leak, and those of them in which it claimed one.
        share, upper: claims / runs, and the upper limit of its Clopper-Pearson interval.
        allowed: the stated share.
        passed: the claims are not significantly more than the stated share explains.
    """

    statement: str
    runs: int
    claims: int
    share: float
    upper: float
    allowed: float
    passed: bool


@dataclass(frozen=True)
class SelfTest(JsonValue):
    """The outcome of :func:`self_test`."""

    seed: int
    confidence: float
    size: int
    calibrations: tuple[Calibration, ...]

    @property
    def passed(self) -> bool:
        """Whether every statement passed."""
        return all(calibration.passed for calibration in self.calibrations)

    def __str__(self) -> str:
        width = max(len(calibration.statement) for calibration in self.calibrations)
        lines = [f"{'claims a leak without one':<{width}}  measured  at most  allowed"]
        lines += [
            f"{c.statement:<{width}}  {c.share:>8.2%}  {c.upper:>7.2%}  {c.allowed:>7.2%}" + "  FAILED" * (not c.passed)
            for c in self.calibrations
        ]
        runs = self.calibrations[0].runs
        lines.append(
            f"{'Passed' if self.passed else 'FAILED'}: {runs} audits of scores that know nothing, half of them with "
            f"ties, {self.size} records of each kind. 'At most' has {100 * self.confidence:g}% confidence for each "
            f"line; a sound library fails with {ERROR:.0%} of the seeds or fewer. Your models play no part in this."
        )
        return "\n".join(lines)


def self_test(
    runs: int = RUNS, seed: int = 0, confidence: float = CONFIDENCE, progress: Progress = silent, *, size: int = SIZE
) -> SelfTest:
    """Audit scores that know nothing, ``runs`` times, and count the claims of every statement of this package.

    A statement fails when its number of claims has a probability below ``ERROR``, shared among the statements,
    under its stated share: with 1000 runs that is a share of 7.3 % where 5 % are stated, so smaller excesses need
    more runs to be seen.

    Args:
        runs: audits, at least 1.
        confidence: of the statements that take one; the verdict's is its own.
        progress: called after each audit.
        size: records of each kind, canaries, and runs in each audit; at least 100.

    Raises:
        InvalidArgumentError: runs, confidence or size out of range.
    """
    check_confidence(confidence)
    if runs < 1 or size < 100:
        raise InvalidArgumentError(f"expected at least 1 run and a size of at least 100, got {runs} and {size}")
    counts: dict[str, int] = {}
    for run in range(runs):
        rng = np.random.default_rng(Key.from_seed(seed).seed_for(f"self-test {run}"))
        for statement, claimed in null_claims(rng, size, confidence, tied=run % 2 == 1).items():
            counts[statement] = counts.get(statement, 0) + claimed
        progress(run + 1, runs, "self-test")
    rows = []
    for statement, claims in counts.items():
        allowed = FALSE_ALARMS if statement == _VERDICT else 1 - confidence
        rows.append(
            Calibration(
                statement=statement,
                runs=runs,
                claims=claims,
                share=claims / runs,
                upper=clopper_pearson(claims, runs, confidence)[1],
                allowed=allowed,
                passed=bool(stats.binom.sf(claims - 1, runs, allowed) >= ERROR / len(counts)),
            )
        )
    return SelfTest(seed, confidence, size, tuple(rows))


def null_claims(rng: np.random.Generator, size: int, confidence: float, *, tied: bool) -> dict[str, bool]:
    """Whether each statement claims a leak, in one audit whose scores are independent of membership.

    Args:
        size: records of each kind, canaries, and runs of each kind.
        tied: scores are rounded to multiples of 0.5.
    """

    def draw(count: int = size) -> Array:
        scores = rng.normal(size=count)
        return np.round(2 * scores) / 2 if tied else scores

    def seed() -> int:
        return int(rng.integers(1 << 62))

    included, canaries = rng.random(size) < 0.5, draw()
    labels = rng.integers(_CLASSES, size=size), rng.integers(_CLASSES, size=size)
    metrics = [
        measure(draw(), draw(), seed=seed(), false_positive_rates=(_RATE,), confidence=confidence)
        for _ in range(_ATTACKS)
    ]
    shadows = {str(i): [(draw(), draw())] for i in range(_ATTACKS)}
    target = {name: (draw(), draw()) for name in shadows}
    chosen = auc(*target[choose_attack(shadows, "auc").name], confidence)
    audited = audit_mechanism(lambda second, count: draw(count), 2 * size, confidence=confidence)
    return {
        "AUC's interval": _excludes(metrics[0].auc, 0.5),
        "held-out accuracy's interval": _excludes(metrics[0].at_threshold.balanced_accuracy, 0.5),
        "TPR above its FPR": _tpr_above_fpr(metrics[0]),
        _VERDICT: any(leaks([AttackResult(str(i), one, 0.0) for i, one in enumerate(metrics)])),
        "AUC's interval of an attack chosen on shadows": _excludes(chosen, 0.5),
        "AUC above a threshold": decide(Threshold(0.5 + 1e-9), *target["0"], confidence).outcome == "above",
        "TPR above a threshold": decide(Threshold(_RATE + 1e-9, _RATE), *target["0"], confidence).outcome == "above",
        "white box against black box": _excludes(
            white_box_advantage(target["0"], target["1"], rate=_RATE, confidence=confidence).auc_difference, 0.0
        ),
        "a leaking subgroup": bool(
            measure_subgroups(draw(), draw(), groups_by_label(*labels), rate=_RATE, confidence=confidence).leaking
        ),
        "an exposed record": bool(exposed_records(draw(), draw(10 * size), 1 - confidence).records),
        "epsilon, one run": one_run_bound(canaries, included, DELTA, confidence, seed=seed()).epsilon > 0,
        "epsilon, one run, if Gaussian": (
            one_run_gaussian_bound(canaries, included, DELTA, confidence, seed=seed()).epsilon > 0
        ),
        "epsilon, independent runs": runs_bound(draw(), draw(), DELTA, confidence, seed=seed()).epsilon > 0,
        "epsilon of a mechanism": audited.epsilon_low > 0,
        "TV": (decision_bound(draw(), draw(), confidence, seed=seed()).tv or 0.0) > 0,
        "JS": cross_entropy_bound(rng.random(size), rng.random(size), confidence).js > 0,
    }


def _excludes(figure: Figure, value: float) -> bool:
    return figure.low is not None and figure.high is not None and not figure.low <= value <= figure.high


def _tpr_above_fpr(metrics: AttackMetrics) -> bool:
    rate = metrics.tpr_at_fpr[0]
    return rate.tpr.low is not None and rate.fpr.high is not None and rate.tpr.low > rate.fpr.high
