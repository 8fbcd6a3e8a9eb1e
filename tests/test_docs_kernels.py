"""docs/kernels.md: its examples run, and it names every public operator."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from privkernels import ops

PAGE = (Path(__file__).parent.parent / "docs" / "kernels.md").read_text(encoding="utf-8")
START, *EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.findall(r"ops\.(\w+)", text)[0])
def test_examples_run(example: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(START + example, "docs/kernels.md", "exec"), names)
    if "same" in names:
        assert names["same"].equal(names["value"])
    if "received" in names:
        assert (names["received"] - names["encoded"] / 2**16).abs().max() == 0
    if "masks" in names:
        assert sum(ops.count_kept(mask) for mask in names["masks"]) == 234
        assert sum(int((x != 0).sum()) for x in names["model"].parameters()) == 234


def functions() -> list[str]:
    return [name for name in ops.__all__ if name.islower() and not name.endswith("_reference")]


@pytest.mark.parametrize("name", functions())
def test_every_operator_is_named(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


def test_the_page_has_an_example_of_every_kernel() -> None:
    kernels = {"kde_em", "em_select", "noise_add", "randomized_response", "noisy_activations", "prune_mask"}
    kernels |= {"prune_pattern_mask", "prune_random_mask", "mask_sum", "kmeans1d", "kmeans1d_split"}
    assert all(any(f"ops.{kernel}(" in example for example in EXAMPLES) for kernel in kernels)
