"""Composition of mixed events: laws it must obey, exact small mechanisms, and what an implementation adds."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy import (
    ApproximateEvent,
    BoundedRangeEvent,
    ConcentratedEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
    compose,
)
from privkernels.privacy.accounting import composed_delta, gaussian_delta, gaussian_epsilon, zcdp_to_epsilon
from privkernels.privacy.accounting.laplace import pure_epsilon
from tests.support import privacy_loss

SIZES = st.floats(-6, 1).map(lambda x: 10**x)
DELTAS = st.floats(-12, -1).map(lambda x: 10**x)
KINDS = [
    (GaussianEvent, "mu"),
    (LaplaceEvent, "epsilon"),
    (BoundedRangeEvent, "eta"),
    (PureEvent, "epsilon"),
    (ConcentratedEvent, "rho"),
]
EVENTS = st.builds(
    lambda kind, size, count: kind[0](**{kind[1]: size}, count=count),
    st.sampled_from(KINDS),
    SIZES,
    st.integers(1, 1000),
)
LISTS = st.lists(EVENTS, min_size=1, max_size=4)
NOT_ABOVE = 1 + 1e-8  # numerical minima over the orders


@given(LISTS, st.integers(1, 5), DELTAS)
def test_counting_and_listing_are_the_same(events, times, delta):
    """k times as many, each listed k times, and a list listed k times: one composition."""
    counted = compose([event.times(times) for event in events], delta)
    listed = compose([event for event in events for _ in range(times)], delta)
    assert counted.epsilon == pytest.approx(listed.epsilon, rel=1e-8)
    assert counted.epsilon == pytest.approx(compose(list(reversed(events)) * times, delta).epsilon, rel=1e-8)
    if counted.epsilon > 0:
        assert counted.epsilon >= compose(events, delta).epsilon / NOT_ABOVE


@given(EVENTS, st.integers(2, 100), DELTAS)
def test_composition_is_never_above_adding_epsilons_and_deltas(event, times, delta):
    one = compose([event], delta / times)
    assert compose([event.times(times)], delta).epsilon <= times * one.epsilon * NOT_ABOVE


@given(LISTS, DELTAS, st.floats(1.001, 10), st.data())
def test_more_costs_more(events, delta, factor, data):
    before = compose(events, delta)
    index = data.draw(st.integers(0, len(events) - 1))
    event = events[index]
    name = next(name for kind, name in KINDS if isinstance(event, kind))
    for larger in (replace(event, **{name: getattr(event, name) * factor}), event.times(2), event.scaled(2)):
        changed = [*events[:index], larger, *events[index + 1 :]]
        assert compose(changed, delta).epsilon >= before.epsilon / NOT_ABOVE
    assert compose([*events, event], delta).epsilon >= before.epsilon / NOT_ABOVE
    assert compose(events, delta / factor).epsilon >= before.epsilon / NOT_ABOVE


@given(LISTS, DELTAS)
def test_delta_at_epsilon_is_the_inverse(events, delta):
    bound = compose(events, delta)
    back = composed_delta(events, bound.epsilon)
    assert back.epsilon == bound.epsilon
    assert back.delta <= delta * (1 + 1e-6)
    if 1e-6 < bound.epsilon < 1e4 and bound.delta > 0 and "one" not in bound.accountant:
        assert composed_delta(events, bound.epsilon * 0.999).delta > delta * 0.9


@given(LISTS, DELTAS)
def test_never_above_any_single_argument(events, delta):
    bound = compose(events, delta)
    assert 0 <= bound.epsilon < math.inf
    assert bound.delta in (0.0, delta)
    pure = [e.count * getattr(e, "epsilon", getattr(e, "eta", math.inf)) for e in events]
    assert bound.epsilon <= math.fsum(pure) * (1 + 1e-15)
    squares = {GaussianEvent: 0.5, LaplaceEvent: 0.5, PureEvent: 0.5, BoundedRangeEvent: 0.125}
    rho = math.fsum(
        e.count * (e.rho if isinstance(e, ConcentratedEvent) else squares[type(e)] * _size(e) ** 2) for e in events
    )
    assert bound.epsilon <= zcdp_to_epsilon(rho, delta) * NOT_ABOVE


def _size(event):
    return getattr(event, next(name for kind, name in KINDS if isinstance(event, kind)))


@given(st.lists(st.tuples(SIZES, st.integers(1, 1000)), min_size=1, max_size=4), DELTAS)
def test_gaussians_compose_exactly(noise, delta):
    events = [GaussianEvent(mu=mu, count=count) for mu, count in noise]
    mu = math.sqrt(sum(mu**2 * count for mu, count in noise))
    assert compose(events, delta).epsilon == pytest.approx(gaussian_epsilon(mu, delta), rel=1e-9)


def test_composition_covers_exact_exponential_mechanisms():
    """k draws of a two-point mechanism at the edge of its range, enumerated exactly."""
    eta, count, delta = 0.8, 10, 1e-3
    worst, half_range = 0.0, 0.0
    bound = compose([BoundedRangeEvent(eta=eta, count=count)], delta)
    half = compose([BoundedRangeEvent(eta=eta / 2, count=count)], delta)
    for t in np.linspace(0.01, 0.79, 79):
        top = privacy_loss.two_point(eta, t)[0][0]
        losses = count * t - eta * np.arange(count + 1)
        weights = np.array([math.comb(count, i) * top ** (count - i) * (1 - top) ** i for i in range(count + 1)])
        assert weights.sum() == pytest.approx(1)
        worst = max(worst, float(weights @ np.maximum(0, 1 - np.exp(bound.epsilon - losses))))
        half_range = max(half_range, float(weights @ np.maximum(0, 1 - np.exp(half.epsilon - losses))))
    assert 0.1 * delta < worst <= delta
    assert half_range > delta, "a bound for half the range must be rejected"


@pytest.mark.parametrize("numerical", [False, True])
def test_mixed_composition_covers_exact_products(numerical):
    """Randomised response, a bounded-range draw and discrete Laplace noise together, enumerated."""
    response = np.array([math.exp(0.5), 1]) / (1 + math.exp(0.5))
    noise = [privacy_loss.discrete_laplace(2.0, center, 80) for center in (0, 1)]
    events = [PureEvent(epsilon=0.5, count=2), BoundedRangeEvent(eta=0.7), PureEvent(epsilon=0.5)]
    for t in (0.1, 0.35, 0.6):
        pairs = [(response, response[::-1])] * 2 + [privacy_loss.two_point(0.7, t), (noise[0], noise[1])]
        p, q = privacy_loss.product(pairs)
        for epsilon in (0.0, 0.5, 1.0, 1.8):
            bound = composed_delta(events, epsilon, numerical=numerical).delta
            assert privacy_loss.hockey_stick(p, q, epsilon) <= bound
            assert privacy_loss.hockey_stick(q, p, epsilon) <= bound


@pytest.mark.parametrize("name", ["Gaussian and Laplace", "Laplace", "randomised response"])
def test_numerical_composition_is_above_quadrature_and_below_the_orders(name):
    z = np.linspace(-30, 32, 3_001)
    gauss = [np.exp(-((z - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0, 1.0)]
    laplace = [np.exp(-np.abs(z - m)) / 2 for m in (0, 1.0)]
    if name == "Gaussian and Laplace":
        events, first, second = [GaussianEvent(mu=1.0), LaplaceEvent(epsilon=1.0)], gauss, laplace
    elif name == "Laplace":
        events, first, second = [LaplaceEvent(epsilon=1.0, count=2)], laplace, laplace
    else:
        events = [PureEvent(epsilon=1.0, count=12)]
    for epsilon in (0.5, 1.5):
        if name == "randomised response":
            k, top = np.arange(13), 1 / (1 + math.exp(-1))
            weights = np.array([math.comb(12, int(i)) * top ** (12 - i) * (1 - top) ** i for i in k])
            truth = float(weights @ np.maximum(0, 1 - np.exp(epsilon - (12 - 2 * k))))
        else:
            density = np.outer(first[0], second[0]) - math.exp(epsilon) * np.outer(first[1], second[1])
            truth = float(np.trapezoid(np.trapezoid(np.maximum(density, 0), z), z))
        numerical = composed_delta(events, epsilon, numerical=True)
        assert numerical.accountant == "privacy loss distributions"
        assert truth * (1 - 1e-4) <= numerical.delta <= truth * 1.002
        assert numerical.delta < composed_delta(events, epsilon).delta


def test_numerical_composition_wins_for_few_operations_and_is_opt_in():
    events = [LaplaceEvent(epsilon=1.0, count=4), GaussianEvent(mu=0.5)]
    fast, slow = compose(events, 1e-5), compose(events, 1e-5, numerical=True)
    assert "Rényi" in fast.accountant
    assert slow.accountant == "privacy loss distributions"
    assert 0.7 * fast.epsilon < slow.epsilon < fast.epsilon
    mixed = [*events, ConcentratedEvent(rho=1e-4), ApproximateEvent(epsilon=0.01, delta=1e-7)]
    assert slow.epsilon < compose(mixed, 1e-5, numerical=True).epsilon < compose(mixed, 1e-5).epsilon
    # Below what the Fourier transform may lose, no number is taken from it.
    assert compose(events, 1e-12, numerical=True) == compose(events, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_stable_for_ten_million_tiny_operations(kind):
    for count, size, delta in itertools.product((1, 10**7), (1e-9, 1e-6, 1e-3), (1e-15, 1e-5, 0.3)):
        bound = compose([kind[0](**{kind[1]: size}, count=count)], delta)
        assert 0 <= bound.epsilon < math.inf
    ten_million = compose([BoundedRangeEvent(eta=1e-6, count=10**7)], 1e-5)
    assert ten_million.epsilon == pytest.approx(zcdp_to_epsilon(10**7 * 1e-12 / 8, 1e-5), rel=1e-6)


def test_very_large_parameters_give_a_large_epsilon_and_no_warning():
    for kind, name in KINDS:
        bound = compose([kind(**{name: 1e5}, count=1000)], 1e-6)
        assert 1e4 < bound.epsilon < math.inf


def test_nothing_costs_nothing():
    assert compose([], 1e-5).epsilon == 0
    assert composed_delta([], 0.0).delta == 0
    for kind, name in KINDS:
        bound = compose([kind(**{name: 0.0}, count=5)], 1e-5)
        assert (bound.epsilon, bound.delta) == (0, 0)
    for relation in Relation:
        never = SampledGaussianEvent(noise_multiplier=1.0, rate=0.0, relation=relation)
        assert compose([never], 1e-5, numerical=True).epsilon == 0
        assert composed_delta([never], 0.0).delta == 0


@given(LISTS, DELTAS, st.floats(-14, -2).map(lambda x: 10**x))
def test_total_variation_is_paid_for_in_delta(events, delta, variation):
    """What is returned holds: the ideal events' delta at that epsilon, with what the implementation adds, is within."""
    real = [replace(event, total_variation=variation) for event in events]
    bound = compose(real, delta)
    extra = (1 + math.exp(min(bound.epsilon, 700))) * variation * sum(event.count for event in events)
    assert min(1.0, composed_delta(events, bound.epsilon).delta + extra) <= bound.delta * (1 + 1e-6)
    assert composed_delta(real, bound.epsilon).delta <= bound.delta * (1 + 1e-6)
    assert (bound.delta <= delta) or "exceed" in bound.accountant
    assert bound.epsilon >= compose(events, delta).epsilon / NOT_ABOVE


