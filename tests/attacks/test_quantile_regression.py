"""The quantile regression attack."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from privkernels.attacks import LossThreshold, Shadows
from privkernels.attacks.quantile_regression import QuantileRegression
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from tests.support.membership import FIVE_SIGMA, Game, Repetition, area, train


class Linear(nn.Module):
    """Two classes; the margin of class 0 has a mean 4 x[0], a scale exp(x[1]), noise x[2] and a shift x[3]."""

    def forward(self, x: Tensor) -> Tensor:
        margin = 4.0 * x[:, 0] + torch.exp(x[:, 1]) * x[:, 2] + x[:, 3]
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def linear_records(seed: int, n: int, member: bool) -> Records:
    """The attack sees x[0] and x[1] only: the rest is zero in what it is told, and added behind its back."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    x[:, 1] *= 0.7
    x[:, 3] = torch.exp(x[:, 1]) * 1.5 if member else 0.0
    return Records(x, torch.zeros(n, dtype=torch.int64), 2, "linear")


class Blinded(QuantileRegression):
    """The attack with x[2] and x[3], the noise and the shift of members, hidden from its regression."""

    def _regression(self, public: Records, margins: np.ndarray, records: Records) -> tuple[np.ndarray, np.ndarray]:
        seen = [Records(part.x[:, :2].contiguous(), part.y, 2, part.name) for part in (public, records)]
        return super()._regression(seen[0], margins, seen[1])


def test_where_mean_and_scale_are_known_it_is_nearly_the_best_attack_there_is() -> None:
    attack = Blinded().fit(linear_records(0, 1500, member=False))
    members, others = (linear_records(seed, 1500, seed == 1) for seed in (1, 2))
    scores = [attack.score(Linear(), part) for part in (members, others)]
    # The score is N(1.5, 1) for members and N(0, 1) for others when m and s are right: AUC Phi(1.5 / sqrt 2).
    found = roc_auc_score(np.repeat([1, 0], 1500), np.concatenate(scores))
    assert abs(found - stats.norm.cdf(1.5 / np.sqrt(2.0))) < 0.03
    # The margin alone, without knowing what to expect of a record, is far from that.
    margins = [Linear()(part.x)[:, 0].numpy() for part in (members, others)]
    assert roc_auc_score(np.repeat([1, 0], 1500), np.concatenate(margins)) < found - 0.1
    # And nominal quantiles hold: five standard deviations of a binomial, and a tenth for what is estimated.
    for rate in (0.1, 0.02):
        share = (scores[1] > stats.norm.isf(rate)).mean()
        assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / 1500) + 0.1 * rate


def test_it_beats_the_loss_on_overfitted_networks(game: Game, auditor: Shadows) -> None:
    # Targets are shadow models of the auditor, the public records the attacker's. Measured: AUC 0.667 against 0.639.
    attack, areas, false = QuantileRegression().fit(game.attacker), [], []
    for shadow in (0, 5, 10):
        inside, target = auditor.inside[shadow], auditor.model(shadow)
        scores, loss = (a.score(target, auditor.pool) for a in (attack, LossThreshold()))
        areas.append([roc_auc_score(inside, scores), roc_auc_score(inside, loss)])
        false.append((scores[~inside] > stats.norm.isf(0.1)).mean())
    ours, losses = np.mean(areas, axis=0)
    assert ours > losses + 0.01
    assert ours > 0.64
    # Measured: 0.079 of fresh non-members above the nominal 90 % quantile.
    assert 0.03 < np.mean(false) < 0.13


def test_it_finds_nothing_in_a_network_trained_on_neither(game: Game) -> None:
    # The public records must be non-members too: half of the attacker's trains the stranger.
    stranger = train(game.attacker.subset(range(300)), game.config, seed=9)
    attack = QuantileRegression().fit(game.attacker.subset(range(300, 597)))
    assert abs(area(attack, stranger, game) - 0.5) < FIVE_SIGMA


def test_a_record_that_is_there_eight_times_scores_higher(game: Game, repetition: Repetition) -> None:
    # Measured: 0.73. Each target is measured by a regression of its own, so this is noisier than for other attacks.
    assert repetition.share_raised(QuantileRegression().fit(game.attacker)) >= 0.7


def test_one_fit_serves_many_targets_and_does_not_change(game: Game, stranger: nn.Module) -> None:
    attack = QuantileRegression().fit(game.attacker)
    some = game.candidates.subset([5, 5, *range(700, 760)])
    first = attack.score(game.target, some)
    assert first.dtype == np.float64
    assert first[0] == first[1]
    attack.score(stranger, some)
    np.testing.assert_array_equal(attack.score(game.target, some), first)
    alone = attack.score(game.target, game.candidates.subset([5]))
    np.testing.assert_allclose(alone, first[:1], rtol=1e-4, atol=1e-4)


def test_a_target_that_answers_alike_to_everything_gives_finite_ties(game: Game) -> None:
    scores = QuantileRegression().fit(game.attacker).score(lambda x: torch.zeros(len(x), 10), game.members)
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() < 1e-3


def test_wrong_uses_are_named(game: Game) -> None:
    with pytest.raises(InvalidArgumentError, match="not fitted"):
        QuantileRegression().score(game.target, game.members)
    with pytest.raises(TooFewRecordsError, match="at least 100 public records, got 99"):
        QuantileRegression().fit(game.attacker.subset(range(99)))
    attack = QuantileRegression().fit(game.attacker)
    eleven = Records(game.members.x, game.members.y, 11, "eleven classes")
    flat = Records(game.members.x.flatten(1), game.members.y, 10, "flat")
    for other in (eleven, flat):
        with pytest.raises(InvalidArgumentError, match="records of one kind"):
            attack.score(game.target, other)


def test_public_records_are_not_scored(game: Game) -> None:
    # Unchecked, an audit whose public records are its non-members said of every target that it leaks.
    attack = QuantileRegression().fit(game.nonmembers)
    with pytest.raises(InvalidArgumentError, match="600 of 600 records to score are among the public records"):
        attack.score(game.target, game.nonmembers)
    some = (
        torch.cat([game.members.x[:95], game.nonmembers.x[:5]]),
        torch.cat([game.members.y[:95], game.nonmembers.y[:5]]),
    )
    assert len(attack.score(game.target, Records(*some, 10, "five by chance"))) == 100


def test_it_is_an_estimator_with_a_plain_description() -> None:
    attack = clone(QuantileRegression(seed=3))
    assert json.loads(json.dumps(attack.describe()))["parameters"] == {"seed": 3, "batch_size": 1024}
    assert attack.access == "outputs"
