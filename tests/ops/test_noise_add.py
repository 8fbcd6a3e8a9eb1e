"""noise_add and noise_steps against plain references: random bits, tables, rounding, formats, layouts, errors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import noise_add, noise_add_reference, noise_law, noise_steps
from privkernels.ops.noise_law import Distribution
from privkernels.randomness import Key
from tests.support import chacha20

KEY = Key.from_seed(5)
PURPOSE = 2  # kPurposeNoiseAdd in csrc/core/chacha20.h
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DRAW: dict[str, Any] = {"distribution": "laplace", "scale": 2.0, "granularity": 0.25, "key": KEY, "label": "x"}
DISTRIBUTIONS: tuple[Distribution, Distribution] = ("laplace", "gaussian")


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = torch.int32 if a.dtype == torch.float32 else torch.int16
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(bits), b.view(bits))


def reference(x: torch.Tensor, **changed: Any) -> torch.Tensor:
    """The plain sum, with noise from noise_steps."""
    arguments = DRAW | changed
    granularity = arguments.pop("granularity")
    steps = arguments.pop("scale") / granularity
    noise = noise_steps(x.numel(), steps=steps, **arguments)
    return noise_add_reference(x, noise.reshape(x.shape), granularity)


@pytest.mark.parametrize("steps", [0.3, 10.0, 300.0, 2.0**20, 2.0**40])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_noise_is_the_tables_on_the_keys_bits(distribution: Distribution, steps: float) -> None:
    law, first, size = noise_law(distribution, steps), 2**40 + 77, 400
    secret = KEY.derive("bits").secret
    expected = [
        law.draw([chacha20.spread_bits(secret, first + j, t, PURPOSE) for t in range(law.words_per_element)])
        for j in range(size)
    ]
    got = noise_steps(size, distribution=distribution, steps=steps, key=KEY, label="bits", first_element=first)
    assert got.tolist() == expected


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_spread_bits(secret: bytes, element: int, draw: int) -> None:
    assert _native.cpu().spread_bits(secret, element, draw, 2) == chacha20.spread_bits(secret, element, draw, 2)


def test_no_word_serves_two_draws() -> None:
    """512 elements and two draws read 1024 different words."""
    words = {
        _native.cpu().spread_bits(bytes(32), element, draw, PURPOSE) for element in range(512) for draw in range(2)
    }
    assert len(words) == 1024


@given(
    st.sampled_from(DTYPES),
    st.sampled_from(DISTRIBUTIONS),
    st.lists(st.integers(0, 7), max_size=4),
    st.integers(-100, 100),
    st.floats(-3, 40),
    st.integers(0, 2**63 - 1),
    st.randoms(use_true_random=False),
)
@settings(max_examples=150)
def test_any_shape_dtype_granularity_and_scale(
    dtype: torch.dtype, distribution: Distribution, shape: list[int], exponent: int, steps: float, first: int, rng: Any
) -> None:
    granularity = 2.0**exponent
    # Values of all magnitudes that the dtype has, near the grid's step and far from it.
    values = [rng.choice([-1, 1]) * 2 ** rng.uniform(-130, 127) for _ in range(math.prod(shape) // 2)]
    values += [rng.uniform(-40, 40) * granularity for _ in range(math.prod(shape) - len(values))]
    limit = torch.finfo(dtype).max
    x = torch.tensor(values, dtype=torch.float64).clamp(-limit, limit).to(dtype).reshape(shape)
    scale = min(max(2.0**steps, 2.0**-3), 2.0**40) * granularity
    changed = {"distribution": distribution, "scale": scale, "granularity": granularity, "first_element": first}
    got = noise_add(x, **DRAW | changed)
    assert got.isfinite().all()
    assert same_bits(got, reference(x, **changed))


def layouts(base: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors [6, 10] of other strides."""
    return {
        "transposed": base[:60].reshape(10, 6).t(),
        "every third": base[: 6 * 30].reshape(6, 30)[:, 1::3],
        "offset": base[7:67].reshape(6, 10),
        "expanded": base[:10].expand(6, 10),
        "overlapping": base.as_strided((6, 10), (2, 1)),
        "flipped copy": base[:60].reshape(6, 10).flip(1),
        "channels last": base[:60].reshape(1, 3, 4, 5).contiguous(memory_format=torch.channels_last).reshape(6, 10),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype: torch.dtype) -> None:
    base = (torch.randn(300, generator=torch.Generator().manual_seed(1)) * 3).to(dtype)
    for name, x in layouts(base).items():
        before = x.clone()
        got = noise_add(x, **DRAW)
        assert same_bits(got, reference(x.contiguous())), name
        assert got.is_contiguous()
        assert torch.equal(x, before)
        assert got.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    four = base[:120].reshape(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert same_bits(noise_add(four, **DRAW), reference(four.contiguous()))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (127,), (129,), (2, 3, 5, 7)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    assert same_bits(noise_add(x, **DRAW), reference(x))
    assert noise_steps(0, distribution="gaussian", steps=2.0, key=KEY, label="x").shape == (0,)


def quiet(x: torch.Tensor, granularity: float) -> torch.Tensor:
    """noise_add where every noise is 0 (the smallest Laplace scale, elements chosen by their noise)."""
    draw: dict[str, Any] = {"distribution": "laplace", "key": KEY, "label": "quiet"}
    noise = noise_steps(x.numel(), steps=0.125, **draw)
    result = noise_add(x, scale=granularity / 8, granularity=granularity, **draw)
    assert (noise == 0).float().mean() > 0.99
    return result[noise == 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_to_the_even_step(dtype: torch.dtype) -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 3.0, 0.25, 0.75, -0.0] * 300, dtype=dtype)
    got = quiet(x, 1.0)
    expected = {0.0, 2.0, -2.0, 3.0, 1.0}
    assert set(got.tolist()) == expected
    assert not torch.signbit(got[got == 0]).any()
    assert same_bits(noise_add(x, **DRAW | {"granularity": 1.0}), reference(x, granularity=1.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bit_patterns_of_all_exponents(dtype: torch.dtype) -> None:
    """A prime stride through all finite numbers, denormals included, on grids fine, coarse and in between."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    x = (bits.int() * 65536 + 0x5A5A).view(torch.float32) if dtype == torch.float32 else bits.view(dtype)
    x = x[x.isfinite()][:: 7 if dtype == torch.float16 else 13]
    for granularity in (2.0**-100, 2.0**-24, 2.0**-12, 1.0, 2.0**100):
        changed = {"granularity": granularity, "scale": granularity * 0.7, "distribution": "gaussian"}
        assert same_bits(noise_add(x, **DRAW | changed), reference(x, **changed))


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float16, 11), (torch.bfloat16, 8)])
def test_rounded_once(dtype: torch.dtype, precision: int) -> None:
    """Sums so near a tie of the dtype that float32 in between would round to the tie, and then maybe the other way."""
    tie = 2 ** (28 - precision)  # half a unit in the last place of 1, in steps of 2^-28; float32's is 32 steps
    draw: dict[str, Any] = {"distribution": "laplace", "key": KEY, "label": "ties"}
    noise = noise_steps(2**22, steps=float(tie), **draw)
    near = (noise.abs() < 20 * tie) & ((noise % (2 * tie) - tie).abs() <= 16)
    assert near.sum() >= 10
    x = torch.ones(2**22, dtype=dtype)
    got = noise_add(x, scale=tie * 2.0**-28, granularity=2.0**-28, **draw)[near]
    expected = noise_add_reference(x[near], noise[near], 2.0**-28)
    twice = ((2**28 + noise[near]).double() * 2.0**-28).float().to(dtype)
    assert same_bits(got, expected)
    assert not torch.equal(twice, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturates_at_the_largest_number(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    granularity = 2.0 ** (math.frexp(largest)[1] - 10) if dtype == torch.float16 else 2.0**100
    x = torch.tensor([largest, -largest] * 500, dtype=dtype)
    changed = {"granularity": granularity, "scale": granularity * 2**30}
    got = noise_add(x, **DRAW | changed)
    assert got.isfinite().all()
    assert {largest, -largest} <= set(got.tolist())
    assert ((got == largest) | (got == -largest)).float().mean() > 0.4
    assert same_bits(got, reference(x, **changed))


def test_values_beyond_2_to_the_50_steps_are_clamped() -> None:
    x = torch.tensor([1e30, -1e30, 2.0**51, 2.0**50])
    got = quiet(x.repeat(100), 1.0)
    assert set(got.tolist()) == {2.0**50, -(2.0**50)}


def test_gradients_are_detached() -> None:
    x = torch.randn(5, requires_grad=True)
    assert not noise_add(x, **DRAW).requires_grad
    assert same_bits(noise_add(x, **DRAW), noise_add(x.detach(), **DRAW))


def test_noise_depends_on_key_label_and_element() -> None:
    def draws(**changed: Any) -> torch.Tensor:
        return noise_steps(100, **{"distribution": "gaussian", "steps": 1e6, "key": KEY, "label": "x"} | changed)

    same = draws()
    assert torch.equal(same, draws())
    for other in (draws(key=Key.from_seed(6)), draws(label="y"), draws(first_element=128)):
        assert (same != other).sum() > 95
    assert torch.equal(draws(first_element=64)[:36], same[64:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(dtype: torch.dtype, bad: float) -> None:
    x = torch.zeros(3, 20_000, dtype=dtype)
    x[1, 7], x[2, 19_999] = bad, bad
    for y, element in ((x, 20_007), (x.t(), 22), (x.flatten()[20_007:20_008], 0)):
        with pytest.raises(NonFiniteValueError, match=rf"element {element} "):
            noise_add(y, **DRAW)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"granularity": g}, "granularity must be a power of two")
        for g in (0.3, 0.0, -0.5, math.nan, math.inf, 2.0**-101, 2.0**101, True, "1", 3)
    ]
    + [({"scale": s}, "scale must be positive and finite") for s in (0.0, -1.0, math.nan, math.inf, "1", True)]
    + [({"scale": s}, r"2\*\*-3 to 2\*\*40 grid steps") for s in (0.25 / 16, 2.0**39)]
    + [
        ({"distribution": "normal"}, "'laplace' or 'gaussian'"),
        ({"key": b"k" * 32}, "privkernels.Key"),
        ({"label": ""}, "label"),
        ({"first_element": -1}, "first_element"),
        ({"first_element": 2**63}, "first_element"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        noise_add(torch.zeros(3), **DRAW | changed)


@pytest.mark.parametrize("x", [torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.int32), [1.0], None])
def test_bad_tensors(x: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="x must be a"):
        noise_add(x, **DRAW)


@pytest.mark.parametrize("x", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2).to_mkldnn()])
def test_layouts_without_strides(x: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match="dense"):
        noise_add(x, **DRAW)


@pytest.mark.parametrize("size", [-1, 2.0, True])
def test_bad_sizes(size: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="size"):
        noise_steps(size, distribution="laplace", steps=1.0, key=KEY, label="x")


def test_bad_devices() -> None:
    with pytest.raises(InvalidArgumentError, match="cpu or cuda"):
        noise_steps(1, distribution="laplace", steps=1.0, key=KEY, label="x", device="meta")


def test_the_kernel_refuses_what_python_would_not_pass() -> None:
    entries = torch.tensor([0, 1], dtype=torch.int64)
    good: list[Any] = [0, 0, 0, False, entries.data_ptr(), [1], [1], bytes(32), 0, 0, 0, 0, 1]
    assert _native.cpu().noise_add(*good)[0] == 0
    wrong = {1: -1, 2: 101, 5: [15], 6: [2**41], 8: 2**64 - 1, 9: 8}
    for place, value in itertools.chain(wrong.items(), [(2, -101), (5, [0]), (6, [0])]):
        arguments = list(good)
        arguments[place] = value
        if place == 8:
            arguments[1] = 1
        assert _native.cpu().noise_add(*arguments)[0] == 1, place
