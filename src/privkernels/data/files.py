"""Finding a data set's files under a root folder, and downloading them when asked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from privkernels._files import disk_errors
from privkernels.errors import DataUnavailableError


@dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher offers it.

    Attributes:
        name: its file name.
        md5: the checksum that the publisher (or a public mirror) states; it guards against damage.
        folders: addresses to try in turn; the file is at ``folder + name``.
    """

    name: str
    md5: str
    folders: tuple[str, ...]


def default_root() -> Path:
    """Where downloads go when no root is given: the user's cache folder for privkernels."""
    return Path(pooch.os_cache("privkernels"))


def candidate_folders(root: Path, names: Sequence[str]) -> list[Path]:
    """The folders under ``root`` that may hold a data set: the named ones first, then ``root``."""
    return [root / name for name in names] + [root]


def find_file(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first ``folder/name`` that is a file; all names are tried in a folder before the next."""
    names = list(names)
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def not_found(dataset: str, files: str, folders: Iterable[Path], address: str) -> DataUnavailableError:
    """The error for a data set that is not there: where it was looked for, and how to get it."""
    looked = ", ".join(str(folder) for folder in folders)
    return DataUnavailableError(
        f"{dataset} was not found: looked for {files} in {looked}; put the publisher's files there "
        f"(from {address}), or allow the download (download=True, or --download on the command line)"
    )


def fetch(dataset: str, files: Sequence[RemoteFile], folder: Path) -> None:
    """Download ``files`` into ``folder``, each checked against its checksum.

    A file that is already there whole is not fetched again; a broken download leaves nothing behind.

    Raises:
        DataUnavailableError: no address answered, or what came has another checksum.
        DiskFullError: no room for the file.
    """
    # pooch reports every file on its own logger; progress is the caller's to show.
    pooch.get_logger().setLevel(logging.WARNING)
    for file in files:
        _fetch_one(dataset, file, folder)


def _fetch_one(dataset: str, file: RemoteFile, folder: Path) -> None:
    reasons = []
    for address in file.folders:
        try:
            with disk_errors(folder / file.name):
                pooch.retrieve(address + file.name, known_hash=f"md5:{file.md5}", fname=file.name, path=folder)
            return
        except ValueError:
            reasons.append(f"{address} sent a file whose checksum is not {file.md5}")
        except OSError as error:
            # requests' exceptions are OSErrors: no network, no such host, an HTTP error status.
            if not type(error).__module__.startswith(("requests", "urllib3")):
                raise
            reasons.append(f"{address} gave {type(error).__name__}")
    raise DataUnavailableError(
        f"{dataset} could not be downloaded: {file.name} did not come ({'; '.join(reasons)}), "
        f"so check the network or put the file into {folder} by hand"
    )
