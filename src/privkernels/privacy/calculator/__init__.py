"""The questions of ``privkernels account``: what a mechanism's numbers claim and prove, solved for the one left out.

Each function takes the numbers of one mechanism with one of them None, finds that one, and returns a
:class:`Calculation`: claimed and proven side by side, and a curve to plot.
"""

from privkernels.privacy.calculator.activations import activations
from privkernels.privacy.calculator.base import Calculation, Curve, Row
from privkernels.privacy.calculator.dp_pg import dp_pg
from privkernels.privacy.calculator.functional import functional
from privkernels.privacy.calculator.gaussian import figure3, gaussian
from privkernels.privacy.calculator.plot import plot
from privkernels.privacy.calculator.pruning import prune
from privkernels.privacy.calculator.secprobe import secprobe

__all__ = [
    "Calculation",
    "Curve",
    "Row",
    "activations",
    "dp_pg",
    "figure3",
    "functional",
    "gaussian",
    "plot",
    "prune",
    "secprobe",
]
