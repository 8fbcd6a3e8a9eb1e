"""Nothing is half-written, no pickle is loaded, and every failure has a name."""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from privkernels import _files
from privkernels.errors import (
    CorruptFileError,
    DiskFullError,
    FileMissingError,
    OutputExistsError,
    UnsafeFormatError,
)

TENSORS = {
    "weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 3),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB: what a full disk does, as the other errno."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_safetensors_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "model.safetensors"
    _files.write_safetensors(path, TENSORS, {"note": "ä"})
    tensors, metadata = _files.read_safetensors(path)
    assert metadata == {"note": "ä"}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert names(path.parent) == ["model.safetensors"]


def test_shared_strided_and_trained_tensors_are_written(tmp_path: Path) -> None:
    base = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    tensors = {"a": base, "b": base, "t": base.t(), "slice": base[::2, 1:], "row": base[0].expand(3, 6)}
    tensors["p"] = torch.nn.Parameter(base[1].clone())
    _files.write_safetensors(tmp_path / "x.safetensors", tensors)
    read, metadata = _files.read_safetensors(tmp_path / "x.safetensors")
    assert metadata == {}
    assert all(torch.equal(read[name], tensor.detach()) for name, tensor in tensors.items())


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ä": "\n"}}
    _files.write_json(tmp_path / "x.json", value)
    assert _files.read_json(tmp_path / "x.json") == value
    assert list(json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))) == ["a", "b"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_json_refuses_what_is_no_json(tmp_path: Path, bad: float) -> None:
    (tmp_path / "x.json").write_text("1")
    with pytest.raises(ValueError, match="not JSON compliant"):
        _files.write_json(tmp_path / "x.json", {"epsilon": bad})
    assert names(tmp_path) == ["x.json"]
    assert _files.read_json(tmp_path / "x.json") == 1


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    _files.write_text(path, "old")

    def stopped() -> None:
        with _files.atomic_path(path) as partial:
            partial.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]
    _files.write_text(path, "new ä")
    assert path.read_text(encoding="utf-8") == "new ä"


def test_an_error_leaves_no_new_file(tmp_path: Path) -> None:
    def stopped() -> None:
        with _files.atomic_path(tmp_path / "x.txt") as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert names(tmp_path) == []


def test_a_full_disk_is_named_and_the_old_file_kept(tmp_path: Path, small_disk: None) -> None:
    text, tensors = tmp_path / "x.txt", tmp_path / "x.safetensors"
    _files.write_text(text, "old")
    _files.write_safetensors(tensors, {"a": torch.zeros(3)})
    with pytest.raises(DiskFullError, match=r"no room left to write .*x\.txt: free some space"):
        _files.write_text(text, "x" * 200_000)
    with pytest.raises(DiskFullError, match=r"x\.safetensors"):
        _files.write_safetensors(tensors, {"a": torch.zeros(100_000)})
    folder = tmp_path / "release"
    with pytest.raises(DiskFullError, match="release"), _files.atomic_folder(folder) as partial:
        (partial / "big").write_bytes(bytes(200_000))
    assert names(tmp_path) == ["x.safetensors", "x.txt"]
    assert text.read_text() == "old"
    assert _files.read_safetensors(tensors)[0]["a"].shape == (3,)


def test_other_operating_system_errors_keep_their_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        _files.write_text(tmp_path / "file" / "x.txt", "text")


