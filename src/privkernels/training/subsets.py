"""Which records each member is trained on."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import torch

from privkernels._files import read_safetensors, write_safetensors
from privkernels.errors import CorruptFileError, EmptyDataError, InvalidArgumentError, TooFewRecordsError
from privkernels.randomness import Key


@dataclass(frozen=True, eq=False)
class Subsets:
    """Membership of n records in the training sets of M members.

    Attributes:
        mask: bool [M, n] on the CPU; ``mask[i, r]`` is True where member i is trained on record r.
        scheme: how the subsets were drawn, for the record.

    Raises:
        InvalidArgumentError: ``mask`` has another type, dtype or shape, or no member.
        EmptyDataError: there is no record at all.
        TooFewRecordsError: a member has no record.
    """

    mask: torch.Tensor
    scheme: str = "custom"

    def __post_init__(self) -> None:
        if not isinstance(self.mask, torch.Tensor) or self.mask.dtype != torch.bool or self.mask.dim() != 2:
            raise InvalidArgumentError("a subset mask is a bool tensor [members, records]")
        if self.mask.device.type != "cpu":
            raise InvalidArgumentError(f"a subset mask lies on the CPU, not on {self.mask.device}")
        _check_counts(self.records, self.members)
        empty = (~self.mask.any(dim=1)).nonzero()[:, 0].tolist()
        if empty:
            raise TooFewRecordsError(f"member {empty[0]} has no record to train on (of {self.records})")

    @property
    def members(self) -> int:
        """M, the number of members."""
        return self.mask.shape[0]

    @property
    def records(self) -> int:
        """n, the number of records that the subsets choose from."""
        return self.mask.shape[1]

    def indices(self, member: int) -> torch.Tensor:
        """The records of one member, int64, ascending."""
        if not 0 <= member < self.members:
            raise InvalidArgumentError(f"members are 0..{self.members - 1}, not {member}")
        return self.mask[member].nonzero()[:, 0]

    def overlap(self) -> int:
        """s: how many members the most-used record is in.

        Changing one record changes at most this many members, so a guarantee per member becomes
        one per record at s times the epsilon.
        """
        return int(self.mask.sum(dim=0).max())

    def fingerprint(self) -> str:
        """SHA-256 of the mask, as 64 hexadecimal digits."""
        digest = hashlib.sha256(f"privkernels subsets v1;{self.members};{self.records};".encode())
        digest.update(_pack(self.mask).tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as safetensors, eight records to a byte, the first in the highest bit."""
        packed = torch.from_numpy(_pack(self.mask))
        write_safetensors(path, {"mask": packed}, {"records": str(self.records), "scheme": self.scheme})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Subsets:
        """Read what :meth:`save` wrote.

        Raises:
            FileMissingError, CorruptFileError: the file is missing, or is something else.
        """
        tensors, metadata = read_safetensors(path)
        packed, count = tensors.get("mask"), metadata.get("records", "")
        if (
            packed is None
            or packed.dtype != torch.uint8
            or packed.dim() != 2
            or not count.isdecimal()
            or packed.shape[1] != (int(count) + 7) // 8
        ):
            raise CorruptFileError(f"{path} holds no packed subset mask: it was not written by Subsets.save")
        mask = np.unpackbits(packed.numpy(), axis=1, count=int(count)).astype(bool)
        return cls(torch.from_numpy(mask), metadata.get("scheme", "custom"))


def leave_one_out(n: int, members: int, key: Key) -> Subsets:
    """Every member trains on all records but one, each member leaving out another one.

    A record is then in M or M-1 members, so a guarantee per member says next to nothing per record.

    Raises:
        TooFewRecordsError: fewer than 2 records, or fewer records than members.
    """
    _check_counts(n, members)
    if n < 2 or members > n:
        raise TooFewRecordsError(
            f"leaving out a different record for each of {members} members needs at least "
            f"{max(2, members)} records, and there are {n}: train fewer members"
        )
    left_out = torch.randperm(n, generator=key.generator("leave-one-out"))[:members]
    mask = torch.ones(members, n, dtype=torch.bool)
    mask[torch.arange(members), left_out] = False
    return Subsets(mask, "leave-one-out")


def random_fraction(n: int, members: int, fraction: float, key: Key) -> Subsets:
    """Every member trains on its own uniformly drawn round(fraction * n) records.

    A member's subset depends on its number and not on how many members there are.

    Raises:
        InvalidArgumentError: ``fraction`` is not in (0, 1].
        TooFewRecordsError: the fraction leaves no record.
    """
    _check_counts(n, members)
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise InvalidArgumentError(f"the fraction of records per member lies in (0, 1], not {fraction!r}")
    size = round(fraction * n)
    if size < 1:
        raise TooFewRecordsError(f"a fraction of {fraction} of {n} records is none at all: raise the fraction")
    mask = torch.zeros(members, n, dtype=torch.bool)
    for member in range(members):
        generator = key.generator(f"random-fraction/{member}")
        mask[member, torch.randperm(n, generator=generator)[:size]] = True
    return Subsets(mask, "random-fraction")


def disjoint_shards(n: int, members: int, key: Key) -> Subsets:
    """Every record goes to exactly one member; shard sizes differ by at most one.

    The assignment is a random permutation that does not look at the records, so changing one
    record changes one member: a guarantee per member then holds per record too.

    Raises:
        TooFewRecordsError: more members than records.
    """
    _check_counts(n, members)
    if members > n:
        raise TooFewRecordsError(f"{n} records cannot fill {members} disjoint shards: train fewer members")
    order = torch.randperm(n, generator=key.generator("disjoint-shards"))
    mask = torch.zeros(members, n, dtype=torch.bool)
    mask[torch.arange(n) % members, order] = True
    return Subsets(mask, "disjoint-shards")


def _check_counts(n: int, members: int) -> None:
    if not isinstance(members, int) or isinstance(members, bool) or members < 1:
        raise InvalidArgumentError(f"the number of members is an integer of at least 1, not {members!r}")
    if n < 1:
        raise EmptyDataError("there are no records to train on: give at least one")


def _pack(mask: torch.Tensor) -> np.ndarray:
    return np.packbits(mask.numpy(), axis=1)
