from __future__ import annotations

import pytest

from privkernels.errors import InvalidArgumentError
from privkernels.training import TrainingConfig


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"epochs": True},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": -0.1},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate": "0.1"},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"weight_decay": -1e-4},
        {"optimizer": "rmsprop"},
        {"schedule": "step"},
    ],
)
def test_values_out_of_range_are_named(settings) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(settings))):
        TrainingConfig(**settings)


def test_schedules() -> None:
    assert [TrainingConfig(epochs=4, learning_rate=0.1).rate(epoch) for epoch in range(4)] == [0.1] * 4
    cosine = TrainingConfig(epochs=4, learning_rate=0.1, schedule="cosine")
    assert [cosine.rate(epoch) for epoch in range(4)] == pytest.approx([0.1, 0.08535534, 0.05, 0.01464466])
