"""The stated power, by simulating the very tests that it is stated for."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.epsilon_bounds import one_run_bound, one_run_p_value
from privkernels.audit.metrics import tpr_at_fpr
from privkernels.audit.null_tests import auc_p_value, tpr_p_value
from privkernels.audit.power import MinimumDetectable, detectable_auc, detectable_epsilon, detectable_tpr
from privkernels.errors import InvalidArgumentError, TooFewRecordsError

RUNS = 1500
# Within this of the stated 0.8: 4 standard errors of the share of RUNS.
ERROR = 4 * math.sqrt(0.8 * 0.2 / RUNS)


def area(members, nonmembers):
    wins = np.searchsorted(np.sort(nonmembers), members).sum()
    return wins / (len(members) * len(nonmembers))


@pytest.mark.parametrize(("m", "n", "statements"), [(200, 200, 1), (60, 500, 5)])
def test_an_auc_of_that_size_is_found_with_the_stated_power(m, n, statements):
    least = detectable_auc(m, n, statements=statements)
    shift = math.sqrt(2) * stats.norm.ppf(least.value)
    rng, found, false = np.random.default_rng(0), 0, 0
    for _ in range(RUNS):
        nonmembers = rng.normal(size=n)
        found += auc_p_value(area(rng.normal(shift, 1, m), nonmembers), m, n) <= least.level
        false += auc_p_value(area(rng.normal(size=m), nonmembers), m, n) <= least.level
    assert found / RUNS == pytest.approx(0.8, abs=ERROR + 0.01)  # 0.01: the normal approximation's
    assert false <= stats.binom.isf(1e-4, RUNS, least.level)


def found_share(rng, m, n, rate, level, members):
    allowed, found = math.floor(n * rate), 0
    for _ in range(RUNS):
        threshold = np.sort(rng.random(n))[::-1][allowed]
        found += tpr_p_value(int((members(rng, m) > threshold).sum()), allowed, m, n) <= level
    return found / RUNS


def test_a_tpr_of_that_size_is_found_with_the_stated_power_at_worst_and_more_otherwise():
    """Non-members uniform on [0, 1], so that exceeding t has the rate 1 - t."""
    m, n, rate = 300, 1000, 0.01
    least = detectable_tpr(m, n, rate, statements=4)
    tpr = least.value

    def worst(rng, count):
        """The concave ROC curve that is lowest beside (rate, tpr): straight up to there, nothing gained above it."""
        exposed = rng.random(count) < tpr
        return np.where(exposed, 1 - rate * rng.random(count), -1.0)

    def power_curve(rng, count):
        """TPR = FPR^a through (rate, tpr)."""
        return 1 - rng.random(count) ** (math.log(rate) / math.log(tpr))

    rng = np.random.default_rng(1)
    assert found_share(rng, m, n, rate, least.level, worst) == pytest.approx(0.8, abs=ERROR)
    assert found_share(rng, m, n, rate, least.level, power_curve) > 0.8 - ERROR
    assert found_share(rng, m, n, rate, least.level, lambda rng, count: rng.random(count)) <= 0.0125 + ERROR
    # The threshold is the one of the metrics.
    scores = rng.random(n)
    assert tpr_at_fpr(scores, scores, rate).threshold == np.sort(scores)[::-1][10]


def test_an_epsilon_of_that_size_is_found_with_the_stated_power():
    least = detectable_epsilon(1000, 1e-5)
    right = math.exp(least.value) / (1 + math.exp(least.value))
    correct, level = np.random.default_rng(2).binomial(1000, right, 4000), 0.05 / 10
    counts, times = np.unique(correct, return_counts=True)
    significant = [one_run_p_value(0.0, 1000, 1000, int(v), 1e-5) < level for v in counts]
    assert times[significant].sum() / 4000 == pytest.approx(0.8, abs=0.03)
    # Through the whole bound: an attack that knows which half of its guesses are the better ones.
    rng, runs, claimed = np.random.default_rng(3), 80, 0
    for run in range(runs):
        included = rng.random(1000) < 0.5
        told = included ^ (rng.random(1000) >= right)
        claimed += one_run_bound(told + rng.random(1000) / 2, included, 1e-5, seed=run).epsilon > 0
    # Equal halves must be guessed though the told halves are not equal: a little is lost.
    assert claimed / runs > 0.6


def test_more_records_and_fewer_statements_find_less():
    assert detectable_auc(1000, 1000).value < detectable_auc(100, 100).value
    assert detectable_auc(100, 100).value < detectable_auc(100, 100, statements=5).value
    assert detectable_auc(100, 100).value < detectable_auc(100, 100, power=0.95).value
    assert detectable_tpr(1000, 5000, 0.001).value < detectable_tpr(100, 5000, 0.001).value
    # Few non-members leave the true rate behind a threshold open: that costs.
    assert detectable_tpr(1000, 100_000, 0.001).value < detectable_tpr(1000, 5000, 0.001).value
    assert detectable_epsilon(5000, 1e-6).value < detectable_epsilon(200, 1e-6).value
    assert detectable_epsilon(200, 1e-6).value < detectable_epsilon(200, 5e-4).value


def test_known_values():
    # z_.95 + z_.8 = 2.4865 standard errors of sqrt((m + n + 1) / (12 m n)) above 1/2, nearly.
    assert detectable_auc(5000, 5000).value == pytest.approx(0.5 + 2.4865 * math.sqrt(10001 / 12) / 5000, abs=5e-5)
    # sqrt(m) / 2 standard deviations of right guesses at level 0.005: logit of 1/2 + (2.5758 + 0.8416) / (2 sqrt(m)).
    share = 0.5 + (2.5758 + 0.8416) / (2 * math.sqrt(100_000))
    assert detectable_epsilon(100_000, 0.0).value == pytest.approx(math.log(share / (1 - share)), rel=0.01)


def test_what_no_leak_could_show_is_said():
    few = detectable_tpr(2, 5000, 0.001, statements=10_000_000)
    assert few.value is None
    assert "however high" in str(few)
    assert "80% power is" in str(detectable_auc(100, 100))
    assert "binormal" in str(detectable_auc(100, 100))
    assert "100 canaries" in str(detectable_epsilon(100, 1e-5))
    for each in (few, detectable_auc(100, 100)):
        assert MinimumDetectable.from_dict(json.loads(json.dumps(each.to_dict()))) == each


def test_bad_input_is_refused():
    with pytest.raises(TooFewRecordsError, match="10 members"):
        detectable_auc(9, 100)
    with pytest.raises(TooFewRecordsError, match="5000 non-members"):
        detectable_tpr(100, 4999, 0.001)
    with pytest.raises(TooFewRecordsError, match="at least 5 canaries"):
        detectable_epsilon(4, 1e-5)
    with pytest.raises(InvalidArgumentError, match="false positive rate"):
        detectable_tpr(100, 100, 0.0)
    for bad in ({"power": 1.0}, {"power": 0.0}, {"statements": 0}, {"confidence": 1.0}):
        with pytest.raises(InvalidArgumentError):
            detectable_auc(100, 100, **bad)