@pytest.mark.parametrize("variation", [1e-12, 1e-10, 1e-9])
def test_all_of_delta_is_used_around_a_total_variation(variation):
    ideal = [BoundedRangeEvent(eta=0.1, count=1000)]
    bound = compose([replace(ideal[0], total_variation=variation)], 1e-2)
    assert bound.delta == 1e-2
    spent = composed_delta(ideal, bound.epsilon).delta + (1 + math.exp(bound.epsilon)) * 1000 * variation
    assert spent == pytest.approx(1e-2, rel=1e-4)


@given(DELTAS, st.floats(-16, -4).map(lambda x: 10**x), st.floats(1.01, 10))
def test_more_total_variation_costs_more(delta, variation, factor):
    event = BoundedRangeEvent(eta=0.1, count=100, total_variation=variation)
    less, more = compose([event], delta), compose([replace(event, total_variation=variation * factor)], delta)
    assert more.epsilon >= less.epsilon * (1 - 1e-6) or more.delta > less.delta
    assert more.delta >= less.delta or less.delta > delta or more.delta == 0


def test_total_variation_at_a_given_epsilon():
    ideal = BoundedRangeEvent(eta=0.1, count=1000)
    real = replace(ideal, total_variation=1e-9)
    added = composed_delta([real], 2.0).delta - composed_delta([ideal], 2.0).delta
    assert added == pytest.approx((1 + math.exp(2)) * 1e-6, rel=1e-6)


