"""CIFAR-10, in its publisher's binary or Python version, unpacked or as the .tar.gz."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from privkernels.data._pickle import read_numpy_pickle
from privkernels.data.files import RemoteFile, candidate_folders, default_root, fetch, not_found
from privkernels.data.records import DataSet, Records
from privkernels.errors import CorruptFileError, DataUnavailableError

_PIXELS = 3 * 32 * 32
_TRAINING_BATCHES = 5
_ADDRESS = "https://www.cs.toronto.edu/~kriz/"
_FOLDERS = ("cifar-10", "cifar10", "CIFAR10")
_BATCH = re.compile(r"(data_batch_[1-5]|test_batch)(\.bin)?")
# The folder inside the archive is also what the archive unpacks to.
_VERSIONS = {
    "cifar-10-batches-bin": RemoteFile("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", (_ADDRESS,)),
    "cifar-10-batches-py": RemoteFile("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", (_ADDRESS,)),
}

# Batch name ("data_batch_1" or "test_batch") -> (file to name in messages, its content).
_Batches = dict[str, tuple[str, bytes]]


def load_cifar10(root: Path | None, download: bool) -> DataSet:
    """Load CIFAR-10: x [n, 3, 32, 32], 10 classes.

    The training batches that are there are loaded: one at least, in the order of their numbers.
    When some of the five are missing, the names of the data set and its records say which are used.

    Raises:
        DataUnavailableError: no version of the data set, no training batch or no test batch.
        CorruptFileError: a batch or the archive is truncated or is something else.
        UnsafeFormatError: a batch of the Python version holds more than arrays, text and numbers.
    """
    base = root or default_root()
    folders = candidate_folders(base, _FOLDERS)
    batches = _find(folders)
    if batches is None and download:
        archive = _VERSIONS["cifar-10-batches-bin"]
        fetch("cifar-10", [archive], base / _FOLDERS[0])
        batches = _find(folders)
    if batches is None:
        names = ", ".join((*_VERSIONS, *(file.name for file in _VERSIONS.values())))
        raise not_found("cifar-10", names, folders, _ADDRESS)
    return _assemble(batches)


def _find(folders: list[Path]) -> _Batches | None:
    """The batches of the first version found: the unpacked folders before the archives."""
    for folder in folders:
        for version in _VERSIONS:
            # A root may also be the unpacked folder itself.
            for place in (folder / version, folder):
                batches = _read_folder(place, binary=version.endswith("-bin"))
                if batches:
                    return batches
    for folder in folders:
        for version, archive in _VERSIONS.items():
            if (folder / archive.name).is_file():
                return _read_archive(folder / archive.name, version)
    return None


def _read_folder(folder: Path, binary: bool) -> _Batches:
    if not folder.is_dir():
        return {}
    files = sorted(path for path in folder.iterdir() if _batch_name(path.name, binary) and path.is_file())
    return {path.name.removesuffix(".bin"): (str(path), path.read_bytes()) for path in files}


def _read_archive(path: Path, version: str) -> _Batches:
    """Read the batches out of the publisher's archive, in memory.

    Nothing is unpacked to disk, so no path, link or device in a hostile archive can do harm.
    """
    batches: _Batches = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                wanted = _batch_name(name.name, binary=version.endswith("-bin"))
                if not wanted or name.parent.name != version or not member.isfile():
                    continue
                file = archive.extractfile(member)
                if file is not None:
                    batches[name.name.removesuffix(".bin")] = (f"{path}:{member.name}", file.read())
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorruptFileError(f"{path} is not a whole .tar.gz archive ({error}): fetch it again") from error
    if not batches:
        raise CorruptFileError(f"{path} holds no files {version}/data_batch_N or test_batch: fetch it again")
    return batches


def _batch_name(name: str, binary: bool) -> bool:
    match = _BATCH.fullmatch(name)
    return match is not None and (match[2] is not None) == binary


def _assemble(batches: _Batches) -> DataSet:
    numbers = [n for n in range(1, _TRAINING_BATCHES + 1) if f"data_batch_{n}" in batches]
    if not numbers or "test_batch" not in batches:
        have = ", ".join(sorted(source for source, _ in batches.values()))
        raise DataUnavailableError(
            f"cifar-10 needs at least one training batch (data_batch_1 .. data_batch_{_TRAINING_BATCHES}) "
            f"and test_batch; found only {have}: add the missing files from {_ADDRESS}"
        )
    note = ""
    if len(numbers) < _TRAINING_BATCHES:
        plural = "es" if len(numbers) > 1 else ""
        note = f" (training batch{plural} {', '.join(map(str, numbers))} of {_TRAINING_BATCHES})"
    train = [_parse(*batches[f"data_batch_{n}"]) for n in numbers]
    return DataSet(
        f"cifar-10{note}",
        _records(train, f"cifar-10/train{note}"),
        _records([_parse(*batches["test_batch"])], "cifar-10/test"),
    )


def _parse(source: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [n, 3072] (red, green, blue planes, row by row) and labels uint8 [n] of one batch."""
    parse: Callable[[str, bytes], tuple[np.ndarray, np.ndarray]]
    parse = _parse_binary if source.endswith(".bin") else _parse_python
    pixels, labels = parse(source, content)
    if labels.max() > 9 or labels.min() < 0:
        raise CorruptFileError(f"{source} holds labels {labels.min()}..{labels.max()}; CIFAR-10 has 0..9")
    return pixels, labels


def _parse_binary(source: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    size = 1 + _PIXELS
    if not content or len(content) % size:
        raise CorruptFileError(
            f"{source} holds {len(content)} bytes, which is not a whole number of records of {size} bytes: "
            "it is truncated or damaged, fetch it again"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)
    return rows[:, 1:], rows[:, 0]


def _parse_python(source: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    batch = read_numpy_pickle(content, source)
    if not isinstance(batch, dict):
        raise CorruptFileError(f"{source} holds a {type(batch).__name__}, not a dict: fetch it again")
    # The publisher's keys are Python 2 strings, which arrive as bytes; copies made since use text.
    pixels, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_PIXELS,):
        raise CorruptFileError(f"{source} holds no 'data' array, uint8 [n, {_PIXELS}]: fetch it again")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not labels
        or not all(type(label) is int for label in labels)
    ):
        raise CorruptFileError(f"{source} holds no list 'labels' with one integer per row of 'data'")
    return pixels, np.asarray(labels)


def _records(batches: list[tuple[np.ndarray, np.ndarray]], name: str) -> Records:
    pixels = np.concatenate([pixels for pixels, _ in batches]).astype(np.float32)
    labels = np.concatenate([labels for _, labels in batches]).astype(np.int64)
    x = torch.from_numpy(pixels.reshape(-1, 3, 32, 32)).div_(255)
    return Records(x, torch.from_numpy(labels), 10, name)
