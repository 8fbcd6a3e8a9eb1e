"""The plan of an audit: budgets, shadow models, attacks that can and cannot be made."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("budget", "most", "cost", "asked"),
    [
        # 60 % of the budget, at 1 s a shadow: 8, then 16 again from the start, then 16 more, ...
        (100, None, 1.0, [8, 16, 32]),
        (1, None, 1.0, [8]),
        (1e6, 64, 1.0, [8, 16, 32, 64]),
        (1e6, 4, 1.0, [4]),
        (None, None, 1.0, [64]),
        (None, 10, 1.0, [10]),
    ],
)
def test_shadows_are_trained_in_steps_that_fit(
    game: Game, monkeypatch: pytest.MonkeyPatch, budget: float | None, most: int | None, cost: float, asked: list[int]
) -> None:
    watch, seen, trained = Watch(), [], [0]

    def fake(make: Any, pool: Any, config: Any, n: int, **settings: Any) -> str:
        watch.time += cost * (n - trained[0] if trained[0] % 16 == 0 else n)
        trained[0] = n
        seen.append(n)
        return f"{n} shadows"

    monkeypatch.setattr(plan, "train_shadows", fake)
    found = shadows_within(game.make_model, game.candidates, QUICK, Clock(budget, watch), most=most)
    assert seen == asked
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
