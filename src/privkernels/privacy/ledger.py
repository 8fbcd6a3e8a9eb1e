"""The ledger: a file of everything that was drawn from private data, and of what all of it cost together.

One line of JSON for each private operation, written and synchronised to disk *before* the operation draws. So a
process that is killed at any moment has at worst paid for a draw that it never made; it never drew what it did not pay
for. Lines are only appended, each carries the SHA-256 of the one before it, and every change is made under an
exclusive lock on the file, so several processes can share it.

Totals and budgets are for replace-one neighbours: what was stated for add-or-remove is converted first.

What it does not see: operations that were made without it, data sets that hold the same records under another name, and
an owner who cuts off or rewrites its end, or puts an older copy in its place. The guarantee of a release therefore
carries the SHA-256 of its own line, which pins every line before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from privkernels import _files
from privkernels.errors import (
    BudgetExceededError,
    CorruptFileError,
    FileMissingError,
    InvalidArgumentError,
    KeyReusedError,
    LedgerLockedError,
    PrivkernelsError,
)
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta, check_epsilon, compose
from privkernels.privacy.events import Event, Relation, event_from_dict
from privkernels.privacy.guarantee import Guarantee, Proof, Unit, round_up
from privkernels.randomness import Key

FORMAT = 1
_HEADER = {"kind": "ledger", "format": FORMAT}
_LOCK_SECONDS = 60.0
_KEY_ID = b"privkernels ledger key id v1"
_SEEDED = "the noise came from a seed, so it can be drawn again and subtracted"
Events = Mapping[Unit, Event | Iterable[Event]]


def key_id(key: Key) -> str:
    """A name for a key that does not reveal it: the first 128 bits of an HMAC-SHA256 under the key."""
    return hmac.digest(key.secret, _KEY_ID, "sha256")[:16].hex()


@dataclass(frozen=True)
class Entry:
    """One private operation.

    Attributes:
        data: name of the data set that it looked at.
        key_id, label: which random bits it used; a pair is never used twice.
        events: what it cost each unit; empty if nothing can be said.
        unbounded_because: why nothing can be said, or None.
        note: for people.
        when: UTC, ISO 8601.
        sha256: of its line in the file, which holds that of the line before.
    """

    data: str
    key_id: str
    label: str
    events: Mapping[Unit, tuple[Event, ...]]
    unbounded_because: str | None
    note: str
    when: str
    sha256: str = field(default="", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        events = {str(unit): [event.to_dict() for event in some] for unit, some in self.events.items()}
        return {
            "kind": "charge", "data": self.data, "key_id": self.key_id, "label": self.label, "events": events,
            "unbounded_because": self.unbounded_because, "note": self.note, "when": self.when,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Entry:
        """Inverse of :meth:`to_dict`."""
        events = {Unit(unit): tuple(map(event_from_dict, some)) for unit, some in value["events"].items()}
        data, key, label, note, when = (str(value[name]) for name in ("data", "key_id", "label", "note", "when"))
        reason = value["unbounded_because"]
        return cls(data, key, label, events, None if reason is None else str(reason), note, when)


@dataclass(frozen=True)
class Budget:
    """What all operations on a data set together may cost one unit, for replace-one neighbours."""

    epsilon: float
    delta: float


@dataclass
class _State:
    """What the lines read so far say."""

    file: tuple[int, int] | None = None  # device and inode
    offset: int = 0
    last_hash: str = ""
    entries: list[Entry] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)
    budgets: dict[tuple[str, Unit], Budget] = field(default_factory=dict)


class Ledger:
    """A ledger file, created if it is not there. May be shared by threads and used after a fork.

    Args:
        path: the file. It is private: it names data sets and when they were used.
        create: make a new file if there is none; otherwise :class:`FileMissingError`.

    Raises:
        CorruptFileError: the file is no ledger, or a line before the last was changed or removed.
        LedgerLockedError: another process held the lock for a minute.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self.path = Path(path)
        self._state = _State()
        self._pending: Entry | None = None
        self._mutex, self._process = threading.RLock(), os.getpid()
        if self.path.is_dir():
            raise InvalidArgumentError(f"{self.path} is a folder: give the name of a file for the ledger")
        if not self.path.exists():
            if not create:
                raise FileMissingError(f"{self.path} does not exist: there is no ledger to read")
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(write=create):
            pass

    def charge(
        self, data: str, events: Events | None, *, key: Key, label: str, unbounded_because: str | None = None,
        note: str = "",
    ) -> Entry:  # fmt: skip
        """Record an operation before it draws; returns when the line is on disk.

        With a key from a seed the operation is recorded as one that has no bound.

        Args:
            data: name of the data set.
            events: what it costs each unit that it costs anything, or None with ``unbounded_because``.
            key, label: of the random bits.

        Raises:
            KeyReusedError: an operation with this key and label is in the ledger: with the same noise on other data,
                the difference of the two results would be exact.
            BudgetExceededError: the data set has a budget that this would exceed, or whose unit it does not name.
            DiskFullError: no room; nothing was recorded.
        """
        if (events is None) == (unbounded_because is None):
            raise InvalidArgumentError("give the events of the operation, or the reason why nothing can be said")
        _check_names(data, label)
        costs = {by_name(Unit, unit): _tuple(some) for unit, some in (events or {}).items()}
        if key.reproducible and unbounded_because is None:
            costs, unbounded_because = {}, _SEEDED
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(data, key_id(key), label, costs, unbounded_because, note, now)
        with self._locked(write=True) as file:
            if (entry.key_id, label) in self._state.used:
                raise KeyReusedError(
                    f"label {label!r} was used with this key before ({self.path}): two results with the same noise "
                    "reveal their difference; use a new key or another label"
                )
            self._check_budgets(entry)
            self._append(file, entry.to_dict())
            return self._state.entries[-1]

    def set_budget(self, data: str, unit: Unit | str, epsilon: float, delta: float, *, change: bool = False) -> None:
        """Let everything on ``data`` cost at most (epsilon, delta) for one ``unit``.

        A budget that is there is only changed with ``change=True``; the file keeps the old one. A budget below what
        is spent refuses all further operations.
        """
        unit, epsilon, delta = by_name(Unit, unit), check_epsilon(epsilon), check_delta(delta)
        _check_names(data, "a budget")
        with self._locked(write=True) as file:
            if (data, unit) in self._state.budgets and not change:
                old = self._state.budgets[data, unit]
                raise InvalidArgumentError(
                    f"{data!r} has a budget of epsilon {old.epsilon:g}, delta {old.delta:g} per {unit} already: give "
                    "change=True (--change) to replace it"
                )
            line = {"kind": "budget", "data": data, "unit": str(unit), "epsilon": epsilon, "delta": delta}
            self._append(file, line)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All operations, oldest first."""
        with self._locked(write=False):
            return (*self._state.entries, *([self._pending] if self._pending else ()))

    def budget(self, data: str, unit: Unit | str) -> Budget | None:
        """The budget of a data set for a unit, or None."""
        with self._locked(write=False):
            return self._state.budgets.get((data, by_name(Unit, unit)))

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of all data sets that were drawn from or have a budget."""
        entries = self.entries
        return tuple(dict.fromkeys([entry.data for entry in entries] + [data for data, _ in self._state.budgets]))

    def total(self, data: str, unit: Unit | str, delta: float) -> Bound:
        """(epsilon, delta) of everything in the ledger for one ``unit`` of ``data``, for replace-one neighbours.

        Infinite epsilon where an operation has no bound for this unit; the accountant then says which.
        """
        check_delta(delta)
        return _total([entry for entry in self.entries if entry.data == data], by_name(Unit, unit), delta)

    def _check_budgets(self, entry: Entry) -> None:
        entries = [old for old in self._state.entries if old.data == entry.data]
        for (data, unit), budget in self._state.budgets.items():
            if data != entry.data:
                continue
            after = _total([*entries, entry], unit, budget.delta)
            if after.epsilon > budget.epsilon or after.delta > budget.delta:
                before = _total(entries, unit, budget.delta)
                raise BudgetExceededError(
                    f"{data!r} has a budget of epsilon {budget.epsilon:g}, delta {budget.delta:g} per {unit}; "
                    f"{round_up(before.epsilon):.4g} is spent and with this operation it would be "
                    f"{round_up(after.epsilon):.4g} (delta {round_up(after.delta, 3):.3g}; {after.accountant}): ask "
                    "for less, or stop"
                )

    @contextlib.contextmanager
    def _locked(self, *, write: bool) -> Iterator[int]:
        """The file, locked, with all its lines read. A new descriptor each time: locks are per descriptor."""
        if self._process != os.getpid():  # after a fork; another thread of the parent may have held the mutex
            self._mutex, self._process = threading.RLock(), os.getpid()
        with self._mutex:
            file = self._open(write)
            try:
                self._lock(file, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
                self._read(file, write)
                yield file
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
                os.close(file)

    def _open(self, write: bool) -> int:
        new = self._state.file is None
        flags = (os.O_RDWR | (os.O_CREAT if new else 0)) if write else os.O_RDONLY
        try:
            file = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise FileMissingError(f"{self.path} does not exist any more: the ledger was removed") from error
        facts = os.fstat(file)
        if not new and self._state.file != (facts.st_dev, facts.st_ino):
            os.close(file)
            raise CorruptFileError(f"{self.path} was replaced by another file while it was in use: open it anew")
        self._state.file = (facts.st_dev, facts.st_ino)
        return file

    def _lock(self, file: int, how: int) -> None:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise LedgerLockedError(
                        f"another process has held {self.path} for {_LOCK_SECONDS:.0f} seconds: wait for it or end it"
                    ) from None
                time.sleep(0.01)

    def _read(self, file: int, write: bool) -> None:
        """Read the lines that were added since the last time, check the chain, and mend the end."""
        size = os.fstat(file).st_size
        if size < self._state.offset:
            raise CorruptFileError(f"{self.path} has become shorter: lines of the ledger were removed")
        *lines, rest = _read_all(file, self._state.offset, size).split(b"\n")
        if not lines and self._state.offset == 0 and not _line(_HEADER, "").startswith(rest):
            raise CorruptFileError(f"{self.path} is no ledger: give another file")
        for line in lines:
            self._take(line)
        self._pending = None
        if write:
            self._mend(file, rest)
        elif (value := self._whole(rest)) is not None:
            with self._sound():
                self._pending = Entry.from_dict(value) if value["kind"] == "charge" else None

    def _mend(self, file: int, rest: bytes) -> None:
        """Start a new file. End a last line that lacks only its end; remove one of which more is missing.

        The writer of the latter was killed, and so had not drawn.
        """
        if self._whole(rest) is not None:
            self._take(rest)
            with _files.disk_errors(self.path):
                os.pwrite(file, b"\n", self._state.offset - 1)
                os.fsync(file)
        elif rest:
            os.ftruncate(file, self._state.offset)
            os.fsync(file)
        if self._state.offset == 0:
            self._append(file, _HEADER)
            _files.sync(self.path.parent)

    def _whole(self, rest: bytes) -> Mapping[str, Any] | None:
        """The value of a line that lacks only its end, or None."""
        try:
            value = json.loads(rest)
            return value if value["previous"] == self._state.last_hash else None
        except (KeyError, TypeError, ValueError, RecursionError):
            return None

    def _take(self, line: bytes) -> None:
        """Check one line against the chain and apply it."""
        digest = hashlib.sha256(line).hexdigest()
        with self._sound():
            value = json.loads(line)
            if value["previous"] != self._state.last_hash:
                raise ValueError("it does not follow the line before it")
            self._apply(value, digest)
        self._state.last_hash = digest
        self._state.offset += len(line) + 1

    @contextlib.contextmanager
    def _sound(self) -> Iterator[None]:
        """Turn what a line that makes no sense raises into :class:`CorruptFileError`."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise CorruptFileError(
                f"{self.path} is not a whole ledger, at byte {self._state.offset} ({error}): it was changed after it "
                "was written, or is another file"
            ) from error

    def _apply(self, value: Mapping[str, Any], digest: str) -> None:
        state = self._state
        if state.offset == 0:
            if value["kind"] != "ledger" or value["format"] != FORMAT:
                raise ValueError(f"it does not start as a ledger of format {FORMAT}")
        elif value["kind"] == "charge":
            entry = replace(Entry.from_dict(value), sha256=digest)
            state.entries.append(entry)
            state.used.add((entry.key_id, entry.label))
        elif value["kind"] == "budget":
            budget = Budget(check_epsilon(value["epsilon"]), check_delta(value["delta"]))
            state.budgets[str(value["data"]), Unit(value["unit"])] = budget
        else:
            raise ValueError(f"a line of kind {value['kind']!r} is not known")

    def _append(self, file: int, value: Mapping[str, Any]) -> None:
        line = _line(value, self._state.last_hash)
        size = os.fstat(file).st_size
        with _files.disk_errors(self.path):
            try:
                if os.pwrite(file, line, size) != len(line):
                    raise OSError(28, "No space left on device")
                os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise
        self._take(line[:-1])


@dataclass(frozen=True)
class Account:
    """Where a mechanism charges what it draws: a ledger, the data set, and whose data the event is about."""

    ledger: Ledger
    data: str
    unit: Unit

    def charge(self, event: Event, *, key: Key, label: str, note: str = "") -> None:
        """Record ``event``; errors as :meth:`Ledger.charge`."""
        self.ledger.charge(self.data, {self.unit: event}, key=key, label=label, note=note)


def guarantee_from(ledger: Ledger, entry: Entry, guarantee: Guarantee, delta: float) -> Guarantee:
    """The guarantee of a release that was charged as ``entry``: for all that was drawn from its data set so far.

    An attacker may hold every earlier release too, so the proof is that of all of them together; what this release
    would be worth alone goes into the implementation terms. A release of which nothing is proven stays so.

    Raises:
        InvalidArgumentError: the entry is not in the ledger, or the guarantee is for add-or-remove neighbours, for
            which the ledger keeps no totals.
    """
    entries = [other for other in ledger.entries if other.data == entry.data]
    if entry not in entries:
        raise InvalidArgumentError(f"{ledger.path} does not hold the operation {entry.label!r}: charge it first")
    if guarantee.relation is not Relation.REPLACE_ONE:
        raise InvalidArgumentError("the ledger's totals are for replace-one neighbours: state the guarantee for them")
    facts: dict[str, float | int | str | None] = {
        **guarantee.implementation, "ledger_operations": len(entries), "ledger_line_sha256": entry.sha256,
    }  # fmt: skip
    if guarantee.proven is None:
        return replace(guarantee, implementation=facts)
    total = _total(entries, guarantee.unit, delta)
    alone = guarantee.proven
    facts |= {"epsilon_of_this_release_alone": alone.epsilon, "delta_of_this_release_alone": alone.delta}
    if not math.isfinite(total.epsilon) or total.delta >= 1:
        reason = f"The ledger's operations on this data set have no bound together: {total.accountant}."
        return replace(guarantee, proven=None, not_proven_because=reason, implementation=facts)
    accountant = f"{total.accountant}; ledger of {len(entries)} operation{'s' * (len(entries) > 1)} on this data set"
    return replace(guarantee, proven=Proof(total.epsilon, total.delta, accountant), implementation=facts)


def _line(value: Mapping[str, Any], previous: str) -> bytes:
    return json.dumps({**value, "previous": previous}, sort_keys=True, allow_nan=False).encode() + b"\n"


def _read_all(file: int, begin: int, end: int) -> bytes:
    """Bytes [begin, end) of the file; one read returns 2 GiB at most."""
    parts = []
    while begin < end and (part := os.pread(file, end - begin, begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def _check_names(data: str, label: str) -> None:
    if not (isinstance(data, str) and data and isinstance(label, str) and label):
        raise InvalidArgumentError("an operation or budget needs the name of its data set and a label, as text")


def _tuple(events: Event | Iterable[Event]) -> tuple[Event, ...]:
    several = (events,) if isinstance(events, Event) else tuple(events)
    for event in several:
        if not isinstance(event, Event):
            raise InvalidArgumentError(f"what an operation costs is said by events, not by {event!r}")
    return several


def _total(entries: Iterable[Entry], unit: Unit, delta: float) -> Bound:
    events: dict[Event, int] = {}
    for entry in entries:
        if entry.unbounded_because is not None:
            return Bound(math.inf, 1.0, f"{entry.label!r} has no bound: {entry.unbounded_because}")
        if unit not in entry.events:
            return Bound(math.inf, 1.0, f"{entry.label!r} does not say what it costs one {unit}")
        for event in entry.events[unit]:
            one = replace(event.replaced(), count=1)
            events[one] = events.get(one, 0) + event.count
    if not events:
        return Bound(0.0, 0.0, "nothing was drawn")
    try:
        return compose([one.times(count) for one, count in events.items()], delta)
    except (PrivkernelsError, OverflowError) as error:
        return Bound(math.inf, 1.0, f"these operations are beyond what can be computed ({error})")
