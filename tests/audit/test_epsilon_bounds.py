"""Lower bounds on epsilon: formulas against brute force, false alarms without a leak, and power.

Calibration runs N audits without a leak. A bound whose share of false alarms is at most 5 % fails its test with
probability below 1e-4 (binomial tail); seeds are fixed.
"""

import json
import math

import numpy as np
import pytest
from scipy import optimize, stats

from privkernels.audit.epsilon_bounds import (
    EpsilonBound,
    gaussian_epsilon,
    gaussian_refuted,
    guess_grid,
    one_run_bound,
    one_run_gaussian_bound,
    one_run_p_value,
    runs_bound,
)
from privkernels.errors import InvalidArgumentError, NonFiniteValueError, TooFewRecordsError

ONE_RUN = [one_run_bound, one_run_gaussian_bound]
RUNS = 400
ALLOWED = int(stats.binom.isf(1e-4, RUNS, 0.05))


def coins(rng, m):
    return rng.random(m) < 0.5


# The formulas.


def brute_p_value(epsilon, m, r, v, delta):
    """The theorem, term by term, in exact integers where there are any."""
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    slope = max(sum(mass[max(0, v - i) : v]) / i for i in range(1, m + 1))
    return min(1.0, sum(mass[v:]) + 2 * m * delta * slope)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.04])
def test_the_p_value_is_the_theorems(epsilon, delta):
    for r in (1, 5, 12):
        for v in range(r + 1):
            assert one_run_p_value(epsilon, 12, r, v, delta) == pytest.approx(brute_p_value(epsilon, 12, r, v, delta))


def test_a_p_value_worked_out_by_hand():
    # Two fair guesses, both right: 1/4; below it 1/2 within 1 and 3/4 within 2, so 2 * 2 * 0.1 * max(1/2, 3/8).
    assert one_run_p_value(0.0, 2, 2, 2, 0.1) == pytest.approx(0.25 + 0.4 * 0.5)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.05])
def test_no_mechanism_at_hand_beats_the_p_value(epsilon, delta):
    """Randomised response that reveals its input with probability delta, bit by bit or all at once."""
    m, right = 8, math.exp(epsilon) / (1 + math.exp(epsilon))
    for v in range(m + 1):
        p = one_run_p_value(epsilon, m, m, v, delta)
        assert stats.binom.sf(v - 1, m, delta + (1 - delta) * right) <= p + 1e-12
        assert delta + (1 - delta) * stats.binom.sf(v - 1, m, right) <= p + 1e-12
    # Without the term in delta the bound would be broken by the second one.
    assert delta == 0 or delta + (1 - delta) * right**m > one_run_p_value(epsilon, m, m, m, 0.0)


def test_the_p_value_grows_with_epsilon_as_far_as_delta_is_allowed():
    epsilons = np.linspace(0, 12, 200)
    for delta in (0.0, 1e-3, 1 / 40):
        for r, v in ((20, 20), (20, 14), (10, 9)):
            values = [one_run_p_value(e, 20, r, v, delta) for e in epsilons]
            assert np.all(np.diff(values) > -1e-12)


def most_likely(mu, m, n, c):
    """max P[c or more of n guesses right] under the constraints of mu-GDP: a linear program over tangents of g."""
    columns = n + 1
    right = np.arange(columns)
    rows, limits = [], []
    for k in range(1, columns):
        hits = np.where(right >= k, right, 0) / m
        misses = np.where(right >= k - 1, n - right, 0) / m
        for x in np.concatenate([np.geomspace(1e-9, 0.1, 150), np.linspace(0.1, n / m, 150, endpoint=False)]):
            z = stats.norm.ppf(x)
            value, slope = stats.norm.cdf(z - mu), math.exp(z * mu - mu * mu / 2)
            rows.append(slope * hits - misses)  # misses >= value + slope (hits - x)
            limits.append(slope * x - value)
    answer = optimize.linprog(
        -(right >= c).astype(float), A_ub=np.array(rows), b_ub=limits, A_eq=np.ones((1, columns)), b_eq=[1.0]
    )
    return -answer.fun


@pytest.mark.parametrize(("mu", "m", "n", "c"), [(0.5, 8, 8, 7), (1.0, 8, 8, 8), (1.0, 12, 6, 6), (1.5, 10, 8, 7)])
def test_the_gaussian_refutation_is_the_best_the_constraints_allow(mu, m, n, c):
    level = optimize.brentq(lambda x: gaussian_refuted(mu, m, n, c, x) - 0.5, 1e-9, 0.999, xtol=1e-7)
    # Tangents bound the program from outside, so its optimum is above by what their spacing leaves.
    assert level == pytest.approx(most_likely(mu, m, n, c), rel=2e-3)


