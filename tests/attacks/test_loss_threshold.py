"""The loss attack."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from privkernels.attacks import LossThreshold
from privkernels.inference import logits
from tests.support.membership import Game, numbered, table_target


def test_the_likelier_member_scores_higher() -> None:
    # Record 0 is fitted well, record 1 less, record 2 is wrong.
    target = table_target(torch.tensor([[9.0, 0.0], [0.0, 1.0], [4.0, 0.0]]))
    scores = LossThreshold().score(target, numbered([0, 1, 1], 2))
    assert scores[0] > scores[1] > scores[2]


def test_the_score_is_minus_the_cross_entropy(game: Game) -> None:
    outputs = logits(game.target, game.members).double()
    expected = -torch.nn.functional.cross_entropy(outputs, game.members.y, reduction="none")
    scores = LossThreshold().score(game.target, game.members)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-9, atol=1e-15)


def test_confident_records_do_not_tie() -> None:
    gaps = torch.arange(20.0, 100.0, 1.0)
    table = torch.stack([gaps, torch.zeros(80)], dim=1)
    assert len(torch.softmax(table, 1)[:, 0].unique()) == 1, "float32 ties them all"
    scores = LossThreshold().score(table_target(table), numbered([0] * 80, 2))
    assert (np.diff(scores) > 0).all()


def test_it_finds_members_of_an_overfitted_network(game: Game) -> None:
    scores = [LossThreshold().score(game.target, part) for part in (game.members, game.nonmembers)]
    truth = np.repeat([1, 0], [len(part) for part in scores])
    assert roc_auc_score(truth, np.concatenate(scores)) > 0.6


def test_the_batch_size_does_not_matter(game: Game) -> None:
    few = LossThreshold(batch_size=7).score(game.target, game.members)
    np.testing.assert_allclose(few, LossThreshold().score(game.target, game.members), rtol=1e-4, atol=1e-7)
