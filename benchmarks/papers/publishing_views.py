"""One experiment of model_publishing as the paper's figures 8 and 9 and table 2, and beside its claims.

Every method and budget was published several times. A figure is the mean over these draws. Its interval, the mean of
the draws' 95 % intervals, is about other records: the mean of draws varies with them no more than one draw does. It is
not about other draws.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

UNPROTECTED = "unprotected member"
BLACK_BOX = "shadow models"
WHITE_BOX = ("bayes-wb", "general-wb")
# Figure 8 shows one budget of each mode.
FIGURE_8_EPSILONS = (1.0, 10.0)

Limits = tuple[float, float, float]
Study = dict[str, Any]


def releases(study: Study) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each method with its budget as words, and the rows of its draws."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in study["rows"]:
        name = row["method"] + ("" if row["epsilon"] is None else f", ε = {row['epsilon']:g}")
        found.setdefault(name, []).append(row)
    return list(found.items())


def mean(rows: list[dict[str, Any]], attack: str, name: str) -> Limits | None:
    """A figure's value and limits, each the mean over draws; None where a draw has none."""
    return _mean([row["attacks"][attack][name] for row in rows])


def mean_of_class(rows: list[dict[str, Any]], attack: str, label: int) -> Limits | None:
    """The attack's accuracy within one class, likewise."""
    return _mean([row["attacks"][attack]["per_class"][label] for row in rows])


def mean_over_classes(rows: list[dict[str, Any]], attack: str) -> float | None:
    """The mean accuracy over classes and draws, as the paper averages; None where a class has no figure."""
    figures = [mean_of_class(rows, attack, label) for label in range(len(rows[0]["attacks"][attack]["per_class"]))]
    values = [figure[0] for figure in figures if figure is not None]
    return statistics.mean(values) if len(values) == len(figures) else None


def accuracy_allowed(epsilon: float, delta: float = 0.0) -> float:
    """The highest balanced accuracy that (epsilon, delta)-differential privacy of a training record allows.

    From TPR <= e^eps FPR + delta and 1 - FPR <= e^eps (1 - TPR) + delta (Kairouz, Oh and Viswanath, ICML 2015): their
    corner.
    """
    odds = math.exp(-epsilon)
    return min(1.0, (1.0 + delta * odds) / (1.0 + odds))


def figure8(study: Study) -> list[str]:
    """Accuracy of the black-box attack within each class, in percent."""
    classes = range(len(study["rows"][0]["attacks"][BLACK_BOX]["per_class"]))
    lines = _head(study, *(f"class {label}" for label in classes))
    for name, rows in releases(study):
        lines.append(_line(name, *(_value(mean_of_class(rows, BLACK_BOX, label)) for label in classes)))
    return lines


def figure9(study: Study) -> list[str]:
    """Accuracy averaged over classes, for each attack; in parentheses the 95 % interval over all records."""
    attacks = (BLACK_BOX, *WHITE_BOX)
    lines = _head(study, "black-box, shadow models", *(f"white-box, {attack}" for attack in WHITE_BOX))
    for name, rows in releases(study):
        cells = []
        for attack in attacks:
            average, overall = mean_over_classes(rows, attack), mean(rows, attack, "accuracy")
            cells.append(
                f"{'-' if average is None else f'{100 * average:.1f}'} {'' if overall is None else _interval(overall)}"
            )
        lines.append(_line(name, *cells))
    return lines


def table2(study: Study) -> list[str]:
    """Recall, precision and accuracy of the white-box and the black-box attack, and the test accuracy."""
    attacks = (*WHITE_BOX, BLACK_BOX)
    lines = _head(study, *(f"{attack}: recall, precision, accuracy" for attack in attacks), "test accuracy")
    for name, rows in releases(study):
        cells = [
            " / ".join(_value(mean(rows, attack, figure)) for figure in ("recall", "precision", "accuracy"))
            for attack in attacks
        ]
        lines.append(_line(name, *cells, _accuracy(rows)))
    return lines


def three_numbers(study: Study) -> list[str]:
    """Claimed, proven and measured side by side.

    In brackets the highest accuracy that the epsilon before it allows any attack if it is a training record's; the
    paper's is a parameter's.
    """
    lines = _head(
        study, "claimed ε [allows]", "proven ε [allows]", "black-box", "white-box, bayes-wb", "TPR at 1 % FPR"
    )
    for name, rows in releases(study):
        claimed, proven, unit = rows[0]["claimed"], rows[0]["proven"], rows[0]["unit"]
        measured = [mean(rows, attack, "accuracy") for attack in (BLACK_BOX, WHITE_BOX[0])]
        figures = [*measured, mean(rows, WHITE_BOX[0], "tpr_at_1_percent")]
        lines.append(
            _line(
                name,
                "none" if claimed is None else f"{claimed:.2g} [{100 * accuracy_allowed(claimed):.1f}]",
                "none"
                if proven is None
                else f"{proven['epsilon']:.3g} per {unit} [{100 * accuracy_allowed(**proven):.1f}]",
                *("-" if figure is None else f"{100 * figure[0]:.1f} {_interval(figure)}" for figure in figures),
            )
        )
    return lines