def fill(folder: Path, text: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text(text)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "release"
    with _files.atomic_folder(path) as partial:
        assert not path.exists()
        assert partial.parent == path.parent  # the rename stays on one file system
        fill(partial, "new")
    assert (path / "sub" / "file").read_text() == "new"
    assert names(path.parent) == ["release"]


def test_a_folder_that_failed_does_not_appear(tmp_path: Path) -> None:
    def stopped() -> None:
        with _files.atomic_folder(tmp_path / "release") as partial:
            fill(partial, "half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert names(tmp_path) == []


def test_an_existing_folder_is_refused_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "release"
    path.mkdir()
    with _files.atomic_folder(path) as partial:  # empty: taken
        fill(partial, "one")
    with pytest.raises(OutputExistsError, match="not empty"), _files.atomic_folder(path):
        pytest.fail("the block must not run")
    with pytest.raises(RuntimeError, match="stop"), _files.atomic_folder(path, replace=True) as partial:
        raise RuntimeError("stop")
    assert (path / "sub" / "file").read_text() == "one"
    with _files.atomic_folder(path, replace=True) as partial:
        fill(partial, "two")
    assert (path / "sub" / "file").read_text() == "two"
    assert names(tmp_path) == ["release"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "release").write_text("mine")
    with (
        pytest.raises(OutputExistsError, match="is a file"),
        _files.atomic_folder(tmp_path / "release", replace=replace),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "release").read_text() == "mine"


@pytest.mark.parametrize("name", ["release", "a[b]c", "x*"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    program = (
        "import sys, time\nfrom privkernels._files import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as partial:\n"
        "    (partial / 'half').write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert not path.exists()
    assert len(names(tmp_path)) == 1
    assert _files.PARTIAL_MARK in names(tmp_path)[0]
    with _files.atomic_folder(path) as partial:
        fill(partial, "whole")
    assert names(tmp_path) == [name]


def test_a_folder_that_was_about_to_be_replaced_is_put_back(tmp_path: Path) -> None:
    """Killed between the two renames, the old folder stands aside: the next run must not remove it."""
    path = tmp_path / "release"
    aside = tmp_path / f".release{_files.PARTIAL_MARK}old-0123"
    aside.mkdir()
    fill(aside, "old")
    with pytest.raises(OutputExistsError, match="not empty"), _files.atomic_folder(path):
        pytest.fail("the block must not run")
    assert (path / "sub" / "file").read_text() == "old"
    assert names(tmp_path) == ["release"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path / "none" / "x.json"):
        with pytest.raises(FileMissingError, match="does not exist"):
            _files.read_json(path)
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileMissingError, match="does not exist, or is not a file"):
            _files.read_safetensors(path)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": }', b"\xff\xfe", b"[1, 2"])
def test_corrupt_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"x\.json is not valid JSON"):
        _files.read_json(tmp_path / "x.json")


def whole_file(tmp_path: Path) -> bytes:
    _files.write_safetensors(tmp_path / "whole.safetensors", TENSORS)
    return (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_truncated_safetensors_are_named(tmp_path: Path, share: float) -> None:
    content = whole_file(tmp_path)
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptFileError, match=r"cut\.safetensors is not a whole safetensors file"):
        _files.read_safetensors(path)


@pytest.mark.parametrize("content", [b"x" * 1000, b"\xff" * 64, b"\x10\x00\x00\x00\x00\x00\x00\x00{not json here}"])
def test_other_files_are_no_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"other\.safetensors"):
        _files.read_safetensors(path)


class Bomb:
    """Loading its pickle runs code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("/nonexistent/pickle was loaded",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused_without_loading_them(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    with pytest.raises(UnsafeFormatError, match=r"is a pickle or a torch\.save archive"):
        _files.read_safetensors(path)


@pytest.mark.parametrize("new_format", [False, True])
def test_torch_save_archives_are_refused(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UnsafeFormatError, match=r"safetensors\.torch\.save_file"):
        _files.read_safetensors(path)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """One process rewrites a file while this one reads it: every read is one whole version."""
    path = tmp_path / "x.json"
    _files.write_json(path, [0] * 2000)
    program = (
        "import sys\nfrom privkernels._files import write_json\n"
        "for i in range(200):\n    write_json(sys.argv[1], [i] * 2000)\n"
    )
    seen = set()
    with subprocess.Popen([sys.executable, "-c", program, str(path)]) as process:
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            value = _files.read_json(path)
            assert len(value) == 2000
            assert len(set(value)) == 1
            seen.add(value[0])
        assert process.wait(timeout=60) == 0
    assert len(seen) > 3
    assert names(tmp_path) == ["x.json"]


_WRITER = """
import sys
from privkernels._files import atomic_folder
with atomic_folder(sys.argv[1], replace=True) as partial:
    (partial / "a").write_text("first")
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_leaves_the_first_ones_work_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", _WRITER, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with _files.atomic_folder(out, replace=True) as partial:
            (partial / "a").write_text("second")
        assert (out / "a").read_text() == "second"
        first.communicate("go\n")
        assert first.returncode == 0
    assert (out / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_private_by_default(tmp_path: Path) -> None:
    _files.write_text(tmp_path / "private", "x")
    _files.write_text(tmp_path / "public", "x", public=True)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "public").stat().st_mode & 0o400
    assert (tmp_path / "public").stat().st_mode & 0o777 != 0o600
