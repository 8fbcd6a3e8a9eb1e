"""Draws the pictures of docs/privacy.md: python docs/figures.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

from privkernels.privacy.calculator import figure3, plot

IMAGES = Path(__file__).parent / "images"
PLAIN, HIT, EDGE = "#dfe6ee", "#c8442f", "#6b7a8c"


def grid(ax: Axes, x: float, y: float, rows: int, columns: int, hit: set[tuple[int, int]], size: float = 1.0) -> None:
    """Cells from the upper left corner (x, y) down; those in ``hit`` are the unit."""
    for row in range(rows):
        for column in range(columns):
            color = HIT if (row, column) in hit else PLAIN
            corner = (x + column * size, y - (row + 1) * size)
            ax.add_patch(Rectangle(corner, size, size, facecolor=color, edgecolor=EDGE, linewidth=0.6))


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = EDGE) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=color, linewidth=1))


def rows_of(*rows: int, columns: int) -> set[tuple[int, int]]:
    return {(row, column) for row in rows for column in range(columns)}


def finish(ax: Axes, title: str, below: str) -> None:
    ax.set_xlim(-0.5, 12.5)
    ax.set_ylim(-7.2, 1.2)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title(title, fontsize=11, fontweight="bold", loc="left")
    ax.text(6, -7.1, below, ha="center", va="bottom", fontsize=8.5)


def units() -> None:
    """One panel for each unit: what is replaced between neighbouring inputs."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.2))
    parameter, member, example, validation, participant, activation = axes.flat
    grid(parameter, 1, 0.5, 6, 10, {(2, 4)})
    parameter.text(6, 0.8, "N parameters", ha="center", fontsize=8)
    parameter.text(0.7, -2.5, "M members", rotation=90, va="center", ha="right", fontsize=8)
    finish(parameter, "parameter", "one number of one of M members")
    grid(member, 1, 0.5, 6, 10, rows_of(2, columns=10))
    finish(member, "member", "all N parameters of one member")
    grid(example, 0, 0.5, 6, 1, {(1, 0)})
    grid(example, 4, 0.5, 6, 8, rows_of(0, 2, 5, columns=8))
    for row in (0, 2, 5):
        arrow(example, (1.1, -1), (3.9, -row), HIT)
    example.text(0.5, 0.8, "records", ha="center", fontsize=8)
    example.text(8, 0.8, "members", ha="center", fontsize=8)
    finish(example, "example", "one training record, in all s members that used it (s = 3)")
    grid(validation, 0, 0.5, 6, 1, {(3, 0)})
    grid(validation, 6, 0.5, 6, 1, rows_of(*range(6), columns=1))
    for row in range(6):
        arrow(validation, (1.1, -3), (5.9, -row), HIT)
    validation.text(7.3, -2.5, "every participant's\nscore moves a little", fontsize=8.5, va="center")
    validation.text(0.5, 0.8, "records", ha="center", fontsize=8)
    validation.text(6.5, 0.8, "scores", ha="center", fontsize=8)
    finish(validation, "validation record", "one record of the set that scores are computed on")
    grid(participant, 0, 0.5, 6, 1, set())
    grid(participant, 6, 0.5, 6, 1, {(3, 0)})
    arrow(participant, (1.1, -2.5), (5.9, -2.5))
    participant.text(7.3, -2.5, "one score moves\nby anything", fontsize=8.5, va="center")
    participant.text(0.5, 0.8, "participants", ha="center", fontsize=8)
    participant.text(6.5, 0.8, "scores", ha="center", fontsize=8)
    finish(participant, "participant score", "the score of one participant")
    for depth in range(3):
        grid(activation, 4 + 0.5 * depth, 0.4 - 0.5 * depth, 4, 4, rows_of(*range(4), columns=4), 1.1)
    grid(activation, 0, 0.5, 6, 1, {(2, 0)})
    arrow(activation, (1.1, -2), (3.8, -2), HIT)
    activation.text(10.1, -2.5, "label:\nnot hidden", fontsize=8.5, va="center")
    finish(activation, "activation tensor of one example", "everything the layer sends for one example")
    figure.suptitle("What a guarantee hides: red is replaced by anything else of its kind", fontsize=12)
    figure.tight_layout()
    figure.savefig(IMAGES / "units.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    units()
    plot(figure3().curve, IMAGES / "figure3.png")
