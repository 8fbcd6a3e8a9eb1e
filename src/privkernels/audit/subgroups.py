"""Which subgroups leak more than guessing, with one error rate for all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import CONFIDENCE, Array, Figure, auc, check_confidence
from privkernels.audit.metrics import (
    MIN_PER_GROUP,
    Labels,
    TprAtFpr,
    allowed_false_positives,
    checked_scores,
    tpr_at_fpr,
)
from privkernels.audit.null_tests import auc_p_value, tpr_p_value
from privkernels.errors import InvalidArgumentError

Mask = npt.NDArray[np.bool_]
# Name -> which members and which non-members belong to it; subgroups may overlap.
Groups = Mapping[str, tuple[Mask, Mask]]
# Name -> a value for each member, and for each non-member: integers, bools or strings.
Attributes = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]

# Intervals per subgroup: the area, the true and the false positive rate. They share the error.
_INTERVALS = 3
# Tests per subgroup: the area, and the members above nearly all non-members.
_TESTS = 2
# Distinct values of an attribute. What has more is an identifier or a measurement and divides the records into groups
# too small to say anything of, while each takes its share of the error from all others.
MOST_VALUES = 100


@dataclass(frozen=True)
class SubgroupFigures(JsonValue):
    """The attack within one subgroup.

    Attributes:
        auc, tpr_at_fpr: with intervals that hold for all subgroups at once; unknown for too few records.
        p_value: against guessing within the subgroup, from the area and from the members above nearly all
            non-members (twice the smaller); None for too few records.
        adjusted_p_value: Holm's, over all subgroups that have a p-value.
        leaks: the adjusted p-value is at most 1 - confidence.
    """

    name: str
    n_members: int
    n_nonmembers: int
    auc: Figure
    tpr_at_fpr: TprAtFpr
    p_value: float | None
    adjusted_p_value: float | None
    leaks: bool


@dataclass(frozen=True)
class Subgroups(JsonValue):
    """All subgroups of one audit.

    Attributes:
        confidence: with this probability every interval of every subgroup holds its true figure; and with at least
            this probability no subgroup in which the attack only guesses is said to leak.
        rate: the false positive rate of the TPR.
    """

    confidence: float
    rate: float
    groups: tuple[SubgroupFigures, ...]

    @property
    def leaking(self) -> tuple[str, ...]:
        """Names of the subgroups that leak significantly more than guessing."""
        return tuple(group.name for group in self.groups if group.leaks)

    def __str__(self) -> str:
        tested = sum(group.p_value is not None for group in self.groups)
        untested = len(self.groups) - tested
        found = ", ".join(self.leaking) if self.leaking else "none"
        few = f" {untested} had too few records to say." if untested else ""
        return (
            f"Subgroups that leak more than guessing: {found} (of {tested} tested; with {100 * self.confidence:g}% "
            f"confidence none is named by chance).{few} A subgroup that is not named is not shown to be safe. Assumed: "
            "within a subgroup, members and non-members come from the same source."
        )


def measure_subgroups(
    members: Array, nonmembers: Array, groups: Groups, *, rate: float = 0.01, confidence: float = CONFIDENCE
) -> Subgroups:
    """Figures of each subgroup, and which of them leak, with one error for all statements together.

    The intervals of G subgroups have the level ``1 - (1 - confidence) / (3 G)`` each (Bonferroni): exact for the rates
    (Clopper and Pearson), and for the areas as good as :func:`privkernels.audit.intervals.auc` is far in its tails.
    Whether a subgroup leaks does not rest on them: it is decided by its p-value
    (:mod:`privkernels.audit.null_tests`) with Holm's (1979) correction, which needs no independence of the subgroups.

    Args:
        members, nonmembers: scores, float [m] and [n].
        groups: name -> (bool [m], bool [n]). Define them before looking at the scores: subgroups found by searching
            the scores for a high figure leak by construction.
        rate: the false positive rate of the TPR, in (0, 1).
        confidence: of all statements together.

    Raises:
        InvalidArgumentError: no subgroup, a mask of another shape or dtype, or a rate or confidence out of range.
        EmptyDataError, NonFiniteValueError: no scores, or scores that are not finite.
    """
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    check_confidence(confidence)
    if not groups:
        raise InvalidArgumentError("expected at least one subgroup, got none")
    if not 0 < rate < 1:
        raise InvalidArgumentError(f"a false positive rate lies in (0, 1), got {rate}")
    each = 1 - (1 - confidence) / (_INTERVALS * len(groups))
    parts = [
        (members[_mask(inside, members, name)], nonmembers[_mask(outside, nonmembers, name)])
        for name, (inside, outside) in groups.items()
    ]
    p_values = [_p_value(*part, rate) for part in parts]
    adjusted = _holm(p_values)
    rows = []
    for name, (inside, outside), p, corrected in zip(groups, parts, p_values, adjusted, strict=True):
        area, tpr = _figures(inside, outside, rate, each)
        leaks = corrected is not None and corrected <= 1 - confidence
        rows.append(SubgroupFigures(name, len(inside), len(outside), area, tpr, p, corrected, leaks))
    return Subgroups(confidence, rate, tuple(rows))


def groups_by_label(member_labels: Labels, nonmember_labels: Labels) -> dict[str, tuple[Mask, Mask]]:
    """One subgroup per distinct label, such as the class, named after it.

    Args:
        member_labels, nonmember_labels: integers or strings, [m] and [n].
    """
    inside, outside = np.asarray(member_labels), np.asarray(nonmember_labels)
    return {str(label): (inside == label, outside == label) for label in np.union1d(inside, outside).tolist()}


def groups_by_class(member_labels: Labels, nonmember_labels: Labels) -> dict[str, tuple[Mask, Mask]]:
    """One subgroup per class, called ``class 3``; see :func:`groups_by_label`."""
    return {f"class {name}": masks for name, masks in groups_by_label(member_labels, nonmember_labels).items()}


def groups_by_attribute(
    name: str, member_values: npt.ArrayLike, nonmember_values: npt.ArrayLike
) -> dict[str, tuple[Mask, Mask]]:
    """One subgroup per distinct value of an attribute, called ``sex = female``, in the order of the values.

    Args:
        name: of the attribute.
        member_values, nonmember_values: integers or bools in both, or strings in both, [m] and [n].

    Raises:
        InvalidArgumentError: a name that is empty or holds "="; values of another type, not one for each record, or
            more than 100 different ones.
    """
    if not name.strip() or "=" in name:
        raise InvalidArgumentError(f"an attribute has a name without '=', got {name!r}")
    inside, outside = (
        _values(name, values, role) for values, role in ((member_values, "members"), (nonmember_values, "non-members"))
    )
    if (inside.dtype.kind == "U") != (outside.dtype.kind == "U"):
        raise InvalidArgumentError(
            f"attribute {name!r} is {inside.dtype} for the members and {outside.dtype} for the non-members: give "
            "integers for both or strings for both"
        )
    # Not NumPy's union, which makes floats of signed and unsigned integers together.
    values = sorted(set(inside.tolist()) | set(outside.tolist()))
    if len(values) > MOST_VALUES:
        raise InvalidArgumentError(
            f"attribute {name!r} has {len(values)} different values, more than {MOST_VALUES}: it tells "
            "records apart rather than groups, and all values share one error. Put them into fewer groups"
        )
    return {f"{name} = {value}": (inside == value, outside == value) for value in values}


def _values(name: str, values: npt.ArrayLike, role: str) -> npt.NDArray[np.generic]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuU":
        raise InvalidArgumentError(
            f"attribute {name!r} of the {role} is {array.dtype}: give integers or strings (NumPy's, not Python "
            "objects), and numbers such as an age as the bands that they fall into"
        )
    if array.ndim != 1:
        raise InvalidArgumentError(
            f"attribute {name!r} of the {role} is {list(array.shape)}: give one value per record"
        )
    return array


def _figures(inside: Array, outside: Array, rate: float, confidence: float) -> tuple[Figure, TprAtFpr]:
    if _too_few(inside, outside):
        unknown = Figure.unknown(
            f"too few records to say: {len(inside)} members and {len(outside)} non-members; {MIN_PER_GROUP} of each "
            "are needed",
            confidence,
        )
        return unknown, TprAtFpr(rate, None, unknown, unknown)
    return auc(inside, outside, confidence), tpr_at_fpr(inside, outside, rate, confidence)


def _p_value(inside: Array, outside: Array, rate: float) -> float | None:
    if _too_few(inside, outside):
        return None
    m, n = len(inside), len(outside)
    allowed = allowed_false_positives(n, rate)
    found = int((inside > np.sort(outside)[::-1][allowed]).sum())
    area = auc(inside, outside).value or 0.0
    return min(1.0, _TESTS * min(auc_p_value(area, m, n), tpr_p_value(found, allowed, m, n)))


def _too_few(inside: Array, outside: Array) -> bool:
    return min(len(inside), len(outside)) < MIN_PER_GROUP


def _holm(p_values: list[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of those that are known."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _mask(mask: Mask, scores: Array, name: str) -> Mask:
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != scores.shape:
        raise InvalidArgumentError(
            f"subgroup {name!r} needs a bool per record, [{len(scores)}], got {mask.dtype} {list(mask.shape)}"
        )
    return mask
