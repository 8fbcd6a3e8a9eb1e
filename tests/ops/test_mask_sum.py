"""mask_sum against independent ChaCha20s, its exactness, secure aggregation with it, layouts and errors."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import decode_fixed_point, encode_fixed_point, mask_sum, mask_sum_, mask_sum_reference
from privkernels.randomness import Key
from tests.support import chacha20
from tests.support.instruction_sets import assert_same_bits

PURPOSE = 7  # kPurposeMaskSum in csrc/core/chacha20.h
DTYPES = [torch.int32, torch.int64, torch.uint32, torch.uint64]
KEYS = [Key.from_seed(seed) for seed in range(7)]
SIGNS = [1, -1, -1, 1, 1, -1, 1]


def integers(size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Of all magnitudes that the dtype has."""
    words = torch.randint(-(2**62), 2**62, (size,), generator=torch.Generator().manual_seed(seed)) * 2 + 1
    same_width = torch.int32 if dtype.itemsize == 4 else torch.int64
    return words.to(same_width).view(dtype)


def stream(secret: bytes, first: int, size: int, width: int, number: int = 0) -> list[int]:
    """The words by the RFC's block function in plain integers; `width` in bytes."""
    per_block = 64 // width
    blocks = range(first // per_block, (first + size - 1) // per_block + 1) if size else range(0)
    text = b"".join(chacha20.block(secret, struct.pack("<QII", b, number, PURPOSE)) for b in blocks)
    words = struct.unpack(f"<{len(text) // width}{'I' if width == 4 else 'Q'}", text)
    return list(words[first % per_block :][:size])


@given(
    st.sampled_from(DTYPES),
    st.sampled_from([0, 1, 2, 15, 16, 17, 127, 128, 129, 255, 256, 257, 600]),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 15, 255, 256, 2**36 - 300, 2**35 - 300, 2**40 + 77, 2**63 - 700]),
)
@settings(max_examples=60, deadline=None)
def test_against_the_rfcs_block_function(dtype: torch.dtype, size: int, seeds: int, number: int, first: int) -> None:
    values = integers(size, dtype)
    streams = [stream(key.secret, first, size, dtype.itemsize, number) for key in KEYS[:seeds]]
    got = mask_sum(values, KEYS[:seeds], SIGNS[:seeds], round=number, first_element=first)
    assert got.dtype == dtype
    assert got.tolist() == mask_sum_reference(values, streams, SIGNS[:seeds]).tolist()


def test_against_another_chacha20() -> None:
    """The masks are what the cryptography package's ChaCha20 gives under the documented nonce."""
    ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
    nonce = struct.pack("<I", 0) + struct.pack("<3I", 0, 12, PURPOSE)  # counter, then RFC 8439's nonce
    text = ciphers.Cipher(ciphers.algorithms.ChaCha20(KEYS[0].secret, nonce), mode=None).encryptor().update(bytes(8000))
    for dtype, word in ((torch.int32, "<i4"), (torch.int64, "<i8")):
        words = np.frombuffer(text, word)
        got = mask_sum(torch.zeros(len(words), dtype=dtype), KEYS[:1], [1], round=12)
        assert np.array_equal(got.numpy(), words)


@given(st.sampled_from(DTYPES), st.integers(0, 700), st.integers(0, 7), st.integers(0, 2**62))
@settings(max_examples=50, deadline=None)
def test_adding_and_subtracting_gives_the_input_back(dtype: torch.dtype, size: int, seeds: int, first: int) -> None:
    values = integers(size, dtype)
    masked = mask_sum(values, KEYS[:seeds], SIGNS[:seeds], first_element=first)
    back = mask_sum(masked, KEYS[:seeds], [-sign for sign in SIGNS[:seeds]], first_element=first)
    assert back.tolist() == values.tolist()
    if size > 20 and seeds:
        assert masked.tolist() != values.tolist()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_secure_aggregation(dtype: torch.dtype) -> None:
    """Self masks and pairwise masks with signs: the sum over the clients shows the self masks alone."""
    clients, size, bits = 5, 1000, 16
    inputs = [torch.randn(size, generator=torch.Generator().manual_seed(i)) for i in range(clients)]
    own = [Key.from_seed(100 + i) for i in range(clients)]
    pair = {(i, j): Key.from_seed(1000 + 10 * i + j) for i, j in itertools.combinations(range(clients), 2)}
    total = torch.zeros(size, dtype=dtype)
    for i in range(clients):
        keys = [own[i], *(key for ends, key in pair.items() if i in ends)]
        signs = [1, *(1 if i == ends[0] else -1 for ends in pair if i in ends)]
        encoded = encode_fixed_point(inputs[i], fraction_bits=bits, dtype=dtype)
        sent = mask_sum(encoded, keys, signs, round=3)
        assert (sent == encoded).sum() < 3
        total += sent
    mask_sum_(total, own, [-1] * clients, round=3)
    expected = sum(encode_fixed_point(x, fraction_bits=bits, dtype=torch.int64) for x in inputs)
    assert torch.equal(total.long(), expected)
    assert (decode_fixed_point(total, fraction_bits=bits) - sum(x.double() for x in inputs)).abs().max() < 5 * 2.0**-17


