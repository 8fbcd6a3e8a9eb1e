"""The audit of several targets, and its result as a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privkernels.attacks import Attack, LossThreshold
from privkernels.audit import AuditResult, Target, audit, measure
from privkernels.data import Records
from privkernels.errors import CorruptFileError, FileMissingError, InvalidArgumentError, NonFiniteValueError
from privkernels.inference import accuracy, logits
from tests.support.membership import Game, numbered, table_target


class Scripted(Attack):
    """An attack with given scores, which remembers what it was asked."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value
        self.asked: list[tuple[Any, Records]] = []
        self.name = "scripted"

    def score(self, target: Any, records: Records) -> np.ndarray:
        self.asked.append((target, records))
        return np.full(len(records), self.value)


def test_every_target_meets_the_same_attacks_on_the_same_records(game: Game) -> None:
    attack, targets = Scripted(), [Target("a", game.target), Target("b", lambda x: game.target(x) / 2)]
    audit(targets, [attack], game.members, game.nonmembers)
    assert attack.asked == [
        (target.model, records) for target in targets for records in (game.members, game.nonmembers)
    ]


def test_the_figures_are_those_of_the_target(game: Game, result: AuditResult) -> None:
    target = result.targets[0]
    assert target.member_accuracy == pytest.approx(accuracy(game.target, game.members))
    assert target.nonmember_accuracy == pytest.approx(accuracy(game.target, game.nonmembers))
    assert target.test_accuracy == pytest.approx(accuracy(game.target, game.attacker))
    outputs = logits(game.target, game.members).double()
    losses = torch.nn.functional.cross_entropy(outputs, game.members.y, reduction="none")
    np.testing.assert_allclose(target.member_losses, losses, rtol=1e-9, atol=1e-12)
    attack = LossThreshold()
    metrics = measure(
        attack.score(game.target, game.members),
        attack.score(game.target, game.nonmembers),
        member_classes=game.members.y.numpy(),
        nonmember_classes=game.nonmembers.y.numpy(),
    )
    assert target.attacks[0].metrics == metrics
    assert [row.label for row in metrics.per_class] == list(range(10))


def test_the_overfitted_target_leaks_and_the_stranger_does_not(result: AuditResult) -> None:
    for attack in range(2):
        leaky, blank = (target.attacks[attack].metrics for target in result.targets)
        assert leaky.auc.low > 0.6
        assert blank.auc.low < 0.5 < blank.auc.high


