"""Loading a data set by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from privkernels.data.cifar import load_cifar10
from privkernels.data.digits import load_digits
from privkernels.data.idx import FASHION_MNIST, MNIST, load_idx
from privkernels.data.records import DataSet
from privkernels.data.svhn import load_svhn
from privkernels.errors import DataUnavailableError, UnknownNameError

_LOADERS: dict[str, Callable[[Path | None, bool], DataSet]] = {
    "digits": load_digits,
    "mnist": partial(load_idx, MNIST),
    "fashion-mnist": partial(load_idx, FASHION_MNIST),
    "cifar-10": load_cifar10,
    "svhn": load_svhn,
}


def available() -> tuple[str, ...]:
    """The names that :func:`load` knows."""
    return tuple(_LOADERS)


def load(name: str, root: str | Path | None = None, *, download: bool = False) -> DataSet:
    """Load a data set from the files that its publisher offers.

    Args:
        name: one of :func:`available`. ``digits`` comes with scikit-learn and needs no files.
        root: the folder to look in: the files may lie in it or in a folder named after the data
            set. None means the user's cache folder, where downloads go.
        download: fetch missing files from their public addresses into ``root`` (or the cache),
            checked against the publisher's checksums. Nothing is fetched unless this is True.

    Returns:
        Training and test records, images in [0, 1].

    Raises:
        UnknownNameError: no such data set.
        DataUnavailableError: the files are not there, or could not be downloaded.
        CorruptFileError: a file is truncated or is something else; the message names it.
    """
    loader = _LOADERS.get(name)
    if loader is None:
        raise UnknownNameError(f"no data set is called {name!r}: choose one of {', '.join(available())}")
    folder = Path(root) if root is not None else None
    if folder is not None and not folder.is_dir() and not download and name != "digits":
        raise DataUnavailableError(f"the data folder {folder} does not exist: give the one that holds {name}")
    return loader(folder, download)
