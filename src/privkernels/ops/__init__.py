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

__all__ = [
    "KdeEmAccuracy",
    "kde_em",
    "kde_em_accuracy",
    "kde_em_probabilities_reference",
    "kde_grid",
    "kde_peak",
    "kde_scores",
    "kde_scores_reference",
]
