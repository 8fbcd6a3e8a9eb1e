"""MNIST and Fashion-MNIST: images and labels in the IDX format, gzip-compressed or plain."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privkernels.data.files import RemoteFile, candidate_folders, default_root, fetch, find_file, not_found
from privkernels.data.records import DataSet, Records
from privkernels.errors import CorruptFileError, DataUnavailableError

_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class IdxSource:
    """What tells one IDX data set from another.

    Attributes:
        name: the data set's name.
        folders: folder names under the root that may hold its files.
        first_labels: the labels of its first training records. MNIST and Fashion-MNIST use the
            same file names, and this tells them apart.
        files: its four files, as published.
    """

    name: str
    folders: tuple[str, ...]
    first_labels: tuple[int, ...]
    files: tuple[RemoteFile, ...]


def _published(addresses: tuple[str, ...], md5s: tuple[str, str, str, str]) -> tuple[RemoteFile, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    return tuple(RemoteFile(f"{name}.gz", md5, addresses) for name, md5 in zip(names, md5s, strict=True))


MNIST = IdxSource(
    "mnist",
    ("mnist", "MNIST/raw", "MNIST", "mnist/raw"),
    (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    _published(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
)

FASHION_MNIST = IdxSource(
    "fashion-mnist",
    ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "fashion_mnist", "fashion-mnist/raw"),
    (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    _published(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
)


def read_idx(path: Path, dims: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes with ``dims`` dimensions, compressed or not.

    The format: two zero bytes, a type code, the number of dimensions, one big-endian uint32 per
    dimension, then the values, last dimension fastest.

    Returns:
        uint8 array of the shape that the header states.

    Raises:
        CorruptFileError: the header is another one, or the file is shorter or longer than it says.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise CorruptFileError(f"{path} is not a whole gzip file ({error}): fetch it again") from error
    expected = bytes((0, 0, _UNSIGNED_BYTE, dims))
    start = 4 + 4 * dims
    if content[:4] != expected or len(content) < start:
        raise CorruptFileError(
            f"{path} is not an IDX file of unsigned bytes with {dims} dimensions: "
            f"it begins with {content[:4].hex() or 'nothing'}, not {expected.hex()}"
        )
    shape = struct.unpack(f">{dims}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise CorruptFileError(
            f"{path} holds {len(content) - start} values where its header says {list(shape)} = "
            f"{math.prod(shape)}: it is truncated or damaged, fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def load_idx(source: IdxSource, root: Path | None, download: bool) -> DataSet:
    """Load MNIST or Fashion-MNIST: x [n, 1, 28, 28], 10 classes."""
    paths = _find(source, root or default_root())
    if isinstance(paths, DataUnavailableError):
        if not download:
            raise paths
        folder = (root or default_root()) / source.folders[0]
        fetch(source.name, source.files, folder)
        paths = tuple(folder / file.name for file in source.files)
    train_x, train_y, test_x, test_y = paths
    train = _records(train_x, train_y, f"{source.name}/train")
    test = _records(test_x, test_y, f"{source.name}/test")
    for other in (MNIST, FASHION_MNIST):
        count = len(other.first_labels)
        if other.name != source.name and tuple(train.y[:count].tolist()) == other.first_labels:
            raise DataUnavailableError(
                f"{train_y} belongs to {other.name}, not to {source.name} (their files have the same names): "
                f"put the files of {source.name} into a folder named {source.folders[0]} under the root"
            )
    return DataSet(source.name, train, test)


def _find(source: IdxSource, root: Path) -> tuple[Path, ...] | DataUnavailableError:
    """The four files, all from one folder, or the error that says where they were looked for."""
    folders = candidate_folders(root, source.folders)
    for folder in folders:
        found = [find_file([folder], _spellings(file.name)) for file in source.files]
        paths = tuple(path for path in found if path is not None)
        if len(paths) == len(source.files):
            return paths
    names = ", ".join(file.name for file in source.files)
    return not_found(source.name, f"{names} (or without .gz)", folders, source.files[0].folders[0])


def _spellings(name: str) -> tuple[str, ...]:
    """``train-images-idx3-ubyte`` also goes about as ``train-images.idx3-ubyte``."""
    plain = name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    return (f"{plain}.gz", plain, f"{dotted}.gz", dotted)


def _records(images_path: Path, labels_path: Path, name: str) -> Records:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise CorruptFileError(f"{images_path} holds images of {images.shape[1:]} pixels; {name} has (28, 28)")
    if len(images) != len(labels) or len(images) == 0:
        raise CorruptFileError(
            f"{images_path} holds {len(images)} images and {labels_path} {len(labels)} labels: "
            "they must be as many, and at least one"
        )
    if labels.max() > 9:
        raise CorruptFileError(f"{labels_path} holds the label {labels.max()}; labels of {name} are 0..9")
    x = torch.from_numpy(images.astype(np.float32)[:, None]).div_(255)
    return Records(x, torch.from_numpy(labels.astype(np.int64)), 10, name)
