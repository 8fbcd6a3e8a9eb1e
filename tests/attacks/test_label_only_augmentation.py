"""The label-only attack by augmentation."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from privkernels.attacks import Shadows
from privkernels.attacks.base import Attack
from privkernels.attacks.label_only_augmentation import LabelOnlyAugmentation, image_queries, noise_queries
from privkernels.attacks.labels import predicted_labels
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.randomness import Key
from tests.support.membership import Game, train

CHANCE = 5 * math.sqrt(1201 / (12 * 600 * 600))


@pytest.fixture(scope="module")
def learned(shadows: Shadows) -> LabelOnlyAugmentation:
    return LabelOnlyAugmentation(strength=2).fit(shadows)


def auc(attack: Attack, game: Game, target: nn.Module) -> float:
    scores = [attack.score(target, part) for part in (game.members, game.nonmembers)]
    return float(roc_auc_score(np.repeat([1, 0], [len(part) for part in scores]), np.concatenate(scores)))


def one_hot(target: nn.Module) -> nn.Module:
    class OneHot(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(target(x).argmax(1), 10).float()

    return OneHot()


def test_translations_move_whole_pixels_and_fill_with_zero() -> None:
    x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    moved = [query(x)[0, 0].tolist() for query in image_queries((1, 3, 3), 1, mirrors=False)]
    assert moved == [
        [[4, 5, 6], [7, 8, 9], [0, 0, 0]],
        [[2, 3, 0], [5, 6, 0], [8, 9, 0]],
        [[0, 1, 2], [0, 4, 5], [0, 7, 8]],
        [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
    ]
    assert len(image_queries((1, 9, 9), 3, mirrors=False)) == 24
    mirrored = image_queries((1, 3, 3), 1, mirrors=True)
    assert len(mirrored) == 9
    assert mirrored[4](x)[0, 0].tolist() == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]


def test_noise_is_as_strong_as_asked_and_alike_for_all_records() -> None:
    x = torch.full((2, 10_000), 0.25)
    added = [query(x) - x for query in noise_queries((10_000,), "gaussian", 0.4, 2, Key.from_seed(0))]
    assert abs(float(added[0].std()) - 0.4) < 0.02
    assert torch.equal(added[0][0], added[0][1])
    assert not torch.equal(added[0], added[1])
    (turned,) = noise_queries((10_000,), "bernoulli", 0.1, 1, Key.from_seed(0))
    assert set(turned(x).unique().tolist()) == {0.25, 0.75}
    assert abs(float((turned(x) == 0.75).double().mean()) - 0.1) < 0.02


def test_the_score_counts_right_answers_with_the_record_itself_first() -> None:
    # The target says 1 where the first value exceeds 2.
    def target(x: Tensor) -> Tensor:
        return torch.stack([torch.full_like(x[:, 0], 2.0), x[:, 0]], dim=1)

    records = Records(torch.tensor([[1.5], [3.5], [2.5], [1.0]]), torch.tensor([1, 1, 1, 0]), 2, "four")
    attack = LabelOnlyAugmentation(queries=[lambda x: x - 1, lambda x: x + 1])
    np.testing.assert_array_equal(attack.answers(target, records), [[0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(attack.score(target, records), [1, 6, 5, 6])


@pytest.mark.parametrize("queries", ["translations", "translations and mirrors", "gaussian", "bernoulli"])
def test_labels_are_enough(game: Game, queries: str) -> None:
    attack = LabelOnlyAugmentation(queries=queries, n_queries=5)  # type: ignore[arg-type]
    with_logits = attack.score(game.target, game.members)
    np.testing.assert_array_equal(attack.score(one_hot(game.target), game.members), with_logits)
    assert len(np.unique(with_logits)) > 2


def test_it_finds_members(game: Game, learned: LabelOnlyAugmentation) -> None:
    # 0.62 and 0.68; whether the label is right gives 0.641.
    assert auc(LabelOnlyAugmentation(), game, game.target) > 0.59
    assert auc(learned, game, game.target) > 0.66
    np.testing.assert_array_equal(
        learned.score(one_hot(game.target), game.members), learned.score(game.target, game.members)
    )


def test_a_stranger_has_no_members(game: Game, learned: LabelOnlyAugmentation) -> None:
    stranger = train(game.attacker, game.config, seed=9)
    assert abs(auc(LabelOnlyAugmentation(), game, stranger) - 0.5) < CHANCE
    assert abs(auc(learned, game, stranger) - 0.5) < CHANCE


def test_answers_that_tell_nothing_get_no_weight(game: Game, shadows: Shadows) -> None:
    # A black picture is called the same by every model, whatever it was trained on.
    attack = LabelOnlyAugmentation(queries=[torch.zeros_like]).fit(shadows)
    own, black = attack.model_.coef_[0]
    assert own > 1
    assert abs(black) < 0.2 * own


def test_the_seed_decides_the_noise(game: Game) -> None:
    first, again, other = (
        LabelOnlyAugmentation(queries="gaussian", seed=seed).score(game.target, game.members) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    some = game.members.subset(range(50))
    np.testing.assert_array_equal(
        LabelOnlyAugmentation(queries="gaussian", seed=1, batch_size=7).score(game.target, some), first[:50]
    )


def test_of_tied_outputs_the_lowest_class_is_predicted() -> None:
    assert predicted_labels(lambda x: torch.ones(len(x), 3), torch.zeros(2, 1), 3).tolist() == [0, 0]


def test_it_describes_and_clones_itself() -> None:
    attack = clone(LabelOnlyAugmentation(queries="bernoulli", strength=0.1))
    assert attack.get_params()["strength"] == 0.1
    assert attack.describe()["parameters"]["queries"] == "bernoulli"
    assert attack.access == "labels"
    own = LabelOnlyAugmentation(queries=[image_queries, functools.partial(torch.roll, shifts=1)])
    assert own.describe()["parameters"]["queries"] == ["image_queries", "partial"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"queries": "rotations"}, "translations, translations and mirrors"),
        ({"queries": []}, "at least one query"),
        ({"queries": [lambda x: x[:, :, 1:]]}, "keeps the shape"),
        ({"strength": 8}, "from 1 to 7"),
        ({"strength": 1.5}, "whole number"),
        ({"queries": "gaussian", "strength": -1.0}, "positive standard deviation"),
        ({"queries": "bernoulli", "strength": 1.0}, r"probability in \(0, 1\)"),
        ({"queries": "gaussian", "n_queries": 0}, "n_queries is at least 1"),
    ],
)
def test_bad_settings_are_refused(game: Game, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        LabelOnlyAugmentation(**parameters).score(game.target, game.members)  # type: ignore[arg-type]


def test_bad_records_and_outputs_are_refused(game: Game, learned: LabelOnlyAugmentation) -> None:
    table = Records(torch.zeros(3, 4), torch.tensor([0, 1, 2]), 3, "table")
    with pytest.raises(InvalidArgumentError, match=r"shape \[4\].*bernoulli"):
        LabelOnlyAugmentation().score(lambda x: torch.zeros(len(x), 3), table)
    with pytest.raises(InvalidArgumentError, match="10 classes"):
        learned.score(lambda x: torch.zeros(len(x), 3), table)
    with pytest.raises(NonFiniteValueError):
        LabelOnlyAugmentation().score(lambda x: torch.full((len(x), 10), math.nan), game.members)
