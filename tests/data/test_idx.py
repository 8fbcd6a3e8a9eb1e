from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from privkernels.data import load
from privkernels.data.idx import read_idx
from privkernels.errors import CorruptFileError, DataUnavailableError

# The order of the publisher's files: training images, training labels, test images, test labels.
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array: np.ndarray) -> bytes:
    """The IDX format, written from its description and not from the reader."""
    return (
        struct.pack(">BBBB", 0, 0, 8, array.ndim)
        + b"".join(struct.pack(">I", size) for size in array.shape)
        + array.tobytes()
    )


def arrays(seed: int = 0, train: int = 12, test: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, train, dtype=np.uint8),
        rng.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, test, dtype=np.uint8),
    ]


def write(folder: Path, contents: list[np.ndarray], names=NAMES, *, compress: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(names, contents, strict=True):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("mnist", "."),
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "."),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_the_publishers_files_are_read(tmp_path, dataset, folder, compress) -> None:
    contents = arrays()
    write(tmp_path / folder, contents, compress=compress)
    found = load(dataset, tmp_path)
    assert found.name == dataset
    assert (found.train.name, found.test.name) == (f"{dataset}/train", f"{dataset}/test")
    for records, images, labels in ((found.train, *contents[:2]), (found.test, *contents[2:])):
        assert records.x.shape == (len(images), 1, 28, 28)
        assert torch.equal(records.x[:, 0], torch.from_numpy(images).float() / 255)
        assert records.y.tolist() == labels.tolist()
        assert records.n_classes == 10


def test_the_spelling_with_a_dot_is_read(tmp_path) -> None:
    write(tmp_path, arrays(), [name.replace("-idx", ".idx") for name in NAMES], compress=False)
    assert len(load("mnist", str(tmp_path)).train) == 12


def test_a_gzip_file_without_the_suffix_is_read(tmp_path) -> None:
    write(tmp_path, arrays())
    for name in NAMES:
        (tmp_path / f"{name}.gz").rename(tmp_path / name)
    assert len(load("mnist", tmp_path).test) == 5


def test_files_are_not_mixed_from_two_folders(tmp_path) -> None:
    write(tmp_path / "mnist", arrays(seed=1))
    write(tmp_path, arrays(seed=2))
    (tmp_path / "mnist" / f"{NAMES[1]}.gz").unlink()
    found = load("mnist", tmp_path)
    assert found.train.y.tolist() == arrays(seed=2)[1].tolist()
    assert found.test.y.tolist() == arrays(seed=2)[3].tolist()


def test_missing_files_say_where_and_how(tmp_path) -> None:
    write(tmp_path / "mnist", arrays())
    (tmp_path / "mnist" / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(DataUnavailableError) as caught:
        load("mnist", tmp_path)
    message = str(caught.value)
    for part in (str(tmp_path / "mnist"), str(tmp_path / "MNIST/raw"), NAMES[3], "download=True", "https://"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("asked", "labels", "held"),
    [
        ("fashion-mnist", [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "mnist"),
        ("mnist", [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], "fashion-mnist"),
    ],
)
def test_the_other_data_set_under_the_same_names_is_noticed(tmp_path, asked, labels, held) -> None:
    contents = arrays()
    contents[1][:10] = labels
    write(tmp_path, contents)
    with pytest.raises(DataUnavailableError, match=f"belongs to {held}"):
        load(asked, tmp_path)
    assert load(held, tmp_path).name == held


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("kept", [0, 3, 10, -1])
def test_a_truncated_file_is_named(tmp_path, compress, which, kept) -> None:
    write(tmp_path, arrays(), compress=compress)
    path = tmp_path / (NAMES[which] + (".gz" if compress else ""))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match=path.name):
        load("mnist", tmp_path)


def test_a_flipped_bit_in_a_gzip_file_is_noticed(tmp_path) -> None:
    write(tmp_path, arrays())
    path = tmp_path / f"{NAMES[0]}.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=path.name):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        idx(np.zeros((2, 28, 28), np.uint8)) + b"\x00",
        b"\x00\x00\x0d\x03" + idx(np.zeros((2, 28, 28), np.uint8))[4:],
        idx(np.zeros(2, np.uint8)),
        b"<html>404 Not Found</html>",
        b"",
        struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    ],
    ids=["too long", "floats", "one dimension", "html", "empty", "absurd sizes"],
)
def test_other_content_is_refused(tmp_path, content) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="images"):
        read_idx(path, 3)


def test_files_that_do_not_belong_together_are_refused(tmp_path) -> None:
    contents = arrays()
    contents[1] = contents[1][:-1]
    write(tmp_path, contents)
    with pytest.raises(CorruptFileError, match=r"12 images and .* 11 labels"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("which", "array", "says"),
    [
        (1, np.full(12, 10, np.uint8), "label 10"),
        (0, np.zeros((12, 32, 32), np.uint8), r"\(32, 32\)"),
    ],
)
def test_labels_and_shapes_of_something_else_are_refused(tmp_path, which, array, says) -> None:
    contents = arrays()
    contents[which] = array
    write(tmp_path, contents)
    with pytest.raises(CorruptFileError, match=says):
        load("mnist", tmp_path)