def test_the_gaussian_mechanism_itself_is_not_refuted():
    """One coordinate per canary: every guess is right with probability Phi(mu / 2), on its own."""
    for mu in (0.3, 1.0, 2.5):
        for m in (5, 40, 300):
            for c in (m // 2 + 1, round(m * stats.norm.cdf(mu / 2)), m):
                tail = stats.binom.sf(c - 1, m, stats.norm.cdf(mu / 2))
                assert not gaussian_refuted(mu, m, m, c, tail)
    assert gaussian_refuted(0.3, 40, 40, 40, 0.05)
    assert not gaussian_refuted(0.3, 40, 40, 0, 0.05)


def test_gaussian_epsilon_is_the_known_curve():
    for mu in (0.1, 1.0, 5.0):
        for delta in (1e-9, 1e-5, 0.01):
            epsilon = gaussian_epsilon(mu, delta)
            curve = stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu)
            assert curve == pytest.approx(delta, rel=1e-4)
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.3772, abs=1e-4)
    # 2 Phi(mu / 2) - 1 < delta: epsilon = 0 suffices.
    assert gaussian_epsilon(0.02, 0.01) == gaussian_epsilon(0.0, 0.01) == 0


def test_the_grid_depends_on_the_number_of_canaries_alone():
    assert guess_grid(1000) == (10, 17, 28, 46, 77, 129, 215, 359, 599, 1000)
    assert guess_grid(5000)[0] == 25
    assert guess_grid(10) == (10,)
    assert guess_grid(5) == (5,)
    assert guess_grid(12) == (10, 11, 12)


# False alarms.


@pytest.mark.parametrize("bound", ONE_RUN)
@pytest.mark.parametrize(("m", "delta", "step"), [(200, 1e-5, None), (200, 1e-5, 1.0), (1000, 1e-6, None)])
def test_without_a_leak_few_audits_claim_one(bound, m, delta, step):
    rng, claims = np.random.default_rng(m), 0
    for run in range(RUNS):
        scores = rng.normal(size=m)
        scores = scores if step is None else np.round(scores / step) * step
        claims += bound(scores, coins(rng, m), delta, seed=run).epsilon > 0
    assert claims <= ALLOWED


