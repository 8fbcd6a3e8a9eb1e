"""em_select as a PyTorch operator: schema, fake tensors, torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from privkernels.errors import EmptyDataError, InvalidArgumentError
from privkernels.ops import em_select
from privkernels.randomness import Key

EM_SELECT = torch.ops.privkernels.em_select.default
KEY = Key.from_seed(3)


def arguments(
    rows: int = 5, size: int = 37, ragged: bool = False, strided: bool = False, k: int = 2, flip: bool = False
) -> tuple[Any, ...]:
    scores = torch.randn(rows, 2 * size, generator=torch.Generator().manual_seed(1))
    scores = scores[:, ::2] if strided else scores[:, :size].contiguous()
    offsets = torch.arange(0, rows * size + 1, size) if ragged else None
    return scores.reshape(-1) if ragged else scores, offsets, KEY.derive("op").tensor(), 1.5, k, flip, 8


LAYOUTS: list[dict[str, Any]] = [
    {}, {"ragged": True}, {"strided": True, "k": 1}, {"flip": True}, {"rows": 1, "size": 2}, {"rows": 0, "size": 3},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_opcheck(layout: dict[str, Any]) -> None:
    """Schema, fake, autograd registration and AOT dispatch with static and dynamic shapes."""
    torch.library.opcheck(EM_SELECT, arguments(**layout))


@pytest.mark.parametrize("mechanism", ["exponential", "permute-and-flip"])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_operator_is_what_the_function_calls(mechanism: Any, ragged: bool) -> None:
    scores, offsets, *_ = given = arguments(ragged=ragged, flip=mechanism == "permute-and-flip")
    drawn = em_select(
        scores, offsets=offsets, multiplier=1.5, key=KEY, label="op", k=2, mechanism=mechanism, first_segment=8
    )
    assert torch.equal(drawn, EM_SELECT(*given))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    """fullgraph=True, so nothing falls back to Python; the eager backend needs no C++ compiler."""

    def function(scores: torch.Tensor, offsets: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = torch.ops.privkernels.em_select(scores * 2, None, key, 1.0, 2, False, 0)
        ragged = torch.ops.privkernels.em_select(scores.reshape(-1), offsets, key, 1.0, 1, True, 0)
        return scores.gather(1, rows), ragged + 1

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    key = KEY.tensor()
    for size in (12, 30):
        scores = torch.randn(4, size, generator=torch.Generator().manual_seed(size))
        offsets = torch.tensor([0, 5, 4 * size])
        for a, b in zip(compiled(scores, offsets, key), function(scores, offsets, key), strict=True):
            assert torch.equal(a, b)


def test_fake_tensors_have_the_real_shapes_and_refuse_what_the_kernel_refuses() -> None:
    mode = FakeTensorMode()
    for layout in LAYOUTS:
        real = EM_SELECT(*arguments(**layout))
        scores, offsets, key, *rest = arguments(**layout)
        fakes = [
            mode.from_tensor(scores),
            None if offsets is None else mode.from_tensor(offsets),
            mode.from_tensor(key),
        ]
        with mode:
            fake = EM_SELECT(*fakes, *rest)
        assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
    with mode:
        key = torch.zeros(32, dtype=torch.uint8)
        with pytest.raises(InvalidArgumentError, match="float32 or float64"):
            EM_SELECT(torch.zeros(2, 3, dtype=torch.int32), None, key, 1.0, 1, False, 0)
        with pytest.raises(InvalidArgumentError, match="k = 4"):
            EM_SELECT(torch.zeros(2, 3), None, key, 1.0, 4, False, 0)
        with pytest.raises(EmptyDataError):
            EM_SELECT(torch.zeros(2, 0), None, key, 1.0, 1, False, 0)


def test_no_gradient_flows_through_a_draw() -> None:
    scores = torch.randn(3, 9, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert not em_select(scores, multiplier=1.0, key=KEY, label="g").requires_grad
