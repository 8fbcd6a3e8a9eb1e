"""Shadow models: the attacker's own copies, trained on known halves of a pool of records."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privkernels.attacks.base import (
    Array,
    Attack,
    Fidelity,
    log_softmax,
    target_logits,
    true_class_margin,
)
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.models import load_weights
from privkernels.progress import Progress, silent
from privkernels.randomness import Key
from privkernels.training import Subsets, TrainingConfig, load_training, train_members
from privkernels.training.common import new_model
from privkernels.training.folder import state_fingerprint
from privkernels.training.members import Engine

# Half of them trains a shadow model, the other half shows how it treats what it has not seen.
MIN_RECORDS = 20
# Shadows that are trained as one folder. A constant, so that asking for more of them continues what is there.
GROUP = 64
# Margins of this many (records, query) pairs are kept.
_KEPT = 16

Bools = npt.NDArray[np.bool_]
# A query of a record: x [b, ...] to x [b, ...]; None asks for the record itself.
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Shadows:
    """Shadow models, and which records of the pool each was trained on.

    Shadows 2k and 2k+1 were trained on the two halves of one random permutation of the pool. Equal records are in one
    half together.

    Attributes:
        make_model: returns a new network of the shadows' architecture.
        pool: n records.
        inside: bool [S, n]; whether shadow s was trained on record i of the pool.
        paths: S files with the parameters.
        pairs: int [S]; shadows with one number are complementary.
        config: how they were trained.
        batch_size: records per forward pass.
    """

    make_model: Callable[[], nn.Module]
    pool: Records
    inside: Bools
    paths: tuple[Path, ...]
    pairs: tuple[int, ...]
    config: TrainingConfig
    batch_size: int = 1024
    _margins: dict[tuple[str, Transform | None], Array] = field(default_factory=dict, repr=False)
    _folder: object = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def model(self, shadow: int) -> nn.Module:
        """Shadow ``shadow`` as a network in evaluation mode, on the device of the pool."""
        model = load_weights(new_model(self.make_model, seed=0), self.paths[shadow])
        return model.to(self.pool.x.device).eval()

    def trained_on(self, records: Records) -> Bools:
        """Whether each shadow was trained on each record, bool [S, len(records)].

        Records are found in the pool by their content, label included; a record that is not in the pool was
        trained on by no shadow.
        """
        known: dict[bytes, list[int]] = {}
        for row, digest in enumerate(self._pool_digests):
            known.setdefault(digest, []).append(row)
        found = np.zeros((len(self), len(records)), dtype=np.bool_)
        for column, digest in enumerate(records.digests()):
            if digest in known:
                found[:, column] = self.inside[:, known[digest]].any(axis=1)
        return found

    def logits(self, records: Records) -> Iterator[Array]:
        """Each shadow's logits on ``records``, float64 [n, classes], one shadow after the other."""
        for shadow in range(len(self)):
            yield target_logits(self.model(shadow), records, self.batch_size)

    def log_probabilities(self, records: Records) -> Array:
        """Each shadow's log-probabilities on ``records``, float64 [S, n, classes]."""
        return np.stack([log_softmax(logits) for logits in self.logits(records)])

    def margins(self, records: Records, transform: Transform | None = None) -> Array:
        """The margin log p(y|x) - log(1 - p(y|x)) of each shadow on each record, float64 [S, n].

        Computed from logits in float64 (:func:`~privkernels.attacks.base.true_class_margin`), and kept for the
        next attack that asks.

        Args:
            transform: the query, such as a mirrored image; the record itself where None.
        """
        name = (records.fingerprint(), transform)
        if name not in self._margins:
            asked = transformed(records, transform)
            found = np.stack([true_class_margin(logits, records.y) for logits in self.logits(asked)])
            if len(self._margins) >= _KEPT:
                self._margins.pop(next(iter(self._margins)))
            self._margins[name] = found
        return self._margins[name]

    def select(self, shadows: Sequence[int] | Bools) -> Shadows:
        """Some of the shadows, by their numbers or by a bool mask [S]. What was computed of them is kept."""
        chosen = np.asarray(shadows)
        rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        if not len(rows):
            raise InvalidArgumentError(f"at least one of {len(self)} shadow models must be left, got none")
        return Shadows(
            self.make_model,
            self.pool,
            self.inside[rows],
            tuple(self.paths[row] for row in rows),
            tuple(self.pairs[row] for row in rows),
            self.config,
            self.batch_size,
            {name: margins[rows] for name, margins in self._margins.items()},
            self._folder,
        )

    def without_pair_of(self, shadow: int) -> Shadows:
        """All shadows but ``shadow`` and its complement, which tells of every record what ``shadow`` was trained on."""
        return self.select(np.array(self.pairs) != self.pairs[shadow])

    @functools.cached_property
    def fidelity(self) -> Fidelity:
        """How well the shadows are trained; means over shadows, each on its own records and on the others."""
        margins, correct = [], []
        for logits in self.logits(self.pool):
            margins.append(true_class_margin(logits, self.pool.y))
            correct.append(logits.argmax(axis=1) == self.pool.y.cpu().numpy())
        right, loss = np.stack(correct), np.logaddexp(0.0, -np.stack(margins))
        self._margins.setdefault((self.pool.fingerprint(), None), np.stack(margins))
        return Fidelity(
            n_models=len(self),
            n_records=round(self.inside.sum() / len(self)),
            train_accuracy=float(right[self.inside].mean()),
            test_accuracy=float(right[~self.inside].mean()),
            train_loss=float(loss[self.inside].mean()),
            test_loss=float(loss[~self.inside].mean()),
        )

    @functools.cached_property
    def _pool_digests(self) -> list[bytes]:
        return self.pool.digests()


