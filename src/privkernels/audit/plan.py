"""What an audit does with the time it is given: how many shadow models, which attacks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from privkernels.attacks import (
    RMIA,
    Attack,
    BayesWhiteBox,
    GeneralWhiteBox,
    GradientNorm,
    LabelOnlyAugmentation,
    LabelOnlyBoundary,
    LiRA,
    LossThreshold,
    ModifiedEntropy,
    NeuralAttack,
    PublicDataAttack,
    QuantileRegression,
    ShadowAttack,
    ShadowModelAttack,
    Shadows,
    target_logits,
    train_shadows,
)
from privkernels.attacks.base import Predictor
from privkernels.attacks.shadows import GROUP
from privkernels.audit._json import JsonValue
from privkernels.audit.kept_scores import KeptAttack
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent
from privkernels.training import TrainingConfig

# Shadow models are trained in steps, as long as the next step fits: a few show what one costs.
STEPS = (8, 16, 32, 64, 128, 256)
# The share of a budget that shadow models may take; the rest is for the attacks.
_SHADOW_SHARE = 0.6
# Shadow models on the public records, for the attack that needs them.
OWN_SHADOWS = 8
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

    def within(self, seconds: float) -> Progress:
        """A progress that shows nothing, and raises :class:`OutOfTime` once so many seconds from now are over."""
        end = self.elapsed() + seconds

        def check(_done: int, _total: int, _what: str) -> None:
            if self.elapsed() > end:
                raise OutOfTime

        return check


class OutOfTime(Exception):
    """A step of :meth:`Clock.within` took too long."""


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
    cache: str | Path | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Shadows:
    """As many shadow models as fit into 60 % of the budget, at least 8; or ``most``.

    The first 8 show what one takes. Then the most that fit at that price are trained, among 16, 32, 64, 128 and 256;
    and, as more shadow models at a time take less each, again where that leaves time.

    Args:
        most: the largest number, 64 where None; without a budget, the number.
        settings: passed on to :func:`privkernels.attacks.train_shadows`.
    """
    limit = STEPS[3] if most is None else most

    def train(number: int) -> Shadows:
        return train_shadows(make_model, pool, config, number, cache=cache, progress=progress, **settings)

    def kept(number: int) -> int:
        """How many of these a larger number takes over from the cache: whole groups."""
        return 0 if cache is None else number - number % GROUP

    if clock.budget is None:
        return train(limit)
    end = clock.elapsed() + _SHADOW_SHARE * clock.budget
    left = [*(step for step in STEPS if step < limit), limit]
    shadows, before, fitting = None, 0, left[:1]
    while fitting:
        begin, wanted = clock.elapsed(), fitting[-1]
        shadows = train(wanted)
        cost = (clock.elapsed() - begin) / (wanted - before)
        before, left = kept(wanted), [step for step in left if step > wanted]
        fitting = [step for step in left if clock.elapsed() + cost * (step - before) <= end]
    assert shadows is not None
    return shadows


@dataclass(frozen=True)
class Knowledge:
    """What an audit's attacks learn from.

    Attributes:
        shadows: trained on members and non-members together; None where the architecture is not known.
        own_shadows: trained on the public records, for attacks whose shadows must not know the audited records.
        public: known non-members that are not audited.
    """

    shadows: Shadows | None = None
    own_shadows: Shadows | None = None
    public: Records | None = None

    def without_pair_of(self, shadow: int) -> Knowledge:
        """What is known when that shadow model plays the target."""
        return replace(self, shadows=None if self.shadows is None else self.shadows.without_pair_of(shadow))


def all_attacks(records: Records, seed: int = 0) -> list[Attack]:
    """Every attack of the library as an audit makes it, unfitted, the cheapest first.

    Args:
        records: the audited ones: pictures are asked about shifted, other records about with noise; and queries stay
            in [0, 1] where the records do.
    """
    pictures = records.x.dim() == 4 and min(records.x.shape[-2:]) >= 8
    box = (0.0, 1.0) if float(records.x.min()) >= 0 and float(records.x.max()) <= 1 else None
    return [
        LossThreshold(),
        ModifiedEntropy(),
        LiRA(mode="online"),
        LiRA(mode="offline"),
        LiRA(mode="imputed"),
        RMIA(mode="online"),
        RMIA(mode="offline"),
        GradientNorm(),
        # Pooled, the attack is stronger where a class has few records.
        ShadowModelAttack(min_class_records=500, seed=seed),
        QuantileRegression(seed=seed),
        LabelOnlyAugmentation(queries="translations" if pictures else "gaussian", seed=seed),
        BayesWhiteBox(seed=seed),
        NeuralAttack(seed=seed),
        GeneralWhiteBox(seed=seed),
        LabelOnlyBoundary(clip=box, seed=seed),
    ]


def why_not(attack: Attack, target: Predictor, known: Knowledge) -> str | None:
    """Why an attack cannot be made with what there is; None where it can."""
    if attack.access == "weights" and not isinstance(target, nn.Module):
        return "it looks inside the model, and the target is a prediction function"
    if isinstance(attack, ShadowAttack):
        if known.shadows is None:
            return "it needs shadow models, and so the target's architecture"
        if attack.needs_own_pool and known.own_shadows is None:
            return "it needs shadow models on public records: known non-members that are not audited"
    if isinstance(attack, PublicDataAttack) and known.public is None:
        return "it needs public records: known non-members that are not audited"
    return None


def fit(attack: Attack, known: Knowledge, keep: Path | None = None, progress: Progress = silent) -> Attack:
    """Fit an attack on what it learns from, which :func:`why_not` found to be there.

    Args:
        keep: folder of scores of earlier audits (:class:`~privkernels.audit.kept_scores.KeptAttack`); the attack is
            then fitted when a score is asked for that is not there.
        progress: called while attacks learn from shadow models.
    """
    if keep is not None:
        learns_from = _learns_from(attack, known)
        return KeptAttack(attack, lambda unfitted: fit(unfitted, known, None, progress), learns_from, keep)
    if isinstance(attack, ShadowAttack):
        return attack.fit(_shadows_of(attack, known), progress=progress)
    if isinstance(attack, PublicDataAttack):
        assert known.public is not None
        return attack.fit(known.public)
    return attack


def _shadows_of(attack: ShadowAttack, known: Knowledge) -> Shadows:
    shadows = known.own_shadows if attack.needs_own_pool else known.shadows
    assert shadows is not None
    return shadows


def _learns_from(attack: Attack, known: Knowledge) -> dict[str, Any]:
    if isinstance(attack, ShadowAttack):
        shadows = _shadows_of(attack, known)
        # The folder in a cache is named after what the shadow models were trained on, and how.
        return {"shadows": ["/".join(path.parts[-3:]) for path in shadows.paths], "pairs": shadows.pairs}
    if isinstance(attack, PublicDataAttack) and known.public is not None:
        return {"public": known.public.fingerprint()}
    return {}


def seconds_per_query(target: Predictor, records: Sequence[Records]) -> float:
    """How long the target takes to answer for all records once."""
    start = time.perf_counter()
    for part in records:
        target_logits(target, part)
    return time.perf_counter() - start