def test_that_calibration_would_notice_a_number_of_guesses_chosen_by_looking():
    """The same p-values at the full error, best of all numbers of guesses: what several tools print."""
    rng, claims = np.random.default_rng(7), 0
    tail = [stats.binom.isf(0.05, r, 0.5) + 1 for r in range(201)]
    for _ in range(RUNS):
        included = coins(rng, 200)
        found, spared = (np.concatenate([[0], np.cumsum(x)]) for x in (included, ~included[::-1]))
        claims += any(found[r - r // 2] + spared[r // 2] >= tail[r] for r in range(10, 201))
    assert claims > 2 * ALLOWED


@pytest.mark.parametrize("bound", ONE_RUN)
@pytest.mark.parametrize("listed", ["before the flips", "by inclusion"])
def test_equal_scores_show_nothing_in_whatever_order_they_are_listed(bound, listed):
    rng, claims = np.random.default_rng(3), 0
    for run in range(RUNS):
        included = coins(rng, 200)
        if listed == "by inclusion":
            included = np.sort(included)[::-1]
        claims += bound(np.zeros(200), included, 1e-5, seed=run).epsilon > 0
    assert claims <= ALLOWED


def test_without_a_leak_few_audits_of_many_runs_claim_one():
    rng = np.random.default_rng(4)
    claims = sum(runs_bound(rng.normal(size=60), rng.normal(size=60), 0.0).epsilon > 0 for _ in range(RUNS))
    assert claims <= ALLOWED


# Power, and validity where the truth is above 0.


def response(rng, m, epsilon, spread=0.0):
    """Randomised response for each canary: the included bit, kept with probability e^eps / (1 + e^eps)."""
    included = coins(rng, m)
    told = included ^ (rng.random(m) >= math.exp(epsilon) / (1 + math.exp(epsilon)))
    return told.astype(np.float64), included


@pytest.mark.parametrize(("epsilon", "least"), [(0.5, 0.25), (1.0, 0.75), (2.0, 1.6)])
def test_randomised_response_is_never_overstated_and_mostly_found(epsilon, least):
    """At or below the truth in 95 % of runs, and above ``least`` in 80 %."""
    rng, runs = np.random.default_rng(5), 120
    bounds = [one_run_bound(*response(rng, 1000, epsilon), 1e-5, seed=run).epsilon for run in range(runs)]
    assert sum(bound > epsilon for bound in bounds) <= stats.binom.isf(1e-4, runs, 0.05)
    assert sum(bound >= least for bound in bounds) >= 0.8 * runs


def test_the_gaussian_bound_is_below_a_gaussians_epsilon_and_above_the_general_one():
    rng, runs, over, general = np.random.default_rng(6), 100, 0, []
    truth = gaussian_epsilon(1.0, 1e-5)
    for run in range(runs):
        included = coins(rng, 1000)
        scores = rng.normal(included.astype(float), 1.0)
        bound = one_run_gaussian_bound(scores, included, 1e-5, seed=run)
        over += bound.epsilon > truth
        general.append(bound.epsilon - one_run_bound(scores, included, 1e-5, seed=run).epsilon)
    assert over <= stats.binom.isf(1e-4, runs, 0.05)
    assert np.median(general) > 0.3


def test_runs_show_most_of_a_laplace_mechanisms_epsilon():
    rng, runs = np.random.default_rng(8), 100
    bounds = [
        runs_bound(rng.laplace(1, 1, 2000), rng.laplace(0, 1, 2000), 0.0, seed=run).epsilon for run in range(runs)
    ]
    assert sum(bound > 1.0 for bound in bounds) <= stats.binom.isf(1e-4, runs, 0.05)
    assert sum(bound > 0.5 for bound in bounds) >= 80


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("swapped", [False, True])
def test_runs_find_the_side_and_the_kind_that_tell_most(sign, swapped):
    """One score in five betrays the one kind of run, at one end."""
    rng = np.random.default_rng(10)
    kinds = [rng.random(400) + 9 * (rng.random(400) < 0.2), rng.random(400)]
    kinds = [sign * kind for kind in (kinds[::-1] if swapped else kinds)]
    found = runs_bound(kinds[0], kinds[1], 0.0)
    assert 1 < found.epsilon < found.ceiling


@pytest.mark.parametrize("bound", ONE_RUN)
def test_a_perfect_attack_reaches_the_ceiling_and_delta_costs(bound):
    included = np.arange(1000) % 2 == 0
    perfect = bound(included.astype(float), included, 1e-5)
    assert perfect.epsilon == perfect.ceiling > 5
    assert (perfect.guesses, perfect.correct, perfect.n) == (1000, 1000, 1000)
    assert bound(included.astype(float), included, 1e-4).epsilon < perfect.epsilon
    assert bound(included.astype(float), included, 1e-5, 0.999).epsilon < perfect.epsilon
    assert bound(-included.astype(float), included, 1e-5).epsilon == 0


def test_perfect_runs_reach_the_ceiling():
    found = runs_bound(np.ones(200), np.zeros(300), 0.0)
    assert found.epsilon == found.ceiling > 3
    assert (found.guesses, found.correct, found.n) == (250, 250, 500)
    opposite = runs_bound(np.zeros(200), np.ones(300), 0.0)
    assert opposite.epsilon > 3
    assert opposite.ceiling == found.ceiling


# What a reader sees, and what is refused.


def test_a_gaussian_bound_says_so_wherever_it_goes():
    scores, included = response(np.random.default_rng(9), 500, 2.0)
    bound = one_run_gaussian_bound(scores, included, 1e-5)
    assert "if the mechanism is Gaussian" in str(bound)
    assert bound.to_dict()["condition"] == "if the mechanism is Gaussian"
    assert any("Gaussian" in text for text in bound.assumptions)
    general = one_run_bound(scores, included, 1e-5)
    assert general.condition is None
    assert "Gaussian" not in str(general)
    assert "95% confidence" in str(general)
    assert "coin flip" in str(general)
    for each in (bound, general, runs_bound(scores, scores, 0.0)):
        assert EpsilonBound.from_dict(json.loads(json.dumps(each.to_dict()))) == each


@pytest.mark.parametrize("bound", ONE_RUN)
def test_bad_input_is_refused(bound):
    included = np.arange(100) % 2 == 0
    scores = np.zeros(100)
    with pytest.raises(InvalidArgumentError, match="bool"):
        bound(scores, included.astype(int), 1e-5)
    with pytest.raises(InvalidArgumentError, match="bool"):
        bound(scores, included[:50], 1e-5)
    with pytest.raises(InvalidArgumentError, match="coin flips"):
        bound(scores, np.arange(100) < 5, 1e-5)
    for delta in (-1e-9, 0.006, 1.0, math.nan):
        with pytest.raises(InvalidArgumentError, match="delta"):
            bound(scores, included, delta)
    with pytest.raises(InvalidArgumentError, match="confidence"):
        bound(scores, included, 1e-5, 1.0)
    with pytest.raises(NonFiniteValueError):
        bound(np.full(100, np.nan), included, 1e-5)


def test_too_few_canaries_or_runs_are_refused_with_the_number_needed():
    for few in (1, 4):
        with pytest.raises(TooFewRecordsError, match="at least 5 canaries"):
            one_run_bound(np.zeros(few), np.arange(few) % 2 == 0, 1e-5)
    assert one_run_bound(np.arange(5.0), np.arange(5) > 2, 1e-5).ceiling > 0
    with pytest.raises(TooFewRecordsError, match="smaller delta"):
        one_run_bound(np.zeros(10), np.arange(10) % 2 == 0, 0.05)
    with pytest.raises(TooFewRecordsError, match="at least 12 of each"):
        runs_bound(np.zeros(5), np.zeros(5), 0.0)
    assert runs_bound(np.zeros(12), np.zeros(12), 0.0).ceiling > 0
    with pytest.raises(InvalidArgumentError, match="delta"):
        one_run_gaussian_bound(np.zeros(100), np.arange(100) % 2 == 0, 0.0)
    with pytest.raises(InvalidArgumentError, match="delta"):
        runs_bound(np.zeros(50), np.zeros(50), 1.0)
