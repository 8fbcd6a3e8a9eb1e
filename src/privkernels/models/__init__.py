"""The networks that the papers use, small ones for quick work, and the user's own."""

from __future__ import annotations

from privkernels.models.building import available, build, parameter_count, seeded
from privkernels.models.cifar_net import CifarNet
from privkernels.models.mnist_net import MnistNet
from privkernels.models.simple import MLP, Linear
from privkernels.models.svhn_net import SvhnNet
from privkernels.models.weights import load_weights

__all__ = [
    "MLP",
    "CifarNet",
    "Linear",
    "MnistNet",
    "SvhnNet",
    "available",
    "build",
    "load_weights",
    "parameter_count",
    "seeded",
]
