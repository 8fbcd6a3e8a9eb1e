"""Reading and writing files so that nothing is half-written and no pickle is loaded."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from privkernels.errors import (
    CorruptFileError,
    DiskFullError,
    FileMissingError,
    OutputExistsError,
    UnsafeFormatError,
)

# A name with this mark is an unfinished file or folder: readers skip it, writers may remove it.
PARTIAL_MARK = ".partial-"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" into :class:`DiskFullError` naming ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFullError(
                f"no room left to write {path}: free some space and run the same command again; "
                "what was finished before is kept"
            ) from error
        raise
    except SafetensorError as error:
        # The safetensors writer wraps the operating system's error in a string.
        if "os error 28" in str(error) or "No space left" in str(error) or "os error 27" in str(error):
            raise DiskFullError(
                f"no room left to write {path}: free some space and run the same command again; "
                "what was finished before is kept"
            ) from error
        raise


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, public: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place on success, remove it on error.

    The file is synchronised to disk before the rename, so after a crash ``path`` is either
    absent, the old file, or the whole new one. Only its owner may read it, unless it is ``public``:
    most of what this library writes is private (members, keys, reports).
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}{PARTIAL_MARK}{uuid.uuid4().hex}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.chmod(_public_mode() if public else 0o600)
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends without an error.

    Raises :class:`OutputExistsError` if ``path`` is a file, or exists and is not empty, unless
    ``replace``. A folder that a killed process left behind is removed first; one that it was about
    to replace is put back.
    """
    path = Path(path)
    mark = glob.escape(f".{path.name}{PARTIAL_MARK}")
    for old in path.parent.glob(f"{mark}old-*"):
        if not path.exists():
            os.replace(old, path)
    check_output_folder(path, replace=replace)
    for stale in path.parent.glob(f"{mark}*"):
        if not _in_use(stale.name.split(PARTIAL_MARK)[-1]):
            shutil.rmtree(stale, ignore_errors=True)
    partial = path.with_name(f".{path.name}{PARTIAL_MARK}{os.getpid()}-{uuid.uuid4().hex}")
    with disk_errors(path):
        try:
            partial.mkdir()
            yield partial
            for file in [partial, *partial.rglob("*")]:
                sync(file)
            if path.exists():
                # rename() cannot replace a folder that is not empty, so the old one steps aside.
                old = path.with_name(f".{path.name}{PARTIAL_MARK}old-{uuid.uuid4().hex}")
                os.replace(path, old)
                os.replace(partial, path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(partial, path)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def check_output_folder(path: str | os.PathLike[str], *, replace: bool = False) -> None:
    """See before the work that :func:`atomic_folder` will be able to write ``path``; errors as there."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path} is a file, not a folder: choose another folder")
    if path.exists() and any(path.iterdir()) and not replace:
        raise OutputExistsError(f"{path} already exists and is not empty: choose another folder, or ask to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)


def check_output_file(path: str | os.PathLike[str]) -> None:
    """See before the work that :func:`atomic_path` will be able to write ``path``."""
    if Path(path).is_dir():
        raise OutputExistsError(f"{path} is a folder, not a file: choose another name")
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def _in_use(suffix: str) -> bool:
    """Whether the process that a folder's name carries still runs: then it is no leftover."""
    number = suffix.split("-")[0]
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it runs, under another user
    return True


def _public_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str, *, public: bool = False) -> None:
    """Write ``text`` (UTF-8) atomically."""
    with atomic_path(path, public=public) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, *, public: bool = False) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, sort_keys=True) + "\n", public=public)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; raises :class:`FileMissingError` or :class:`CorruptFileError`."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileMissingError(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{path} is not valid JSON ({error}): write it again or remove it") from error


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    public: bool = False,
) -> None:
    """Write named tensors atomically. Shared or strided tensors are copied first."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path, public=public) as partial:
        save_file(plain, partial, metadata=dict(metadata) if metadata else None)


@contextlib.contextmanager
def open_safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a safetensors file for reading (memory-mapped).

    Raises :class:`FileMissingError`, :class:`UnsafeFormatError` when the file is a pickle or a
    zip archive (as ``torch.save`` writes), :class:`CorruptFileError` when it is truncated or is
    something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileMissingError(f"{path} does not exist, or is not a file")
    with path.open("rb") as file:
        start = file.read(16)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        raise UnsafeFormatError(
            f"{path} is a pickle or a torch.save archive, and loading one can run code: "
            "convert it with safetensors.torch.save_file(state_dict, path) where you trust it"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        raise CorruptFileError(f"{path} is not a whole safetensors file ({error}): copy or create it again") from error


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file."""
    with open_safetensors(path) as file:
        names = file.keys()  # safe_open is no dict: it does not iterate
        tensors = {name: file.get_tensor(name) for name in names}
        return tensors, dict(file.metadata() or {})
