"""Models side by side: sizes, paired differences, and how often a difference is claimed where there is none."""

from __future__ import annotations

import copy
import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from privkernels.attacks import LossThreshold
from privkernels.audit import Comparison, Target, audit_models, compare
from privkernels.audit.compare import Size, accuracy_difference, size_of
from privkernels.errors import CorruptFileError, InvalidArgumentError
from tests.support.membership import Game, train


def pruned(model: nn.Module, share: float) -> nn.Module:
    """A copy whose weights of the smallest magnitude are 0."""
    child = copy.deepcopy(model)
    for parameter in child.parameters():
        if parameter.dim() > 1:
            threshold = parameter.abs().flatten().kthvalue(int(share * parameter.numel())).values
            parameter.data[parameter.abs() <= threshold] = 0.0
    return child


@pytest.fixture(scope="module")
def compared(game: Game) -> Comparison:
    targets = [
        Target("dense", game.target),
        Target("pruned", pruned(game.target, 0.9)),
        Target("twin", train(game.members, game.config, seed=2)),
    ]
    audit = audit_models(targets, [LossThreshold()], game.members, game.nonmembers, test=game.attacker)
    return compare(targets, audit, game.attacker)


def test_a_row_holds_what_is_known_of_a_model(game: Game, compared: Comparison) -> None:
    dense, child, _ = compared.rows
    assert dense.size == Size(2410, 2410, 4 * 2410)
    assert child.size is not None
    assert child.size.nonzero == 2410 - int(0.9 * 64 * 32) - int(0.9 * 32 * 10)
    assert (dense.claimed, dense.attack, dense.outcome) == ("none", "loss threshold", "not asked")
    assert dense.auc == compared.audit.result.targets[0].attacks[0].metrics.auc
    assert dense.accuracy.value == pytest.approx(compared.audit.result.targets[0].test_accuracy)


def test_pruning_away_nine_tenths_shows_in_both_figures(compared: Comparison) -> None:
    pair = compared.pairs[0]
    assert (pair.first, pair.other) == ("dense", "pruned")
    assert pair.accuracy_p_value < 1e-6
    assert pair.accuracy_difference.high < 0
    assert pair.auc_difference.high < 0
    assert "less accurate than dense" in pair.sentence
    assert "finds less in pruned" in pair.sentence


def test_twins_are_not_told_apart(compared: Comparison) -> None:
    sentence = compared.pairs[1].sentence
    assert "No difference in accuracy between twin and dense was found" in sentence
    assert "No difference in what the attack finds was found" in sentence


def test_mcnemar_is_exact_and_the_interval_holds_the_difference() -> None:
    first = np.array([1] * 30 + [0] * 10 + [1] * 50 + [0] * 10, dtype=bool)
    other = np.array([0] * 30 + [1] * 10 + [1] * 50 + [0] * 10, dtype=bool)
    figure, p_value = accuracy_difference(other, first)
    assert figure.value == pytest.approx(-0.2)
    # 30 against 10 of 40 fair coins, both tails.
    assert p_value == pytest.approx(2 * sum(comb(40, k) for k in range(11)) / 2**40)
    assert figure.low < -0.2 < figure.high < 0
    assert accuracy_difference(first, first)[1] == 1.0


def test_an_interval_of_accuracy_covers_as_often_as_it_says() -> None:
    # 400 draws at 95 %: fewer than 366 covered has a probability of less than 0.5 % (binomial).
    rng = np.random.default_rng(1)
    covered = rejected = 0
    for _ in range(400):
        shared = rng.random(300) < 0.8
        first, other = (np.where(rng.random(300) < 0.1, rng.random(300) < 0.8, shared) for _ in range(2))
        figure, p_value = accuracy_difference(other, first)
        covered += figure.low <= 0 <= figure.high
        rejected += p_value <= 0.05
    assert covered >= 366
    assert rejected <= 34


def test_tied_tensors_count_once() -> None:
    tied = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    tied[1].weight = tied[0].weight
    torch.nn.init.ones_(tied[0].weight)
    assert size_of(tied) == Size(16, 16, 64)


def test_it_survives_its_file(compared: Comparison, tmp_path: Path) -> None:
    compared.save(tmp_path / "a.json")
    assert Comparison.load(tmp_path / "a.json") == compared
    (tmp_path / "b.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(CorruptFileError, match="comparison"):
        Comparison.load(tmp_path / "b.json")


def test_one_model_is_no_comparison(game: Game, compared: Comparison) -> None:
    with pytest.raises(InvalidArgumentError, match="two or more"):
        compare([Target("dense", game.target)], compared.audit, game.attacker)
