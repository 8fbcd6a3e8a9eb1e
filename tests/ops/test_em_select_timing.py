"""The time of em_select does not depend on the scores.

A sampler that ends early, rejects or branches differs between these kinds of scores by factors of two to a hundred.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from privkernels.ops import em_select
from privkernels.randomness import Key
from tests.support.least_times import assert_alike

KEY = Key.from_seed(1)
SHAPES = {"one long segment": (1, 200_000), "many short segments": (1500, 100)}


def kinds(rows: int, size: int) -> dict[str, torch.Tensor]:
    """Scores for a multiplier of 1: where the draw falls, and how many candidates could be accepted, differ most."""
    result = {"all equal": torch.zeros(rows, size), "far below": torch.full((rows, size), -1e4)}
    for name, at in (("first", 0), ("middle", size // 2), ("last", size - 1)):
        result[f"one peak, {name}"] = torch.zeros(rows, size)
        result[f"one peak, {name}"][:, at] = 30.0
    result["random"] = torch.randn(rows, size, generator=torch.Generator().manual_seed(0)) * 10
    result["far apart"] = torch.randn(rows, size, generator=torch.Generator().manual_seed(0)) * 1e30
    result["rising"] = torch.linspace(-40, 0, size).repeat(rows, 1)
    return result


@pytest.mark.parametrize("mechanism", ["exponential", "permute-and-flip"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 3])
def test_time_does_not_depend_on_the_scores(mechanism: Any, shape: str, k: int) -> None:
    draw: dict[str, Any] = {"multiplier": 1.0, "key": KEY, "label": "t", "k": k, "mechanism": mechanism}
    calls = {name: partial(em_select, scores, **draw) for name, scores in kinds(*SHAPES[shape]).items()}
    assert_alike(calls, rounds=25, limit=1.6)
