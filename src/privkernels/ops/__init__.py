"""The kernels as PyTorch operators. Each file has one kernel: schema, checks, fake, and a reference."""

from privkernels.ops.em_select import (
    EmSelectAccuracy,
    em_select,
    em_select_accuracy,
    em_select_probabilities_reference,
    em_select_sequences_reference,
    permute_and_flip_probabilities_reference,
)
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
from privkernels.ops.noisy_activations import noisy_activations, noisy_activations_reference
from privkernels.ops.randomized_response import (
    RandomizedResponseLaw,
    randomized_response,
    randomized_response_law,
)

__all__ = [
    "EmSelectAccuracy",
    "KdeEmAccuracy",
    "NoiseLaw",
    "NoiseTable",
    "RandomizedResponseLaw",
    "em_select",
    "em_select_accuracy",
    "em_select_probabilities_reference",
    "em_select_sequences_reference",
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
    "noisy_activations",
    "noisy_activations_reference",
    "permute_and_flip_probabilities_reference",
    "randomized_response",
    "randomized_response_law",
]
