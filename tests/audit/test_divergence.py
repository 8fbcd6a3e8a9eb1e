"""Lower bounds on TV and JS: true on known distributions, near them, and seldom above 0 when nothing leaks."""

import json
import math

import numpy as np
import pytest
from scipy import integrate, stats

from privkernels.audit.divergence import (
    DivergenceBound,
    _upper_mean,
    _widest,
    bernoulli_js,
    cross_entropy_bound,
    decision_bound,
)
from privkernels.audit.intervals import clopper_pearson
from privkernels.errors import InvalidArgumentError, NonFiniteValueError, TooFewRecordsError

RUNS = 400
ALLOWED = int(stats.binom.isf(1e-4, RUNS, 0.05))


def normal_divergences(shift):
    """TV and JS (nats) of N(shift, 1) and N(0, 1)."""
    tv = 2 * stats.norm.cdf(shift / 2) - 1

    def density(x):
        p, q = stats.norm.pdf(x, shift), stats.norm.pdf(x)
        return (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q))) / 2

    return tv, integrate.quad(density, -8, shift + 8)[0]


def posterior(scores, shift):
    """The best attacker's probability of membership."""
    return 1 / (1 + np.exp(shift * shift / 2 - shift * scores))


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_both_bounds_stay_below_the_truth_and_come_near_it(shift):
    tv, js = normal_divergences(shift)
    rng, above_tv, above_js, above_entropy = np.random.default_rng(0), 0, 0, 0
    for run in range(100):
        members, nonmembers = rng.normal(shift, 1, 2000), rng.normal(size=2000)
        by_decision = decision_bound(members, nonmembers, seed=run)
        by_entropy = cross_entropy_bound(posterior(members, shift), posterior(nonmembers, shift))
        above_tv += by_decision.tv > tv
        above_js += by_decision.js > js
        above_entropy += by_entropy.js > js
    allowed = stats.binom.isf(1e-4, 100, 0.05)
    assert max(above_tv, above_js, above_entropy) <= allowed
    many = rng.normal(shift, 1, 100_000), rng.normal(size=100_000)
    assert 0.9 * tv < decision_bound(*many).tv < tv
    assert 0.85 * js < cross_entropy_bound(*(posterior(kind, shift) for kind in many)).js < js


def test_the_accuracies_of_the_theory_give_its_divergences():
    """Fano's ln 2 - h(accuracy), for decisions that are as often right about members as about non-members."""
    for accuracy, js in ((0.5902, 0.0164), (0.5341, 0.0023)):
        assert bernoulli_js(accuracy, 1 - accuracy) == pytest.approx(js, abs=5e-5)


def test_the_divergence_of_coins_is_at_least_fanos_bound_and_grows_with_their_distance():
    def fano(tv):
        wrong = (1 - tv) / 2
        return math.log(2) + wrong * math.log(wrong) + (1 - wrong) * math.log(1 - wrong)

    rng = np.random.default_rng(1)
    for _ in range(300):
        b, a = np.sort(rng.random(2) * 0.998 + 0.001)
        assert bernoulli_js(a, b) >= fano(a - b) - 1e-12
        assert bernoulli_js(a, b) <= bernoulli_js((a + 1) / 2, b) + 1e-12
        assert bernoulli_js(a, b) <= bernoulli_js(a, b / 2) + 1e-12
    assert bernoulli_js(0.3, 0.3) == 0
    assert bernoulli_js(1.0, 0.0) == pytest.approx(math.log(2))
    # One member in a hundred exposed for certain.
    assert bernoulli_js(0.01, 0.0) == pytest.approx(0.0035, abs=5e-5)


@pytest.mark.parametrize("step", [None, 1.0])
def test_when_nothing_leaks_few_bounds_are_above_zero(step):
    rng, tv, js = np.random.default_rng(2), 0, 0
    for run in range(RUNS):
        members, nonmembers = rng.normal(size=200), rng.normal(size=200)
        if step is not None:
            members, nonmembers = np.round(members / step) * step, np.round(nonmembers / step) * step
        by_decision = decision_bound(members, nonmembers, seed=run)
        tv += by_decision.tv > 0
        js += by_decision.js > 0
    assert tv <= ALLOWED
    assert js == tv


