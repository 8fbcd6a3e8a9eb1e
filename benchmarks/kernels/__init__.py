"""Every kernel beside what a user would otherwise run: ``python -m benchmarks.kernels``; a file per kernel."""

# A module of this name here has ``cases(quick, device) -> list[Case]``.
KERNELS = (
    "kde_em",
    "em_select",
    "noise_add",
    "randomized_response",
    "prune",
    "kmeans1d",
    "mask_sum",
    "noisy_activations",
)
