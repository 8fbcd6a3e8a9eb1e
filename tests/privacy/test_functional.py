"""The functional mechanism: tight sensitivities by search, and why a trained first layer has no guarantee."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import special

from privkernels.errors import InvalidArgumentError, InvalidBudgetError, UnknownNameError
from privkernels.privacy import (
    FunctionalPlan,
    GaussianEvent,
    Guarantee,
    LaplaceEvent,
    class_coefficient_sensitivity_l1,
    coefficient_sensitivity_l1,
    coefficient_sensitivity_l2,
    functional_guarantee,
    gaussian_mu,
    paper_coefficient_sensitivity,
)
from privkernels.privacy.functional import bound_of, events_of

CLIPPED = {"features_are_clipped": True, "features_source": "random, fixed"}


def coefficients(h, y):
    """Linear [b] and all quadratic [b, b] coefficients of one record."""
    return (1 - 2 * y) * h / 4, np.outer(h, h) / 16


def l1(first, second):
    return sum(np.abs(a - b).sum() for a, b in zip(first, second, strict=True))


def l2(first, second):
    upper = np.triu_indices(len(first[0]))
    return math.sqrt(((first[0] - second[0]) ** 2).sum() + ((first[1] - second[1])[upper] ** 2).sum())


# Coefficients and sensitivities


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
def test_the_coefficients_are_those_of_the_squared_losss_expansion(y):
    step = 1e-3
    left, middle, right = ((special.expit(z) - y) ** 2 for z in (-step, 0.0, step))
    assert (right - left) / (2 * step) == pytest.approx((1 - 2 * y) / 4, abs=1e-6)
    assert (right - 2 * middle + left) / (2 * step**2) == pytest.approx(1 / 16, abs=1e-5)


@pytest.mark.parametrize("b", [1, 2, 3, 5])
def test_sensitivities_are_attained_by_a_pair_of_records_and_by_no_search_exceeded(b):
    """All vertices against all vertices, and random interior records."""
    rng = np.random.default_rng(b)
    records = [(np.array(h, dtype=float), y) for h in product((0, 1), repeat=b) for y in (0.0, 1.0)]
    records += [(rng.uniform(0, 1, b), rng.uniform()) for _ in range(60)]
    values = [coefficients(h, y) for h, y in records]
    for distance, bound in ((l1, coefficient_sensitivity_l1(b)), (l2, coefficient_sensitivity_l2(b))):
        worst = max(distance(p, q) for i, p in enumerate(values) for q in values[:i])
        assert worst == pytest.approx(bound)
    nothing = np.zeros(b), np.zeros((b, b))
    assert max(l1(p, nothing) for p in values) == pytest.approx(coefficient_sensitivity_l1(b, "add-or-remove-one"))


def test_the_worst_pair_of_eighty_hidden_units():
    ones, two = np.ones(80), np.r_[1.0, 1.0, np.zeros(78)]
    assert l1(coefficients(ones, 0.0), coefficients(two, 1.0)) == pytest.approx(420.25)
    assert coefficient_sensitivity_l1(80) == 420.25
    assert paper_coefficient_sensitivity(80) == 840
    assert coefficient_sensitivity_l2(80) == pytest.approx(4.697, abs=5e-4)
    best = max(l2(coefficients(ones, 0.0), coefficients(np.r_[np.ones(k), np.zeros(80 - k)], 1.0)) for k in range(81))
    assert best == pytest.approx(coefficient_sensitivity_l2(80))


@pytest.mark.parametrize("b", [*range(1, 120), 1000, 4097])
def test_the_worst_pair_is_found_without_looking_at_all(b):
    square = max((b + 3 * k) / 16 + (b * (b + 1) - k * (k + 1)) / 512 for k in range(b + 1))
    assert coefficient_sensitivity_l2(b) == math.sqrt(square)


@pytest.mark.parametrize(("b", "factor"), [(24, 1.0), (30, 1.003), (80, 1.2), (400, 1.37)])
def test_gaussian_noise_on_all_entries_would_need_more_than_the_stated_sensitivity(b, factor):
    """Noise on all b^2 entries releases each pair p != q twice; the guarantee says that it is for the triangle."""
    first = coefficients(np.ones(b), 0.0)
    pairs = [(first, coefficients(np.r_[np.ones(k), np.zeros(b - k)], 1.0)) for k in range(b + 1)]
    both_triangles = [math.sqrt(sum(((p - q) ** 2).sum() for p, q in zip(*pair, strict=True))) for pair in pairs]
    terms = [(b + 3 * k) / 16 + (b**2 - k**2) / 256 for k in range(b + 1)]
    assert both_triangles == pytest.approx([math.sqrt(term) for term in terms])
    stated = coefficient_sensitivity_l2(b)
    assert max(l2(*pair) for pair in pairs) == pytest.approx(stated)
    assert max(both_triangles) >= factor * stated * (1 - 1e-12)
    value = functional_guarantee(functional_plan(hidden_units=b, noise="gaussian"), **CLIPPED)
    assert value.implementation["coefficients"] == "linear and upper triangle only"
    assert any("upper triangle" in assumption.text for assumption in value.assumptions)


def test_laplace_noise_may_stand_on_all_entries():
    value = functional_guarantee(functional_plan(noise="laplace"), **CLIPPED)
    assert value.implementation["coefficients"] == "linear and all b^2 quadratic"
    assert any("b^2 entries" in assumption.text for assumption in value.assumptions)


def test_unit_norm_features_need_no_dimension():
    bound = coefficient_sensitivity_l2(80, unit_norm=True)
    assert bound == pytest.approx(0.508, abs=5e-4)
    rng = np.random.default_rng(0)
    for _ in range(300):
        pair = [np.abs(rng.normal(size=6)) * (rng.random(6) < 0.5) for _ in range(2)]
        pair = [h / max(np.linalg.norm(h), 1e-9) for h in pair]
        assert l2(coefficients(pair[0], 0.0), coefficients(pair[1], 1.0)) <= bound


def class_l1(h, y, other_h, other_y):
    linear = np.abs(np.outer(0.5 - y, h) - np.outer(0.5 - other_y, other_h)).sum()
    return linear + np.abs(np.outer(h, h) - np.outer(other_h, other_h)).sum() / 8


@pytest.mark.parametrize(("b", "classes"), [(2, 2), (4, 2), (3, 2), (6, 3)])
def test_quadratic_coefficients_of_classes_are_released_once(b, classes):
    corners = [np.r_[np.ones(k), np.zeros(b - k)] for k in range(b + 1)]
    none, every = np.zeros(classes), np.ones(classes)
    worst = max(class_l1(np.ones(b), none, h, every) for h in corners)
    assert worst == pytest.approx(class_coefficient_sensitivity_l1(b, classes))
    rng = np.random.default_rng(0)
    for _ in range(300):
        drawn = [(rng.integers(0, 2, b).astype(float), rng.uniform(0, 1, classes)) for _ in range(2)]
        assert class_l1(*drawn[0], *drawn[1]) <= worst + 1e-12


def test_lemma_4_counts_the_quadratic_coefficients_once_per_class():
    assert class_coefficient_sensitivity_l1(128, 10) == pytest.approx(2_738)
    assert paper_coefficient_sensitivity(128, 10) == 42_240


def test_the_papers_noise_is_larger_than_what_a_batch_can_say():
    plan = functional_plan("trained", noise_scale=840.0, num_records=128)
    assert 128 * 1 / 4 == 32
    assert 128 / 16 == 8
    terms = functional_guarantee(plan, **CLIPPED).implementation
    assert terms["largest_linear_coefficient_over_noise_std"] == pytest.approx(32 / (math.sqrt(2) * 840))
    assert any("what is learnt is noise" in w for w in functional_guarantee(plan, **CLIPPED).warnings)


# The trained first layer


def train(x, y, noise_seed, *, steps, width=3, rate=0.1, seed=7):
    """SGD on the perturbed quadratic over both layers; noise [steps] anew in each, at monomials of the second layer."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(noise_seed)
    first, second = rng.normal(size=(x.shape[1], width)), rng.normal(size=width)
    start = first.copy()
    for _ in range(steps):
        linear, quadratic = noise.laplace(size=width), noise.laplace(size=(width, width))
        inner = x @ first
        h = np.clip(inner, 0, 1)
        z = h @ second
        slope = (1 - 2 * y) / 4 + z / 8
        d_first = x.T @ ((slope[:, None] * second) * ((inner > 0) & (inner < 1)))
        d_second = h.T @ slope + linear + (quadratic + quadratic.T) @ second
        first, second = first - rate * d_first / len(x), second - rate * 0.01 * d_second / len(x)
    return first, start


