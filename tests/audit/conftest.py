"""Fixtures of the audit tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from privkernels.attacks import Attack, Fidelity, LossThreshold, ShadowModelAttack, train_shadows
from privkernels.audit import AuditResult, Guard, ModelAudit, Target, TargetVerdict, Threshold, audit, decide
from privkernels.audit.exposed_records import exposed_records
from privkernels.audit.plan import PlannedAttack
from privkernels.audit.power import detectable_auc, detectable_tpr
from privkernels.audit.selection import choose_attack
from privkernels.audit.subgroups import groups_by_class, measure_subgroups
from privkernels.audit.thresholds import worst
from privkernels.data import Records
from tests.support.membership import Game, numbered, play, table_target, train

GUARANTEE: dict[str, Any] = {
    "mechanism": "DP-PG (paper mode)",
    "unit": "parameter",
    "neighbouring": "one member's value replaced",
    "claimed": {
        "epsilon": 1.0,
        "delta": 0.0,
        "paper": "Mao et al. 2022",
        "equation": "equation 7",
        "formula": "exp(eps u / 2)",
    },
    "proven": {"epsilon": 18.75612, "delta": 0.0, "accountant": "bounded range"},
    "not_proven_because": None,
    "assumptions": [
        {"text": "the grid is public", "checked": True},
        {"text": "the bandwidth is public", "checked": False},
        {"text": "members were trained independently", "checked": None},
    ],
    "implementation": {"score error": 1e-9},
    "warnings": ["the paper's sensitivity is too small"],
    "reproducible": False,
    "summary": "The paper claims epsilon = 1. Proven: epsilon = 18.76.",
}


@pytest.fixture
def guarantee() -> dict[str, Any]:
    return {**GUARANTEE}


@pytest.fixture(scope="session")
def game() -> Game:
    return play()


@pytest.fixture(scope="session")
def result(game: Game) -> AuditResult:
    """An overfitted network, and one that saw neither members nor non-members, said to be protected."""
    shadows = ShadowModelAttack().fit(train_shadows(game.make_model, game.attacker, game.config, 8))
    targets = [
        Target("unprotected", game.target, None, {"model": "mlp-32"}),
        Target("published", train(game.attacker, game.config, seed=9), GUARANTEE),
    ]
    return audit(targets, [LossThreshold(), shadows], game.members, game.nonmembers, test=game.attacker)


class _Known(Attack):
    """Scores that are given: the target's first logit, or nothing but noise."""

    def __init__(self, name: str, *, noise: bool = False) -> None:
        self.name, self.noise = name, noise

    def score(self, target: Any, records: Records) -> np.ndarray:
        if self.noise:
            return np.random.default_rng(int(records.x[0, 0])).normal(size=len(records))
        return target(records.x)[:, 0].double().numpy()

    def fidelity(self) -> Fidelity:
        return Fidelity(8, 300, 0.98, 0.71, 0.0825, 1.1)


@pytest.fixture(scope="session")
def model_audit() -> ModelAudit:
    """Two models of 400 members and 400 non-members in four classes; the first leaks class 3, the second nothing.

    Put together from the parts that :func:`privkernels.audit.audit_models` puts together, without training anything.
    """
    labels = [number // 100 for number in range(400)]
    members, nonmembers = numbered(labels, 4), numbered(labels, 4, start=400)
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 800, 4)))
    logits[0, 300:400, 0] += 6.0
    targets = [Target("leaky", table_target(logits[0])), Target("published", table_target(logits[1]), GUARANTEE)]
    attacks = [_Known("pure noise", noise=True), _Known("the chosen one")]
    result = audit(targets, attacks, members, nonmembers, class_names=["ant", "bee", "cat", "dog"])
    rng = np.random.default_rng(1)
    choice = choose_attack(
        {
            "pure noise": [(rng.normal(size=600), rng.normal(size=600)) for _ in range(2)],
            "the chosen one": [(rng.normal(1, size=600), rng.normal(size=600)) for _ in range(2)],
        },
        "tpr@0.01",
    )
    groups = groups_by_class(np.array(labels), np.array(labels))
    verdicts = []
    for target in result.targets:
        scores = target.attacks[1].scores
        decisions = [decide(limit, *scores, attack=choice.name) for limit in (Threshold(0.1, 0.02), Threshold(0.59))]
        verdicts.append(
            TargetVerdict(
                target.name,
                worst(decisions),
                tuple(decisions),
                exposed_records(*scores),
                measure_subgroups(*scores, groups, rate=0.05),
                (detectable_auc(400, 400), detectable_tpr(400, 400, 0.02)),
            )
        )
    guards = (
        Guard("blind baseline", True, True, "members and non-members are not told apart"),
        Guard("near duplicates", False, False, "3 non-members are nearly the same as a member. Remove them"),
        Guard("augmentation: mirrored", None, False, "not made: too few records"),
    )
    plan = (
        PlannedAttack("pure noise", True, "", 0.5),
        PlannedAttack("the chosen one", True, "", 1.5),
        PlannedAttack("too slow", False, "it would take about 900 s, and 30 s are left", 0.0),
    )
    return ModelAudit("privkernels model audit 1", result, guards, plan, choice, 8, 12.0, 60.0, 0.95, tuple(verdicts))
