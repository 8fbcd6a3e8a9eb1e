"""Reading the one pickle that a publisher leaves us no way around: CIFAR-10's Python version."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from privkernels.errors import CorruptFileError, UnsafeFormatError

# NumPy's helper that pickled arrays name; taken from an array, as its module moved in NumPy 2.
_reconstruct = np.empty(0, np.uint8).__reduce__()[0]


def _encode_latin1(text: str, encoding: str) -> bytes:
    """What Python 3 pickles of protocol 2 call to make bytes; no other codec is allowed."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the codec {encoding!r} is not allowed")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}


class _ForbiddenName(Exception):
    """The pickle asks for a function or class that is not on the list."""


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that can build containers, text, numbers and NumPy arrays, and call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _ForbiddenName(f"{module}.{name}") from None


def read_numpy_pickle(content: bytes, source: str) -> Any:
    """Unpickle ``content``, which may hold containers, text, numbers and NumPy arrays only.

    Args:
        content: the pickle.
        source: the file's name, for messages.

    Raises:
        UnsafeFormatError: the pickle names any other function or class; it is not called.
        CorruptFileError: the pickle is truncated or is no pickle.
    """
    try:
        # Python 2 wrote the publisher's files: its strings come back as bytes.
        return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _ForbiddenName as error:
        raise UnsafeFormatError(
            f"{source} is a pickle that asks for {error}, which a CIFAR-10 batch never needs: "
            "do not open it, and fetch the data from its publisher"
        ) from error
    except Exception as error:
        # A damaged pickle raises nearly anything: UnpicklingError, EOFError, ValueError, KeyError, ...
        raise CorruptFileError(f"{source} is not a whole CIFAR-10 batch ({error!r}): fetch it again") from error
