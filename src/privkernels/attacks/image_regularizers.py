"""What a natural picture is likelier to be: of moderate values, and smooth.

The alpha-norm and the total variation of Mahendran and Vedaldi (CVPR 2015). They sum over a
picture; these are means, so that a weight does not depend on the picture's size.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

# Keeps the root's derivative finite where a picture is flat; below the square of a step of 8-bit pixels.
_FLAT = 1e-6


def alpha_norm(x: Tensor, alpha: float) -> Tensor:
    """The mean of |x|^alpha per record, [n] for x [n, ...]."""
    return x.abs().pow(alpha).flatten(1).mean(dim=1)


def total_variation(x: Tensor, beta: float) -> Tensor:
    """The mean of (dx^2 + dy^2)^(beta/2) over the pixels of each record, [n] for x [n, channels, height, width].

    dx and dy are differences with the next pixel to the right and below; past the border they are 0.
    Where beta < 2, 1e-6 is added inside the root and taken off after it, so that a flat picture has 0.
    """
    right = functional.pad(x.diff(dim=3), (0, 1))
    down = functional.pad(x.diff(dim=2), (0, 0, 0, 1))
    squares = right.square() + down.square()
    if beta == 2:
        return squares.flatten(1).mean(dim=1)
    values: Tensor = (squares + _FLAT).pow(beta / 2) - _FLAT ** (beta / 2)
    return values.flatten(1).mean(dim=1)
