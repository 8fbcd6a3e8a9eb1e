"""Pruning: what is known of attacks' success, and why neither paper's network has a guarantee."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from privkernels.audit.intervals import clopper_pearson
from privkernels.errors import InvalidArgumentError, InvalidBudgetError, NonFiniteValueError
from privkernels.privacy import (
    Guarantee,
    attack_accuracy_bounds,
    gaussian_delta,
    jensen_shannon_from_accuracy,
    jensen_shannon_from_gain,
    layer_noise,
    layer_sensitivity,
    mia_pruning_guarantee,
    net_pruning_guarantee,
    private_attack_accuracy,
    total_variation_bounds,
)


def kl(p, q):
    kept = p > 0
    return float((p[kept] * np.log(p[kept] / q[kept])).sum())


def jensen_shannon(p, q):
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


def gain(p, q, attacker):
    """Eq. 1 for an attacker [outputs] that says how likely a member is."""
    with np.errstate(divide="ignore"):
        return float(np.nansum(p * np.log(attacker)) + np.nansum(q * np.log1p(-attacker)))


def random_pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        outcomes = int(rng.integers(2, 6))
        concentration = rng.choice([0.1, 1.0, 10.0])
        # No outcome is so rare that 1 - p / (p + q) rounds to 0.
        yield 0.9999 * rng.dirichlet(np.full(outcomes, concentration), 2) + 0.0001 / outcomes


# MIA-Pruning: the identity and what surrounds it


def test_the_best_attackers_gain_is_the_papers_identity():
    rng = np.random.default_rng(1)
    for p, q in random_pairs(50):
        best = gain(p, q, p / (p + q))
        assert best == pytest.approx(-math.log(4) + 2 * jensen_shannon(p, q), abs=1e-9)
        other = np.clip(p / (p + q) + rng.uniform(-0.1, 0.1, len(p)), 1e-9, 1 - 1e-9)
        assert gain(p, q, other) <= best


def test_an_attacker_that_sees_the_record_itself_has_all_of_it_whatever_the_network():
    """Records of the finite D and fresh ones are disjoint: p_f is not what Eq. 1's attacker sees."""
    seen, fresh = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.5, 0.5])
    assert jensen_shannon(seen, fresh) == pytest.approx(math.log(2))
    assert total_variation_bounds(math.log(2)) == (1.0, 1.0)


def test_accuracy_bounds_at_two_divergences():
    assert attack_accuracy_bounds(0.01) == pytest.approx((0.507, 0.571), abs=5e-4)
    assert attack_accuracy_bounds(0.1) == pytest.approx((0.572, 0.720), abs=5e-4)
    assert attack_accuracy_bounds(0.0) == (0.5, 0.5)


def test_no_pair_of_laws_violates_the_bounds():
    for p, q in random_pairs(2_000, seed=2):
        divergence = min(jensen_shannon(p, q), math.log(2))
        least, largest = total_variation_bounds(max(divergence, 0.0))
        variation = 0.5 * np.abs(p - q).sum()
        assert least - 1e-9 <= variation <= largest + 1e-7
        assert largest <= math.sqrt(2 * max(divergence, 0.0)) + 1e-7


def test_the_upper_bound_is_attained_by_two_outcomes():
    p = np.array([0.6, 0.4])
    assert total_variation_bounds(jensen_shannon(p, p[::-1]))[1] == pytest.approx(0.2)


def test_a_trained_attacker_gives_lower_bounds_only():
    assert jensen_shannon_from_accuracy(0.5902) == pytest.approx(0.0164, abs=5e-5)
    assert jensen_shannon_from_accuracy(0.5341) == pytest.approx(0.0023, abs=5e-5)
    assert jensen_shannon_from_accuracy(0.4) == 0
    assert jensen_shannon_from_gain(-3.0) == 0
    for p, q in random_pairs(300, seed=3):
        divergence = jensen_shannon(p, q)
        for sharpness in (0.3, 1.0):
            attacker = 0.5 + sharpness * (p / (p + q) - 0.5)
            accuracy = (p[attacker > 0.5].sum() + q[attacker <= 0.5].sum()) / 2
            assert jensen_shannon_from_accuracy(min(accuracy, 1.0)) <= divergence + 1e-9
            assert jensen_shannon_from_gain(min(gain(p, q, attacker), 0.0)) <= divergence + 1e-9


