"""How one member is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from privkernels.errors import InvalidArgumentError

OptimizerName = Literal["sgd", "adam"]
ScheduleName = Literal["constant", "cosine"]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of mini-batch training with the cross-entropy loss, the same for every member.

    Attributes:
        epochs: passes over the member's subset.
        batch_size: records per step; the last batch of an epoch may be smaller.
        learning_rate: step size, of the first epoch when there is a schedule.
        momentum: of SGD; Adam uses its usual betas (0.9, 0.999) and ignores it.
        weight_decay: L2 penalty, added to the gradient as torch.optim's SGD and Adam do.
        optimizer: ``"sgd"`` or ``"adam"``.
        schedule: ``"constant"``, or ``"cosine"``: epoch e of E (from 0) is trained with
            learning_rate * (1 + cos(pi e / E)) / 2.

    Raises:
        InvalidArgumentError: a value outside its range.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    optimizer: OptimizerName = "sgd"
    schedule: ScheduleName = "constant"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidArgumentError(f"{name} is an integer of at least 1, not {value!r}")
        for name in ("learning_rate", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise InvalidArgumentError(f"{name} is a finite number of at least 0, not {value!r}")
        if self.learning_rate == 0 or self.momentum >= 1:
            raise InvalidArgumentError(
                f"learning_rate is above 0 and momentum below 1, not {self.learning_rate} and {self.momentum}"
            )
        for name, choices in (("optimizer", get_args(OptimizerName)), ("schedule", get_args(ScheduleName))):
            if getattr(self, name) not in choices:
                raise InvalidArgumentError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
