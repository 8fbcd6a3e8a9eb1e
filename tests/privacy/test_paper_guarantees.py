"""Every plan and guarantee of the papers' defences, over drawn numbers: valid ones, changed ones and wrong ones."""

import math
from functools import partial
from unittest import mock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from privkernels import privacy
from privkernels.errors import PrivkernelsError
from privkernels.privacy import (
    ActivationPlan,
    AggregationNoise,
    AggregationPlan,
    DpPgcPlan,
    DpPgPlan,
    FunctionalPlan,
    Unit,
    activation_formulae,
    activation_guarantee,
    activations,
    aggregation_guarantee,
    clipped_tensor_sensitivity,
    dp_pg,
    dp_pg_guarantee,
    dp_pgc_guarantee,
    dp_pgp,
    dp_pgp_guarantee,
    functional,
    functional_guarantee,
    mia_pruning_guarantee,
    net_pruning_guarantee,
    plan_member_dp_pgp,
    plan_paper_dp_pg,
    plan_paper_dp_pgp,
    plan_proven_dp_pg,
    plan_scalar_dp_pgp,
    plan_selection,
    secprobe,
    secure_aggregation,
    selection_guarantee,
)
from privkernels.privacy.accounting import Bound
from tests.support.guarantees import DELTAS, NEVER, ODD, Case, check, counts, spread

SOURCES = {"grid_is_public": True, "bandwidth_source": "public", "range_source": "public"}
PGP_SOURCES = {
    "selection_is_public": True, "selection_source": "mask", "range_is_public": True, "range_source": "public",
}  # fmt: skip
EPSILONS = spread(1e-2, 30.0)


def draws_of(overlap, multiplier, num_members, num_parameters, max_tries, delta, unit=Unit.EXAMPLE):
    return DpPgPlan(
        "proven", unit, num_members, num_parameters, 64, 1.0, max_tries, overlap, 0.1, multiplier, delta
    )  # fmt: skip


def aggregate(num_clients, threshold, colluders, client_sigma, sensitivity, dimension, rounds, delta):
    noise = AggregationNoise(
        client_sigma=client_sigma, sensitivity=sensitivity, dimension=dimension, rounds=rounds, delta=delta,
        unit="example",
    )  # fmt: skip
    everyone = range(1, 13)
    return AggregationPlan(
        num_clients=num_clients, threshold=threshold, colluders=colluders, participants=everyone, survivors=everyone,
        noise=noise,
    )  # fmt: skip


DRAWS = {
    "overlap": st.integers(1, 10), "multiplier": spread(1e-3, 40.0), "num_members": counts(20, 500),
    "num_parameters": counts(1, 10**6), "max_tries": st.integers(1, 5), "delta": DELTAS,
}  # fmt: skip
SHAPE = {
    "num_members": counts(2, 500), "num_parameters": counts(1, 10**6), "grid_points": st.integers(2, 4096),
    "max_tries": st.integers(1, 5),
}  # fmt: skip
FUNCTIONAL = {
    "hidden_units": counts(1, 200), "noise_scale": spread(1e-1, 1e4), "num_records": counts(1, 10**6), "delta": DELTAS,
    "epochs": counts(1, 100),
}  # fmt: skip
ACTIVATIONS = {
    "norm": spread(1e-2, 1e2), "noise_std": spread(1e-1, 1e3), "epochs": counts(1, 500), "delta": DELTAS,
    "scalar_sensitivity": spread(1e-2, 1.0),
}  # fmt: skip
SELECTION = {
    "epsilon_round": EPSILONS, "num_records": counts(2, 10**5), "num_participants": st.integers(20, 50),
    "num_selected": st.integers(1, 20), "rounds": counts(1, 200), "delta": DELTAS,
}  # fmt: skip


def functional_case(mode, noise):
    numbers = FUNCTIONAL if mode == "release-once" else FUNCTIONAL | {"batches": counts(1, 100)}
    return Case(
        functional,
        lambda **numbers: FunctionalPlan(mode=mode, noise=noise, **numbers),
        partial(functional_guarantee, features_are_clipped=True, features_source="fixed"),
        numbers,
        grows=("hidden_units", "epochs"),
        shrinks=("noise_scale", "delta"),
    )


