"""The torch library that all operators are defined in, the key as their schemas take it, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from privkernels.errors import GraphCaptureError, InvalidArgumentError

library = torch.library.Library("privkernels", "DEF")

# Why operators stay outside of CUDA graphs.
KEYED = "a replay would use the same random bits again, on another input"
READS_BACK = "it waits for the device, to read a result or a failure back"

_REASONS: dict[str, str] = {}  # of operators that refuse to be captured, by name


def define(schema: str, *, outside_graphs: str | None) -> None:
    """Define an operator. ``outside_graphs`` says why it cannot be part of a CUDA graph; None where it can be.

    The tag keeps the operator out of the graphs of ``torch.compile(mode="reduce-overhead")``. The oldest PyTorch that
    is allowed does not have it, and has the error alone.
    """
    tag = getattr(torch.Tag, "cudagraph_unsafe", None)
    library.define(schema, tags=() if outside_graphs is None or tag is None else (tag,))
    if outside_graphs is not None:
        _REASONS[schema.partition("(")[0]] = outside_graphs


def implement(name: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Register the function that runs an operator on either device, and its fake."""

    def run_on_cuda(*arguments: Any) -> Any:
        refuse_capture(name, arguments)
        return run(*arguments)

    library.impl(name, run, "CPU")
    library.impl(name, run_on_cuda if name in _REASONS else run, "CUDA")
    torch.library.register_fake(f"privkernels::{name}", fake, lib=library)


def refuse_capture(what: str, arguments: Iterable[Any]) -> None:
    """Raise if a CUDA graph is being captured on the current stream of a device of these tensors, lists and devices.

    Before anything is asked of the device, which would break the capture. Functions that do so ahead of their operator
    call this themselves.
    """
    if torch.compiler.is_compiling():
        return  # what is traced runs later, and the operator asks then
    for device in _cuda_devices(arguments):
        with torch.cuda.device(device):
            capturing = torch.cuda.is_current_stream_capturing()
        if capturing:
            raise GraphCaptureError(
                f"{what} cannot be captured into a CUDA graph: {_REASONS.get(what, READS_BACK)}. Call it outside of "
                "the graph, between its replays"
            )


def _cuda_devices(arguments: Iterable[Any]) -> set[torch.device]:
    devices: set[torch.device] = set()
    for argument in arguments:
        if isinstance(argument, list | tuple):
            devices |= _cuda_devices(argument)
        else:
            device = argument.device if isinstance(argument, torch.Tensor) else argument
            if isinstance(device, torch.device) and device.type == "cuda":
                devices.add(device)
    return devices


def check_key(key: torch.Tensor) -> None:
    """Raise unless this is a derived key: uint8 [32]. Also runs on fake tensors, which have no memory."""
    if key.dtype != torch.uint8 or key.shape != (32,):
        raise InvalidArgumentError(f"a key is uint8 [32], got {key.dtype} {list(key.shape)}")


def key_bytes(key: torch.Tensor) -> bytes:
    """The 32 bytes for the compiled module."""
    check_key(key)
    return key.cpu().numpy().tobytes()
