"""What a label-only attack sees of a target: the class it predicts, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from privkernels.attacks.base import Predictor, target_logits
from privkernels.data import Records


def predicted_labels(target: Predictor, x: Tensor, n_classes: int, batch_size: int = 1024) -> Tensor:
    """The predicted class of each of ``x`` [n, ...], int64 [n] on the device of ``x``.

    Of outputs that tie for the largest, the lowest class counts. A target that answers with one-hot labels is as good
    as one that gives logits.

    Raises as :meth:`~privkernels.attacks.base.Attack.score` does.
    """
    records = Records(x.float(), torch.zeros(len(x), dtype=torch.int64, device=x.device), n_classes, "queries")
    return torch.from_numpy(target_logits(target, records, batch_size).argmax(axis=1)).to(x.device)
