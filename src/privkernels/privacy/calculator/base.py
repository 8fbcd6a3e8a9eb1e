"""What an answer of the calculator is, and how the number that was left out is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy.guarantee import Guarantee, round_up

Number = float | int
_WIDEST = 1e12  # unknowns are looked for between 1 / this and this


@dataclass(frozen=True)
class Row:
    """One line of the answer: what it is about, what is claimed of it, and what is proven."""

    about: str
    claimed: str
    proven: str
    by: str = ""


@dataclass(frozen=True)
class Curve:
    """Lines over one of the inputs, for a plot."""

    x_name: str
    y_name: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]
    title: str = ""


@dataclass(frozen=True)
class Calculation:
    """An answer.

    Attributes:
        title: the mechanism.
        inputs: all numbers, the one that was solved for included.
        solved: the name of the one that was solved for.
        rows: claimed beside proven.
        notes: what a reader must know.
        curve: for a plot.
    """

    title: str
    inputs: Mapping[str, Number | str | None]
    solved: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    curve: Curve | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, without the curve."""
        rows = [vars(row) for row in self.rows]
        return {
            "title": self.title, "inputs": dict(self.inputs), "solved": self.solved, "rows": rows,
            "notes": list(self.notes),
        }  # fmt: skip


def missing(**numbers: Number | None) -> str:
    """The name of the one number that is None: the unknown.

    Raises :class:`InvalidArgumentError` unless exactly one is, and the others are positive and finite.
    """
    names = [name for name, value in numbers.items() if value is None]
    words = ", ".join(name.replace("_", "-") for name in (names or numbers))
    if len(names) > 1:
        raise InvalidArgumentError(f"{words} are missing: give all of them but one, which is then solved for")
    if not names:
        raise InvalidArgumentError(f"{words} are all given: leave out the one to solve for")
    for name, value in numbers.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InvalidArgumentError(f"{name.replace('_', '-')} must be positive and finite, got {value!r}")
    return names[0]


def largest(holds: Callable[[float], bool], what: str, *, low: float = 1 / _WIDEST, high: float = _WIDEST) -> float:
    """The largest number in [low, high] for which ``holds``, where it holds for all smaller ones; to 10 digits."""
    if not holds(low):
        raise InvalidBudgetError(f"no {what} of {low:g} or more satisfies this: relax the other numbers")
    if holds(high):
        return high
    while high > low * (1 + 1e-11):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def smallest(holds: Callable[[float], bool], what: str, *, low: float = 1 / _WIDEST, high: float = _WIDEST) -> float:
    """The smallest number in [low, high] for which ``holds``, where it holds for all larger ones."""
    return 1 / largest(lambda inverse: holds(1 / inverse), f"1/{what}", low=1 / high, high=1 / low)


def largest_count(holds: Callable[[int], bool], what: str, *, high: int = 10**12) -> int:
    """The largest whole number from 1 to ``high`` for which ``holds``, where it holds for all smaller ones."""
    if not holds(1):
        raise InvalidBudgetError(f"not even one {what} satisfies this: relax the other numbers")
    low = 1
    while low < high:
        middle = (low + high + 1) // 2 if high - low < 2 else min(high, max(low + 1, math.isqrt(low * high)))
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def budget_words(epsilon: float, delta: float) -> str:
    """An (epsilon, delta), rounded up."""
    if not math.isfinite(epsilon):
        return "no bound"
    return f"ε = {round_up(epsilon):.4g}" + (f", δ = {round_up(delta):.4g}" if delta else "")


def row_of(guarantee: Guarantee, about: str | None = None) -> Row:
    """Claimed and proven of a guarantee."""
    claimed, proven = guarantee.claimed, guarantee.proven
    return Row(
        about or f"one {guarantee.unit}",
        "none" if claimed is None else f"{budget_words(claimed.epsilon, claimed.delta)} ({claimed.equation})",
        "none" if proven is None else budget_words(proven.epsilon, proven.delta),
        guarantee.not_proven_because or "" if proven is None else proven.accountant,
    )
