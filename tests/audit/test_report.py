"""The HTML report: self-contained, escaped, and honest."""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from privkernels.audit import AuditResult, Figure, Guard, ModelAudit, Reconstruction, write_report
from privkernels.audit.inversions import InversionPanel
from privkernels.audit.report import key_values, render_report
from privkernels.errors import InvalidArgumentError
from tests.support.page import Reader
from tests.support.panels import panel

ATTACK = "<script>alert('$x$')</script>"


@pytest.fixture(scope="module")
def source(result: AuditResult) -> str:
    how = {"members": 30, "grid": {"low": -1.0, "high": 1.0}, "layers": [{"name": "a"}, {"name": "b"}]}
    return render_report(result, panels=[panel()], how=how)


@pytest.fixture(scope="module")
def report(source: str) -> Reader:
    return Reader(source)


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


def test_no_style_loads_anything(source: str) -> None:
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


def test_the_file_is_written_whole(result: AuditResult, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(dataclasses.replace(result, targets=result.targets[:1]), path)
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


def plain_strings(value: Any, field: str = "") -> Any:
    """Every string that a file may hold replaced; what the report reads as a keyword stays."""
    if isinstance(value, dict):
        return {key: plain_strings(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_strings(item) for item in value]
    return ATTACK if isinstance(value, str) and field not in ("format", "outcome", "criterion") else value


@pytest.fixture(scope="module")
def inversions() -> InversionPanel:
    images = np.random.default_rng(0).random((2, 3, 5, 5))
    return InversionPanel("gradients of leaky", images, images, numbers={"originals": {"SSIM": [0.75, 0.5]}})


def test_what_layers_give_away_stands_in_a_table(model_audit: ModelAudit) -> None:
    share = Figure(0.75, 0.349, 0.968)
    found = Reconstruction("leaky", "features.3", 8, share, 0.005, 31.25, 16.5, 13.75, 0.5, 0.0025, 1.0)
    reader = Reader(render_report(model_audit.result, audit=dataclasses.replace(model_audit, reconstructions=(found,))))
    text = " ".join(reader.text.split())
    assert "leaky features.3 75.0% (34.9% to 96.8%) of 8 0.5% 31.2 16.5 13.8 0.50 0.0025" in text


@pytest.fixture(scope="module")
def audited(model_audit: ModelAudit, inversions: InversionPanel) -> Reader:
    return Reader(render_report(model_audit.result, audit=model_audit, pictures=[inversions]))


def test_a_model_audit_shows_every_section_with_its_values(audited: Reader, model_audit: ModelAudit) -> None:
    decision, exposed = model_audit.verdicts[0].decisions[0], model_audit.verdicts[0].exposed
    assert exposed is not None
    for part in (
        "For the publisher only",
        "losses of single training records, which training records are exposed and pictures of training records, which",
        "The worst outcome of the 2 models: Above a threshold.",
        "Judged by one attack, the chosen one, which was chosen on held-out",
        "1 passed, 1 failed (near duplicates), 1 could not be made (augmentation: mirrored)",
        "Above a threshold Even the lower limit",
        "Below the thresholds Even the upper limits of what was measured are allowed. A stronger attack may find more.",
        f"TPR at most 0.1 at 0.02 FPR: above. {decision.reason}.",
        "Claimed by the paper ε = 1, δ = 0 Proven ε = 18.76, δ = 0 per parameter Measured the chosen one: AUC",
        'A decision "below" or "above" is wrong with a probability of at most 2.5%.',
        "How much the chosen attack finds",
        "the chosen one on leaky. Above the grey line",
        "Which groups leak",
        "Shown to leak more than guessing: dog (of 4 tested).",
        "▲ leaks",
        "The 20 most exposed of",
        "Record (its index among the members, from 0)",
        f" {exposed.records[0]} {exposed.p_values[0]:.2g} {exposed.records[1]} {exposed.p_values[1]:.2g} ",
        "A record that is not listed is not shown to be safe",
        "✗ failed near duplicates: 3 non-members are nearly the same as a member. Remove them.",
        "? could not be made augmentation: mirrored: not made: too few records.",
        "the chosen one has the highest mean TPR at 1% FPR of 2 attacks on 2 held-out shadow models",
        "it would take about 900 s, and 30 s are left",
        "8 shadow models were trained",
        "12 s of 60 s",
        "8 shadow models (pure noise, the chosen one)",
        "Smallest true leaks that are found",
        "at most 5%",
        "What these statements assume",
        "The others are not to pick from",
        "the chosen one (chosen)",
        "pure noise. To be read like the figures of the chosen attack.",
        "Reconstructed records",
        "gradients of leaky: one column per reconstruction",
        "SSIM 0.75",
        "How to read this report",
        '"Below" is a statement about one attack',
    ):
        assert part in audited.words, part
    # The chosen attack on two models, their groups, the other attack, two of losses, two rows of two pictures.
    assert len(audited.all("img")) == 2 + 2 + 1 + 2 + 4
    assert "void" not in audited.words.split("How to read this report")[0]


def test_attributes_and_models_for_comparison_are_named(model_audit: ModelAudit) -> None:
    compared = dataclasses.replace(model_audit.verdicts[0], outcome="not judged", decisions=())
    changed = dataclasses.replace(
        model_audit, verdicts=(compared, model_audit.verdicts[1]), attributes=("sex", "<age>")
    )
    words = Reader(render_report(changed.result, audit=changed)).words
    assert "The chosen attack within each class and each value of sex and <age>. All groups of one model" in words
    assert "For comparison No threshold is decided for this model" in words
    assert "The worst outcome of" not in words, "one model is judged"


def test_the_order_is_outcome_then_evidence_then_detail(audited: Reader) -> None:
    assert [attributes.get("id") for attributes in audited.all("h2")] == [
        "decision", "warnings", "roc", "groups", "exposed", "checks", "choice", "power", "inversions", "summary",
        "other", "losses", "guarantees", "reading", "how",
    ]  # fmt: skip


def test_a_void_audit_says_so_before_anything_else(model_audit: ModelAudit) -> None:
    guards = (Guard("blind baseline", False, True, "members differ without any model"), *model_audit.guards[1:])
    verdicts = tuple(dataclasses.replace(verdict, outcome="void") for verdict in model_audit.verdicts)
    void = dataclasses.replace(model_audit, guards=guards, verdicts=verdicts)
    words = Reader(render_report(void.result, audit=void)).words
    first = words.removeprefix("What this release gives away ")
    assert first.startswith(
        "This audit is void: its figures do not measure membership. Members differ without any model."
    )
    assert words.count("Measured nothing: the audit is void") == 2
    assert words.count("Not listed: the audit is void.") == 2
    for part in (
        "Which groups leak",
        "▲",
        "Training records can be told",
        "Judged by",
        "which training records are exp",
    ):
        assert part not in words, part
    assert "✗ failed: the audit is void blind baseline" in words


def test_without_shadow_models_the_report_says_what_that_costs(model_audit: ModelAudit) -> None:
    verdicts = tuple(
        dataclasses.replace(verdict, outcome="not asked", decisions=(), exposed=None, subgroups=None)
        for verdict in model_audit.verdicts
    )
    bare = dataclasses.replace(
        model_audit, choice=None, n_shadows=0, guards=(), plan=(), budget=None, verdicts=verdicts
    )
    reader = Reader(render_report(bare.result, audit=bare))
    for part in (
        "No threshold was asked for Nothing was decided",
        "No attack could be chosen beforehand",
        "97.5% confidence each, so that those of all 2 attacks together",
        "with 97.5% confidence, at each false positive rate",
        "No shadow models were trained, because the architecture was not given",
        "No check was made.",
        "By class",
    ):
        assert part in reader.words, part
    for part in ("(chosen)", "not to pick from", "wrong with a probability", "Reconstructed"):
        assert part not in reader.words, part


def test_everything_in_a_model_audit_is_escaped(model_audit: ModelAudit, inversions: InversionPanel) -> None:
    spoilt = ModelAudit.from_dict(plain_strings(model_audit.to_dict()))
    panel = dataclasses.replace(inversions, title=ATTACK, numbers={"originals": {ATTACK: [0.0, 1.0]}})
    source = render_report(spoilt.result, audit=spoilt, pictures=[panel], title=ATTACK)
    assert "<script" not in source
    reader = Reader(source)
    assert not reader.all("script")
    assert reader.text.count(ATTACK) > 60


def test_an_audit_of_other_models_is_refused(model_audit: ModelAudit, result: AuditResult) -> None:
    with pytest.raises(InvalidArgumentError, match=r"own \.result"):
        render_report(result, audit=model_audit)


@pytest.mark.parametrize("page", ["report", "audited"])
def test_tables_have_captions_and_pages_one_heading(page: str, request: pytest.FixtureRequest) -> None:
    reader = request.getfixturevalue(page)
    with_heads = [attributes for attributes in reader.all("table") if attributes.get("class") != "facts"]
    assert len(reader.all("caption")) == len(with_heads) == len(reader.all("thead"))
    assert len(reader.all("h1")) == 1
    assert all(attributes.get("scope") in ("col", "row") for attributes in reader.all("th"))
    assert all(attributes["alt"] for attributes in reader.all("img"))


def scheme_colours(style: str) -> dict[str, dict[str, str]]:
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)", 1)
    found = {"light": dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", light))}
    return found | {"dark": found["light"] | dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", dark.split("* {")[0]))}


def contrast(one: str, two: str) -> float:
    """WCAG 2.2's contrast ratio of two colours #rrggbb."""
    levels = []
    for colour in (one, two):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        levels.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def test_text_can_be_read_in_light_and_in_dark(result: AuditResult) -> None:
    style = importlib.resources.files("privkernels.audit").joinpath("templates", "style.css.j2").read_text()
    colours = scheme_colours(style)
    assert colours["light"]["paper"] != colours["dark"]["paper"]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for scheme, named in colours.items():
        for front, back in (
            ("ink", "paper"), ("ink", "wash"), ("soft", "paper"), ("soft", "wash"), ("note", "wash"),
            *((tone, back) for tone in ("good", "unsure", "alarm") for back in ("paper", f"{tone}-wash")),
        ):  # fmt: skip
            assert contrast(named[front], named[back]) >= 4.5, (scheme, front, back)
    # Every colour of text comes from a scheme; figures keep their white ground.
    assert set(re.findall(r"(?<![-\w])color: ([^;}]+)", style)) <= {
        "var(--ink)", "var(--soft)", "var(--tone)", "var(--tone, inherit)",
    }  # fmt: skip
    assert re.search(r"figure img \{[^}]*background: #fff", style)
    assert "@media print" in style
