"""ChaCha20 against RFC 8439, how draws are addressed, and Key."""

from __future__ import annotations

import dataclasses
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privkernels import _native
from privkernels.errors import InvalidArgumentError
from privkernels.randomness import Key
from tests.support import chacha20

ZERO = bytes(32)

# RFC 8439, section 2.3.2 and appendix A.1: key, block counter, nonce, keystream.
VECTORS = {
    "2.3.2": (
        bytes(range(32)), 1, "000000090000004a00000000",
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    "A.1 #1": (
        ZERO, 0, "000000000000000000000000",
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    "A.1 #2": (
        ZERO, 1, "000000000000000000000000",
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    "A.1 #3": (
        ZERO[:31] + b"\x01", 1, "000000000000000000000000",
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    "A.1 #4": (
        b"\x00\xff" + ZERO[:30], 2, "000000000000000000000000",
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
    "A.1 #5": (
        ZERO, 0, "000000000000000000000002",
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
        "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_the_rfc(name: str) -> None:
    key, counter, nonce, keystream = VECTORS[name]
    counter_nonce = struct.pack("<I", counter) + bytes.fromhex(nonce)
    assert _native.cpu().chacha20_block(key, counter_nonce).hex() == keystream
    assert chacha20.block(key, counter_nonce).hex() == keystream


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_any_block_equals_the_plain_implementation(key: bytes, counter_nonce: bytes) -> None:
    assert _native.cpu().chacha20_block(key, counter_nonce) == chacha20.block(key, counter_nonce)


@given(
    st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_an_element_is_a_word_of_its_block(key: bytes, element: int, attempt: int, purpose: int) -> None:
    bits = _native.cpu().element_bits(key, element, attempt, purpose)
    assert bits == chacha20.element_bits(key, element, attempt, purpose)
    block = _native.cpu().chacha20_block(key, struct.pack("<QII", element // 8, attempt, purpose))
    assert bits == int.from_bytes(block[8 * (element % 8) :][:8], "little")


def test_no_two_addresses_share_their_bits() -> None:
    """Elements, attempts and purposes at their edges, under two keys: all draws differ."""
    elements = [*range(40), 2**32 - 1, 2**32, 2**35 - 1, 2**35, 2**35 + 8, 2**63, 2**64 - 1]
    seen = {
        _native.cpu().element_bits(key, element, attempt, purpose)
        for key in (ZERO, bytes(range(32)))
        for element in elements
        for attempt in (0, 1, 2, 2**32 - 1)
        for purpose in (0, 1, 2)
    }
    assert len(seen) == 2 * len(elements) * 4 * 3


def test_bits_are_uniform() -> None:
    """Each of the 64 bits is set in half of 20,000 draws, within six standard errors."""
    draws = np.array([_native.cpu().element_bits(ZERO, j, 0, 1) for j in range(20_000)], dtype=np.uint64)
    ones = np.unpackbits(draws.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize(("key", "address"), [(b"", bytes(16)), (bytes(31), bytes(16)), (ZERO, bytes(15))])
def test_wrong_sizes_are_refused(key: bytes, address: bytes) -> None:
    with pytest.raises(ValueError, match="key of 32 bytes and 16 bytes"):
        _native.cpu().chacha20_block(key, address)
    if len(key) != 32:
        with pytest.raises(ValueError, match="32 bytes"):
            _native.cpu().element_bits(key, 0, 0, 0)


def test_generated_keys_are_distinct_and_not_reproducible() -> None:
    keys = [Key.generate() for _ in range(50)]
    assert len({key.secret for key in keys}) == 50
    assert not any(key.reproducible for key in keys)
    assert not keys[0].derive("x").reproducible


def test_generated_keys_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def token_bytes(size: int) -> bytes:
        asked.append(size)
        return b"\x07" * size

    monkeypatch.setattr("privkernels.randomness.secrets.token_bytes", token_bytes)
    assert Key.generate().secret == b"\x07" * 32
    assert asked == [32]


def test_a_seeded_key_says_that_it_is_reproducible() -> None:
    key = Key.from_seed(5)
    assert key == Key.from_seed(5)
    assert key.reproducible
    assert key.derive("a").reproducible
    assert key.derive("a").derive("b").reproducible


def test_seeds_and_labels_give_the_same_keys_in_every_version() -> None:
    """SHA-256 and HMAC-SHA256 computed with other programs, so that old releases can be drawn again."""
    key = Key.from_seed(5)
    assert key.secret.hex() == "c7d4f90b1743c60eba3afff103051c29153ad4b67ec9009147e78b7b297aace2"
    derived = "79b79a2e120861e17a0b1a7508c86995dd5510795c5a23241c4d34474d84a575"
    assert key.derive("layer").secret.hex() == derived
    assert key.seed_for("layer") == int.from_bytes(bytes.fromhex(derived)[:8], "little") // 2


def test_seeds_and_labels_give_distinct_keys() -> None:
    seeds = [Key.from_seed(seed).secret for seed in (-1, 0, 1, 10, 2**64, 2**64 + 1)]
    assert len(set(seeds)) == len(seeds)
    key = Key.from_seed(1)
    labels = ["a", "b", "ab", "a b", "A", "ä", "a\x00", " ", "a" * 1000]
    derived = [key.derive(label).secret for label in labels]
    assert len({*derived, key.secret}) == len(labels) + 1
    assert key.derive("a").derive("b") != key.derive("b").derive("a")
    assert key.derive("a") == key.derive("a")
    assert key.derive("a") != Key.from_seed(2).derive("a")


def test_the_secret_is_not_shown() -> None:
    key = Key(bytes(range(100, 132)))
    for shown in (repr(key), str(key), f"{key}", repr([key]), repr(key.derive("x"))):
        assert "reproducible" in shown
        assert "secret" not in shown
        assert "def" not in shown  # bytes 100, 101, 102


def test_a_key_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Key(ZERO).secret = bytes(32)


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), bytearray(32), "0" * 32, None])
def test_a_key_holds_32_bytes(secret: object) -> None:
    with pytest.raises(InvalidArgumentError, match="exactly 32 bytes"):
        Key(secret)


@pytest.mark.parametrize("seed", [1.0, "1", None, True])
def test_a_seed_is_an_integer(seed: object) -> None:
    with pytest.raises(InvalidArgumentError, match="a seed is an integer"):
        Key.from_seed(seed)


@pytest.mark.parametrize("label", ["", None, 3, b"x"])
def test_a_label_is_a_non_empty_string(label: object) -> None:
    with pytest.raises(InvalidArgumentError, match="non-empty string"):
        Key.from_seed(0).derive(label)


def test_tensor_holds_the_secret_and_shares_nothing() -> None:
    key = Key(bytes(range(32)))
    tensor = key.tensor()
    assert (tensor.dtype, tensor.device.type) == (torch.uint8, "cpu")
    assert bytes(tensor.tolist()) == key.secret
    tensor.zero_()
    assert key.secret == bytes(range(32))


def test_generators_and_seeds_follow_the_label() -> None:
    key = Key.from_seed(1)
    draws = [torch.rand(4, generator=key.generator(label)) for label in ("a", "a", "b")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert key.seed_for("a") == key.seed_for("a") != key.seed_for("b")
    assert all(0 <= key.seed_for(str(i)) < 2**63 for i in range(200))
    assert max(key.seed_for(str(i)) for i in range(200)) > 2**61  # all 63 bits are used
