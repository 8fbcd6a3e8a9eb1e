from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privkernels._files import write_safetensors
from privkernels.errors import CorruptFileError, EmptyDataError, InvalidArgumentError, TooFewRecordsError
from privkernels.randomness import Key
from privkernels.training import Subsets, disjoint_shards, leave_one_out, random_fraction

KEY = Key.from_seed(0)


@given(n=st.integers(2, 60), members=st.integers(1, 60))
def test_leave_one_out(n: int, members: int) -> None:
    if members > n:
        with pytest.raises(TooFewRecordsError, match=f"{n}"):
            leave_one_out(n, members, KEY)
        return
    subsets = leave_one_out(n, members, KEY)
    assert subsets.mask.shape == (members, n)
    assert (subsets.mask.sum(dim=1) == n - 1).all()
    # Each member leaves out a record of its own.
    assert (~subsets.mask).sum(dim=0).max() == 1
    assert subsets.overlap() == (members if members < n else members - 1)


@given(n=st.integers(1, 80), members=st.integers(1, 12), fraction=st.floats(0.01, 1))
def test_random_fraction(n: int, members: int, fraction: float) -> None:
    if round(fraction * n) == 0:
        with pytest.raises(TooFewRecordsError, match="raise the fraction"):
            random_fraction(n, members, fraction, KEY)
        return
    subsets = random_fraction(n, members, fraction, KEY)
    assert (subsets.mask.sum(dim=1) == round(fraction * n)).all()
    # A member's subset does not depend on how many members there are.
    assert torch.equal(random_fraction(n, members + 3, fraction, KEY).mask[:members], subsets.mask)


@given(n=st.integers(1, 80), members=st.integers(1, 80))
def test_disjoint_shards(n: int, members: int) -> None:
    if members > n:
        with pytest.raises(TooFewRecordsError, match=f"{members} disjoint shards"):
            disjoint_shards(n, members, KEY)
        return
    subsets = disjoint_shards(n, members, KEY)
    assert (subsets.mask.sum(dim=0) == 1).all()
    assert subsets.overlap() == 1
    sizes = subsets.mask.sum(dim=1)
    assert sizes.max() - sizes.min() <= 1


def test_random_fraction_uses_every_record_as_often() -> None:
    """1,000 members with half of 50 records: counts are Binomial(1000, 1/2), standard deviation 16."""
    counts = random_fraction(50, 1000, 0.5, KEY).mask.sum(dim=0)
    assert counts.min() > 500 - 5 * 16
    assert counts.max() < 500 + 5 * 16


def test_shards_do_not_follow_the_records_order() -> None:
    first = disjoint_shards(100, 2, KEY).indices(0)
    assert not torch.equal(first, torch.arange(0, 100, 2))
    assert not torch.equal(first, torch.arange(50))


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: leave_one_out(40, 5, key),
        lambda key: random_fraction(40, 5, 0.5, key),
        lambda key: disjoint_shards(40, 5, key),
    ],
)
def test_subsets_depend_on_the_key_alone(draw) -> None:
    state = torch.get_rng_state()
    assert torch.equal(draw(KEY).mask, draw(Key.from_seed(0)).mask)
    assert not torch.equal(draw(KEY).mask, draw(Key.from_seed(1)).mask)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fraction", [0, 0.0, -0.5, 1.0001, float("nan"), "0.5"])
def test_fractions_out_of_range(fraction) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\(0, 1\]"):
        random_fraction(10, 2, fraction, KEY)


@pytest.mark.parametrize("members", [0, -1, 1.0, True])
def test_at_least_one_member(members) -> None:
    for draw in (
        lambda: leave_one_out(10, members, KEY),
        lambda: random_fraction(10, members, 0.5, KEY),
        lambda: disjoint_shards(10, members, KEY),
    ):
        with pytest.raises(InvalidArgumentError, match="members"):
            draw()


def test_no_records() -> None:
    with pytest.raises(EmptyDataError):
        disjoint_shards(0, 1, KEY)
    with pytest.raises(EmptyDataError):
        random_fraction(0, 1, 0.5, KEY)
    with pytest.raises(TooFewRecordsError):
        leave_one_out(1, 1, KEY)


def test_indices_and_overlap() -> None:
    subsets = Subsets(torch.tensor([[True, False, True, True], [False, False, True, False]]))
    assert subsets.indices(0).tolist() == [0, 2, 3]
    assert subsets.indices(1).tolist() == [2]
    assert subsets.indices(0).dtype == torch.int64
    assert (subsets.members, subsets.records, subsets.overlap(), subsets.scheme) == (2, 4, 2, "custom")
    for member in (-1, 2):
        with pytest.raises(InvalidArgumentError, match=r"0\.\.1"):
            subsets.indices(member)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (torch.ones(2, 3), InvalidArgumentError),
        (torch.ones(3, dtype=torch.bool), InvalidArgumentError),
        ([[True]], InvalidArgumentError),
        (torch.ones(0, 3, dtype=torch.bool), InvalidArgumentError),
        (torch.ones(2, 0, dtype=torch.bool), EmptyDataError),
        (torch.tensor([[True], [False]]), TooFewRecordsError),
        (torch.ones(2, 3, dtype=torch.bool, device="meta"), InvalidArgumentError),
    ],
)
def test_bad_masks_are_refused(mask, error) -> None:
    with pytest.raises(error):
        Subsets(mask)


@given(n=st.integers(1, 40), members=st.integers(1, 5), seed=st.integers(0, 100))
def test_saving_and_loading(n: int, members: int, seed: int, tmp_path_factory) -> None:
    mask = torch.rand(members, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[:, seed % n] = True
    path = tmp_path_factory.mktemp("subsets") / "subsets.safetensors"
    Subsets(mask, "made").save(path)
    loaded = Subsets.load(path)
    assert torch.equal(loaded.mask, mask)
    assert loaded.scheme == "made"
    assert loaded.fingerprint() == Subsets(mask).fingerprint()


def test_a_large_mask_is_packed(tmp_path) -> None:
    leave_one_out(8000, 10, KEY).save(tmp_path / "subsets.safetensors")
    assert (tmp_path / "subsets.safetensors").stat().st_size < 8000 * 10 / 8 + 500


def test_fingerprints_tell_masks_apart() -> None:
    ones = torch.ones(2, 9, dtype=torch.bool)
    other = ones.clone()
    other[1, 8] = False
    # The packed bytes of 9 and of 16 records with a padded tail are of one length.
    wide = torch.nn.functional.pad(ones, (0, 7))
    prints = {Subsets(mask).fingerprint() for mask in (ones, other, wide, ones[:1])}
    assert len(prints) == 4


@pytest.mark.parametrize("damage", ["name", "dtype", "count", "width"])
def test_another_file_is_refused(tmp_path, damage) -> None:
    packed, name, count = torch.full((2, 2), 255, dtype=torch.uint8), "mask", "12"
    if damage == "name":
        name = "other"
    elif damage == "dtype":
        packed = packed.float()
    elif damage == "count":
        count = "many"
    else:
        packed = packed[:, :1]
    write_safetensors(tmp_path / "subsets.safetensors", {name: packed}, {"records": count})
    with pytest.raises(CorruptFileError, match=r"subsets\.safetensors"):
        Subsets.load(tmp_path / "subsets.safetensors")
