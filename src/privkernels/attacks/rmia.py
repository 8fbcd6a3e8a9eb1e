"""RMIA: how much likelier does the target make a record than models in general do?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from privkernels.attacks.base import (
    Array,
    Predictor,
    log_probability_of_margin,
    target_logits,
    true_class_margin,
)
from privkernels.attacks.shadows import Bools, ShadowAttack, Shadows
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent

Mode = Literal["online", "offline"]

# The values of a that are tried.
GRID = tuple(step / 10 for step in range(11))
# a is chosen for the false positive rates up to this one.
MAX_FPR = 0.02


class RMIA(ShadowAttack):
    """The robust membership inference attack (Zarifzadeh, Liu and Shokri, ICML 2024).

    The score is log p(y|x; target) - log p(y|x), where p(y|x) is the mean over models:

    * ``mode="online"``: half the mean over shadow models trained on the record (IN) and half that over the others
      (OUT). The shadow models must have been trained on the records that are scored.
    * ``mode="offline"``: ((1 + a) mean over OUT + 1 - a) / 2, a stand-in for the missing IN half.

    Departures:

    * The paper's score is the share of population records z whose own ratio the record's ratio exceeds by a factor
      gamma. For one target that is an increasing function of the ratio, and of a small population it ties records
      that the ratio keeps apart: so the ratio is the score, and the population gives p-values (:meth:`p_values`).
    * The paper chooses ``a`` by its attack on one of the shadow models; here the first of every pair is attacked
      with all others but its complement. The best a has the highest mean AUC over false positive rates up to 2 %:
      on the mixture of 20 Gaussian classes at 16 shadow models it finds 7.9 % of the members at 0.1 %, against 7.3 %
      with rates up to 10 %, for an AUC of 0.778 against 0.784.
    * Probabilities are the plain softmax, not the paper's Taylor softmax with a margin and a temperature. They and
      their complements are carried as logarithms, so that ratios of confident records do not tie at 1.

    Measured by ``benchmarks/attacks.py`` (a mixture of 20 Gaussian classes), at 4, 16 and 64 shadow models: online AUC
    0.778, 0.791, 0.794 and 16.0, 18.4, 19.4 % true positives at 1 % false positives; offline 0.741, 0.779, 0.782 and
    12.2, 18.5, 19.4 %; the loss 0.614 and 1.0 %.

    A target that is one of the shadow models must not attack itself: fit on
    :meth:`~privkernels.attacks.Shadows.without_pair_of`.

    Args:
        mode: which of the two.
        a: in [0, 1], for offline; chosen in :meth:`fit` when None. The higher, the less the OUT mean is trusted to
            be a mean over all models of a record that is easy.
        batch_size: records per forward pass of the target.

    Attributes:
        a_: after :meth:`fit`, the a in use; None online.
    """

    name = "RMIA"

    def __init__(self, *, mode: Mode = "online", a: float | None = None, batch_size: int = 1024) -> None:
        self.mode = mode
        self.a = a
        self.batch_size = batch_size
        self.name = f"RMIA {mode}"

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments; see :meth:`Attack.set_params`."""
        super().set_params(**params)
        self.name = f"RMIA {self.mode}"
        return self

    def fit(self, shadows: Shadows, *, progress: Progress = silent) -> Self:
        """Take the shadow models and, offline, choose ``a``; see :meth:`ShadowAttack.fit`.

        Raises:
            InvalidArgumentError: an unknown mode, an a outside [0, 1] or for online, or too few shadow models to
                choose an a with.
        """
        if self.mode not in get_args(Mode):
            raise InvalidArgumentError(f"mode is one of {', '.join(get_args(Mode))}, not {self.mode!r}")
        if self.a is not None and (self.mode == "online" or not 0.0 <= self.a <= 1.0):
            raise InvalidArgumentError(f"a is for mode='offline' and in [0, 1], not a={self.a!r} for {self.mode!r}")
        self.a_ = self.a
        if self.mode == "offline" and self.a is None:
            self.a_ = _choose_a(shadows, progress)
        self.shadows_ = shadows
        return self

    def score(self, target: Predictor, records: Records) -> Array:
        """The log ratio per record, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that, :class:`InvalidArgumentError` before :meth:`fit`, for records with another number of
        classes, and for records that no shadow model was trained on (online) or all were.
        """
        shadows = self._fitted(records)
        trained = shadows.trained_on(records)
        self._require(trained)
        phi = true_class_margin(target_logits(target, records, self.batch_size), records.y)
        return log_ratios(phi, shadows.margins(records), trained, self.a_)

    def p_values(self, target: Predictor, records: Records, population: Records) -> Array:
        """For each record, a p-value of "not a member", float64 [n], in (0, 1].

        (1 + number of population records with a ratio at least as high) / (1 + their number). For a non-member that
        is exchangeable with the population, P(p <= t) <= t for every t, whatever the shadow models are worth. To be
        so, both must also stand alike towards the shadow models: a record inside half of them has another
        distribution of ratios than one outside all.

        Args:
            population: fresh records that the target was not trained on, from the records' distribution; in the
                shadow models' pool if the records are.

        Raises:
            InvalidArgumentError: as :meth:`score`, or records and population that differ in how many of the shadow
                models were trained on them.
        """
        shadows = self._fitted(records)
        counts = [set(shadows.trained_on(part).sum(axis=0).tolist()) for part in (records, population)]
        if len(counts[0] | counts[1]) > 1:
            raise InvalidArgumentError(
                "p-values compare records with a population that equally many shadow models were trained on, not "
                f"{sorted(counts[0])} of {len(shadows)} for the records, {sorted(counts[1])} for the "
                f"population: take both from the pool (and an even number of shadow models), or "
                "neither"
            )
        ratios, others = self.score(target, records), np.sort(self.score(target, population))
        at_least = len(others) - np.searchsorted(others, ratios, side="left")
        p_values: Array = ((1.0 + at_least) / (1.0 + len(others))).astype(np.float64)
        return p_values

    def notes(self) -> tuple[str, ...]:
        """The a in use and whether it was chosen."""
        a = getattr(self, "a_", None)
        if a is None:
            return ()
        return (f"a = {a:g}, {'given' if self.a is not None else 'chosen by attacking the shadow models'}",)

    def _require(self, trained: Bools) -> None:
        kinds = [(~trained, "not trained on it", "train more of them, an even number")]
        if self.mode == "online":
            kinds.append(
                (trained, "trained on it", "train them on a pool that holds these records, or use mode='offline'")
            )
        for mask, what, advice in kinds:
            missing = int((~mask.any(axis=0)).sum())
            if missing:
                raise InvalidArgumentError(
                    f"{self.name} needs a shadow model {what} for every record, and {missing} of {mask.shape[1]} "
                    f"records have none, of {len(mask)} shadow models: {advice}"
                )


