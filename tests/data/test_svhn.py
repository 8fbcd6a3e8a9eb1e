from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from privkernels.data import load
from privkernels.errors import CorruptFileError, DataUnavailableError


def write(path: Path, n: int = 11, seed: int = 0, **changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    content = {
        "X": rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8),
        # 1..9 are themselves, 10 is the digit 0.
        "y": (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None],
    }
    content.update(changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: array for name, array in content.items() if array is not None}, do_compression=True)
    return content


@pytest.mark.parametrize("folder", [".", "svhn", "SVHN"])
def test_the_publishers_files_are_read(tmp_path, folder) -> None:
    train = write(tmp_path / folder / "train_32x32.mat")
    test = write(tmp_path / folder / "test_32x32.mat", n=3, seed=1)
    found = load("svhn", tmp_path)
    assert (found.name, found.train.name, found.test.name) == ("svhn", "svhn/train", "svhn/test")
    assert found.train.y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    for records, content in ((found.train, train), (found.test, test)):
        assert records.x.shape == (content["X"].shape[3], 3, 32, 32)
        assert records.x.is_contiguous()
        for i in range(len(records)):
            image = torch.from_numpy(content["X"][:, :, :, i].copy()).permute(2, 0, 1)
            assert torch.equal(records.x[i], image.float() / 255)


def test_one_image_is_read(tmp_path) -> None:
    write(tmp_path / "train_32x32.mat")
    write(tmp_path / "test_32x32.mat", X=np.zeros((32, 32, 3, 1), np.uint8), y=np.array([[10]], np.uint8))
    assert load("svhn", tmp_path).test.y.tolist() == [0]


def test_a_missing_file_says_where_and_how(tmp_path) -> None:
    write(tmp_path / "train_32x32.mat")
    with pytest.raises(DataUnavailableError, match=r"test_32x32\.mat in .*svhn.*download=True"):
        load("svhn", tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, share) -> None:
    write(tmp_path / "train_32x32.mat")
    write(tmp_path / "test_32x32.mat")
    path = tmp_path / "test_32x32.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptFileError, match=r"test_32x32\.mat"):
        load("svhn", tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"X": None},
        {"y": None},
        {"X": np.zeros((32, 32, 3, 11), np.float32)},
        {"X": np.zeros((11, 3, 32, 32), np.uint8)},
        {"y": np.ones((10, 1), np.uint8)},
        {"y": np.ones((1, 11), np.uint8)},
        {"y": np.zeros((11, 1), np.uint8)},
        {"y": np.full((11, 1), 11, np.uint8)},
        {"y": np.full((11, 1), "one")},
    ],
)
def test_other_content_is_refused(tmp_path, changes) -> None:
    write(tmp_path / "test_32x32.mat")
    write(tmp_path / "train_32x32.mat", **changes)
    with pytest.raises(CorruptFileError, match=r"train_32x32\.mat"):
        load("svhn", tmp_path)


def test_something_else_under_the_name_is_refused(tmp_path) -> None:
    write(tmp_path / "test_32x32.mat")
    (tmp_path / "train_32x32.mat").write_bytes(b"<html>404 Not Found</html>" * 20)
    with pytest.raises(CorruptFileError, match=r"train_32x32\.mat"):
        load("svhn", tmp_path)
