"""mask_sum beside cryptography's ChaCha20 with NumPy, NumPy's Philox and torch.randint: the masks of many seeds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from benchmarks.case import Case, Peer
from privkernels import _native
from privkernels.ops import mask_sum_

PURPOSE = 7  # kPurposeMaskSum in csrc/core/chacha20.h
OPERATIONS = 976  # of a block: 20 rounds of 4 quarter rounds of 12 operations, and 16 additions


def key_stream_block(seed: bytes, counter_nonce: bytes) -> bytes:
    """64 bytes by the cryptography package, or where it is not there by privkernels' block function for one block."""
    if find_spec("cryptography") is None:
        block: bytes = _native.cpu().chacha20_block(seed, counter_nonce)
        return block
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    return Cipher(algorithms.ChaCha20(seed, counter_nonce), mode=None).encryptor().update(bytes(64))


def with_cryptography(seeds: list[bytes], signs: list[int], size: int, dtype: np.dtype) -> Callable[[], np.ndarray]:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    zeros = bytes(size * dtype.itemsize)
    nonce = struct.pack("<4I", 0, 0, 0, PURPOSE)  # counter and nonce

    def run() -> np.ndarray:
        total = np.zeros(size, dtype)
        for seed, sign in zip(seeds, signs, strict=True):
            stream = Cipher(algorithms.ChaCha20(seed, nonce), mode=None).encryptor().update(zeros)
            words = np.frombuffer(stream, dtype)
            if sign > 0:
                total += words
            else:
                total -= words
        return total

    return run


def with_philox(signs: list[int], size: int, dtype: np.dtype) -> np.ndarray:
    """The same work with a generator that is no cipher: its masks hide nothing from who tries."""
    total = np.zeros(size, dtype)
    for number, sign in enumerate(signs):
        words = np.random.Generator(np.random.Philox(number)).bytes(size * dtype.itemsize)
        if sign > 0:
            total += np.frombuffer(words, dtype)
        else:
            total -= np.frombuffer(words, dtype)
    return total


def with_torch(signs: list[int], values: torch.Tensor) -> torch.Tensor:
    """The same with torch's generator, which is no cipher either."""
    total = torch.zeros_like(values)
    info = torch.iinfo(values.dtype)
    generator = torch.Generator(values.device)
    for number, sign in enumerate(signs):
        generator.manual_seed(number)
        words = torch.randint(
            info.min, info.max, values.shape, dtype=values.dtype, device=values.device, generator=generator
        )
        total.add_(words, alpha=sign)
    return total


def make_case(num_seeds: int, size: int, dtype: torch.dtype, device: torch.device) -> Case:
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randint(0, 256, (num_seeds, 32), dtype=torch.uint8, generator=generator)
    signs = [1 if number % 2 else -1 for number in range(num_seeds)]
    sign_tensor = torch.tensor(signs, dtype=torch.int8).to(device)
    on_device = seeds.to(device)
    values = torch.zeros(size, dtype=dtype, device=device)
    secrets = [bytes(seed) for seed in seeds.tolist()]
    word = np.dtype("<u4" if dtype == torch.int32 else "<u8")
    peers, skipped = [], []
    share = min(1.0, 10 / num_seeds)
    few = max(round(num_seeds * share), 1)
    if find_spec("cryptography") is None:
        skipped.append("cryptography ChaCha20 + NumPy")
    else:
        peers.append(Peer("cryptography ChaCha20 + NumPy", with_cryptography(secrets, signs, size, word)))
    philox = few / num_seeds
    peers.append(Peer("NumPy Philox (not private)", lambda: with_philox(signs[:few], size, word), philox))
    peers.append(Peer("torch.randint (not private)", lambda: with_torch(signs[:few], values), philox))

    def check() -> float:
        got = mask_sum_(torch.zeros_like(values), on_device, sign_tensor).cpu()
        for element in sorted({0, size // 2, size - 1}):
            per_block = 64 // word.itemsize
            total = 0
            for secret, sign in zip(secrets, signs, strict=True):
                block = key_stream_block(secret, struct.pack("<QII", element // per_block, 0, PURPOSE))
                total += sign * int(np.frombuffer(block, word)[element % per_block])
            bits = 8 * word.itemsize
            assert int(got[element]) % 2**bits == total % 2**bits, f"element {element} is wrong"
        return 0.0

    return Case(
        kernel="mask_sum",
        name=f"n = {num_seeds} seeds, N = {size}, {str(dtype).removeprefix('torch.')}",
        size=num_seeds * size,
        run=lambda: mask_sum_(values, on_device, sign_tensor),
        peers=peers,
        check=check,
        bytes_moved=2.0 * size * word.itemsize,
        operations=num_seeds * size * word.itemsize / 64 * OPERATIONS,
        skipped=skipped,
    )


def cases(quick: bool, device: torch.device) -> list[Case]:
    """Masks of 100 clients for vectors of 32 and 64 bits, and one mask."""
    size = 20_000 if quick else 1_000_000
    return [
        make_case(100, size, torch.int32, device),
        make_case(100, size // 2, torch.int64, device),
        make_case(1, size, torch.int32, device),
    ]
