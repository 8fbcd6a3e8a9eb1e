"""Records from a NumPy archive: a user's own data, without pickles."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from privkernels.data.records import Records
from privkernels.errors import CorruptFileError, FileMissingError, InvalidArgumentError, UnsafeFormatError


def load_arrays(path: str | os.PathLike[str], *, n_classes: int | None = None) -> Records:
    """Read records from a ``.npz`` file (``numpy.savez(path, x=x, y=y)``).

    The file holds ``x``, floating-point [n, ...], as the model takes it (scaled and normalised; float32 afterwards),
    and ``y``, integers [n], the classes from 0.

    Args:
        path: the file; arrays of Python objects, which are pickles, are not read.
        n_classes: number of classes; one more than the largest label where None.

    Raises:
        FileMissingError: there is no such file.
        CorruptFileError: the file is damaged or no ``.npz`` file.
        UnsafeFormatError: an array holds pickled objects.
        InvalidArgumentError: ``x`` or ``y`` is missing, or of another type or shape (see :class:`Records`).
        EmptyDataError, NonFiniteValueError: see :class:`Records`.
    """
    x, y = (_array(Path(path), name) for name in ("x", "y"))
    if not np.issubdtype(x.dtype, np.floating):
        raise InvalidArgumentError(
            f"x in {path} is {x.dtype}: save it as the model takes it, as floating-point numbers (for pictures, "
            "scaled and with channels first)"
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise InvalidArgumentError(f"y in {path} holds the classes as integers from 0, not {y.dtype}")
    classes = n_classes if n_classes is not None else int(y.max(initial=0)) + 1
    return Records(
        torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)),
        torch.from_numpy(np.ascontiguousarray(y, dtype=np.int64)),
        classes,
        Path(path).name,
    )


def load_attributes(path: str | os.PathLike[str], names: Sequence[str]) -> dict[str, npt.NDArray[np.generic]]:
    """Read what a ``.npz`` file of records says of each besides ``x`` and ``y``, such as a person's sex.

    ``numpy.savez(path, x=x, y=y, sex=sex)`` saves it so. The arrays are returned as they are: their length and type
    are judged by what uses them.

    Args:
        path: the file, as for :func:`load_arrays`.
        names: of the arrays.

    Raises:
        InvalidArgumentError: there is no such array, or it is ``x`` or ``y``.
        FileMissingError, CorruptFileError, UnsafeFormatError: as for :func:`load_arrays`.
    """
    if {"x", "y"} & set(names):
        raise InvalidArgumentError(
            "x and y are no attributes: they hold the records and their classes, which are subgroups without being "
            "asked for"
        )
    return {name: _array(Path(path), name) for name in names}


def _array(path: Path, name: str) -> npt.NDArray[np.generic]:
    if not path.is_file():
        raise FileMissingError(f"there is no file {path}: give a .npz file with x and y")
    damaged = f"{path} is damaged or no .npz file: save x and y again with numpy.savez"
    if not zipfile.is_zipfile(path):
        raise CorruptFileError(damaged)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if name not in archive.files:
                further = "" if name in ("x", "y") else f", {name}={name}"
                raise InvalidArgumentError(
                    f"{path} holds {sorted(archive.files)} and no {name!r}: save it with "
                    f"numpy.savez(path, x=x, y=y{further})"
                )
            array: npt.NDArray[np.generic] = archive[name]
            return array
    except InvalidArgumentError:
        raise
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if "Object arrays" in str(error):
            raise UnsafeFormatError(
                f"{path} holds pickled objects, which are not read because loading them can run code: save plain "
                "arrays with numpy.savez"
            ) from None
        raise CorruptFileError(f"{damaged} ({error})") from error
