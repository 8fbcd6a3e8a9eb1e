"""The audit of any model, from guards to verdict."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from privkernels.attacks import Attack, GradientNorm, LiRA, LossThreshold, ShadowAttack, ShadowModelAttack, Shadows
from privkernels.audit import ModelAudit, Target, Threshold, audit_models, make_canaries, white_box_advantage
from privkernels.audit.plan import Clock
from privkernels.data import Records
from privkernels.errors import CorruptFileError, InvalidArgumentError
from privkernels.progress import Progress, silent
from privkernels.randomness import Key
from privkernels.training import TrainingConfig
from tests.support.membership import Game, train

CONFIG = TrainingConfig(epochs=20, batch_size=32, learning_rate=0.1)


def attacks() -> list[Attack]:
    return [LossThreshold(), ShadowModelAttack(min_class_records=500)]


@pytest.fixture(scope="module")
def stranger(game: Game) -> nn.Module:
    """A network that saw neither members nor non-members."""
    return train(game.attacker, game.config, seed=9)


@pytest.fixture(scope="module")
def audited(game: Game, stranger: nn.Module) -> ModelAudit:
    """An overfitted network and one that saw neither kind, with shadow models."""
    return audit_models(
        [Target("leaking", game.target), Target("stranger", stranger)],
        attacks(),
        game.members,
        game.nonmembers,
        make_model=game.make_model,
        config=game.config,
        n_shadows=10,
        thresholds=[Threshold(0.6), Threshold(0.5, 0.01)],
    )


def test_a_leak_is_found_and_a_stranger_is_not_accused(audited: ModelAudit) -> None:
    leaking, stranger = audited.verdicts
    assert [decision.outcome for decision in leaking.decisions] == ["above", "below"]
    assert leaking.outcome == "above"
    assert stranger.outcome == "below"
    assert audited.outcome == "above"
    assert leaking.exposed is not None
    assert len(leaking.exposed.records) >= len(stranger.exposed.records) == 0


def test_the_attack_is_chosen_on_held_out_shadows_and_alone_decides(audited: ModelAudit) -> None:
    assert audited.choice is not None
    assert audited.choice.criterion == "auc"
    assert {row.name for row in audited.choice.table} == {"loss threshold", "shadow models"}
    assert all(len(row.values) == 2 for row in audited.choice.table)
    for verdict in audited.verdicts:
        assert {decision.attack for decision in verdict.decisions} == {audited.choice.name}
        # Two targets, two thresholds: four decisions that hold together with 95 %.
        assert all(decision.confidence == 1 - 0.05 / 4 for decision in verdict.decisions)


def test_white_box_access_is_compared_with_black_box_access(game: Game) -> None:
    found = audit_models(
        [Target("t", game.target)], [LossThreshold(), GradientNorm()], game.members, game.nonmembers,
        make_model=game.make_model, config=CONFIG, n_shadows=8,
    )  # fmt: skip
    advantage = found.verdicts[0].white_box
    assert advantage is not None
    scores = {attack.attack: attack.scores for attack in found.result.targets[0].attacks}
    assert advantage == white_box_advantage(scores["gradient norm"], scores["loss threshold"])


def test_the_choice_does_not_see_the_target_and_nothing_is_below_where_another_attack_is_above(game: Game) -> None:
    """An attack that knows the members of the target, and nothing of shadow models, is not chosen, and not ignored."""

    class Cheat(Attack):
        name = "cheat"

        def score(self, target: Any, records: Records) -> np.ndarray:
            if target is game.target:
                known = set(game.members.digests())
                return np.array([float(digest in known) for digest in records.digests()])
            return np.random.default_rng(0).normal(size=len(records))

    result = audit_models(
        [Target("t", game.target)], [Cheat(), LossThreshold()], game.members, game.nonmembers,
        make_model=game.make_model, config=CONFIG, n_shadows=8, thresholds=[Threshold(0.9)],
    )  # fmt: skip
    assert result.choice is not None
    assert result.choice.name == "loss threshold"
    assert [decision.outcome for decision in result.verdicts[0].decisions] == ["below"]
    assert result.outcome == "undecided"
    assert "t: undecided, although the chosen attack is below: cheat" in result.result.warnings[0]


def test_without_shadow_models_every_attack_counts_and_the_error_is_shared(game: Game) -> None:
    second = LossThreshold()
    second.name = "loss again"
    result = audit_models(
        [Target("t", game.target)], [LossThreshold(), second, ShadowModelAttack()], game.members, game.nonmembers,
        thresholds=[Threshold(0.55)],
    )  # fmt: skip
    assert result.choice is None
    assert result.n_shadows == 0
    assert [decision.attack for decision in result.verdicts[0].decisions] == ["loss threshold", "loss again"]
    assert all(decision.confidence == 0.975 for decision in result.verdicts[0].decisions)
    assert result.outcome == "above"
    left_out = [row for row in result.plan if not row.ran]
    assert [row.attack for row in left_out] == ["shadow models"]
    assert "architecture" in left_out[0].reason


def test_with_too_few_shadow_models_an_attack_is_left_out_with_the_reason(game: Game) -> None:
    found = audit_models(
        [Target("t", game.target)], [LossThreshold(), LiRA()], game.members, game.nonmembers,
        make_model=game.make_model, config=CONFIG, n_shadows=2,
    )  # fmt: skip
    assert [row.ran for row in found.plan] == [True, False]
    assert "at least 4 shadow models" in found.plan[1].reason
    assert found.choice is None


def test_records_from_two_sources_void_the_audit(game: Game) -> None:
    brighter = Records(game.nonmembers.x * 1.2, game.nonmembers.y, 10, "brighter")
    result = audit_models(
        [Target("t", game.target)], [LossThreshold()], game.members, brighter, thresholds=[Threshold(0.6)]
    )
    assert result.outcome == "void"


def test_what_does_not_fit_the_budget_is_left_out_and_named(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(LossThreshold):
        name = "slow"

        def queries_per_record(self) -> int:
            return 10**9

    monkeypatch.setattr(Clock, "left", lambda self: 30.0)
    result = audit_models(
        [Target("t", game.target)], [LossThreshold(), Slow()], game.members, game.nonmembers, budget=30.0
    )
    assert [row.ran for row in result.plan] == [True, False]
    assert "30 s are left" in result.plan[1].reason
    assert result.outcome == "not asked"
    assert result.budget == 30.0


def test_some_attack_is_made_in_no_time_at_all(game: Game) -> None:
    found = audit_models(
        [Target("t", game.target)], attacks(), game.members, game.nonmembers, make_model=game.make_model,
        config=TrainingConfig(epochs=1, batch_size=64, learning_rate=0.1), budget=1e-6,
    )  # fmt: skip
    assert [row.ran for row in found.plan] == [True, False]
    assert found.n_shadows == 8


def test_public_records_that_are_audited_are_refused_before_the_long_work(game: Game) -> None:
    with pytest.raises(InvalidArgumentError, match="600 of 600 non-members are public records too"):
        audit_models(
            [Target("t", game.target)], [LossThreshold()], game.members, game.nonmembers, public=game.nonmembers
        )


def test_learning_ends_with_the_budget(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(ShadowAttack):
        name = "endless"

        def fit(self, shadows: Shadows, *, progress: Progress = silent) -> Endless:
            while True:
                progress(1, 2, "learning")

        def score(self, target: Any, records: Records) -> Any:
            raise AssertionError

    monkeypatch.setattr(Clock, "left", lambda self: 0.3)
    found = audit_models(
        [Target("t", game.target)], [LossThreshold(), Endless()], game.members, game.nonmembers,
        make_model=game.make_model, config=CONFIG, n_shadows=8, budget=30.0,
    )  # fmt: skip
    assert [row.ran for row in found.plan] == [True, False]
    assert "it learns 2 times" in found.plan[1].reason
    assert found.plan[1].seconds < 5


def test_no_attack_at_all_is_an_error_that_names_the_reasons(game: Game) -> None:
    with pytest.raises(InvalidArgumentError, match="shadow models: it needs"):
        audit_models([Target("t", game.target)], [ShadowModelAttack()], game.members, game.nonmembers)
    with pytest.raises(InvalidArgumentError, match="at least one target"):
        audit_models([], attacks(), game.members, game.nonmembers)
    other = Records(torch.zeros(30, 5), torch.zeros(30, dtype=torch.int64), 10, "other")
    with pytest.raises(InvalidArgumentError, match="same shape"):
        audit_models([Target("t", game.target)], attacks(), game.members, other, make_model=game.make_model)


@pytest.fixture(scope="module")
def annotated(game: Game, stranger: nn.Module) -> ModelAudit:
    """A network trained on those members alone that students labelled, at random; and one that saw no member."""
    rng, parts, by_whom = np.random.default_rng(2), [], []
    for records in (part.subset(range(300)) for part in (game.members, game.nonmembers)):
        student = rng.random(len(records)) < 0.3
        labels = torch.where(torch.from_numpy(student), torch.from_numpy(rng.integers(0, 10, len(records))), records.y)
        parts.append(Records(records.x, labels, 10, records.name))
        by_whom.append(np.where(student, "student", "expert"))
    seen, others = parts[0].subset(torch.from_numpy(by_whom[0] == "student")), game.attacker
    trained_on = Records(torch.cat([seen.x, others.x]), torch.cat([seen.y, others.y]), 10, "students' and others")
    return audit_models(
        [Target("t", train(trained_on, game.config, seed=1)), Target("stranger", stranger)],
        [LossThreshold()], *parts, make_model=game.make_model, config=CONFIG, n_shadows=8,
        subgroups={"annotator": (by_whom[0], by_whom[1]), "batch": (np.arange(300) % 3, np.arange(300) % 3)},
    )  # fmt: skip


def test_a_leak_within_one_subgroup_is_named_and_no_other(annotated: ModelAudit) -> None:
    leaking, stranger = (verdict.subgroups for verdict in annotated.verdicts)
    assert leaking is not None
    assert stranger is not None
    assert "annotator = student" in leaking.leaking
    assert "annotator = expert" not in leaking.leaking
    assert "annotator = student" in str(leaking)
    assert stranger.leaking == ()
    assert annotated.attributes == ("annotator", "batch")
    assert ModelAudit.from_dict(json.loads(json.dumps(annotated.to_dict()))) == annotated


def test_classes_and_subgroups_share_one_error(annotated: ModelAudit) -> None:
    found = annotated.verdicts[0].subgroups
    assert found is not None
    names = [group.name for group in found.groups]
    assert names[:2] == ["class 0", "class 1"]
    assert names[10:] == ["annotator = expert", "annotator = student", "batch = 0", "batch = 1", "batch = 2"]
    assert [group.auc.confidence for group in found.groups] == pytest.approx([1 - 0.05 / (3 * 15)] * 15)
    lowest = min(found.groups, key=lambda group: 1.0 if group.p_value is None else group.p_value)
    assert lowest.name == "annotator = student"
    assert lowest.p_value is not None
    assert lowest.adjusted_p_value == pytest.approx(15 * lowest.p_value)


def test_subgroups_that_cannot_be_measured_are_refused_before_the_long_work(game: Game) -> None:
    def audited(make_model: Any, **subgroups: Any) -> None:
        audit_models(
            [Target("t", game.target)], [LossThreshold()], game.members, game.nonmembers,
            make_model=make_model, subgroups=subgroups,
        )  # fmt: skip

    def never() -> None:
        raise AssertionError("a shadow model was about to be trained")

    whole = np.arange(600) % 2
    with pytest.raises(InvalidArgumentError, match=r"'sex' of the non-members is \[599\], and there are 600"):
        audited(never, sex=(whole, whole[1:]))
    with pytest.raises(InvalidArgumentError, match="'age' of the members is float64"):
        audited(never, age=(whole * 0.5, whole))
    with pytest.raises(InvalidArgumentError, match="give the targets' architecture"):
        audited(None, sex=(whole, whole))


def test_subgroups_without_a_chosen_attack_are_said_to_be_missing(game: Game) -> None:
    whole = np.arange(600) % 2
    found = audit_models(
        [Target("t", game.target)], [LossThreshold()], game.members, game.nonmembers,
        make_model=game.make_model, config=TrainingConfig(epochs=1), n_shadows=2, subgroups={"sex": (whole, whole)},
    )  # fmt: skip
    assert found.choice is None
    assert found.verdicts[0].subgroups is None
    assert found.result.warnings[0].startswith("nothing is said of the subgroups")


def test_a_target_for_comparison_is_attacked_and_not_judged(game: Game, stranger: nn.Module) -> None:
    found = audit_models(
        [Target("leaking", game.target, judged=False), Target("stranger", stranger)], [LossThreshold()],
        game.members, game.nonmembers, thresholds=[Threshold(0.57)],
    )  # fmt: skip
    compared, judged = found.verdicts
    area = found.result.targets[0].attacks[0].metrics.auc
    assert area.low is not None
    assert area.low > 0.57, "it would be above the threshold"
    assert (compared.outcome, compared.decisions) == ("not judged", ())
    assert judged.outcome == found.outcome == "below"
    assert judged.decisions[0].confidence == 0.95, "it takes no share of the error"
    with pytest.raises(InvalidArgumentError, match="at least one target that is judged"):
        audit_models([Target("t", game.target, judged=False)], attacks(), game.members, game.nonmembers)


def test_it_survives_its_file(audited: ModelAudit, tmp_path: Path) -> None:
    audited.save(tmp_path / "a.json")
    assert ModelAudit.load(tmp_path / "a.json") == audited
    (tmp_path / "b.json").write_text(json.dumps({"format": "something"}))
    with pytest.raises(CorruptFileError, match="model audit"):
        ModelAudit.load(tmp_path / "b.json")


def test_the_worst_outcome_is_the_audits(audited: ModelAudit) -> None:
    def with_outcomes(*outcomes: str) -> ModelAudit:
        verdicts = tuple(dataclasses.replace(audited.verdicts[0], outcome=outcome) for outcome in outcomes)
        return dataclasses.replace(audited, verdicts=verdicts)

    assert with_outcomes("below", "undecided").outcome == "undecided"
    assert with_outcomes("above", "undecided").outcome == "above"
    assert with_outcomes("above", "void").outcome == "void"
    assert with_outcomes("below", "below").outcome == "below"


def test_canaries_bound_the_epsilon_of_the_training(game: Game) -> None:
    canaries = make_canaries(game.attacker, 300, "mislabelled", Key.from_seed(7))
    seen = train(canaries.insert(game.members), game.config, seed=1)
    result = audit_models(
        [Target("seen", seen), Target("unseen", game.target)], [LossThreshold()], game.members, game.nonmembers,
        canaries=canaries,
    )  # fmt: skip
    trained, untrained = (verdict.epsilon[0] for verdict in result.verdicts)
    assert 1 < trained.epsilon <= trained.ceiling
    assert untrained.epsilon == 0
    assert ModelAudit.from_dict(result.to_dict()) == result


def test_canaries_that_can_show_nothing_are_refused_before_the_long_work(game: Game) -> None:
    canaries = make_canaries(game.attacker, 50, "natural", Key.from_seed(7))

    def never() -> None:
        raise AssertionError("a shadow model was about to be trained")

    with pytest.raises(InvalidArgumentError, match="delta"):
        audit_models(
            [Target("t", game.target)], [LossThreshold()], game.members, game.nonmembers,
            make_model=never, canaries=canaries, delta=0.5,
        )  # fmt: skip