@given(st.lists(st.integers(0, 3000), max_size=4), st.integers(0, 2**62), st.sampled_from([torch.int32, torch.int64]))
@settings(max_examples=25, deadline=None)
def test_any_slicing_gives_the_whole(cuts: list[int], first: int, dtype: torch.dtype) -> None:
    values = integers(3000, dtype)
    whole = mask_sum(values, KEYS, SIGNS, first_element=first)
    edges = [0, *sorted(cuts), 3000]
    parts = [mask_sum(values[a:b], KEYS, SIGNS, first_element=first + a) for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("first", [0, 5, 2**36 - 100_000])
def test_a_long_vector_is_masked_to_its_last_element(dtype: torch.dtype, first: int) -> None:
    """Many chunks: where they meet, and at the ends, against the RFC's block function; and no element is left out."""
    size, width = 300_001, dtype.itemsize
    got = mask_sum(torch.zeros(size, dtype=dtype), KEYS[:1], [1], first_element=first)
    for begin in (0, 65_500, 131_000, 262_100, size - 60):
        words = stream(KEYS[0].secret, first + begin, 60, width)
        assert [value % 2 ** (8 * width) for value in got[begin : begin + 60].tolist()] == words
    assert (got == 0).sum() <= 2
    parts = [
        mask_sum(torch.zeros(min(777, size - a), dtype=dtype), KEYS[:1], [1], first_element=first + a)
        for a in range(0, size, 777)
    ]
    assert torch.equal(torch.cat(parts), got)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_one_and_more_threads(set_threads: Callable[[int], None], dtype: torch.dtype) -> None:
    values = integers(200_001, dtype)
    set_threads(1)
    expected = mask_sum(values, KEYS, SIGNS, first_element=5)
    for threads in (2, 3, 64):
        set_threads(threads)
        assert torch.equal(mask_sum(values, KEYS, SIGNS, first_element=5), expected)


PROGRAM = """
from privkernels.ops import mask_sum
keys, signs = [Key.from_seed(i) for i in range(5)], [1, -1, -1, 1, -1]
for dtype in (torch.int32, torch.int64):
    for first in (0, 77, 2**36 - 500, 2**35 - 500):
        masked = mask_sum(torch.zeros(1500, dtype=dtype), keys, signs, round=9, first_element=first)
        digests[f"{dtype} {first}"] = hashlib.sha256(masked.numpy().tobytes()).hexdigest()
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    assert_same_bits(PROGRAM, different=8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_in_place_and_out_of_place(dtype: torch.dtype) -> None:
    for view in (
        lambda x: x.reshape(20, 30).t(), lambda x: x[::3], lambda x: x.reshape(2, 3, 100), lambda x: x[7:],
        lambda x: x[0],
    ):  # fmt: skip
        x = view(integers(600, dtype))
        before = x.clone()
        expected = mask_sum(x.contiguous(), KEYS, SIGNS)
        assert x.tolist() == before.tolist()
        assert mask_sum(x, KEYS, SIGNS).tolist() == expected.tolist()
        assert mask_sum_(x, KEYS, SIGNS) is x
        assert x.tolist() == expected.tolist()
    wide = integers(1, dtype).expand(9)
    assert mask_sum(wide, KEYS, SIGNS).tolist() == mask_sum(wide.contiguous(), KEYS, SIGNS).tolist()
    with pytest.raises(InvalidArgumentError, match="expanded"):
        mask_sum_(wide, KEYS, SIGNS)


def test_seeds_as_a_tensor_and_rounds_apart() -> None:
    zeros = torch.zeros(1000, dtype=torch.int32)
    seeds = torch.stack([key.tensor() for key in KEYS])
    expected = mask_sum(zeros, KEYS, SIGNS)
    assert torch.equal(mask_sum(zeros, seeds, torch.tensor(SIGNS)), expected)
    assert torch.equal(mask_sum(zeros, seeds.t().contiguous().t(), SIGNS), expected)
    assert (mask_sum(zeros, KEYS, SIGNS, round=1) != expected).sum() > 990
    state = torch.get_rng_state()
    mask_sum(zeros, KEYS, SIGNS)
    assert torch.equal(torch.get_rng_state(), state)


GOOD: dict[str, Any] = {"values": torch.zeros(3, dtype=torch.int32), "seeds": KEYS[:2], "signs": [1, -1]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": torch.zeros(3)}, "values must be"),
        ({"values": torch.zeros(3, dtype=torch.int16)}, "values must be"),
        ({"values": [1]}, "values must be"), ({"values": torch.zeros(3, dtype=torch.int32).to_sparse()}, "dense"),
        ({"seeds": [b"0" * 32] * 2}, "seeds are"), ({"seeds": KEYS[0]}, "seeds are"),
        ({"seeds": torch.zeros(2, 31, dtype=torch.uint8)}, "uint8"), ({"seeds": torch.zeros(2, 32)}, "uint8"),
        ({"signs": [1]}, "one integer sign"), ({"signs": [1, 0]}, "1 .add."), ({"signs": [1, 2]}, "1 .add."),
        ({"signs": 1}, "a sequence or an integer tensor"), ({"signs": None}, "a sequence or an integer tensor"),
        ({"signs": torch.ones(2, dtype=torch.bool)}, "one integer sign"),
        ({"signs": torch.ones(2, dtype=torch.uint64)}, "one integer sign"),
        ({"signs": torch.tensor([1, 0])}, "1 .add."), ({"signs": torch.tensor([1.0, 1.0])}, "one integer sign"),
        ({"round": -1}, "round"), ({"round": 2**32}, "round"), ({"round": 1.0}, "round"),
        ({"first_element": -1}, "first_element"), ({"first_element": 2**63}, "first_element"),
    ],
)  # fmt: skip
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    arguments = GOOD | changed
    for function in (mask_sum, mask_sum_):
        with pytest.raises(InvalidArgumentError, match=message):
            function(arguments["values"], arguments["seeds"], arguments["signs"],
                     **{k: v for k, v in changed.items() if k in ("round", "first_element")})  # fmt: skip


def test_fixed_point() -> None:
    x = torch.tensor([0.5, -0.25, 0.125, 0.375, -3.0])
    assert encode_fixed_point(x, fraction_bits=2).tolist() == [2, -1, 0, 2, -12]
    assert decode_fixed_point(torch.tensor([2, -12]), fraction_bits=2).tolist() == [0.5, -3.0]
    with pytest.raises(NonFiniteValueError, match="element 1 "):
        encode_fixed_point(torch.tensor([0.0, math.nan]), fraction_bits=2)
    for bad, bits, dtype, message in (
        (torch.tensor([2.0**31]), 0, torch.int32, "do not fit"),
        (torch.tensor([1e308], dtype=torch.float64), 60, torch.int64, "do not fit"),
        (torch.tensor([1]), 2, torch.int32, "floating-point"),
        (x, 61, torch.int32, "fraction_bits"), (x, 2, torch.int16, "torch.int32 or torch.int64"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError, match=message):
            encode_fixed_point(bad, fraction_bits=bits, dtype=dtype)
    assert encode_fixed_point(torch.tensor([-(2.0**31)]), fraction_bits=0).tolist() == [-(2**31)]


MASK_SUM, MASK_SUM_IN_PLACE = torch.ops.privkernels.mask_sum.default, torch.ops.privkernels.mask_sum_.default


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_opcheck(dtype: torch.dtype) -> None:
    seeds, signs = torch.stack([key.tensor() for key in KEYS]), torch.tensor(SIGNS, dtype=torch.int8)
    for values in (integers(30, dtype), integers(30, dtype).reshape(5, 6).t(), integers(0, dtype)):
        torch.library.opcheck(MASK_SUM, (values, seeds, signs, 3, 5))
        torch.library.opcheck(MASK_SUM_IN_PLACE, (values.clone(), seeds, signs, 3, 5))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    seeds, signs = torch.stack([key.tensor() for key in KEYS]), torch.tensor(SIGNS, dtype=torch.int8)

    def function(x: torch.Tensor) -> torch.Tensor:
        y = MASK_SUM(x + 1, seeds, signs, 3, 5)
        MASK_SUM_IN_PLACE(y, seeds, signs, 4, 0)
        return y * 2

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (5, 300, 301):
        x = integers(size, torch.int64, size)
        assert torch.equal(compiled(x), function(x))


def test_the_kernel_refuses_what_python_would_not_pass() -> None:
    signs = torch.tensor([0], dtype=torch.int8)
    good: list[Any] = [0, False, 0, 0, 0, 0, 0, 0, 1]
    assert _native.cpu().mask_sum(*good)[0] == 0
    for place, value in ((2, -1), (5, -1)):
        assert _native.cpu().mask_sum(*good[:place], value, *good[place + 1 :])[0] == 1
    assert _native.cpu().mask_sum(0, False, 1, 0, 0, 0, 0, 2**64 - 1, 1)[0] == 1
    assert _native.cpu().mask_sum(0, False, 1, 0, signs.data_ptr(), 1, 0, 0, 1)[:3] == (3, -1, 0)