def test_zcdp_beside_what_has_a_pair_only_is_paid_for_from_the_same_delta():
    """A tenth of delta turns zCDP into a pure pair; the rest is left for the pairs."""
    unseen = SampledGaussianEvent(noise_multiplier=1e3, rate=1e-6, relation="replace-one")
    events = [unseen, ConcentratedEvent(rho=0.5)]
    pair = zcdp_to_epsilon(0.5, 0.01)
    bound = compose(events, 0.1)
    assert bound.epsilon == pytest.approx(pure_epsilon(pair, 0.09), rel=1e-4)
    assert bound.epsilon >= pure_epsilon(pair, 0.09) * (1 - 1e-9)
    assert bound.epsilon > gaussian_epsilon(1.0, 0.1)  # a mechanism of that rho
    assert composed_delta(events, 3.0).delta >= gaussian_delta(1.0, 3.0)


def test_delta_that_cannot_be_met_is_told():
    bound = compose([BoundedRangeEvent(eta=1.0, count=8, total_variation=1e-6)], 1e-6)
    assert 1e-6 < bound.delta < 1
    assert "exceed what was asked for" in bound.accountant
    assert compose([GaussianEvent(mu=1.0, total_variation=0.5)], 1e-6).delta == 1.0
    # Where pure epsilon alone meets it, that is the answer.
    assert compose([PureEvent(epsilon=0.1, total_variation=4e-7)], 1e-6).delta <= 1e-6


