"""Noisy activations: sensitivities by search, the paper's formulae beside the exact epsilon, the whole transcript."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import brentq

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.ops import randomized_response_law
from privkernels.privacy import (
    ActivationPlan,
    GaussianEvent,
    Guarantee,
    PureEvent,
    Unit,
    activation_guarantee,
    clipped_tensor_sensitivity,
    formula_curves,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    lrn_scalar_sensitivity,
    lrn_tensor_sensitivity,
)
from privkernels.privacy.activation_formulae import (
    PAPER_SCALAR_SENSITIVITY,
    TensorSensitivity,
    dp_a_epsilon,
    rdp_a_epsilon,
    zcdp_a_epsilon,
)
from privkernels.privacy.activations import bound_of, events_of, moving_layer_rho

PAPER_STDS = {1: 3.07, 2: 1.54, 5: 0.614}  # the paper's noise for epsilon of one scalar at delta = 1e-4


def normalized(a, alpha=1.0, beta=0.5, gamma=2.0, window=5):
    """Eq. 4 over the last axis of a [..., m]."""
    squares, half = a**2, window // 2
    m = a.shape[-1]
    sums = np.stack([squares[..., max(0, i - half) : i + half + 1].sum(-1) for i in range(m)], axis=-1)
    return a / (gamma + alpha * sums) ** beta


# Sensitivity of one number


def test_scalar_sensitivities():
    assert lrn_scalar_sensitivity(1.0) == pytest.approx(1 / math.sqrt(3))
    assert lrn_scalar_sensitivity(2.0) == pytest.approx(0.816, abs=5e-4)
    assert lrn_scalar_sensitivity(math.sqrt(2)) == pytest.approx(PAPER_SCALAR_SENSITIVITY)
    assert lrn_scalar_sensitivity(math.inf) == 1
    assert lrn_scalar_sensitivity(1e40) == 1
    assert lrn_tensor_sensitivity(9, 4, 4, clamp=1e40, alpha=1e30).value == pytest.approx(1e-15 * math.sqrt(96))
    assert lrn_scalar_sensitivity(math.inf, alpha=4.0) == 0.5
    assert lrn_scalar_sensitivity(1.0, signed=True) == pytest.approx(2 / math.sqrt(3))


@pytest.mark.parametrize("beta", [0.3, 0.5, 0.75, 2.0])
@pytest.mark.parametrize("clamp", [0.5, 1.0, 5.0])
def test_no_activation_exceeds_the_scalar_sensitivity_and_one_attains_it(beta, clamp):
    bound = lrn_scalar_sensitivity(clamp, alpha=0.7, beta=beta, gamma=1.3)
    rng = np.random.default_rng(0)
    drawn = normalized(rng.uniform(0, clamp, (2000, 8)), 0.7, beta, 1.3)
    assert drawn.max() < bound
    alone = np.zeros((20_001, 8))
    alone[:, 4] = np.linspace(0, clamp, 20_001)
    assert normalized(alone, 0.7, beta, 1.3).max() == pytest.approx(bound, rel=1e-6)


def test_the_papers_scalar_sensitivity_fails_without_a_clamp():
    big = np.array([[100.0, 0, 0, 0, 0]])
    assert normalized(big).max() > 0.99 > PAPER_SCALAR_SENSITIVITY


# Sensitivity of a tensor


def channels(pattern, size, m=64):
    return size * np.array([float(c) for c in (pattern * m)[:m]])


def test_a_position_of_64_channels_moves_much_further_than_one_number():
    first, second = normalized(channels("1100", 1.0)), normalized(channels("0011", 1.0))
    squared = ((first - second) ** 2).sum()
    assert squared >= 16 - 1e-9
    assert squared <= lrn_tensor_sensitivity(64, 1, 1, clamp=1.0).value ** 2 == pytest.approx(64 / 3)


def test_an_unbounded_position_is_held_by_the_block_bound():
    def alone(offset):
        a = np.zeros(64)
        a[offset::3] = 1e4
        return normalized(a)

    squared = max(((alone(i) - alone(j)) ** 2).sum() for i in range(3) for j in range(i))
    bound = lrn_tensor_sensitivity(64, 1, 1)
    assert bound.bound == "blocks of channels"
    assert bound.value**2 == pytest.approx(44)
    assert 43.0 - 1e-3 <= squared <= 44


@pytest.mark.parametrize("clamp", [0.7, 1.0, 3.0, math.inf])
def test_random_positions_never_exceed_the_tensor_bound(clamp):
    rng = np.random.default_rng(1)
    top = min(clamp, 50.0)
    pairs = rng.uniform(0, top, (2, 500, 30)) * (rng.random((2, 500, 30)) < 0.4)
    moved = np.linalg.norm(normalized(pairs[0]) - normalized(pairs[1]), axis=1)
    assert moved.max() <= lrn_tensor_sensitivity(30, 1, 1, clamp=clamp).value


@pytest.mark.parametrize(("size", "least", "most"), [(32, 128, 147.8), (224, 896, 1_034.6)])
def test_a_whole_tensor_moves_two_hundred_times_the_papers_sensitivity(size, least, most):
    first, second = normalized(channels("1100", 1.0)), normalized(channels("0011", 1.0))
    attained = math.sqrt(((first - second) ** 2).sum()) * size
    bound = lrn_tensor_sensitivity(64, size, size, clamp=1.0)
    assert attained == pytest.approx(least)
    assert bound.value == pytest.approx(most, abs=0.05)
    assert bound.bound == "coordinates"
    assert bound.value / PAPER_SCALAR_SENSITIVITY > 200


def test_a_clipped_tensor_moves_by_root_two_norms_or_two():
    rng = np.random.default_rng(0)
    for nonnegative in (True, False):
        drawn = rng.normal(size=(2, 2000, 3))
        drawn = np.abs(drawn) if nonnegative else drawn
        drawn /= np.maximum(1, np.linalg.norm(drawn, axis=2, keepdims=True))
        bound = clipped_tensor_sensitivity(1.0, nonnegative=nonnegative).value
        worst = np.linalg.norm(drawn[0] - drawn[1], axis=1).max()
        assert 0.9 * bound < worst <= bound + 1e-12
    assert clipped_tensor_sensitivity(3.0).value == pytest.approx(3 * math.sqrt(2))


def test_the_papers_noise_gives_a_tensor_an_epsilon_of_thousands():
    for epsilon, expected in {1: (1_022, 1_336), 2: (3_783, 4_988), 5: (22_484, 29_840)}.items():
        std = PAPER_STDS[epsilon]
        assert dp_a_epsilon(std, PAPER_SCALAR_SENSITIVITY, 1e-4) == pytest.approx(epsilon, rel=3e-3)
        for sensitivity, true in zip((128, 147.8), expected, strict=True):
            assert gaussian_epsilon(sensitivity / std, 1e-4) == pytest.approx(true, rel=6e-3)


def test_the_noise_that_a_whole_tensor_needs():
    mu = gaussian_mu(5.0, 1e-4)
    assert lrn_tensor_sensitivity(64, 32, 32, clamp=1.0).value / mu == pytest.approx(117.6, rel=2e-3)
    std = clipped_tensor_sensitivity(1.0).value / mu
    assert std == pytest.approx(1.126, rel=2e-3)
    assert std * math.sqrt(64 * 32 * 32) == pytest.approx(288, rel=2e-3)


# The paper's three formulae


def test_figure_3_as_printed_mixes_logarithms():
    curves = formula_curves([1.0, 2.0])
    assert curves.dp_a == pytest.approx([3.071, 3.071 / 2], rel=1e-3)
    assert curves.zcdp_a_printed == pytest.approx([2.25, 1 / 16 + 1])
    assert curves.rdp_a_printed == pytest.approx([4.5, 4.125])
    assert curves.zcdp_a == pytest.approx([1 / 4 + 3.035, 1 / 16 + 3.035 / 2], rel=1e-3)
    assert curves.rdp_a == pytest.approx([1 / 2 + 9.210, 1 / 8 + 9.210], rel=1e-3)


def test_the_crossing_of_the_curves_comes_from_the_decimal_logarithm():
    def gap(decimal):
        return lambda std: (
            dp_a_epsilon(std, PAPER_SCALAR_SENSITIVITY, 1e-4)
            - zcdp_a_epsilon(std, PAPER_SCALAR_SENSITIVITY, 1e-4, decimal_log=decimal)
        )

    assert brentq(gap(True), 0.05, 1) == pytest.approx(0.2333, abs=5e-5)
    crossing = brentq(gap(False), 1, 50)
    assert crossing == pytest.approx(6.84, abs=5e-3)
    assert dp_a_epsilon(crossing, PAPER_SCALAR_SENSITIVITY, 1e-4) == pytest.approx(0.449, abs=5e-4)
    assert all(gap(False)(std) < 0 for std in np.linspace(0.05, 6.8, 100))


def test_the_table_of_formulae():
    curves = formula_curves([0.23, 0.5, 1, 2, 3.1, 10])
    assert curves.dp_a == pytest.approx([13.35, 6.14, 3.07, 1.54, 0.991, 0.307], rel=5e-3)
    assert curves.zcdp_a == pytest.approx([17.92, 7.07, 3.29, 1.58, 1.005, 0.306], rel=5e-3)
    assert curves.cks == pytest.approx([16.74, 6.31, 2.79, 1.27, 0.780, 0.213], rel=5e-3)
    assert curves.exact == pytest.approx([15.51, 5.77, 2.53, 1.14, 0.697, 0.187], rel=5e-3)
    assert list(curves.dp_a_is_proved) == [False, False, False, False, True, True]
    assert np.all(curves.exact <= curves.cks)
    assert np.all(curves.cks <= curves.zcdp_a)


def true_delta(std, epsilon):
    return gaussian_delta(PAPER_SCALAR_SENSITIVITY / std, epsilon)


def test_dp_a_is_false_for_small_noise():
    def excess(std):
        return true_delta(std, dp_a_epsilon(std, PAPER_SCALAR_SENSITIVITY, 1e-4)) - 1e-4

    assert true_delta(0.23, 13.35) == pytest.approx(1.2e-3, rel=0.05)
    boundary = brentq(excess, 0.3, 1.0)
    assert boundary == pytest.approx(0.385, abs=1e-3)
    assert dp_a_epsilon(boundary, PAPER_SCALAR_SENSITIVITY, 1e-4) == pytest.approx(7.98, abs=0.02)


def test_the_printed_zcdp_and_rdp_numbers_are_false():
    def excess(formula):
        return lambda std: true_delta(std, formula(std, PAPER_SCALAR_SENSITIVITY, 1e-4, decimal_log=True)) - 1e-4

    assert true_delta(1.0, 2.25) == pytest.approx(4.1e-4, rel=0.02)
    assert brentq(excess(zcdp_a_epsilon), 1, 20) == pytest.approx(4.69, abs=0.01)
    assert brentq(excess(rdp_a_epsilon), 0.2, 1) == pytest.approx(0.46, abs=0.01)


def test_rdp_at_its_best_order_is_zcdp():
    std, s = 1.3, PAPER_SCALAR_SENSITIVITY
    order = 1 + std * math.sqrt(2 * math.log(1e4)) / s
    assert rdp_a_epsilon(std, s, 1e-4, order=order) == pytest.approx(zcdp_a_epsilon(std, s, 1e-4))
    assert rdp_a_epsilon(std, s, 1e-4) > 2 * zcdp_a_epsilon(std, s, 1e-4)


# The whole transcript


def plan(**changes):
    values = {
        "sensitivity": clipped_tensor_sensitivity(1.0), "noise_std": 10.0, "epochs": 60, "delta": 1e-5,
        "client_layer": "frozen",
    }  # fmt: skip
    return ActivationPlan(**(values | changes))


def test_no_pure_epsilon_holds_for_what_is_computed_from_gaussian_outputs():
    """Corollary 1. The log ratio of one noisy number grows with the number, and so does that of any injective loss."""
    x = np.array([1.0, 10.0, 100.0])
    ratio = (-((x - PAPER_SCALAR_SENSITIVITY) ** 2) + x**2) / 2
    assert ratio[2] > 9 * ratio[1] > 81 * ratio[0]


def test_a_frozen_layer_pays_once_or_by_the_root_of_the_epochs():
    every, once = plan(), plan(release_once=True)
    assert every.mu == pytest.approx(math.sqrt(60) * math.sqrt(2) / 10)
    assert once.mu == pytest.approx(math.sqrt(2) / 10)
    assert bound_of(every).epsilon == pytest.approx(4.87, abs=5e-3)
    assert bound_of(once).epsilon == pytest.approx(0.497, abs=5e-4)
    assert events_of(every) == (GaussianEvent(mu=math.sqrt(2) / 10, count=60),)


def test_a_trained_client_layer_moves_the_rows_of_all_other_examples():
    """w_0 = 0, x* = 1 or 0, returned gradient -1, learning rate 1: then 256 rows with x = 1 are sent as w = 1 or 0."""
    claimed, others = 1.0, 256
    sent = []
    for secret in (1.0, 0.0):
        weight = 0.0
        first_row = weight * secret
        weight -= 1.0 * (-1.0 * secret)
        sent.append(np.array([first_row, *[weight * 1.0] * others, weight * secret]))
    mu = np.linalg.norm(sent[0] - sent[1])  # noise of standard deviation 1 on every row
    assert mu == pytest.approx(16.03, abs=5e-3)
    assert gaussian_epsilon(claimed, 1e-5) == pytest.approx(4.38, abs=5e-3)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(196, rel=5e-3)
    noise = np.random.default_rng(0).normal(size=(2, 2000, others + 2))
    statistic = [(sent[k] + noise[k]) @ (sent[0] - sent[1]) for k in (0, 1)]
    middle = mu**2 / 2
    assert (np.mean(statistic[0] > middle) + np.mean(statistic[1] <= middle)) / 2 == 1.0
    per_row = np.mean(noise[0, :, 0] + 1.0 > 0.5) / 2 + np.mean(noise[1, :, 0] <= 0.5) / 2
    assert per_row == pytest.approx(0.69, abs=0.02)


def test_a_trained_client_layer_has_no_guarantee():
    trained = plan(client_layer="unnoised")
    guarantee = activation_guarantee(trained)
    assert guarantee.proven is None
    assert "No guarantee for the transcript" in guarantee.not_proven_because
    assert guarantee.implementation["mu_total"] is None
    with pytest.raises(InvalidArgumentError, match="no cost that could be charged"):
        events_of(trained)


def test_the_bound_for_a_moving_layer_is_useless():
    steps = round(60 * 5e4 / 64)
    assert moving_layer_rho(sensitivity=1.0, noise_std=10.0, batch_size=64, steps=steps) == pytest.approx(
        15_000, rel=1e-4
    )
    # 30,000 with sensitivity sqrt(2) C, which is what C = 1 means for tensors that are not negative.
    assert moving_layer_rho(
        sensitivity=clipped_tensor_sensitivity(1.0).value, noise_std=10.0, batch_size=64, steps=steps
    ) == pytest.approx(30_000, rel=1e-4)


def test_dp_sgd_on_the_client_layer_adds_its_mu():
    both = plan(client_layer="dp-sgd", sgd_noise_multiplier=4.0)
    assert both.mu**2 == pytest.approx(60 * 2 / 100 + 60 * (2 / 4) ** 2)
    assert bound_of(both).epsilon == pytest.approx(gaussian_epsilon(both.mu, 1e-5), rel=1e-6)
    assert activation_guarantee(both).proven is not None


def test_labels_are_public_or_paid_for_once():
    public, private = plan(), plan(label_epsilon=1.5)
    assert public.unit is Unit.ACTIVATION
    assert private.unit is Unit.EXAMPLE
    assert events_of(private)[-1] == PureEvent(epsilon=1.5)
    assert bound_of(public).epsilon < bound_of(private).epsilon <= bound_of(public).epsilon + 1.5 + 1e-9
    assert any("in clear" in warning for warning in activation_guarantee(public).warnings)


def test_the_labels_epsilon_is_that_of_the_operator_which_randomises_them():
    law = randomized_response_law(10, 1.5)
    assert math.log(law.keep / law.smallest_other) == pytest.approx(1.5)
    assert law.epsilon <= events_of(plan(label_epsilon=1.5))[-1].epsilon


def test_broadcasting_the_mean_of_client_layers_leaves_no_proof_unless_they_are_trained_privately():
    assert activation_guarantee(plan(), aggregates_client_layer=True).proven is None
    private = plan(client_layer="dp-sgd", sgd_noise_multiplier=4.0)
    assert activation_guarantee(private, aggregates_client_layer=True).proven is not None


# The partition planner. Channels, height = width and weights of VGG-16's convolutions at 32 x 32; 2 x 2 pooling after
# layers 2, 4, 7 and 10. Q(j) is a layer's share of the convolutions' weights.

CHANNELS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
SIDES = [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3


def cost(epsilons):
    """w = 1: epsilon_i + sum_{j <= i} Q(j) - (1 - 2 / (e^epsilon_i - 1)), Section 4.3."""
    weights = np.array([9 * a * b for a, b in pairwise(CHANNELS)], dtype=float)
    epsilons = np.asarray(epsilons, dtype=float)
    accuracy = 1 - 2 / np.expm1(np.minimum(epsilons, 700))
    return epsilons + np.cumsum(weights / weights.sum()) - accuracy


def test_a_free_epsilon_makes_the_first_layer_a_trivial_choice():
    best = math.log(2 + math.sqrt(3))
    epsilons = np.linspace(0.5, 4, 100_001)
    accuracy = 1 - 2 / np.expm1(epsilons)
    assert epsilons[np.argmin(epsilons - accuracy)] == pytest.approx(best, abs=1e-4)
    assert best == pytest.approx(1.317, abs=5e-4)
    assert 1 - 2 / math.expm1(best) == pytest.approx(0.268, abs=5e-4)
    assert 1 - 2 / math.expm1(math.log(3)) == pytest.approx(0, abs=1e-12)
    assert np.argmin(cost([best] * 13)) == 0


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 5.0])
def test_epsilon_by_corollary_1_puts_the_best_cut_at_layer_11(epsilon):
    assert np.argmin(cost([side**2 * epsilon for side in SIDES])) + 1 == 11


def test_the_exact_epsilon_at_fixed_noise_puts_it_there_too():
    tensors = [lrn_tensor_sensitivity(m, s, s, clamp=1.0).value for m, s in zip(CHANNELS[1:], SIDES, strict=True)]
    assert np.argmin(cost([gaussian_epsilon(d / PAPER_STDS[5], 1e-4) for d in tensors])) + 1 == 11


def test_with_clipping_epsilon_does_not_depend_on_the_cut_and_corollary_3_is_not_strict():
    same = gaussian_epsilon(clipped_tensor_sensitivity(1.0).value / 10, 1e-4)
    assert np.argmin(cost([same] * 13)) + 1 == 1
    # Inside one block p and q are the same, so p q epsilon is too.
    assert SIDES[0] == SIDES[1]


# The guarantee as a value


@pytest.mark.parametrize(
    ("analysis", "expected", "section"),
    [("DP-A", 3.071, "5.3"), ("zCDP-A", 2.25, "5.1"), ("RDP-A", 4.5, "5.2")],
)
def test_the_claim_is_the_papers_number_for_one_activation(analysis, expected, section):
    guarantee = activation_guarantee(plan(noise_std=1.0, delta=1e-4, analysis=analysis))
    assert guarantee.claimed.epsilon == pytest.approx(expected, rel=1e-3)
    assert section in guarantee.claimed.equation
    assert "one activation" in guarantee.claimed.formula
    assert guarantee.implementation["looser_formula_DP-A_is_proved"].startswith("no")


def test_guarantees_read_and_survive_json():
    for value in (plan(), plan(client_layer="unnoised"), plan(label_epsilon=1.0), plan(release_once=True)):
        guarantee = activation_guarantee(value)
        assert Guarantee.from_json(guarantee.to_json()) == guarantee
        text = str(guarantee)
        assert f"Unit: {value.unit}" in text
        assert ("Proven: nothing. No guarantee" in text) == (guarantee.proven is None)
    assert "seed" in activation_guarantee(plan(), reproducible=True).not_proven_because


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise_std": 0.0}, "noise_std"),
        ({"noise_std": math.nan}, "noise_std"),
        ({"epochs": 0}, "epochs"),
        ({"release_once": True, "client_layer": "unnoised"}, "frozen"),
        ({"client_layer": "dp-sgd"}, "sgd_noise_multiplier"),
        ({"sgd_noise_multiplier": 1.0}, "sgd_noise_multiplier"),
        ({"delta": 0.0}, "delta"),
        ({"label_epsilon": -1.0}, "epsilon"),
    ],
)
def test_bad_plans(change, words):
    with pytest.raises(InvalidArgumentError, match=words):
        plan(**change)


def test_bad_numbers():
    with pytest.raises(InvalidArgumentError, match="clamp"):
        lrn_scalar_sensitivity(0.0)
    with pytest.raises(InvalidArgumentError, match="no finite sensitivity"):
        lrn_scalar_sensitivity(math.inf, beta=0.3)
    with pytest.raises(InvalidArgumentError, match="channels"):
        lrn_tensor_sensitivity(0, 1, 1)
    with pytest.raises(InvalidArgumentError, match="clipping norm"):
        clipped_tensor_sensitivity(-1.0)
    with pytest.raises(InvalidArgumentError, match="list of positive"):
        formula_curves([])
    with pytest.raises(InvalidArgumentError, match="order"):
        rdp_a_epsilon(1.0, 1.0, 1e-4, order=1.0)
    with pytest.raises(InvalidBudgetError):
        dp_a_epsilon(1.0, 1.0, 1.0)
    with pytest.raises(InvalidArgumentError, match="batch_size"):
        moving_layer_rho(sensitivity=1.0, noise_std=1.0, batch_size=0, steps=1)


def test_numbers_in_words_never_flatter():
    """mu is rounded up; sensitivity and noise are said exactly, since rounding either way would be wrong of one."""
    value = plan(noise_std=0.123456789, sensitivity=TensorSensitivity(1.2543216, "given"), epochs=1)
    guarantee = activation_guarantee(value)
    (warning,) = (w for w in guarantee.warnings if w.startswith("mu = "))
    assert float(f"{value.mu:.4g}") < value.mu, "or the test could not fail"
    assert value.mu <= float(warning.split()[2].rstrip(":")) < value.mu * 1.001
    assert "0.123456789" in guarantee.mechanism
    assert any("1.2543216 in L2 norm" in assumption.text for assumption in guarantee.assumptions)
