"""What a record's margin is expected to be in models trained on it and in models that were not.

The formulas of LiRA as functions of the shadow models' margins, without a model in sight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import stats

from privkernels.attacks.base import Array
from privkernels.attacks.shadows import Bools
from privkernels.errors import InvalidArgumentError, TooFewRecordsError

# The weight, in shadow models, of the pooled variance beside a record's own squared deviations.
PRIOR_WEIGHT = 8.0
# Records that an imputation is fitted on; it has four coefficients.
MIN_IMPUTATION = 10
# Shadow models that agree to the last bit still leave a distance to measure by.
_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Moments:
    """Of each record's margins over some of the shadow models, float64 [n] each.

    Attributes:
        mean: 0 where there are none.
        squares: sum of squared deviations from that mean.
        count: how many.
    """

    mean: Array
    squares: Array
    count: Array

    @classmethod
    def of(cls, margins: Array, which: Bools) -> Self:
        """Over the shadow models that ``which`` names for each record; both [S, n]."""
        count = which.sum(axis=0).astype(np.float64)
        mean = np.where(which, margins, 0.0).sum(axis=0) / np.maximum(count, 1.0)
        squares = np.square(np.where(which, margins - mean, 0.0)).sum(axis=0)
        return cls(mean, squares, count)

    def pooled_variance(self) -> float:
        """One variance for all records, about each record's own mean.

        Raises:
            InvalidArgumentError: no record has two margins.
        """
        degrees = float(np.maximum(self.count - 1.0, 0.0).sum())
        if not degrees:
            raise InvalidArgumentError(
                "a variance needs two shadow models of a kind (trained on a record, or not) for some record, and no "
                "record has them: train at least 4 shadow models"
            )
        return float(self.squares.sum()) / degrees


@dataclass(frozen=True)
class World:
    """The distribution of each record's margin in one of the two cases: normal, or Student's t.

    Attributes:
        mean: [n].
        variance: [n] or one for all; of Student's t, the squared scale.
        degrees: of freedom, [n]; None for the normal distribution.
    """

    mean: Array
    variance: Array | float
    degrees: Array | None = None

    @classmethod
    def pooled(cls, found: Moments, variance: float) -> Self:
        """Normal, with one variance for all records."""
        return cls(found.mean, variance)

    @classmethod
    def per_record(cls, found: Moments) -> Self:
        """Normal, with each record's own variance, as in the LiRA paper."""
        return cls(found.mean, found.squares / np.maximum(found.count - 1.0, 1.0))

    @classmethod
    def shrunken(cls, found: Moments, variance: float) -> Self:
        """Student's t: what is known of a next margin when the variance is estimated too.

        The posterior predictive distribution under a flat prior of the mean, and a scaled inverse chi-squared prior
        of the variance, worth :data:`PRIOR_WEIGHT` margins of the pooled variance (Gelman et al., Bayesian Data
        Analysis: the normal model with a conjugate prior).
        """
        degrees = PRIOR_WEIGHT + found.count - 1.0
        squared_scale = (PRIOR_WEIGHT * variance + found.squares) / degrees * (1.0 + 1.0 / found.count)
        return cls(found.mean, squared_scale, degrees)

    def log_density(self, margins: Array) -> Array:
        """log p(margin), [n]."""
        scale = self._scale()
        standard = (margins - self.mean) / scale
        log_p = stats.norm.logpdf(standard) if self.degrees is None else stats.t.logpdf(standard, self.degrees)
        result: Array = log_p - np.log(scale)
        return result

    def log_tail(self, margins: Array) -> Array:
        """log P(a margin above this one), [n], of the normal distribution, accurate far out in the tail."""
        result: Array = stats.norm.logsf((margins - self.mean) / self._scale())
        return result

    def _scale(self) -> Array:
        result: Array = np.sqrt(np.maximum(self.variance, _SMALLEST_VARIANCE))
        return result


@dataclass(frozen=True)
class Imputation:
    """Predicts a record's mean margin in models trained on it from that in models that were not.

    A least squares fit of (1, m, m^2, |m|). Beyond the range that it was fitted on, the difference of the two stays
    that at the end of the range.

    Attributes:
        coefficients: [4].
        low, high: the range.
    """

    coefficients: Array
    low: float
    high: float

    @classmethod
    def fit(cls, outside: Array, inside: Array) -> Self:
        """From mean margins of k records, both [k].

        Raises:
            TooFewRecordsError: fewer than 10 records.
        """
        if len(outside) < MIN_IMPUTATION:
            raise TooFewRecordsError(
                f"the IN mean is imputed from at least {MIN_IMPUTATION} records in each half of the pool that some "
                f"shadow models were trained on and others not, got {len(outside)}: train them on a larger pool"
            )
        coefficients = np.linalg.lstsq(_design(outside), inside, rcond=None)[0].astype(np.float64)
        return cls(coefficients, float(outside.min()), float(outside.max()))

    def __call__(self, outside: Array) -> Array:
        """The predicted means, [n]."""
        known = np.clip(outside, self.low, self.high)
        result: Array = _design(known) @ self.coefficients + (outside - known)
        return result


def _design(means: Array) -> Array:
    return np.column_stack([np.ones_like(means), means, means**2, np.abs(means)])
