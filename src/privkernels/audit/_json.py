"""Frozen dataclasses to and from plain JSON values."""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Self, Union, cast

from privkernels._files import read_json, write_json
from privkernels.errors import CorruptFileError, InvalidArgumentError


class JsonValue:
    """Mixin for frozen dataclasses whose fields are JSON values, such dataclasses, or tuples of them."""

    def to_dict(self) -> dict[str, Any]:
        """The value as nested dicts, lists, strings, numbers, booleans and None."""
        return cast("dict[str, Any]", _encode(self))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            CorruptFileError: a field is missing, unknown, or has a value of another type.
        """
        return cast("Self", _decode(value, cls, cls.__name__))


class JsonFile(JsonValue):
    """A :class:`JsonValue` with a field ``format`` that is kept in a file of its own.

    Attributes:
        FORMAT: version of the layout.
        WORK: what to run again where a file is of another one.
    """

    FORMAT: ClassVar[str]
    WORK: ClassVar[str]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the value as JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileMissingError, CorruptFileError: no file, or not one of this format.
        """
        value = read_json(path)
        found = value.get("format") if isinstance(value, dict) else None
        if found != cls.FORMAT:
            raise CorruptFileError(f"{path} should hold {cls.FORMAT!r}, found {found!r}: run the {cls.WORK} again")
        return cls.from_dict(value)


def plain(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A copy of ``value`` as JSON gives it back; raises :class:`InvalidArgumentError` otherwise."""
    try:
        return cast("dict[str, Any]", json.loads(json.dumps(dict(value), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{what} holds JSON values only, with finite numbers: {error}") from error


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any, kind: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        # Only "X | None" occurs.
        if value is None:
            return None
        return _decode(value, next(a for a in arguments if a is not type(None)), where)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(value, cast("type", kind), where)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise _wrong(where, "a list", value)
        return tuple(_decode(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value))
    if kind is dict or origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, "an object", value)
        return {str(key): item for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(where, kind.__name__, value)
    return value


def _decode_dataclass(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, "an object", value)
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if names != set(value):
        raise CorruptFileError(
            f"{where} has the fields {sorted(value)}, expected {sorted(names)}: "
            "the file was written by another version or was changed; run the audit again"
        )
    return kind(**{name: _decode(value[name], hints[name], f"{where}.{name}") for name in names})


def _wrong(where: str, expected: str, value: object) -> CorruptFileError:
    return CorruptFileError(f"{where} should be {expected}, not {value!r}: run the audit again")
