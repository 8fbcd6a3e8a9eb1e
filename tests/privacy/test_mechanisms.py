"""The mechanisms: what they cost, what their draws show of it, and that a planted bug shows."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels import ops
from privkernels.audit import audit_mechanism
from privkernels.errors import (
    BudgetExceededError,
    EmptyDataError,
    InvalidArgumentError,
    InvalidBudgetError,
    KeyReusedError,
    NonFiniteValueError,
)
from privkernels.ops import kde_em, kde_peak
from privkernels.privacy import (
    BoundedRangeEvent,
    ConcentratedEvent,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    Unit,
    compose,
    discrete_gaussian,
    discrete_laplace,
    exponential_mechanism,
    gaussian_delta,
    paper_kde_sensitivity,
    permute_and_flip,
    randomized_response,
)
from privkernels.privacy.ledger import Account, Ledger
from privkernels.randomness import Key

KEY = Key.from_seed(11)
DRAWS = 40_000
_labels = itertools.count()


def fresh_label():
    """A label for each call: the half of an audit that judges must not draw the noise of the half that chooses."""
    return str(next(_labels))


def selection(mechanism, epsilon, scores, other, *, sensitivity=1.0):
    """Independent draws on two neighbouring rows of scores, as audit_mechanism wants them."""

    def draw(second, count):
        rows = torch.tensor(other if second else scores).expand(count, -1)
        label = fresh_label()
        return mechanism(rows, epsilon=epsilon, sensitivity=sensitivity, key=KEY, label=label).value.numpy()

    return draw


def noise(mechanism, value, other, **arguments):
    def draw(second, count):
        x = torch.full((count,), other if second else value)
        return mechanism(x, key=KEY, label=fresh_label(), coordinates_affected=1, **arguments).value.numpy()

    return draw


# Scores of neighbouring data sets on which the mechanisms spend nearly all of their epsilon.
WORST = ([0.0] * 30 + [1.0], [1.0] * 30 + [0.0])
PAIR = ([0.0, 0.0], [1.0, -1.0])


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
@pytest.mark.parametrize("pair", [WORST, PAIR], ids=["worst", "pair"])
@pytest.mark.parametrize("mechanism", [exponential_mechanism, permute_and_flip])
def test_selection_keeps_its_epsilon(mechanism, pair, epsilon):
    result = audit_mechanism(selection(mechanism, epsilon, *pair), DRAWS)
    assert result.epsilon_low <= epsilon


def test_the_exponential_mechanism_spends_its_epsilon():
    result = audit_mechanism(selection(exponential_mechanism, 2.0, *WORST), 4 * DRAWS)
    assert 1.5 < result.epsilon_low <= 2


def test_permute_and_flip_spends_its_epsilon_and_more_range_than_that():
    first = audit_mechanism(selection(permute_and_flip, 2.0, *PAIR), DRAWS)
    assert first.epsilon_low < 2
    rows = [torch.tensor(side).expand(DRAWS, -1) for side in PAIR]
    p, q = (
        permute_and_flip(row, epsilon=2.0, sensitivity=1.0, key=KEY, label=str(i)).value.float().mean()
        for i, row in enumerate(rows)
    )
    losses = [math.log(p / q), math.log((1 - p) / (1 - q))]
    assert max(losses) - min(losses) > 2.4, "an exponential mechanism's would be 2"


@pytest.mark.parametrize("mechanism", [exponential_mechanism, permute_and_flip])
@pytest.mark.parametrize("bug", ["half the noise", "the sensitivity of another unit"])
def test_a_bug_in_a_selection_shows(mechanism, bug):
    """Claimed: epsilon 1. Drawn: with twice the multiplier, or with a tenth of the true sensitivity."""
    wrong = {"half the noise": (2.0, 1.0), "the sensitivity of another unit": (1.0, 0.1)}[bug]
    result = audit_mechanism(selection(mechanism, wrong[0], *WORST, sensitivity=wrong[1]), DRAWS)
    assert result.epsilon_low > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_laplace_noise_spends_its_epsilon_and_no_more(epsilon, dtype):
    def draw(second, count):
        x = torch.full((count,), float(second), dtype=dtype)
        return discrete_laplace(
            x, epsilon=epsilon, sensitivity=1.0, key=KEY, label=fresh_label(), coordinates_affected=1
        ).value.float().numpy()  # fmt: skip

    result = audit_mechanism(draw, DRAWS)
    assert 0.7 * epsilon < result.epsilon_low <= epsilon


def test_counts_on_the_grid_cost_no_rounding():
    draw = noise(discrete_laplace, 10.0, 11.0, epsilon=1.0, sensitivity=1.0, granularity=1.0, on_grid=True)
    result = audit_mechanism(draw, DRAWS)
    assert 0.9 < result.epsilon_low <= 1
    event = discrete_laplace(
        torch.zeros(5), epsilon=1.0, sensitivity=1.0, granularity=1.0, on_grid=True, key=KEY, label="x"
    ).event
    assert isinstance(event, PureEvent), "on so coarse a grid, reading it as continuous noise would cost more noise"
    assert 1 - 1e-9 < event.epsilon <= 1


def test_half_the_laplace_noise_shows():
    assert audit_mechanism(noise(discrete_laplace, 0.0, 1.0, epsilon=2.0, sensitivity=1.0), DRAWS).epsilon_low > 1


@pytest.mark.parametrize("delta", [1e-3, 1e-2])
def test_gaussian_noise_keeps_its_exact_epsilon(delta):
    mu = 1.0
    draw = noise(discrete_gaussian, 0.0, 1.0, noise_std=1.0, sensitivity=1.0)
    epsilon = compose([GaussianEvent(mu=mu)], delta).epsilon
    result = audit_mechanism(draw, 4 * DRAWS, delta=delta)
    assert 0.6 * epsilon < result.epsilon_low <= epsilon * 1.01


def test_half_the_gaussian_noise_shows():
    epsilon = compose([GaussianEvent(mu=1.0)], 1e-3).epsilon
    draw = noise(discrete_gaussian, 0.0, 1.0, noise_std=0.5, sensitivity=1.0)
    assert audit_mechanism(draw, DRAWS, delta=1e-3).epsilon_low > epsilon


@pytest.mark.parametrize("categories", [2, 10])
def test_randomised_response_spends_its_epsilon_and_no_more(categories):
    def draw(second, count):
        values = torch.full((count,), int(second))
        return randomized_response(
            values, categories=categories, epsilon=1.0, key=KEY, label=fresh_label()
        ).value.numpy()  # fmt: skip

    result = audit_mechanism(draw, DRAWS)
    assert 0.9 < result.epsilon_low <= 1


# --- the density estimate of DP-PG: 9 members beyond the grid, the tenth replaced ------------------
MEMBERS = 10


def kde_draws(sensitivity, *, private_grid=False):
    def draw(second, count):
        theta = torch.full((MEMBERS, count), 5.0)
        theta[0] = -1.0 if second else 1.0
        lo, hi = (float(theta.min()), float(theta.max())) if private_grid else (-1.0, 1.0)
        multiplier = 1.0 / (2 * sensitivity)
        label = fresh_label()
        return kde_em(
            theta, lo=lo, hi=hi, bandwidth=0.1, window_ratio=0.99, grid_points=9, multiplier=multiplier, key=KEY,
            label=label,
        )[0].numpy()  # fmt: skip

    return draw


def test_dp_pgs_draw_keeps_its_epsilon():
    result = audit_mechanism(kde_draws(kde_peak(0.99) / MEMBERS), DRAWS)
    assert 0.4 < result.epsilon_low <= 1


def test_the_papers_sensitivity_shows():
    assert audit_mechanism(kde_draws(paper_kde_sensitivity(MEMBERS)), DRAWS).epsilon_low > 1


def test_a_grid_taken_from_the_data_shows():
    result = audit_mechanism(kde_draws(kde_peak(0.99) / MEMBERS, private_grid=True), DRAWS)
    assert result.epsilon_low > 5, "the value alone tells the data sets apart"


# --- what is charged -------------------------------------------------------------------------
def test_events_of_selections():
    scores = torch.zeros(7, 20)
    common = {"epsilon": 0.1, "sensitivity": 1.0, "key": KEY, "label": "x"}
    event = exponential_mechanism(scores, k=3, **common).event
    assert isinstance(event, BoundedRangeEvent)
    assert event.count == 21
    assert event.eta == 0.1
    one = permute_and_flip(scores, segments_affected=1, relation=Relation.ADD_OR_REMOVE_ONE, **common).event
    assert isinstance(one, LaplaceEvent)
    assert (one.count, one.relation) == (1, Relation.ADD_OR_REMOVE_ONE)
    assert 0 < one.total_variation < 1e-15


def test_scores_that_move_together_or_alone_get_twice_the_multiplier():
    common = {"epsilon": 1.0, "sensitivity": 2.0, "key": KEY, "label": "x"}
    kinds = [{}, {"changes": "one-candidate"}]
    kinds.append({"changes": "one-direction", "relation": Relation.ADD_OR_REMOVE_ONE})
    multipliers = [exponential_mechanism(torch.zeros(3), **kind, **common).terms["multiplier"] for kind in kinds]
    assert multipliers == pytest.approx([0.25, 0.5, 0.5])
    assert multipliers[1] < 0.5, "what rounding costs comes out of epsilon"


def test_counts_of_replaced_records_do_not_move_in_one_direction():
    """One record replaced: one count falls, another grows. With the larger multiplier the loss would have range 2."""
    common = {"epsilon": 1.0, "sensitivity": 1.0, "key": KEY, "label": "x", "changes": "one-direction"}
    for relation in ({}, {"relation": Relation.REPLACE_ONE}):
        with pytest.raises(InvalidArgumentError, match="ADD_OR_REMOVE_ONE"):
            exponential_mechanism(torch.tensor([10.0, 10.0]), **relation, **common)
    scores = [torch.tensor([10.0, 10.0], dtype=torch.float64), torch.tensor([9.0, 11.0], dtype=torch.float64)]
    p, q = (ops.em_select_probabilities_reference(s, 1.0) for s in scores)
    losses = (p / q).log()
    assert float(losses.max() - losses.min()) == pytest.approx(2.0)


@pytest.mark.parametrize("wrong", [{"acount": None}, {"monotone": True}, {"k_": 2}])
def test_a_misspelt_argument_is_refused(wrong):
    arguments = {"epsilon": 1.0, "sensitivity": 1.0, "key": KEY, "label": "x"}
    with pytest.raises(InvalidArgumentError, match="there is no argument"):
        exponential_mechanism(torch.zeros(3), **arguments, **wrong)
    del arguments["sensitivity"]
    with pytest.raises(InvalidArgumentError, match="sensitivity must be given"):
        permute_and_flip(torch.zeros(3), **arguments)
    with pytest.raises(InvalidArgumentError, match="changes is one of"):
        permute_and_flip(torch.zeros(3), sensitivity=1.0, **arguments, changes="some")


def test_rounding_to_the_grid_is_in_the_sensitivity():
    x = torch.zeros(1000)
    common = {"epsilon": 1.0, "sensitivity": 1.0, "key": KEY, "label": "x"}
    drawn = discrete_laplace(x, granularity=0.25, **common)
    assert drawn.terms["sensitivity_in_steps"] == 4 + 1000
    assert drawn.terms["scale"] == pytest.approx(1004 * 0.25, rel=1e-6)
    fine = discrete_laplace(x, **common)
    assert fine.terms["scale"] == pytest.approx(1.0, rel=2e-3)
    assert fine.event.epsilon == pytest.approx(1.0)
    assert isinstance(fine.event, LaplaceEvent)
    assert fine.event.epsilon <= 1
    gaussian = discrete_gaussian(x, noise_std=2.0, sensitivity=1.0, key=KEY, label="x")
    assert isinstance(gaussian.event, GaussianEvent)
    assert 0.5 < gaussian.event.mu < 0.5 * 1.002
    assert 0 < gaussian.event.total_variation < 1e-9


def test_a_coarse_gaussian_grid_is_charged_as_zcdp():
    drawn = discrete_gaussian(
        torch.zeros(3), noise_std=0.6, sensitivity=1.0, granularity=1.0, on_grid=True, key=KEY, label="x"
    )
    assert isinstance(drawn.event, ConcentratedEvent)
    assert drawn.event.rho == pytest.approx(1 / (2 * 0.36))


def test_the_noise_has_the_size_that_is_charged():
    x = torch.zeros(200_000)
    gaussian = discrete_gaussian(x, noise_std=3.0, sensitivity=1.0, key=KEY, label="g").value
    assert float(gaussian.std()) == pytest.approx(3.0, rel=0.01)
    laplace = discrete_laplace(x, epsilon=0.5, sensitivity=1.0, coordinates_affected=1, key=KEY, label="l")
    assert float(laplace.value.abs().mean()) == pytest.approx(2.0, rel=0.01)


def test_an_exact_gaussian_event_promises_no_more_than_the_sum_over_the_law():
    """One coordinate on the grid: the event's delta is not below that of the discrete law, summed exactly."""
    steps, shift = 64.0, 64
    drawn = discrete_gaussian(
        torch.zeros(1), noise_std=1.0, sensitivity=1.0, granularity=1 / 64, on_grid=True, key=KEY, label="x"
    )
    k = np.arange(-1000, 1065)
    p, q = (np.exp(-((k - c) ** 2) / (2 * steps**2)) for c in (0, shift))
    for epsilon in (0.0, 0.5, 1.0, 3.0):
        exact = np.maximum(p / p.sum() - math.exp(epsilon) * q / q.sum(), 0).sum()
        assert exact <= gaussian_delta(drawn.event.mu, epsilon) * (1 + 1e-9) + drawn.event.total_variation


