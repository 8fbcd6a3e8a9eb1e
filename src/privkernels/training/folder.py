"""The folder that a training run leaves: what is in it, how it is started and read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from privkernels._files import PARTIAL_MARK, open_safetensors, read_json, write_json, write_safetensors
from privkernels.data import Records
from privkernels.errors import (
    ConfigurationChangedError,
    CorruptFileError,
    FileMissingError,
    InvalidArgumentError,
    OutputExistsError,
    UnknownNameError,
    UnsafeFormatError,
)
from privkernels.models import build, load_weights
from privkernels.training.config import TrainingConfig
from privkernels.training.subsets import Subsets

FORMAT = 1
SETTINGS = "training.json"
INITIAL = "initial.safetensors"
SUBSETS = "subsets.safetensors"
# Said by the caller for later readers; another wording is no other training run.
_DESCRIPTION = "data_description"


@dataclass(frozen=True)
class TrainingRun:
    """What a training folder holds.

    Attributes:
        folder: the folder.
        members: M.
        config: how each member was trained.
        subsets: which records each member was trained on.
        model: the spec for :func:`privkernels.models.build`; of a callable that cannot be imported
            by name, a description that build does not understand.
        input_shape: shape of one record.
        n_classes: number of classes.
        records_count: n.
        records_fingerprint: :meth:`privkernels.data.Records.fingerprint` of the records.
        data_description: what the caller said about the data, or None.
        key_fingerprint: tells keys apart without revealing them.
        reproducible: whether the key came from a seed that others may guess.
        engine: ``"stacked"`` or ``"processes"``.
        initialisation: ``"common"``, or ``"own"`` where each member started from parameters of its own.
        initial_path: the parameters that every member started from, if it is common.
        member_paths: one path per member, in order, whether it is trained yet or not.
        missing: the members whose file is not there yet.
    """

    folder: Path
    members: int
    config: TrainingConfig
    subsets: Subsets
    model: str
    input_shape: tuple[int, ...]
    n_classes: int
    records_count: int
    records_fingerprint: str
    data_description: dict[str, Any] | None
    key_fingerprint: str
    reproducible: bool
    engine: str
    initialisation: str
    initial_path: Path
    member_paths: tuple[Path, ...]
    missing: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every member is trained."""
        return not self.missing

    def build_model(self) -> nn.Module:
        """The network, with the common initial parameters.

        Raises:
            UnknownNameError: the members were trained from a callable that has no importable name.
        """
        if self.model.startswith("<"):
            raise UnknownNameError(
                f"{self.folder} was trained from {self.model}, which cannot be built by name: "
                "build the network yourself and use privkernels.models.load_weights"
            )
        model = build(self.model, input_shape=self.input_shape, n_classes=self.n_classes, seed=0)
        return load_weights(model, self.initial_path)

    def load_member(self, member: int) -> nn.Module:
        """The network with the parameters of one member.

        Raises:
            FileMissingError: the member is not trained yet, or there is no such member.
        """
        if not 0 <= member < self.members or member in self.missing:
            raise FileMissingError(
                f"{self.folder} holds no member {member} ({self.members} members, "
                f"{len(self.missing)} not trained yet): run the training again to finish it"
            )
        return load_weights(self.build_model(), self.member_paths[member])

    def check_records(self, records: Records) -> None:
        """Raise :class:`ConfigurationChangedError` unless these are the records trained on."""
        if records.fingerprint() != self.records_fingerprint:
            raise ConfigurationChangedError(
                f"{self.folder} was trained on other records than {records.name!r} "
                f"({len(records)} records; {self.records_count} then): give the same data"
            )


def member_path(folder: Path, member: int) -> Path:
    """Where a member's parameters are, or will be."""
    return folder / f"member-{member:04d}.safetensors"


def missing_members(folder: Path, members: int) -> tuple[int, ...]:
    """The members that are not trained yet, or whose file was damaged since."""
    return tuple(member for member in range(members) if not _is_whole(member_path(folder, member)))


def _is_whole(path: Path) -> bool:
    try:
        with open_safetensors(path):
            return True
    except (FileMissingError, CorruptFileError, UnsafeFormatError):
        return False


