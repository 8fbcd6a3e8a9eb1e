"""What an answer of the calculator is, and how the number that was left out is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy.guarantee import Guarantee, round_up

Number = float | int
_WIDEST = 1e12  # unknowns are looked for between 1 / this and this
_LARGEST = 1e30  # numbers are taken between 1 / this and this, so that no square of a ratio overflows
_LARGEST_COUNT = 10**15  # exact as floats
_SMALLEST_FLOAT = math.nextafter(0.0, 1.0)


@dataclass(frozen=True)
class Row:
    """One line of the answer: what it is about, what is claimed of it, and what is proven.

    The words are rounded up. The numbers behind them are not rounded, and None where there is none.
    """

    about: str
    claimed: str
    proven: str
    by: str = ""
    claimed_epsilon: float | None = None
    claimed_delta: float | None = None
    proven_epsilon: float | None = None
    proven_delta: float | None = None


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
        inputs: all numbers, the one that was solved for included; None for one that has no limit or no value.
        solved: the name of the one that was solved for.
        rows: claimed beside proven.
        notes: what a reader must know.
        down: names of the numbers that are safe when rounded down; all others are rounded up where they are shown.
        limit: where the search for ``solved`` ended without finding a limit; then the rows are for this value.
        curve_of: makes the curve, or None where there is nothing to plot.
    """

    title: str
    inputs: Mapping[str, Number | str | None]
    solved: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    down: frozenset[str] = frozenset()
    limit: Number | None = None
    curve_of: Callable[[], Curve | None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def curve(self) -> Curve | None:
        """For a plot; computed when it is asked for."""
        return self.curve_of()

    def shown(self, name: str) -> str:
        """``name = value`` of one input, rounded in its safe direction."""
        value, label = self.inputs[name], name.replace("_", "-")
        if name == "delta" and value == _SMALLEST_FLOAT:
            return f"{label} ≤ {value:.0g}"
        if not isinstance(value, float):
            return f"{label} = {value}"
        return f"{label} = {number_words(value, down=name in self.down)}"

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, without the curve; every number finite or None."""
        return {
            "title": self.title, "inputs": _finite(self.inputs), "solved": self.solved, "limit": self.limit,
            "rows": [_finite(asdict(row)) for row in self.rows], "notes": list(self.notes),
        }  # fmt: skip


def _finite(values: Mapping[str, Number | str | None]) -> dict[str, Number | str | None]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def missing(**numbers: Number | None) -> str:
    """The name of the one number that is None: the unknown.

    Raises :class:`InvalidArgumentError` unless exactly one is, and the others are positive and of a sensible size.
    """
    names = [name for name, value in numbers.items() if value is None]
    words = ", ".join(name.replace("_", "-") for name in (names or numbers))
    if len(names) > 1:
        raise InvalidArgumentError(f"{words} are missing: give all of them but one, which is then solved for")
    if not names:
        raise InvalidArgumentError(f"{words} are all given: leave out the one to solve for")
    check_sizes(**numbers)
    return names[0]


def check_sizes(**numbers: Number | None) -> None:
    """Raise :class:`InvalidArgumentError` for a number outside [1e-30, 1e30]; a delta may be smaller."""
    for name, value in numbers.items():
        least = 0.0 if name == "delta" else 1 / _LARGEST
        if value is not None and not (value > 0 and least <= value <= _LARGEST):
            got = "a larger number" if value > _LARGEST else repr(value)
            raise InvalidArgumentError(
                f"{name.replace('_', '-')} must be positive and finite, {1 / _LARGEST:g} to {_LARGEST:g}, got {got}"
            )


def check_counts(**counts: int | None) -> None:
    """Raise :class:`InvalidArgumentError` for a count that is not a whole number from 1 to 10^15."""
    for name, value in counts.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST_COUNT:
            got = "a larger number" if value > _LARGEST_COUNT else repr(value)
            raise InvalidArgumentError(
                f"{name.replace('_', '-')} must be a whole number from 1 to {_LARGEST_COUNT:g}, got {got}"
            )


def largest(
    holds: Callable[[float], bool], what: str, *, low: float = 1 / _WIDEST, high: float = _WIDEST
) -> tuple[float, bool]:
    """The largest number in [low, high] for which ``holds``, where it holds for all smaller ones; to 10 digits.

    With it comes whether the search ended at ``high``, so that a larger number may hold as well.
    """
    if not holds(low):
        raise InvalidBudgetError(f"no {what} of {low:g} or more satisfies this: relax the other numbers")
    return (high, True) if holds(high) else (_bisect(holds, low, high), False)


def smallest(
    holds: Callable[[float], bool], what: str, *, low: float = 1 / _WIDEST, high: float = _WIDEST
) -> tuple[float, bool]:
    """The smallest number in [low, high] for which ``holds``, where it holds for all larger ones; as ``largest``."""
    if not holds(high):
        raise InvalidBudgetError(f"no {what} up to {high:g} satisfies this: relax the other numbers")
    if holds(low):
        return low, True
    return 1 / _bisect(lambda inverse: holds(1 / inverse), 1 / high, 1 / low), False


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number for which ``holds``, which it does at ``low`` and not at ``high``."""
    while high > low * (1 + 1e-11):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def largest_count(holds: Callable[[int], bool], what: str, *, high: int = 10**12) -> tuple[int, bool]:
    """The largest whole number from 1 to ``high`` for which ``holds``, as :func:`largest`."""
    if not holds(1):
        raise InvalidBudgetError(f"not even one {what} satisfies this: relax the other numbers")
    if holds(high):
        return high, True
    low = 1
    while high - low > 1:
        middle = min(high - 1, max(low + 1, math.isqrt(low * high)))
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, False


def round_down(number: float, digits: int = 4) -> float:
    """The largest number with this many significant digits that is not above ``number``."""
    return -round_up(-number, digits)


def number_words(number: float, *, down: bool = False, digits: int = 6) -> str:
    """A number to this many digits, rounded up, or ``down``."""
    return f"{(round_down if down else round_up)(number, digits):.{digits}g}"


def budget_words(epsilon: float, delta: float) -> str:
    """An (epsilon, delta), rounded up."""
    if not math.isfinite(epsilon):
        return "no bound"
    words = f"ε = {number_words(epsilon, digits=4)}"
    if delta == _SMALLEST_FLOAT:
        return f"{words}, δ ≤ {delta:.0g}"
    return words + (f", δ = {number_words(delta, digits=4)}" if delta else "")


def budget_row(
    about: str,
    *,
    claimed: tuple[float, float] | None,
    proven: tuple[float, float] | None,
    source: str = "",
    by: str = "",
) -> Row:
    """A row of two (epsilon, delta), or none; ``source`` is put behind the claim as it is."""
    return Row(
        about,
        "none" if claimed is None else budget_words(*claimed) + source,
        "none" if proven is None else budget_words(*proven),
        by,
        *(claimed or (None, None)),
        *(proven or (None, None)),
    )


def row_of(guarantee: Guarantee, about: str | None = None) -> Row:
    """Claimed and proven of a guarantee."""
    claimed, proven = guarantee.claimed, guarantee.proven
    # The paper never made these draws; the claim is what its formula says of them.
    applied = ", applied to these draws" if claimed is not None and "applied to these draws" in claimed.paper else ""
    return budget_row(
        about or f"one {guarantee.unit}",
        claimed=None if claimed is None else (claimed.epsilon, claimed.delta),
        proven=None if proven is None else (proven.epsilon, proven.delta),
        source="" if claimed is None else f" ({claimed.equation}{applied})",
        by=guarantee.not_proven_because or "" if proven is None else proven.accountant,
    )
