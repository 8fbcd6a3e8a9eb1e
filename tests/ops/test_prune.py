"""prune against stable sorts: order, ties, formats, layouts, models, patterns, application, bits, errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import (
    count_kept,
    pack_mask,
    prune_apply_,
    prune_mask,
    prune_mask_reference,
    prune_pattern_mask,
    prune_pattern_mask_reference,
    prune_project,
    prune_project_,
    unpack_mask,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
RANKS: list[Any] = ["magnitude", "value"]
SIZE = 90_001  # more than one chunk, and enough for a sample


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    kind = BITS[a.element_size()]
    return (
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))
    )


def check(tensors: Sequence[torch.Tensor], keep: int, rank_by: Any = "magnitude") -> None:
    """All outputs against the reference."""
    masks, threshold = prune_mask(tensors, keep=keep, rank_by=rank_by)
    expected, value = prune_mask_reference(tensors, keep, rank_by)
    assert sum(count_kept(mask) for mask in masks) == keep
    for mask, other in zip(masks, expected, strict=True):
        assert torch.equal(mask, other)
    assert (threshold.dtype, threshold.shape, float(threshold)) == (tensors[0].dtype, (), value)
    bits, _ = prune_mask(tensors, keep=keep, rank_by=rank_by, as_bits=True)
    for packed, other in zip(bits, expected, strict=True):
        assert torch.equal(packed, pack_mask(other))
    if rank_by == "magnitude":
        wanted = [torch.where(m, x, torch.zeros((), dtype=x.dtype)) for x, m in zip(tensors, expected, strict=True)]
        assert all(map(same_bits, prune_project(tensors, keep=keep), wanted))
        copies = [x.clone() for x in tensors]
        prune_project_(copies, keep=keep)
        assert all(map(same_bits, copies, wanted))


def numbers(name: str, size: int, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size))
    kinds = {
        "normal": x,
        "zeros": torch.where(x.abs() < 1.5, 0.0, x),
        "equal": torch.full((size,), -2.0),
        "sorted": x.sort().values,
        "periodic": (torch.arange(size) % 16).float(),
        "two values": torch.where(x > 1, 1.0, 0.5),
        "outlier": torch.cat([torch.full((size - 1,), 1e-3), torch.tensor([-100.0])]),
        "denormal": x * torch.finfo(dtype).tiny / 8,
        "infinite": torch.where(x > 2, math.inf, torch.where(x < -2, -math.inf, x)),
        "signed zeros": torch.where(x > 0, 0.0, -0.0),
    }
    return (kinds[name].double() if name == "denormal" else kinds[name]).to(dtype)


KINDS = [
    "normal", "zeros", "equal", "sorted", "periodic", "two values", "outlier", "denormal", "infinite", "signed zeros"
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
def test_large_tensors_of_all_kinds(name: str, dtype: torch.dtype) -> None:
    x = numbers(name, SIZE, dtype)
    for keep in (0, 1, SIZE // 10, SIZE // 2, SIZE - 1, SIZE):
        check([x[:1000], x[1000:]], keep)
    for keep in (1, SIZE // 100, SIZE // 3):
        check([x], keep, "value")
        check([x[:100]], keep % 100, "value")


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_model(data: st.DataObject) -> None:
    """Several tensors of drawn shapes, strides and few different values, ranked together."""
    dtype = data.draw(st.sampled_from(DTYPES))
    values = data.draw(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, -3.0, 1e-7, 60000.0, math.inf, -math.inf]),
                                min_size=1, max_size=5))  # fmt: skip
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    tensors = []
    for shape in data.draw(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=4)):
        x = torch.tensor(rng.choice(values, size=shape), dtype=torch.float64).to(dtype)
        layout = data.draw(st.sampled_from(["plain", "transposed", "every second", "offset"]))
        if layout == "transposed":
            axes = list(range(x.dim()))[::-1]
            x = x.permute(axes).contiguous().permute(axes)
        elif layout == "every second" and x.dim() > 0:
            x = torch.stack([x, x + 1], dim=-1)[..., 0]
        elif layout == "offset" and x.dim() > 0:
            x = torch.cat([x, x])[x.shape[0] :]
        tensors.append(x)
    keep = data.draw(st.integers(0, sum(x.numel() for x in tensors)))
    for rank_by in RANKS:
        check(tensors, keep, rank_by)


def test_the_sample_misses_and_the_result_is_exact() -> None:
    """Values whose rare entries no sample of one in sixteen sees, and rows alike within a run."""
    x = torch.zeros(1_500_000)
    x[torch.arange(40) * 37_001 + 5] = torch.arange(1.0, 41.0)
    for keep in (1, 17, 40, 41, 1_000_000):
        check([x], keep)
    check([torch.arange(1_500_000.0).view(1500, 1000).t()], 123_457)
    check([(torch.arange(1_500_000) // 1000).bfloat16()], 777_777)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank_by", RANKS)
def test_a_threshold_of_zero_is_positive(rank_by: Any, dtype: torch.dtype) -> None:
    for values in ([-0.0, -0.0], [0.0, -0.0], [-0.0]):
        threshold = prune_mask(torch.tensor(values, dtype=dtype), keep=1, rank_by=rank_by)[1]
        assert threshold == 0
        assert not torch.signbit(threshold)


@pytest.mark.parametrize("rank_by", RANKS)
@pytest.mark.parametrize("low", [0.0, -0.25, 1.0])
def test_a_model_that_was_pruned_is_pruned_again(low: float, rank_by: Any) -> None:
    """Most entries are one value, and the sought one is that or a neighbour."""
    size, others = 300_000, 30_000
    x = torch.full((size,), low)
    x[torch.arange(others) * 9 + 4] = 1.5 + torch.arange(others) % 29_000
    for keep in (others - 1, others, others + 1, others + 300, others // 2, size - 1):
        check([x[:1000], x[1000:]], keep, rank_by)


def test_layouts() -> None:
    base = torch.randn(300_000, generator=torch.Generator().manual_seed(1))
    check([base.view(300, 1000).t(), base.view(3, 100, 1000)[:, ::7], base[::3], base[5:]], 111_111)
    masks, _ = prune_mask(base[:10].expand(4, 10), keep=13)
    assert torch.equal(masks[0], prune_mask_reference([base[:10].expand(4, 10)], 13)[0][0])
    channels = base[:240].view(2, 3, 8, 5).contiguous(memory_format=torch.channels_last)
    check([channels], 99)
    projected = base.view(300, 1000).t().clone(memory_format=torch.preserve_format)
    prune_project_(projected, keep=500)
    assert projected.stride() == (1, 1000)
    assert same_bits(projected, prune_project(base.view(300, 1000).t(), keep=500)[0])


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.9999, 1.0])
def test_sparsity_is_that_of_torch(sparsity: float) -> None:
    module = torch.nn.Linear(77, 31)
    before = module.weight.detach().clone()
    torch.nn.utils.prune.l1_unstructured(module, "weight", sparsity)
    masks, _ = prune_mask(before, sparsity=sparsity)
    assert torch.equal(masks[0], module.weight_mask.bool())


def test_gradients_are_detached() -> None:
    x = torch.randn(9, requires_grad=True)
    assert not prune_project(x, keep=3)[0].requires_grad
    prune_project_(x, keep=3)
    assert (x != 0).sum() == 3


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_patterns(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=3))
    m = data.draw(st.integers(1, 10))
    n = data.draw(st.integers(1, m))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = torch.tensor(rng.integers(-3, 4, size=shape), dtype=torch.float64).to(dtype)
    if data.draw(st.booleans()):
        x = x.transpose(0, -1)
        dim = -1
    mask = prune_pattern_mask(x, n, m, dim=dim)
    assert mask.is_contiguous()
    assert torch.equal(mask, prune_pattern_mask_reference(x, n, m, dim))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (17, 64)])
def test_large_patterns(n: int, m: int, dtype: torch.dtype) -> None:
    x = torch.randn(130, 6, 83, generator=torch.Generator().manual_seed(2)).to(dtype)
    for y, dim in ((x, -1), (x, 1), (x, 0), (x.view(-1), 0)):
        assert torch.equal(prune_pattern_mask(y, n, m, dim=dim), prune_pattern_mask_reference(y, n, m, dim))
    whole = prune_pattern_mask(x[..., :64], n, m)
    assert (whole.view(-1, m).sum(1) == n).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (8, 5), (301, 257)])
def test_application(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    x[x > 1] = math.nan
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.5
    expected = torch.where(mask, x, torch.zeros((), dtype=dtype))
    for given_mask in (mask, pack_mask(mask)):
        y, z = x.clone(), x.unsqueeze(-1).repeat_interleave(2, -1)[..., 0]
        prune_apply_([y, z], [given_mask, given_mask])
        assert same_bits(y, expected)
        assert same_bits(z, expected)
        assert not torch.signbit(y[~mask]).any()


@given(st.lists(st.integers(0, 12), max_size=3), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_bits(shape: list[int], seed: int) -> None:
    mask = torch.tensor(np.random.default_rng(seed).random(shape) < 0.5)
    bits = pack_mask(mask)
    assert bits.numpy().tobytes() == np.packbits(mask.numpy().reshape(-1), bitorder="little").tobytes()
    assert torch.equal(unpack_mask(bits, shape), mask)
    assert count_kept(bits) == count_kept(mask) == int(mask.sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_named_and_nothing_is_changed(dtype: torch.dtype) -> None:
    x, y = torch.ones(9, dtype=dtype), torch.ones(300, 400, dtype=dtype)
    y[250, 7], y[299, 0] = math.nan, -math.nan
    calls: list[Any] = [prune_mask, prune_project, prune_project_]
    for call in calls:
        for keep in (0, 5, 100_000):
            with pytest.raises(NonFiniteValueError, match="tensor 1 holds NaN in element 100007 "):
                call([x, y], keep=keep)
    assert x.sum() == 9
    for dim in (0, 1):
        with pytest.raises(NonFiniteValueError, match="element 100007 "):
            prune_pattern_mask(y, 2, 4, dim=dim)


@pytest.mark.parametrize(
    ("tensors", "rest", "message"),
    [
        ([1.0], {"keep": 1}, "tensor 0 must be a tensor"),
        (1.0, {"keep": 1}, "tensors must be a tensor or a sequence"),
        ([], {"keep": 0}, "at least one"),
        (torch.ones(3, dtype=torch.int32), {"keep": 1}, "tensor 0 must be dense"),
        (torch.ones(2, 2).to_sparse(), {"keep": 1}, "tensor 0 must be dense"),
        ([torch.ones(3), torch.ones(3).double()], {"keep": 1}, "one dtype and device"),
        (torch.ones(3), {}, "either sparsity or keep"),
        (torch.ones(3), {"keep": 1, "sparsity": 0.5}, "either sparsity or keep"),
    ]
    + [(torch.ones(3), {"keep": k}, "keep must be an integer") for k in (-1, 4, 1.0, True, "1")]
    + [(torch.ones(3), {"sparsity": s}, "sparsity must be in") for s in (-0.1, 1.1, math.nan, True, "1")],
)
def test_bad_arguments(tensors: Any, rest: dict[str, Any], message: str) -> None:
    for call in (prune_mask, prune_project, prune_project_):
        with pytest.raises(InvalidArgumentError, match=message):
            call(tensors, **rest)  # type: ignore[operator]


def test_other_bad_arguments() -> None:
    x = torch.ones(8)
    with pytest.raises(InvalidArgumentError, match="rank_by"):
        prune_mask(x, keep=1, rank_by="size")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="is expanded"):
        prune_project_(x[:1].expand(5), keep=1)
    with pytest.raises(InvalidArgumentError, match="tensors 0 and 1 share memory"):
        prune_project_([x, x], keep=1)
    with pytest.raises(InvalidArgumentError, match="tensors 0 and 1 share memory"):
        prune_apply_([x, x[4:]], [x > 0, x[4:] > 0])
    for n, m in ((0, 4), (5, 4), (1, 65), (2**70, 2**70)):
        with pytest.raises(InvalidArgumentError, match="1 <= n <= m <= 64"):
            prune_pattern_mask(x, n, m)
    with pytest.raises(InvalidArgumentError, match="n must be an integer"):
        prune_pattern_mask(x, 2.0, 4)  # type: ignore[arg-type]
    for tensor, dim in ((x, 1), (x, -2), (x, 2**70), (torch.tensor(1.0), 0)):
        with pytest.raises(InvalidArgumentError, match="dim must be an axis"):
            prune_pattern_mask(tensor, 2, 4, dim=dim)
    for mask, message in (
        (torch.ones(7, dtype=torch.bool), "mask 0 must be bool"),
        (torch.ones(8), "mask 0 must be bool"),
        (torch.ones(8, dtype=torch.uint8), "uint8 \\[1\\]"),
        ([torch.ones(8, dtype=torch.bool)] * 2, "one mask for each tensor"),
        ([None], "mask 0 must be a tensor"),
        (None, "masks must be a tensor or a sequence"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            prune_apply_(x, mask)  # type: ignore[arg-type]
    for call in (pack_mask, count_kept):
        with pytest.raises(InvalidArgumentError, match="mask"):
            call(torch.ones(3))
    with pytest.raises(InvalidArgumentError, match="uint8 \\[2\\]"):
        unpack_mask(torch.zeros(3, dtype=torch.uint8), [9])
    for shape in (9, [-3, -3], [9.0]):
        with pytest.raises(InvalidArgumentError, match="sequence of integers from 0 on"):
            unpack_mask(torch.zeros(2, dtype=torch.uint8), shape)  # type: ignore[arg-type]


def test_nothing_is_changed_where_a_later_tensor_is_bad() -> None:
    x, masks = torch.ones(5), [torch.zeros(5, dtype=torch.bool)] * 3
    for third, mask in ((torch.ones(4), masks[2]), (torch.ones(5, dtype=torch.int32), masks[2]), (x, masks[2])):
        with pytest.raises(InvalidArgumentError):
            prune_apply_([x, torch.ones(5), third], [*masks[:2], mask])
    for mask in (torch.zeros(5), torch.zeros(2, dtype=torch.uint8), None):
        with pytest.raises(InvalidArgumentError, match=r"mask 2|uint8"):
            prune_apply_([x, torch.ones(5), torch.ones(5)], [*masks[:2], mask])  # type: ignore[list-item]
    assert torch.equal(x, torch.ones(5))


def test_the_kernel_refuses_what_python_would_not_pass() -> None:
    cpu, x = _native.cpu(), torch.ones(4)
    out = torch.empty(4, dtype=torch.bool)
    good: list[Any] = [[x.data_ptr()], [1], [4], [out.data_ptr()], 0, True, 2, 0, 0, 1]
    assert cpu.prune_mask(*good)[0] == 0
    for place, value in ((2, [-1]), (4, 4), (6, 5), (6, -1), (7, 4)):
        assert cpu.prune_mask(*good[:place], value, *good[place + 1 :])[0] == 1
    assert cpu.prune_mask([x.data_ptr()], [2], [2], [x.data_ptr()], 0, True, 1, 3, 0, 1)[0] == 1
    assert cpu.prune_pattern(x.data_ptr(), 1, 4, 1, 3, 2, 0, out.data_ptr(), 1)[0] == 1
    assert cpu.prune_apply(x.data_ptr(), 4, 3, out.data_ptr(), False, 1)[0] == 1
    assert cpu.prune_random(x.data_ptr(), 1, 4, 0, 1.0, 0.0, bytes(32), 0, out.data_ptr(), 1)[0] == 1