def test_an_attacker_that_knows_nothing_shows_no_divergence():
    rng, claims = np.random.default_rng(3), 0
    for _ in range(RUNS):
        # Sure of itself half of the time, for no reason.
        claims += cross_entropy_bound(rng.beta(0.3, 0.3, 200), rng.beta(0.3, 0.3, 200)).js > 0
    assert claims == 0


def test_the_upper_mean_covers_and_the_same_test_rejects_the_plain_mean():
    rng, missed, plain = np.random.default_rng(4), 0, 0
    for _ in range(RUNS):
        losses = 3 * (rng.random(60) < 0.1).astype(float)
        missed += _upper_mean(losses, 3.0, 0.05) < 0.3
        plain += losses.mean() < 0.3
    assert missed <= ALLOWED < plain


def test_that_calibration_would_notice_a_threshold_chosen_on_the_judged_records():
    """The same limits, at 80 % so that few runs suffice, on the records that chose the threshold."""
    rng, on_the_same, on_others = np.random.default_rng(5), 0, 0
    for run in range(RUNS):
        members, nonmembers = rng.normal(size=100), rng.normal(size=100)
        threshold, reversed_ = _widest(members, nonmembers)
        rates = [clopper_pearson(int((kind >= threshold).sum()), 100, 0.8) for kind in (members, nonmembers)]
        likelier, other = rates[::-1] if reversed_ else rates
        on_the_same += likelier[0] > other[1]
        on_others += decision_bound(members, nonmembers, 0.8, seed=run).tv > 0
    assert on_others <= stats.binom.isf(1e-4, RUNS, 0.2) < on_the_same


def test_the_direction_is_found():
    rng = np.random.default_rng(6)
    reversed_ = decision_bound(rng.normal(-2, 1, 1000), rng.normal(size=1000))
    assert reversed_.tv > 0.5
    assert reversed_.tv < reversed_.tv_estimate
    assert 0 < reversed_.js < reversed_.js_estimate


def test_clipping_limits_what_is_shown_and_what_it_costs():
    perfect = np.ones(5000), np.zeros(5000)
    for clip in (0.1, 0.01):
        bound = cross_entropy_bound(*perfect, clip=clip)
        assert bound.js < bound.js_estimate == pytest.approx(math.log(2) + math.log(1 - clip))
    few = np.ones(50), np.zeros(50)
    assert cross_entropy_bound(*few, clip=1e-6).js < cross_entropy_bound(*few, clip=0.1).js
    # One wrong and sure answer costs no more than the clipped loss.
    wrong = np.ones(5000), np.concatenate([[1.0], np.zeros(4999)])
    assert cross_entropy_bound(*wrong).js > 0.6


def test_what_a_reader_sees():
    rng = np.random.default_rng(7)
    decided = decision_bound(rng.normal(1, 1, 400), rng.normal(size=400))
    assert str(decided).startswith(f"TV >= {decided.tv:.4g} and JS >= {decided.js:.4g} nats with 95% confidence")
    guessed = cross_entropy_bound(rng.random(400), rng.random(400))
    assert str(guessed).startswith("JS >= 0 nats")
    assert guessed.tv is None
    for each in (decided, guessed):
        assert "Other attacks may find more" in str(each)
        assert DivergenceBound.from_dict(json.loads(json.dumps(each.to_dict()))) == each


def test_bad_input_is_refused():
    scores = np.linspace(0, 1, 50)
    with pytest.raises(TooFewRecordsError, match="20 members"):
        decision_bound(scores[:19], scores)
    with pytest.raises(TooFewRecordsError, match="2 records"):
        cross_entropy_bound(scores[:1], scores)
    for bad in (scores + 0.01, scores - 0.01):
        with pytest.raises(InvalidArgumentError, match=r"\[0, 1\]"):
            cross_entropy_bound(scores, bad)
    for clip in (0.0, 0.5):
        with pytest.raises(InvalidArgumentError, match="clip"):
            cross_entropy_bound(scores, scores, clip=clip)
    with pytest.raises(InvalidArgumentError, match="confidence"):
        decision_bound(scores, scores, 1.0)
    with pytest.raises(NonFiniteValueError):
        decision_bound(scores * np.nan, scores)
