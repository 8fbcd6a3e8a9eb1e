"""Reconstructions as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privkernels.audit.inversions import InversionPanel, inversion_grid
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

IMAGES = np.random.default_rng(0).random((3, 1, 8, 8))


def panel(**changes: Any) -> InversionPanel:
    fields: dict[str, Any] = {"title": "gradients of leaky", "reconstructions": IMAGES, "originals": IMAGES[::-1]}
    return InversionPanel(**(fields | changes))


def test_the_grid_has_a_row_per_kind_and_the_numbers_where_they_belong() -> None:
    numbers = {"nearest_held_out": {"PSNR (dB)": [9.876, np.inf, 3.0], "SSIM": [0.5, 0.25, -0.125]}}
    grid = inversion_grid(panel(nearest_training=IMAGES, nearest_held_out=IMAGES, numbers=numbers))
    assert (grid["title"], grid["n"]) == ("gradients of leaky", 3)
    assert [heading for heading, _ in grid["rows"]] == [
        "Original", "Reconstruction", "Nearest training record", "Nearest held-out record",
    ]  # fmt: skip
    originals, reconstructions, training, held_out = (pictures for _, pictures in grid["rows"])
    assert [picture.caption for picture in held_out] == [
        "PSNR (dB) 9.88, SSIM 0.5", "PSNR (dB) inf, SSIM 0.25", "PSNR (dB) 3, SSIM -0.125",
    ]  # fmt: skip
    assert [picture.caption for picture in originals + reconstructions + training] == [""] * 9
    assert held_out[0].alt == (
        "gradients of leaky: held-out record nearest to reconstruction 1; PSNR (dB) 9.88, SSIM 0.5"
    )
    # The originals are the reconstructions in reverse.
    assert [picture.uri for picture in originals] == [picture.uri for picture in reversed(reconstructions)]
    assert len({picture.uri for picture in reconstructions}) == 3


def test_colours_are_allowed_and_originals_may_be_missing() -> None:
    colours = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    grid = inversion_grid(panel(reconstructions=colours, originals=None, nearest_held_out=colours))
    assert [heading for heading, _ in grid["rows"]] == ["Reconstruction", "Nearest held-out record"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"reconstructions": IMAGES[:, 0]}, InvalidArgumentError, r"\[n, C, H, W\]"),
        ({"reconstructions": np.zeros((3, 2, 8, 8))}, InvalidArgumentError, "C = 1 or 3"),
        ({"reconstructions": IMAGES[:0], "originals": IMAGES[:0]}, EmptyDataError, "no reconstruction"),
        ({"originals": None}, InvalidArgumentError, "nearest records too"),
        ({"originals": IMAGES[:2]}, InvalidArgumentError, "originals need the reconstructions' shape"),
        ({"nearest_training": IMAGES + 0.5}, InvalidArgumentError, "undo the normalisation"),
        ({"nearest_training": -IMAGES}, InvalidArgumentError, "undo the normalisation"),
        ({"originals": np.where(IMAGES > 0.5, np.nan, IMAGES)}, NonFiniteValueError, "originals hold NaN"),
        ({"numbers": {"nearest_training": {"SSIM": [0.0] * 3}}}, InvalidArgumentError, "nearest_training"),
        ({"numbers": {"originals": {"SSIM": [0.0] * 2}}}, InvalidArgumentError, "needs 3 numbers"),
        ({"numbers": {"originals": {"SSIM": [0.0, 1.0, np.nan]}}}, NonFiniteValueError, "SSIM of originals"),
    ],
)
def test_an_impossible_panel_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        panel(**change)
