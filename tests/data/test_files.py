"""Downloads, from a server of the test's own on this machine."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from privkernels.data import cifar, idx, load, svhn
from privkernels.data.files import RemoteFile, fetch, find_file
from privkernels.errors import DataUnavailableError, DiskFullError

CONTENT = b"as published" * 100


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which its files are served."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


@pytest.fixture
def dead_address(monkeypatch) -> str:
    """An address at which nobody answers."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def remote(*addresses: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile("file.bin", hashlib.md5(content).hexdigest(), addresses)


def test_a_file_is_fetched_and_not_fetched_again(server, tmp_path) -> None:
    served, address = server
    (served / "file.bin").write_bytes(CONTENT)
    fetch("made", [remote(address)], tmp_path / "to")
    assert (tmp_path / "to" / "file.bin").read_bytes() == CONTENT
    (served / "file.bin").unlink()
    fetch("made", [remote(address)], tmp_path / "to")


def test_a_damaged_file_is_fetched_again(server, tmp_path) -> None:
    served, address = server
    (served / "file.bin").write_bytes(CONTENT)
    (tmp_path / "file.bin").write_bytes(CONTENT[:5])
    fetch("made", [remote(address)], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_the_next_address_is_tried(server, dead_address, tmp_path) -> None:
    served, address = server
    (served / "file.bin").write_bytes(CONTENT)
    fetch("made", [remote(dead_address, address + "not-there/", address)], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_another_checksum_is_refused_and_leaves_nothing(server, tmp_path) -> None:
    served, address = server
    (served / "file.bin").write_bytes(b"something else")
    with pytest.raises(DataUnavailableError, match="checksum is not"):
        fetch("made", [remote(address)], tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_no_network_is_one_sentence(dead_address, tmp_path) -> None:
    with pytest.raises(DataUnavailableError) as caught:
        fetch("made", [remote(dead_address)], tmp_path)
    message = str(caught.value)
    assert "file.bin" in message
    assert dead_address in message
    assert "\n" not in message


def test_a_full_disk_is_named(server, tmp_path, monkeypatch) -> None:
    served, address = server
    (served / "file.bin").write_bytes(CONTENT)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pooch.core.shutil.move", full)
    with pytest.raises(DiskFullError, match=r"file\.bin"):
        fetch("made", [remote(address)], tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_other_operating_system_errors_are_not_hidden(tmp_path) -> None:
    (tmp_path / "to").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="to"):
        fetch("made", [remote("http://127.0.0.1:9/")], tmp_path / "to")


def test_find_file_prefers_the_first_folder(tmp_path) -> None:
    for name in ("a/second", "b/first"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert find_file([tmp_path / "a", tmp_path / "b"], ["first", "second"]) == tmp_path / "a/second"
    assert find_file([tmp_path], ["a"]) is None


ALL_FILES = [*idx.MNIST.files, *idx.FASHION_MNIST.files, *cifar._VERSIONS.values(), *svhn._FILES]


def test_every_published_file_has_a_whole_checksum_and_an_address() -> None:
    for file in ALL_FILES:
        assert len(bytes.fromhex(file.md5)) == 16
        assert file.folders
        assert all(folder.startswith("http") and folder.endswith("/") for folder in file.folders)
    assert len({file.md5 for file in ALL_FILES}) == len(ALL_FILES) == 12


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar-10", "svhn"])
def test_nothing_is_fetched_unless_asked(name, tmp_path, monkeypatch) -> None:
    fetched = []

    def no_network(dataset: str, wanted: object, folder: Path) -> None:
        fetched.append((dataset, folder))
        raise DataUnavailableError("no network in tests")

    for module in (idx, cifar, svhn):
        monkeypatch.setattr(module, "fetch", no_network)
    with pytest.raises(DataUnavailableError, match="was not found"):
        load(name, tmp_path)
    assert fetched == []
    with pytest.raises(DataUnavailableError, match="no network"):
        load(name, tmp_path, download=True)
    assert fetched == [(name, tmp_path / name)]


def test_a_download_is_loaded(server, tmp_path, monkeypatch) -> None:
    """The whole way, with the publisher's addresses and checksums replaced by the server's."""
    served, address = server
    published = []
    for file in svhn._FILES:
        savemat(
            served / file.name,
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [10]], np.uint8)},
        )
        md5 = hashlib.md5((served / file.name).read_bytes()).hexdigest()
        published.append(replace(file, md5=md5, folders=(address,)))
    monkeypatch.setattr(svhn, "_FILES", tuple(published))
    assert load("svhn", tmp_path / "new", download=True).train.y.tolist() == [1, 0]
    assert sorted(path.name for path in (tmp_path / "new" / "svhn").iterdir()) == [
        "test_32x32.mat",
        "train_32x32.mat",
    ]
