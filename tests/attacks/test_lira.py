"""The likelihood ratio attack."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from privkernels.attacks import LossThreshold, Shadows, train_shadows
from privkernels.attacks.lira import LiRA, Mode, Variance
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.training import TrainingConfig
from tests.support.membership import FIVE_SIGMA, Game, GaussianWorld, Repetition, area, margin_shadows, margin_target

MODES: tuple[Mode, ...] = ("online", "offline", "imputed")


def mirrored(x: Tensor) -> Tensor:
    return x.flip(-1)


def by_hand(margins: np.ndarray, inside: np.ndarray, phi: np.ndarray, mode: Mode, variance: Variance) -> list[float]:
    """Online and offline scores, record by record, straight from the formulas."""

    def pooled(which: np.ndarray) -> float:
        groups = [margins[which[:, r], r] for r in range(len(phi))]
        return sum(((g - g.mean()) ** 2).sum() for g in groups) / sum(len(g) - 1 for g in groups)

    v_in, v_out = pooled(inside), pooled(~inside)
    scores = []
    for r in range(len(phi)):
        log_p = []
        for values, v in ((margins[inside[:, r], r], v_in), (margins[~inside[:, r], r], v_out)):
            n = len(values)
            if variance == "pooled":
                frozen = stats.norm(values.mean(), np.sqrt(v))
            elif variance == "per-record":
                frozen = stats.norm(values.mean(), values.std(ddof=1))
            else:
                scale = np.sqrt((8 * v + ((values - values.mean()) ** 2).sum()) / (8 + n - 1) * (1 + 1 / n))
                frozen = stats.t(8 + n - 1, values.mean(), scale)
            log_p.append(frozen.logpdf(phi[r]) if mode == "online" else -frozen.logsf(phi[r]))
        scores.append(log_p[0] - log_p[1] if mode == "online" else log_p[1])
    return scores


@pytest.mark.parametrize(
    ("mode", "variance"),
    [
        ("online", "pooled"),
        ("online", "per-record"),
        ("online", "shrunken"),
        ("offline", "pooled"),
        ("offline", "per-record"),
    ],
)
def test_scores_are_the_formulas(mode: Mode, variance: Variance) -> None:
    world = GaussianWorld.draw(3, 7, 64)
    records = world.shadows.pool
    phi = world.target(records.x)[:, 0].numpy()
    attack = LiRA(mode=mode, variance=variance).fit(world.shadows)
    expected = by_hand(world.shadows.margins(records), world.shadows.inside, phi, mode, variance)
    np.testing.assert_allclose(attack.score(world.target, records), expected, rtol=1e-9)


def test_auto_is_shrunken_online_and_pooled_elsewhere() -> None:
    world = GaussianWorld.draw(3, 40, 64)
    for mode in MODES:
        attack = LiRA(mode=mode).fit(world.shadows)
        named: Variance = "shrunken" if mode == "online" else "pooled"
        same = LiRA(mode=mode, variance=named).fit(world.shadows)
        np.testing.assert_array_equal(*(a.score(world.target, world.shadows.pool) for a in (attack, same)))
        assert attack.notes() == (f"variance: {named}",)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_many_shadows_it_is_nearly_the_best_attack_there_is(seed: int) -> None:
    # The exact likelihood ratio has AUC 0.85; measured shortfalls: online up to 0.0065, pooled up to 0.0045.
    world = GaussianWorld.draw(seed, 4000, 64)
    best = roc_auc_score(world.inside, world.optimum)
    for variance, short in (("shrunken", 0.015), ("pooled", 0.012)):
        attack = LiRA(variance=variance).fit(world.shadows)
        assert abs(roc_auc_score(world.inside, attack.score(world.target, world.shadows.pool)) - best) < short


def test_imputation_is_as_good_as_knowing_where_the_shift_is_the_same_for_all() -> None:
    rng = np.random.default_rng(5)
    mean_out = 3.0 * rng.standard_normal(2000)
    first = rng.random((8, 2000)) < 0.5
    inside = np.stack([first, ~first], axis=1).reshape(16, 2000)
    member = rng.random(2000) < 0.5
    noise = rng.standard_normal((17, 2000))
    margins, phi = (mean_out + 1.5 * which + e for which, e in ((inside, noise[:16]), (member, noise[16])))
    scores = [
        LiRA(mode=mode, variance="pooled").fit(margin_shadows(margins, inside)).score(margin_target(phi), records)
        for mode in MODES
        if (records := margin_shadows(margins, inside).pool)
    ]
    online, offline, imputed = (roc_auc_score(member, score) for score in scores)
    best = roc_auc_score(member, phi - mean_out)
    # Measured: best 0.861, imputed 0.845, online 0.841, offline 0.845.
    assert best > imputed > best - 0.03
    assert imputed > online - 0.005
    assert offline > best - 0.03


def test_imputation_never_looks_at_a_records_own_in_models() -> None:
    world = GaussianWorld.draw(7, 60, 16)
    before = LiRA(mode="imputed").fit(world.shadows).score(world.target, world.shadows.pool)
    changed = world.shadows.margins(world.shadows.pool).copy()
    # A common shift leaves the pooled variance as it is, and moves the record's IN mean far away.
    changed[world.shadows.inside[:, 11], 11] += 50.0
    after = (
        LiRA(mode="imputed").fit(margin_shadows(changed, world.shadows.inside)).score(world.target, world.shadows.pool)
    )
    assert after[11] == pytest.approx(before[11], rel=1e-9)
    fold = [digest[0] & 1 for digest in world.shadows.pool.digests()]
    moved = ~np.isclose(after, before, rtol=1e-9)
    assert moved.any(), "the other fold learns from it"
    assert all(fold[record] != fold[11] for record in np.flatnonzero(moved))


@pytest.mark.parametrize("mode", MODES)
def test_a_higher_margin_scores_higher_about_the_worlds(mode: Mode) -> None:
    world = GaussianWorld.draw(2, 30, 16)
    records = world.shadows.pool
    attack = LiRA(mode=mode).fit(world.shadows)
    outside = world.shadows.margins(records).mean(axis=0)
    low, high = (attack.score(margin_target(outside + step), records) for step in (-1.0, 1.5))
    assert (high > low).mean() > 0.9


def test_offline_takes_the_tail_and_not_the_density() -> None:
    # A record that is fitted much worse than expected is the least likely member.
    world = GaussianWorld.draw(2, 30, 16)
    attack = LiRA(mode="offline").fit(world.shadows)
    records, outside = world.shadows.pool, np.zeros(30)
    scores = [attack.score(margin_target(outside + step), records) for step in (-30.0, 0.0, 30.0)]
    assert (np.diff(scores, axis=0) >= 0).all()
    assert (scores[2] > scores[0]).all()


@pytest.mark.parametrize(("mode", "level"), [("online", 0.72), ("offline", 0.66), ("imputed", 0.73)])
def test_it_finds_members_of_an_overfitted_network(game: Game, auditor: Shadows, mode: Mode, level: float) -> None:
    # Measured with 16 shadows: online 0.746, offline 0.695, imputed 0.760; the loss 0.636.
    found = area(LiRA(mode=mode).fit(auditor), game.target, game)
    assert found > level
    assert found > area(LossThreshold(), game.target, game) + 0.03


def test_averages_over_held_out_shadows_are_in_the_expected_order(auditor: Shadows) -> None:
    # Measured: online 0.752, offline 0.700, imputed 0.760.
    means = {}
    for attack in (LiRA(mode=mode) for mode in MODES):
        scored = []
        for number in range(0, 16, 2):
            attack.fit(auditor.without_pair_of(number))
            scores = attack.score(auditor.model(number), auditor.pool)
            scored.append(roc_auc_score(auditor.inside[number], scores))
        means[attack.mode] = float(np.mean(scored))
    assert means["imputed"] > means["offline"] + 0.03
    assert means["online"] > means["offline"] + 0.03


def test_imputed_and_offline_need_no_shadow_trained_on_the_records(game: Game, shadows: Shadows) -> None:
    # Measured with 8 shadows on the attacker's own records: imputed 0.730, offline 0.638.
    assert area(LiRA(mode="imputed").fit(shadows), game.target, game) > 0.70
    assert area(LiRA(mode="offline").fit(shadows), game.target, game) > 0.60
    with pytest.raises(InvalidArgumentError, match=r"1200 of 1200 records have fewer.*mode='imputed'"):
        LiRA().fit(shadows).score(game.target, game.candidates)


@pytest.mark.parametrize("mode", MODES)
def test_it_finds_nothing_in_a_network_trained_on_neither(
    game: Game, auditor: Shadows, stranger: nn.Module, mode: Mode
) -> None:
    assert abs(area(LiRA(mode=mode).fit(auditor), stranger, game) - 0.5) < FIVE_SIGMA


@pytest.mark.parametrize("mode", MODES)
def test_a_record_that_is_there_eight_times_scores_higher(auditor: Shadows, repetition: Repetition, mode: Mode) -> None:
    assert repetition.share_raised(LiRA(mode=mode).fit(auditor)) >= 0.8


@pytest.mark.parametrize("mode", MODES)
def test_a_score_depends_on_the_record_alone_and_one_fit_serves_many_targets(
    game: Game, auditor: Shadows, stranger: nn.Module, mode: Mode
) -> None:
    attack = LiRA(mode=mode).fit(auditor)
    first = attack.score(game.target, game.candidates)
    assert first.dtype == np.float64
    attack.score(stranger, game.candidates)
    np.testing.assert_array_equal(attack.score(game.target, game.candidates), first)
    rows = [900, 3, 77]
    np.testing.assert_allclose(
        attack.score(game.target, game.candidates.subset(rows)), first[rows], rtol=1e-4, atol=1e-5
    )
    # Equal records tie.
    twice = attack.score(game.target, game.candidates.subset([5, 5]))
    assert twice[0] == twice[1]


@pytest.mark.parametrize("mode", MODES)
def test_scores_of_several_queries_are_averaged(game: Game, auditor: Shadows, mode: Mode) -> None:
    some = game.candidates.subset(range(0, 1200, 12))
    alone, mirror, both = (
        LiRA(mode=mode, queries=queries).fit(auditor).score(game.target, some)
        for queries in ((None,), (mirrored,), (None, mirrored))
    )
    assert not np.allclose(alone, mirror)
    np.testing.assert_allclose(both, (alone + mirror) / 2, rtol=1e-9)


def test_a_variance_per_record_needs_eight_shadows_of_each_kind(game: Game, auditor: Shadows) -> None:
    attack = LiRA(variance="per-record")
    # Measured: 0.733.
    assert area(attack.fit(auditor), game.target, game) > 0.70
    attack.fit(auditor.without_pair_of(0))
    with pytest.raises(InvalidArgumentError, match="8 or more shadow models not trained on it"):
        attack.score(game.target, game.candidates)


def test_wrong_uses_are_named(game: Game, auditor: Shadows) -> None:
    with pytest.raises(InvalidArgumentError, match="not fitted"):
        LiRA().score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="mode is one of online, offline, imputed"):
        LiRA(mode="sideways").fit(auditor)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="variance is one of"):
        LiRA(variance="none").fit(auditor)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="at least one query"):
        LiRA(queries=()).fit(auditor)
    with pytest.raises(InvalidArgumentError, match="variance='pooled'"):
        LiRA(mode="imputed", variance="shrunken").fit(auditor)
    with pytest.raises(InvalidArgumentError, match="at least 4 shadow models"):
        LiRA().fit(auditor.select([0, 1]))
    always = auditor.select(auditor.inside[:, 0])
    with pytest.raises(InvalidArgumentError, match="not trained on it"):
        LiRA(mode="offline").fit(always).score(game.target, game.candidates)
    with pytest.raises(TooFewRecordsError, match="larger pool"):
        LiRA(mode="imputed").fit(GaussianWorld.draw(0, 18, 16).shadows)
    eleven = Records(game.members.x, game.members.y, 11, "eleven classes")
    with pytest.raises(InvalidArgumentError, match="10 classes, and the records have 11"):
        LiRA().fit(auditor).score(game.target, eleven)


def test_shadows_of_too_short_a_training_are_no_obstacle(game: Game) -> None:
    quick = TrainingConfig(epochs=1, batch_size=64, learning_rate=0.01)
    trained = train_shadows(game.make_model, game.candidates, quick, 4)
    for mode in MODES:
        assert np.isfinite(LiRA(mode=mode).fit(trained).score(game.target, game.candidates)).all()


def test_it_is_an_estimator_with_a_plain_description(auditor: Shadows) -> None:
    attack = clone(LiRA(mode="imputed", queries=(None, mirrored)))
    assert attack.name == "LiRA imputed"
    assert attack.set_params(mode="offline").name == "LiRA offline"
    steps: list[tuple[int, int, str]] = []
    description = attack.fit(auditor, progress=lambda *step: steps.append(step)).describe()
    assert json.loads(json.dumps(description))["parameters"]["queries"] == [None, "mirrored"]
    assert description["fidelity"]["n_models"] == 16
    assert [step[:2] for step in steps] == [(1, 2), (2, 2)]
