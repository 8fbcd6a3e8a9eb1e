"""Guarantees as the audit reads them: plain dicts, checked, and put into words.

The audit knows no defence. It takes a guarantee as a mapping (or anything with ``to_dict``) with
the keys below, and never shows what a paper claims without what is proven next to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from privkernels.audit._json import plain
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.privacy.guarantee import round_up

_KEYS: dict[str, tuple[type, ...]] = {
    "mechanism": (str,),
    "unit": (str,),
    "neighbouring": (str,),
    "claimed": (Mapping, type(None)),
    "proven": (Mapping, type(None)),
    "not_proven_because": (str, type(None)),
    "assumptions": (list, tuple),
    "implementation": (Mapping,),
    "warnings": (list, tuple),
    "reproducible": (bool,),
    "summary": (str,),
}


class HasToDict(Protocol):
    """A guarantee object."""

    def to_dict(self) -> Mapping[str, Any]: ...


Guarantee = Mapping[str, Any] | HasToDict


@dataclass(frozen=True)
class GuaranteeWords:
    """Claimed and proven, as short texts that are only ever shown together."""

    claimed: str
    proven: str


def read_guarantee(guarantee: Guarantee | None) -> dict[str, Any] | None:
    """The guarantee as a checked, JSON-able dict; None (no protection) stays None.

    Raises:
        InvalidArgumentError: a key is missing or has another type.
        NonFiniteValueError: an epsilon or delta is NaN or infinite.
    """
    if guarantee is None:
        return None
    value = dict(guarantee if isinstance(guarantee, Mapping) else guarantee.to_dict())
    for key, kinds in _KEYS.items():
        if key not in value or not isinstance(value[key], kinds):
            got = repr(value[key]) if key in value else "nothing"
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InvalidArgumentError(f"a guarantee needs the key {key!r} ({names}), got {got}")
    for key in ("claimed", "proven"):
        if value[key] is not None:
            _check_budget(value[key], key)
    for assumption in value["assumptions"]:
        if not isinstance(assumption, Mapping) or not isinstance(assumption.get("text"), str):
            raise InvalidArgumentError(f"an assumption is {{'text': ..., 'checked': ...}}, got {assumption!r}")
    return plain(value, "a guarantee")


def _check_budget(budget: Mapping[str, Any], key: str) -> None:
    for name in ("epsilon", "delta"):
        number = budget.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InvalidArgumentError(f"the guarantee's {key!r} needs a number {name!r}, got {number!r}")
        if not math.isfinite(number) or number < 0:
            raise NonFiniteValueError(
                f"the guarantee's {key} {name} is {number}; a guarantee that does not hold has {key!r}: null"
            )


def guarantee_words(guarantee: Mapping[str, Any] | None) -> GuaranteeWords:
    """Claimed and proven of a guarantee that :func:`read_guarantee` returned.

    Numbers are rounded up, never down. A release whose noise came from a seed proves nothing:
    whoever guesses the seed can subtract the noise.
    """
    if guarantee is None:
        return GuaranteeWords("none", "none")
    claimed, proven = guarantee["claimed"], guarantee["proven"]
    # Without the unit: that is what the proof is for, and papers mean others by it.
    claimed_words = "none" if claimed is None else _budget(claimed)
    if proven is None:
        return GuaranteeWords(claimed_words, f"none: {guarantee['not_proven_because'] or 'no reason was given'}")
    proven_words = f"{_budget(proven)} per {guarantee['unit']}"
    if guarantee["reproducible"]:
        proven_words = f"none: drawn from a seed that can be guessed (with a secret key: {proven_words})"
    return GuaranteeWords(claimed_words, proven_words)


def _budget(budget: Mapping[str, Any]) -> str:
    epsilon, delta = round_up(budget["epsilon"]), round_up(budget["delta"])
    return f"ε = {epsilon:.4g}, δ = {delta:.4g}"
