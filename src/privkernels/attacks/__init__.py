"""Attacks: one file per attack.

A membership inference attack gives one score per record, higher for a likelier member (:class:`Attack`). Inversion and
attribute inference give records and values back, and are functions and classes of their own. An attack knows a model
and records, never a defence.
"""

from privkernels.attacks.attribute import (
    AttributeCounts,
    AttributeGuesses,
    AttributeInference,
    AttributeLeak,
    attribute_leak,
)
from privkernels.attacks.base import Access, Attack, Fidelity, Predictor, PublicDataAttack, target_logits
from privkernels.attacks.gradient_norm import GradientNorm
from privkernels.attacks.inversion import Inversion, InversionSettings, invert, representation_at
from privkernels.attacks.label_only_augmentation import LabelOnlyAugmentation
from privkernels.attacks.label_only_boundary import LabelOnlyBoundary, LabelOnlyNoise
from privkernels.attacks.lira import LiRA
from privkernels.attacks.loss_threshold import LossThreshold
from privkernels.attacks.modified_entropy import ModifiedEntropy
from privkernels.attacks.neural import NeuralAttack
from privkernels.attacks.quantile_regression import QuantileRegression
from privkernels.attacks.rmia import RMIA
from privkernels.attacks.shadow_model import ShadowModelAttack
from privkernels.attacks.shadows import ShadowAttack, Shadows, train_shadows
from privkernels.attacks.similarity import ReconstructionReport, psnr, reconstruction_report, ssim
from privkernels.attacks.stolen_memories import BayesWhiteBox, GeneralWhiteBox

__all__ = [
    "RMIA",
    "Access",
    "Attack",
    "AttributeCounts",
    "AttributeGuesses",
    "AttributeInference",
    "AttributeLeak",
    "BayesWhiteBox",
    "Fidelity",
    "GeneralWhiteBox",
    "GradientNorm",
    "Inversion",
    "InversionSettings",
    "LabelOnlyAugmentation",
    "LabelOnlyBoundary",
    "LabelOnlyNoise",
    "LiRA",
    "LossThreshold",
    "ModifiedEntropy",
    "NeuralAttack",
    "Predictor",
    "PublicDataAttack",
    "QuantileRegression",
    "ReconstructionReport",
    "ShadowAttack",
    "ShadowModelAttack",
    "Shadows",
    "attribute_leak",
    "invert",
    "psnr",
    "reconstruction_report",
    "representation_at",
    "ssim",
    "target_logits",
    "train_shadows",
]