def toy_data():
    rng = np.random.default_rng(11)
    x, y = rng.uniform(0, 0.5, (4, 6)), rng.uniform(size=4)
    other = x.copy()
    other[0] = rng.uniform(0, 0.5, 6)
    return x, other, y


def test_one_update_of_the_first_layer_is_the_same_for_all_noise():
    x, other, y = toy_data()
    updates = [train(x, y, seed, steps=1)[0] for seed in range(5)]
    assert all((u == updates[0]).all() for u in updates)
    changed = np.abs(train(other, y, 0, steps=1)[0] - updates[0]).max()
    assert changed > 1e-4, "and differs between neighbours: delta = 1 for every epsilon"


def test_many_noisy_updates_of_the_first_layer_stay_in_the_span_of_the_records():
    x, other, y = toy_data()
    basis = np.linalg.svd(x, full_matrices=False)[2]

    def off_span(data, noise_seed):
        moved = np.subtract(*train(data, y, noise_seed, steps=100))
        return np.abs(moved - basis.T @ (basis @ moved)).max()

    assert max(off_span(x, seed) for seed in range(5)) < 1e-12
    assert min(off_span(other, seed) for seed in range(5)) > 1e-2


def test_one_noise_vector_on_two_batches_cancels():
    rng = np.random.default_rng(0)
    batches = [sum(coefficients(h, 0.4)[0] for h in rng.uniform(0, 1, (128, 80))) for _ in range(2)]
    noise = rng.laplace(scale=840, size=80)
    released = [batch + noise for batch in batches]
    assert np.abs((released[0] - released[1]) - (batches[0] - batches[1])).max() < 1e-10
    reused = functional_guarantee(functional_plan("per-epoch", batches=65), independent_noise=False, **CLIPPED)
    assert "cancels in the difference" in reused.not_proven_because


