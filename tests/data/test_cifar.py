from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from privkernels.data import load
from privkernels.errors import CorruptFileError, DataUnavailableError, UnsafeFormatError

BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
Batch = tuple[np.ndarray, np.ndarray]


def make_batch(seed: int, n: int = 4) -> Batch:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)


def as_binary(batch: Batch) -> bytes:
    """The binary version: one label byte, then 1024 red, 1024 green, 1024 blue bytes."""
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(*batch, strict=True))


def python2_string(text: bytes) -> bytes:
    """How Python 2 pickles a str: SHORT_BINSTRING or BINSTRING."""
    if len(text) < 256:
        return b"U" + bytes([len(text)]) + text
    return b"T" + struct.pack("<i", len(text)) + text


def as_python(batch: Batch) -> bytes:
    """The Python version, opcode by opcode as Python 2's cPickle wrote it (protocol 2, NumPy 1)."""
    pixels, labels = batch
    n = struct.pack("<H", len(pixels))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M" + n + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + python2_string(pixels.tobytes()) + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(python2_string(b"leptodactylus_s_%06d.png" % i) for i in range(len(labels))) + b"e"
    fields = {
        b"data": array,
        b"labels": numbers,
        b"batch_label": python2_string(b"training batch 1 of 5"),
        b"filenames": names,
    }
    return b"\x80\x02}(" + b"".join(python2_string(key) + value for key, value in fields.items()) + b"u."


FORMATS = {
    "bin": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", as_binary, ".bin"),
    "py": ("cifar-10-batches-py", "cifar-10-python.tar.gz", as_python, ""),
}


def write(root: Path, version: str, *, archive: bool, batches: list[str] = BATCHES) -> dict[str, Batch]:
    folder, archive_name, convert, suffix = FORMATS[version]
    made = {name: make_batch(seed) for seed, name in enumerate(batches)}
    files = {f"{name}{suffix}": convert(batch) for name, batch in made.items()}
    files["batches.meta.txt" if version == "bin" else "readme.html"] = b"airplane\nautomobile\n"
    if archive:
        write_archive(root / archive_name, {f"{folder}/{name}": content for name, content in files.items()})
    else:
        (root / folder).mkdir(parents=True)
        for name, content in files.items():
            (root / folder / name).write_bytes(content)
    return made


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def expect(records, batches: list[Batch]) -> None:
    pixels = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    assert torch.equal(records.x, torch.from_numpy(pixels).float() / 255)
    assert records.y.tolist() == [int(label) for _, labels in batches for label in labels]
    assert records.n_classes == 10


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("version", ["bin", "py"])
@pytest.mark.parametrize("place", [".", "cifar-10"])
def test_both_versions_are_read(tmp_path, version, archive, place) -> None:
    made = write(tmp_path / place, version, archive=archive)
    found = load("cifar-10", tmp_path)
    assert (found.name, found.train.name, found.test.name) == ("cifar-10", "cifar-10/train", "cifar-10/test")
    expect(found.train, [made[name] for name in BATCHES[:5]])
    expect(found.test, [made["test_batch"]])


@pytest.mark.parametrize("version", ["bin", "py"])
def test_the_root_may_be_the_unpacked_folder(tmp_path, version) -> None:
    made = write(tmp_path, version, archive=False)
    expect(load("cifar-10", tmp_path / FORMATS[version][0]).test, [made["test_batch"]])


@pytest.mark.parametrize("archive", [False, True])
def test_missing_training_batches_are_said(tmp_path, archive) -> None:
    made = write(tmp_path, "bin", archive=archive, batches=["data_batch_4", "data_batch_2", "test_batch"])
    found = load("cifar-10", tmp_path)
    assert found.name == "cifar-10 (training batches 2, 4 of 5)"
    assert found.train.name == "cifar-10/train (training batches 2, 4 of 5)"
    expect(found.train, [made["data_batch_2"], made["data_batch_4"]])


@pytest.mark.parametrize("batches", [["test_batch"], ["data_batch_1", "data_batch_2"]])
def test_a_training_and_the_test_batch_are_needed(tmp_path, batches) -> None:
    write(tmp_path, "bin", archive=False, batches=batches)
    with pytest.raises(DataUnavailableError, match=batches[0]):
        load("cifar-10", tmp_path)


