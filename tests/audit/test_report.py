"""The HTML report: self-contained, escaped, and honest."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import importlib.resources
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from privkernels.audit import AuditResult, KdePanel, write_report
from privkernels.audit.figures import drawable, kde_figure, loss_figure, roc_figure
from privkernels.audit.report import key_values, render_report
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

ATTACK = "<script>alert('$x$')</script>"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(html.parser.HTMLParser):
    """Collects elements and text, and checks that every element is closed."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def panel(**changes: Any) -> KdePanel:
    grid = np.linspace(-1, 1, 50)
    weights = np.exp(-(grid**2) / 0.1)
    fields = {
        "parameter": "2.weight[0, 5]",
        "members": [-0.2, 0.1, 0.3],
        "grid": grid.tolist(),
        "weights": (weights / weights.sum()).tolist(),
        "drawn": 0.125,
    }
    return KdePanel(**(fields | changes))


@pytest.fixture(scope="module")
def report(result: AuditResult) -> Reader:
    how = {"members": 30, "grid": {"low": -1.0, "high": 1.0}, "layers": [{"name": "a"}, {"name": "b"}]}
    return Reader(render_report(result, panels=[panel()], how=how))


def test_it_says_at_once_that_it_is_private(report: Reader) -> None:
    assert report.text.split("What this release gives away", 2)[1].strip().startswith("For the publisher only")
    assert "Do not publish this file with the model" in report.text
    assert "values of the trained models' parameters" in report.text


def test_it_needs_no_network(report: Reader) -> None:
    assert not {"script", "link", "iframe", "object", "base", "form"} & {name for name, _ in report.elements}
    for _, attributes in report.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                assert value is not None
                assert value.startswith("data:image/png;base64,")
    policies = [a["content"] for a in report.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_no_style_loads_anything(result: AuditResult) -> None:
    source = render_report(result)
    style = re.search("<style>(.*?)</style>", source, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert not re.search(r"https?://", source)


def test_claimed_proven_and_measured_stand_side_by_side(report: Reader) -> None:
    text = " ".join(report.text.split())
    assert re.search(r"Claimed by the paper none Proven none Measured loss threshold: AUC 0\.\d{3} \(", text)
    assert "Claimed by the paper ε = 1, δ = 0 Proven ε = 18.76, δ = 0 per parameter Measured" in text
    assert text.count("ε = 1,") <= text.count("ε = 18.76,")


def test_it_says_what_it_cannot_show(report: Reader) -> None:
    text = " ".join(report.text.split())
    assert "A low attack figure never proves that a model is safe" in text
    assert "This does not show that the model is safe" in text


def test_it_shows_the_parts_that_were_asked_for(report: Reader) -> None:
    text = " ".join(report.text.split())
    for part in (
        "By class",
        "2.weight[0, 5]: 3 trained models between -0.2 and 0.3; released value 0.125",
        "grid: low -1",
        "layers 2: name b",
        "✓ checked the grid is public",
        "✗ not shown to hold the bandwidth is public",
        "? not checked members were trained independently",
        "Warning: the paper's sensitivity is too small",
        "the shadow models differ from published",
        "torch",
    ):
        assert part in text
    # Two ROC curves, two loss histograms, one panel.
    assert len(report.all("img")) == 5


def test_parts_without_content_are_left_out(result: AuditResult) -> None:
    bare = dataclasses.replace(result, targets=result.targets[:1], warnings=())
    text = Reader(render_report(bare)).text
    for part in ("Where published parameters", "Guarantees and what they assume", "The release\n"):
        assert part not in text
    assert "values of the trained models' parameters" not in text


def test_every_image_is_a_whole_png_with_an_alternative_text(report: Reader) -> None:
    for attributes in report.all("img"):
        data = base64.b64decode((attributes["src"] or "").split(",", 1)[1], validate=True)
        with PIL.Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5, "not blank"
        assert len(attributes["alt"] or "") > 30


def test_every_table_has_headers_and_the_language_is_given(report: Reader) -> None:
    assert report.all("html") == [{"lang": "en"}]
    assert all(attributes.get("scope") in ("col", "row") for attributes in report.all("th"))
    assert len(report.all("table")) <= sum(1 for a in report.all("th") if a["scope"] == "row")
    identifiers = [attributes["id"] for _, attributes in report.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in report.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            if name in attributes:
                assert attributes[name] in identifiers


def test_everything_from_a_file_is_escaped(result: AuditResult, guarantee: dict[str, Any]) -> None:
    hostile = dict.fromkeys(("mechanism", "unit", "neighbouring", "summary", "not_proven_because"), ATTACK) | {
        "claimed": {"epsilon": 1.0, "delta": 0.0, "paper": ATTACK, "equation": ATTACK, "formula": ATTACK},
        "proven": None,
        "assumptions": [{"text": ATTACK, "checked": None}],
        "implementation": {ATTACK: ATTACK},
        "warnings": [ATTACK],
    }
    targets = tuple(
        dataclasses.replace(
            target,
            name=f"{ATTACK}{number}",
            description={ATTACK: {ATTACK: [ATTACK]}},
            guarantee=guarantee | hostile,
            attacks=tuple(dataclasses.replace(attack, attack=ATTACK) for attack in target.attacks),
        )
        for number, target in enumerate(result.targets)
    )
    records = dataclasses.replace(result.members, name=ATTACK, fingerprint=ATTACK)
    spoilt = dataclasses.replace(
        result,
        targets=targets,
        members=records,
        date=ATTACK,
        class_names=(ATTACK,) * 10,
        warnings=(ATTACK,),
        attacks=({"name": ATTACK, ATTACK: ATTACK},) * 2,
        environment={ATTACK: ATTACK},
    )
    source = render_report(spoilt, panels=[panel(parameter=ATTACK)], how={ATTACK: [ATTACK]}, title=ATTACK)
    assert "<script" not in source
    reader = Reader(source)
    assert not reader.all("script")
    assert reader.text.count(ATTACK) > 40


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


def test_names_are_drawn_as_they_are_where_the_font_can() -> None:
    assert drawable("DP-PG, ε = 1 $x$", 40) == "DP-PG, ε = 1 $x$"
    assert drawable("漢\n", 40) == "??"
    assert drawable("abcdef", 4) == "abc…"


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


def test_the_file_is_written_whole(result: AuditResult, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(result, path)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert list(path.parent.iterdir()) == [path]


def test_the_template_is_package_data() -> None:
    assert importlib.resources.files("privkernels.audit").joinpath("templates", "report.html.j2").is_file()


def test_key_values_spell_out_nested_facts() -> None:
    facts = {"a": {"b": 1, "c": None}, "d": [1, 2.5], "e": [], "f": True, "g": [{"h": 1}, 2]}
    assert key_values(facts) == [
        ("a: b", "1"),
        ("a: c", "none"),
        ("d", "1, 2.5"),
        ("e", "none"),
        ("f", "yes"),
        ("g 1: h", "1"),
        ("g 2: ", "2"),
    ]


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
