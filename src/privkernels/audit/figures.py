"""The report's figures, as PNG bytes with an alternative text. No pyplot, no display, no network."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ft2font import FT2Font

from privkernels.audit.audit import AuditResult, TargetResult
from privkernels.audit.metrics import MIN_FALSE_POSITIVES
from privkernels.audit.summary import number_with_interval, percent_with_interval
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

Legend = list[tuple[Artist, str]]

# Okabe and Ito's palette: told apart with any colour vision; line styles tell them apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MEMBER, NONMEMBER = COLOURS[1], COLOURS[0]
# Losses below this are drawn at it: probabilities above 1 - 1e-8 look alike anyway.
SMALLEST_LOSS = 1e-8
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "figure.dpi": 100,
    "savefig.dpi": 170,
    "savefig.bbox": "standard",
}


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


@dataclass(frozen=True)
class Picture:
    """A PNG for an ``img`` element: its data URI, alternative text and caption."""

    uri: str
    alt: str
    caption: str


def roc_figure(result: AuditResult, attack: int) -> Picture:
    """ROC curves of one attack (by position) on all targets, both axes logarithmic."""
    metrics = [target.attacks[attack].metrics for target in result.targets]
    smallest = 0.5 / max(m.n_nonmembers for m in metrics)
    lowest = min(smallest, 0.5 / max(m.n_members for m in metrics))

    def draw(axes: Axes) -> Legend:
        unsure = MIN_FALSE_POSITIVES / max(m.n_nonmembers for m in metrics)
        axes.axvspan(smallest, min(1.0, unsure), color="0.93", zorder=0, linewidth=0)
        lines = axes.plot([lowest, 1], [lowest, 1], color="0.55", linewidth=1, zorder=1)
        for number, item in enumerate(metrics):
            lines += axes.plot(
                np.maximum(item.roc.fpr, smallest),
                np.maximum(item.roc.tpr, lowest),
                color=COLOURS[number % len(COLOURS)],
                linestyle=LINES[number % len(LINES)],
                linewidth=1.8,
            )
        axes.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(lowest, 1.05))
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        axes.grid(True, which="major", color="0.88", linewidth=0.6)
        names = ["guessing", *(target.name for target in result.targets)]
        return list(zip(lines, names, strict=True))

    name = result.targets[0].attacks[attack].attack
    shown = "; ".join(
        f"{target.name}: AUC {number_with_interval(item.auc)}, "
        f"true positive rate at 1% false positives {percent_with_interval(item.tpr_at_fpr[0].tpr)}"
        for target, item in zip(result.targets, metrics, strict=True)
    )
    return Picture(
        _render(draw, f"Attack: {name}", height=4.4),
        f"ROC curves of the attack {name}, logarithmic axes. {shown}.",
        f"{name}. Above the grey line the attack beats guessing. In the shaded part there are fewer than "
        f"{MIN_FALSE_POSITIVES} false positives: too few records to say.",
    )


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
        _render(draw, target.name, height=2.9),
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
    return Picture(_render(draw, panel.parameter, height=2.9), f"{panel.kind.capitalize()} over values. {text}", text)


def _render(draw: Callable[[Axes], Legend], title: str, *, height: float) -> str:
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(5.2, height), layout="constrained")
        axes = canvas.add_subplot()
        entries = draw(axes)
        axes.set_title(drawable(title, 46), loc="left", fontsize=10.5, parse_math=False)
        # matplotlib before 3.10 leaves out labels that start with an underscore: names go in afterwards.
        legend = canvas.legend(
            [artist for artist, _ in entries],
            [str(number) for number in range(len(entries))],
            loc="outside lower left",
            ncols=min(2, len(entries)),
            frameon=False,
            handlelength=3.0,
        )
        for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
            text.set_parse_math(False)
            text.set_text(drawable(name, 30))
        stream = io.BytesIO()
        canvas.savefig(stream, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def drawable(text: str, longest: int) -> str:
    """``text`` with what the figures' font cannot draw replaced by "?", and cut to ``longest``."""
    known = "".join(c if c.isprintable() and ord(c) in _glyphs() else "?" for c in text)
    return known if len(known) <= longest else known[: longest - 1] + "…"


@functools.cache
def _glyphs() -> frozenset[int]:
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return frozenset(FT2Font(str(font)).get_charmap())
