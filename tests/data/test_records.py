from __future__ import annotations

import hashlib
import struct

import pytest
import torch

from privkernels.data import Records
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError


def make(n: int = 6) -> Records:
    x = torch.arange(n * 4, dtype=torch.float32).reshape(n, 1, 2, 2) / (n * 4)
    return Records(x, torch.arange(n) % 3, 3, "made/train")


def test_records_hold_what_they_were_given() -> None:
    records = make()
    assert len(records) == 6
    assert (records.n_classes, records.name) == (3, "made/train")


def test_one_record_and_unused_classes_are_allowed() -> None:
    records = Records(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), 10, "one")
    assert len(records) == 1


@pytest.mark.parametrize(
    ("x", "y", "n_classes", "error", "says"),
    [
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 2, EmptyDataError, "empty"),
        (torch.zeros(2, 0), torch.zeros(2, dtype=torch.int64), 2, EmptyDataError, "empty"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), 2, InvalidArgumentError, r"\[3, 2\]"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), 2, InvalidArgumentError, r"\[n, \.\.\.\]"),
        (torch.zeros(()), torch.zeros((), dtype=torch.int64), 2, InvalidArgumentError, r"\[n, \.\.\.\]"),
        (torch.zeros(2, 2), torch.zeros(2, 1, dtype=torch.int64), 2, InvalidArgumentError, r"\[2, 1\]"),
        (torch.zeros(2, 2).double(), torch.zeros(2, dtype=torch.int64), 2, InvalidArgumentError, "float32"),
        (torch.zeros(2, 2), torch.zeros(2, dtype=torch.int32), 2, InvalidArgumentError, "int64"),
        ([[0.0]], torch.zeros(1, dtype=torch.int64), 2, InvalidArgumentError, "list"),
        (torch.zeros(2, 2).to_sparse(), torch.zeros(2, dtype=torch.int64), 2, InvalidArgumentError, "dense"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), 2, InvalidArgumentError, r"0\.\.1"),
        (torch.zeros(2, 2), torch.tensor([0, -1]), 2, InvalidArgumentError, "-1"),
        (torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), 0, InvalidArgumentError, "positive"),
        (torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), 2.0, InvalidArgumentError, "positive"),
        (torch.tensor([[float("nan")]]), torch.tensor([0]), 2, NonFiniteValueError, "NaN"),
        (torch.tensor([[float("inf")]]), torch.tensor([0]), 2, NonFiniteValueError, "infinity"),
    ],
)
def test_bad_records_are_refused(x, y, n_classes, error, says) -> None:
    with pytest.raises(error, match=says):
        Records(x, y, n_classes, "bad")


@pytest.mark.parametrize(
    "indices", [[4, 1], torch.tensor([4, 1]), torch.tensor([4, 1], dtype=torch.int32), range(4, 0, -3)]
)
def test_subset_takes_indices_in_their_order(indices) -> None:
    records = make()
    subset = records.subset(indices)
    assert torch.equal(subset.x, torch.stack([records.x[4], records.x[1]]))
    assert subset.y.tolist() == [1, 1]
    assert subset.name == "made/train (2 of 6)"


def test_subset_takes_a_mask() -> None:
    mask = torch.tensor([True, False, False, True, False, False])
    assert torch.equal(make().subset(mask).x, make().x[[0, 3]])


def test_subset_does_not_share_memory() -> None:
    records = make()
    records.subset(range(6)).x.zero_()
    assert records.x.sum() > 0


@pytest.mark.parametrize(
    ("indices", "error"),
    [
        ([], EmptyDataError),
        (torch.zeros(6, dtype=torch.bool), EmptyDataError),
        ([6], InvalidArgumentError),
        ([-1], InvalidArgumentError),
        (torch.tensor([0.0]), InvalidArgumentError),
        (torch.tensor([[0]]), InvalidArgumentError),
        (torch.tensor([True, False]), InvalidArgumentError),
    ],
)
def test_bad_indices_are_refused(indices, error) -> None:
    with pytest.raises(error):
        make().subset(indices)


def test_fingerprint_is_of_the_content() -> None:
    records = make()
    renamed = Records(records.x.clone(), records.y.clone(), 3, "another name")
    assert renamed.fingerprint() == records.fingerprint()
    assert len(records.fingerprint()) == 64
    int(records.fingerprint(), 16)


def test_fingerprint_is_stable() -> None:
    """A known answer: folders written by one version must be known by the next."""
    records = Records(torch.tensor([[0.5, 1.0]]), torch.tensor([1]), 2, "known")
    written_out = (
        b"privkernels records v1\x002;<f4;(1, 2);" + struct.pack("<2f", 0.5, 1.0) + b";<i8;(1,);" + struct.pack("<q", 1)
    )
    assert records.fingerprint() == hashlib.sha256(written_out).hexdigest()


def test_fingerprint_sees_every_difference() -> None:
    records = make()
    x, y = records.x.clone(), records.y.clone()
    x[5, 0, 1, 1] += 2**-20
    y[0] = 2
    changed = [
        Records(x, records.y, 3, "x"),
        Records(records.x, y, 3, "y"),
        Records(records.x, records.y, 4, "classes"),
        Records(records.x.reshape(6, 4), records.y, 3, "shape"),
        records.subset([1, 0, 2, 3, 4, 5]),
    ]
    assert len({r.fingerprint() for r in [records, *changed]}) == len(changed) + 1


def test_fingerprint_does_not_depend_on_strides() -> None:
    records = make()
    x = records.x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    assert not x.is_contiguous()
    assert Records(x, records.y, 3, "strided").fingerprint() == records.fingerprint()


def test_digests_tell_records_apart_by_content_and_label() -> None:
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    first, negative, other_class, swapped = Records(x, torch.tensor([0, 0, 1, 0]), 2, "a").digests()
    assert first == negative
    assert len({first, other_class, swapped}) == 3
    assert Records(x[:1], torch.tensor([0]), 5, "b").digests() == [first]