def test_randomised_response_charges_what_is_implemented():
    event = randomized_response(torch.zeros(5, dtype=torch.int64), categories=7, epsilon=0.3, key=KEY, label="x").event
    assert isinstance(event, PureEvent)
    assert 0.3 * (1 - 1e-9) < event.epsilon <= 0.3


def test_an_account_is_charged_before_anything_is_drawn(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger")
    ledger.set_budget("votes", "example", 1.0, 1e-6)
    account, key = Account(ledger, "votes", Unit.EXAMPLE), Key.generate()
    common = {"epsilon": 0.4, "sensitivity": 1.0, "account": account, "key": key}
    exponential_mechanism(torch.zeros(5), label="a", **common)
    permute_and_flip(torch.zeros(5), label="b", **common)
    called = []
    for name in ("em_select", "noise_add"):
        monkeypatch.setattr(ops, name, lambda *args, name=name, **rest: called.append(name))
    with pytest.raises(BudgetExceededError):
        exponential_mechanism(torch.zeros(5), label="c", **common)
    with pytest.raises(KeyReusedError):
        discrete_laplace(torch.zeros(5), label="a", **(common | {"epsilon": 0.1}))
    with pytest.raises(BudgetExceededError):
        discrete_gaussian(torch.zeros(5), noise_std=1.0, sensitivity=1.0, label="d", account=account, key=key)
    assert called == []
    assert [entry.note for entry in ledger.entries] == ["exponential", "permute-and-flip"]


BAD_SELECTIONS = [
    ({"epsilon": 0.0}, InvalidBudgetError),
    ({"epsilon": math.nan}, InvalidBudgetError),
    ({"sensitivity": 0.0}, InvalidArgumentError),
    ({"sensitivity": math.inf}, InvalidArgumentError),
    ({"k": 0}, InvalidArgumentError),
    ({"k": 5}, InvalidArgumentError),
    ({"segments_affected": 2}, InvalidArgumentError),
]


@pytest.mark.parametrize(("change", "error"), BAD_SELECTIONS, ids=str)
@pytest.mark.parametrize("mechanism", [exponential_mechanism, permute_and_flip])
def test_bad_selections_are_refused_and_not_charged(mechanism, change, error, tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    arguments = {"epsilon": 1.0, "sensitivity": 1.0, "key": KEY, "label": "x"} | change
    with pytest.raises(error):
        mechanism(torch.zeros(4), account=Account(ledger, "a", Unit.EXAMPLE), **arguments)
    assert ledger.entries == ()


def test_tensors_of_a_wrong_kind_are_refused_and_not_charged(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    common = {"key": Key.generate(), "label": "x", "account": Account(ledger, "a", Unit.EXAMPLE)}
    for wrong in (torch.zeros(3, dtype=torch.int32), [0.0, 1.0]):
        calls = (
            lambda x=wrong: exponential_mechanism(x, epsilon=1.0, sensitivity=1.0, **common),
            lambda x=wrong: permute_and_flip(x, epsilon=1.0, sensitivity=1.0, **common),
            lambda x=wrong: discrete_laplace(x, epsilon=1.0, sensitivity=1.0, **common),
            lambda x=wrong: discrete_gaussian(x, noise_std=1.0, sensitivity=1.0, **common),
            lambda x=wrong: randomized_response(x, categories=3, epsilon=1.0, **common),
        )
        for call in calls:
            with pytest.raises(InvalidArgumentError, match="must be a tensor of"):
                call()
    with pytest.raises(InvalidArgumentError, match="offsets must be a tensor of int64"):
        exponential_mechanism(torch.zeros(4), epsilon=1.0, sensitivity=1.0, offsets=[0, 4], **common)
    with pytest.raises(InvalidArgumentError, match="float64"):
        discrete_gaussian(torch.zeros(3, dtype=torch.float64), noise_std=1.0, sensitivity=1.0, **common)
    assert ledger.entries == ()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite(value):
    common = {"key": KEY, "label": "x", "sensitivity": 1.0}
    x = torch.tensor([0.0, value])
    for call in (exponential_mechanism, permute_and_flip, discrete_laplace):
        with pytest.raises(NonFiniteValueError):
            call(x, epsilon=1.0, **common)
    with pytest.raises(NonFiniteValueError):
        discrete_gaussian(x, noise_std=1.0, **common)
    with pytest.raises(NonFiniteValueError):
        discrete_laplace(x, epsilon=1.0, granularity=1.0, on_grid=True, **common)


def test_nothing_to_choose_from():
    for call in (exponential_mechanism, permute_and_flip):
        with pytest.raises((EmptyDataError, InvalidArgumentError)):
            call(torch.zeros(0), epsilon=1.0, sensitivity=1.0, key=KEY, label="x")


def test_bad_noise():
    common = {"key": KEY, "label": "x"}
    x = torch.zeros(4)
    with pytest.raises(InvalidBudgetError):
        discrete_laplace(x, epsilon=-1.0, sensitivity=1.0, **common)
    for bad in ({"sensitivity": 0.0}, {"granularity": 0.3}, {"granularity": -1.0}, {"coordinates_affected": 5}):
        with pytest.raises(InvalidArgumentError):
            discrete_laplace(x, **({"epsilon": 1.0, "sensitivity": 1.0} | common | bad))
        with pytest.raises(InvalidArgumentError):
            discrete_gaussian(x, **({"noise_std": 1.0, "sensitivity": 1.0} | common | bad))
    with pytest.raises(InvalidArgumentError, match="noise_std"):
        discrete_gaussian(x, noise_std=0.0, sensitivity=1.0, **common)
    with pytest.raises(InvalidArgumentError, match="no multiple"):
        discrete_laplace(x + 0.5, epsilon=1.0, sensitivity=1.0, granularity=1.0, on_grid=True, **common)


@given(
    size=st.integers(0, 40),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    epsilon=st.floats(0.01, 20),
    sensitivity=st.floats(1e-3, 1e3),
    affected=st.one_of(st.none(), st.integers(1, 40)),
)
@settings(max_examples=60)
def test_noise_costs_what_was_asked_for_whatever_the_tensor(size, dtype, epsilon, sensitivity, affected):
    affected = None if affected is None else min(affected, max(1, size))
    x = torch.linspace(-3, 3, size).to(dtype)
    common = {"sensitivity": sensitivity, "key": KEY, "label": "x", "coordinates_affected": affected}
    laplace = discrete_laplace(x, epsilon=epsilon, **common)
    gaussian = discrete_gaussian(x, noise_std=sensitivity / epsilon, **common)
    for drawn in (laplace, gaussian):
        assert drawn.value.dtype == dtype
        assert drawn.value.shape == x.shape
        assert bool(drawn.value.isfinite().all())
        assert math.frexp(drawn.terms["granularity"])[0] == 0.5
        assert 0 <= drawn.event.total_variation < 1e-9
    assert 0.99 * epsilon < laplace.event.epsilon <= epsilon
    assert epsilon <= gaussian.event.mu < 1.01 * epsilon


@given(
    rows=st.integers(1, 4),
    size=st.integers(1, 30),
    epsilon=st.floats(1e-3, 50),
    sensitivity=st.floats(1e-3, 1e3),
    data=st.data(),
)
@settings(max_examples=60)
def test_selections_cost_what_was_asked_for_whatever_the_scores(rows, size, epsilon, sensitivity, data):
    k = data.draw(st.one_of(st.none(), st.integers(1, size)))
    values = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=rows * size, max_size=rows * size))
    scores = torch.tensor(values, dtype=torch.float32).reshape(rows, size)
    for mechanism, kind in ((exponential_mechanism, BoundedRangeEvent), (permute_and_flip, LaplaceEvent)):
        drawn = mechanism(scores, epsilon=epsilon, sensitivity=sensitivity, k=k, key=KEY, label="x")
        assert isinstance(drawn.event, kind)
        assert getattr(drawn.event, drawn.event.number) == epsilon
        assert drawn.event.count == rows * (k or 1)
        assert drawn.value.shape == ((rows,) if k is None else (rows, k))
        assert bool(((drawn.value >= 0) & (drawn.value < size)).all())
        if k is not None:
            assert all(len(set(row)) == k for row in drawn.value.tolist()), "drawn without replacement"
