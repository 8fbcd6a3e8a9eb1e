"""The quality loop of the paper's algorithms: while Test(theta) <= threshold, draw again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from privkernels import inference
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.models import load_weights
from privkernels.privacy.guarantee import Assumption


@dataclass(frozen=True)
class QualityCheck:
    """Accept a drawn model when its accuracy on ``records`` exceeds ``threshold`` (Algorithm 1, line 2).

    On public records, accepting is post-processing of the draws, and every try that was possible is charged.
    On private records without noise it is not private at all: there is no finite epsilon
    (a model that passes on D and fails on D' tells them apart). Then the release is marked as not proven.

    Attributes:
        model: the architecture; its weights are overwritten.
        records: what Test() measures accuracy on.
        threshold: accuracy to exceed, in [0, 1].
        records_are_public: True if the records are public. There is no default on purpose.
    """

    model: nn.Module
    records: Records
    threshold: float
    records_are_public: bool

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InvalidArgumentError(f"an accuracy threshold lies in [0, 1], got {self.threshold!r}")
        if not isinstance(self.records_are_public, bool):
            raise InvalidArgumentError("say records_are_public=True or False: it decides what can be proven")

    def accuracy(self, tensors: Mapping[str, torch.Tensor]) -> float:
        """Accuracy of the model with these weights."""
        load_weights(self.model, dict(tensors))
        return inference.accuracy(self.model, self.records)

    @property
    def assumption(self) -> Assumption:
        """What the proof needs of the records."""
        return Assumption(f"The quality loop's records ({self.records.name}) are public.", None)
