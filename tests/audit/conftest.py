"""Fixtures of the audit tests."""

from __future__ import annotations

from typing import Any

import pytest

from privkernels.attacks import LossThreshold, ShadowModelAttack, train_shadows
from privkernels.audit import AuditResult, Target, audit
from tests.support.membership import Game, play, train

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
