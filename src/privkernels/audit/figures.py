"""The report's figures but for ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from privkernels.audit.audit import AuditResult, TargetResult
from privkernels.audit.drawing import COLOURS, Legend, Picture, drawable, render
from privkernels.audit.subgroups import SubgroupFigures
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

MEMBER, NONMEMBER = COLOURS[1], COLOURS[0]
# Losses below this are drawn at it: probabilities above 1 - 1e-8 look alike anyway.
SMALLEST_LOSS = 1e-8
# More subgroups than this do not fit into a figure that can be read.
MOST_GROUPS = 30


@dataclass(frozen=True)
class KdePanel:
    """One published parameter, and what it was drawn from.

    Attributes:
        parameter: its name.
        members: the trained models' values of it. Private data.
        grid: where ``weights`` are given, ascending.
        weights: probabilities of the grid points, or a density at them, from 0 upwards.
        drawn: the value that was released.
        kind: what ``weights`` are.

    Raises:
        InvalidArgumentError: grid and weights of different length, or a negative weight.
        EmptyDataError: no members or no grid.
        NonFiniteValueError: NaN or infinity.
    """

    parameter: str
    members: Sequence[float]
    grid: Sequence[float]
    weights: Sequence[float]
    drawn: float
    kind: Literal["probability", "density"] = "probability"

    def __post_init__(self) -> None:
        if not len(self.members) or not len(self.grid):
            raise EmptyDataError(f"the panel of {self.parameter!r} needs member values and a grid")
        if len(self.grid) != len(self.weights):
            raise InvalidArgumentError(
                f"the panel of {self.parameter!r} needs one weight per grid point, got {len(self.weights)} "
                f"for {len(self.grid)}"
            )
        numbers = np.concatenate([self.members, self.grid, self.weights, [self.drawn]]).astype(np.float64)
        if not np.isfinite(numbers).all():
            raise NonFiniteValueError(f"the panel of {self.parameter!r} holds NaN or infinity")
        if np.min(self.weights) < 0:
            raise InvalidArgumentError(f"the panel of {self.parameter!r} has a negative weight")


def loss_figure(result: AuditResult, target: TargetResult) -> Picture:
    """Histograms of the members' and the non-members' losses, on bins common to all targets."""
    everything = np.concatenate(
        [np.asarray(t.member_losses + t.nonmember_losses, dtype=np.float64) for t in result.targets]
    ).clip(SMALLEST_LOSS)
    low, high = np.log10(everything.min()), np.log10(everything.max())
    bins = np.logspace(low - 0.05, high + 0.05, 41)
    groups = [np.asarray(target.member_losses), np.asarray(target.nonmember_losses)]

    def draw(axes: Axes) -> Legend:
        entries: Legend = []
        styles = (("members", MEMBER, "-", 0.35), ("non-members", NONMEMBER, "--", 0.2))
        for values, (name, colour, line, alpha) in zip(groups, styles, strict=True):
            heights = np.histogram(values.clip(SMALLEST_LOSS), bins)[0] / len(values)
            axes.stairs(heights, bins, fill=True, color=colour, alpha=alpha)
            entries.append((axes.stairs(heights, bins, color=colour, linestyle=line, linewidth=1.4), name))
        axes.set(xscale="log", xlabel="cross-entropy loss (nats)", ylabel="share of records")
        axes.set_xlim(bins[0], bins[-1])
        return entries

    medians = [float(np.median(values)) for values in groups]
    return Picture(
        render(draw, target.name, height=2.9),
        f"Histogram of losses on {target.name}: median {medians[0]:.3g} for members, {medians[1]:.3g} for non-members.",
        f"{target.name}. The further apart the two, the easier a record's membership can be told. "
        f"Median loss: members {medians[0]:.3g}, non-members {medians[1]:.3g}.",
    )


def kde_figure(panel: KdePanel) -> Picture:
    """The members' values, what was estimated from them, and the value drawn."""
    grid, weights = np.asarray(panel.grid, np.float64), np.asarray(panel.weights, np.float64)
    members = np.asarray(panel.members, np.float64)

    def draw(axes: Axes) -> Legend:
        axes.fill_between(grid, weights, color=COLOURS[0], alpha=0.2, linewidth=0)
        foot = -0.06 * float(weights.max() or 1.0)
        lines = axes.plot(grid, weights, color=COLOURS[0], linewidth=1.6)
        lines += axes.plot(members, np.full(len(members), foot), "|", color="black", markersize=9, alpha=0.7)
        lines += [axes.axvline(panel.drawn, color=COLOURS[1], linestyle="--", linewidth=1.6)]
        axes.set(xlabel="value of the parameter", ylabel=panel.kind)
        axes.set_ylim(bottom=2 * foot)
        return list(zip(lines, [panel.kind, "trained models", "released value"], strict=True))

    text = (
        f"{panel.parameter}: {len(members)} trained models between {members.min():.4g} and "
        f"{members.max():.4g}; released value {panel.drawn:.4g}."
    )
    return Picture(render(draw, panel.parameter, height=2.9), f"{panel.kind.capitalize()} over values. {text}", text)


def groups_figure(target: str, groups: Sequence[SubgroupFigures], names: Mapping[str, str]) -> Picture | None:
    """The areas of the subgroups with their intervals, the first one on top; None for too many, or none known.

    Args:
        names: what a subgroup is called in the figure; its own name where it is missing.
    """
    known = [group for group in groups if group.auc.value is not None]
    if not known or len(known) > MOST_GROUPS:
        return None
    places = np.arange(len(known))[::-1]

    def draw(axes: Axes) -> Legend:
        guessing = axes.axvline(0.5, color="0.55", linewidth=1)
        entries: Legend = [(guessing, "guessing")]
        styles = ((True, "leaks", COLOURS[1], "D"), (False, "not shown to leak", COLOURS[0], "o"))
        for leaks, words, colour, marker in styles:
            rows = [(place, group.auc) for place, group in zip(places, known, strict=True) if group.leaks is leaks]
            if rows:
                at = [place for place, _ in rows]
                axes.hlines(at, [f.low or 0.0 for _, f in rows], [f.high or 0.0 for _, f in rows], color=colour)
                dots = axes.plot(
                    [f.value or 0.0 for _, f in rows], at, marker, color=colour, markersize=5, clip_on=False
                )
                entries += [(dots[0], words)]
        labels = [drawable(names.get(group.name, group.name), 18) for group in known]
        axes.set_yticks(places, labels, parse_math=False)
        axes.set(xlabel="AUC", xlim=(0, 1), ylim=(-0.7, len(known) - 0.3))
        axes.grid(True, axis="x", color="0.88", linewidth=0.6)
        return entries

    leaking = sum(group.leaks for group in known)
    confidence = 100 * known[0].auc.confidence
    text = (
        f"{target}: AUC within each of {len(known)} subgroups, {leaking} of which leak more than guessing. "
        f"The lines are intervals that hold for all subgroups at once (each with {confidence:.4g}% confidence)."
    )
    return Picture(render(draw, "AUC by group", height=1.6 + 0.22 * len(known)), text, text)
