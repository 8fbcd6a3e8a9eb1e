"""Members of an enumeration by name, with an error that lists the names."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from privkernels.errors import UnknownNameError

_Kind = TypeVar("_Kind", bound=StrEnum)


def by_name(kind: type[_Kind], name: _Kind | str) -> _Kind:
    """``kind(name)``; raises :class:`UnknownNameError` for a name that ``kind`` does not have."""
    try:
        return kind(name)
    except ValueError:
        known = ", ".join(repr(str(member)) for member in kind)
        raise UnknownNameError(f"no {kind.__name__} is called {name!r}: use one of {known}") from None
