"""Putting stored weights into a network, with every difference named."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import nn

from privkernels._files import read_safetensors
from privkernels.errors import MemberMismatchError, NonFiniteValueError


def load_weights(module: nn.Module, source: str | os.PathLike[str] | Mapping[str, torch.Tensor]) -> nn.Module:
    """Copy weights into ``module``, which must have exactly their names, shapes and dtypes.

    Args:
        module: the network; changed in place, and left as it was when an error is raised.
        source: a safetensors file, or the tensors by name (a state dict).

    Returns:
        ``module``.

    Raises:
        MemberMismatchError: lists missing and unexpected names, and other shapes or dtypes.
        NonFiniteValueError: a tensor holds NaN or infinity.
        FileMissingError, UnsafeFormatError, CorruptFileError: the file cannot be read.
    """
    if isinstance(source, Mapping):
        tensors, where = dict(source), "the given tensors"
    else:
        tensors, where = read_safetensors(source)[0], str(source)
    problems = differences(module.state_dict(), tensors)
    if problems:
        raise MemberMismatchError(
            f"{where} do not fit {type(module).__name__}: {'; '.join(problems)}; "
            "build the network with the spec and shapes that they were trained with"
        )
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteValueError(f"{name} in {where} holds NaN or infinity: the training diverged")
    module.load_state_dict(tensors)
    return module


def differences(expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps ``given`` from standing in for ``expected``, in words; empty when nothing does."""
    problems = []
    missing = sorted(expected.keys() - given.keys())
    unexpected = sorted(given.keys() - expected.keys())
    if missing:
        problems.append(f"missing {', '.join(missing)}")
    if unexpected:
        problems.append(f"unexpected {', '.join(unexpected)}")
    for name in sorted(expected.keys() & given.keys()):
        want, have = expected[name], given[name]
        if want.shape != have.shape or want.dtype != have.dtype:
            problems.append(f"{name} is {have.dtype} {list(have.shape)} instead of {want.dtype} {list(want.shape)}")
    return problems
