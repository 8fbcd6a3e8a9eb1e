"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from privkernels.training import TrainingConfig

DATA_NAMES = ("digits", "mnist", "fashion-mnist", "cifar-10", "svhn")
MODEL_NAMES = ("mnist-net", "cifar-net", "svhn-net", "mlp", "mlp-HIDDEN", "linear")
DATA_WORDS, MODEL_WORDS = ", ".join(DATA_NAMES), ", ".join(MODEL_NAMES)
DataName = Annotated[str, typer.Option("--data", help=f"Data set: {DATA_WORDS}.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder with the data set's files.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch missing files from their publisher.")]
Epochs = Annotated[int, typer.Option(help="Passes over a member's records.")]
BatchSize = Annotated[int, typer.Option(help="Records per step.")]
LearningRate = Annotated[float, typer.Option(help="Step size.")]
Optimizer = Annotated[str, typer.Option(help="sgd or adam.")]


def training_config(epochs: int, batch_size: int, learning_rate: float, optimizer: str) -> TrainingConfig:
    from privkernels.training import TrainingConfig

    return TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=cast(Any, optimizer),  # TrainingConfig checks it
    )