def activation_case(layer, **settings_of_case):
    def plan(norm, **numbers):
        sensitivity = clipped_tensor_sensitivity(norm)
        return ActivationPlan(sensitivity=sensitivity, client_layer=layer, **settings_of_case, **numbers)

    return Case(
        activations, plan, activation_guarantee, ACTIVATIONS, grows=("norm", "epochs"), shrinks=("noise_std", "delta")
    )


def selection_case(task, unit):
    return Case(
        secprobe,
        lambda **numbers: plan_selection(task=task, unit=unit, **numbers),
        partial(selection_guarantee, scores_are_clipped=True),
        SELECTION,
        grows=("epsilon_round", "rounds"),
        shrinks=("delta",),
    )


pgp_guarantee = partial(dp_pgp_guarantee, **PGP_SOURCES)


def member_plan(num_members, overlap, multiplier, num_parameters, delta, **numbers):
    draws = draws_of(overlap, multiplier, num_members, num_parameters, 1, delta)
    return plan_member_dp_pgp(
        draws=draws, unit="example", num_members=num_members, overlap=overlap, delta=delta, **numbers
    )


CASES = {
    "dp-pg, draws": Case(
        dp_pg,
        draws_of,
        partial(dp_pg_guarantee, **SOURCES),
        DRAWS,
        grows=("overlap", "multiplier", "num_parameters", "max_tries"),
        shrinks=("num_members", "delta"),
    ),
    "dp-pg, accept loop": Case(
        dp_pg,
        lambda **numbers: draws_of(max_tries=None, **numbers),
        partial(dp_pg_guarantee, **SOURCES),
        {name: values for name, values in DRAWS.items() if name != "max_tries"},
        grows=("overlap", "multiplier", "num_parameters"),
        shrinks=("num_members", "delta"),
    ),
    "dp-pg, paper": Case(
        dp_pg,
        plan_paper_dp_pg,
        partial(dp_pg_guarantee, **SOURCES),
        SHAPE | {"epsilon": EPSILONS, "window_ratio": spread(1e-3, 0.999)},
    ),
    "dp-pgc": Case(
        dp_pg,
        lambda parameter_bits, residual_bits, **numbers: DpPgcPlan(draws_of(**numbers), parameter_bits, residual_bits),
        partial(dp_pgc_guarantee, **SOURCES),
        DRAWS | {"parameter_bits": st.integers(16, 32), "residual_bits": st.integers(0, 16)},
        grows=("overlap", "multiplier", "num_parameters", "max_tries"),
        shrinks=("num_members", "delta"),
    ),
    "dp-pgp, paper": Case(
        dp_pgp,
        lambda **numbers: plan_paper_dp_pgp(draws=None, **numbers),
        pgp_guarantee,
        {
            "cluster_epsilon": EPSILONS, "num_selected": counts(1, 10**6), "cluster_width": spread(1e-3, 10.0),
            "centroid_epsilon": EPSILONS,
        },
    ),
    "dp-pgp, scalar": Case(
        dp_pgp,
        lambda **numbers: plan_scalar_dp_pgp(draws=None, **numbers),
        pgp_guarantee,
        {"epsilon": EPSILONS, "num_selected": counts(1, 10**6), "value_range": spread(1e-3, 10.0)},
        grows=("epsilon",),
    ),
    "dp-pgp, centroid": Case(
        dp_pgp,
        lambda epsilon, **numbers: plan_scalar_dp_pgp(epsilon, draws=None, **numbers),
        pgp_guarantee,
        {
            "epsilon": spread(1.0, 30.0), "num_selected": counts(1, 10**6), "value_range": spread(1e-3, 10.0),
            "residual_bound": spread(1e-3, 1.0), "centroid_epsilon": spread(1e-3, 0.4),
            "assignment_epsilon": spread(1e-3, 0.4),
        },
        grows=("epsilon",),
    ),
    "dp-pgp, member": Case(
        dp_pgp,
        member_plan,
        pgp_guarantee,
        {name: values for name, values in DRAWS.items() if name != "max_tries"}
        | {"num_selected": counts(1, 10**6), "clip_norm": spread(1e-2, 10.0), "noise_std": spread(1e-2, 10.0)},
        grows=("overlap", "multiplier", "num_parameters", "clip_norm"),
        shrinks=("num_members", "noise_std", "delta"),
    ),
    "functional, once": functional_case("release-once", "laplace"),
    "functional, once, gaussian": functional_case("release-once", "gaussian"),
    "functional, per epoch": functional_case("per-epoch", "laplace"),
    "functional, per epoch, gaussian": functional_case("per-epoch", "gaussian"),
    "functional, trained": functional_case("trained", "laplace"),
    "aggregation": Case(
        secure_aggregation,
        aggregate,
        aggregation_guarantee,
        {
            "num_clients": st.integers(12, 20), "threshold": st.integers(11, 12), "colluders": st.integers(0, 10),
            "client_sigma": spread(0.5, 1e3), "sensitivity": spread(1e-1, 1e3), "dimension": counts(1, 10**7),
            "rounds": counts(1, 100), "delta": DELTAS,
        },
        grows=("colluders", "sensitivity", "dimension", "rounds"),
        shrinks=("client_sigma", "delta"),
    ),
    "selection, record": selection_case("regression", "validation record"),
    "selection, score": selection_case("classification", "participant score"),
    "activations, frozen": activation_case("frozen"),
    "activations, once": activation_case("frozen", release_once=True, label_epsilon=0.5),
    "activations, dp-sgd": activation_case("dp-sgd", sgd_noise_multiplier=1.0, analysis="RDP-A"),
    "activations, unnoised": activation_case("unnoised", analysis="DP-A"),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def epsilon_of(guarantee):
    return math.inf if guarantee.proven is None else guarantee.proven.epsilon


@every_case
@settings(max_examples=30)
@given(data=st.data())
def test_valid_numbers_give_a_guarantee_in_order(case, data):
    numbers = data.draw(st.fixed_dictionaries(case.numbers))
    check(case.make(**numbers))


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.grows or case.shrinks],
                         ids=[name for name, case in CASES.items() if case.grows or case.shrinks])  # fmt: skip
