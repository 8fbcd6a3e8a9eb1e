"""Canaries: made, flipped, inserted, saved, joined to scores by content, and judged."""

import dataclasses
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from privkernels._files import read_safetensors
from privkernels.audit.canaries import KINDS, Canaries, make_canaries
from privkernels.data import Records
from privkernels.errors import CorruptFileError, InvalidArgumentError, TooFewRecordsError, UnknownNameError
from privkernels.randomness import Key


def records(n, seed=0, classes=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 3, 3, generator=generator)
    return Records(x, torch.randint(classes, (n,), generator=generator), classes, f"records {seed}")


KEY = Key.from_seed(1)


@pytest.mark.parametrize("kind", KINDS)
def test_canaries_are_what_their_kind_says(kind):
    source = records(300)
    canaries = make_canaries(source, 100, kind, KEY)
    known = {x.tobytes(): int(y) for x, y in zip(source.x.numpy(), source.y, strict=True)}
    labels = [known.get(x.tobytes()) for x in canaries.records.x.numpy()]
    assert len(canaries) == 100
    if kind == "natural":
        assert labels == canaries.records.y.tolist()
    elif kind == "mislabelled":
        assert all(label is not None for label in labels)
        shifts = (canaries.records.y - torch.tensor(labels)) % 4
        assert set(shifts.tolist()) == {1, 2, 3}
    else:
        assert set(labels) == {None}
        assert source.x.min() <= canaries.records.x.min() < 0.01
        assert 0.99 < canaries.records.x.max() <= source.x.max()
        assert set(canaries.records.y.tolist()) == {0, 1, 2, 3}
    again = make_canaries(source, 100, kind, KEY)
    assert again.records.fingerprint() == canaries.records.fingerprint()
    assert torch.equal(again.included, canaries.included)
    assert not torch.equal(make_canaries(source, 100, kind, Key.from_seed(2)).included, canaries.included)


def test_the_flips_are_fair_and_independent():
    """Over 200 keys: the number included is binomial, and neighbours agree half of the time (error 1e-4 each)."""
    source = records(64)
    flips = np.array([make_canaries(source, 64, "natural", Key.from_seed(i)).included.numpy() for i in range(200)])
    assert stats.binomtest(int(flips.sum()), flips.size, 0.5).pvalue > 1e-4
    assert stats.binomtest(int((flips[:, 1:] == flips[:, :-1]).sum()), 200 * 63, 0.5).pvalue > 1e-4
    # No fixed half: the variance of the count is 64 / 4.
    spread = flips.sum(axis=1).var(ddof=1) * 199 / 16
    assert 1e-4 < stats.chi2.cdf(spread, 199) < 1 - 1e-4
    # Every position, not only on average.
    assert np.all(np.abs(flips.mean(axis=0) - 0.5) < 5 * 0.5 / np.sqrt(200))


def test_the_included_are_inserted_and_no_other():
    train, canaries = records(50, seed=5), make_canaries(records(300), 40, "mislabelled", KEY)
    together = canaries.insert(train)
    inside = set(together.digests())
    assert len(together) == 50 + int(canaries.included.sum())
    assert torch.equal(together.x[:50], train.x)
    assert [name in inside for name in canaries.records.digests()] == canaries.included.tolist()
    assert "canaries" in together.name
    with pytest.raises(InvalidArgumentError, match="already holds"):
        canaries.insert(together)
    with pytest.raises(InvalidArgumentError, match="do not fit"):
        canaries.insert(records(50, classes=5))


def test_saved_canaries_come_back(tmp_path):
    canaries = make_canaries(records(300), 40, "uniform-noise", KEY)
    path = tmp_path / "canaries.safetensors"
    canaries.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    back = Canaries.load(path)
    assert back.records.fingerprint() == canaries.records.fingerprint()
    assert (back.records.name, back.kind) == (canaries.records.name, "uniform-noise")
    assert torch.equal(back.included, canaries.included)


