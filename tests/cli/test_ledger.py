"""privkernels ledger, and publish --ledger, as a user types them."""

import json

from privkernels.privacy.ledger import Ledger
from privkernels.publishing import Release
from tests.support.commands import fails, run


def test_publish_with_a_ledger_and_a_budget(members, tmp_path):
    ledger = tmp_path / "ledger"
    assert run("ledger", "budget", ledger, "--data", "digits", "--epsilon", 1.2).returncode == 0
    publish = ("publish", members, "--epsilon", 1, "--ledger", ledger, "--out")
    assert run(*publish, tmp_path / "a").returncode == 0
    assert Release.load(tmp_path / "a").guarantee.implementation["ledger_operations"] == 1
    line = fails(*publish, tmp_path / "b")
    assert "budget of epsilon 1.2" in line
    assert not (tmp_path / "b").exists()
    shown = run("ledger", "show", ledger, "--operations")
    assert shown.returncode == 0, shown.stderr
    for words in ("digits", "example", "member", "1.2, 1e-05", "dp-pg/", "Spent, at delta = 1e-05"):
        assert words in shown.stdout
    assert "already" in fails("ledger", "budget", ledger, "--data", "digits", "--epsilon", 3)
    assert run("ledger", "budget", ledger, "--data", "digits", "--epsilon", 3, "--change").returncode == 0
    assert run(*publish, tmp_path / "b").returncode == 0
    second = Release.load(tmp_path / "b").guarantee
    assert 1 < second.proven.epsilon < 2
    assert second.proven.epsilon == Ledger(ledger).total("digits", "example", 1e-5).epsilon


def test_operations_without_a_bound_are_said(members, tmp_path):
    ledger = tmp_path / "ledger"
    done = run("publish", members, "--mode", "paper", "--epsilon", 1, "--ledger", ledger, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    shown = run("ledger", "show", ledger)
    assert "1 operations have no bound at all" in shown.stdout
    assert "no bound" in shown.stdout


def test_errors_are_one_line(tmp_path):
    assert "does not exist" in fails("ledger", "show", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert "unit" in fails("ledger", "budget", tmp_path / "l", "--data", "a", "--epsilon", 1, "--unit", "person")
    assert "epsilon" in fails("ledger", "budget", tmp_path / "l", "--data", "a", "--epsilon", 0)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"a": 1}))
    assert "no ledger" in fails("ledger", "show", other)
