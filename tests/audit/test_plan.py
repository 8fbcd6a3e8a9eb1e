"""The plan of an audit: budgets, shadow models, attacks that can and cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privkernels.attacks import Attack, LossThreshold, PublicDataAttack, ShadowModelAttack
from privkernels.audit import plan
from privkernels.audit.plan import Clock, Knowledge, all_attacks, parse_duration, shadows_within, why_not
from privkernels.errors import InvalidArgumentError
from privkernels.training import TrainingConfig
from tests.support.membership import Game

QUICK = TrainingConfig(epochs=1, batch_size=64, learning_rate=0.1)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("30", 30), (" 2 M ", 120)])
def test_a_time_is_read_as_it_is_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10 days", "-5m", "0", "1e3", "ten"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="10m"):
        parse_duration(text)


class Watch:
    """A clock that the work moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_clock_counts_down_and_without_a_budget_never_ends() -> None:
    watch = Watch()
    clock, free = Clock(60, watch), Clock(None, watch)
    watch.time = 45
    assert clock.left() == 15
    assert clock.elapsed() == 45
    assert free.left() == float("inf")
    with pytest.raises(InvalidArgumentError):
        Clock(0)


def each(new: int) -> float:
    """Training in processes: 1 s a shadow."""
    return float(new)


def stack(new: int) -> float:
    """Stacks of 64 small networks: 4 s each, however many are in it."""
    return 4.0 * -(-new // 64)


@pytest.mark.parametrize(
    ("budget", "most", "cost", "cached", "asked"),
    [
        # 60 % of the budget: 8 show that 32 fit, and no more.
        (100, None, each, False, [8, 32]),
        (1, None, each, False, [8]),
        (1e6, 64, each, False, [8, 64]),
        (1e6, 4, each, False, [4]),
        (None, None, each, False, [64]),
        (None, 10, each, False, [10]),
        # 8 at 0.5 s each let 32 fit, which show that 128 do; the cache keeps these for 256.
        (40.1, 256, stack, False, [8, 32, 128]),
        (40.1, 256, stack, True, [8, 32, 128, 256]),
    ],
)
def test_shadows_are_trained_as_time_allows(
    game: Game,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    budget: float | None,
    most: int | None,
    cost: Callable[[int], float],
    cached: bool,
    asked: list[int],
) -> None:
    watch, seen = Watch(), [0]

    def fake(make: Any, pool: Any, config: Any, n: int, *, cache: Path | None, **settings: Any) -> str:
        watch.time += cost(n - seen[-1] // 64 * 64 if cache else n)
        seen.append(n)
        return f"{n} shadows"

    monkeypatch.setattr(plan, "train_shadows", fake)
    cache = tmp_path if cached else None
    found = shadows_within(game.make_model, game.candidates, QUICK, Clock(budget, watch), most=most, cache=cache)
    assert seen[1:] == asked
    assert found == f"{asked[-1]} shadows"


class Inside(LossThreshold):
    access = "weights"


class Public(PublicDataAttack):
    name = "public"

    def fit(self, public: Any) -> Public:
        return self

    def score(self, target: Any, records: Any) -> Any:
        raise AssertionError


def test_what_cannot_be_made_says_why(game: Game) -> None:
    def predict(x: Any) -> Any:
        return game.target(x)

    assert why_not(LossThreshold(), predict, Knowledge()) is None
    assert "looks inside" in str(why_not(Inside(), predict, Knowledge()))
    assert why_not(Inside(), game.target, Knowledge()) is None
    assert "shadow models" in str(why_not(ShadowModelAttack(), game.target, Knowledge()))
    assert "public records" in str(why_not(Public(), game.target, Knowledge()))
    assert why_not(Public(), game.target, Knowledge(public=game.attacker)) is None


def test_all_attacks_have_names_of_their_own_and_describe_themselves(game: Game) -> None:
    attacks = all_attacks(game.members)
    assert len({attack.name for attack in attacks}) == len(attacks)
    assert all(isinstance(attack, Attack) and attack.describe()["class"] for attack in attacks)
