"""What every figure shares: its encoding, and names that any font can draw."""

from __future__ import annotations

import base64
import io

import numpy as np
import PIL.Image

from privkernels.audit.drawing import drawable, pixels


def decoded(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_names_are_drawn_as_they_are_where_the_font_can() -> None:
    assert drawable("DP-PG, ε = 1 $x$", 40) == "DP-PG, ε = 1 $x$"
    assert drawable("漢\n", 40) == "??"
    assert drawable("abcdef", 4) == "abc…"


def test_pictures_keep_their_values() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 5, 7))
    assert np.array_equal(decoded(pixels(colours / 255)), np.moveaxis(colours, 0, -1))
    # To the nearest of 256 levels.
    assert np.array_equal(decoded(pixels(np.maximum(colours - 0.4, 0) / 255)), np.moveaxis(colours, 0, -1))
    grey = decoded(pixels(colours[:1] / 255))
    assert np.array_equal(grey, np.repeat(colours[0][:, :, None], 3, axis=2))
