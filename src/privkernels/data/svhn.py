"""SVHN, the cropped digits (format 2): train_32x32.mat and test_32x32.mat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

from privkernels.data.files import RemoteFile, candidate_folders, default_root, fetch, find_file, not_found
from privkernels.data.records import DataSet, Records
from privkernels.errors import CorruptFileError

_ADDRESS = "http://ufldl.stanford.edu/housenumbers/"
_FOLDERS = ("svhn", "SVHN")
_FILES = (
    RemoteFile("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", (_ADDRESS,)),
    RemoteFile("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", (_ADDRESS,)),
)


def load_svhn(root: Path | None, download: bool) -> DataSet:
    """Load SVHN's cropped digits: x [n, 3, 32, 32], 10 classes; the files' label 10 becomes 0.

    Raises:
        DataUnavailableError: a file is missing.
        CorruptFileError: a file is truncated, or is not the MATLAB file that it should be.
    """
    base = root or default_root()
    folders = candidate_folders(base, _FOLDERS)
    paths = [find_file(folders, [file.name]) for file in _FILES]
    if None in paths and download:
        fetch("svhn", _FILES, base / _FOLDERS[0])
        paths = [find_file(folders, [file.name]) for file in _FILES]
    train, test = paths
    if train is None or test is None:
        raise not_found("svhn", " and ".join(file.name for file in _FILES), folders, _ADDRESS)
    return DataSet("svhn", _records(train, "svhn/train"), _records(test, "svhn/test"))


def _records(path: Path, name: str) -> Records:
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:
        # A damaged file makes SciPy raise nearly anything: ValueError, TypeError, zlib.error, OSError, ...
        raise CorruptFileError(f"{path} is not a whole MATLAB file ({error}): fetch it again") from error
    images, labels = content.get("X"), content.get("y")
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise CorruptFileError(f"{path} holds no X, uint8 [32, 32, 3, n]: it is not SVHN's cropped version")
    if labels is None or labels.shape != (images.shape[3], 1) or not np.issubdtype(labels.dtype, np.number):
        raise CorruptFileError(f"{path} holds no y of shape [{images.shape[3]}, 1], one label an image")
    if labels.size == 0 or labels.min() < 1 or labels.max() > 10:
        raise CorruptFileError(f"{path} must hold at least one image, with labels 1..10 (10 is the digit 0)")
    x = torch.from_numpy(images.transpose(3, 2, 0, 1).astype(np.float32, order="C")).div_(255)
    y = torch.from_numpy(labels[:, 0].astype(np.int64)) % 10
    return Records(x, y, 10, name)
