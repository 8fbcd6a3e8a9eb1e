"""The self-test passes here, and fails a library whose statements are not valid."""

import importlib
import json

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.self_test import SelfTest, null_claims, self_test
from privkernels.errors import InvalidArgumentError

# The package's self_test is the function.
module = importlib.import_module("privkernels.audit.self_test")


@pytest.fixture(scope="module")
def result():
    return self_test(40, size=100)


def test_every_statement_passes_and_is_in_the_table(result):
    assert result.passed
    text = str(result)
    assert "Passed: 40 audits" in text
    assert "FAILED" not in text
    names = {row.statement for row in result.calibrations}
    assert len(names) == len(result.calibrations) == 16
    for row in result.calibrations:
        assert row.statement in text
        assert row.runs == 40
        assert row.allowed == pytest.approx(0.05)
        assert row.claims / 40 == row.share <= row.upper
        assert row.upper == pytest.approx(stats.binomtest(row.claims, 40).proportion_ci(0.95).high)
    assert SelfTest.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_the_same_seed_gives_the_same_result_and_progress_is_told():
    seen = []
    first = self_test(3, 5, progress=lambda done, total, what: seen.append((done, total, what)), size=100)
    assert seen == [(1, 3, "self-test"), (2, 3, "self-test"), (3, 3, "self-test")]
    assert first == self_test(3, 5, size=100)
    # A statement that is made with little confidence claims more.
    claims = [sum(row.claims for row in self_test(10, 5, level, size=100).calibrations) for level in (0.95, 0.5)]
    assert claims[0] < claims[1]


def test_an_invalid_statement_fails(monkeypatch):
    """One that claims a leak in every fourth audit, as uncorrected intervals of four attacks do."""

    def claims(rng, size, confidence, *, tied):
        return {"sound": bool(rng.random() < 0.04), "unsound": bool(rng.random() < 0.25)}

    monkeypatch.setattr(module, "null_claims", claims)
    result = self_test(400)
    assert [row.passed for row in result.calibrations] == [True, False]
    assert not result.passed
    assert str(result).count("FAILED") == 2


def test_the_line_between_passing_and_failing_is_the_stated_one(monkeypatch):
    def verdict(claims):
        turns = iter([True] * claims + [False] * (400 - claims))
        monkeypatch.setattr(module, "null_claims", lambda *args, **kwargs: {"one": next(turns)})
        return self_test(400).passed

    last = int(stats.binom.isf(0.01, 400, 0.05))
    assert verdict(last)
    assert not verdict(last + 2)


def test_the_statements_do_claim_a_leak_where_there_is_one(monkeypatch):
    """The members of every audit score higher: without power a calibration means nothing."""

    class Leaking:
        """Draws as a generator, but every second call for scores is shifted: those of members come first."""

        def __init__(self, seed):
            self.rng, self.calls = np.random.default_rng(seed), 0

        def __getattr__(self, name):
            return getattr(self.rng, name)

        def normal(self, size):
            self.calls += 1
            return self.rng.normal(size=size) + 3 * (self.calls % 2 == 0)

    claimed = null_claims(Leaking(0), 200, 0.95, tied=False)
    for statement in (
        "AUC's interval",
        "verdict on four attacks",
        "a leaking subgroup",
        "TV",
        "epsilon of a mechanism",
    ):
        assert claimed[statement], statement


def test_bad_input_is_refused():
    for bad in ({"runs": 0}, {"size": 99}, {"confidence": 1.0}):
        with pytest.raises(InvalidArgumentError):
            self_test(**bad)
