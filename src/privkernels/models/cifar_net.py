"""CIFAR-Net of the DP-PG paper: the network of Keras's CIFAR-10 example."""

from __future__ import annotations

from torch import nn

from privkernels.models.network import ImageNetwork, check_sizes, feature_pixels


class CifarNet(ImageNetwork):
    """Four convolutions and two dense layers; 1,250,858 parameters at the default shape.

    Two blocks of a 3x3 convolution with padding "same", a 3x3 convolution with padding "valid",
    max-pooling 2 and dropout 0.25, of 32 and then 64 channels; dense 512, dropout 0.5, dense
    ``n_classes``; ReLU after every layer but the last.

    Source: Mao et al., TPDS 2022, section 6.1, "CIFAR-Net", which is Keras's ``cifar10_cnn``
    example with the softmax left to the loss.
    """

    def __init__(self, input_shape: tuple[int, ...] = (3, 32, 32), n_classes: int = 10) -> None:
        check_sizes("cifar-net", input_shape, n_classes)
        pixels = feature_pixels("cifar-net", input_shape, lambda side: ((side - 2) // 2 - 2) // 2)
        features = nn.Sequential(*_block(input_shape[0], 32), *_block(32, 64))
        classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * pixels, 512),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(512, n_classes),
        )
        super().__init__(features, classifier, input_shape)


def _block(channels_in: int, channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
    ]
