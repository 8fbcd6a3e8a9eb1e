"""Events: what they refuse, group privacy, relations, and JSON."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import CorruptFileError, InvalidArgumentError
from privkernels.privacy import (
    ApproximateEvent,
    BoundedRangeEvent,
    ConcentratedEvent,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
)
from privkernels.privacy.events import event_from_dict

numbers = st.floats(0, 100)
common = {
    "count": st.integers(1, 10**9),
    "total_variation": st.floats(0, 1),
    "relation": st.sampled_from(Relation),
}
events = st.one_of(
    st.builds(GaussianEvent, mu=numbers, **common),
    st.builds(LaplaceEvent, epsilon=numbers, **common),
    st.builds(BoundedRangeEvent, eta=numbers, **common),
    st.builds(PureEvent, epsilon=numbers, **common),
    st.builds(ConcentratedEvent, rho=numbers, **common),
    st.builds(ApproximateEvent, epsilon=numbers, delta=st.floats(0, 1), **common),
    st.builds(SampledGaussianEvent, noise_multiplier=st.floats(0.01, 100), rate=st.floats(0, 1), **common),
)


@given(events)
def test_json_round_trip(event):
    again = event_from_dict(json.loads(json.dumps(event.to_dict(), allow_nan=False)))
    assert again == event
    assert type(again) is type(event)


@given(events, st.integers(1, 1000))
def test_times_multiplies_the_count_alone(event, count):
    assert event.times(count).to_dict() == event.to_dict() | {"count": event.count * count}


def test_group_privacy():
    assert GaussianEvent(mu=0.5).scaled(3).mu == 1.5
    assert LaplaceEvent(epsilon=0.5).scaled(3).epsilon == 1.5
    assert BoundedRangeEvent(eta=0.5, count=7).scaled(3) == BoundedRangeEvent(eta=1.5, count=7)
    assert PureEvent(epsilon=0.5).scaled(3).epsilon == 1.5
    assert ConcentratedEvent(rho=0.5).scaled(3).rho == 4.5
    grown = ApproximateEvent(epsilon=0.5, delta=1e-6).scaled(3)
    assert grown.epsilon == 1.5
    assert grown.delta == pytest.approx(1e-6 * (1 + math.exp(0.5) + math.exp(1.0)))
    assert ApproximateEvent(epsilon=500.0, delta=1e-6).scaled(3).delta == 1


def test_the_group_of_approximate_dp_is_attained_by_the_worst_chain():
    """Three inputs in a row, each (eps, delta)-DP to the next, the far ends as far apart as stated."""
    epsilon, delta = 0.3, 0.01
    p = [0.1]
    for _ in range(2):
        p.append(math.exp(epsilon) * p[-1] + delta)
    group = ApproximateEvent(epsilon=epsilon, delta=delta).scaled(2)
    assert p[2] == pytest.approx(math.exp(group.epsilon) * p[0] + group.delta)


def test_total_variation_grows_with_the_group():
    assert GaussianEvent(mu=0.5, total_variation=1e-9).scaled(3).total_variation == pytest.approx(3e-9)
    assert GaussianEvent(mu=0.5, total_variation=0.5).scaled(3).total_variation == 1
    assert ApproximateEvent(epsilon=0.5, delta=0.0, total_variation=1e-9).scaled(3).total_variation == pytest.approx(
        3e-9
    )


def test_a_replacement_is_a_removal_and_an_addition():
    event = LaplaceEvent(epsilon=1.0, relation=Relation.ADD_OR_REMOVE_ONE)
    assert event.replaced() == LaplaceEvent(epsilon=2.0)
    assert LaplaceEvent(epsilon=1.0).replaced() == LaplaceEvent(epsilon=1.0)
    sampled = SampledGaussianEvent(noise_multiplier=1.0, rate=0.1)
    assert sampled.relation is Relation.ADD_OR_REMOVE_ONE
    assert sampled.replaced().noise_multiplier == 1.0
    assert sampled.replaced().relation is Relation.REPLACE_ONE


def test_the_group_of_a_sampled_gaussian_is_refused():
    event = SampledGaussianEvent(noise_multiplier=1.0, rate=0.1)
    assert event.scaled(1) == event
    with pytest.raises(InvalidArgumentError, match="clipping norm"):
        event.scaled(2)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, True, "1", None])
def test_bad_numbers(value):
    for make in (
        lambda x: GaussianEvent(mu=x),
        lambda x: LaplaceEvent(epsilon=x),
        lambda x: BoundedRangeEvent(eta=x),
        lambda x: PureEvent(epsilon=x),
        lambda x: ConcentratedEvent(rho=x),
        lambda x: ApproximateEvent(epsilon=x, delta=0.0),
        lambda x: ApproximateEvent(epsilon=0.0, delta=x),
        lambda x: SampledGaussianEvent(noise_multiplier=x, rate=0.1),
        lambda x: SampledGaussianEvent(noise_multiplier=1.0, rate=x),
    ):
        with pytest.raises(InvalidArgumentError, match="must be finite"):
            make(value)


def test_bad_counts_distances_and_groups():
    for count in (0, -1, 1.5, True, 2**63):
        with pytest.raises(InvalidArgumentError, match="count"):
            PureEvent(epsilon=1.0, count=count)
    for tv in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidArgumentError, match="total variation"):
            PureEvent(epsilon=1.0, total_variation=tv)
    for factor in (0, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="group"):
            PureEvent(epsilon=1.0).scaled(factor)
    with pytest.raises(InvalidArgumentError, match="no noise"):
        SampledGaussianEvent(noise_multiplier=0.0, rate=0.1)
    with pytest.raises(InvalidArgumentError, match="replace-one"):
        PureEvent(epsilon=1.0, relation="cousins")


@pytest.mark.parametrize(
    "value", [{}, {"kind": "galaxy"}, {"kind": "pure"}, {"kind": "pure", "epsilon": -1}, {"kind": "pure", "x": 1}, 3]
)
def test_damaged_events_are_named(value):
    with pytest.raises(CorruptFileError, match="not an event"):
        event_from_dict(value)
