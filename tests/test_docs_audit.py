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


def test_the_table_is_the_benchmarks() -> None:
    root = Path(__file__).parent.parent
    file = root / "benchmarks" / "results" / "attacks.json"
    if not file.exists() and not (root / ".git").exists():
        pytest.skip("a source distribution has no results")
    found: dict[str, dict[tuple[str, int], str]] = {}
    for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
        cell = f"{row['auc']:.3f} / {100 * row['tpr_at_0.01'][0]:.1f} %"
        found.setdefault(row["attack"], {})[row["data"], row["shadows"]] = cell
    for attack, cells in found.items():
        columns = [
            cells.get((data, count)) or (cells.get((data, 0), "") if count == 4 else "")
            for data in ("mixture", "digits")
            for count in (4, 16, 64)
        ]
        assert f"| {attack} | {' | '.join(columns)} |" in PAGE
