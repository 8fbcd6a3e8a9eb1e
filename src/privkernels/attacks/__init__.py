"""Membership inference attacks: one file per attack, one score per record.

An attack knows a model and records, never a defence. Higher scores mean likelier members.
"""

from privkernels.attacks.base import Access, Attack, Fidelity, Predictor, PublicDataAttack, target_logits
from privkernels.attacks.loss_threshold import LossThreshold
from privkernels.attacks.shadow_model import ShadowModelAttack
from privkernels.attacks.shadows import ShadowAttack, Shadows, train_shadows

__all__ = [
    "Access",
    "Attack",
    "Fidelity",
    "LossThreshold",
    "Predictor",
    "PublicDataAttack",
    "ShadowAttack",
    "ShadowModelAttack",
    "Shadows",
    "target_logits",
    "train_shadows",
]
