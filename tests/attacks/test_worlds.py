"""What margins are expected to be in models trained on a record, and in others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special, stats

from privkernels.attacks.worlds import PRIOR_WEIGHT, Imputation, Moments, World
from privkernels.errors import InvalidArgumentError, TooFewRecordsError

RNG = np.random.default_rng(0)
MARGINS = RNG.standard_normal((6, 5)) * 3.0
WHICH = np.array(
    [[1, 1, 0, 0, 1], [1, 0, 0, 1, 1], [1, 0, 0, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 1, 1], [0, 0, 1, 0, 1]], bool
)


def chosen(record: int) -> np.ndarray:
    return MARGINS[WHICH[:, record], record]


def test_moments_are_those_of_the_chosen_shadows() -> None:
    found = Moments.of(MARGINS, WHICH)
    for record in range(5):
        values = chosen(record)
        assert found.count[record] == len(values)
        assert found.mean[record] == pytest.approx(values.mean(), rel=1e-12)
        assert found.squares[record] == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-12, abs=1e-15)


def test_the_pooled_variance_is_about_each_records_own_mean() -> None:
    # Means that are far apart must not widen it: the error of a standard deviation over all margins.
    shifted = MARGINS + 100.0 * np.arange(5)
    squares = sum(((chosen(r) - chosen(r).mean()) ** 2).sum() for r in range(5))
    degrees = sum(max(0, len(chosen(r)) - 1) for r in range(5))
    assert Moments.of(shifted, WHICH).pooled_variance() == pytest.approx(squares / degrees, rel=1e-10)


def test_one_margin_per_record_gives_no_variance() -> None:
    with pytest.raises(InvalidArgumentError, match="at least 4 shadow models"):
        Moments.of(MARGINS[:2], np.array([[True] * 5, [False] * 5])).pooled_variance()


def test_densities_and_tails_are_scipys() -> None:
    found = Moments.of(MARGINS, np.ones_like(WHICH))
    phi = np.linspace(-4, 4, 5)
    normal = stats.norm(found.mean, 1.5)
    np.testing.assert_allclose(World.pooled(found, 2.25).log_density(phi), normal.logpdf(phi), rtol=1e-12)
    np.testing.assert_allclose(World.pooled(found, 2.25).log_tail(phi), normal.logsf(phi), rtol=1e-12)
    own = stats.norm(MARGINS.mean(axis=0), MARGINS.std(axis=0, ddof=1))
    np.testing.assert_allclose(World.per_record(found).log_density(phi), own.logpdf(phi), rtol=1e-12)


def test_the_shrunken_world_is_the_posterior_predictive_distribution() -> None:
    """The integral over mean and variance, done numerically for one record."""
    values, pooled, phi = MARGINS[:4, :1], 2.0, 1.3
    found = Moments.of(values, np.ones_like(values, dtype=bool))
    prior = stats.invgamma(PRIOR_WEIGHT / 2, scale=PRIOR_WEIGHT * pooled / 2)

    def joint(log_variance: float, points: np.ndarray) -> float:
        # The flat prior of the mean integrates out: n normal values leave their squares about the sample mean.
        variance, n = np.exp(log_variance), len(points)
        squares = ((points - points.mean()) ** 2).sum()
        density = -0.5 * (n - 1) * np.log(2 * np.pi * variance) - 0.5 * np.log(n) - squares / (2 * variance)
        return float(np.exp(density + prior.logpdf(variance) + log_variance))

    with_phi, without = (
        integrate.quad(joint, -8, 12, args=(points,), epsabs=0, epsrel=1e-10)[0]
        for points in (np.append(values, phi), values[:, 0])
    )
    found_density = World.shrunken(found, pooled).log_density(np.array([phi]))[0]
    assert found_density == pytest.approx(np.log(with_phi / without), rel=1e-8)


def test_the_shrunken_world_tends_to_the_pooled_and_to_the_records_own() -> None:
    many = np.random.default_rng(1).standard_normal((20000, 1))
    phi = np.array([0.5])
    found = Moments.of(many, np.ones_like(many, dtype=bool))
    # 20 000 margins outweigh a pooled variance that is wrong.
    assert World.shrunken(found, 9.0).log_density(phi) == pytest.approx(
        World.per_record(found).log_density(phi), rel=0.01
    )
    one = Moments.of(many[:1], np.ones((1, 1), dtype=bool))
    assert World.shrunken(one, 9.0).variance == pytest.approx(18.0)
    assert World.shrunken(one, 9.0).degrees == PRIOR_WEIGHT


def test_the_tail_keeps_its_order_where_a_probability_is_zero() -> None:
    found = Moments.of(np.zeros((2, 4)), np.ones((2, 4), dtype=bool))
    tails = World.pooled(found, 1.0).log_tail(np.array([10.0, 50.0, 1e3, 1e6]))
    assert (special.ndtr(-np.array([50.0, 1e3])) == 0.0).all(), "where the probability itself ties"
    assert np.isfinite(tails).all()
    assert (np.diff(tails) < 0).all()


def test_shadows_that_agree_exactly_give_finite_values() -> None:
    found = Moments.of(np.ones((8, 3)), np.ones((8, 3), dtype=bool))
    for world in (World.pooled(found, 0.0), World.per_record(found), World.shrunken(found, 0.0)):
        assert np.isfinite(world.log_density(np.array([1.0, 1.5, -9.0]))).all()


def test_an_imputation_finds_the_function_it_was_drawn_from() -> None:
    outside = np.linspace(-5, 5, 40)
    inside = 1.0 + 0.5 * outside - 0.05 * outside**2 + 0.3 * np.abs(outside)
    imputation = Imputation.fit(outside, inside)
    np.testing.assert_allclose(imputation.coefficients, [1.0, 0.5, -0.05, 0.3], atol=1e-10)
    np.testing.assert_allclose(imputation(outside), inside, atol=1e-10)
    # Beyond the range the shift stays, where the parabola would fall below the OUT mean.
    shift = inside[-1] - outside[-1]
    np.testing.assert_allclose(imputation(np.array([50.0])), [50.0 + shift], atol=1e-9)


def test_an_imputation_needs_records_and_bears_equal_ones() -> None:
    with pytest.raises(TooFewRecordsError, match="at least 10"):
        Imputation.fit(np.zeros(9), np.zeros(9))
    np.testing.assert_allclose(Imputation.fit(np.full(12, 2.0), np.full(12, 3.0))(np.array([2.0])), [3.0])
