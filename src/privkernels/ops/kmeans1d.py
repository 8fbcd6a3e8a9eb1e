"""kmeans1d: k-means of numbers, and their split into centroid and truncated residual, to quantise a layer's parameters.

The contract (ties, starts, accuracy) is csrc/include/privkernels/kmeans1d.h. The values are sorted once; a cluster is a
range of ranks, and a step of Lloyd's algorithm is k binary searches and k sums of ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from privkernels import _native
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import READS_BACK, define, implement, refuse_capture
from privkernels.ops._memory import cuda_place, tensors_of

Method = Literal["auto", "optimal", "lloyd"]

_METHODS = ("auto", "optimal", "lloyd")  # in the order of KmeansMethod
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MOST_CLUSTERS = 65536
_MOST_BITS = 40
_NON_FINITE, _INVALID_PARAMETER = 2, 3  # csrc/include/privkernels/status.h

define(
    "kmeans1d(Tensor values, int k, int iterations, str method) -> (Tensor, Tensor, Tensor, Tensor)",
    outside_graphs=READS_BACK,
)
define(
    "kmeans1d_split(Tensor values, Tensor centroids, int centroid_bits, int residual_bits) -> (Tensor, Tensor, Tensor)",
    outside_graphs=READS_BACK,
)


@dataclass(frozen=True)
class Clusters:
    """k-means of numbers.

    Attributes:
        centroids: float32 [m], strictly increasing; m = min(k, number of distinct values).
        assignment: index of each value's centroid, of the shape of the values: uint8 for k <= 256, int16 for
            k <= 32768, else int32.
        inertia: sum of squared distances to the centroids, in squared units of the values.
        method: the method used, "optimal" or "lloyd".
        iterations: iterations of Lloyd's algorithm that were made; fewer than allowed where no centroid moved.
    """

    centroids: torch.Tensor
    assignment: torch.Tensor
    inertia: float
    method: str
    iterations: int


@dataclass(frozen=True)
class ClusterSplit:
    """Values as centroid plus residual on fixed-point grids.

    Attributes:
        centroids: float32 [m], distinct multiples of 2**-centroid_bits, increasing.
        assignment: as in :class:`Clusters`, of the centroids here.
        residual: int32, in steps of 2**-residual_bits.
        values: float32, centroid + residual, rounded once to float32.
    """

    centroids: torch.Tensor
    assignment: torch.Tensor
    residual: torch.Tensor
    values: torch.Tensor


def kmeans1d(values: torch.Tensor, k: int, *, iterations: int = 20, method: Method = "auto") -> Clusters:
    """Cluster numbers around at most k centroids with a small sum of squared distances. Deterministic.

    Args:
        values: float32, float16 or bfloat16 of any shape and strides, finite, at least one. Not differentiated. On a
            CUDA device the call waits for the stream; where the optimal method is used, or starting values coincide,
            the sorted values are copied to the processor for that step.
        k: 1 to 65536.
        iterations: of Lloyd's algorithm, 0 or more.
        method: "optimal", the least sum (k times the number of distinct values up to 2**26); "lloyd", from quantiles;
            "auto", optimal where k times the number of distinct values is at most 2**20.

    A cluster that becomes empty keeps its centroid. A value as near to two centroids goes to the lower.

    Raises:
        InvalidArgumentError: an argument is wrong (the message says which), or too much is asked of "optimal".
        EmptyDataError: there are no values.
        NonFiniteValueError: values holds NaN or infinity (the element is named).

    Source: Lloyd 1982; for the optimum, Wang and Song, R Journal 2011 (Ckmeans.1d.dp), with divide and conquer in place
    of the quadratic loop.
    """
    _check_values(values)
    _check_integer("k", k, 1, _MOST_CLUSTERS)
    _check_integer("iterations", iterations, 0, 2**62)
    _check_method(method)
    outputs = torch.ops.privkernels.kmeans1d(values.detach(), k, iterations, method)
    return _clusters(*outputs)


def kmeans1d_layers(
    layers: torch.Tensor | Sequence[torch.Tensor], k: int, *, iterations: int = 20, method: Method = "auto"
) -> list[Clusters]:
    """:func:`kmeans1d` of each tensor by itself: those on the processor several at a time on torch's number of threads,
    those on a CUDA device one after another on the current stream.

    Errors name the layer.
    """
    layers = tensors_of(layers, "layers")
    refuse_capture("kmeans1d_layers", layers)
    for i, layer in enumerate(layers):
        with _naming_layer(i):
            _check_values(layer)
    _check_integer("k", k, 1, _MOST_CLUSTERS)
    _check_integer("iterations", iterations, 0, 2**62)
    _check_method(method)
    # The longest first, so that none is left over for the end.
    order = sorted((i for i, x in enumerate(layers) if x.device.type != "cuda"), key=lambda i: -layers[i].numel())
    threads = torch.get_num_threads()
    workers = max(1, min(threads, len(order)))
    with ThreadPoolExecutor(workers) as pool:
        share = threads // workers
        jobs = {i: pool.submit(_kmeans1d_on, layers[i].detach(), k, iterations, method, share) for i in order}
        results = []
        for i, layer in enumerate(layers):
            with _naming_layer(i):
                # On a device in this thread, because the current stream is that of the thread.
                job = jobs.get(i)
                found = job.result() if job else _kmeans1d_on(layer.detach(), k, iterations, method, share)
                results.append(_clusters(*found))
        return results


def kmeans1d_split(
    values: torch.Tensor,
    centroids: torch.Tensor | int,
    *,
    centroid_bits: int,
    residual_bits: int,
    iterations: int = 20,
    method: Method = "auto",
) -> ClusterSplit:
    """Assign, subtract and truncate: c = trunc(c, p_c), r = trunc(v - c, p_r), and c + r. Exact in between.

    trunc(x, p) drops all binary digits of x after the p-th behind the point, towards zero. Centroids that coincide
    after it are one. Where every value is a multiple of 2**-p_r, nothing is lost; p_r = 0 keeps no residual below 1.

    Args:
        values: as for :func:`kmeans1d`, but may be empty if centroids are given; |v| 2**max(p_c, p_r) < 2**51.
        centroids: finite floats of one dimension in any order, or k, for :func:`kmeans1d` of the values.
        centroid_bits: p_c, binary digits behind the point, 0 to 40.
        residual_bits: p_r, likewise.
        iterations, method: for :func:`kmeans1d` where k is given.

    Raises:
        InvalidArgumentError: an argument is wrong, a value is too large for the grid, or a residual has 2**31 steps or
            more (the element is named).
        EmptyDataError, NonFiniteValueError: as :func:`kmeans1d`.

    Source: Mao et al., TPDS 2022, Algorithm 3, lines 14 to 19. The paper gives p_c and p_r once as decimal steps
    (1e-4, 1e-6; Section 4.3) and once as bits with a right shift (Section 5.2); here they are binary digits.
    Departures: signed residuals are truncated towards zero (a shift would lower every parameter on average), and
    p_c <= p_r is not asked for, because the paper's own case without residuals, p_r = 0, contradicts it. Truncation
    saves no privacy: see :mod:`privkernels.privacy.dp_pgc`.
    """
    _check_values(values)
    _check_bits(centroid_bits, residual_bits)
    refuse_capture("kmeans1d_split", [values, centroids])
    if not isinstance(centroids, torch.Tensor):
        centroids = kmeans1d(values, centroids, iterations=iterations, method=method).centroids
    if not centroids.is_floating_point() or centroids.dim() != 1 or not 1 <= centroids.numel() <= _MOST_CLUSTERS:
        raise InvalidArgumentError(
            f"centroids are 1 to {_MOST_CLUSTERS} floats, got {centroids.dtype} {list(centroids.shape)}"
        )
    if not bool(centroids.isfinite().all()):
        raise NonFiniteValueError("centroids hold NaN or infinity; every centroid must be finite")
    coarse = (centroids.detach().double() * 2.0**centroid_bits).trunc() / 2.0**centroid_bits
    distinct = torch.unique((coarse + 0.0).float())  # sorted
    assignment, residual, reconstructed = torch.ops.privkernels.kmeans1d_split(
        values.detach(), distinct, centroid_bits, residual_bits
    )
    return ClusterSplit(distinct, assignment, residual, reconstructed)


def kmeans1d_reference(
    values: torch.Tensor, k: int, *, iterations: int = 20
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm with the same start in plain torch and float64: centroids, assignment, inertia."""
    x = values.detach().float().flatten() + 0.0
    ordered, size = x.sort().values, x.numel()
    centroids = torch.unique(ordered[[(2 * i + 1) * size // (2 * k) for i in range(k)]])
    distinct = torch.unique(x)
    if len(distinct) <= k:
        centroids, iterations = distinct, 0
    elif (missing := k - len(centroids)) > 0:
        others = distinct[~torch.isin(distinct, centroids)]
        more = others[[(2 * i + 1) * len(others) // (2 * missing) for i in range(missing)]]
        centroids = torch.cat([centroids, more]).sort().values
    for _ in range(iterations):
        nearest = (x.double()[:, None] - centroids.double()).abs().argmin(1)
        for c in range(len(centroids)):
            own = x[nearest == c].double()
            if len(own):
                centroids[c] = own.mean().float().clamp(own.min().float(), own.max().float())
    distances = (x.double()[:, None] - centroids.double()).abs()
    nearest = distances.argmin(1)
    return centroids, nearest.reshape(values.shape), distances.min(1).values.square().sum()


@contextmanager
def _naming_layer(i: int) -> Iterator[None]:
    try:
        yield
    except (InvalidArgumentError, EmptyDataError, NonFiniteValueError) as error:
        raise type(error)(f"layer {i}: {error}") from error


def _clusters(
    centroids: torch.Tensor, assignment: torch.Tensor, inertia: torch.Tensor, summary: torch.Tensor
) -> Clusters:
    count, method, iterations = summary.tolist()
    return Clusters(centroids[:count], assignment, float(inertia), _METHODS[method], iterations)


def _check_integer(name: str, number: int, low: int, high: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise InvalidArgumentError(f"{name} must be an integer from {low} to {high}, got {number!r}")


def _check_method(method: str) -> None:
    if method not in _METHODS:
        raise InvalidArgumentError(f"method must be 'auto', 'optimal' or 'lloyd', got {method!r}")


def _check_bits(centroid_bits: int, residual_bits: int) -> None:
    _check_integer("centroid_bits (p_c)", centroid_bits, 0, _MOST_BITS)
    _check_integer("residual_bits (p_r)", residual_bits, 0, _MOST_BITS)


def _check_values(values: torch.Tensor) -> None:
    if not isinstance(values, torch.Tensor) or values.dtype not in _DTYPES:
        raise InvalidArgumentError(
            "values must be a float32, float16 or bfloat16 tensor, got "
            f"{getattr(values, 'dtype', type(values).__name__)}"
        )
    if values.layout != torch.strided:
        raise InvalidArgumentError(f"values must be a dense tensor, got layout {values.layout}; call .to_dense()")


def _flat_floats(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.float32).contiguous().resolve_neg()


def _index_dtype(k: int) -> torch.dtype:
    return torch.uint8 if k <= 256 else torch.int16 if k <= 32768 else torch.int32


def _raise(status: tuple[int, int, int, str], what: str) -> None:
    if status[0] == _NON_FINITE:
        raise NonFiniteValueError(
            f"{what}: values holds NaN or infinity in element {status[2]} (in row-major order); every value must be "
            "finite"
        )
    if status[0] == _INVALID_PARAMETER:
        raise InvalidArgumentError(
            f"{what}: element {status[2]} (in row-major order) does not fit: |v| 2**max(p_c, p_r) must be below "
            "2**51, and the residual below 2**31 steps; use fewer bits"
        )
    _native.raise_for_status(status, what)


def _kmeans1d_on(
    values: torch.Tensor, k: int, iterations: int, method: str, threads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    _check_values(values)
    _check_integer("k", k, 1, _MOST_CLUSTERS)
    _check_integer("iterations", iterations, 0, 2**62)
    _check_method(method)
    if values.numel() == 0:
        raise EmptyDataError("kmeans1d needs at least one value, got an empty tensor")
    source, device = _flat_floats(values), values.device
    dtype = _index_dtype(k)
    centroids, assignment = torch.empty(k, device=device), torch.empty(values.shape, dtype=dtype, device=device)
    inertia, summary = torch.empty((), dtype=torch.float64), torch.empty(3, dtype=torch.int64)
    arguments = (
        source.data_ptr(), source.numel(), k, iterations, _METHODS.index(method), dtype.itemsize, centroids.data_ptr(),
        assignment.data_ptr(), inertia.data_ptr(), summary.data_ptr(),
    )  # fmt: skip
    if device.type == "cuda":
        place = cuda_place(device)
        status, size = _native.cuda().kmeans1d_workspace(source.numel(), k, place[0])
        _raise(status, "kmeans1d")
        workspace = torch.empty(size, dtype=torch.uint8, device=device)
        status = _native.cuda().kmeans1d(*arguments, workspace.data_ptr(), *place)
    else:
        status = _native.cpu().kmeans1d(*arguments, threads)
    _raise(status, "kmeans1d")
    return centroids, assignment, inertia.to(device), summary.to(device)


def _kmeans1d(
    values: torch.Tensor, k: int, iterations: int, method: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return _kmeans1d_on(values, k, iterations, method, torch.get_num_threads())


def _kmeans1d_split(
    values: torch.Tensor, centroids: torch.Tensor, centroid_bits: int, residual_bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    _check_values(values)
    _check_bits(centroid_bits, residual_bits)
    source, device = _flat_floats(values), values.device
    centers = centroids.to(device, torch.float32).contiguous()
    dtype = _index_dtype(centers.numel())
    assignment = torch.empty(values.shape, dtype=dtype, device=device)
    residual = torch.empty(values.shape, dtype=torch.int32, device=device)
    reconstructed = torch.empty(values.shape, device=device)
    arguments = (
        source.data_ptr(), source.numel(), centers.data_ptr(), centers.numel(), centroid_bits, residual_bits,
        dtype.itemsize, assignment.data_ptr(), residual.data_ptr(), reconstructed.data_ptr(),
    )  # fmt: skip
    if device.type == "cuda":
        module = _native.cuda()
        workspace = torch.empty(module.kmeans1d_split_workspace, dtype=torch.uint8, device=device)
        status = module.kmeans1d_split(*arguments, workspace.data_ptr(), *cuda_place(device))
    else:
        status = _native.cpu().kmeans1d_split(*arguments, torch.get_num_threads())
    _raise(status, "kmeans1d_split")
    return assignment, residual, reconstructed


def _fake_kmeans1d(
    values: torch.Tensor, k: int, iterations: int, method: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    _check_values(values)

    def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=values.device)

    return (
        empty((k,), torch.float32),
        empty(values.shape, _index_dtype(k)),
        empty((), torch.float64),
        empty((3,), torch.int64),
    )


def _fake_kmeans1d_split(
    values: torch.Tensor, centroids: torch.Tensor, centroid_bits: int, residual_bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    _check_values(values)

    def empty(dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(values.shape, dtype=dtype, device=values.device)

    return empty(_index_dtype(centroids.numel())), empty(torch.int32), empty(torch.float32)


implement("kmeans1d", _kmeans1d, _fake_kmeans1d)
implement("kmeans1d_split", _kmeans1d_split, _fake_kmeans1d_split)
