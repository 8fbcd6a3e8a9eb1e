"""The curve of an answer as a picture."""

from __future__ import annotations

import os
from pathlib import Path

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.calculator.base import Curve

_FORMATS = (".png", ".svg", ".pdf")


def plot(curve: Curve | None, path: str | os.PathLike[str]) -> None:
    """Write the curve; the file's suffix (.png, .svg, .pdf) decides the format.

    Raises:
        InvalidArgumentError: another suffix, or there is no curve.
    """
    if curve is None:
        raise InvalidArgumentError("there is nothing to plot for these numbers: delta must lie between 0 and 1")
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise InvalidArgumentError(f"a plot is written as {', '.join(_FORMATS)}, not as {target.name!r}")
    from matplotlib.figure import Figure

    from privkernels import _files

    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for i, (name, line) in enumerate(curve.lines.items()):
        printed = "printed" in name or "claimed" in name
        axes.plot(curve.x, line, "--" if printed else "-", linewidth=2 if name.startswith(("exact", "proven")) else 1.3,
                  label=name, color=f"C{i}")  # fmt: skip
    wide = max(curve.x) > 20 * min(curve.x)
    axes.set_xscale("log" if wide else "linear")
    axes.set_yscale("log" if wide else "linear")
    axes.set_xlabel(curve.x_name)
    axes.set_ylabel(curve.y_name)
    axes.set_title(curve.title)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    with _files.atomic_path(target, public=True) as partial:
        figure.savefig(partial, format=target.suffix.lower()[1:], dpi=130)
