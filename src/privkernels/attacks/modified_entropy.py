"""The modified entropy attack: members have confident predictions that are right."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from privkernels.attacks.base import Array, Attack, Predictor, log_complement, log_softmax, target_logits
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError

# Where log q is below this, -log(1 - q) is q to within float64's rounding.
_LOG_NEGLIGIBLE = -37.0


class ModifiedEntropy(Attack):
    """Score a record by its prediction's modified entropy (Song and Mittal, USENIX Security 2021).

    The modified entropy of a prediction p for a record of class y (equation 8 of arXiv 2003.10595) is

        Mentr = -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i).

    It is 0 for certainty in the true class and infinite for certainty in another, where the plain entropy is 0 for
    both. The score is -log Mentr. Their attack answers "member" below a threshold on Mentr for each class; the
    order is the same, and the thresholds are left to the audit. Needs no fit, no shadow models and no knowledge of
    the training.

    Every term is computed as a logarithm from float64 logits. The entropy of a prediction that is 1e-200 away from
    certainty is about 1e-400, which no float64 holds: so the score is the logarithm, and confident records do not
    tie.
    """

    name = "modified entropy"

    def __init__(self, *, batch_size: int = 1024) -> None:
        self.batch_size = batch_size

    def score(self, target: Predictor, records: Records) -> Array:
        """Minus the logarithm of the modified entropy per record, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that, :class:`InvalidArgumentError` for a model with fewer than two classes.
        """
        return -log_modified_entropy(target_logits(target, records, self.batch_size), records.y)


def log_modified_entropy(logits: Array, labels: Tensor) -> Array:
    """The logarithm of the modified entropy (in nats) per record, float64 [n].

    Args:
        logits: float64 [n, classes].
        labels: int64 [n].

    Raises:
        InvalidArgumentError: fewer than two classes.
    """
    if logits.shape[1] < 2:
        raise InvalidArgumentError(
            "a modified entropy needs at least two classes: with one, every prediction is certain"
        )
    rows, columns = np.arange(len(logits)), labels.cpu().numpy()
    log_p = log_softmax(logits)
    log_not_p = log_complement(log_p)
    # Each term is a product of a probability and a surprise; here are the logarithms of both, added.
    terms = log_p + _log_surprise(log_not_p, log_p)
    terms[rows, columns] = (log_not_p + _log_surprise(log_p, log_not_p))[rows, columns]
    # Sorted, so that two records with the same terms tie wherever their classes stand.
    result: Array = np.logaddexp.reduce(np.sort(terms, axis=1), axis=1)
    return result


def _log_surprise(log_q: Array, log_not_q: Array) -> Array:
    """log(-log q), where log(1 - q) is known too: for q near 1 the two logarithms are the same."""
    tiny = np.finfo(np.float64).tiny
    result: Array = np.where(log_not_q < _LOG_NEGLIGIBLE, log_not_q, np.log(np.maximum(-log_q, tiny)))
    return result