class ShadowAttack(Attack):
    """An attack that learns from shadow models.

    Attributes:
        needs_own_pool: the shadows' pool must hold none of the records that are scored.
    """

    needs_own_pool: ClassVar[bool] = False

    @abstractmethod
    def fit(self, shadows: Shadows, *, progress: Progress = silent) -> Self:
        """Learn from shadow models; returns ``self``. One fit serves any number of targets.

        Raises:
            InvalidArgumentError: too few shadow models for this attack.
        """

    def fidelity(self) -> Fidelity | None:
        """How well the shadow models are trained; None before :meth:`fit`."""
        shadows: Shadows | None = getattr(self, "shadows_", None)
        return None if shadows is None else shadows.fidelity

    def _fitted(self, records: Records) -> Shadows:
        """The shadows of :meth:`fit`, for records with as many classes as theirs."""
        shadows: Shadows | None = getattr(self, "shadows_", None)
        if shadows is None:
            raise InvalidArgumentError(f"{self.name!r} is not fitted: call fit(shadows) first")
        if records.n_classes != shadows.pool.n_classes:
            raise InvalidArgumentError(
                f"the shadow models know {shadows.pool.n_classes} classes, and the records have {records.n_classes}"
            )
        return shadows


def transformed(records: Records, transform: Transform | None) -> Records:
    """The records as a query asks for them."""
    if transform is None:
        return records
    return Records(transform(records.x), records.y, records.n_classes, records.name)


