"""ChaCha20's block function, written from the text of RFC 8439, section 2.3, in plain integers."""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF


def _quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, count in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = (state[x] + state[y]) & _MASK
        mixed = state[z] ^ state[x]
        state[z] = ((mixed << count) | (mixed >> (32 - count))) & _MASK


def block(key: bytes, counter_nonce: bytes) -> bytes:
    """The 64 bytes of keystream for a 32-byte key and 16 bytes of counter and nonce."""
    initial = list(struct.unpack("<16I", b"expand 32-byte k" + key + counter_nonce))
    state = list(initial)
    for _ in range(10):
        for column in range(4):
            _quarter_round(state, column, 4 + column, 8 + column, 12 + column)
        for i in range(4):
            _quarter_round(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((x + y) & _MASK for x, y in zip(state, initial, strict=True)))


def block_words(key: bytes, block_number: int, attempt: int, purpose: int) -> tuple[int, ...]:
    """The eight 64-bit words of an addressed block."""
    return struct.unpack("<8Q", block(key, struct.pack("<QII", block_number, attempt, purpose)))


def element_bits(key: bytes, element: int, attempt: int, purpose: int) -> int:
    """The 64 bits of one element: word ``element % 8`` of block ``element // 8``."""
    return block_words(key, element // 8, attempt, purpose)[element % 8]


def spread_bits(key: bytes, element: int, draw: int, purpose: int) -> int:
    """Draw ``draw`` of an element in the spread layout: 16 blocks serve 128 elements, word w of block b 16 w + b."""
    group, within = divmod(element, 128)
    word, in_group = divmod(within, 16)
    return block_words(key, group * 16 + in_group, draw, purpose)[word]
