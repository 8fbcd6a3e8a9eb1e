"""The loss attack: members have a lower loss."""

from __future__ import annotations

from privkernels.attacks.base import Array, Attack, Predictor, target_logits, true_class_log_probability
from privkernels.data import Records


class LossThreshold(Attack):
    """Score a record by minus its cross-entropy (Yeom, Giacomelli, Fredrikson and Jha, CSF 2018).

    Their attack answers "member" below a fixed loss (the mean training loss); here the score is
    returned and the threshold is left to the audit. Needs no fit, no shadow models and no
    knowledge of the training.

    The loss comes from a float64 log-softmax of the logits. Where a float32 softmax gives
    probability 1 for many confident records, and so ties them all, this keeps them apart.
    """

    name = "loss threshold"

    def __init__(self, *, batch_size: int = 1024) -> None:
        self.batch_size = batch_size

    def score(self, target: Predictor, records: Records) -> Array:
        """Minus the cross-entropy per record, float64 [n]; see :meth:`Attack.score`."""
        return true_class_log_probability(target_logits(target, records, self.batch_size), records.y)
