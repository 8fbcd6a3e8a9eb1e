"""The figures of losses, parameters and subgroups."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from privkernels.audit import AuditResult, Figure, ModelAudit
from privkernels.audit.figures import MOST_GROUPS, groups_figure, kde_figure, loss_figure
from privkernels.audit.roc_figures import roc_figure
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from tests.support.panels import panel


@pytest.mark.parametrize(
    "name",
    ["_hidden", "$", "$x_1$", r"$\frac$", "", "漢字 🙂", "a\nb\x00c", "x" * 500, "100 % {brace} ^_", "مرحبا"],
)
def test_any_name_can_be_drawn(result: AuditResult, name: str) -> None:
    # Warnings are errors here, and matplotlib warns about glyphs and labels that it leaves out.
    target = dataclasses.replace(result.targets[0], name=name)
    renamed = dataclasses.replace(result, targets=(target,))
    for picture in (
        roc_figure(renamed, 0),
        loss_figure(renamed, target),
        kde_figure(panel(parameter=name)),
    ):
        assert name in picture.alt


def test_the_figures_touch_no_global_state(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib\n"
        # Reading the key 'backend' in the usual way would import pyplot.
        "def state():\n"
        "    return {key: dict.__getitem__(matplotlib.rcParams, key) for key in matplotlib.rcParams}\n"
        "before = state()\n"
        "from privkernels.audit.figures import KdePanel, kde_figure\n"
        "kde_figure(KdePanel('w', [0.0], [0.0, 1.0], [0.5, 0.5], 1.0))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)


@pytest.mark.parametrize("kind", ["probability", "density"])
def test_a_panel_says_what_it_shows(kind: Any) -> None:
    picture = kde_figure(panel(kind=kind))
    assert picture.alt.startswith(f"{kind.capitalize()} over values. 2.weight[0, 5]")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"members": []}, EmptyDataError),
        ({"grid": [], "weights": []}, EmptyDataError),
        ({"weights": [1.0]}, InvalidArgumentError),
        ({"grid": [0.0, 1.0], "weights": [1.0, -0.1]}, InvalidArgumentError),
        ({"drawn": float("nan")}, NonFiniteValueError),
        ({"members": [float("inf")]}, NonFiniteValueError),
    ],
)
def test_an_impossible_panel_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        panel(**change)


def test_subgroups_are_drawn_with_their_intervals(model_audit: ModelAudit) -> None:
    subgroups = model_audit.verdicts[0].subgroups
    assert subgroups is not None
    picture = groups_figure("leaky", subgroups.groups, {})
    assert picture is not None
    assert "AUC within each of 4 subgroups, 1 of which leak" in picture.alt
    # 5 % in three intervals of each of four subgroups.
    assert "each with 99.58% confidence" in picture.caption
    moved = [dataclasses.replace(group, auc=Figure(0.5, 0.4, 0.6)) for group in subgroups.groups]
    other = groups_figure("leaky", moved, {})
    assert other is not None
    assert other.uri != picture.uri, "the areas are drawn"
    safe = groups_figure("leaky", [dataclasses.replace(group, leaks=False) for group in subgroups.groups], {})
    assert safe is not None
    assert safe.uri != picture.uri, "what leaks is marked"
    named = groups_figure("leaky", subgroups.groups, {subgroups.groups[-1].name: "$dog_1$"})
    assert named is not None
    assert named.uri != picture.uri, "the names are drawn"


def test_too_many_or_unknown_subgroups_are_not_drawn(model_audit: ModelAudit) -> None:
    subgroups = model_audit.verdicts[0].subgroups
    assert subgroups is not None
    first = subgroups.groups[0]
    assert groups_figure("t", [first] * (MOST_GROUPS + 1), {}) is None
    assert groups_figure("t", [first] * MOST_GROUPS, {}) is not None
    unknown = dataclasses.replace(first, auc=Figure.unknown("too few records to say"))
    assert groups_figure("t", [unknown], {}) is None
    mixed = groups_figure("t", [first, unknown], {})
    assert mixed is not None
    assert "each of 1 subgroups" in mixed.alt
