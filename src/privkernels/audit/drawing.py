"""How the report's figures are drawn: as PNG bytes with an alternative text. No pyplot, no display, no network."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ft2font import FT2Font

Legend = list[tuple[Artist, str]]

# Okabe and Ito's palette: told apart with any colour vision; line styles tell them apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "figure.dpi": 100,
    # The page shows figures on white in its dark colours too.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 170,
    "savefig.bbox": "standard",
}


@dataclass(frozen=True)
class Picture:
    """A PNG for an ``img`` element: its data URI, alternative text and caption."""

    uri: str
    alt: str
    caption: str


def render(draw: Callable[[Axes], Legend], title: str, *, height: float) -> str:
    """The data URI of a figure of 5.2 by ``height`` inches that ``draw`` fills; it returns the legend's entries."""
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(5.2, height), layout="constrained")
        axes = canvas.add_subplot()
        entries = draw(axes)
        axes.set_title(drawable(title, 46), loc="left", fontsize=10.5, parse_math=False)
        # matplotlib before 3.10 leaves out labels that start with an underscore: names go in afterwards.
        legend = canvas.legend(
            [artist for artist, _ in entries],
            [str(number) for number in range(len(entries))],
            loc="outside lower left",
            ncols=min(2, len(entries)),
            frameon=False,
            handlelength=3.0,
        )
        for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
            text.set_parse_math(False)
            text.set_text(drawable(name, 30))
        stream = io.BytesIO()
        canvas.savefig(stream, format="png", metadata={"Software": None})
    return _uri(stream)


def pixels(image: npt.NDArray[np.float64]) -> str:
    """The data URI of an image with one PNG pixel per value: float [C, H, W] in [0, 1], C = 1 (grey) or 3 (RGB)."""
    colours = np.broadcast_to(image, (3, *image.shape[1:]))
    stream = io.BytesIO()
    matplotlib.image.imsave(stream, np.rint(np.moveaxis(colours, 0, -1) * 255).astype(np.uint8), format="png")
    return _uri(stream)


def drawable(text: str, longest: int) -> str:
    """``text`` with what the figures' font cannot draw replaced by "?", and cut to ``longest``."""
    known = "".join(c if c.isprintable() and ord(c) in _glyphs() else "?" for c in text)
    return known if len(known) <= longest else known[: longest - 1] + "…"


def _uri(stream: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


@functools.cache
def _glyphs() -> frozenset[int]:
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return frozenset(FT2Font(str(font)).get_charmap())
