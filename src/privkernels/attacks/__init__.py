"""Membership inference attacks: one file per attack, one score per record.

An attack knows a model and records, never a defence. Higher scores mean likelier members.
"""

from privkernels.attacks.base import Attack, Fidelity, Predictor, target_logits
from privkernels.attacks.loss_threshold import LossThreshold
from privkernels.attacks.shadow_model import ShadowModelAttack

__all__ = [
    "Attack",
    "Fidelity",
    "LossThreshold",
    "Predictor",
    "ShadowModelAttack",
    "target_logits",
]
