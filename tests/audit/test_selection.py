"""An attack chosen on held-out shadow models needs no correction; one chosen on the target does."""

import json

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.intervals import auc
from privkernels.audit.selection import AttackChoice, choose_attack
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError, TooFewRecordsError

ATTACKS = 8


def scores(rng, shift=0.0, n=100):
    return rng.normal(shift, 1, n), rng.normal(size=n)


def test_the_best_on_average_is_chosen():
    rng = np.random.default_rng(0)
    results = {name: [scores(rng, shift, 500) for _ in range(3)] for name, shift in (("a", 0), ("b", 2), ("c", 1))}
    choice = choose_attack(results, "auc")
    assert choice.name == "b"
    assert [row.name for row in choice.table] == ["b", "c", "a"]
    assert choice.table[1].values == tuple(auc(*pair).value for pair in results["c"])
    assert choice.table[1].mean == pytest.approx(np.mean(choice.table[1].values))
    assert "chosen among 3 attacks by its mean auc" in str(choice)
    assert "3 held-out shadow models" in str(choice)
    assert AttackChoice.from_dict(json.loads(json.dumps(choice.to_dict()))) == choice


def test_the_criterion_decides():
    rng = np.random.default_rng(1)
    few_exposed = np.concatenate([rng.normal(size=1900), rng.normal(9, 1, 100)]), rng.normal(size=2000)
    results = {"few": [few_exposed], "all": [scores(rng, 0.4, 2000)]}
    assert choose_attack(results, "auc").name == "all"
    assert choose_attack(results, "tpr@0.01").name == "few"
    assert choose_attack(results, "tpr@0.01").table[0].mean == pytest.approx(0.055, abs=0.02)


def test_ties_go_to_the_first_name_whatever_the_order():
    pair = (np.arange(50.0), np.arange(50.0))
    for names in (("b", "a", "c"), ("c", "b", "a")):
        assert choose_attack({name: [pair] for name in names}, "auc").name == "a"
    # The same figures in another order have the same mean.
    shadows = [scores(np.random.default_rng(i), i / 10) for i in range(7)]
    assert choose_attack({"b": shadows, "a": shadows[::-1]}, "auc").name == "a"


def test_the_chosen_attacks_interval_covers_and_the_best_on_the_target_does_not():
    """Null scores, eight attacks, 150 audits: at most 5 % misses, tested with error 1e-4."""
    rng, runs, missed, missed_on_target, flattered = np.random.default_rng(2), 150, 0, 0, []
    for _ in range(runs):
        shadows = {str(i): [scores(rng)] for i in range(ATTACKS)}
        target = {str(i): scores(rng) for i in range(ATTACKS)}
        figure = auc(*target[choose_attack(shadows, "auc").name])
        missed += not figure.low <= 0.5 <= figure.high
        best = auc(*target[choose_attack({name: [pair] for name, pair in target.items()}, "auc").name])
        missed_on_target += not best.low <= 0.5 <= best.high
        flattered.append(best.value)
    allowed = stats.binom.isf(1e-4, runs, 0.05)
    assert missed <= allowed < missed_on_target
    assert np.mean(flattered) > 0.54


def test_bad_input_is_refused():
    pair = (np.arange(100.0), np.arange(100.0))
    for empty in ({}, {"a": []}, {"a": [pair], "b": []}):
        with pytest.raises(EmptyDataError, match="held-out"):
            choose_attack(empty, "auc")
    with pytest.raises(InvalidArgumentError, match="same held-out shadow models"):
        choose_attack({"a": [pair], "b": [pair, pair]}, "auc")
    for bad in ("AUC", "tpr", "tpr@", "tpr@0", "tpr@1", "fpr@0.1", "tpr@x"):
        with pytest.raises(InvalidArgumentError, match="criterion"):
            choose_attack({"a": [pair]}, bad)
    with pytest.raises(TooFewRecordsError, match=r"a on a held-out shadow model.*5000 non-members are needed"):
        choose_attack({"a": [pair]})
    with pytest.raises(NonFiniteValueError):
        choose_attack({"a": [(pair[0] * np.nan, pair[1])]}, "auc")
