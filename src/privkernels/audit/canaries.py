"""Canaries: records put into the training data, or not, by coin flips, so that one run bounds epsilon from below."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import torch

from privkernels import _files
from privkernels.audit.epsilon_bounds import EpsilonBound, Mask, check_one_run, one_run_bound, one_run_gaussian_bound
from privkernels.audit.intervals import CONFIDENCE, Array
from privkernels.audit.metrics import checked_scores
from privkernels.data import Records
from privkernels.errors import CorruptFileError, InvalidArgumentError, TooFewRecordsError, UnknownNameError
from privkernels.randomness import Key

FORMAT = "privkernels canaries 1"
Kind = Literal["natural", "mislabelled", "uniform-noise"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Canaries:
    """Records of which each was included in the training data by a fair coin flip. Private: it says which.

    Attributes:
        records: the canaries, pairwise different, in an order fixed before the flips.
        included: bool [n], the flips.
        kind: how they were made.

    Raises:
        InvalidArgumentError: ``included`` of another shape or dtype, or two equal canaries.
    """

    records: Records
    included: torch.Tensor
    kind: str

    def __post_init__(self) -> None:
        if self.included.dtype != torch.bool or self.included.shape != (len(self.records),):
            raise InvalidArgumentError(
                f"included is bool [{len(self.records)}], not {self.included.dtype} {list(self.included.shape)}"
            )
        if len(set(self.records.digests())) < len(self.records):
            raise InvalidArgumentError("two canaries are equal: one could be in training while the other is not")

    def __len__(self) -> int:
        return len(self.records)

    def insert(self, train: Records) -> Records:
        """``train`` and then the included canaries. Train on it in an order drawn anew, as training does.

        Raises:
            InvalidArgumentError: records of another shape or number of classes, or ``train`` already holds a canary:
                the flips would not decide whether the model saw it.
        """
        if train.x.shape[1:] != self.records.x.shape[1:] or train.n_classes != self.records.n_classes:
            raise InvalidArgumentError(
                f"canaries of shape {list(self.records.x.shape[1:])} in {self.records.n_classes} classes do not fit "
                f"{train.name!r}, {list(train.x.shape[1:])} in {train.n_classes}"
            )
        present = len(set(train.digests()) & set(self.records.digests()))
        if present:
            raise InvalidArgumentError(
                f"{train.name!r} already holds {present} of the canaries: make them from records that are not in it"
            )
        inside = self.included.to(self.records.x.device)
        x = torch.cat([train.x, self.records.x[inside].to(train.x.device)])
        y = torch.cat([train.y, self.records.y[inside].to(train.y.device)])
        return Records(x, y, train.n_classes, f"{train.name} + {int(self.included.sum())} canaries")

    def align(self, records: Records, scores: Array) -> Array:
        """``scores`` of ``records``, in whatever order, brought into the canaries' order by the records' contents.

        Args:
            records: every canary once; other records are left out.
            scores: float [len(records)].

        Raises:
            InvalidArgumentError: a canary is missing or there twice, or the lengths differ.
        """
        scores = checked_scores(scores, "canary")
        if len(scores) != len(records):
            raise InvalidArgumentError(f"expected one score per record, {len(records)}, got {len(scores)}")
        wanted = self.records.digests()
        places: dict[bytes, list[int]] = {name: [] for name in wanted}
        for place, name in enumerate(records.digests()):
            if name in places:
                places[name].append(place)
        counts = [len(found) for found in places.values()]
        if set(counts) != {1}:
            raise InvalidArgumentError(
                f"expected every canary once among the scored records; {counts.count(0)} of {len(wanted)} are missing "
                f"and {sum(count > 1 for count in counts)} are there more than once"
            )
        return scores[[places[name][0] for name in wanted]]

    def bound(
        self, scores: Array, delta: float, confidence: float = CONFIDENCE, *, seed: int = 0
    ) -> tuple[EpsilonBound, EpsilonBound]:
        """Lower bounds on the epsilon of the training: for any mechanism, and if it is Gaussian.

        Each has the confidence for itself. Choose the one that fits the mechanism before looking at them.

        Args:
            scores: float [n], in the canaries' order (see :meth:`align`), from the model trained on :meth:`insert`'s
                records, higher for likelier included.
            Others and errors: as for :func:`~privkernels.audit.epsilon_bounds.one_run_bound` and
                :func:`~privkernels.audit.epsilon_bounds.one_run_gaussian_bound`; delta must be positive.
        """
        mask: Mask = self.included.cpu().numpy()
        return (
            one_run_bound(scores, mask, delta, confidence, seed=seed),
            one_run_gaussian_bound(scores, mask, delta, confidence, seed=seed),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write canaries and flips as one safetensors file that only its owner can read."""
        tensors = {"x": self.records.x, "y": self.records.y, "included": self.included}
        metadata = {
            "format": FORMAT,
            "kind": self.kind,
            "name": self.records.name,
            "n_classes": str(self.records.n_classes),
            "fingerprint": self.records.fingerprint(),
        }
        _files.write_safetensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileMissingError, UnsafeFormatError, CorruptFileError: no file, a pickle, or not canaries, or not the
                ones that were written.
        """
        tensors, metadata = _files.read_safetensors(path)
        if metadata.get("format") != FORMAT or set(tensors) != {"x", "y", "included"}:
            raise CorruptFileError(f"{path} holds no canaries: save them with Canaries.save")
        try:
            records = Records(tensors["x"], tensors["y"], int(metadata["n_classes"]), metadata["name"])
            canaries = cls(records, tensors["included"], metadata["kind"])
        except (KeyError, ValueError) as error:
            raise CorruptFileError(f"{path} holds no whole canaries ({error}): copy it again") from error
        if records.fingerprint() != metadata.get("fingerprint"):
            raise CorruptFileError(f"the canaries of {path} are not those that were saved: copy it again")
        return canaries


def make_canaries(records: Records, n: int, kind: Kind, key: Key) -> Canaries:
    """Make ``n`` canaries from records, and flip a coin for each.

    Kinds, from the weakest to the strongest against most training procedures:

    * ``"natural"``: n of the records as they are;
    * ``"mislabelled"``: n of the records, each with a class drawn uniformly from the others;
    * ``"uniform-noise"``: values uniform between the smallest and the largest of the records, classes uniform.

    They must be new to the training: give records that are not in it. Many canaries interfere with each other and
    lower the model's accuracy, and few have a low ceiling: :func:`privkernels.audit.power.detectable_epsilon` says
    what a number of them can show.

    Args:
        records: where they come from, and the shape and classes they have.
        key: of the choice, the noise and the flips. Nobody who attacks the model may have it. The flips are bits
            of SHAKE-256 of a derived secret, so they are as independent as the key is unknown.

    Raises:
        TooFewRecordsError: fewer than ``n`` different records, or so few canaries that they could never show anything.
        InvalidArgumentError: n below 1, or mislabelling with one class.
        UnknownNameError: another kind.
    """
    if kind not in KINDS:
        raise UnknownNameError(f"unknown kind of canary {kind!r}: choose one of {', '.join(KINDS)}")
    if n < 1:
        raise InvalidArgumentError(f"expected at least one canary, got n = {n}")
    check_one_run(n, 0.0, CONFIDENCE)
    rng = np.random.default_rng(key.seed_for("canaries: choice"))
    if kind == "uniform-noise":
        made = _noise(records, n, rng)
    else:
        made = _chosen(records, n, rng)
        if kind == "mislabelled":
            made = _mislabelled(made, rng)
    named = Records(made.x, made.y, records.n_classes, f"{kind} canaries of {records.name}")
    return Canaries(named, _flips(key.derive("canaries: included"), n), kind)


def _chosen(records: Records, n: int, rng: np.random.Generator) -> Records:
    """``n`` records that differ from each other."""
    first = {name: place for place, name in reversed(list(enumerate(records.digests())))}
    different = sorted(first.values())
    if len(different) < n:
        raise TooFewRecordsError(f"{n} canaries need as many different records; {records.name!r} has {len(different)}")
    return records.subset(torch.from_numpy(rng.permutation(different)[:n]))


def _mislabelled(records: Records, rng: np.random.Generator) -> Records:
    classes = records.n_classes
    if classes < 2:
        raise InvalidArgumentError("a record of the only class cannot be mislabelled: choose another kind of canary")
    away = torch.from_numpy(rng.integers(1, classes, size=len(records))).to(records.y.device)
    return Records(records.x, (records.y + away) % classes, classes, records.name)


def _noise(records: Records, n: int, rng: np.random.Generator) -> Records:
    low, high = float(records.x.min()), float(records.x.max())
    x = rng.uniform(low, high, size=(n, *records.x.shape[1:])).astype(np.float32)
    y = rng.integers(records.n_classes, size=n)
    device = records.x.device
    return Records(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device), records.n_classes, records.name)


def _flips(key: Key, n: int) -> torch.Tensor:
    stream = hashlib.shake_256(key.secret).digest((n + 7) // 8)
    return torch.from_numpy(np.unpackbits(np.frombuffer(stream, dtype=np.uint8))[:n].astype(np.bool_))