def state_fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a state dict, as 64 hexadecimal digits."""
    digest = hashlib.sha256(b"privkernels state v1\x00")
    for name, tensor in state.items():
        digest.update(f"{name};{tensor.dtype};{tuple(tensor.shape)};".encode())
        # As bytes, since NumPy has no bfloat16. A scalar has no last dimension to view through.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def start_folder(
    folder: Path, settings: Mapping[str, Any], initial: Mapping[str, torch.Tensor], subsets: Subsets
) -> None:
    """Prepare ``folder`` for a run with ``settings``, or see that it was prepared for just that.

    The settings are written last: a folder that has them has the other two files as well.

    Raises:
        ConfigurationChangedError: the folder was started with other settings.
        OutputExistsError: the folder holds something else.
    """
    if (folder / SETTINGS).exists():
        _compare(folder, read_json(folder / SETTINGS), settings)
    elif folder.exists():
        _require_ours(folder)
    for stale in folder.glob(f".*{PARTIAL_MARK}*"):
        stale.unlink(missing_ok=True)
    if not (folder / SETTINGS).exists():
        subsets.save(folder / SUBSETS)
        write_safetensors(folder / INITIAL, initial)
        write_json(folder / SETTINGS, settings)


def _require_ours(folder: Path) -> None:
    """Only what a run killed at its very start leaves may be there already."""
    known = (INITIAL, SUBSETS)
    other = sorted(
        path.name
        for path in (folder.iterdir() if folder.is_dir() else [folder])
        if path.name not in known and PARTIAL_MARK not in path.name
    )
    if other:
        raise OutputExistsError(
            f"{folder} already exists and holds no training run ({other[0]}, ...): choose another folder"
        )


def _compare(folder: Path, stored: Any, settings: Mapping[str, Any]) -> None:
    old, new = {"initialisation": "common"} | _flatten(stored), _flatten(settings)
    changed = [
        f"{name} was {old.get(name)!r} and is now {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name.split(".")[0] != _DESCRIPTION
    ]
    if changed:
        raise ConfigurationChangedError(
            f"{folder} was started with other settings: {'; '.join(changed)}: "
            "give the same settings to continue, or another folder"
        )


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}, so that a difference can be named."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        name: leaf
        for key, inner in value.items()
        for name, leaf in _flatten(inner, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def settings_of(
    *,
    model: str,
    records: Records,
    config: TrainingConfig,
    subsets: Subsets,
    initial: Mapping[str, torch.Tensor],
    initialisation: str,
    engine: str,
    group_size: int,
    key_fingerprint: str,
    reproducible: bool,
    data_description: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of ``training.json``: all that the members' parameters depend on, and a description."""
    return {
        "format": FORMAT,
        "model": model,
        "initial_state": state_fingerprint(initial),
        "initialisation": initialisation,
        "members": subsets.members,
        "config": asdict(config),
        "subsets": {
            "scheme": subsets.scheme,
            "smallest": int(subsets.mask.sum(dim=1).min()),
            "largest": int(subsets.mask.sum(dim=1).max()),
            "overlap": subsets.overlap(),
            "fingerprint": subsets.fingerprint(),
        },
        "records": {
            "count": len(records),
            "shape": list(records.x.shape[1:]),
            "n_classes": records.n_classes,
            "fingerprint": records.fingerprint(),
        },
        "key": {"fingerprint": key_fingerprint, "reproducible": reproducible},
        "engine": {"name": engine, "group_size": group_size},
        _DESCRIPTION: data_description,
    }


def load_training(folder: str | Path) -> TrainingRun:
    """Read a training folder, finished or not.

    Raises:
        FileMissingError: the folder, or a file that every training folder has, is missing.
        CorruptFileError: a file is damaged, or its format is a newer one.
    """
    folder = Path(folder)
    if not (folder / SETTINGS).is_file():
        raise FileMissingError(f"{folder} holds no {SETTINGS}: give a folder that the training has written")
    stored = read_json(folder / SETTINGS)
    subsets = Subsets.load(folder / SUBSETS)
    if not (folder / INITIAL).is_file():
        raise FileMissingError(f"{folder / INITIAL} is missing: the folder is not whole")
    try:
        if stored["format"] != FORMAT:
            raise CorruptFileError(f"{folder / SETTINGS} has format {stored['format']}, this version reads {FORMAT}")
        run = _run_from(folder, stored, subsets)
        expected = (stored["subsets"]["fingerprint"], run.members, run.records_count)
    except (KeyError, TypeError, AttributeError, InvalidArgumentError) as error:
        raise CorruptFileError(f"{folder / SETTINGS} lacks a field or has a wrong one ({error!r})") from error
    if expected != (subsets.fingerprint(), subsets.members, subsets.records):
        raise CorruptFileError(f"{folder / SUBSETS} is not the one that {SETTINGS} was written with")
    return run


def _run_from(folder: Path, stored: dict[str, Any], subsets: Subsets) -> TrainingRun:
    members, records, key = stored["members"], stored["records"], stored["key"]
    return TrainingRun(
        folder=folder,
        members=members,
        config=TrainingConfig(**stored["config"]),
        subsets=subsets,
        model=stored["model"],
        input_shape=tuple(records["shape"]),
        n_classes=records["n_classes"],
        records_count=records["count"],
        records_fingerprint=records["fingerprint"],
        data_description=stored[_DESCRIPTION],
        key_fingerprint=key["fingerprint"],
        reproducible=key["reproducible"],
        engine=stored["engine"]["name"],
        # Folders written before there was a choice do not say.
        initialisation=stored.get("initialisation", "common"),
        initial_path=folder / INITIAL,
        member_paths=tuple(member_path(folder, member) for member in range(members)),
        missing=missing_members(folder, members),
    )
