"""The torch library that all operators are defined in, and the key as their schemas take it."""

import torch

from privkernels.errors import InvalidArgumentError

library = torch.library.Library("privkernels", "DEF")


def check_key(key: torch.Tensor) -> None:
    """Raise unless this is a derived key: uint8 [32]. Also runs on fake tensors, which have no memory."""
    if key.dtype != torch.uint8 or key.shape != (32,):
        raise InvalidArgumentError(f"a key is uint8 [32], got {key.dtype} {list(key.shape)}")


def key_bytes(key: torch.Tensor) -> bytes:
    """The 32 bytes for the compiled module."""
    check_key(key)
    return key.cpu().numpy().tobytes()
