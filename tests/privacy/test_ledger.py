"""The ledger: what is charged, what is refused, and what is left after a kill, a full disk or a second process."""

import hashlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time

import pytest

from privkernels.errors import (
    BudgetExceededError,
    CorruptFileError,
    DiskFullError,
    FileMissingError,
    InvalidArgumentError,
    KeyReusedError,
    LedgerLockedError,
    UnknownNameError,
)
from privkernels.privacy import BoundedRangeEvent, GaussianEvent, PureEvent, Relation, Unit, compose, gaussian_epsilon
from privkernels.privacy import ledger as ledger_module
from privkernels.privacy.guarantee import Guarantee, Proof
from privkernels.privacy.ledger import Ledger, guarantee_from, key_id
from privkernels.randomness import Key

KEY = Key(bytes(range(32)))
DRAW = {Unit.EXAMPLE: BoundedRangeEvent(eta=0.1, count=100)}


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "private" / "ledger.jsonl")


def test_operations_add_up_for_each_data_set_and_unit(ledger):
    both = {Unit.EXAMPLE: BoundedRangeEvent(eta=0.5, count=10), Unit.MEMBER: [BoundedRangeEvent(eta=0.1, count=10)]}
    ledger.charge("a", both, key=KEY, label="1")
    ledger.charge("a", {Unit.EXAMPLE: GaussianEvent(mu=1.0), Unit.MEMBER: ()}, key=KEY, label="2", note="mean")
    ledger.charge("b", {Unit.EXAMPLE: PureEvent(epsilon=3.0)}, key=KEY, label="3")
    expected = compose([BoundedRangeEvent(eta=0.5, count=10), GaussianEvent(mu=1.0)], 1e-5)
    assert ledger.total("a", "example", 1e-5).epsilon == pytest.approx(expected.epsilon)
    assert ledger.total("a", "member", 1e-5) == compose([BoundedRangeEvent(eta=0.1, count=10)], 1e-5)
    assert ledger.total("b", Unit.EXAMPLE, 1e-5).epsilon == pytest.approx(3, rel=1e-4)
    assert ledger.total("c", Unit.EXAMPLE, 1e-5).epsilon == 0
    assert [entry.label for entry in ledger.entries] == ["1", "2", "3"]
    assert ledger.entries[1].note == "mean"


def test_ten_equal_operations_cost_what_one_of_ten_draws_costs(ledger):
    for i in range(10):
        ledger.charge("a", DRAW, key=KEY, label=str(i))
    assert ledger.total("a", Unit.EXAMPLE, 1e-5) == compose([BoundedRangeEvent(eta=0.1, count=1000)], 1e-5)


def test_both_relations_are_added_as_replacements(ledger):
    half = PureEvent(epsilon=0.5, relation=Relation.ADD_OR_REMOVE_ONE)
    ledger.charge("a", {Unit.EXAMPLE: [half, PureEvent(epsilon=1.0)]}, key=KEY, label="1")
    assert ledger.total("a", Unit.EXAMPLE, 1e-5) == compose([PureEvent(epsilon=1.0), PureEvent(epsilon=1.0)], 1e-5)


def test_a_reopened_ledger_is_the_same(ledger):
    ledger.charge("a", DRAW, key=KEY, label="1")
    ledger.set_budget("a", "example", 9, 1e-5)
    again = Ledger(ledger.path, create=False)
    assert again.entries == ledger.entries
    assert again.budget("a", "example") == ledger.budget("a", "example")
    assert again.total("a", Unit.EXAMPLE, 1e-5) == ledger.total("a", Unit.EXAMPLE, 1e-5)


def test_a_key_and_label_are_used_once_whatever_the_data(ledger):
    ledger.charge("a", DRAW, key=KEY, label="1")
    for data in ("a", "b"):
        with pytest.raises(KeyReusedError, match="same noise"):
            ledger.charge(data, DRAW, key=KEY, label="1")
    ledger.charge("a", DRAW, key=Key.generate(), label="1")
    ledger.charge("a", DRAW, key=KEY, label="2")
    assert len(ledger.entries) == 3


def test_the_file_does_not_hold_the_key(ledger):
    ledger.charge("a", DRAW, key=KEY, label="1")
    text = ledger.path.read_text()
    assert key_id(KEY) in text
    assert KEY.secret.hex() not in text
    assert KEY.derive("1").secret.hex() not in text
    assert ledger.path.stat().st_mode & 0o077 == 0


