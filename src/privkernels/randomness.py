"""The one source of randomness: a 256-bit key, and labels that derive further keys from it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

import torch

from privkernels.errors import InvalidArgumentError

_DERIVE = b"privkernels key derivation v1\x00"
_SEED = b"privkernels seeded key v1\x00"


@dataclass(frozen=True)
class Key:
    """A 256-bit secret that every random draw of a release is a function of.

    The kernels draw from ChaCha20 under ``key.derive(label)``, addressed by element index and
    attempt (``csrc/core/chacha20.h``), so a draw depends on (key, label, element, attempt) alone.
    Whoever holds the key can draw all noise again: keep it secret, or drop it.

    A (key, label) pair must be used for one release only: the difference of two releases with
    the same noise is exact.

    Attributes:
        secret: 32 bytes. Not shown by ``repr``.
        reproducible: True when the key came from :meth:`from_seed`; a release drawn with such a
            key can be drawn again by anyone who guesses the seed, and is marked as not private.
    """

    secret: bytes = field(repr=False)
    reproducible: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.secret, bytes) or len(self.secret) != 32:
            raise InvalidArgumentError("a key holds exactly 32 bytes; use Key.generate() for a new one")

    @classmethod
    def generate(cls) -> Key:
        """Draw a new key from the operating system."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_seed(cls, seed: int) -> Key:
        """A key for experiments, the same for the same integer. Not private."""
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise InvalidArgumentError(f"a seed is an integer, not {seed!r}")
        return cls(hashlib.sha256(_SEED + str(seed).encode()).digest(), reproducible=True)

    def derive(self, label: str) -> Key:
        """The key for ``label``: HMAC-SHA256 of the label under this key."""
        if not isinstance(label, str) or not label:
            raise InvalidArgumentError(f"a label is a non-empty string, not {label!r}")
        digest = hmac.digest(self.secret, _DERIVE + label.encode(), "sha256")
        return Key(digest, self.reproducible)

    def seed_for(self, label: str) -> int:
        """A 63-bit integer for libraries that want a seed (shuffling, initialisation; never noise)."""
        return int.from_bytes(self.derive(label).secret[:8], "little") >> 1

    def generator(self, label: str) -> torch.Generator:
        """A torch CPU generator for shuffling and initialisation; never for a private draw."""
        return torch.Generator().manual_seed(self.seed_for(label))

    def tensor(self) -> torch.Tensor:
        """The secret as uint8 [32] on the CPU, the form that the operators take."""
        return torch.frombuffer(bytearray(self.secret), dtype=torch.uint8)