def log_ratios(phi: Array, margins: Array, trained: Bools, a: float | None) -> Array:
    """log p(target) - log p(models in general), [n].

    Args:
        phi: the target's margins log p - log(1 - p), [n].
        margins: the shadow models', [S, n].
        trained: which of them were trained on the record, bool [S, n].
        a: of the offline formula; None for the online one.
    """
    mean_out = _Mean.of(margins, ~trained)
    mean = mean_out.averaged(_Mean.of(margins, trained)) if a is None else mean_out.completed(a)
    result: Array = log_probability_of_margin(phi) - mean.log_probability()
    return result


@dataclass(frozen=True)
class _Mean:
    """A mean probability per record, as two logarithms, [n] each: its own and its complement's."""

    log_p: Array
    log_not_p: Array

    @classmethod
    def of(cls, margins: Array, which: Bools) -> Self:
        """Over the shadow models that ``which`` names for each record; both [S, n]."""
        return cls(_log_mean(margins, which), _log_mean(-margins, which))

    def averaged(self, other: Self) -> Self:
        return type(self)(
            np.logaddexp(self.log_p, other.log_p) - np.log(2.0),
            np.logaddexp(self.log_not_p, other.log_not_p) - np.log(2.0),
        )

    def completed(self, a: float) -> Self:
        """((1 + a) p + 1 - a) / 2, and its complement (1 + a) (1 - p) / 2."""
        rest = np.log1p(-a) if a < 1.0 else -np.inf
        half = np.log1p(a) - np.log(2.0)
        return type(self)(np.logaddexp(half + self.log_p, rest - np.log(2.0)), half + self.log_not_p)

    def log_probability(self) -> Array:
        """log p, from the complement where p > 1/2: near 1 a probability is told by what it lacks."""
        from_complement = np.log1p(-np.exp(np.minimum(self.log_not_p, -np.log(2.0))))
        result: Array = np.where(self.log_not_p < -np.log(2.0), from_complement, self.log_p)
        return result


def _log_mean(margins: Array, which: Bools) -> Array:
    """The logarithm of the mean probability over the chosen shadow models, [n]; -inf where there are none."""
    log_p = np.where(which, log_probability_of_margin(margins), -np.inf)
    result: Array = logsumexp(log_p, axis=0) - np.log(np.maximum(which.sum(axis=0), 1))
    return result


def _choose_a(shadows: Shadows, progress: Progress) -> float:
    """The a of :data:`GRID` with the best mean attack on one shadow model of every pair."""
    firsts = np.unique(shadows.pairs, return_index=True)[1]
    margins, trained = shadows.margins(shadows.pool), shadows.trained_on(shadows.pool)
    areas = []
    for done, shadow in enumerate(firsts, start=1):
        others = np.array(shadows.pairs) != shadows.pairs[shadow]
        areas.append(_areas(margins[shadow], trained[shadow], margins[others], trained[others]))
        progress(done, len(firsts), "choosing a (shadow models attacked)")
    if np.isnan(areas).all():
        raise InvalidArgumentError(
            f"to choose a, one shadow model is attacked with those of other pairs; {len(shadows)} shadow models in "
            f"{len(firsts)} pairs are too few: train at least 4, or give a"
        )
    return GRID[int(np.nanmean(areas, axis=0).argmax())]


def _areas(phi: Array, members: npt.NDArray[np.bool_], margins: Array, trained: Bools) -> Array:
    """The attack with every a of :data:`GRID` on a target with margins ``phi`` [n]; NaN where there is none to do."""
    usable = (~trained).any(axis=0)
    members = members[usable]
    if not members.any() or members.all():
        return np.full(len(GRID), np.nan)
    mean_out = _Mean.of(margins[:, usable], ~trained[:, usable])
    scores = [log_probability_of_margin(phi[usable]) - mean_out.completed(a).log_probability() for a in GRID]
    return np.array([roc_auc_score(members, score, max_fpr=MAX_FPR) for score in scores])