def test_a_budget_is_never_exceeded(ledger):
    ledger.set_budget("a", "example", 1.0, 1e-5)
    ledger.charge("a", {Unit.EXAMPLE: PureEvent(epsilon=0.6)}, key=KEY, label="1")
    with pytest.raises(BudgetExceededError, match=r"0\.6 is spent"):
        ledger.charge("a", {Unit.EXAMPLE: PureEvent(epsilon=0.5)}, key=KEY, label="2")
    ledger.charge("b", {Unit.EXAMPLE: PureEvent(epsilon=5.0)}, key=KEY, label="3")
    ledger.charge("a", {Unit.EXAMPLE: PureEvent(epsilon=0.4)}, key=KEY, label="4")
    assert [entry.label for entry in ledger.entries] == ["1", "3", "4"], "a refused operation leaves no line"


def test_delta_counts_against_the_budget_too(ledger):
    ledger.set_budget("a", "example", 1.0, 1e-5)
    coarse = PureEvent(epsilon=0.1, total_variation=1e-4)
    with pytest.raises(BudgetExceededError, match="delta"):
        ledger.charge("a", {Unit.EXAMPLE: coarse}, key=KEY, label="1")


def test_an_operation_must_name_the_unit_of_the_budget(ledger):
    ledger.set_budget("a", "example", 1.0, 1e-5)
    with pytest.raises(BudgetExceededError, match="does not say what it costs one example"):
        ledger.charge("a", {Unit.MEMBER: PureEvent(epsilon=0.1)}, key=KEY, label="1")


def test_after_an_unbounded_operation_nothing_is_bounded(ledger):
    ledger.charge("a", None, key=KEY, label="paper", unbounded_because="the grid is private")
    ledger.charge("a", DRAW, key=KEY, label="1")
    total = ledger.total("a", Unit.EXAMPLE, 1e-5)
    assert math.isinf(total.epsilon)
    assert "the grid is private" in total.accountant
    ledger.set_budget("b", "example", 1.0, 1e-5)
    with pytest.raises(BudgetExceededError, match="grid"):
        ledger.charge("b", None, key=KEY, label="2", unbounded_because="the grid is private")


def test_a_budget_is_changed_only_on_purpose(ledger):
    ledger.set_budget("a", "example", 1.0, 1e-5)
    with pytest.raises(InvalidArgumentError, match="already"):
        ledger.set_budget("a", "example", 2.0, 1e-5)
    ledger.set_budget("a", "example", 2.0, 1e-5, change=True)
    assert ledger.budget("a", "example").epsilon == 2
    assert ledger.path.read_text().count('"kind": "budget"') == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda lines: [lines[0], lines[1].replace('"eta": 0.1', '"eta": 0.0001'), *lines[2:]],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [*lines[:2], lines[1], *lines[2:]],
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], "{}\n", *lines[2:]],
        lambda lines: [lines[0], lines[1][:20] + "\n", *lines[2:]],
    ],
    ids=["changed", "removed", "repeated", "no header", "foreign line", "damaged line"],
)
def test_a_changed_file_is_noticed(ledger, wrong):
    for i in range(3):
        ledger.charge("a", DRAW, key=KEY, label=str(i))
    lines = ledger.path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join(wrong(lines)))
    with pytest.raises(CorruptFileError, match="not a whole ledger"):
        Ledger(ledger.path)


