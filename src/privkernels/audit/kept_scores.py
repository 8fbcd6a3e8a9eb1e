"""Scores that an interrupted audit leaves behind, so that the next one goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from privkernels.attacks.base import Array, Attack, Fidelity, Predictor
from privkernels.audit._json import JsonFile
from privkernels.data import Records
from privkernels.errors import CorruptFileError, FileMissingError
from privkernels.training.folder import state_fingerprint


@dataclass(frozen=True)
class KeptScores(JsonFile):
    """One attack's scores of one target on some records. Private data.

    Attributes:
        scores: one per record.
        description: :meth:`Attack.describe` of the fitted attack.
    """

    FORMAT: ClassVar[str] = "privkernels scores 1"
    WORK: ClassVar[str] = "audit"

    format: str
    scores: tuple[float, ...]
    description: dict[str, Any]


class KeptAttack(Attack):
    """An attack whose scores are read from a folder where they are there, and fitted only where they are not.

    What a file is found by: the attack's class and parameters, the version of this library, what the attack learns
    from, the target's architecture and weights, and the records. Nothing is kept of attacks that are not this
    library's, whose code may change under one name, nor of targets that are functions.

    Args:
        attack: unfitted.
        fit: fits it and returns it.
        learns_from: names what it is fitted on.
        folder: where scores are kept.
    """

    def __init__(
        self, attack: Attack, fit: Callable[[Attack], Attack], learns_from: Mapping[str, Any], folder: Path
    ) -> None:
        self.attack = attack
        self.name = attack.name
        self.fit_attack = fit
        self.learns_from = learns_from
        self.folder = folder
        self._fitted: Attack | None = None
        self._description: dict[str, Any] | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The attack's own."""
        return self.attack.get_params(deep)

    def queries_per_record(self) -> int:
        """The attack's."""
        return self.attack.queries_per_record()

    def score(self, target: Predictor, records: Records) -> Array:
        """The attack's scores, from the folder or computed and kept there; see :meth:`Attack.score`."""
        path = self._path(target, records)
        if path is not None:
            with contextlib.suppress(FileMissingError, CorruptFileError):
                kept = KeptScores.load(path)
                if len(kept.scores) == len(records):
                    self._description = kept.description
                    return np.array(kept.scores)
        attack = self._fitted or self.fit_attack(self.attack)
        self._fitted = attack
        scores = attack.score(target, records)
        self._description = attack.describe()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            KeptScores(KeptScores.FORMAT, tuple(map(float, scores)), self._description).save(path)
        return scores

    def describe(self) -> dict[str, Any]:
        """The fitted attack's description, which was kept with its scores."""
        return self._description or self.attack.describe()

    def fidelity(self) -> Fidelity | None:
        """The fitted attack's."""
        found = self.describe()["fidelity"]
        return None if found is None else Fidelity(**found)

    def notes(self) -> tuple[str, ...]:
        """The fitted attack's."""
        return tuple(self.describe()["notes"])

    def _path(self, target: Predictor, records: Records) -> Path | None:
        if not isinstance(target, nn.Module) or not type(self.attack).__module__.startswith("privkernels."):
            return None
        facts = {
            "class": type(self.attack).__qualname__,
            "parameters": {name: repr(value) for name, value in self.get_params().items()},
            "version": importlib.metadata.version("privkernels"),
            "learns from": self.learns_from,
            "architecture": str(target),
            "weights": state_fingerprint(target.state_dict()),
            "records": records.fingerprint(),
        }
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{name}.json"
