"""The robust membership inference attack."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import nn

from privkernels.attacks import LossThreshold, Shadows
from privkernels.attacks.rmia import RMIA, Mode, log_ratios
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from tests.support.membership import (
    FIVE_SIGMA,
    Game,
    GaussianWorld,
    Repetition,
    area,
    margin_shadows,
    margin_target,
)

MODES: tuple[Mode, ...] = ("online", "offline")


def test_ratios_are_the_formulas() -> None:
    world = GaussianWorld.draw(1, 9, 16)
    margins, inside = world.shadows.margins(world.shadows.pool), world.shadows.inside
    phi = np.linspace(-5, 5, 9)
    p, p_target = 1 / (1 + np.exp(-margins)), 1 / (1 + np.exp(-phi))
    mean_in, mean_out = ((p * which).sum(axis=0) / which.sum(axis=0) for which in (inside, ~inside))
    online = np.log(p_target / (0.5 * mean_in + 0.5 * mean_out))
    np.testing.assert_allclose(log_ratios(phi, margins, inside, None), online, rtol=1e-10)
    for a in (0.0, 0.3, 1.0):
        offline = np.log(p_target / (0.5 * ((1 + a) * mean_out + 1 - a)))
        np.testing.assert_allclose(log_ratios(phi, margins, inside, a), offline, rtol=1e-10)


def test_ratios_of_records_that_are_certain_do_not_tie() -> None:
    # A target surer, by ever more, than shadows that are sure themselves; and the same with wrong predictions.
    phi = np.array([60.0, 61.0, 62.0, 80.0])
    margins, inside = np.full((2, 4), 60.0), np.array([[True] * 4, [False] * 4])
    for a in (None, 0.0, 0.5, 1.0):
        assert (np.diff(log_ratios(phi, margins, inside, a)) > 0).all()
        surer = np.array([70.0, 60.0, 50.0, 45.0])
        assert (np.diff(log_ratios(np.full(4, 80.0), np.stack([surer, surer]), inside, a)) > 0).all()
        worse = log_ratios(-1e4 * phi, -margins, inside, a)
        assert np.isfinite(worse).all()
        assert (np.diff(worse) < 0).all()


@pytest.mark.parametrize(("mode", "level"), [("online", 0.73), ("offline", 0.73)])
def test_it_finds_members_of_an_overfitted_network(game: Game, auditor: Shadows, mode: Mode, level: float) -> None:
    # Measured with 16 shadows: online 0.759, offline 0.761; the loss 0.636.
    found = area(RMIA(mode=mode).fit(auditor), game.target, game)
    assert found > level
    assert found > area(LossThreshold(), game.target, game) + 0.03


def test_offline_needs_no_shadow_trained_on_the_records(game: Game, shadows: Shadows) -> None:
    # Measured with 8 shadows on the attacker's own records: 0.735.
    assert area(RMIA(mode="offline").fit(shadows), game.target, game) > 0.70
    with pytest.raises(InvalidArgumentError, match=r"1200 of 1200\s+records have none.*mode='offline'"):
        RMIA().fit(shadows).score(game.target, game.candidates)


@pytest.mark.parametrize("mode", MODES)
def test_it_finds_nothing_in_a_network_trained_on_neither(
    game: Game, auditor: Shadows, stranger: nn.Module, mode: Mode
) -> None:
    assert abs(area(RMIA(mode=mode).fit(auditor), stranger, game) - 0.5) < FIVE_SIGMA


@pytest.mark.parametrize("mode", MODES)
def test_a_record_that_is_there_eight_times_scores_higher(auditor: Shadows, repetition: Repetition, mode: Mode) -> None:
    assert repetition.share_raised(RMIA(mode=mode).fit(auditor)) >= 0.8


@pytest.mark.parametrize("mode", MODES)
def test_one_fit_serves_many_targets_and_does_not_change(
    game: Game, auditor: Shadows, stranger: nn.Module, mode: Mode
) -> None:
    attack = RMIA(mode=mode).fit(auditor)
    first = attack.score(game.target, game.candidates)
    assert first.dtype == np.float64
    attack.score(stranger, game.candidates)
    np.testing.assert_array_equal(attack.score(game.target, game.candidates), first)
    twice = attack.score(game.target, game.candidates.subset([5, 5]))
    assert twice[0] == twice[1]


def test_the_a_that_is_chosen_is_the_one_that_attacks_best(auditor: Shadows) -> None:
    attack = RMIA(mode="offline").fit(auditor)
    areas = {}
    for a in (0.0, 0.3, attack.a_, 1.0):
        found = []
        for shadow in range(0, 16, 2):
            other = RMIA(mode="offline", a=a).fit(auditor.without_pair_of(shadow))
            scores = other.score(auditor.model(shadow), auditor.pool)
            found.append(roc_auc_score(auditor.inside[shadow], scores, max_fpr=0.02))
        areas[a] = np.mean(found)
    assert max(areas, key=lambda a: areas[a]) == attack.a_
    assert attack.notes() == (f"a = {attack.a_:g}, chosen by attacking the shadow models",)
    assert RMIA(mode="offline", a=0.3).fit(auditor).notes() == ("a = 0.3, given",)
    assert RMIA().fit(auditor).notes() == ()


def test_p_values_count_the_population_with_a_ratio_as_high() -> None:
    phi = np.array([3.0, 1.0, 1.0, -2.0, 0.0])
    margins = np.zeros((2, 5))
    shadows = margin_shadows(margins, np.array([[True] * 5, [False] * 5]))
    attack, pool = RMIA().fit(shadows), shadows.pool
    population, records = pool.subset([1, 2, 3]), pool.subset([0, 1, 3, 4])
    # The two ties count, the record above all has the least p-value there is.
    found = attack.p_values(margin_target(phi), records, population)
    np.testing.assert_allclose(found, [0.25, 0.75, 1.0, 0.75])


@pytest.mark.parametrize("mode", MODES)
def test_p_values_of_non_members_are_uniform(mode: Mode) -> None:
    # 180 records, each with 19 others of its own, from 10 worlds: p takes the values 1/20 .. 1, each as often.
    found = []
    for seed in range(10):
        world = GaussianWorld.draw(seed, 800, 8)
        pool = world.shadows.pool
        attack = RMIA(mode=mode, a=None if mode == "online" else 0.5).fit(world.shadows)
        for rows in np.flatnonzero(~world.inside)[:360].reshape(18, 20).tolist():
            found += attack.p_values(world.target, pool.subset(rows[:1]), pool.subset(rows[1:])).tolist()
    assert len(found) == 180
    for level in (0.05, 0.2):
        # Five standard deviations of a binomial.
        assert abs(np.mean(np.array(found) <= level + 1e-12) - level) < 5 * np.sqrt(level * (1 - level) / 180)


def test_members_get_small_p_values(game: Game, auditor: Shadows) -> None:
    attack = RMIA().fit(auditor)
    population, fresh = game.nonmembers.subset(range(300)), game.nonmembers.subset(range(300, 600))
    share = [(attack.p_values(game.target, part, population) <= 0.05).mean() for part in (game.members, fresh)]
    # At most 0.05 in expectation for the fresh ones; 0.113 is five standard deviations above.
    # Measured: 0.275 and 0.057.
    assert share[0] > 0.2
    assert share[1] < 0.113


def test_p_values_need_a_population_like_the_records(game: Game, auditor: Shadows) -> None:
    attack = RMIA(mode="offline", a=0.5).fit(auditor)
    with pytest.raises(InvalidArgumentError, match=r"\[8\] of 16 for the records, \[0\] for the population"):
        attack.p_values(game.target, game.members, game.attacker)
    outside = attack.p_values(game.target, game.attacker.subset(range(50)), game.attacker.subset(range(50, 90)))
    assert ((outside > 0) & (outside <= 1)).all()


def test_wrong_uses_are_named(game: Game, auditor: Shadows) -> None:
    with pytest.raises(InvalidArgumentError, match="not fitted"):
        RMIA().score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="mode is one of online, offline"):
        RMIA(mode="sideways").fit(auditor)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="a is for mode='offline' and in"):
        RMIA(a=0.5).fit(auditor)
    with pytest.raises(InvalidArgumentError, match=r"a=1\.5"):
        RMIA(mode="offline", a=1.5).fit(auditor)
    with pytest.raises(InvalidArgumentError, match="train at least 4, or give a"):
        RMIA(mode="offline").fit(auditor.select([0, 1]))
    always = auditor.select(auditor.inside[:, 0])
    with pytest.raises(InvalidArgumentError, match="not trained on it"):
        RMIA().fit(always).score(game.target, game.candidates)
    eleven = Records(game.members.x, game.members.y, 11, "eleven classes")
    with pytest.raises(InvalidArgumentError, match="10 classes, and the records have 11"):
        RMIA().fit(auditor).score(game.target, eleven)


def test_it_is_an_estimator_with_a_plain_description(auditor: Shadows) -> None:
    attack = clone(RMIA(mode="offline", a=0.4))
    assert attack.name == "RMIA offline"
    description = attack.fit(auditor).describe()
    assert json.loads(json.dumps(description))["parameters"] == {"mode": "offline", "a": 0.4, "batch_size": 1024}
    assert attack.set_params(mode="online", a=None).name == "RMIA online"
