"""LiRA: is a record's margin more like that of models trained on it, or of models not trained on it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np

from privkernels.attacks.base import Array, Predictor, target_logits, true_class_margin
from privkernels.attacks.shadows import Bools, ShadowAttack, Shadows, Transform, transformed
from privkernels.attacks.worlds import Imputation, Moments, World
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent

Mode = Literal["online", "offline", "imputed"]
Variance = Literal["auto", "pooled", "per-record", "shrunken"]

# A variance from fewer margins than this is worse than a pooled one.
MIN_PER_RECORD = 8


class LiRA(ShadowAttack):
    """The likelihood ratio attack (Carlini, Chien, Nasr, Song, Terzis and Tramer, IEEE S&P 2022).

    A record's margin log p(y|x) - log(1 - p(y|x)) is about normal over models. Its mean and variance come from
    shadow models: those trained on the record (IN) and those that were not (OUT). With phi the target's margin, the
    score is

    * ``mode="online"`` (algorithm 1): log p(phi | IN) - log p(phi | OUT). The shadow models must have been trained
      on the records that are scored, each inside some and outside others: the attack of an auditor.
    * ``mode="offline"`` (section IV-C): -log P(OUT margin > phi), from a record's OUT models alone, which orders
      records as eq. 4 does. The authors' published code takes the density in place of the tail, so that a record that
      is fitted much worse than expected counts as a member.
    * ``mode="imputed"``: as online, with the IN mean predicted from the OUT mean by a regression (1, m, m^2, |m|)
      over other records of the pool: records are in two folds, by a bit of their content's digest, and the
      regression for one fold is fitted on the other. IN models of the scored record itself are never used, so the
      records need not be in the pool. Not in the paper.

    Departures, with mean AUC and true positive rate at 1 % false positives over 22 targets in turn (the benchmark's
    mixture; digits in brackets), at 4, 16 and 64 shadow models:

    * ``variance``: the paper has one per record, and a pooled one where shadow models are few. Here ``"pooled"`` is one
      for all records, about each record's own mean. ``"shrunken"``, the default online, weighs a record's own squares
      with 8 shadow models' worth of the pooled variance and, because that is an estimate, takes Student's t in place
      of the normal (:meth:`~privkernels.attacks.worlds.World.shrunken`).
    * ``queries``: the paper fits one spherical normal distribution to the margins of all queries. Here each query has a
      variance of its own, and the scores (offline: the log tails) are averaged.
    * Offline and imputed take pooled variances. Variances of each record's own make offline weaker where few false
      positives are allowed: 9.1 % true positives against 12.0 % at 1 % on digits with 16 shadow models.

    Measured by ``benchmarks/attacks.py`` (a mixture of 20 Gaussian classes, 10 targets), at 4, 16 and 64 shadow models:

    ==================  ===================  =====================================
    attack              AUC                  true positives at 1 % false positives
    ==================  ===================  =====================================
    loss                0.614                1.0 %
    online, per-record  -, 0.764, 0.788      -, 10.7, 18.5 %
    online, pooled      0.728, 0.764, 0.781  9.7, 15.5, 17.8 %
    online, shrunken    0.730, 0.770, 0.789  10.8, 16.6, 19.0 %
    offline             0.685, 0.706, 0.714  8.3, 10.8, 12.0 %
    imputed             0.758, 0.778, 0.782  13.9, 17.2, 18.4 %
    ==================  ===================  =====================================

    Imputed is the strongest of these while shadow models are few, and where training barely overfits, so that IN and
    OUT means differ by less than their own errors: after two epochs on digits, at 16 shadow models, AUC 0.528 as the
    loss, and online 0.504.

    A target that is one of the shadow models must not attack itself: fit on
    :meth:`~privkernels.attacks.Shadows.without_pair_of`.

    Args:
        mode: which of the three.
        variance: ``"auto"``: shrunken online, else pooled. ``"per-record"`` needs 8 shadow models of each kind per
            record. Imputed knows pooled only.
        queries: what the target and the shadow models are asked about a record: functions from x [b, ...] to
            x [b, ...], such as a mirror image; None is the record itself. Where training used augmentations, the same
            ones make the attack stronger. Each query has means and variances of its own; scores are averaged.
        batch_size: records per forward pass of the target.
    """

    name = "LiRA"

    def __init__(
        self,
        *,
        mode: Mode = "online",
        variance: Variance = "auto",
        queries: tuple[Transform | None, ...] = (None,),
        batch_size: int = 1024,
    ) -> None:
        self.mode = mode
        self.variance = variance
        self.queries = queries
        self.batch_size = batch_size
        self.name = f"LiRA {mode}"

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments; see :meth:`Attack.set_params`."""
        super().set_params(**params)
        self.name = f"LiRA {self.mode}"
        return self

    def fit(self, shadows: Shadows, *, progress: Progress = silent) -> Self:
        """Take pooled variances, and the imputation, from the shadow models on their pool; see ShadowAttack.fit.

        Raises:
            InvalidArgumentError: an unknown mode or variance, no query, or so few shadow models that no record has
                two of a kind that the mode needs.
            TooFewRecordsError: too few records of the pool to impute from.
        """
        self._check()
        trained, folds = shadows.trained_on(shadows.pool), _folds(shadows.pool)
        learnt = []
        for done, query in enumerate(self.queries, start=1):
            margins = shadows.margins(shadows.pool, query)
            learnt.append(self._learn(Moments.of(margins, trained), Moments.of(margins, ~trained), folds))
            progress(done, len(self.queries), "margins of the shadow models (queries)")
        self._learnt = tuple(learnt)
        self.shadows_ = shadows
        return self

    def _learn(self, inside: Moments, outside: Moments, folds: Bools) -> _Learnt:
        variance_in = 0.0 if self.mode == "offline" else inside.pooled_variance()
        if self.mode != "imputed":
            return _Learnt(variance_in, outside.pooled_variance())
        both = (inside.count > 0) & (outside.count > 0)
        for_first, for_second = (
            Imputation.fit(outside.mean[both & other], inside.mean[both & other]) for other in (folds, ~folds)
        )
        return _Learnt(variance_in, outside.pooled_variance(), (for_first, for_second))

    def score(self, target: Predictor, records: Records) -> Array:
        """The log-likelihood ratio (offline: minus the log tail) per record, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that, :class:`InvalidArgumentError` before :meth:`fit`, for records with another number of
        classes, and for records with too few shadow models trained on them (online) or not trained on them.
        """
        shadows = self._fitted(records)
        trained = shadows.trained_on(records)
        self._require(trained)
        scores = np.zeros(len(records))
        for query, learnt in zip(self.queries, self._learnt, strict=True):
            asked = transformed(records, query)
            margins = shadows.margins(records, query)
            outside = Moments.of(margins, ~trained)
            phi = true_class_margin(target_logits(target, asked, self.batch_size), records.y)
            without = self._world(outside, learnt.variance_out)
            if self.mode == "offline":
                scores -= without.log_tail(phi)
                continue
            if learnt.imputations:
                first, second = (imputation(outside.mean) for imputation in learnt.imputations)
                within = World(np.where(_folds(records), second, first), learnt.variance_in)
            else:
                within = self._world(Moments.of(margins, trained), learnt.variance_in)
            scores += within.log_density(phi) - without.log_density(phi)
        result: Array = scores / len(self.queries)
        return result

    def _world(self, found: Moments, pooled: float) -> World:
        if self._variance == "pooled":
            return World.pooled(found, pooled)
        if self._variance == "per-record":
            return World.per_record(found)
        return World.shrunken(found, pooled)

    def notes(self) -> tuple[str, ...]:
        """Which variance ``"auto"`` stands for."""
        return (f"variance: {self._variance}",)

    @property
    def _variance(self) -> Variance:
        if self.variance != "auto":
            return self.variance
        return "shrunken" if self.mode == "online" else "pooled"

    def _check(self) -> None:
        for what, value, choices in (("mode", self.mode, Mode), ("variance", self.variance, Variance)):
            if value not in get_args(choices):
                raise InvalidArgumentError(f"{what} is one of {', '.join(get_args(choices))}, not {value!r}")
        if not len(self.queries):
            raise InvalidArgumentError("LiRA needs at least one query; None is the record itself")
        if self.mode == "imputed" and self._variance != "pooled":
            raise InvalidArgumentError(
                f"imputed LiRA knows no IN models of a record, so no variance of its own either: use "
                f"variance='pooled' or mode='online', not variance={self.variance!r}"
            )

    def _require(self, trained: Bools) -> None:
        least = MIN_PER_RECORD if self._variance == "per-record" else 1
        kinds = [("not trained on it", ~trained, "train more of them, an even number")]
        if self.mode == "online":
            advice = "train them on a pool that holds these records, or use mode='imputed' or mode='offline'"
            if least > 1:
                advice += ", or variance='shrunken'"
            kinds.append(("trained on it", trained, advice))
        for what, mask, advice in kinds:
            short = int((mask.sum(axis=0) < least).sum())
            if short:
                raise InvalidArgumentError(
                    f"{self.name} needs {least} or more shadow models {what} for every record; "
                    f"{short} of {mask.shape[1]} records have fewer, of {len(mask)} shadow models: {advice}"
                )


@dataclass(frozen=True)
class _Learnt:
    """Of one query: pooled variances, and the imputations for the first and the second fold."""

    variance_in: float
    variance_out: float
    imputations: tuple[Imputation, ...] = ()


def _folds(records: Records) -> Bools:
    """Which records are in the second fold, bool [n]: a bit of the content's digest, the same wherever it is met."""
    return np.array([digest[0] & 1 for digest in records.digests()], dtype=np.bool_)