def test_one_fully_exposed_member_in_a_hundred_hardly_moves_the_average():
    members, fresh = np.array([0.01, 0.99]), np.array([0.0, 1.0])
    accuracy = (1 + 0.5 * np.abs(members - fresh).sum()) / 2
    assert accuracy == pytest.approx(0.505)
    assert jensen_shannon(members, fresh) == pytest.approx(0.0035, abs=5e-5)
    for epsilon in (1.0, 10.0, 100.0):
        delta = float(np.maximum(members - math.exp(epsilon) * fresh, 0).sum())
        assert delta == pytest.approx(0.01), "no (epsilon, delta) with delta below .01"


def test_a_near_copy_keeps_the_attack():
    """sup |f - g| <= e: a threshold attack on g has at least the advantage P(f >= t + e) - P'(f >= t - e)."""
    rng = np.random.default_rng(4)
    error, threshold = 0.001, 0.75
    member, fresh = rng.beta(4, 1, 50_000), rng.beta(3, 1.3, 50_000)
    copies = [scores + rng.uniform(-error, error, 50_000) for scores in (member, fresh)]
    original = np.mean(member >= threshold) - np.mean(fresh >= threshold)
    promised = np.mean(member >= threshold + error) - np.mean(fresh >= threshold - error)
    attained = np.mean(copies[0] >= threshold) - np.mean(copies[1] >= threshold)
    assert promised <= attained
    assert promised > original - 0.01 > 0.1


def test_what_differential_privacy_would_promise():
    assert private_attack_accuracy(1.0) == pytest.approx(0.731, abs=5e-4)
    assert private_attack_accuracy(4.0) == pytest.approx(0.982, abs=5e-4)
    assert private_attack_accuracy(2000.0) == 1.0
    # Attained: with probability .2 the input is shown, else randomised response at epsilon 1.
    odds = np.array([math.e, 1]) / (1 + math.e)
    first, second = np.r_[0.2, 0, 0.8 * odds], np.r_[0, 0.2, 0.8 * odds[::-1]]
    attained = (1 + 0.5 * np.abs(first - second).sum()) / 2
    assert private_attack_accuracy(1.0, 0.2) == pytest.approx(attained)
    mu, epsilon = 1.0, 1.5  # the best attack on a Gaussian release has accuracy Phi(mu / 2)
    assert stats.norm.cdf(mu / 2) <= private_attack_accuracy(epsilon, gaussian_delta(mu, epsilon))


def test_an_empirical_epsilon_from_two_rates():
    """5000 members and 5000 others, TPR .02 and FPR .001: epsilon of at least 1.94."""
    true_positive = clopper_pearson(100, 5000)[0]
    false_positive = clopper_pearson(5, 5000)[1]
    assert math.log((true_positive - 1e-5) / false_positive) == pytest.approx(1.94, abs=0.01)


def prune(weight, kept):
    threshold = np.quantile(np.abs(weight), 1 - kept)
    return np.where(np.abs(weight) > threshold, weight, 0.0)


def test_a_pruned_network_is_a_function_of_its_records():
    """Least squares and magnitude pruning, twice on each of two neighbours: the same within, different between."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(50, 10)), rng.normal(size=50)
    other = y.copy()
    other[0] += 3
    pruned = [[prune(np.linalg.lstsq(x, t, rcond=None)[0], 0.5) for _ in range(2)] for t in (y, other)]
    assert (pruned[0][0] == pruned[0][1]).all()
    assert (pruned[0][0] != pruned[1][0]).any()


# Net pruning


def noise_losses(scales, noise):
    """Log ratio of Laplace laws with scales [2, m] at noise [n, m] of unit scale drawn under the first."""
    at = np.abs(noise) * scales[0]
    return (-at / scales[0] - np.log(scales[0]) + at / scales[1] + np.log(scales[1])).sum(axis=1)


def monte_carlo_delta(losses, epsilon):
    return float(np.mean(-np.expm1(np.minimum(0.0, epsilon - losses))))


def printed_delta(width, epsilon, *, angle=None, draws=2_000, seed=0):
    """delta(epsilon) of h = f + Laplace * (A x) for two inputs; the scale is 1e6 |(A x)_i|, so f plays no part."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(width, 2)) / width
    other = np.array([1, 1]) / math.sqrt(2) if angle is None else np.array([math.cos(angle), math.sin(angle)])
    scales = 1e6 * np.abs(np.stack([weight[:, 0], weight @ other]))
    return monte_carlo_delta(noise_losses(scales, rng.laplace(size=(draws, width))), epsilon)


