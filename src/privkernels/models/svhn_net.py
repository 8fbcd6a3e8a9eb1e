"""SVHN-Net of the DP-PG paper."""

from __future__ import annotations

from torch import nn

from privkernels.models.network import ImageNetwork, check_sizes, feature_pixels


class SvhnNet(ImageNetwork):
    """Four convolutions and two dense layers; 314,394 parameters at the default shape.

    Two blocks of a 3x3 convolution with padding "same", a 3x3 convolution with padding "valid"
    and max-pooling 2, of 16 and then 32 channels; dense 256, dense ``n_classes``; ReLU after
    every layer but the last.

    Source: Mao et al., TPDS 2022, section 6.1, "SVHN-Net". The paper says only that it is "similar
    to CIFAR-Net with 314,394 parameters"; these widths are the ones that give that number. The
    paper does not speak of dropout, so there is none.
    """

    def __init__(self, input_shape: tuple[int, ...] = (3, 32, 32), n_classes: int = 10) -> None:
        check_sizes("svhn-net", input_shape, n_classes)
        pixels = feature_pixels("svhn-net", input_shape, lambda side: ((side - 2) // 2 - 2) // 2)
        features = nn.Sequential(*_block(input_shape[0], 16), *_block(16, 32))
        classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(32 * pixels, 256),
            nn.ReLU(),
            nn.Linear(256, n_classes),
        )
        super().__init__(features, classifier, input_shape)


def _block(channels_in: int, channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
