"""Labelled records as plain tensors, checked once when they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

_FINGERPRINT = b"privkernels records v1\x00"


@dataclass(frozen=True, eq=False)
class Records:
    """One set of labelled records.

    Attributes:
        x: float32 [n, ...], finite. Images are [n, channels, height, width], scaled to [0, 1].
        y: int64 [n], classes 0 .. n_classes-1, on the device of ``x``.
        n_classes: number of classes, at least 1; classes that no record has are allowed.
        name: what the records are, for messages and reports, e.g. ``"digits/train"``.

    Raises:
        InvalidArgumentError: a wrong type, dtype, shape or label.
        EmptyDataError: no records.
        NonFiniteValueError: ``x`` holds NaN or infinity.
    """

    x: torch.Tensor
    y: torch.Tensor
    n_classes: int
    name: str

    def __post_init__(self) -> None:
        _check_tensor(self.x, torch.float32, f"x of {self.name!r}")
        _check_tensor(self.y, torch.int64, f"y of {self.name!r}")
        if not isinstance(self.n_classes, int) or isinstance(self.n_classes, bool) or self.n_classes < 1:
            raise InvalidArgumentError(f"n_classes is a positive integer, not {self.n_classes!r}")
        matching = self.y.shape == self.x.shape[:1] and self.x.device == self.y.device
        if self.x.dim() < 2 or not matching:
            raise InvalidArgumentError(
                f"{self.name!r} needs x of shape [n, ...] and y of shape [n] on one device, not x "
                f"{list(self.x.shape)} on {self.x.device} and y {list(self.y.shape)} on {self.y.device}"
            )
        if self.x.numel() == 0:
            raise EmptyDataError(f"{self.name!r} is empty (x is {list(self.x.shape)}): give at least one record")
        low, high = int(self.y.min()), int(self.y.max())
        if low < 0 or high >= self.n_classes:
            raise InvalidArgumentError(
                f"labels of {self.name!r} run from {low} to {high}; with n_classes={self.n_classes} "
                f"they must lie in 0..{self.n_classes - 1}"
            )
        if not bool(torch.isfinite(self.x).all()):
            raise NonFiniteValueError(f"x of {self.name!r} holds NaN or infinity: clean the records first")

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, indices: torch.Tensor | Sequence[int]) -> Records:
        """The records at ``indices``, in that order.

        Args:
            indices: integers in 0..n-1 (a sequence, or an integer tensor [k]), or a bool tensor [n].

        Raises:
            InvalidArgumentError: an index out of range, or a tensor of another dtype or shape.
            EmptyDataError: no index.
        """
        rows = torch.as_tensor(indices, device=self.x.device)
        if rows.dtype == torch.bool and rows.shape == (len(self),):
            rows = rows.nonzero()[:, 0]
        if rows.numel() == 0:
            raise EmptyDataError(f"an empty subset of {self.name!r} was asked for: give at least one index")
        if rows.dim() != 1 or rows.dtype == torch.bool or rows.is_floating_point() or rows.is_complex():
            raise InvalidArgumentError(
                f"indices are integers [k] or a bool mask [{len(self)}], not {rows.dtype} {list(rows.shape)}"
            )
        if int(rows.min()) < 0 or int(rows.max()) >= len(self):
            raise InvalidArgumentError(
                f"indices into {self.name!r} lie in 0..{len(self) - 1}, "
                f"but these run from {int(rows.min())} to {int(rows.max())}"
            )
        rows = rows.long()
        name = f"{self.name} ({len(rows)} of {len(self)})"
        return Records(self.x[rows], self.y[rows], self.n_classes, name)

    def fingerprint(self) -> str:
        """SHA-256 over shapes, dtypes, n_classes and every byte of x and y, as 64 hexadecimal digits.

        The name is left out: the same records under another name have the same fingerprint.
        """
        digest = hashlib.sha256(_FINGERPRINT)
        digest.update(f"{self.n_classes}".encode())
        for tensor in (self.x, self.y):
            array = tensor.detach().cpu().contiguous().numpy()
            # "<f4" and "<i8" everywhere, so that a big-endian machine finds the same fingerprint.
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f";{array.dtype.str};{array.shape};".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def digests(self) -> list[bytes]:
        """A 16-byte BLAKE2b digest of each record's content, label included, in order.

        Equal records, on any machine, and no others but by chance, have equal digests; the name and ``n_classes`` do
        not count.
        """
        # + 0.0 makes the two zeros one.
        rows = self.x.detach().cpu().contiguous().numpy().reshape(len(self), -1) + np.float32(0.0)
        rows = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        return [
            hashlib.blake2b(row.tobytes() + str(label).encode("ascii"), digest_size=16).digest()
            for row, label in zip(rows, self.y.tolist(), strict=True)
        ]


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with its training and its test records.

    Attributes:
        name: the name that :func:`privkernels.data.load` knows it by; it also says when parts are missing.
        train: records to train on.
        test: records that no model is trained on.
    """

    name: str
    train: Records
    test: Records


def _check_tensor(tensor: torch.Tensor, dtype: torch.dtype, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgumentError(f"{what} is a torch.Tensor of {dtype}, not {type(tensor).__name__}")
    if tensor.dtype != dtype or tensor.layout != torch.strided:
        raise InvalidArgumentError(f"{what} is a dense tensor of {dtype}, not {tensor.dtype} ({tensor.layout})")