@settings(max_examples=40)
@given(data=st.data())
def test_more_noise_costs_no_more_and_more_use_no_less(case, data):
    numbers = data.draw(st.fixed_dictionaries(case.numbers))
    name = data.draw(st.sampled_from(case.grows + case.shrinks))
    other = data.draw(case.numbers[name])
    less, more = sorted((numbers[name], other))
    epsilons = [epsilon_of(case.make(**(numbers | {name: value}))) for value in (less, more)]
    if name in case.shrinks:
        epsilons.reverse()
    # Least epsilons over orders are searched to a part in a million.
    assert epsilons[0] <= epsilons[1] * (1 + 1e-6)


@every_case
@settings(max_examples=10)
@given(data=st.data())
def test_the_claim_does_not_depend_on_the_accountant(case, data):
    plan = case.plan(**data.draw(st.fixed_dictionaries(case.numbers)))
    ours = case.guarantee(plan)
    with mock.patch.object(case.module, "bound_of", return_value=Bound(123.0, 1e-3, "another accountant")):
        theirs = case.guarantee(plan)
    assert theirs.claimed == ours.claimed
    assert (theirs.proven is None) == (ours.proven is None)
    assert theirs.proven is None or theirs.proven.epsilon == 123.0


@every_case
@settings(max_examples=5)
@given(data=st.data())
def test_a_seeded_release_claims_the_same_and_proves_nothing(case, data):
    plan = case.plan(**data.draw(st.fixed_dictionaries(case.numbers)))
    seeded = case.guarantee(plan, reproducible=True)
    check(seeded)
    assert seeded.reproducible
    assert seeded.proven is None
    assert "seed" in seeded.not_proven_because
    assert seeded.claimed == case.guarantee(plan).claimed


