"""MNIST-Net of the DP-PG paper: the convolutional network of Keras's MNIST example."""

from __future__ import annotations

from torch import nn

from privkernels.models.network import ImageNetwork, check_sizes, feature_pixels


class MnistNet(ImageNetwork):
    """Two convolutions and two dense layers; 1,199,882 parameters at the default shape.

    Convolution 32 (3x3, valid), convolution 64 (3x3, valid), max-pooling 2, dropout 0.25,
    dense 128, dropout 0.5, dense ``n_classes``; ReLU after every layer but the last.

    Source: Mao et al., TPDS 2022, section 6.1, "MNIST-Net", which is Keras's ``mnist_cnn``
    example with the softmax left to the loss.
    """

    def __init__(self, input_shape: tuple[int, ...] = (1, 28, 28), n_classes: int = 10) -> None:
        check_sizes("mnist-net", input_shape, n_classes)
        pixels = feature_pixels("mnist-net", input_shape, lambda side: (side - 4) // 2)
        features = nn.Sequential(
            nn.Conv2d(input_shape[0], 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
        )
        classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * pixels, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, n_classes),
        )
        super().__init__(features, classifier, input_shape)