def draw(study: Study, folder: Path) -> None:
    """figure8.png and figure9.png."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    picture = Figure(figsize=(9, 4), layout="constrained")
    _draw_figure8(picture.subplots(), study)
    picture.legend(loc="outside lower center", ncols=3, fontsize=8)
    picture.savefig(folder / "figure8.png", dpi=110)
    picture = Figure(figsize=(9, 4), layout="constrained")
    axes = picture.subplots(1, 2, sharey=True)
    _draw_figure9(axes, study)
    handles = axes[0].get_legend_handles_labels()
    title = "attacks (dotted: on the unprotected member)"
    picture.legend(*handles, loc="outside lower center", ncols=4, fontsize=8, title=title, title_fontsize=8)
    picture.savefig(folder / "figure9.png", dpi=110)


def _draw_figure8(ax: Any, study: Study) -> None:
    chosen = [(name, rows) for name, rows in releases(study) if rows[0]["epsilon"] in (None, *FIGURE_8_EPSILONS)]
    n_classes = len(study["rows"][0]["attacks"][BLACK_BOX]["per_class"])
    width = 0.8 / len(chosen)
    for place, (name, rows) in enumerate(chosen):
        for label in range(n_classes):
            figure = mean_of_class(rows, BLACK_BOX, label)
            if figure is None:
                continue
            value, low, high = (100 * number for number in figure)
            ax.bar(
                label + (place - (len(chosen) - 1) / 2) * width, value - 50, width, bottom=50, color=f"C{place}",
                yerr=[[value - low], [high - value]], error_kw={"linewidth": 0.7}, label=name if label == 0 else None,
            )  # fmt: skip
    ax.axhline(50, color="black", linewidth=0.8)
    ax.set_xticks(range(n_classes))
    ax.set_xlabel("class")
    ax.set_ylabel("attack accuracy (%), 95 % interval")
    ax.set_title(f"Black-box attack within each class, {study['dataset']} (50 % is guessing)")


def _draw_figure9(axes: Any, study: Study) -> None:
    found = dict(releases(study))
    for ax, mode in zip(axes, ("paper", "proven"), strict=True):
        points = [rows for rows in found.values() if rows[0]["method"] == f"DP-PG, {mode} mode"]
        for place, attack in enumerate((BLACK_BOX, *WHITE_BOX)):
            color = f"C{place}"
            limits = [(rows[0]["epsilon"], mean(rows, attack, "accuracy")) for rows in points]
            known = [(epsilon, figure) for epsilon, figure in limits if figure is not None]
            values = [100 * figure[0] for _, figure in known]
            bars = [[100 * (f[0] - f[1]) for _, f in known], [100 * (f[2] - f[0]) for _, f in known]]
            ax.errorbar([epsilon for epsilon, _ in known], values, bars, color=color, marker="o", label=attack)
            plain = mean(found[UNPROTECTED], attack, "accuracy")
            if plain is not None:
                ax.axhline(100 * plain[0], color=color, linestyle=":", linewidth=1)
        accuracies = [100 * statistics.mean(row["test_accuracy"] for row in rows) for rows in points]
        ax.plot([rows[0]["epsilon"] for rows in points], accuracies, "x--", color="gray", label="test accuracy")
        ax.axhline(50, color="black", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xlabel("ε of a parameter, as the paper counts" if mode == "paper" else "proven ε of a training record")
        ax.set_title(f"DP-PG, {mode} mode, {study['dataset']}")
    axes[0].set_ylabel("accuracy (%), 95 % interval")


def _mean(figures: list[list[float] | None]) -> Limits | None:
    known = [figure for figure in figures if figure is not None]
    if len(known) < len(figures):
        return None
    value, low, high = (statistics.mean(numbers) for numbers in zip(*known, strict=True))
    return value, low, high


def _head(study: Study, *columns: str) -> list[str]:
    return [_line(study["dataset"], *columns), "| --- " * (1 + len(columns)) + "|"]


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _value(figure: Limits | None) -> str:
    return "-" if figure is None else f"{100 * figure[0]:.1f}"


def _interval(figure: Limits) -> str:
    # Outwards, so that rounding never makes an interval narrower.
    return f"({math.floor(1000 * figure[1]) / 10:.1f} to {math.ceil(1000 * figure[2]) / 10:.1f})"


def _accuracy(rows: list[dict[str, Any]]) -> str:
    return f"{100 * statistics.mean(row['test_accuracy'] for row in rows):.1f}"