def test_lines_removed_while_it_is_open_are_noticed(ledger):
    for i in range(3):
        ledger.charge("a", DRAW, key=KEY, label=str(i))
    ledger.path.write_text("".join(ledger.path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(CorruptFileError, match="shorter"):
        ledger.charge("a", DRAW, key=KEY, label="0")


@pytest.mark.parametrize("content", [b"the only copy of a thesis", b"first line\nsecond", b"\x00\x01"])
def test_another_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "thesis.txt"
    path.write_bytes(content)
    for create in (True, False):
        with pytest.raises(CorruptFileError, match="ledger"):
            Ledger(path, create=create)
    assert path.read_bytes() == content


def test_a_line_without_its_end_was_never_drawn_for_and_is_dropped(ledger):
    ledger.charge("a", DRAW, key=KEY, label="1")
    whole = ledger.path.read_bytes()
    ledger.charge("a", DRAW, key=KEY, label="2")
    lengths = range(len(whole), ledger.path.stat().st_size - 1)
    data = ledger.path.read_bytes()
    for length in lengths:
        ledger.path.write_bytes(data[:length])
        again = Ledger(ledger.path)
        assert [entry.label for entry in again.entries] == ["1"]
        again.charge("a", DRAW, key=KEY, label="2")
        assert len(Ledger(ledger.path).entries) == 2


def test_a_line_that_lacks_only_its_end_counts(ledger):
    """An editor may remove the last newline; the operation was made."""
    for label in ("1", "2"):
        ledger.charge("a", DRAW, key=KEY, label=label)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-1])
    again = Ledger(ledger.path, create=False)
    assert [entry.label for entry in again.entries] == ["1", "2"]
    assert again.total("a", Unit.EXAMPLE, 1e-5) == compose([BoundedRangeEvent(eta=0.1, count=200)], 1e-5)
    with pytest.raises(KeyReusedError):
        Ledger(ledger.path).charge("a", DRAW, key=KEY, label="2")
    assert len(Ledger(ledger.path).entries) == 2


def test_a_header_without_its_end_is_written_again(tmp_path):
    path = tmp_path / "ledger"
    Ledger(path)
    header = path.read_bytes()
    for length in range(len(header)):
        path.write_bytes(header[:length])
        assert Ledger(path).entries == ()
        assert path.read_bytes() == header


def test_no_room_records_nothing(ledger, monkeypatch):
    ledger.charge("a", DRAW, key=KEY, label="1")
    before = ledger.path.read_bytes()
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:10], at))
    with pytest.raises(DiskFullError, match="free some space"):
        ledger.charge("a", DRAW, key=KEY, label="2")
    monkeypatch.undo()
    assert ledger.path.read_bytes() == before
    ledger.charge("a", DRAW, key=KEY, label="2")
    assert len(Ledger(ledger.path).entries) == 2


def _charge_and_draw(path, pipe):
    ledger, key = Ledger(path), Key.generate()
    for i in range(10**6):
        ledger.charge("a", {Unit.EXAMPLE: BoundedRangeEvent(eta=0.1)}, key=key, label=str(i))
        os.write(pipe, b".")  # stands for the draw


def test_what_was_drawn_before_a_kill_is_in_the_ledger(tmp_path):
    """Killed while it charges and draws: every draw that happened was paid, at most one that did not."""
    path = tmp_path / "ledger"
    context = multiprocessing.get_context("fork")
    for attempt in range(3):
        before = len(Ledger(path).entries)
        draws, pipe = os.pipe()
        process = context.Process(target=_charge_and_draw, args=(path, pipe))
        process.start()
        os.close(pipe)
        drawn = sum(len(os.read(draws, 1)) for _ in range(20 + attempt))
        process.kill()
        process.join()
        with os.fdopen(draws, "rb") as rest:
            drawn += len(rest.read())
        assert process.exitcode == -signal.SIGKILL
        paid = len(Ledger(path).entries) - before
        assert 20 + attempt <= drawn <= paid <= drawn + 1


def _many(path, name, count):
    ledger = Ledger(path)
    for i in range(count):
        ledger.charge("a", DRAW, key=KEY, label=f"{name}-{i}")


def test_processes_and_threads_share_a_ledger(ledger):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_many, args=(ledger.path, f"p{i}", 20)) for i in range(3)]
    threads = [threading.Thread(target=_many, args=(ledger.path, f"t{i}", 20)) for i in range(2)]
    for worker in processes + threads:
        worker.start()
    for worker in processes + threads:
        worker.join()
    assert all(process.exitcode == 0 for process in processes)
    assert len({entry.label for entry in ledger.entries}) == 100
    assert len(Ledger(ledger.path).entries) == 100


def test_threads_share_one_object(ledger):
    """Readers at the same time once read the same lines twice, and then found the chain broken."""
    for i in range(300):
        ledger.charge("a", DRAW, key=KEY, label=str(i))
    for _ in range(5):
        fresh, counts = Ledger(ledger.path), []

        def read(ledger=fresh, counts=counts):
            for _ in range(5):
                counts.append(len(ledger.entries))

        fresh._state = ledger_module._State()  # nothing read yet
        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [300] * 30