def test_a_noisy_quadratic_need_not_have_a_minimum():
    rng = np.random.default_rng(0)
    h = rng.uniform(0, 1, (128, 80))
    noise = np.triu(rng.laplace(scale=840, size=(80, 80)))
    matrix = h.T @ h / 16 + (noise + noise.T) / 2
    assert np.linalg.eigvalsh(h.T @ h / 16).min() > 0
    assert np.linalg.eigvalsh(matrix).min() < -1000


def test_a_trained_first_layer_has_no_guarantee():
    plan = functional_plan("trained", noise_scale=840.0)
    guarantee = functional_guarantee(plan, **CLIPPED)
    assert guarantee.claimed.epsilon == pytest.approx(1.0)
    assert "Lemma 3" in guarantee.claimed.equation
    assert guarantee.proven is None
    assert "second layer's objective" in guarantee.not_proven_because
    assert guarantee.implementation["first_layer"] == "trained"
    with pytest.raises(InvalidArgumentError, match="nothing can be charged"):
        events_of(plan)


# Frozen features


def functional_plan(mode="release-once", **changes):
    values = {
        "mode": mode, "hidden_units": 80, "noise": "laplace", "noise_scale": 420.25, "num_records": 8_333,
        "delta": 1e-5,
    }  # fmt: skip
    return FunctionalPlan(**(values | changes))


def test_noise_once_costs_once_and_fresh_noise_costs_every_epoch():
    assert events_of(functional_plan(epochs=20)) == (LaplaceEvent(epsilon=1.0),)
    assert events_of(functional_plan("per-epoch", epochs=20, batches=65)) == (LaplaceEvent(epsilon=1.0, count=20),)
    assert bound_of(functional_plan(epochs=20)).epsilon == pytest.approx(1.0, rel=1e-3)
    assert 5 < bound_of(functional_plan("per-epoch", epochs=20)).epsilon <= 20
    assert functional_plan("per-epoch", epochs=20, batches=65).noise_draws == 1300
    assert functional_plan(epochs=20).noise_draws == 1


