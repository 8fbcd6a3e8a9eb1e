"""Other libraries that a benchmark runs beside ours, where they are installed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable

import torch


def compiled(function: Callable[..., torch.Tensor], **options: bool) -> Callable[..., torch.Tensor]:
    """``torch.compile`` of a function; what its back end warns of when it is first loaded is not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result: Callable[..., torch.Tensor] = torch.compile(function, **options)
        return result


@functools.cache
def opendp() -> types.ModuleType | None:
    """``opendp.prelude`` with its mechanisms enabled, or None where OpenDP is not installed."""
    if importlib.util.find_spec("opendp") is None:
        return None
    prelude = importlib.import_module("opendp.prelude")
    prelude.enable_features("contrib")
    return prelude


@functools.cache
def diffprivlib_mechanisms() -> types.ModuleType | None:
    """``diffprivlib.mechanisms``, or None where it is not installed.

    diffprivlib 0.6.6 does not import with scikit-learn 1.9, because of models that are not needed here: an empty
    package of its name and path lets its mechanisms be imported without them.
    """
    if "diffprivlib" not in sys.modules:
        found = importlib.util.find_spec("diffprivlib")
        if found is None or found.submodule_search_locations is None:
            return None
        package = types.ModuleType("diffprivlib")
        package.__path__ = list(found.submodule_search_locations)
        package.__spec__ = found
        sys.modules["diffprivlib"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("diffprivlib.mechanisms")