def test_approximate_events_add_their_deltas():
    event = ApproximateEvent(epsilon=0.1, delta=1e-8)
    assert compose([event], 1e-6).delta == 1e-6
    exact = compose([event.times(10)], 1e-7)
    assert exact.epsilon == pytest.approx(1.0)
    assert exact.delta == pytest.approx(1e-7)
    many = compose([event.times(1000)], 1e-4)
    assert many.epsilon < 20
    assert many.delta == 1e-4
    over = compose([event.times(1000)], 1e-6)
    assert over.delta > 1e-5
    assert "exceed" in over.accountant
    p = np.array([1e-8, (1 - 1e-8) / (1 + math.exp(-0.1)), (1 - 1e-8) / (1 + math.exp(0.1)), 0])
    leak = privacy_loss.hockey_stick(p, p[::-1], 0.05)
    assert composed_delta([event], 0.05).delta >= leak
    assert composed_delta([event], 0.05).delta == pytest.approx(leak, rel=1e-4)


def test_relations_are_not_mixed_up():
    added = GaussianEvent(mu=0.25, relation="add-or-remove-one")
    replaced = GaussianEvent(mu=0.25)
    assert compose([added], 1e-6).epsilon == pytest.approx(compose([replaced], 1e-6).epsilon)
    both = compose([added, replaced], 1e-6).epsilon
    assert both == pytest.approx(gaussian_epsilon(0.25 * math.sqrt(5), 1e-6))
    order = compose([replaced, added], 1e-6).epsilon
    assert order == pytest.approx(both)
    sampled = SampledGaussianEvent(noise_multiplier=4.0, rate=1.0)
    swapped = compose([sampled, BoundedRangeEvent(eta=1e-9)], 1e-6)
    assert swapped.epsilon >= gaussian_epsilon(0.5, 1e-6) * (1 - 1e-9)  # 2.254, not 1.061
    assert swapped.epsilon == pytest.approx(2.254, abs=5e-3)
    alone = compose([sampled], 1e-6, numerical=True)
    assert alone.epsilon == pytest.approx(gaussian_epsilon(0.25, 1e-6), abs=2e-3)
    assert alone.epsilon <= compose([sampled], 1e-6).epsilon
    assert sampled.relation is Relation.ADD_OR_REMOVE_ONE


@pytest.mark.parametrize("wrong", [None, 1, "gaussian", Event()])
def test_only_events_are_composed(wrong):
    with pytest.raises(InvalidArgumentError, match="events"):
        compose([wrong], 1e-5)


@pytest.mark.parametrize("wrong", [0, 1, -1, math.nan, math.inf, None, True])
def test_bad_budgets_are_refused(wrong):
    with pytest.raises(InvalidBudgetError, match="delta"):
        compose([PureEvent(epsilon=1.0)], wrong)
    if wrong not in (0, 1) or wrong is True:
        with pytest.raises(InvalidBudgetError, match="epsilon"):
            composed_delta([PureEvent(epsilon=1.0)], wrong)


def test_the_smallest_delta_is_answered():
    """Half of it is 0, at which no argument but basic composition gives anything."""
    event = BoundedRangeEvent(eta=0.01, count=1000, total_variation=1e-15)
    bound = compose([event], 5e-324)
    assert bound.delta >= 1000e-15
    assert bound.epsilon <= 10
    assert compose([replace(event, total_variation=0.0)], 5e-324).delta == 5e-324
