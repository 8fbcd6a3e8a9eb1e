"""Operators in place: what shares memory is refused, what does not is changed, and autograd is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from privkernels.errors import InvalidArgumentError
from privkernels.ops import mask_sum_, prune_apply_, prune_mask, prune_project_

SEEDS = torch.zeros(1, 32, dtype=torch.uint8)
WEIGHT = torch.arange(24.0)


def zero_all(tensors: list[torch.Tensor]) -> None:
    prune_apply_(tensors, [torch.zeros(x.shape, dtype=torch.bool) for x in tensors])


def views_that_share() -> list[list[torch.Tensor]]:
    square, line = torch.arange(16.0).view(4, 4), torch.arange(24.0)
    return [
        [square, square],
        [square, torch.ones(3), square.t()],
        [square[:, :2], square[:, 1:]],
        [square.diagonal(), square[2:, 2:]],
        [line.unfold(0, 3, 1)],
        [line.as_strided((4, 3), (2, 3))],  # 6 twice
        [line[1:].view(23), line[:2]],
    ]


def views_that_do_not() -> list[list[torch.Tensor]]:
    square, line = torch.arange(16.0).view(4, 4), torch.arange(24.0)
    return [
        [square[:, :2], square[:, 2:]],
        [square.t()[::2], square[:, 1::2]],
        [line[::2], line[1::2]],
        [line[:5], line[5:]],
        [line.as_strided((3, 2), (2, 3))],  # 0, 3, 2, 5, 4, 7
        [square.t(), line.view(2, 3, 4).permute(1, 2, 0), torch.ones(0, 3), torch.tensor(3.0)],
    ]


@pytest.mark.parametrize("number", range(7))
def test_tensors_that_share_memory_are_refused_and_unchanged(number: int) -> None:
    tensors = views_that_share()[number]
    before = [x.clone() for x in tensors]
    for change in (zero_all, lambda found: prune_project_(found, keep=1)):
        with pytest.raises(InvalidArgumentError, match="share memory"):
            change(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_the_message_names_the_tensors() -> None:
    square = torch.ones(4, 4)
    with pytest.raises(InvalidArgumentError, match="tensors 1 and 3 share memory"):
        zero_all([torch.ones(2), square, torch.ones(3), square.t()])
    with pytest.raises(InvalidArgumentError, match="entries of tensor 1 share memory"):
        zero_all([square, torch.arange(9.0).unfold(0, 3, 1)])
    with pytest.raises(InvalidArgumentError, match="entries of tensor 0 share memory"):
        mask_sum_(torch.arange(9).unfold(0, 3, 1), SEEDS, [1])


@pytest.mark.parametrize("number", range(6))
def test_views_that_interleave_are_changed(number: int) -> None:
    tensors = views_that_do_not()[number]
    keep = sum(x.numel() for x in tensors) // 2
    masks, _ = prune_mask(tensors, keep=keep)
    expected = [x * mask for x, mask in zip(tensors, masks, strict=True)]
    prune_project_(tensors, keep=keep)
    assert all(torch.equal(a, b) for a, b in zip(tensors, expected, strict=True))
    zero_all(tensors)
    assert not any(x.any() for x in tensors)


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("change", [zero_all, lambda found: prune_project_(found, keep=1)])
def test_a_graph_that_saved_the_old_values_refuses_to_run_backward(
    change: Callable[[list[torch.Tensor]], None], layout: str
) -> None:
    leaf = torch.ones(4, 5, requires_grad=True)
    x = leaf.detach().clone().t().requires_grad_() if layout == "transposed" else leaf
    loss = (x * x).sum()
    change([x])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_masking_counts_as_a_change() -> None:
    for values in (torch.arange(6), torch.arange(12)[::2]):
        before = values._version
        mask_sum_(values, SEEDS, [1])
        assert values._version > before


def test_inference_tensors_have_no_version_to_count() -> None:
    with torch.inference_mode():
        x, values = torch.ones(6), torch.arange(6)
        prune_project_(x, keep=2)
        zero_all([x])
        mask_sum_(values, SEEDS, [1])
    assert not x.any()
    assert not torch.equal(values, torch.arange(6))
