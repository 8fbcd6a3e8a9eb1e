"""Records from a user's NumPy archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from privkernels.data import load_arrays, load_attributes
from privkernels.errors import (
    CorruptFileError,
    EmptyDataError,
    FileMissingError,
    InvalidArgumentError,
    NonFiniteValueError,
    UnsafeFormatError,
)

X, Y = np.arange(12, dtype=np.float64).reshape(4, 3), np.array([0, 2, 1, 2])


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def test_records_are_what_was_saved(tmp_path: Path) -> None:
    records = load_arrays(save(tmp_path / "a.npz", x=X, y=Y.astype(np.uint8)))
    assert records.x.dtype == torch.float32
    assert records.x.tolist() == X.tolist()
    assert records.y.tolist() == Y.tolist()
    assert records.n_classes == 3
    assert records.name == "a.npz"
    assert load_arrays(tmp_path / "a.npz", n_classes=10).n_classes == 10


def test_compressed_and_fortran_ordered_arrays_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(X), y=Y[::1])
    assert load_arrays(tmp_path / "a.npz").x.tolist() == X.tolist()


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"x": X}, InvalidArgumentError, "no 'y'"),
        ({"x": X.astype(np.uint8), "y": Y}, InvalidArgumentError, "uint8"),
        ({"x": X, "y": Y.astype(float)}, InvalidArgumentError, "integers"),
        ({"x": X, "y": Y[:2]}, InvalidArgumentError, "shape"),
        ({"x": X, "y": Y - 1}, InvalidArgumentError, "labels"),
        ({"x": X[:0], "y": Y[:0]}, EmptyDataError, "empty"),
        ({"x": X * np.nan, "y": Y}, NonFiniteValueError, "NaN"),
        ({"x": np.array([1, "a"], dtype=object), "y": Y}, UnsafeFormatError, "pickled"),
    ],
)
def test_what_is_not_records_is_refused(tmp_path: Path, arrays: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        load_arrays(save(tmp_path / "a.npz", **arrays))


def test_attributes_stand_beside_the_records(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=X, y=Y, sex=np.array(["f", "m", "f", "m"]), age=Y)
    found = load_attributes(path, ["sex", "age"])
    assert list(found) == ["sex", "age"]
    assert found["sex"].tolist() == ["f", "m", "f", "m"]
    assert found["age"].dtype == Y.dtype
    assert load_attributes(path, []) == {}
    with pytest.raises(InvalidArgumentError, match=r"no 'ward': save .*\(path, x=x, y=y, ward=ward\)"):
        load_attributes(path, ["sex", "ward"])
    with pytest.raises(InvalidArgumentError, match="without being asked for"):
        load_attributes(path, ["y"])
    objects = save(tmp_path / "b.npz", x=X, y=Y, sex=np.array(["f", None], dtype=object))
    with pytest.raises(UnsafeFormatError, match="pickled"):
        load_attributes(objects, ["sex"])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=X, y=Y)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"something else", whole[:200] + b"\x00" * 20 + whole[220:]):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"a\.npz"):
            load_arrays(path)
    np.save(tmp_path / "b.npy", X)
    with pytest.raises(CorruptFileError, match=r"no \.npz"):
        load_arrays(tmp_path / "b.npy")
    with pytest.raises(FileMissingError):
        load_arrays(tmp_path / "none.npz")
    with pytest.raises(FileMissingError, match="no file"):
        load_arrays(tmp_path)
