"""What the networks share: a checked input, and Keras's initialisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from privkernels.errors import InvalidArgumentError


class ImageNetwork(nn.Module):
    """Convolutional ``features`` followed by a dense ``classifier``, initialised as Keras does.

    Keras's default is Glorot-uniform weights and zero biases. Draws come from torch's global
    generator, as those of torch.nn do; :func:`privkernels.models.build` takes a seed.

    Args:
        features: from [n, channels, height, width] to [n, k, height', width'].
        classifier: from that to logits [n, n_classes].
        input_shape: (channels, height, width).
    """

    def __init__(self, features: nn.Module, classifier: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.input_shape = tuple(input_shape)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, n_classes] of images [n, channels, height, width]."""
        check_input(self, x, self.input_shape)
        logits: torch.Tensor = self.classifier(self.features(x))
        return logits


def check_sizes(network: str, input_shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse an input shape or a number of classes that no network can have."""
    sizes = (*input_shape, n_classes)
    if not input_shape or any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
        raise InvalidArgumentError(
            f"{network} needs an input_shape of positive integers and n_classes >= 1, "
            f"not input_shape={input_shape!r} and n_classes={n_classes!r}"
        )


def feature_pixels(network: str, input_shape: tuple[int, ...], shrink: Callable[[int], int]) -> int:
    """Pixels per feature map after the convolutions, for images (channels, height, width).

    Args:
        network: its name, for messages.
        input_shape: (channels, height, width).
        shrink: what the convolutions and poolings make of a side length.

    Raises:
        InvalidArgumentError: ``input_shape`` is no image, or the image is too small.
    """
    if len(input_shape) != 3:
        raise InvalidArgumentError(
            f"{network} takes images, input_shape=(channels, height, width), not {tuple(input_shape)}"
        )
    height, width = shrink(input_shape[1]), shrink(input_shape[2])
    if height < 1 or width < 1:
        raise InvalidArgumentError(
            f"images of {input_shape[1]}x{input_shape[2]} pixels are too small for {network}: "
            "nothing is left after its convolutions"
        )
    return height * width


def check_input(network: nn.Module, x: torch.Tensor, input_shape: tuple[int, ...]) -> None:
    """Refuse a batch whose records have another shape than the network was built for."""
    if x.shape[1:] != input_shape or not x.is_floating_point():
        raise InvalidArgumentError(
            f"{type(network).__name__} was built for float input [n, {', '.join(map(str, input_shape))}] "
            f"and got {x.dtype} {list(x.shape)}: build it with the input_shape of the records"
        )