def test_other_files_are_refused(tmp_path):
    canaries = make_canaries(records(300), 40, "natural", KEY)
    path = tmp_path / "canaries.safetensors"
    canaries.save(path)
    tensors, metadata = read_safetensors(path)
    damaged = {
        "format": (tensors, metadata | {"format": "another"}),
        "tensors": ({"x": tensors["x"], "y": tensors["y"]}, metadata),
        "contents": (tensors | {"y": (tensors["y"] + 1) % 4}, metadata),
        "flips": (tensors | {"included": tensors["included"][:5]}, metadata),
        "classes": (tensors, {name: text for name, text in metadata.items() if name != "n_classes"}),
    }
    for what, (held, facts) in damaged.items():
        save_file(held, tmp_path / what, metadata=facts)
        with pytest.raises(CorruptFileError, match="canaries"):
            Canaries.load(tmp_path / what)


def test_scores_are_joined_by_content():
    canaries = make_canaries(records(300), 40, "natural", KEY)
    others = records(20, seed=9)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    x, y = torch.cat([canaries.records.x, others.x])[order], torch.cat([canaries.records.y, others.y])[order]
    scored = Records(x, y, 4, "shuffled")
    scores = order.numpy().astype(np.float64)
    assert canaries.align(scored, scores).tolist() == list(range(40))
    missing = scored.subset(order.numpy() != 3)
    with pytest.raises(InvalidArgumentError, match="1 of 40 are missing and 0 are there more"):
        canaries.align(missing, scores[order.numpy() != 3])
    twice = Records(torch.cat([x, canaries.records.x[:2]]), torch.cat([y, canaries.records.y[:2]]), 4, "twice")
    with pytest.raises(InvalidArgumentError, match="0 of 40 are missing and 2 are there more"):
        canaries.align(twice, np.zeros(62))
    with pytest.raises(InvalidArgumentError, match="one score per record"):
        canaries.align(scored, scores[:5])


def test_both_bounds_come_from_the_flips():
    canaries = make_canaries(records(2000), 1000, "natural", KEY)
    included = canaries.included.numpy()
    general, gaussian = canaries.bound(included + np.random.default_rng(0).normal(0, 0.3, 1000), 1e-5)
    assert 2 < general.epsilon < gaussian.epsilon
    assert general.condition is None
    assert gaussian.condition == "if the mechanism is Gaussian"
    assert general.n == 1000
    for bound in canaries.bound(np.random.default_rng(1).normal(size=1000), 1e-5):
        assert bound.epsilon == 0


def test_equal_records_are_one_canary():
    source = records(30)
    doubled = Records(torch.cat([source.x, source.x]), torch.cat([source.y, source.y]), 4, "doubled")
    assert len(set(make_canaries(doubled, 30, "natural", KEY).records.digests())) == 30
    with pytest.raises(TooFewRecordsError, match="31 canaries need as many different records"):
        make_canaries(doubled, 31, "natural", KEY)
    canaries = make_canaries(source, 30, "natural", KEY)
    same = Records(doubled.x[[0, 30]], doubled.y[[0, 30]], 4, "same")
    with pytest.raises(InvalidArgumentError, match="equal"):
        dataclasses.replace(canaries, records=same, included=torch.tensor([True, False]))
    zeros = Records(torch.tensor([[0.0], [-0.0]]), torch.tensor([1, 1]), 2, "zeros")
    assert len(set(zeros.digests())) == 1
    other_class = Records(torch.zeros(2, 1), torch.tensor([0, 1]), 2, "classes")
    assert len(set(other_class.digests())) == 2


def test_bad_input_is_refused():
    source = records(30)
    with pytest.raises(UnknownNameError, match="mislabelled"):
        make_canaries(source, 10, "loud", KEY)
    with pytest.raises(InvalidArgumentError, match="at least one"):
        make_canaries(source, 0, "natural", KEY)
    with pytest.raises(TooFewRecordsError, match="at least 5 canaries"):
        make_canaries(source, 4, "natural", KEY)
    with pytest.raises(InvalidArgumentError, match="only class"):
        make_canaries(records(30, classes=1), 10, "mislabelled", KEY)
    canaries = make_canaries(source, 10, "natural", KEY)
    for bad in (canaries.included[:5], canaries.included.int()):
        with pytest.raises(InvalidArgumentError, match="included is bool"):
            dataclasses.replace(canaries, included=bad)
