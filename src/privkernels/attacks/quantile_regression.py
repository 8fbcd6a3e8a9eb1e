"""The quantile regression attack: is a record's margin high for a record like it that was not trained on?"""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from privkernels.attacks.base import (
    Array,
    Predictor,
    PublicDataAttack,
    check_not_public,
    target_logits,
    true_class_margin,
)
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.randomness import Key

# Fewer public records than this do not tell how a margin depends on the record.
MIN_PUBLIC = 100
# Products of a principal component of x and a class that the regression sees.
MAX_PRODUCTS = 640
_PENALTIES = np.logspace(-1, 5, 13)
# Public records that are predicted without a residual worth naming would have scale 0.
_SMALLEST_RESIDUAL = 1e-6


class QuantileRegression(PublicDataAttack):
    """The attack of Bertran, Tang, Kearns, Morgenstern, Roth and Wu (NeurIPS 2023), which trains no shadow models.

    On public records, known non-members, a regression learns the distribution of the target's margin
    log p(y|x) - log(1 - p(y|x)) from the record: normal with mean m(x, y) and scale s(x, y), the paper's Gaussian
    variant. The score is (margin - m) / s: the threshold z calls "member" what lies above the quantile Phi(z) of
    records alike. It asks the target alone, and needs to know nothing of its architecture or training.

    Departures:

    * The authors' published code takes the true class's logit minus the largest other one for the margin.
    * The paper trains a network to predict the distribution. Here m and log s are ridge regressions on the principal
      components of x, each with a coefficient for every class, penalties chosen by leave-one-out, and s from the
      residuals of five-fold cross-validation. On noisy digits with 597 public records, mean over four targets:
      AUC 0.671, 6.0 % true positives at 1 % false positives. A network with one hidden layer of 64, trained by the
      likelihood with early stopping: 0.639 and 1.2 %; the loss alone: 0.642 and 1.0 %.
    * A margin is not quite normal. Of fresh non-members, 7.9 % lay above the nominal 90 % quantile and 1.0 % above
      the 99 % quantile (same experiment): take thresholds from non-members rather than from Phi.

    Args:
        seed: of the folds and of the principal components.
        batch_size: records per forward pass of the target.
    """

    name = "quantile regression"

    def __init__(self, *, seed: int = 0, batch_size: int = 1024) -> None:
        self.seed = seed
        self.batch_size = batch_size

    def fit(self, public: Records) -> Self:
        """Keep ``public``; the regression is fitted to each target in :meth:`score`.

        Raises:
            TooFewRecordsError: fewer than 100 public records.
        """
        if len(public) < MIN_PUBLIC:
            raise TooFewRecordsError(
                f"quantile regression needs at least {MIN_PUBLIC} public records, got {len(public)}: give more records "
                "that the target was not trained on"
            )
        self.public_ = public
        self._digests = set(public.digests())
        return self

    def score(self, target: Predictor, records: Records) -> Array:
        """(margin - m) / s per record, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that, :class:`InvalidArgumentError` before :meth:`fit`, for records with another shape or number
        of classes than the public ones, and for records that are among the public ones: the regression has fitted
        their margins, so that fresh records have the larger residuals at both ends, members or not.
        """
        public: Records | None = getattr(self, "public_", None)
        if public is None:
            raise InvalidArgumentError(f"{self.name!r} is not fitted: call fit(public) first")
        if public.x.shape[1:] != records.x.shape[1:] or public.n_classes != records.n_classes:
            raise InvalidArgumentError(
                f"the public records have shape {list(public.x.shape[1:])} and {public.n_classes} classes, the records "
                f"to score {list(records.x.shape[1:])} and {records.n_classes}: give records of one kind"
            )
        check_not_public(self, self._digests, records)
        known, asked = (
            true_class_margin(target_logits(target, part, self.batch_size), part.y) for part in (public, records)
        )
        mean, scale = self._regression(public, known, records)
        result: Array = (asked - mean) / scale
        return result

    def _regression(self, public: Records, margins: Array, records: Records) -> tuple[Array, Array]:
        """m and s of the margin for each of ``records``, [n] each."""
        seed = Key.from_seed(self.seed).seed_for("quantile regression") % 2**32
        known, asked = _features(public, records, seed)
        folds = KFold(5, shuffle=True, random_state=seed)
        residuals = margins - cross_val_predict(_ridge(), known, margins, cv=folds)
        log_size = np.log(np.maximum(np.abs(residuals), _SMALLEST_RESIDUAL))
        spread = _ridge().fit(known, log_size)
        fitted = spread.predict(known)
        # The mean of log |r| is not log s: one factor gives the standardised residuals a mean square of 1.
        factor = np.sqrt(np.mean(np.square(residuals) / np.exp(2.0 * fitted)))
        # An unusual record may lie beyond all scales that were seen.
        log_scale = np.clip(spread.predict(asked), *np.quantile(fitted, (0.01, 0.99)))
        scale = np.exp(log_scale) * max(factor, _SMALLEST_RESIDUAL)
        return _ridge().fit(known, margins).predict(asked), scale


def _features(public: Records, records: Records, seed: int) -> tuple[Array, Array]:
    """The principal components of x, the class, and their products, of public and of other records."""
    x = [part.x.cpu().numpy().reshape(len(part), -1).astype(np.float64) for part in (public, records)]
    components = min(max(1, MAX_PRODUCTS // public.n_classes), x[0].shape[1], len(public) - 1)
    reduction = make_pipeline(StandardScaler(), PCA(components, random_state=seed)).fit(x[0])
    found = []
    for part, raw in zip((public, records), x, strict=True):
        reduced, classes = reduction.transform(raw), np.eye(part.n_classes)[part.y.cpu().numpy()]
        products = (classes[:, :, None] * reduced[:, None, :]).reshape(len(part), -1)
        found.append(np.hstack([reduced, classes, products]))
    return found[0], found[1]


def _ridge() -> RidgeCV:
    # Features are not scaled: a principal component counts for as much as it varies.
    return RidgeCV(_PENALTIES)
