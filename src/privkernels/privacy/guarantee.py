"""A privacy guarantee as a value: what a paper claims, what can be proven, for whom, and under what."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from privkernels.errors import CorruptFileError, InvalidArgumentError
from privkernels.privacy.events import Relation


class Unit(StrEnum):
    """Whose presence or value the guarantee hides."""

    PARAMETER = "parameter"  # one scalar of one member
    MEMBER = "member"  # one trained model, all of its parameters
    EXAMPLE = "example"  # one training record, in every member that used it
    VALIDATION_RECORD = "validation record"  # one record of the set that participants or tries are scored on
    PARTICIPANT_SCORE = "participant score"  # the score of one participant, whatever it was computed from
    ACTIVATION = "activation tensor of one example"  # what one example's layer output is, its label being public


def round_up(number: float, digits: int = 4) -> float:
    """The smallest number with this many significant digits that is not below ``number``."""
    if number == 0 or not math.isfinite(number):
        return number
    shown = float(f"{number:.{digits - 1}e}")
    if shown >= number:
        return shown
    exponent = math.floor(math.log10(abs(number)))
    return float(f"{shown + 10.0 ** (exponent - digits + 1):.{digits - 1}e}")


_UNIT_WORDS = {
    Unit.PARAMETER: "one number of one member model (not a person's record)",
    Unit.MEMBER: "one whole member model (not a person's record)",
    Unit.EXAMPLE: "one training record",
    Unit.VALIDATION_RECORD: "one validation record (not a training record)",
    Unit.PARTICIPANT_SCORE: "the score of one participant (not the records that it trained on)",
    Unit.ACTIVATION: "the activation tensor of one example, its label not included",
}
_NEIGHBOUR_WORDS = {
    Relation.REPLACE_ONE: "been replaced by another",
    Relation.ADD_OR_REMOVE_ONE: "not been there",
}


@dataclass(frozen=True)
class Claim:
    """What a paper states. epsilon and delta as the paper means them; never printed without the proof."""

    epsilon: float
    delta: float
    paper: str
    equation: str
    formula: str


@dataclass(frozen=True)
class Proof:
    """(epsilon, delta) that holds under the guarantee's assumptions, and the accountant that gave it."""

    epsilon: float
    delta: float
    accountant: str


@dataclass(frozen=True)
class Assumption:
    """One thing the proof needs. checked: True (the library saw that it holds), or None (nobody checked)."""

    text: str
    checked: bool | None = None


@dataclass(frozen=True)
class Guarantee:
    """The privacy of one release.

    Attributes:
        mechanism: for example "DP-PG (proven mode)".
        unit: whose data is hidden.
        neighbouring: which pairs of inputs are compared.
        claimed: the paper's statement, or None.
        proven: what holds, or None; then ``not_proven_because`` says why.
        assumptions: what the proof needs.
        implementation: numbers that the implementation adds (score error, sampling resolution, ...).
        warnings: what a reader must know before relying on the release.
        reproducible: True when the noise came from a guessable seed.
        relation: which of the two standard relations ``neighbouring`` spells out.
    """

    mechanism: str
    unit: Unit
    neighbouring: str
    claimed: Claim | None
    proven: Proof | None
    not_proven_because: str | None = None
    assumptions: tuple[Assumption, ...] = ()
    implementation: Mapping[str, float | int | str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reproducible: bool = False
    relation: Relation = Relation.REPLACE_ONE

    def __post_init__(self) -> None:
        if (self.proven is None) != bool(self.not_proven_because):
            raise InvalidArgumentError("a guarantee has either a proof or the reason why there is none")
        for value in (self.claimed, self.proven):
            if value is not None and not (value.epsilon >= 0 and 0 <= value.delta <= 1):
                raise InvalidArgumentError(
                    f"epsilon must be 0 or more and delta in [0, 1], got {value.epsilon} and {value.delta}"
                )
        if self.proven is not None and not math.isfinite(self.proven.epsilon):
            raise InvalidArgumentError("an infinite epsilon is no guarantee: give the reason instead of a proof")

    @property
    def summary(self) -> str:
        """The guarantee in words for a reader who is not a specialist."""
        parts = []
        if self.claimed is not None:
            parts.append(
                f"The paper claims epsilon = {self.claimed.epsilon:.4g} ({self.claimed.paper}, "
                f"{self.claimed.equation})."
            )
        if self.proven is None:
            parts.append(f"Proven: nothing. {self.not_proven_because}")
        else:
            epsilon, delta_shown = round_up(self.proven.epsilon), round_up(self.proven.delta)
            likelihood = f"{round_up(math.exp(epsilon), 3):.3g}" if epsilon <= 50 else f"e^{epsilon:.4g}"
            delta = f" (up to {delta_shown:.4g} more in probability)" if self.proven.delta else ""
            parts.append(
                f"Proven: epsilon = {epsilon:.4g}, delta = {delta_shown:.4g} for "
                f"{_UNIT_WORDS[self.unit]}: whatever is concluded from what was published would have been at most "
                f"{likelihood} times as likely or as unlikely had it {_NEIGHBOUR_WORDS[self.relation]}{delta}."
            )
            if self.proven.epsilon > 10:
                parts.append("An epsilon this large promises next to nothing.")
        return " ".join(parts)

    def __str__(self) -> str:
        """All of the guarantee as lines of text: both numbers, unit, assumptions, implementation terms, warnings."""
        lines = [
            self.summary,
            f"Mechanism: {self.mechanism}.",
            f"Unit: {self.unit}. Neighbours ({self.relation}): {self.neighbouring}.",
        ]
        if self.claimed is not None:
            lines.append(f"Claimed by {self.claimed.paper}, {self.claimed.equation}: {self.claimed.formula}.")
        if self.proven is not None:
            lines.append(f"Proven by: {self.proven.accountant}.")
        for assumption in self.assumptions:
            state = "checked" if assumption.checked else "assumed, nobody checked"
            lines.append(f"Needs ({state}): {assumption.text}")
        lines += [f"{name}: {value}" for name, value in self.implementation.items()]
        lines += [f"Warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        value = asdict(self)
        value["unit"] = str(self.unit)
        value["relation"] = str(self.relation)
        value["assumptions"] = [asdict(assumption) for assumption in self.assumptions]
        value["implementation"] = dict(self.implementation)
        value["warnings"] = list(self.warnings)
        value["summary"] = self.summary
        return value

    def to_json(self) -> str:
        """JSON text; goes into the metadata of a released safetensors file."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Guarantee:
        """Inverse of :meth:`to_json`; raises :class:`CorruptFileError` on anything else."""
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise CorruptFileError(f"this is not a guarantee as privkernels writes it: {error}") from error
        return cls.from_dict(value)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Guarantee:
        """Inverse of :meth:`to_dict`; raises :class:`CorruptFileError` on anything else."""
        try:
            claimed, proven = value["claimed"], value["proven"]
            return cls(
                mechanism=str(value["mechanism"]),
                unit=Unit(value["unit"]),
                neighbouring=str(value["neighbouring"]),
                claimed=None if claimed is None else Claim(**claimed),
                proven=None if proven is None else Proof(**proven),
                not_proven_because=value["not_proven_because"],
                assumptions=tuple(Assumption(**item) for item in value["assumptions"]),
                implementation=dict(value["implementation"]),
                warnings=tuple(str(item) for item in value["warnings"]),
                reproducible=bool(value["reproducible"]),
                # Files of 0.1 do not name it; all of theirs was replace-one.
                relation=Relation(value.get("relation", Relation.REPLACE_ONE)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"this is not a guarantee as privkernels writes it: {error!r}") from error