def train_shadows(
    make_model: Callable[[], nn.Module],
    pool: Records,
    config: TrainingConfig,
    n_shadows: int,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    engine: Engine = "auto",
    workers: int | None = None,
    batch_size: int = 1024,
    progress: Progress = silent,
) -> Shadows:
    """Train ``n_shadows`` models, each on a random half of ``pool``, from initialisations of their own.

    Shadows 2k and 2k+1 get the two halves of one random permutation, so that every record is inside half of the
    shadows when their number is even. Records that repeat stay together, so that halves may differ in size by as many
    as repeat: with its copies in both halves, a record would have no shadow model that does not know it. Up to 64 are
    trained at a time as one stacked network, or one by one in processes where the architecture does not allow that
    (:func:`privkernels.training.train_members`).

    With a ``cache``, what is trained is kept there under a name made from the pool's content, the architecture, the
    configuration and the seed. The same call finds it again, a call that was interrupted continues, and one that
    asks for more shadows trains those that are missing. The cache tells which records trained what: keep it private.

    Args:
        make_model: returns a new network of the architecture that the target is believed to have. Its parameters'
            initialisation is drawn under a seed of its own for each shadow. Two factories whose networks differ in
            their code alone (same layers, same parameters) are not told apart by the cache.
        pool: the records to train on: the attacker's own, or, for an auditor, the audited records themselves.
        config: how shadows are trained; as close to the target's training as known.
        n_shadows: S >= 1; even, for equally many shadows with and without each record.
        seed: of halves, initialisations, batch order and dropout.
        cache: a folder for any number of sets of shadows; None trains into a temporary one.
        engine, workers: see :func:`privkernels.training.train_members`.
        batch_size: records per forward pass of the attacks.

    Raises:
        TooFewRecordsError: fewer than 20 records.
        InvalidArgumentError: fewer than one shadow model, or a pool of one record alone, repeated.
        NonFiniteValueError: the training of a shadow model diverged.
    """
    n = len(pool)
    if n < MIN_RECORDS:
        raise TooFewRecordsError(f"shadow models need at least {MIN_RECORDS} records to train on, got {n}")
    if n_shadows < 1:
        raise InvalidArgumentError(f"expected at least one shadow model, got n_shadows={n_shadows}")
    digests = pool.digests()
    if len(set(digests)) < 2:
        raise InvalidArgumentError(f"the {n} records of the pool are all equal: no shadow model could do without them")
    key = Key.from_seed(seed)
    inside = _halves(digests, n_shadows, key)
    owner = _TemporaryFolder() if cache is None else None
    if owner is not None:
        folder = owner.path
    else:
        folder = Path(cache or "") / f"shadows-{_content_hash(make_model, pool, config, key)}"
    settings = {"engine": engine, "workers": workers}
    paths = _train(make_model, pool, config, inside, key, folder, settings, progress)
    pairs = tuple(shadow // 2 for shadow in range(n_shadows))
    return Shadows(make_model, pool, inside, paths, pairs, config, batch_size, _folder=owner)


class _TemporaryFolder:
    """A folder that goes when the last Shadows that reads from it goes."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="privkernels-shadows-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _train(
    make_model: Callable[[], nn.Module],
    pool: Records,
    config: TrainingConfig,
    inside: Bools,
    key: Key,
    folder: Path,
    settings: Mapping[str, Any],
    progress: Progress,
) -> tuple[Path, ...]:
    """Train the groups of 16 that are missing; the files of all shadows."""
    paths: list[Path] = []
    total = config.epochs * len(inside)
    for first in range(0, len(inside), GROUP):
        rows = inside[first : first + GROUP]
        before = config.epochs * first

        def group_progress(done: int, _total: int, _what: str, before: int = before) -> None:
            progress(before + done, total, "training shadow models (epochs)")

        group = train_members(
            pool,
            make_model,
            folder / f"group-{first // GROUP:04d}-of-{len(rows)}",
            subsets=Subsets(torch.from_numpy(rows), "complementary-halves"),
            initialisation="own",
            config=config,
            key=key.derive(f"group/{first // GROUP}"),
            progress=group_progress,
            **settings,
        )
        paths += load_training(group).member_paths
    progress(total, total, "training shadow models (epochs)")
    return tuple(paths)


def _halves(digests: Sequence[bytes], n_shadows: int, key: Key) -> Bools:
    """Random halves, bool [S, n], of records with these digests; equal records are in one half together."""
    n = len(digests)
    numbers = {digest: number for number, digest in enumerate(dict.fromkeys(digests))}
    same = np.array([numbers[digest] for digest in digests])
    inside = np.zeros((n_shadows, n), dtype=np.bool_)
    for pair in range((n_shadows + 1) // 2):
        order = np.random.default_rng(key.seed_for(f"halves/{pair}")).permutation(n)
        if len(numbers) < n:
            order = _together(order, same)
        inside[2 * pair, order[: _cut(same[order])]] = True
        if 2 * pair + 1 < n_shadows:
            inside[2 * pair + 1] = ~inside[2 * pair]
    return inside


def _together(order: npt.NDArray[np.int64], same: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``order`` with equal records one after the other, where the first of them stood."""
    _, first, number = np.unique(same[order], return_index=True, return_inverse=True)
    return order[np.argsort(first[number], kind="stable")]


def _cut(same: npt.NDArray[np.int64]) -> int:
    """How many records make the first half: half of them, or as near to it as keeps equal neighbours together."""
    n = len(same)
    between = np.flatnonzero(same[1:] != same[:-1]) + 1
    return n // 2 if not len(between) else int(between[np.abs(between - n // 2).argmin()])


def _content_hash(make_model: Callable[[], nn.Module], pool: Records, config: TrainingConfig, key: Key) -> str:
    model = new_model(make_model, key.seed_for("architecture"))
    facts = {
        "halves": "equal records together",
        "pool": pool.fingerprint(),
        "architecture": str(model),
        "initial": state_fingerprint(model.state_dict()),
        "config": asdict(config),
        "key": key.derive("fingerprint").secret.hex(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