def test_the_printed_noise_is_not_private_for_wide_layers():
    x, y = np.array([1.0, 0.0]), np.array([1.0, 1.0]) / math.sqrt(2)
    assert np.abs(x - y).sum() == pytest.approx(1), "neighbours by the paper's definition"
    assert np.mean([printed_delta(16, 1.0, seed=s) for s in range(40)]) == pytest.approx(0.965, abs=0.03)
    for width in (64, 256):
        assert printed_delta(width, 10.0) > 0.997
    assert printed_delta(1024, 1.0, angle=0.05) > 0.999


def test_more_noise_does_not_help_the_printed_noise():
    """KL per coordinate, log(s_y / s_x) + s_x / s_y - 1, does not depend on the factor before both scales."""
    scales = np.array([[1.0, 2.0, 3.0], [1.5, 1.0, 2.0]])
    rng = np.random.default_rng(6)
    noise = rng.laplace(size=(200_000, 3))
    expected = (np.log(scales[1] / scales[0]) + scales[0] / scales[1] - 1).sum()
    for factor in (1.0, 1e6):
        assert noise_losses(factor * scales, noise).mean() == pytest.approx(expected, rel=0.03)


def test_rows_whose_weight_survives_are_released_without_noise():
    """At x = e_1 the pruned-away part of a row is 0 where its first weight is kept, and so is its noise."""
    weight = np.random.default_rng(7).normal(size=(1000, 20))
    pruned_away = weight - prune(weight, 0.1)
    scale = np.abs(pruned_away[:, 0])
    assert 0.05 < np.mean(scale == 0) < 0.15


@pytest.mark.parametrize(("kept", "expected"), [(0.1, 1.1e-4), (1.0, 1.7e-4)])
def test_a_constant_is_as_close_to_the_layer_as_the_theorem_asks(kept, expected):
    """phi(b) is 0-differentially private. Width 4096, sigma_A = 1 / 4096, b = 0, ReLU; pruned or not."""
    rng = np.random.default_rng(8)
    weight = rng.normal(size=(4096, 200)) / 4096
    weight = weight if kept == 1 else prune(weight, kept)
    x = rng.normal(size=200)
    x /= np.linalg.norm(x)
    distance = np.linalg.norm(np.maximum(weight @ x, 0) - 0) / math.sqrt(4096)
    assert distance == pytest.approx(expected, rel=0.1)


def test_a_deterministic_layer_has_delta_one():
    weight = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    outputs = [torch.relu(weight @ torch.tensor(x, dtype=torch.float64)) for x in ([1.0, 0.0], [0.5, 0.5])]
    in_s = [float(torch.equal(o, outputs[0])) for o in outputs]
    for epsilon in (1.0, 100.0):
        assert in_s[0] - math.exp(epsilon) * in_s[1] == 1