def test_a_fork_while_another_thread_holds_the_ledger(ledger):
    held, done = threading.Event(), threading.Event()

    def hold():
        with ledger._locked(write=True):
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = multiprocessing.get_context("fork").Process(target=lambda: ledger.charge("a", DRAW, key=KEY, label="child"))
    child.start()
    time.sleep(0.2)
    done.set()
    thread.join()
    ledger.charge("a", DRAW, key=KEY, label="parent")
    child.join(20)
    assert child.exitcode == 0
    assert {entry.label for entry in ledger.entries} == {"child", "parent"}


def test_two_processes_cannot_both_take_the_last_of_a_budget(ledger):
    ledger.set_budget("a", "example", 1.0, 1e-5)
    refused = []

    def take(name):
        try:
            Ledger(ledger.path).charge("a", {Unit.EXAMPLE: PureEvent(epsilon=0.3)}, key=KEY, label=name)
        except BudgetExceededError:
            refused.append(name)

    threads = [threading.Thread(target=take, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert ledger.total("a", "example", 1e-5).epsilon == pytest.approx(0.9, rel=1e-3)


def test_a_ledger_that_is_held_for_too_long(ledger, monkeypatch):
    monkeypatch.setattr(ledger_module, "_LOCK_SECONDS", 0.05)
    held, done = threading.Event(), threading.Event()

    def hold():
        with Ledger(ledger.path)._locked(write=True):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    start = time.monotonic()
    with pytest.raises(LedgerLockedError, match="another process"):
        ledger.charge("a", DRAW, key=KEY, label="1")
    assert time.monotonic() - start < 5
    done.set()
    thread.join()
    ledger.charge("a", DRAW, key=KEY, label="1")


def test_a_removed_ledger(ledger):
    ledger.path.unlink()
    with pytest.raises(FileMissingError, match="removed"):
        _ = ledger.entries
    with pytest.raises(FileMissingError, match="removed"):
        ledger.charge("a", DRAW, key=KEY, label="1")
    assert not ledger.path.exists(), "an empty ledger in its place would hide what was spent"
    with pytest.raises(FileMissingError, match="no ledger to read"):
        Ledger(ledger.path, create=False)


def test_a_ledger_that_was_replaced_by_another(ledger, tmp_path):
    other = Ledger(tmp_path / "other")
    other.charge("a", DRAW, key=KEY, label="1")
    before = other.path.read_bytes()
    os.replace(other.path, ledger.path)
    with pytest.raises(CorruptFileError, match="replaced"):
        ledger.charge("a", DRAW, key=KEY, label="2")
    assert ledger.path.read_bytes() == before
    assert len(Ledger(ledger.path).entries) == 1


def test_an_operation_with_a_seeded_key_has_no_bound(ledger):
    entry = ledger.charge("a", DRAW, key=Key.from_seed(1), label="1")
    assert "seed" in entry.unbounded_because
    assert math.isinf(ledger.total("a", Unit.EXAMPLE, 1e-5).epsilon)


def guarantee(relation=Relation.REPLACE_ONE):
    return Guarantee("m", Unit.EXAMPLE, "n", None, Proof(1.0, 0.0, "x"), relation=relation)


def test_a_guarantee_needs_its_own_line_in_the_ledger(ledger, tmp_path):
    entry = ledger.charge("a", {Unit.EXAMPLE: PureEvent(epsilon=1.0)}, key=KEY, label="1")
    ledger.charge("a", {Unit.EXAMPLE: PureEvent(epsilon=1.0)}, key=KEY, label="2")
    stated = guarantee_from(ledger, entry, guarantee(), 1e-5)
    assert stated.proven.epsilon == ledger.total("a", Unit.EXAMPLE, 1e-5).epsilon > 1.9
    lines = ledger.path.read_bytes().splitlines()
    assert stated.implementation["ledger_line_sha256"] == hashlib.sha256(lines[1]).hexdigest()
    with pytest.raises(InvalidArgumentError, match="charge it first"):
        guarantee_from(Ledger(tmp_path / "other"), entry, guarantee(), 1e-5)
    with pytest.raises(InvalidArgumentError, match="replace-one"):
        guarantee_from(ledger, entry, guarantee(Relation.ADD_OR_REMOVE_ONE), 1e-5)


def test_totals_are_for_replacements_whatever_was_charged(ledger):
    removal = GaussianEvent(mu=1.0, relation=Relation.ADD_OR_REMOVE_ONE)
    ledger.charge("a", {Unit.EXAMPLE: removal}, key=KEY, label="1")
    total = ledger.total("a", Unit.EXAMPLE, 1e-5)
    assert total.epsilon == pytest.approx(gaussian_epsilon(2.0, 1e-5))


def test_operations_beyond_what_can_be_computed_have_no_bound(ledger):
    huge = {Unit.EXAMPLE: [PureEvent(epsilon=1.0, count=2**62)] * 3}
    ledger.charge("a", huge, key=KEY, label="1")
    assert math.isinf(ledger.total("a", Unit.EXAMPLE, 1e-5).epsilon)
    ledger.charge("b", {Unit.EXAMPLE: GaussianEvent(mu=1e300, count=10**10)}, key=KEY, label="2")
    assert ledger.total("b", Unit.EXAMPLE, 1e-5).epsilon > 1e10


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "budget", "data": "a", "unit": "example", "epsilon": "much", "delta": 1e-5',
        '{"kind": "budget", "data": "a", "unit": "example", "epsilon": NaN, "delta": 1e-5',
        '{"kind": "budget", "data": "a", "unit": "galaxy", "epsilon": 1, "delta": 1e-5',
        '{"kind": "charge", "data": "a"',
        '{"kind": "later"',
    ],
)
def test_lines_that_chain_but_make_no_sense(ledger, line):
    last = hashlib.sha256(ledger.path.read_bytes()[:-1]).hexdigest()
    with ledger.path.open("a") as file:
        file.write(f'{line}, "previous": "{last}"}}\n')
    with pytest.raises(CorruptFileError, match="not a whole ledger"):
        Ledger(ledger.path)