def made(make, **numbers):
    """What ``make`` gives, or None where it raises a named error. Any other error is the test's."""
    try:
        return make(**numbers)
    except PrivkernelsError:
        return None


@every_case
@settings(max_examples=2)
@given(data=st.data())
def test_wrong_numbers_raise_named_errors(case, data):
    numbers = data.draw(st.fixed_dictionaries(case.numbers))
    for name in case.numbers:
        for value in NEVER:
            assert made(case.make, **(numbers | {name: value})) is None, f"{name} = {value!r} was accepted"
        for value in ODD:
            guarantee = made(case.make, **(numbers | {name: value}))
            if guarantee is not None:
                check(guarantee)


@settings(max_examples=20)
@given(
    epsilon=EPSILONS,
    delta=DELTAS,
    shape=st.fixed_dictionaries(SHAPE | {"window_ratio": spread(1e-2, 10.0)}),
    unit=st.sampled_from((Unit.PARAMETER, Unit.MEMBER, Unit.EXAMPLE)),
)
def test_a_planned_budget_is_kept(epsilon, delta, shape, unit):
    plan = made(plan_proven_dp_pg, epsilon=epsilon, delta=delta, unit=unit, **shape)
    assume(plan is not None)
    guarantee = dp_pg_guarantee(plan, **SOURCES)
    check(guarantee)
    assert 0.99 * epsilon < guarantee.proven.epsilon <= epsilon
    assert guarantee.proven.delta <= delta


@settings(max_examples=10)
@given(
    budget=st.tuples(spread(0.1, 10.0), spread(1.0, 10.0)),
    shape=st.fixed_dictionaries(SHAPE | {"num_parameters": counts(1, 10**4)}),
    unit=st.sampled_from((Unit.PARAMETER, Unit.MEMBER)),
)
def test_a_larger_budget_and_fewer_parameters_leave_more_for_a_draw(budget, shape, unit):
    epsilon, factor = budget
    numbers = {"delta": 1e-6, "unit": unit, "window_ratio": 1.0} | shape
    plan = plan_proven_dp_pg(epsilon, **numbers)
    larger = plan_proven_dp_pg(epsilon * factor, **numbers)
    more_parameters = plan_proven_dp_pg(epsilon, **(numbers | {"num_parameters": 3 * shape["num_parameters"]}))
    assert more_parameters.epsilon_draw <= plan.epsilon_draw * (1 + 1e-6)
    assert plan.epsilon_draw <= larger.epsilon_draw * (1 + 1e-6)


def test_wrong_budgets_raise_named_errors():
    numbers = {
        "epsilon": 1.0, "delta": 1e-5, "num_members": 10, "num_parameters": 100, "grid_points": 64, "window_ratio": 1.0,
        "overlap": 2, "max_tries": 1,
    }  # fmt: skip
    for name in numbers:
        for value in NEVER:
            assert made(plan_proven_dp_pg, unit="example", **(numbers | {name: value})) is None, f"{name} = {value!r}"
        for value in ODD:
            plan = made(plan_proven_dp_pg, unit="example", **(numbers | {name: value}))
            if plan is not None:
                check(dp_pg_guarantee(plan, **SOURCES))


# What has no guarantee, and the formulae that the plans are made of


@given(kept=st.floats(1e-6, 1.0), claim=st.tuples(EPSILONS, DELTAS), seeded=st.booleans())
def test_pruning_is_in_order_and_proves_nothing(kept, claim, seeded):
    plain = mia_pruning_guarantee(kept=kept, reproducible=seeded)
    claimed = net_pruning_guarantee(kept=kept, claimed_epsilon=claim[0], claimed_delta=claim[1], reproducible=seeded)
    for guarantee in (plain, claimed):
        check(guarantee)
        assert guarantee.proven is None
        assert guarantee.reproducible == seeded
    assert (claimed.claimed.epsilon, claimed.claimed.delta) == claim


