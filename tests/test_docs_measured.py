"""docs/measured.md: its tables are what the benchmarks wrote, and its sentences agree with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.papers import publishing_views as views
from benchmarks.papers.standard_benchmarks import PUBLISHED, table

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


def studies(benchmark: str) -> dict[str, dict[str, Any]]:
    """What a benchmark wrote, by data set; a source distribution has no results."""
    file = ROOT / "benchmarks" / "results" / f"{benchmark}.json"
    if not file.exists() and not (ROOT / ".git").exists():
        pytest.skip("a source distribution has no results")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {study["dataset"]: study for study in found["studies"]}


def test_the_tables_of_attacks_are_the_benchmarks() -> None:
    found = studies("standard_benchmarks")
    for study in found.values():
        assert "\n".join(table(study)) in PAGE
        assert not study["quick"]
    assert len(re.findall(r"^\| loss threshold \|", PAGE, flags=re.MULTILINE)) == len(found)


def test_the_networks_are_the_benchmarks() -> None:
    for name, study in studies("standard_benchmarks").items():
        accuracies = (f"{100 * study[key]['mean']:.1f} %" for key in ("train_accuracy", "test_accuracy"))
        cells = [name, f"{study['pool']}", str(study["training"]["epochs"]), *accuracies]
        seconds = study["training_cpu_seconds"]
        cells.append("-" if seconds is None else f"{seconds:.0f}")
        assert f"| {' | '.join(cells)} |" in PAGE


def test_the_published_figures_are_the_drivers() -> None:
    for row in PUBLISHED:
        assert f"| {row['attack']} | {row['models']} | {row['figures']} | {row['network']} | {row['source']} |" in PAGE


def test_the_tables_of_publications_are_the_benchmarks() -> None:
    found = studies("model_publishing")
    for study in found.values():
        for view in (views.figure8, views.figure9, views.table2, views.three_numbers):
            assert "\n".join(view(study)) in PAGE, (study["dataset"], view.__name__)
    assert len(re.findall(r"^\| unprotected member \|", PAGE, flags=re.MULTILINE)) == 4 * len(found)
    for picture in re.findall(r"\]\((images/.*?)\)", PAGE):
        assert (ROOT / "docs" / picture).stat().st_size > 10_000


def limits(rows: list[dict[str, Any]], attack: str) -> views.Limits:
    found = views.mean(rows, attack, "accuracy")
    assert found is not None
    return found


def test_the_sentences_about_publications_are_true() -> None:
    releases = dict(views.releases(studies("model_publishing")["cifar-10"]))
    mnist = dict(views.releases(studies("model_publishing")["mnist"]))
    paper = {rows[0]["epsilon"]: rows for name, rows in releases.items() if "paper mode" in name}
    proven = {rows[0]["epsilon"]: rows for name, rows in releases.items() if "proven mode" in name}
    attacks = (views.BLACK_BOX, *views.WHITE_BOX)
    for rows in (releases[views.UNPROTECTED], paper[0.1], paper[1.0], paper[10.0]):
        accuracy = limits(rows, views.BLACK_BOX)
        assert f"{100 * accuracy[0]:.1f} % {views._interval(accuracy)}" in WORDS
    classes = [views.mean_of_class(rows, views.BLACK_BOX, label) for rows in paper.values() for label in range(10)]
    assert f"No class falls below {100 * min(figure[0] for figure in classes if figure):.1f} %" in WORDS
    for epsilon, allowed in ((0.1, "52.5 %"), (1.0, "73.1 %")):
        bound = views.accuracy_allowed(epsilon)
        assert f"{100 * bound:.1f} %" == allowed
        assert allowed in WORDS
        # "each with its whole interval"
        assert all(limits(paper[epsilon], attack)[1] > bound for attack in attacks)
    for epsilon in (1.0, 10.0, 1e4):  # "every attack guesses, and so does the network"
        for attack in attacks:
            _, low, high = limits(proven[epsilon], attack)
            assert low < 0.5 < high
        assert all(abs(row["test_accuracy"] - 0.1) < 0.03 for row in proven[epsilon])
    for attack in attacks:  # "all three exceed the first", "all three begin to find members"
        assert limits(mnist["DP-PG, paper mode, ε = 0.1"], attack)[1] > views.accuracy_allowed(0.1)
        for found in (releases, mnist):
            assert limits(found["DP-PG, proven mode, ε = 1e+06"], attack)[1] > 0.5
    for found in (releases, mnist):  # "overlap everywhere"
        for rows in found.values():
            black, white = limits(rows, views.BLACK_BOX), limits(rows, "general-wb")
            assert max(black[1], white[1]) < min(black[2], white[2])


def test_the_sentences_about_attacks_are_true() -> None:
    found = studies("standard_benchmarks")

    def strongest(name: str, count: int) -> str:
        areas = {row["auc"]["mean"]: row["attack"] for row in found[name]["rows"] if row["shadows"] == count}
        return areas[max(areas)]

    most = {name: max(row["shadows"] for row in study["rows"]) for name, study in found.items()}
    assert {name: strongest(name, count) for name, count in most.items()} == {
        "location-30": "LiRA online", "mnist": "LiRA online", "cifar-10": "LiRA online", "adult": "RMIA online",
    }  # fmt: skip
    assert {name: strongest(name, 4) for name in found} == {
        "location-30": "LiRA online", "mnist": "LiRA imputed", "cifar-10": "RMIA online", "adult": "RMIA online",
    }  # fmt: skip
    for name, study in found.items():
        rows = {(row["attack"], row["shadows"]): row for row in study["rows"]}
        assert rows["loss threshold", 0]["tpr_at_1_percent"]["mean"] < 0.03
        few, many = (rows["LiRA online", count]["tpr_at_0.1_percent"]["mean"] for count in (16, 64))
        assert few < many
        for count in {4, most[name]}:
            online, imputed = (rows[f"LiRA {mode}", count]["auc"]["mean"] for mode in ("online", "imputed"))
            assert imputed > online - 0.03


def test_the_readme_quotes_the_page() -> None:
    table = PAGE[PAGE.index("| cifar-10 | claimed ε [allows]") :].split("\n\n")[0]
    rows = {line.split(" | ")[0]: line.split(" | ") for line in table.splitlines() if line.startswith("| ")}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("unprotected member", "DP-PG, paper mode, ε = 0.1", "DP-PG, paper mode, ε = 1"):
        accuracy, _, interval = rows[f"| {name}"][3].partition(" ")
        assert f"{accuracy} % {interval}" in readme
