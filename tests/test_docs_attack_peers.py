"""docs/attack_peers.md: its tables are the benchmark's, and what it says in words holds in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import attack_peers

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "attack_peers.md").read_text(encoding="utf-8")
TABLES = re.findall(r"\n\| --- .*\n((?:\|.*\n)+)", PAGE)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What the benchmark wrote; a source distribution has no results."""
    file = ROOT / "benchmarks" / "results" / "attack_peers.json"
    if not file.exists() and not (ROOT / ".git").exists():
        pytest.skip("a source distribution has no results")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_the_tables_are_the_benchmarks(results: dict[str, Any]) -> None:
    rows = results["rows"]
    expected = [
        [attack_peers.line(row) for row in rows],
        [way for row in rows for way in attack_peers.explanations(row)],
        [attack_peers.attribute_line(row) for row in results["attribute"]],
    ]
    assert [table.splitlines() for table in TABLES] == expected


def test_the_versions_and_sizes_are_the_benchmarks(results: dict[str, Any]) -> None:
    for library, version in results["libraries"].items():
        assert f"{library} {version}" in PAGE
    assert f"{results['targets']} targets" in PAGE
    assert f"{results['shadows']} shadow models" in PAGE


def test_every_exact_formula_ranks_as_the_peer(results: dict[str, Any]) -> None:
    """All but the two that the page calls otherwise: HopSkipJump's points, and ART's network."""
    for row in results["rows"]:
        if row["explained"] and row["theirs"]["what"] != "nn" and "boundary" not in row["attack"]:
            assert row["explained"][-1]["apart"] < 1e-9


def test_no_peer_is_above_ours_beyond_its_interval(results: dict[str, Any]) -> None:
    assert all(row["difference"]["high"] >= 0.0 for row in results["rows"])
