"""How near a reconstruction comes to its original, beside what needs no attack to come as near.

A picture that looks like its class is not leakage: the mean of the class has a fair PSNR with
every record of it. So :func:`reconstruction_report` puts each reconstruction beside pictures made
without looking at the original, and asks whether it is nearer to its original than to others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from privkernels.attacks.base import Array
from privkernels.data import Records
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from privkernels.randomness import Key

Ranks = npt.NDArray[np.int64]


def psnr(reconstructions: Tensor, originals: Tensor, *, data_range: float = 1.0) -> Array:
    """Peak signal-to-noise ratio in dB per record, float64 [n]: 10 log10(data_range^2 / MSE).

    Args:
        reconstructions, originals: [n, ...] of one shape; record i belongs to record i.
        data_range: the largest minus the smallest value that a picture can have.

    Returns:
        Infinity where both are equal.

    Raises:
        InvalidArgumentError: different shapes, or a data_range that is not positive.
        EmptyDataError: no records.
        NonFiniteValueError: NaN or infinity.
    """
    a, b = _pair(reconstructions, originals, data_range)
    error = ((a - b) ** 2).reshape(len(a), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        result: Array = 10.0 * np.log10(data_range**2 / error)
    return result


def ssim(reconstructions: Tensor, originals: Tensor, *, data_range: float = 1.0) -> Array:
    """Structural similarity per record, float64 [n] in [-1, 1]; 1 for equal pictures.

    Source: Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13(4), 2004:
    Gaussian window of 11x11 with a standard deviation of 1.5 pixels, K1 = 0.01, K2 = 0.03,
    means over all windows that lie inside the picture. Colours are the mean over channels.
    Departure: where a side is shorter than 11 the window is cut to the largest odd size that fits
    (7 for the 8x8 digits), so such values compare only with each other.

    Args and errors as for :func:`psnr`; pictures are [n, channels, height, width].
    """
    if reconstructions.dim() != 4:
        raise InvalidArgumentError(
            f"SSIM is of pictures [n, channels, height, width], got {list(reconstructions.shape)}"
        )
    x, y = _pair(reconstructions, originals, data_range)
    side = min(11, *x.shape[2:])
    radius = (side - 1) // 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def mean(values: Array) -> Array:
        local = gaussian_filter(values, (0, 0, 1.5, 1.5), radius=(0, 0, radius, radius))
        height, width = values.shape[2:]
        inside: Array = local[:, :, radius : height - radius, radius : width - radius]
        return inside

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    values = numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    result: Array = values.mean(axis=(1, 2, 3))
    return result


@dataclass(frozen=True, eq=False)
class ReconstructionReport:
    """Reconstructions beside their originals and beside what needs no attack; n records.

    Distances are root mean squares over a record's numbers, in the data's own unit.

    Attributes:
        psnr, ssim: of each reconstruction with its original, float64 [n]; ``ssim`` is None where
            records are not pictures.
        mean_image_psnr: of the mean held-out record with each original, float64 [n].
        class_mean_psnr: of the mean held-out record of the original's class; the mean over all
            classes where the held-out records have none of that class.
        neighbour_psnr: of the held-out record nearest to the original. To choose it one must know
            the original: a reconstruction above it holds something that no other picture does.
        distance_to_original, distance_to_train, distance_to_heldout: of each reconstruction to its
            original, to the nearest other training record and to the nearest held-out record,
            float64 [n]. The last two are over equally many records, or the larger set would be
            nearer by its size alone.
        rank: of the original among all candidates in the order of their distance to the
            reconstruction, int64 [n]; 1 is the nearest. Ties count against the attack.
        n_candidates: how many candidates record i had, int64 [n]: its original, all other training
            and all held-out records. A blind guess has rank 1 with probability 1 / n_candidates.
    """

    psnr: Array
    ssim: Array | None
    mean_image_psnr: Array
    class_mean_psnr: Array
    neighbour_psnr: Array
    distance_to_original: Array
    distance_to_train: Array
    distance_to_heldout: Array
    rank: Ranks
    n_candidates: Ranks

    @property
    def n_records(self) -> int:
        """Reconstructions in this report."""
        return len(self.rank)

    @property
    def n_identified(self) -> int:
        """Reconstructions whose original is the nearest of all candidates."""
        return int((self.rank == 1).sum())

    @property
    def n_beyond_neighbour(self) -> int:
        """Reconstructions that beat the nearest held-out record and the mean of the class, by PSNR."""
        return int((self.psnr > np.maximum(self.neighbour_psnr, self.class_mean_psnr)).sum())


def reconstruction_report(
    reconstructions: Tensor,
    originals: Records,
    train: Records,
    heldout: Records,
    *,
    data_range: float = 1.0,
    seed: int = 0,
) -> ReconstructionReport:
    """Compare reconstructions with their originals, and both with other records.

    Args:
        reconstructions: [n, ...], record i a reconstruction of original i.
        originals: n records that were attacked, training records or not.
        train: the target's training records. Those equal to an original are no "other" records of
            it and no further candidates.
        heldout: records of the same source that the target never saw; so are they treated.
        data_range: see :func:`psnr`.
        seed: draws the records of the larger of ``train`` and ``heldout`` that the two distances
            are over.

    Raises:
        InvalidArgumentError: records of different shapes, other numbers of reconstructions and
            originals, or a set that holds nothing but copies of an original.
        EmptyDataError: no reconstructions.
        NonFiniteValueError: a reconstruction is NaN or infinite.
    """
    for records in (train, heldout):
        if records.x.shape[1:] != originals.x.shape[1:]:
            raise InvalidArgumentError(
                f"{records.name!r} should have records of shape {list(originals.x.shape[1:])} like the originals, "
                f"got {list(records.x.shape[1:])}"
            )
    quality = psnr(reconstructions, originals.x, data_range=data_range)
    pictures = originals.x.dim() == 4
    found, true = _flat(reconstructions), _flat(originals.x)
    others = [_flat(records.x) for records in (train, heldout)]
    among = [_distances(true, other) for other in others]
    copies = [distances == 0 for distances in among]
    to_others = [
        _distances(found, other).masked_fill(copy, torch.inf) for other, copy in zip(others, copies, strict=True)
    ]
    size = min(len(train), len(heldout))
    nearest = [
        _nearest(distances, Key.from_seed(seed).generator(f"similarity/{name}"), size, name)
        for distances, name in zip(to_others, ("train", "heldout"), strict=True)
    ]
    own = _distances_of_pairs(found, true)
    nearer = (torch.cat(to_others, dim=1) <= own[:, None]).sum(dim=1)
    n_copies = torch.cat(copies, dim=1).sum(dim=1)
    neighbour = among[1].masked_fill(copies[1], torch.inf).argmin(dim=1)
    class_means, mean = _class_means(heldout)
    return ReconstructionReport(
        psnr=quality,
        ssim=ssim(reconstructions, originals.x, data_range=data_range) if pictures else None,
        mean_image_psnr=psnr(mean.expand(originals.x.shape), originals.x, data_range=data_range),
        class_mean_psnr=psnr(class_means[originals.y.cpu()], originals.x, data_range=data_range),
        neighbour_psnr=psnr(heldout.x.cpu()[neighbour], originals.x, data_range=data_range),
        distance_to_original=own.numpy(),
        distance_to_train=nearest[0],
        distance_to_heldout=nearest[1],
        rank=(1 + nearer).numpy(),
        n_candidates=(1 + len(train) + len(heldout) - n_copies).numpy(),
    )


def _class_means(records: Records) -> tuple[Tensor, Tensor]:
    """The mean record of each class, float64 [classes, ...], and of all."""
    x, y = records.x.cpu().double(), records.y.cpu()
    mean = x.mean(dim=0)
    means = [x[y == label].mean(dim=0) if bool((y == label).any()) else mean for label in range(records.n_classes)]
    return torch.stack(means), mean


def _nearest(distances: Tensor, generator: torch.Generator, size: int, name: str) -> Array:
    """The smallest of each row's distances over ``size`` columns drawn from ``generator``."""
    columns = torch.randperm(distances.shape[1], generator=generator)[:size]
    smallest = distances[:, columns].amin(dim=1)
    if bool(torch.isinf(smallest).any()):
        raise InvalidArgumentError(f"{name} holds nothing but copies of an original: give records besides it")
    result: Array = smallest.numpy()
    return result


def _flat(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64).flatten(1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square differences, float64 [n, m]; exactly 0 for equal records, as the faster product form is not."""
    distances: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / math.sqrt(a.shape[1])


def _distances_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Those of row i with row i, by the same operation as :func:`_distances`, so that equal distances tie."""
    return torch.cat([_distances(left[None], right[None])[0] for left, right in zip(a, b, strict=True)])


def _pair(reconstructions: Tensor, originals: Tensor, data_range: float) -> tuple[Array, Array]:
    if reconstructions.shape != originals.shape:
        raise InvalidArgumentError(
            f"reconstructions and originals are pairs of one shape, got {list(reconstructions.shape)} "
            f"and {list(originals.shape)}"
        )
    if reconstructions.numel() == 0:
        raise EmptyDataError("there are no reconstructions to compare")
    if not 0 < data_range < float("inf"):
        raise InvalidArgumentError(f"data_range is positive and finite, got {data_range!r}: 1.0 for pictures in [0, 1]")
    a, b = (x.detach().to("cpu", torch.float64).numpy() for x in (reconstructions, originals))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise NonFiniteValueError("a reconstruction or an original holds NaN or infinity: the inversion diverged")
    return a, b