def test_sensitivities_are_attained_at_an_input_coordinate():
    weight = torch.randn(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for order in (1, 2):
        bound = layer_sensitivity(weight, order)
        moves = torch.eye(8, dtype=torch.float64)
        attained = max(float(torch.linalg.vector_norm(weight @ m, ord=order)) for m in moves)
        assert attained == pytest.approx(bound)
        generator = torch.Generator().manual_seed(1)
        for _ in range(200):
            x = torch.randn(2, 8, dtype=torch.float64, generator=generator)
            move = (x[0] - x[1]) / (x[0] - x[1]).abs().sum()
            changed = torch.relu(weight @ (x[0])) - torch.relu(weight @ (x[0] - move))
            assert float(torch.linalg.vector_norm(changed, ord=order)) <= bound + 1e-12


def test_pruning_lowers_the_sensitivity_and_the_signal_with_it():
    """Width 1024, 784 inputs, sigma_A = 1 / sqrt(784), noise for epsilon 1 (delta 1e-5 for the Gaussian)."""
    rng = np.random.default_rng(9)
    weight = rng.normal(size=(1024, 784)) / 28
    x = rng.normal(size=784)
    x /= np.linalg.norm(x)
    laplace_ratio, gaussian_ratio = [], []
    for cut, (gs_1, gs_2, signal) in {0: (31.5, 1.23, 0.81), 0.9: (9.9, 0.87, 0.53), 0.95: (6.3, 0.74, 0.43)}.items():
        pruned = prune(weight, 1 - cut) if cut else weight
        noise = layer_noise(torch.tensor(pruned), 1.0, 1e-5)
        assert (noise.gs_1, noise.gs_2) == pytest.approx((gs_1, gs_2), rel=0.04)
        assert noise.laplace_scale == noise.gs_1
        norm = np.linalg.norm(np.maximum(pruned @ x, 0))
        assert norm == pytest.approx(signal, rel=0.05)
        laplace_ratio.append(norm / (math.sqrt(2) * noise.laplace_scale * 32))
        gaussian_ratio.append(norm / (noise.gaussian_std * 32))
        assert gaussian_delta(noise.gs_2 / noise.gaussian_std, 1.0) == pytest.approx(1e-5, rel=1e-6)
    assert laplace_ratio == pytest.approx([5.7e-4, 1.2e-3, 1.5e-3], rel=0.1)
    assert gaussian_ratio == pytest.approx([5.5e-3, 5.1e-3, 4.9e-3], rel=0.06)


# The guarantees as values


def test_neither_network_has_a_guarantee():
    mia = mia_pruning_guarantee(kept=0.1, min_max_game=True)
    assert mia.proven is None
    assert mia.claimed is None
    assert "min-max game" in mia.mechanism
    assert "Proven: nothing. Pruning adds no noise" in str(mia)
    layer = layer_noise(torch.ones(2, 3), 1.0, 1e-5)
    net = net_pruning_guarantee(kept=0.1, before=layer, after=layer, claimed_epsilon=0.5, claimed_delta=1e-3)
    assert (net.claimed.epsilon, net.claimed.delta, net.claimed.equation) == (0.5, 1e-3, "Theorem 4.2")
    assert net.proven is None
    assert net.implementation["GS_1_after"] == 2
    assert "Proven: nothing. The pruned network has no noise" in str(net)
    for guarantee in (mia, net, net_pruning_guarantee(kept=1.0)):
        assert Guarantee.from_json(guarantee.to_json()) == guarantee
        assert "Unit: example" in str(guarantee)


def test_bad_arguments():
    for kept in (0.0, 1.1, math.nan):
        with pytest.raises(InvalidArgumentError, match="the share of weights"):
            mia_pruning_guarantee(kept=kept)
        with pytest.raises(InvalidArgumentError, match="the share of weights"):
            net_pruning_guarantee(kept=kept)
    with pytest.raises(InvalidArgumentError, match="both"):
        net_pruning_guarantee(kept=0.5, claimed_epsilon=1.0)
    with pytest.raises(InvalidArgumentError, match="ln 2"):
        total_variation_bounds(0.7)
    with pytest.raises(InvalidArgumentError, match="gain"):
        jensen_shannon_from_gain(0.1)
    with pytest.raises(InvalidArgumentError, match="accuracy"):
        jensen_shannon_from_accuracy(math.nan)
    with pytest.raises(InvalidArgumentError, match="delta"):
        private_attack_accuracy(1.0, 2.0)
    with pytest.raises(InvalidBudgetError):
        layer_noise(torch.ones(2, 2), 0.0, 1e-5)
    with pytest.raises(InvalidArgumentError, match="matrix"):
        layer_sensitivity(torch.ones(3), 1)
    with pytest.raises(InvalidArgumentError, match="matrix"):
        layer_sensitivity(torch.ones(3, 0), 1)
    with pytest.raises(InvalidArgumentError, match="order"):
        layer_sensitivity(torch.ones(2, 2), 3)
    with pytest.raises(NonFiniteValueError):
        layer_sensitivity(torch.tensor([[math.nan]]), 1)
