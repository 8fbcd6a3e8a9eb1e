"""Reconstructions of training records as pictures, beside the records that they should be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from privkernels.audit.drawing import Picture, pixels
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

# Rows of the grid from top to bottom: the field of an InversionPanel, its heading, one of its pictures.
ROWS = (
    ("originals", "Original", "original"),
    ("reconstructions", "Reconstruction", "reconstruction"),
    ("nearest_training", "Nearest training record", "training record nearest to reconstruction"),
    ("nearest_held_out", "Nearest held-out record", "held-out record nearest to reconstruction"),
)


@dataclass(frozen=True)
class InversionPanel:
    """What an attack that reconstructs inputs brought out, with what it must be compared with.

    A reconstruction that looks like a training record proves nothing by itself: it may look as much like records that
    the model never saw, because all records of a class look alike. Hence the nearest held-out record beside it.

    Attributes:
        title: the attack and its target.
        reconstructions: float [n, C, H, W] with values in [0, 1]; C is 1 (grey) or 3 (RGB).
        originals: the records that were to be reconstructed, likewise; None where there are none, as for a class.
        nearest_training, nearest_held_out: the record of each kind that is nearest to the reconstruction.
        numbers: how similar each reconstruction is to the picture of a row, by the row's field name (such as
            ``"originals"``) and the number's name (such as ``"PSNR (dB)"`` or ``"SSIM"``): float [n]. The caller
            computes them.

    Raises:
        EmptyDataError: no reconstruction.
        InvalidArgumentError: another shape, values outside [0, 1], nothing to compare with, or numbers of a row that
            is not there or for another number of pictures.
        NonFiniteValueError: NaN in a picture or a number.
    """

    title: str
    reconstructions: npt.ArrayLike
    originals: npt.ArrayLike | None = None
    nearest_training: npt.ArrayLike | None = None
    nearest_held_out: npt.ArrayLike | None = None
    numbers: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.rows()
        shape = rows["reconstructions"].shape
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise InvalidArgumentError(
                f"{self.title!r}: pictures are [n, C, H, W] with C = 1 or 3, got {list(shape)}: give each record its "
                "channels, or no pictures where records are no images"
            )
        if 0 in shape:
            raise EmptyDataError(f"{self.title!r}: there is no reconstruction to show, got shape {list(shape)}")
        if len(rows) == 1:
            raise InvalidArgumentError(
                f"{self.title!r}: give originals or nearest records too, without which a reconstruction shows nothing"
            )
        for name, images in rows.items():
            if images.shape != shape:
                raise InvalidArgumentError(
                    f"{self.title!r}: {name} need the reconstructions' shape {list(shape)}, got {list(images.shape)}"
                )
            if not np.isfinite(images).all():
                raise NonFiniteValueError(f"{self.title!r}: {name} hold NaN or infinity")
            if images.min() < 0 or images.max() > 1:
                raise InvalidArgumentError(
                    f"{self.title!r}: {name} lie between {images.min():.3g} and {images.max():.3g}; pictures need "
                    "values from 0 to 1: undo the normalisation, then clip"
                )
        for name, kinds in self.numbers.items():
            if name not in rows:
                raise InvalidArgumentError(f"{self.title!r}: numbers for {name!r}, but its pictures are {sorted(rows)}")
            for kind, values in kinds.items():
                if len(values) != shape[0]:
                    raise InvalidArgumentError(
                        f"{self.title!r}: {kind} of {name} needs {shape[0]} numbers, got {len(values)}"
                    )
                # An infinite PSNR is that of two equal pictures.
                if np.isnan(np.asarray(values, dtype=np.float64)).any():
                    raise NonFiniteValueError(f"{self.title!r}: {kind} of {name} holds NaN")

    def rows(self) -> dict[str, npt.NDArray[np.float64]]:
        """The pictures that are there, by field name, float64 [n, C, H, W]."""
        given = ((name, getattr(self, name)) for name, _, _ in ROWS)
        return {name: np.asarray(images, dtype=np.float64) for name, images in given if images is not None}


def inversion_grid(panel: InversionPanel) -> dict[str, Any]:
    """The panel for the report: its title and rows of (heading, pictures); the caption of a picture is its numbers."""
    images = panel.rows()
    rows = []
    for name, heading, one in ROWS:
        if name in images:
            numbers = panel.numbers.get(name, {})
            rows.append((heading, [_picture(panel, one, i, image, numbers) for i, image in enumerate(images[name])]))
    return {"title": panel.title, "n": len(images["reconstructions"]), "rows": rows}


def _picture(
    panel: InversionPanel,
    one: str,
    number: int,
    image: npt.NDArray[np.float64],
    numbers: Mapping[str, Sequence[float]],
) -> Picture:
    words = ", ".join(f"{kind} {float(values[number]):.3g}" for kind, values in numbers.items())
    alt = f"{panel.title}: {one} {number + 1}{f'; {words}' if words else ''}"
    return Picture(pixels(image), alt, words)
