"""Scores that the next audit takes over: the same figures, without the work, and never another model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privkernels.attacks import LossThreshold, ShadowModelAttack, Shadows, train_shadows
from privkernels.audit import ModelAudit, Target, Threshold, audit_models
from privkernels.audit.kept_scores import KeptAttack
from privkernels.audit.plan import Knowledge, fit
from privkernels.training import TrainingConfig
from tests.support.membership import Game

CONFIG = TrainingConfig(epochs=3, batch_size=32, learning_rate=0.1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shadows(game: Game, cache: Path) -> Shadows:
    return train_shadows(game.make_model, game.candidates, CONFIG, 8, cache=cache)


def test_an_audit_that_was_interrupted_goes_on_where_it_stopped(
    game: Game, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> ModelAudit:
        attacks = [LossThreshold(), ShadowModelAttack(min_class_records=500)]
        return audit_models(
            [Target("t", game.target)], attacks, game.members, game.nonmembers, make_model=game.make_model,
            config=CONFIG, n_shadows=8, cache=tmp_path, thresholds=[Threshold(0.6)],
        )  # fmt: skip

    whole = run()
    score, made = ShadowModelAttack.score, []

    def counted(attack: ShadowModelAttack, *args: Any) -> Any:
        made.append(1)
        return score(attack, *args)

    monkeypatch.setattr(ShadowModelAttack, "score", counted)
    # The last one written is the chosen attack on the non-members: as if the audit had been killed just before.
    max((tmp_path / "scores").iterdir(), key=lambda path: path.stat().st_mtime_ns).unlink()
    again = run()
    assert len(made) == 1
    for part in ("members", "nonmembers", "test", "attacks", "warnings"):
        assert getattr(again.result, part) == getattr(whole.result, part)
    assert [attack.scores[0].tolist() for attack in again.result.targets[0].attacks] == [
        attack.scores[0].tolist() for attack in whole.result.targets[0].attacks
    ]
    assert again.verdicts == whole.verdicts
    assert again.choice == whole.choice


def kept(game: Game, shadows: Shadows, folder: Path, **parameters: Any) -> Any:
    attack = ShadowModelAttack(**({"min_class_records": 500} | parameters))
    return fit(attack, Knowledge(shadows), folder)


def test_scores_are_those_of_the_attack(game: Game, shadows: Shadows, tmp_path: Path) -> None:
    attack = kept(game, shadows, tmp_path)
    expected = ShadowModelAttack(min_class_records=500).fit(shadows)
    assert np.array_equal(attack.score(game.target, game.members), expected.score(game.target, game.members))
    assert attack.describe() == expected.describe()
    assert attack.notes() == expected.notes()
    assert attack.fidelity() == expected.fidelity()
    assert attack.name == expected.name
    assert attack.queries_per_record() == expected.queries_per_record()


def _other_weights(game: Game) -> torch.nn.Module:
    other = game.make_model()
    other.load_state_dict(game.target.state_dict())
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    return other.eval()


@pytest.mark.parametrize(
    "change",
    [
        lambda game, shadows, folder: kept(game, shadows, folder, seed=1).score(game.target, game.members),
        lambda game, shadows, folder: kept(game, shadows, folder).score(_other_weights(game), game.members),
        lambda game, shadows, folder: kept(game, shadows, folder).score(game.target, game.nonmembers),
        lambda game, shadows, folder: kept(game, shadows.select([0, 1, 2, 3]), folder).score(game.target, game.members),
        lambda game, shadows, folder: kept(game, shadows, folder / "elsewhere").score(game.target, game.members),
    ],
    ids=["parameters", "weights", "records", "shadows", "folder"],
)
def test_the_same_question_is_not_asked_twice_and_another_one_is(
    game: Game, shadows: Shadows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]
) -> None:
    kept(game, shadows, tmp_path).score(game.target, game.members)
    made: list[int] = []
    real = ShadowModelAttack.fit

    def counted(attack: ShadowModelAttack, *args: Any, **more: Any) -> Any:
        made.append(1)
        return real(attack, *args, **more)

    monkeypatch.setattr(ShadowModelAttack, "fit", counted)
    kept(game, shadows, tmp_path).score(game.target, game.members)
    assert made == []
    change(game, shadows, tmp_path)
    assert made == [1]


def test_a_damaged_file_is_made_anew(game: Game, shadows: Shadows, tmp_path: Path) -> None:
    scores = kept(game, shadows, tmp_path).score(game.target, game.members)
    (path,) = tmp_path.iterdir()
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert np.array_equal(kept(game, shadows, tmp_path).score(game.target, game.members), scores)
    assert path.read_text() == whole


def test_nothing_is_kept_of_functions_and_of_others_attacks(game: Game, tmp_path: Path) -> None:
    class Mine(LossThreshold):
        name = "mine"

    assert isinstance(fit(Mine(), Knowledge(), tmp_path), KeptAttack)
    fit(Mine(), Knowledge(), tmp_path).score(game.target, game.members)
    fit(LossThreshold(), Knowledge(), tmp_path).score(lambda x: game.target(x), game.members)
    assert list(tmp_path.iterdir()) == []
