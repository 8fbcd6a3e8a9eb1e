"""kmeans1d beside scikit-learn, SciPy and NumPy: Lloyd's algorithm on numbers, 20 iterations from the same start."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans

from benchmarks.case import Case, Peer
from privkernels.ops import kmeans1d, kmeans1d_reference

ITERATIONS = 20


def with_numpy(values: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm on sorted values with cumulative sums, as one would write it in NumPy."""
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    centroids = start.astype(np.float64)
    for _ in range(ITERATIONS):
        middles = (centroids[1:] + centroids[:-1]) / 2
        edges = np.concatenate([[0], np.searchsorted(ordered, middles, side="right"), [len(values)]])
        counts = np.diff(edges)
        centroids = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centroids)
    return centroids, np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)


def with_sklearn(values: np.ndarray, start: np.ndarray) -> KMeans:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 20 iterations are not enough
        model = KMeans(len(start), init=start[:, None], n_init=1, max_iter=ITERATIONS, tol=0.0, algorithm="lloyd")
        return model.fit(values[:, None])


def with_scipy(values: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    result: tuple[np.ndarray, np.ndarray] = kmeans2(values[:, None], start[:, None], iter=ITERATIONS, minit="matrix")
    return result


def quantiles(values: torch.Tensor, k: int) -> np.ndarray:
    ranks = [(2 * i + 1) * len(values) // (2 * k) for i in range(k)]
    result: np.ndarray = np.sort(values.numpy())[ranks]
    return result


def make_case(size: int, k: int, share: float, device: torch.device) -> Case:
    values = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 0.05
    on_device = values.to(device)
    array, few = values.numpy(), values[: max(int(size * share), 4 * k)]
    part, start = few.numpy(), quantiles(few, k)
    own_start = quantiles(values, k)

    def check() -> float:
        """Largest relative difference of the inertia from the float64 reference on a part of the values."""
        small = values[: min(size, 200 * k)]
        _, _, expected = kmeans1d_reference(small, k, iterations=ITERATIONS)
        got = kmeans1d(small.to(device), k, iterations=ITERATIONS, method="lloyd")
        error = abs(got.inertia - float(expected)) / float(expected)
        assert error < 1e-6, f"the inertia is {got.inertia}, not {float(expected)}"
        return error

    return Case(
        kernel="kmeans1d",
        name=f"N = {size}, k = {k}, {ITERATIONS} iterations",
        size=size,
        run=lambda: kmeans1d(on_device, k, iterations=ITERATIONS, method="lloyd"),
        peers=[
            Peer("NumPy sort, cumsum, searchsorted", lambda: with_numpy(array, own_start)),
            Peer("scikit-learn KMeans (Lloyd)", lambda: with_sklearn(part, start), len(part) / size, threaded=True),
            Peer("scipy.cluster.vq.kmeans2", lambda: with_scipy(part, start), len(part) / size),
        ],
        check=check,
        bytes_moved=size * 5.0,
    )


def cases(quick: bool, device: torch.device) -> list[Case]:
    """A few and many centroids."""
    size = 20_000 if quick else 1_000_000
    return [make_case(size, 16, 0.2, device), make_case(size, 256, 0.1, device)]
