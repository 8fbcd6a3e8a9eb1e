"""noisy_activations against the float64 reference and exact sums: shapes, layouts, dtypes, extremes, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import noise_law, noisy_activations, noisy_activations_reference
from privkernels.randomness import Key
from tests.support import chacha20

KEY = Key.from_seed(6)
PURPOSE = 6  # kPurposeNoisyActivations in csrc/core/chacha20.h
DRAW: dict[str, Any] = {"key": KEY, "label": "x"}
UNITS = {torch.float32: 2.0**-20, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float64: 2.0**-40}
SMALLEST = {torch.float32: 2.0**-126, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-126, torch.float64: 2.0**-1022}


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def assert_near(got: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, unit: float | None = None) -> None:
    assert got.dtype == dtype
    assert got.shape == expected.shape
    allowed = expected.abs() * (UNITS[dtype] if unit is None else unit) + SMALLEST[dtype]
    assert bool(((got.double() - expected).abs() <= allowed).all())


STAGES = st.fixed_dictionaries(
    {
        "clip": st.sampled_from([None, 0.25, 1.0, 3.0, 100.0]),
        "clip_kind": st.sampled_from(["clamp", "norm"]),
        "signed": st.booleans(),
        "window": st.sampled_from([None, 1, 2, 3, 5, 8, 15, 99]),
        "alpha": st.sampled_from([1e-4, 1.0, 7.5]),
        "beta": st.sampled_from([0.5, 0.75, 1.0, 0.01, 0.6, 2.0]),
        "gamma": st.sampled_from([0.5, 2.0, 100.0]),
    }
)


@given(
    st.sampled_from(list(UNITS)),
    st.lists(st.integers(0, 9), min_size=2, max_size=4),
    st.integers(-12, 12),
    st.integers(0, 999),
    STAGES,
)
@settings(max_examples=200, deadline=None)
def test_any_shape_dtype_and_parameters(
    dtype: torch.dtype, shape: list[int], exponent: int, seed: int, stages: dict[str, Any]
) -> None:
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent).to(dtype)
    expected = noisy_activations_reference(x, **stages)
    # The contract's bound for the window, a clipped norm that lies just below the clip, and rounding to the dtype.
    epsilon, channels = (2.0**-53 if dtype == torch.float64 else 2.0**-24), min(stages["window"] or 0, x.shape[1])
    unit = epsilon * (stages["beta"] * (channels + 4) + 16 + 10 * (1 + 2 * stages["beta"]) + 2048 * (epsilon < 2**-50))
    assert_near(noisy_activations(x, noise_std=0, **stages), expected, dtype, unit + torch.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(2, 3, 1024), (1, 5, 1025), (1, 2, 47, 47), (700, 3), (1, 900, 2), (3, 70, 7, 7)])
def test_sizes_around_a_tile(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for stages in ({"clip": 1.0}, {"clip": 5.0, "clip_kind": "norm", "window": 11}):
        assert_near(noisy_activations(x, noise_std=0, **stages), noisy_activations_reference(x, **stages), x.dtype)


def test_it_is_torchs_normalisation_with_another_alpha() -> None:
    x = torch.randn(3, 9, 4, 5, generator=torch.Generator().manual_seed(2)).abs()
    expected = torch.nn.functional.local_response_norm(x, 5, alpha=5 * 1.0, beta=0.5, k=2.0)
    torch.testing.assert_close(noisy_activations(x, clip=None, noise_std=0), expected, rtol=1e-6, atol=0)


def test_the_papers_scalar_example() -> None:
    """A lone activation of 1 becomes 1 / sqrt(3), the sensitivity of one number on [0, 1]."""
    x = torch.zeros(1, 7, 1)
    x[0, 3] = 5.0
    got = noisy_activations(x, clip=1.0, noise_std=0)
    assert got[0, 3].item() == pytest.approx(1 / math.sqrt(3), rel=1e-6)
    assert got.count_nonzero() == 1


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("dtype", list(UNITS))
def test_layouts_give_the_same_values(dtype: torch.dtype, secure: bool) -> None:
    base = torch.randn(2, 6, 5, 8, generator=torch.Generator().manual_seed(3)).to(dtype)
    draw = {"clip": 1.0, "noise_std": 0.5, "secure": secure, **DRAW}
    expected = noisy_activations(base, **draw)
    assert expected.is_contiguous()
    last = noisy_activations(channels_last(base), **draw)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, expected)
    wide = torch.zeros(2, 6, 5, 16, dtype=dtype)
    wide[..., ::2] = base
    assert torch.equal(noisy_activations(wide[..., ::2], **draw), expected)
    turned = base.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(noisy_activations(turned, **draw), expected)
    flat = noisy_activations(channels_last(base.flatten(2)), **draw)
    assert not flat.is_contiguous()
    assert torch.equal(flat, expected.flatten(2))
    one = base[:1].expand(2, 6, 5, 8)
    assert torch.equal(noisy_activations(one, **draw), noisy_activations(one.contiguous(), **draw))


@pytest.mark.parametrize("dtype", list(UNITS))
def test_grid_noise_is_the_tables_on_the_keys_bits(dtype: torch.dtype) -> None:
    """Exact: the float64 value on the grid plus K, for a value that every dtype holds."""
    law, secret = noise_law("gaussian", 300.0), KEY.derive("x").secret
    x = torch.tensor([0.0, 0.5, 1.0]).repeat(50).reshape(5, 30).to(dtype)
    got = noisy_activations(
        x, clip=None, window=None, noise_std=300 / 256, granularity=2.0**-8, first_element=77, attempt=2, **DRAW
    )
    for j, (value, y) in enumerate(zip(x.flatten().tolist(), got.flatten().tolist(), strict=True)):
        words = [chacha20.spread_bits(secret, 77 + j, 32 + t, PURPOSE) for t in range(law.words_per_element)]
        exact = torch.tensor(value + law.draw(words) / 256, dtype=torch.float64).to(dtype)
        assert y == exact.item()


def test_float_noise_is_the_keys_bits() -> None:
    """Element e reads 32-bit word (e div 16) mod 16 of block 16 (e div 256) + e mod 16."""
    secret = KEY.derive("x").secret
    got = noisy_activations(
        torch.zeros(3, 200), clip=None, window=None, noise_std=1.0, secure=False, first_element=2**40 + 5, **DRAW
    )
    for j, value in enumerate(got.flatten().tolist()):
        element = 2**40 + 5 + j
        block = element // 256 * 16 + element % 16
        address = block.to_bytes(8, "little") + (8).to_bytes(4, "little") + PURPOSE.to_bytes(4, "little")
        words = _native.cpu().chacha20_block(secret, address)
        at = 4 * (element // 16 % 16)
        out = torch.empty(1)
        _native.cpu().normal_of_bits(int.from_bytes(words[at : at + 4], "little"), 0, 1, out.data_ptr())
        assert value == out.item()


def test_attempts_labels_and_modes_differ() -> None:
    x = torch.zeros(4, 100)
    common: dict[str, Any] = {"clip": None, "noise_std": 1.0, "key": KEY}
    drawn = [
        noisy_activations(x, secure=secure, label=label, attempt=attempt, **common)
        for secure in (True, False)
        for label in "ab"
        for attempt in (0, 1)
    ]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (one != other).float().mean() > 0.99


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.integers(0, 10**6), st.floats(2.0**-20, 2.0**20), st.integers(-20, 20))
@settings(max_examples=60, deadline=None)
def test_a_clipped_norm_never_exceeds_the_bound(
    dtype: torch.dtype, window: int | None, seed: int, clip: float, exponent: int
) -> None:
    x = torch.randn(3, 7, 33, generator=torch.Generator().manual_seed(seed)).to(dtype) * 2.0**exponent * clip
    y = noisy_activations(x, clip=clip, clip_kind="norm", signed=True, window=window, noise_std=0).double()
    bound = clip if window is None else clip / math.sqrt(2.0) * (1 + 2e-6)
    assert all(math.sqrt(math.fsum(v * v for v in example.flatten().tolist())) <= bound for example in y)


@pytest.mark.parametrize("dtype", list(UNITS))
def test_extremes(dtype: torch.dtype) -> None:
    limit = torch.finfo(dtype).max if dtype != torch.float64 else 2.0**500
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.tensor([[limit, 0.0, tiny, tiny / 4, -0.0, -limit, 1.0]], dtype=dtype)
    for stages in ({"clip": 1.0}, {"clip": 1.0, "signed": True}, {"clip": 2.0**40, "clip_kind": "norm"}):
        got = noisy_activations(x, noise_std=0, **stages)
        assert got.isfinite().all()
        assert_near(got, noisy_activations_reference(x, **stages), dtype)
    largest = noisy_activations(x, clip=None, window=None, signed=True, noise_std=2.0**40, secure=False, **DRAW)
    assert largest.isfinite().all()
    # One outlier, and all equal.
    x = torch.full((2, 9, 3), 1e-3, dtype=dtype)
    x[0, 4, 1] = 2.0**15
    assert_near(noisy_activations(x, clip=None, noise_std=0), noisy_activations_reference(x, clip=None), dtype)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", list(UNITS))
def test_what_is_not_finite_is_refused(dtype: torch.dtype, bad: float) -> None:
    x = torch.zeros(3, 5, 700, dtype=dtype)
    x[1, 2, 650] = x[1, 3, 0] = x[2, 0, 0] = bad
    first = (1 * 5 + 2) * 700 + 650
    for layout in (x, channels_last(x)):
        for stages in ({"clip": None, "window": None}, {"clip": 1.0}, {"clip": 1.0, "clip_kind": "norm"}):
            with pytest.raises(NonFiniteValueError, match=f"in element {first} "):
                noisy_activations(layout, noise_std=0, **stages)


def test_what_cannot_be_squared_is_refused() -> None:
    x = torch.ones(1, 3, 4)
    x[0, 2, 1] = 2.0**41
    with pytest.raises(NonFiniteValueError, match=r"element 9 .*2\*\*40"):
        noisy_activations(x, clip=None, noise_std=0)
    assert noisy_activations(x, clip=1.0, noise_std=0).isfinite().all()
    assert noisy_activations(x, clip=None, window=None, noise_std=0)[0, 2, 1] == 2.0**41


GOOD: dict[str, Any] = {"clip": 1.0, "noise_std": 0.5, **DRAW}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clip": 0.0}, "clip"), ({"clip": -1.0}, "clip"), ({"clip": math.inf}, "clip"), ({"clip": "1"}, "clip"),
        ({"clip_kind": "l1"}, "clip_kind"), ({"window": 0}, "window"), ({"window": 2.5}, "window"),
        ({"alpha": 0.0}, "alpha"), ({"beta": 0.0}, "beta"), ({"beta": 2.1}, "beta"), ({"gamma": -1.0}, "gamma"),
        ({"gamma": math.nan}, "gamma"), ({"noise_std": -0.5}, "noise_std"), ({"noise_std": math.nan}, "noise_std"),
        ({"noise_std": True}, "noise_std"), ({"key": None}, "key"), ({"label": None}, "label"),
        ({"key": b"0" * 32}, "key"), ({"granularity": 0.3}, "granularity"), ({"granularity": 64.0}, "granularity"),
        ({"granularity": 0.5, "secure": False}, "granularity"), ({"first_element": -1}, "first_element"),
        ({"attempt": 2**28}, "attempt"), ({"attempt": -1}, "attempt"), ({"attempt": 1.0}, "attempt"),
    ],
)  # fmt: skip
def test_wrong_arguments(changed: dict[str, Any], message: str) -> None:
    noisy_activations(torch.zeros(2, 3), **GOOD)
    with pytest.raises(InvalidArgumentError, match=message):
        noisy_activations(torch.zeros(2, 3), **GOOD | changed)


@pytest.mark.parametrize(
    "x", [torch.zeros(3), torch.zeros(2, 3, dtype=torch.int32), torch.eye(3).to_sparse(), [[1.0]], torch.zeros(())]
)
def test_wrong_tensors(x: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="x "):
        noisy_activations(x, **GOOD)