def test_gaussian_noise_costs_its_mu():
    std = coefficient_sensitivity_l2(80) / gaussian_mu(1.0, 1e-5)
    plan = functional_plan(noise="gaussian", noise_scale=std)
    assert events_of(plan) == (GaussianEvent(mu=coefficient_sensitivity_l2(80) / std),)
    assert 1 - 1e-6 < bound_of(plan).epsilon < 1.2
    assert functional_guarantee(plan, **CLIPPED).claimed is None, "the paper has no Gaussian noise"


def fitted_error(noise_scale, law, seed, *, n=8_333, d=20, b=80):
    """RMSE on fresh records of a synthetic regression, from noisy coefficients with an eigenvalue floor."""
    rng = np.random.default_rng(123)
    first, truth = rng.normal(size=(d, b)) / 2, rng.normal(size=d)
    x = rng.uniform(0, 1, (n + 2000, d))
    h = np.clip((x - 0.5) @ first, 0, 1)
    y = special.expit(2.5 * (x - 0.5) @ truth)
    noise = np.random.default_rng(seed)
    draw = (lambda size: law(noise, size) * noise_scale) if noise_scale else np.zeros
    linear = ((1 - 2 * y[:n])[:, None] * h[:n]).sum(0) / 4 + draw(b)
    added = np.triu(draw((b, b)))
    values, vectors = np.linalg.eigh(h[:n].T @ h[:n] / 16 + (added + np.triu(added, 1).T))
    floor = max(3 * noise_scale * math.sqrt(b), 1e-2)
    weights = -vectors @ ((vectors.T @ linear) / (2 * np.maximum(values, floor)))
    error = np.sqrt(np.mean((special.expit(h[n:] @ weights) - y[n:]) ** 2))
    return error, np.sqrt(np.mean((y[:n].mean() - y[n:]) ** 2))


def test_gaussian_noise_on_frozen_features_learns_and_the_papers_noise_does_not():
    gaussian, laplace = (lambda g, size: g.normal(size=size)), (lambda g, size: g.laplace(size=size))
    exact, constant = fitted_error(0.0, gaussian, 0)
    by_epsilon = [
        np.mean([fitted_error(coefficient_sensitivity_l2(80) / gaussian_mu(e, 1e-5), gaussian, s)[0] for s in range(3)])
        for e in (0.5, 1.0, 4.0)
    ]
    paper = np.mean([fitted_error(paper_coefficient_sensitivity(80), laplace, s)[0] for s in range(3)])
    assert exact < by_epsilon[2] < by_epsilon[1] < by_epsilon[0] < constant
    assert paper > 0.95 * constant


# The guarantee as a value


@pytest.mark.parametrize("mode", ["release-once", "per-epoch", "trained"])
def test_the_guarantee_reads_and_survives_json(mode):
    guarantee = functional_guarantee(functional_plan(mode), **CLIPPED)
    assert Guarantee.from_json(guarantee.to_json()) == guarantee
    text = str(guarantee)
    assert "Unit: example" in text
    assert ("Proven: nothing. The first layer" in text) == (mode == "trained")
    assert guarantee.claimed.epsilon == pytest.approx(840 / 420.25)
    assert ("applied" in guarantee.claimed.paper) == (mode != "trained")


def test_what_leaves_no_proof():
    unclipped = functional_guarantee(functional_plan(), features_are_clipped=False, features_source="ReLU")
    assert "no bound" in unclipped.not_proven_because
    assert "seed" in functional_guarantee(functional_plan(), reproducible=True, **CLIPPED).not_proven_because


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mode": "sometimes"}, UnknownNameError, "sometimes"),
        ({"noise": "cauchy"}, UnknownNameError, "cauchy"),
        ({"hidden_units": 0}, InvalidArgumentError, "hidden_units"),
        ({"noise_scale": math.nan}, InvalidArgumentError, "noise_scale"),
        ({"num_records": 0}, InvalidArgumentError, "num_records"),
        ({"batches": 2}, InvalidArgumentError, "batches must be 1"),
        ({"delta": 1.0}, InvalidBudgetError, "delta"),
    ],
)
def test_bad_plans(change, error, words):
    with pytest.raises(error, match=words):
        functional_plan(**change)


def test_too_few_classes():
    with pytest.raises(InvalidArgumentError, match="2 or more classes"):
        class_coefficient_sensitivity_l1(10, 1)
