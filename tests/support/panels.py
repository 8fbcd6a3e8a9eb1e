"""A panel of a published parameter, for tests of figures and of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from privkernels.audit import KdePanel


def panel(**changes: Any) -> KdePanel:
    grid = np.linspace(-1, 1, 50)
    weights = np.exp(-(grid**2) / 0.1)
    fields = {
        "parameter": "2.weight[0, 5]",
        "members": [-0.2, 0.1, 0.3],
        "grid": grid.tolist(),
        "weights": (weights / weights.sum()).tolist(),
        "drawn": 0.125,
    }
    return KdePanel(**(fields | changes))
