"""Calls of all that refuses to be captured into a CUDA graph, on a float32 tensor [64] of any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from privkernels import ops
from privkernels.randomness import Key

Call = Callable[[torch.Tensor], Any]

KEY = Key.from_seed(4)
DRAW: dict[str, Any] = {"key": KEY, "label": "graph"}
GRID: dict[str, Any] = {"lo": -1.0, "hi": 1.0, "bandwidth": 0.5}
NOISE: dict[str, Any] = {"distribution": "laplace", "scale": 2.0, "granularity": 0.25, **DRAW}
BITS: dict[str, Any] = {"centroid_bits": 4, "residual_bits": 8}

# Name and call. What draws says that a replay would repeat it; the others, that they wait for the device.
DRAWS: list[tuple[str, Call]] = [
    ("kde_em", lambda x: ops.kde_em(x.view(2, 32), **GRID, multiplier=1.0, **DRAW)),
    ("em_select", lambda x: ops.em_select(x, multiplier=1.0, **DRAW)),
    ("noise_add", lambda x: ops.noise_add(x, **NOISE)),
    ("noise_steps", lambda x: ops.noise_steps(64, distribution="gaussian", steps=2.0, device=x.device, **DRAW)),
    ("randomized_response", lambda x: ops.randomized_response(x.long(), categories=2, epsilon=1.0, **DRAW)),
    ("noisy_activations", lambda x: ops.noisy_activations(x.view(4, 16), clip=1.0, noise_std=0.5, **DRAW)),
    ("mask_sum", lambda x: ops.mask_sum(x.int(), [KEY], [1])),
    ("mask_sum_", lambda x: ops.mask_sum_(x.int(), [KEY], [1])),
    ("prune_random_mask", lambda x: ops.prune_random_mask(x, **DRAW)),
]
READS: list[tuple[str, Call]] = [
    ("kde_scores", lambda x: ops.kde_scores(x.view(2, 32), **GRID)),
    ("noisy_activations", lambda x: ops.noisy_activations(x.view(4, 16), clip=1.0, noise_std=0.0)),
    ("prune_mask", lambda x: ops.prune_mask(x, keep=5)),
    ("prune_project", lambda x: ops.prune_project(x, keep=5)),
    ("prune_project_", lambda x: ops.prune_project_(x, keep=5)),
    ("prune_pattern_mask", lambda x: ops.prune_pattern_mask(x, 2, 4)),
    ("prune_keep_probabilities", lambda x: ops.prune_keep_probabilities(x)),
    ("count_kept", lambda x: ops.count_kept(x > 0)),
    ("encode_fixed_point", lambda x: ops.encode_fixed_point(x, fraction_bits=4)),
    ("kmeans1d", lambda x: ops.kmeans1d(x, 3)),
    ("kmeans1d_layers", lambda x: ops.kmeans1d_layers([x], 3)),
    ("kmeans1d_split", lambda x: ops.kmeans1d_split(x, x, **BITS)),
]
# Whether tensors that lie between each other's entries overlap is counted out on the device.
INTERLEAVED: Call = lambda x: ops.prune_apply_([x[::2], x[1::2]], [x[::2] > 0, x[1::2] > 0])  # noqa: E731
