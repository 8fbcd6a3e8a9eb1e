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
from privkernels.ops.kmeans1d import (
    Clusters,
    ClusterSplit,
    kmeans1d,
    kmeans1d_layers,
    kmeans1d_reference,
    kmeans1d_split,
)
from privkernels.ops.mask_bits import count_kept, pack_mask, unpack_mask
from privkernels.ops.mask_sum import (
    decode_fixed_point,
    encode_fixed_point,
    mask_sum,
    mask_sum_,
    mask_sum_reference,
)
from privkernels.ops.noise_add import noise_add, noise_add_reference, noise_steps
from privkernels.ops.noise_law import NoiseLaw, NoiseTable, noise_law
from privkernels.ops.noisy_activations import noisy_activations, noisy_activations_reference
from privkernels.ops.prune import (
    prune_apply_,
    prune_mask,
    prune_mask_reference,
    prune_pattern_mask,
    prune_pattern_mask_reference,
    prune_project,
    prune_project_,
)
from privkernels.ops.prune_random import prune_keep_probabilities, prune_random_mask
from privkernels.ops.randomized_response import (
    RandomizedResponseLaw,
    randomized_response,
    randomized_response_law,
)

__all__ = [
    "ClusterSplit",
    "Clusters",
    "EmSelectAccuracy",
    "KdeEmAccuracy",
    "NoiseLaw",
    "NoiseTable",
    "RandomizedResponseLaw",
    "count_kept",
    "decode_fixed_point",
    "em_select",
    "em_select_accuracy",
    "em_select_probabilities_reference",
    "em_select_sequences_reference",
    "encode_fixed_point",
    "kde_em",
    "kde_em_accuracy",
    "kde_em_probabilities_reference",
    "kde_grid",
    "kde_peak",
    "kde_scores",
    "kde_scores_reference",
    "kmeans1d",
    "kmeans1d_layers",
    "kmeans1d_reference",
    "kmeans1d_split",
    "mask_sum",
    "mask_sum_",
    "mask_sum_reference",
    "noise_add",
    "noise_add_reference",
    "noise_law",
    "noise_steps",
    "noisy_activations",
    "noisy_activations_reference",
    "pack_mask",
    "permute_and_flip_probabilities_reference",
    "prune_apply_",
    "prune_keep_probabilities",
    "prune_mask",
    "prune_mask_reference",
    "prune_pattern_mask",
    "prune_pattern_mask_reference",
    "prune_project",
    "prune_project_",
    "prune_random_mask",
    "randomized_response",
    "randomized_response_law",
    "unpack_mask",
]
