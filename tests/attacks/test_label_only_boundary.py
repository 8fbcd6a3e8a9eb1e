"""Label-only attacks by distance to the decision boundary."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from privkernels.attacks.base import Attack
from privkernels.attacks.label_only_boundary import LabelOnlyBoundary, LabelOnlyNoise, probit_distance
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from tests.support.membership import Game, train


def plane(d: int, n: int = 60) -> tuple[Callable[[Tensor], Tensor], Records, np.ndarray]:
    """A target with a plane as boundary, records on both sides, and their distances; it answers with one-hot labels."""
    generator = torch.Generator().manual_seed(d)
    normal = torch.randn(d, generator=generator)
    normal = normal / normal.norm()
    x = torch.randn(n, d, generator=generator)
    offset = 0.3

    def target(x: Tensor) -> Tensor:
        return nn.functional.one_hot((x.flatten(1) @ normal + offset > 0).long(), 2).float()

    side = x.double() @ normal.double() + offset
    return target, Records(x, (side > 0).long(), 2, "plane"), side.abs().numpy()


def auc(attack: Attack, game: Game, target: nn.Module, n: int = 600) -> float:
    scores = [attack.score(target, part.subset(range(n))) for part in (game.members, game.nonmembers)]
    return float(roc_auc_score(np.repeat([1, 0], [len(part) for part in scores]), np.concatenate(scores)))


@pytest.mark.parametrize("d", [2, 20])
def test_the_distance_to_a_plane_is_found_within_five_percent(d: int) -> None:
    target, records, exact = plane(d)
    found = LabelOnlyBoundary(max_queries=3000, clip=None).score(target, records)
    assert (found >= exact * (1 - 1e-5)).all()
    assert (found <= exact * 1.05).all()


def test_more_queries_find_shorter_distances() -> None:
    target, records, exact = plane(64)
    ratios = [
        np.median(LabelOnlyBoundary(max_queries=queries, clip=None).score(target, records) / exact)
        for queries in (200, 500, 1500)
    ]
    assert ratios[0] > ratios[1] > ratios[2] > 1
    assert ratios[2] < 1.08


def test_the_nearest_of_several_classes_bounds_the_distance() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 4)
    x = torch.randn(80, 6)
    with torch.no_grad():
        logits = linear(x)
    y = logits.argmax(1)
    rows = torch.arange(80)
    gaps = (logits[rows, y][:, None] - logits).double()
    norms = (linear.weight[y][:, None] - linear.weight[None]).norm(dim=2).double()
    gaps[rows, y] = math.inf
    exact = (gaps / norms.clamp_min(1e-9)).amin(dim=1).detach().numpy()
    found = LabelOnlyBoundary(max_queries=2000, clip=None).score(linear, Records(x, y, 4, "wedges"))
    assert (found >= exact * (1 - 1e-4)).all()
    assert np.median(found / exact) < 1.05


def test_queries_stay_in_the_box_and_in_the_budget() -> None:
    asked = []

    def target(x: Tensor) -> Tensor:
        asked.append(x)
        return torch.stack([x.sum(1), 16 - x.sum(1)], dim=1)

    x = torch.rand(7, 16, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) < 8).long()
    for budget in (100, 450):
        asked.clear()
        LabelOnlyBoundary(max_queries=budget).score(target, Records(x, y, 2, "box"))
        queries = torch.cat(asked)
        assert 0.5 * budget * 7 < len(queries) <= budget * 7
        assert queries.min() >= 0
        assert queries.max() <= 1
    asked.clear()
    LabelOnlyBoundary(max_queries=100, clip=None).score(target, Records(x, y, 2, "no box"))
    assert torch.cat(asked).min() < 0


def test_the_worst_case_keeps_the_budget_too() -> None:
    # A start is found at the last try, and no step leads anywhere: every bisection and halving is made.
    calls: list[int] = []

    def target(x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.tensor([[0.0, 1.0]] if len(calls) == 21 else [[1.0, 0.0]]).expand(len(x), 2)

    record = Records(torch.full((1, 16), 0.5), torch.tensor([0]), 2, "one")
    for budget in (100, 101, 250):
        calls.clear()
        LabelOnlyBoundary(max_queries=budget, directions=60).score(target, record)
        assert sum(calls) <= budget
        assert sum(calls) > budget - 30


def test_the_box_is_respected_where_the_boundary_lies_outside_it() -> None:
    # Only the corner (1, 1) is of the other class; from (0.9, 0.5) it is 0.51 away, and the plane 0.42.
    def target(x: Tensor) -> Tensor:
        return torch.stack([torch.full((len(x),), 1.99), x.sum(1)], dim=1)

    records = Records(torch.tensor([[0.9, 0.5]]), torch.tensor([0]), 2, "corner")
    found = LabelOnlyBoundary(max_queries=3000).score(target, records)[0]
    free = LabelOnlyBoundary(max_queries=3000, clip=None).score(target, records)[0]
    assert abs(free - 0.59 / math.sqrt(2)) < 0.01
    assert found > 0.49


def test_wrong_labels_have_distance_zero_and_no_boundary_the_largest() -> None:
    target, records, exact = plane(5)
    wrong = Records(records.x, 1 - records.y, 2, "wrong")
    assert (LabelOnlyBoundary(clip=None).score(target, wrong) == 0).all()

    def always_one(x: Tensor) -> Tensor:
        return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    ones = Records(records.x, torch.ones(60, dtype=torch.int64), 2, "ones")
    scores = LabelOnlyBoundary(clip=None).score(always_one, ones)
    assert np.isfinite(scores).all()
    assert scores.min() > exact.max()


def test_noise_finds_the_signed_distance_to_a_plane() -> None:
    target, records, exact = plane(20)
    attack = LabelOnlyNoise(scales=(0.2, 0.5, 1.0, 2.0), n_queries=400)
    found = attack.score(target, records)
    # At the largest distances few answers are wrong, and all records share the noise.
    near = exact < 2
    assert np.abs(found - exact)[near].max() < 0.3
    assert np.abs(found - exact)[near].mean() < 0.07
    wrong = Records(records.x, 1 - records.y, 2, "wrong")
    np.testing.assert_allclose(attack.score(target, wrong), -found, atol=1e-9)


def test_the_probit_distance_is_the_likeliest() -> None:
    scales = np.array([0.5, 1.0, 2.0])
    right = 1e6 * stats.norm.cdf(np.array([[-0.4, 0.0, 1.1]]) / scales[:, None])
    np.testing.assert_allclose(probit_distance(right, 10**6, scales), [-0.4, 0.0, 1.1], atol=1e-4)
    certain = probit_distance(np.array([[10.0, 0.0]] * 3), 10, scales)
    assert np.isfinite(certain).all()
    assert math.isclose(certain[0], -certain[1], rel_tol=1e-9)


def test_they_find_members(game: Game) -> None:
    # 0.62 and 0.63 on all records; whether the label is right gives 0.64.
    assert auc(LabelOnlyBoundary(max_queries=150), game, game.target, 300) > 0.57
    assert auc(LabelOnlyNoise(), game, game.target) > 0.57


def test_a_stranger_has_no_members(game: Game) -> None:
    stranger = train(game.attacker, game.config, seed=9)
    bound = 5 * math.sqrt(601 / (12 * 300 * 300))
    assert abs(auc(LabelOnlyBoundary(max_queries=150), game, stranger, 300) - 0.5) < bound
    assert abs(auc(LabelOnlyNoise(), game, stranger, 300) - 0.5) < bound


@pytest.mark.parametrize("attack", [LabelOnlyBoundary(max_queries=150), LabelOnlyNoise(n_queries=5)])
def test_labels_are_enough_and_the_seed_decides(game: Game, attack: LabelOnlyBoundary | LabelOnlyNoise) -> None:
    def one_hot(x: Tensor) -> Tensor:
        return nn.functional.one_hot(game.target(x).argmax(1), 10).float()

    some = game.members.subset(range(60))
    first = attack.score(game.target, some)
    np.testing.assert_array_equal(attack.score(one_hot, some), first)
    # What else is scored does not matter.
    np.testing.assert_allclose(attack.score(game.target, some.subset(range(10))), first[:10], rtol=1e-3)
    assert not np.array_equal(clone(attack).set_params(seed=1).score(game.target, some), first)


@pytest.mark.parametrize("make", [LabelOnlyBoundary, LabelOnlyNoise])
def test_they_describe_and_clone_themselves(make: type[Attack]) -> None:
    attack = clone(make(seed=3))
    assert attack.get_params()["seed"] == 3
    assert attack.describe()["name"].startswith("label-only")
    assert attack.access == "labels"


def test_bad_settings_are_refused(game: Game) -> None:
    with pytest.raises(InvalidArgumentError, match="max_queries >= 100"):
        LabelOnlyBoundary(max_queries=99).score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="outside the box"):
        LabelOnlyBoundary(clip=(0.1, 1.0)).score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="positive scales"):
        LabelOnlyNoise(scales=()).score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="positive scales"):
        LabelOnlyNoise(scales=(0.0,)).score(game.target, game.members)
