from __future__ import annotations

import torch
from sklearn.datasets import load_digits as sklearn_digits

from privkernels.data import load


def test_digits_is_scikit_learns_split_in_two() -> None:
    digits = load("digits")
    assert digits.name == "digits"
    assert digits.train.x.shape == (1197, 1, 8, 8)
    assert digits.test.x.shape == (600, 1, 8, 8)
    assert (digits.train.name, digits.test.name) == ("digits/train", "digits/test")
    assert digits.train.n_classes == digits.test.n_classes == 10
    source = torch.from_numpy(sklearn_digits().images).flatten(1)
    together = torch.cat([digits.train.x, digits.test.x]).flatten(1).double() * 16
    # Every source image once: the two multisets of rows are the same.
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, source.tolist()))


def test_digits_are_scaled_and_labelled() -> None:
    digits = load("digits")
    assert digits.train.x.min() == 0
    assert digits.train.x.max() == 1
    source = sklearn_digits()
    by_image = {tuple(row): label for row, label in zip(source.data.tolist(), source.target, strict=True)}
    for part in (digits.train, digits.test):
        rows = (part.x.flatten(1).double() * 16).tolist()
        assert [by_image[tuple(row)] for row in rows] == part.y.tolist()


def test_the_split_is_fixed() -> None:
    """Known answers: results that were published with this split must be repeatable."""
    digits = load("digits")
    assert digits.train.y[:12].tolist() == [3, 6, 9, 2, 3, 5, 6, 7, 8, 9, 0, 1]
    assert digits.test.y[:12].tolist() == [0, 1, 2, 4, 5, 7, 8, 0, 1, 4, 4, 5]
    assert digits.test.fingerprint().startswith("64a2646d573ef2bf")
    # Both parts hold every class in about its share.
    assert digits.test.y.bincount().min() > 45


def test_digits_needs_no_root(tmp_path) -> None:
    assert len(load("digits", tmp_path / "nowhere").train) == 1197