@pytest.mark.parametrize("create", [True, False])
def test_a_last_line_without_its_end_that_makes_no_sense(ledger, create):
    last = hashlib.sha256(ledger.path.read_bytes()[:-1]).hexdigest()
    before = ledger.path.read_bytes() + f'{{"kind": "charge", "data": "a", "previous": "{last}"}}'.encode()
    ledger.path.write_bytes(before)
    with pytest.raises(CorruptFileError, match="not a whole ledger"):
        Ledger(ledger.path, create=create)
    assert ledger.path.read_bytes() == before


def test_deep_nesting_is_no_ledger(ledger):
    with ledger.path.open("a") as file:
        file.write("[" * 100_000 + "\n")
    with pytest.raises(CorruptFileError, match="not a whole ledger"):
        Ledger(ledger.path)


def test_bad_arguments(ledger, tmp_path):
    with pytest.raises(InvalidArgumentError, match="folder"):
        Ledger(tmp_path)
    with pytest.raises(UnknownNameError, match="galaxy"):
        ledger.total("a", "galaxy", 1e-5)
    with pytest.raises(UnknownNameError, match="galaxy"):
        ledger.set_budget("a", "galaxy", 1, 1e-5)
    with pytest.raises(InvalidArgumentError, match="by events"):
        ledger.charge("a", {Unit.EXAMPLE: [1.0]}, key=KEY, label="1")
    with pytest.raises(InvalidArgumentError, match="as text"):
        ledger.charge(3, DRAW, key=KEY, label="1")
    with pytest.raises(InvalidArgumentError, match="events"):
        ledger.charge("a", None, key=KEY, label="1")
    with pytest.raises(InvalidArgumentError, match="events"):
        ledger.charge("a", DRAW, key=KEY, label="1", unbounded_because="x")
    for data, label in (("", "1"), ("a", "")):
        with pytest.raises(InvalidArgumentError, match="name of its data set and a label"):
            ledger.charge(data, DRAW, key=KEY, label=label)
    with pytest.raises(InvalidArgumentError, match="epsilon must be a positive"):
        ledger.set_budget("a", "example", 0, 1e-5)
    with pytest.raises(InvalidArgumentError, match="data set"):
        ledger.set_budget("", "example", 1, 1e-5)
    assert ledger.entries == ()


def test_every_line_is_json_that_names_the_line_before(ledger):
    ledger.charge("a", DRAW, key=KEY, label="1")
    values = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [value["kind"] for value in values] == ["ledger", "charge"]
    assert values[0]["previous"] == ""
    assert len(values[1]["previous"]) == 64
