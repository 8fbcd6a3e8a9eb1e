"""Finds and loads the compiled modules, and explains what was built, what was loaded and why not."""

from __future__ import annotations

import functools
import importlib
import os
import platform
from types import ModuleType
from typing import Any

import torch

from privkernels.errors import (
    InvalidArgumentError,
    NativeModuleError,
    NonFiniteValueError,
    PrivkernelsError,
)

# csrc/include/privkernels/status.h
_INVALID_ARGUMENT, _NON_FINITE, _INVALID_PARAMETER, _CUDA_ERROR = 1, 2, 3, 4


@functools.cache
def cpu() -> ModuleType:
    """The compiled CPU module, with a usable instruction set.

    Raises :class:`NativeModuleError` if it was not built, does not load, or if ``PRIVKERNELS_ISA``
    names an instruction set that this machine or this build lacks.
    """
    try:
        module = importlib.import_module("privkernels._cpu")
    except ImportError as error:
        raise NativeModuleError(
            f"the compiled module privkernels._cpu cannot be loaded ({error}): install the package with "
            "'pip install .' (needs a C++17 compiler), and run 'privkernels doctor'"
        ) from error
    info = module.build_info()
    if info["chosen"] is None:
        raise NativeModuleError(
            f"{info['reason']}; unset PRIVKERNELS_ISA, or see 'privkernels doctor' for what there is"
        )
    return module


@functools.cache
def cuda() -> ModuleType:
    """The compiled CUDA module; raises :class:`NativeModuleError` saying why it is not there."""
    note = cpu().build_info()["cuda_note"]
    try:
        return importlib.import_module("privkernels._cuda")
    except ImportError as error:
        raise NativeModuleError(f"no CUDA kernels in this installation ({note}): {error}") from error


def raise_for_status(status: tuple[int, int, int, str], what: str) -> None:
    """Turn a kernel's status (code, member, element, message) into the named exception."""
    code, member, element, message = status
    if code == 0:
        return
    if code == _NON_FINITE:
        raise NonFiniteValueError(
            f"{what}: member {member} holds NaN or infinity in element {element}; every value must be finite"
        )
    if code == _INVALID_PARAMETER:
        raise InvalidArgumentError(
            f"{what}: lo, hi and bandwidth of element {element} must be finite, with lo <= hi and bandwidth "
            "in [2**-126, 2**100]"
        )
    if code == _CUDA_ERROR:
        raise PrivkernelsError(f"{what}: CUDA failed: {message}")
    raise InvalidArgumentError(f"{what}: {message}")


def describe() -> dict[str, Any]:
    """What was built, what was loaded, which instruction set is used, and why CUDA is or is not there."""
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "PRIVKERNELS_ISA": os.environ.get("PRIVKERNELS_ISA"),
        "package": os.path.dirname(__file__),
    }
    try:
        module = importlib.import_module("privkernels._cpu")
    except ImportError as error:
        report["cpu"] = {"loaded": False, "reason": str(error)}
        report["cuda"] = {
            "loaded": False,
            "reason": "the CPU module is missing, so nothing is known of the build",
        }
        return report
    info = dict(module.build_info())
    note = info.pop("cuda_note")
    built = info.pop("cuda_built")
    report["cpu"] = {"loaded": True, "file": module.__file__, **info}
    report["cuda"] = _describe_cuda(built, note)
    return report


def _describe_cuda(built: bool, note: str) -> dict[str, Any]:
    if not built:
        return {"built": False, "loaded": False, "usable": False, "reason": note}
    try:
        module = cuda()
    except PrivkernelsError as error:
        return {"built": True, "loaded": False, "usable": False, "reason": str(error)}
    device = dict(module.device_info())
    reason = note
    if device["device_count"] == 0:
        reason = f"{note}, but there is no usable GPU: {device['error'] or 'no device found'}"
    elif not torch.cuda.is_available():
        reason = f"{note} and a GPU is there, but this PyTorch ({torch.__version__}) has no CUDA support"
    usable = device["device_count"] > 0 and torch.cuda.is_available()
    return {"built": True, "loaded": True, "usable": usable, "reason": reason, **device}
