"""What an audit does with the time it is given: how many shadow models, which attacks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from privkernels.attacks import (
    Attack,
    LossThreshold,
    PublicDataAttack,
    ShadowAttack,
    ShadowModelAttack,
    Shadows,
    target_logits,
    train_shadows,
)
from privkernels.attacks.base import Predictor
from privkernels.audit._json import JsonValue
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent
from privkernels.training import TrainingConfig

# Shadow models are trained in steps, as long as the next step fits: a few show what one costs.
STEPS = (8, 16, 32, 64, 128, 256)
# The share of a budget that shadow models may take; the rest is for the attacks.
_SHADOW_SHARE = 0.6
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``10m``, ``1.5h`` or a plain number of seconds.

    Raises:
        InvalidArgumentError: another form, or no time at all.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smh]?)", text.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise InvalidArgumentError(f"a time is given as 90s, 10m or 1.5h, not {text!r}")
    return seconds


class Clock:
    """The time that is left of a budget in seconds; without a budget there is always enough."""

    def __init__(self, budget: float | None, now: Callable[[], float] = time.monotonic) -> None:
        if budget is not None and not budget > 0:
            raise InvalidArgumentError(f"a budget is a positive number of seconds, got {budget}")
        self.budget, self._now = budget, now
        self._start = now()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._now() - self._start

    def left(self) -> float:
        """Seconds left; infinite without a budget."""
        return float("inf") if self.budget is None else self.budget - self.elapsed()


@dataclass(frozen=True)
class PlannedAttack(JsonValue):
    """One attack that was considered.

    Attributes:
        attack: its name.
        ran: whether it was made.
        reason: why not; empty where it was.
        seconds: that it took, held-out shadow models included.
    """

    attack: str
    ran: bool
    reason: str
    seconds: float


def shadows_within(
    make_model: Callable[[], nn.Module],
    pool: Records,
    config: TrainingConfig,
    clock: Clock,
    *,
    most: int | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Shadows:
    """As many shadow models as fit into 60 % of the budget, at least 8; or ``most``.

    The number grows in steps (8, 16, 32, 64, ...) as long as the next step, at the last one's seconds per shadow, fits.

    Args:
        most: the largest number; without a budget, the number.
        settings: passed on to :func:`privkernels.attacks.train_shadows`.
    """
    limit = STEPS[3] if most is None else most
    steps = [limit] if clock.budget is None else [*(step for step in STEPS if step < limit), limit]
    started, before, cost = clock.elapsed(), 0, 0.0
    shadows = None
    for step in steps:
        new = step - before if before % 16 == 0 else step
        spent = clock.elapsed() - started
        if shadows is not None and clock.budget is not None and spent + cost * new > _SHADOW_SHARE * clock.budget:
            break
        begin = clock.elapsed()
        shadows = train_shadows(make_model, pool, config, step, progress=progress, **settings)
        cost, before = (clock.elapsed() - begin) / new, step
    assert shadows is not None
    return shadows


def all_attacks(seed: int = 0) -> list[Attack]:
    """Every attack of the library as an audit makes it, unfitted, the cheapest first."""
    return [
        LossThreshold(),
        # Pooled, the attack is stronger where a class has few records.
        ShadowModelAttack(min_class_records=500, seed=seed),
    ]


def why_not(attack: Attack, target: Predictor, shadows: Shadows | None, public: Records | None) -> str | None:
    """Why an attack cannot be made with what there is; None where it can."""
    if attack.access == "weights" and not isinstance(target, nn.Module):
        return "it looks inside the model, and the target is a prediction function"
    if isinstance(attack, ShadowAttack) and shadows is None:
        return "it needs shadow models, and so the target's architecture"
    if isinstance(attack, PublicDataAttack) and public is None:
        return "it needs public records: known non-members that are not audited"
    return None


def fit(attack: Attack, shadows: Shadows | None, public: Records | None) -> Attack:
    """Fit an attack on what it learns from."""
    if isinstance(attack, ShadowAttack) and shadows is not None:
        return attack.fit(shadows)
    if isinstance(attack, PublicDataAttack) and public is not None:
        return attack.fit(public)
    return attack


def seconds_per_query(target: Predictor, records: Sequence[Records]) -> float:
    """How long the target takes to answer for all records once."""
    start = time.perf_counter()
    for part in records:
        target_logits(target, part)
    return time.perf_counter() - start
