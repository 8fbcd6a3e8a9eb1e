"""privkernels: publish trained PyTorch models without publishing their training data.

The whole way in a few calls::

    import privkernels as pk

    data = pk.load_data("mnist", root="data")
    pk.train(data, "mnist-net", "members", members=50)
    pk.publish("members", pk.DpPgSettings(epsilon=1.0), "release")
    pk.audit_release("release", "members", data, budget=600, report="report.html")

The parts are in :mod:`privkernels.ops` (kernels), :mod:`privkernels.privacy`, :mod:`privkernels.publishing`,
:mod:`privkernels.training`, :mod:`privkernels.attacks` and :mod:`privkernels.audit`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privkernels.data import load as load_data
    from privkernels.demonstration import demo
    from privkernels.privacy import Guarantee
    from privkernels.publishing import DpPgSettings, ParameterCollection, QualityCheck, Release
    from privkernels.randomness import Key
    from privkernels.workflow import audit_release, publish, train

__version__ = importlib.metadata.version("privkernels")

# Loaded on first use: importing the package must not cost the import of everything.
_PUBLIC = {
    "DpPgSettings": ("privkernels.publishing", "DpPgSettings"),
    "Guarantee": ("privkernels.privacy", "Guarantee"),
    "Key": ("privkernels.randomness", "Key"),
    "ParameterCollection": ("privkernels.publishing", "ParameterCollection"),
    "QualityCheck": ("privkernels.publishing", "QualityCheck"),
    "Release": ("privkernels.publishing", "Release"),
    "audit_release": ("privkernels.workflow", "audit_release"),
    "demo": ("privkernels.demonstration", "demo"),
    "load_data": ("privkernels.data", "load"),
    "publish": ("privkernels.workflow", "publish"),
    "train": ("privkernels.workflow", "train"),
}

__all__ = [
    "DpPgSettings",
    "Guarantee",
    "Key",
    "ParameterCollection",
    "QualityCheck",
    "Release",
    "__version__",
    "audit_release",
    "demo",
    "load_data",
    "publish",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'privkernels' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value
