"""docs/audit.md: its examples run, and it names every attack."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from privkernels import attacks
from privkernels.attacks import Attack
from privkernels.audit import Canaries

PAGE = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")


def test_the_examples_run_and_find_what_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(example, "docs/audit.md", "exec"), names)
    assert names["metrics"].auc.low > 0.5
    groups = names["found"].verdicts[0].subgroups.groups
    assert [group.name for group in groups[10:]] == ["ink = little", "ink = much"]
    assert all(group.p_value is not None for group in groups[10:])
    canaries = Canaries.load(tmp_path / "canaries.safetensors")
    assert len(names["train_on"]) == 600 + int(canaries.included.sum())


def test_every_attack_is_in_the_table() -> None:
    kinds = (getattr(attacks, name) for name in attacks.__all__)
    bases = {"Attack", "PublicDataAttack", "ShadowAttack"}
    found = [k.__name__ for k in kinds if isinstance(k, type) and issubclass(k, Attack) and k.__name__ not in bases]
    assert len(found) >= 13
    assert [name for name in found if f"`{name}`" not in PAGE] == []


def results(name: str) -> Any:
    root = Path(__file__).parent.parent
    file = root / "benchmarks" / "results" / f"{name}.json"
    if not file.exists() and not (root / ".git").exists():
        pytest.skip("a source distribution has no results")
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_table_of_false_claims_is_the_benchmarks() -> None:
    sizes = results("null_calibration")["null"]
    assert [block["size"] for block in sizes] == [200, 1000, 5000]
    assert all(block["passed"] for block in sizes)
    for rows in zip(*(block["calibrations"] for block in sizes), strict=True):
        cells = " | ".join(f"{100 * row['share']:.1f} %" for row in rows)
        assert f"| {rows[0]['statement']} | {cells} |" in PAGE


def test_the_tables_of_costs_are_the_benchmarks() -> None:
    ratios = []
    for row in results("shadows")["rows"]:
        ratios.append(row["ratio"])
        assert (
            f"| {row['setting'].split(' (')[0]} | {row['together_s']:.1f} s | {row['one_by_one_s']:.1f} s "
            f"| {row['ratio']:.1f} |"
        ) in PAGE
    assert f"{min(ratios):.0f} to {max(ratios):.0f} times as fast" in PAGE
    for row in results("audit_cost")["rows"]:
        setting = row["setting"]
        assert (
            f"| {setting['data']}, {setting['spec']} | {setting['members']:,} + {setting['members']:,} "
            f"| {setting['budget'] or 'none'} | {row['shadow_models']} | {row['attacks']} of 15 "
            f"| {row['seconds']:.0f} s | {row['peak_mib']:.0f} MiB |"
        ) in PAGE


def test_the_table_is_the_benchmarks() -> None:
    found: dict[str, dict[tuple[str, int], str]] = {}
    for row in results("attacks")["rows"]:
        cell = f"{row['auc']:.3f} / {100 * row['tpr_at_0.01'][0]:.1f} %"
        found.setdefault(row["attack"], {})[row["data"], row["shadows"]] = cell
    for attack, cells in found.items():
        columns = [
            cells.get((data, count)) or (cells.get((data, 0), "") if count == 4 else "")
            for data in ("mixture", "digits")
            for count in (4, 16, 64)
        ]
        assert f"| {attack} | {' | '.join(columns)} |" in PAGE