FORMULAE = {
    "kde_sensitivity": (privacy.kde_sensitivity, {"num_members": 10, "window_ratio": 1.0}),
    "paper_kde_sensitivity": (privacy.paper_kde_sensitivity, {"num_members": 10}),
    "paper_dp_pgc_epsilon": (
        privacy.paper_dp_pgc_epsilon, {"epsilon": 1.0, "parameter_bits": 32, "residual_bits": 8},
    ),
    "lloyd_sensitivity_l1": (
        partial(dp_pgp.lloyd_sensitivity_l1, relation="replace-one"), {"dimensions": 2, "radius": 1.0}
    ),
    "lloyd_sensitivity_l2": (
        partial(dp_pgp.lloyd_sensitivity_l2, relation="replace-one"), {"dimensions": 2, "radius": 1.0}
    ),
    "coefficient_sensitivity_l1": (privacy.coefficient_sensitivity_l1, {"hidden_units": 3}),
    "class_coefficient_sensitivity_l1": (
        privacy.class_coefficient_sensitivity_l1, {"hidden_units": 3, "num_classes": 2}
    ),
    "paper_coefficient_sensitivity": (privacy.paper_coefficient_sensitivity, {"hidden_units": 3, "num_classes": 2}),
    "isolated_clients": (privacy.isolated_clients, {"num_clients": 5, "colluders": 1, "threshold": 4}),
    "sum_excess": (secure_aggregation.sum_excess, {"client_sigma": 1.0, "num_clients": 3}),
    "score_sensitivity": (partial(privacy.score_sensitivity, "regression"), {"num_records": 10}),
    "regression_term": (privacy.regression_term, {"prediction": 0.5, "target": 0.5}),
    "moving_layer_rho": (
        activations.moving_layer_rho, {"sensitivity": 1.0, "noise_std": 1.0, "batch_size": 8, "steps": 3}
    ),
    "lrn_scalar_sensitivity": (
        privacy.lrn_scalar_sensitivity, {"clamp": 1.0, "alpha": 1.0, "beta": 0.5, "gamma": 2.0}
    ),
    "lrn_tensor_sensitivity": (
        lambda **numbers: privacy.lrn_tensor_sensitivity(**numbers).value,
        {"channels": 3, "height": 2, "width": 2, "clamp": 1.0, "alpha": 1.0, "beta": 0.5, "gamma": 2.0, "window": 5},
    ),
    "clipped_tensor_sensitivity": (lambda norm: clipped_tensor_sensitivity(norm).value, {"norm": 1.0}),
    "dp_a_epsilon": (activation_formulae.dp_a_epsilon, {"noise_std": 1.0, "sensitivity": 1.0, "delta": 1e-5}),
    "zcdp_a_epsilon": (activation_formulae.zcdp_a_epsilon, {"noise_std": 1.0, "sensitivity": 1.0, "delta": 1e-5}),
    "rdp_a_epsilon": (
        activation_formulae.rdp_a_epsilon, {"noise_std": 1.0, "sensitivity": 1.0, "delta": 1e-5, "order": 2.0}
    ),
    "total_variation_bounds": (lambda js: privacy.total_variation_bounds(js)[1], {"js": 0.1}),
    "attack_accuracy_bounds": (lambda js: privacy.attack_accuracy_bounds(js)[1], {"js": 0.1}),
    "jensen_shannon_from_accuracy": (privacy.jensen_shannon_from_accuracy, {"accuracy": 0.7}),
    "private_attack_accuracy": (privacy.private_attack_accuracy, {"epsilon": 1.0, "delta": 0.1}),
}  # fmt: skip


@pytest.mark.parametrize(("function", "numbers"), FORMULAE.values(), ids=FORMULAE)
def test_formulae_refuse_what_is_no_number(function, numbers):
    assert 0 <= function(**numbers) < math.inf
    for name in numbers:
        for value in NEVER:
            assert made(function, **(numbers | {name: value})) is None, f"{name} = {value!r} was accepted"
        for value in ODD:
            result = made(function, **(numbers | {name: value}))
            assert result is None or math.isfinite(result), f"{name} = {value!r} gave {result!r}"
