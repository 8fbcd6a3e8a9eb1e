"""The kernels as PyTorch operators. Each file has one kernel: schema, checks, fake, and a reference."""

from privkernels.ops.kde_em import (
    KdeEmAccuracy,
    kde_em,
    kde_em_accuracy,
    kde_em_probabilities_reference,
    kde_grid,
    kde_peak,
    kde_scores,
    kde_scores_reference,
)
from privkernels.ops.noise_add import noise_add, noise_add_reference, noise_steps
from privkernels.ops.noise_law import NoiseLaw, NoiseTable, noise_law

__all__ = [
    "KdeEmAccuracy",
    "NoiseLaw",
    "NoiseTable",
    "kde_em",
    "kde_em_accuracy",
    "kde_em_probabilities_reference",
    "kde_grid",
    "kde_peak",
    "kde_scores",
    "kde_scores_reference",
    "noise_add",
    "noise_add_reference",
    "noise_law",
    "noise_steps",
]
