"""ParameterCollection: M members as safetensors files, memory-mapped and read in slices."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privkernels._files import PARTIAL_MARK, open_safetensors, read_safetensors
from privkernels.errors import (
    CorruptFileError,
    FileMissingError,
    InvalidArgumentError,
    MemberMismatchError,
    NonFiniteValueError,
    TooFewMembersError,
    UnsafeFormatError,
)

# safetensors dtype names. Floating-point tensors are drawn, the others must be the same in all members.
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_INTEGERS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}
_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
_NOT_MEMBERS = {"initial.safetensors", "subsets.safetensors"}
_DEFAULT_BYTES = 64 << 20


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies in a member's file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class ParameterSlice:
    """Neighbouring elements of one tensor, of all members.

    Attributes:
        name: the tensor's name.
        start, stop: positions in the flattened tensor.
        first_element: position of ``start`` among all floating-point elements of the model.
        rows: M tensors float32 [stop - start], memory-mapped where the file holds float32.
    """

    name: str
    start: int
    stop: int
    first_element: int
    rows: list[torch.Tensor]


class ParameterCollection:
    """M members of one architecture, in safetensors files; never all in memory.

    Members must have the same tensor names, shapes and dtypes. Floating-point tensors are the model's
    parameters (the paper's slices theta[j]); integer and boolean tensors must be equal in all members.
    Elements are numbered through the floating-point tensors in the order of their sorted names.

    The method needs members that were trained from one common initialisation: otherwise the same position
    means something else in each member, and a density estimate over them means nothing.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Open and check the files.

        Raises:
            TooFewMembersError: fewer than two files.
            MemberMismatchError: names, shapes or dtypes differ, or an integer tensor's values do.
            InvalidArgumentError: the same file is given twice.
            CorruptFileError, UnsafeFormatError, FileMissingError: a file cannot be read (see there).
        """
        self.paths = tuple(Path(path) for path in paths)
        if len(self.paths) < 2:
            raise TooFewMembersError(
                f"a parameter collection needs at least 2 members, got {len(self.paths)}: train or add more"
            )
        self._check_distinct()
        self._headers = [_read_header(path) for path in self.paths]
        self._check_equal_headers()
        first = self._headers[0]
        for name, entry in first.items():
            if entry.dtype not in _FLOATS and entry.dtype not in _INTEGERS:
                raise MemberMismatchError(
                    f"{self.paths[0]}, tensor {name!r}: dtype {entry.dtype} cannot be published; use float32, float64, "
                    "float16, bfloat16, or integers that are the same in all members"
                )
        self.names = tuple(sorted(name for name, entry in first.items() if entry.dtype in _FLOATS))
        self.other_names = tuple(sorted(set(first) - set(self.names)))
        self.shapes = {name: entry.shape for name, entry in first.items()}
        self.dtypes = {name: _FLOATS[first[name].dtype] for name in self.names}
        self._check_equal_values()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ParameterCollection:
        """All members in a folder: ``member-*.safetensors``, or else every ``*.safetensors`` file.

        Raises :class:`UnsafeFormatError` if the folder holds pickled checkpoints instead, and
        :class:`FileMissingError` if it does not exist.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileMissingError(f"{folder} is not a folder of members")
        files = [path for path in sorted(folder.glob("*.safetensors")) if PARTIAL_MARK not in path.name]
        members = [path for path in files if path.name.startswith("member-")]
        members = members or [path for path in files if path.name not in _NOT_MEMBERS]
        if not members:
            pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
            if pickles:
                raise UnsafeFormatError(
                    f"{folder} holds {pickles[0]}, which is a pickle and can run code when loaded: convert "
                    "the members with safetensors.torch.save_file(state_dict, path) where you trust them"
                )
            raise TooFewMembersError(f"{folder} holds no .safetensors files: at least 2 members are needed")
        return cls(members)

    @property
    def num_members(self) -> int:
        """M."""
        return len(self.paths)

    @property
    def num_parameters(self) -> int:
        """N, the number of floating-point elements of one member."""
        return sum(self._headers[0][name].size for name in self.names)

    def state_dict(self, member: int) -> dict[str, torch.Tensor]:
        """One member's tensors, in memory."""
        return read_safetensors(self.paths[member])[0]

    def constant_tensors(self) -> dict[str, torch.Tensor]:
        """The integer and boolean tensors, which are equal in all members."""
        with open_safetensors(self.paths[0]) as file:
            return {name: file.get_tensor(name) for name in self.other_names}

    def slices(self, max_bytes: int = _DEFAULT_BYTES) -> Iterator[ParameterSlice]:
        """All floating-point elements, at most about ``max_bytes`` (over all members) at a time.

        A slice's rows must not be kept past the next one: their files are unmapped when they are dropped.

        Raises :class:`NonFiniteValueError`, naming file and tensor, where a member holds NaN or infinity.
        """
        step = max(1024, max_bytes // (4 * self.num_members))
        first_element = 0
        for name in self.names:
            size = self._headers[0][name].size
            for start in range(0, size, step):
                stop = min(start + step, size)
                rows = [self._row(member, name, start, stop) for member in range(self.num_members)]
                yield ParameterSlice(name, start, stop, first_element + start, rows)
            first_element += size

    def mean(self) -> dict[str, torch.Tensor]:
        """The members' mean, tensor by tensor, in the members' dtypes. Not private."""
        flat = {name: torch.empty(self._headers[0][name].size) for name in self.names}
        for piece in self.slices():
            total = torch.zeros(piece.stop - piece.start, dtype=torch.float64)
            for row in piece.rows:
                total += row
            flat[piece.name][piece.start : piece.stop] = (total / self.num_members).float()
        return self.assemble(flat)

    def assemble(self, flat: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state dict from flat float32 tensors, with the members' shapes, dtypes and constant tensors."""
        tensors = {name: flat[name].reshape(self.shapes[name]).to(self.dtypes[name]) for name in self.names}
        return tensors | self.constant_tensors()

    def _row(self, member: int, name: str, start: int, stop: int) -> torch.Tensor:
        entry, path = self._headers[member][name], self.paths[member]
        dtype = np.dtype(_NUMPY[entry.dtype])
        try:
            # Copy-on-write, so that torch gets a writable array and the file stays as it is.
            mapped = np.memmap(
                path,
                dtype=dtype,
                mode="c",
                offset=entry.offset + start * dtype.itemsize,
                shape=(stop - start,),
            )
        except ValueError as error:
            raise CorruptFileError(f"{path} has become shorter since it was opened ({error})") from error
        if entry.dtype == "BF16":
            row = torch.from_numpy(np.asarray(mapped)).view(torch.bfloat16).float()
        else:
            aligned = mapped if entry.offset % dtype.itemsize == 0 else np.array(mapped)
            row = torch.from_numpy(np.asarray(aligned)).float()
        if not bool(torch.isfinite(row).all()):
            bad = int(torch.nonzero(~torch.isfinite(row))[0]) + start
            raise NonFiniteValueError(
                f"{path}, tensor {name!r}, element {bad}: {row[bad - start].item()} is not a finite number; "
                "train this member again or leave it out"
            )
        return row

    def _check_distinct(self) -> None:
        """One file twice would be one member counted twice, and its privacy loss counted once."""
        seen: dict[tuple[int, int], Path] = {}
        for path in self.paths:
            if not path.is_file():
                raise FileMissingError(f"{path} does not exist, or is not a file")
            facts = path.stat()
            other = seen.setdefault((facts.st_dev, facts.st_ino), path)
            if other is not path:
                raise InvalidArgumentError(f"{path} and {other} are the same file: every member must be there once")

    def _check_equal_headers(self) -> None:
        first_path, first = self.paths[0], self._headers[0]
        for path, header in zip(self.paths[1:], self._headers[1:], strict=True):
            if set(header) != set(first):
                odd = sorted(set(header) ^ set(first))
                raise MemberMismatchError(
                    f"{path} and {first_path} do not have the same tensors (only one has {odd[0]!r}): "
                    "all members must be of one architecture"
                )
            for name, entry in header.items():
                if (entry.shape, entry.dtype) != (first[name].shape, first[name].dtype):
                    raise MemberMismatchError(
                        f"{path}, tensor {name!r}: {entry.dtype} {list(entry.shape)}, but {first_path} has "
                        f"{first[name].dtype} {list(first[name].shape)}: all members must be of one architecture"
                    )

    def _check_equal_values(self) -> None:
        if not self.other_names:
            return
        expected = self.constant_tensors()
        for path in self.paths[1:]:
            with open_safetensors(path) as file:
                for name, tensor in expected.items():
                    if not torch.equal(file.get_tensor(name), tensor):
                        raise MemberMismatchError(
                            f"{path}, tensor {name!r}: not the same integers as in {self.paths[0]}; integer and "
                            "boolean tensors are published as they are and must be equal in all members"
                        )


def _read_header(path: Path) -> dict[str, _Entry]:
    with open_safetensors(path):  # the library checks that the header is sound and the file is whole
        pass
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: _Entry(value["dtype"], tuple(value["shape"]), 8 + length + value["data_offsets"][0])
        for name, value in header.items()
    }