def test_nothing_there_says_where_and_how(tmp_path) -> None:
    with pytest.raises(DataUnavailableError) as caught:
        load("cifar-10", tmp_path)
    for part in (
        str(tmp_path / "cifar-10"),
        "cifar-10-batches-bin",
        "cifar-10-python.tar.gz",
        "download=True",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 3000, -1])
@pytest.mark.parametrize("version", ["bin", "py"])
def test_a_truncated_batch_is_named(tmp_path, version, kept) -> None:
    write(tmp_path, version, archive=False)
    folder, _, _, suffix = FORMATS[version]
    path = tmp_path / folder / f"data_batch_3{suffix}"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match="data_batch_3"):
        load("cifar-10", tmp_path)


@pytest.mark.parametrize("version", ["bin", "py"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_archive_is_named(tmp_path, version, share) -> None:
    write(tmp_path, version, archive=True)
    path = tmp_path / FORMATS[version][1]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptFileError, match=path.name):
        load("cifar-10", tmp_path)


def test_an_archive_of_something_else_is_refused(tmp_path) -> None:
    write_archive(tmp_path / "cifar-10-binary.tar.gz", {"other/data_batch_1.bin": as_binary(make_batch(0))})
    with pytest.raises(CorruptFileError, match="holds no files cifar-10-batches-bin"):
        load("cifar-10", tmp_path)


def test_a_hostile_archive_writes_nothing(tmp_path) -> None:
    root = tmp_path / "root"
    made = write(root, "bin", archive=True)
    source, hostile = root / "cifar-10-binary.tar.gz", root / "hostile.tar.gz"
    with tarfile.open(source) as good, tarfile.open(hostile, "w:gz") as archive:
        for name, kind, target in (
            ("../../escaped.bin", tarfile.REGTYPE, ""),
            ("/tmp/privkernels-escaped.bin", tarfile.REGTYPE, ""),
            # A link under a batch's name must not be followed.
            ("cifar-10-batches-bin/data_batch_1.bin", tarfile.SYMTYPE, "/etc/passwd"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info, io.BytesIO())
        for member in good:
            if "data_batch_1" not in member.name:
                archive.addfile(member, good.extractfile(member))
    hostile.replace(source)
    found = load("cifar-10", root)
    assert found.name == "cifar-10 (training batches 2, 3, 4, 5 of 5)"
    expect(found.train, [made[name] for name in BATCHES[1:5]])
    assert [path.name for path in tmp_path.rglob("*")] == ["root", "cifar-10-binary.tar.gz"]
    assert not Path("/tmp/privkernels-escaped.bin").exists()


def test_labels_out_of_range_are_refused(tmp_path) -> None:
    write(tmp_path, "bin", archive=False)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(CorruptFileError, match="test_batch"):
        load("cifar-10", tmp_path)


class Payload:
    """Pickles as a call that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def python_batch(root: Path, content: bytes) -> None:
    write(root, "py", archive=False)
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused(tmp_path, protocol) -> None:
    mark = tmp_path / "ran"
    pixels, labels = make_batch(0)
    batch = {"data": pixels, "labels": labels.tolist(), "extra": Payload(mark)}
    python_batch(tmp_path, pickle.dumps(batch, protocol))
    with pytest.raises(UnsafeFormatError, match=r"data_batch_1.*io\.open|data_batch_1.*open"):
        load("cifar-10", tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
    ],
)
def test_other_names_are_refused(tmp_path, content) -> None:
    python_batch(tmp_path, content)
    with pytest.raises(UnsafeFormatError, match="data_batch_1"):
        load("cifar-10", tmp_path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_written_again_by_python_3_is_read(tmp_path, protocol) -> None:
    batch = make_batch(7)
    python_batch(tmp_path, pickle.dumps({"data": batch[0], "labels": batch[1].tolist()}, protocol))
    expect(load("cifar-10", tmp_path).train.subset(range(4)), [batch])


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {"labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8)},
        {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
        {"data": np.zeros((2, 1024), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 11]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, -1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, "cat"]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, True]},
        {"data": np.zeros((0, 3072), np.uint8), "labels": []},
        {"data": np.zeros((2, 3072), object), "labels": [0, 1]},
    ],
)
def test_batches_with_other_fields_are_refused(tmp_path, batch) -> None:
    python_batch(tmp_path, pickle.dumps(batch))
    with pytest.raises(CorruptFileError, match="data_batch_1"):
        load("cifar-10", tmp_path)