def test_the_result_survives_a_file(result: AuditResult, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    result.save(path)
    assert AuditResult.load(path) == result
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_kind_is_refused(result: AuditResult, tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        AuditResult.load(tmp_path / "absent.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(CorruptFileError, match="privkernels audit 2"):
        AuditResult.load(tmp_path / "list.json")
    damaged = result.to_dict()
    damaged["targets"][0]["member_losses"] = "none"
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    with pytest.raises(CorruptFileError, match=r"targets\[0\].member_losses"):
        AuditResult.load(tmp_path / "damaged.json")


def test_what_was_used_is_on_record(game: Game, result: AuditResult) -> None:
    assert result.members.fingerprint == game.members.fingerprint()
    assert (result.members.n, result.nonmembers.n, result.test.n) == (600, 600, 597)
    assert [attack["name"] for attack in result.attacks] == ["loss threshold", "shadow models"]
    assert result.attacks[1]["fidelity"]["n_models"] == 8
    assert result.environment["torch"] == torch.__version__
    assert result.targets[0].description == {"model": "mlp-32"}


def test_without_test_records_the_non_members_serve_and_a_warning_says_so(game: Game) -> None:
    result = audit([Target("a", game.target)], [LossThreshold()], game.members, game.nonmembers)
    assert result.test is None
    assert result.targets[0].test_accuracy == result.targets[0].nonmember_accuracy
    assert any("no test records" in warning for warning in result.warnings)


def test_records_on_both_sides_are_pointed_out(game: Game) -> None:
    both = Records(
        torch.cat([game.nonmembers.x, game.members.x[:3]]),
        torch.cat([game.nonmembers.y, game.members.y[:3]]),
        10,
        "both",
    )
    result = audit([Target("a", game.target)], [LossThreshold()], game.members, both, test=game.members)
    assert any("3 records are both members and non-members" in warning for warning in result.warnings)
    assert any("600 test records are training records" in warning for warning in result.warnings)


def test_too_few_records_are_pointed_out(game: Game) -> None:
    few = game.nonmembers.subset(range(100))
    result = audit([Target("a", game.target)], [LossThreshold()], game.members, few)
    assert result.targets[0].attacks[0].metrics.tpr_at_fpr[0].tpr.value is None
    assert sum("too few records to say" in warning for warning in result.warnings) == 2


def test_a_target_unlike_the_shadow_models_is_pointed_out(game: Game, result: AuditResult) -> None:
    # The shadow models fit their training records; the second target has not seen the members.
    about = [warning for warning in result.warnings if "shadow models differ from" in warning]
    assert len(about) == 1
    assert "published" in about[0]
    assert "training accuracy" in about[0]


def test_a_release_from_a_seed_is_pointed_out(game: Game, guarantee: dict[str, Any]) -> None:
    seeded = Target("a", game.target, guarantee | {"reproducible": True})
    result = audit([seeded], [Scripted()], game.members, game.nonmembers)
    assert any("not private" in warning for warning in result.warnings)


def test_a_guarantee_may_be_an_object(game: Game, guarantee: dict[str, Any]) -> None:
    class Guarantee:
        def to_dict(self) -> dict[str, Any]:
            return guarantee

    result = audit([Target("a", game.target, Guarantee())], [Scripted()], game.members, game.nonmembers)
    assert result.targets[0].guarantee == guarantee


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"targets": []}, "at least one target"),
        ({"attacks": []}, "at least one attack"),
        ({"attacks": [Scripted(), Scripted()]}, "attack names must differ"),
        ({"class_names": ["a", "b"]}, "10 class names, got 2"),
        ({"nonmembers": numbered([0, 1], 10)}, "same classes and shape"),
        ({"test": numbered([0, 1], 10)}, "same classes and shape"),
    ],
)
def test_wrong_uses_are_named(game: Game, change: dict[str, Any], match: str) -> None:
    arguments = {
        "targets": [Target("a", game.target)],
        "attacks": [Scripted()],
        "members": game.members,
        "nonmembers": game.nonmembers,
    }
    with pytest.raises(InvalidArgumentError, match=match):
        audit(**(arguments | change))


def test_bad_targets_are_refused_before_any_attack(game: Game) -> None:
    attack = Scripted()
    for target in (
        Target("a", game.target, {"mechanism": "?"}),
        Target("a", game.target, None, {"x": object()}),
    ):
        with pytest.raises(InvalidArgumentError):
            audit([Target("ok", game.target), target], [attack], game.members, game.nonmembers)
    with pytest.raises(InvalidArgumentError, match="target names"):
        audit([Target("a", game.target)] * 2, [attack], game.members, game.nonmembers)
    assert attack.asked == []


def test_nan_scores_and_nan_outputs_are_refused(game: Game) -> None:
    with pytest.raises(NonFiniteValueError, match="scores"):
        audit([Target("a", game.target)], [Scripted(np.nan)], game.members, game.nonmembers)
    broken = Target("a", table_target(torch.full((4, 2), np.nan)))
    with pytest.raises(NonFiniteValueError):
        audit([broken], [Scripted()], numbered([0, 1], 2), numbered([0, 1], 2, start=2))


def test_progress_counts_the_targets(game: Game) -> None:
    seen: list[tuple[int, int, str]] = []
    audit(
        [Target("a", game.target), Target("b", game.target)],
        [Scripted()],
        game.members,
        game.nonmembers,
        progress=lambda *step: seen.append(step),
    )
    assert seen == [(done, 2, "attacking the targets") for done in range(3)]


def test_values_are_frozen(result: AuditResult) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.date = "today"
