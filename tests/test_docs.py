"""The manual's commands run, its worked numbers are what they print, and its Python works."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from privkernels.privacy import Guarantee, dp_pg_guarantee, plan_proven_dp_pg
from tests.support.commands import run

ROOT = Path(__file__).parent.parent
PRIVACY = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A command has an option or is a whole command; `privkernels account` alone is its name.
COMMANDS = sorted(
    {found for page in PAGES for found in re.findall(r"privkernels account ([a-z][^`\n|]*)", page.read_text("utf-8"))}
)
BLOCKS = re.findall(r"```python\n(.*?)```", PRIVACY, flags=re.DOTALL)


def answer(command: str, *more: str) -> dict:
    done = run("account", *shlex.split(command), *more, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_manual_shows_commands() -> None:
    assert "figure3" in COMMANDS
    assert len(COMMANDS) >= 5
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str) -> None:
    done = run("account", *shlex.split(command))
    assert done.returncode == 0, done.stderr
    assert "proven" in done.stdout


def commands_of_the_unit_table() -> dict[str, str]:
    """The command of each unit's row; a row without one speaks of the draws of the row above."""
    table = PRIVACY.partition("| unit | neighbouring inputs |")[2].partition("\n\n")[0]
    commands, last = {}, ""
    for line in table.splitlines()[2:]:
        last = next(iter(re.findall(r"`privkernels account ([^`]*)`", line)), last)
        commands[line.split("|")[1].strip()] = last
    return commands


@pytest.mark.parametrize(
    ("unit", "words", "more"),
    [
        ("parameter", "costs one parameter ε = ", ()),
        ("member", "the same release costs one member ε = ", ()),
        ("example", "a record that 3 members used ε = ", ()),
        ("validation record", "50 rounds of the paper's draws cost it ε = ", ()),
        ("participant score", "the same draws cost it ε = ", ()),
        ("activation tensor of one example", "--epochs 60`: ε = ", ()),
        ("activation tensor of one example", "with a frozen client layer, ", ("--release-once",)),
    ],
)
def test_the_worked_examples_of_the_units(unit: str, words: str, more: tuple[str, ...]) -> None:
    """What is quoted is what the command proves for that unit, rounded up."""
    quoted = float(re.findall(re.escape(words) + r"([0-9.]+[0-9])", PRIVACY)[0])
    row = next(
        row
        for row in answer(commands_of_the_unit_table()[unit], *more)["rows"]
        if row["about"].startswith(f"one {unit}")
    )
    assert row["proven_epsilon"] <= quoted < 1.2 * row["proven_epsilon"]


def test_the_claim_and_the_tilt_of_the_papers_selection() -> None:
    command = commands_of_the_unit_table()["participant score"]
    found = answer(command)
    assert "not the ε = 1 that is claimed" in PRIVACY
    assert [row["claimed_epsilon"] for row in found["rows"]] == pytest.approx([1, 1])
    tilt = float(re.findall(r"the best participant is ([0-9.]+) times as likely", PRIVACY)[0])
    assert found["inputs"]["tilt"] <= tilt < 1.01 * found["inputs"]["tilt"]


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_proven_dp_pg(
        1.0, delta=1e-5, unit="member", num_members=50, num_parameters=100, grid_points=64, window_ratio=0.99
    )
    guarantee = dp_pg_guarantee(plan, grid_is_public=True, bandwidth_source="public", range_source="public")
    for block in BLOCKS:
        # The first block is about a release that the reader has.
        names = {"release": SimpleNamespace(guarantee=guarantee)} if block.startswith("release.") else {}
        exec(compile(block, "docs/privacy.md", "exec"), names)
    assert isinstance(guarantee, Guarantee)
    assert (tmp_path / "ledger.jsonl").read_text().count("\n") >= 2
    assert "Bound(" in capsys.readouterr().out
