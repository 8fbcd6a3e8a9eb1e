"""A release: the tensors to publish, the guarantee they carry, and how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from privkernels import _files
from privkernels.errors import CorruptFileError, OutputExistsError
from privkernels.privacy.events import Event, event_from_dict
from privkernels.privacy.guarantee import Guarantee, Unit
from privkernels.publishing.card import model_card

FORMAT = 1
MODEL_FILE, GUARANTEE_FILE, CARD_FILE = "model.safetensors", "guarantee.json", "README.md"


def check_release_folder(folder: Path, *, replace: bool) -> None:
    """Raise :class:`OutputExistsError` unless a release can be written there: only a release is ever replaced."""
    _files.check_output_folder(folder, replace=replace)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not {MODEL_FILE, GUARANTEE_FILE} <= names:
        raise OutputExistsError(f"{folder} holds something else than a release: choose another folder")


def events_to_json(events: Mapping[Unit, Event]) -> str:
    """Events as one line of text, the form in which a release's description carries them."""
    return json.dumps({str(unit): event.to_dict() for unit, event in events.items()}, sort_keys=True, allow_nan=False)


@dataclass(frozen=True)
class Release:
    """A model that may be published, with what is known of its privacy.

    Attributes:
        tensors: name to tensor, as a state dict.
        guarantee: claimed and proven.
        description: how it was made, JSON values: method, model, members, settings, data name. Public.
    """

    tensors: Mapping[str, torch.Tensor]
    guarantee: Guarantee
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def events(self) -> dict[Unit, Event]:
        """What the release cost each unit, to be composed with others; empty where nothing is proven of it.

        Raises :class:`CorruptFileError` if the description holds something else.
        """
        text = self.description.get("events")
        if text is None:
            return {}
        try:
            return {Unit(unit): event_from_dict(event) for unit, event in json.loads(text).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise CorruptFileError(f"the events of this release are not as privkernels writes them: {error}") from error

    def save(self, folder: str | os.PathLike[str], *, replace: bool = False) -> Path:
        """Write ``model.safetensors``, ``guarantee.json`` and ``README.md`` (a model card).

        The folder appears whole or not at all, also when the process is killed. The guarantee is in the
        model file's metadata too, so that it travels with the weights.

        Raises :class:`OutputExistsError` if the folder holds something, unless it is a release and ``replace``;
        :class:`DiskFullError` if there is no room.
        """
        folder = Path(folder)
        check_release_folder(folder, replace=replace)
        with _files.atomic_folder(folder, replace=replace) as partial:
            self.write_into(partial)
        return folder

    def write_into(self, folder: Path) -> None:
        """Write the three files into an existing folder."""
        metadata = {
            "privkernels": json.dumps(self.to_dict(), sort_keys=True, allow_nan=False),
            "format": "pt",
        }
        _files.write_safetensors(folder / MODEL_FILE, self.tensors, metadata, public=True)
        _files.write_json(folder / GUARANTEE_FILE, self.to_dict(), public=True)
        _files.write_text(folder / CARD_FILE, model_card(self.guarantee, self.description), public=True)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``guarantee.json``."""
        return {
            "format": FORMAT,
            "guarantee": self.guarantee.to_dict(),
            "description": dict(self.description),
        }

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Release:
        """Read a release folder back.

        Raises :class:`FileMissingError`, :class:`CorruptFileError` or :class:`UnsafeFormatError`; also
        :class:`CorruptFileError` when the guarantee beside the model is not the one inside it.
        """
        folder = Path(folder)
        tensors, metadata = _files.read_safetensors(folder / MODEL_FILE)
        value = _files.read_json(folder / GUARANTEE_FILE)
        try:
            inside = json.loads(metadata["privkernels"])
        except (KeyError, json.JSONDecodeError) as error:
            raise CorruptFileError(f"{folder / MODEL_FILE} carries no guarantee in its metadata") from error
        if inside != value:
            raise CorruptFileError(
                f"{folder / GUARANTEE_FILE} is not the guarantee that {MODEL_FILE} carries in its metadata: one "
                "of them was replaced; publish again"
            )
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise CorruptFileError(f"{folder / GUARANTEE_FILE} is not of format {FORMAT}")
        return cls(tensors, Guarantee.from_dict(value["guarantee"]), value.get("description", {}))
