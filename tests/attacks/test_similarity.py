"""PSNR, SSIM and the controls of a reconstruction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from privkernels import data
from privkernels.attacks.similarity import ReconstructionReport, psnr, reconstruction_report, ssim
from privkernels.data import Records
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

DIGITS = data.load("digits")


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_known_errors() -> None:
    x = pictures(3, 1, 6, 6)
    error = torch.tensor([0.1, 0.01, 0.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(psnr(x.double() + error.double(), x.double()), [20.0, 40.0, np.inf])
    np.testing.assert_allclose(psnr(255 * x + 25.5, 255 * x, data_range=255.0), 20.0, rtol=1e-6)
    table = torch.zeros(2, 4)
    np.testing.assert_allclose(psnr(table + 0.1, table), 20.0, rtol=1e-6)


def ssim_by_the_book(x: Any, y: Any, side: int) -> float:
    """Wang et al. 2004, Eq. 13 to 16, window by window."""
    offsets = np.arange(side) - side // 2
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for channel in range(x.shape[0]):
        for row in range(x.shape[1] - side + 1):
            for column in range(x.shape[2] - side + 1):
                a, b = (z[channel, row : row + side, column : column + side] for z in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                top = (2 * mean_a * mean_b + 0.01**2) * (2 * both + 0.03**2)
                values.append(top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return float(np.mean(values))


@pytest.mark.parametrize(("shape", "side"), [((1, 14, 12), 11), ((3, 11, 13), 11), ((1, 8, 8), 7), ((2, 5, 9), 5)])
def test_ssim_is_wangs(shape: tuple[int, int, int], side: int) -> None:
    x = pictures(2, *shape)
    y = (x + 0.3 * pictures(2, *shape, seed=1)).clamp(0, 1)
    expected = [ssim_by_the_book(*pair, side) for pair in zip(x.double().numpy(), y.double().numpy(), strict=True)]
    np.testing.assert_allclose(ssim(x, y), expected, rtol=1e-9)


def test_ssim_of_known_pairs() -> None:
    x = pictures(4, 3, 16, 16)
    np.testing.assert_allclose(ssim(x, x), 1.0, rtol=1e-12)
    np.testing.assert_allclose(ssim(x, pictures(4, 3, 16, 16, seed=1)), ssim(pictures(4, 3, 16, 16, seed=1), x))
    assert (ssim(x, 1 - x) < -0.5).all(), "a negative is the opposite"
    np.testing.assert_allclose(ssim(255 * x, 255 * x**2, data_range=255.0), ssim(x, x**2), rtol=1e-5)
    black, white = torch.zeros(1, 1, 12, 12), torch.ones(1, 1, 12, 12)
    # No variance: what is left is the luminance term c1 / (1 + c1).
    np.testing.assert_allclose(ssim(black, white), 1e-4 / (1 + 1e-4), rtol=1e-9)


def report_on(reconstructions: Tensor, originals: Records, **changes: Any) -> ReconstructionReport:
    arguments = {"train": DIGITS.train, "heldout": DIGITS.test, **changes}
    return reconstruction_report(reconstructions, originals, **arguments)


def test_perfect_reconstructions_are_all_identified() -> None:
    originals = DIGITS.train.subset(range(20))
    report = report_on(originals.x, originals)
    assert np.isinf(report.psnr).all()
    assert report.n_records == report.n_identified == report.n_beyond_neighbour == 20
    assert (report.distance_to_original == 0).all()
    assert (report.distance_to_train > 0).all(), "the original itself is no other record"
    assert (report.n_candidates == len(DIGITS.train) + len(DIGITS.test)).all()
    outside = DIGITS.test.subset(range(20))
    assert (report_on(outside.x, outside).n_candidates == report.n_candidates).all()


def test_the_mean_of_the_class_is_no_leak() -> None:
    originals = DIGITS.train.subset(range(200))
    means = torch.stack([DIGITS.test.x[DIGITS.test.y == label].mean(dim=0) for label in range(10)])
    report = report_on(means[originals.y], originals)
    # It looks like the digit ...
    assert report.psnr.mean() > report.mean_image_psnr.mean() + 1
    np.testing.assert_allclose(report.psnr, report.class_mean_psnr, atol=1e-4)
    # ... and picks out nobody: ten pictures can be nearest to ten originals and no more.
    assert report.n_identified <= 10
    assert report.n_beyond_neighbour < 20
    assert np.median(report.rank) > 30


def test_another_record_is_not_taken_for_the_original() -> None:
    originals, others = DIGITS.train.subset(range(20)), DIGITS.train.subset(range(20, 40))
    report = report_on(others.x, originals)
    assert report.n_identified == 0
    assert (report.distance_to_train <= report.distance_to_original).all()


def test_ties_count_against_the_attack() -> None:
    """A picture just between the original and another record identifies neither."""
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 4.0]])
    train = Records(x, torch.zeros(3, dtype=torch.int64), 1, "train")
    heldout = Records(x[2:] + 9, torch.zeros(1, dtype=torch.int64), 1, "held-out")
    report = reconstruction_report(torch.tensor([[0.5, 0.0]]), train.subset([0]), train, heldout)
    assert report.rank.tolist() == [2]
    assert report.n_identified == 0
    assert report.ssim is None
    assert report.n_candidates.tolist() == [4]
    np.testing.assert_allclose(report.distance_to_original, 0.5 / 2**0.5)


def test_the_mean_of_all_stands_in_for_a_class_that_nobody_has() -> None:
    originals = DIGITS.train.subset(DIGITS.train.y == 3)
    heldout = DIGITS.test.subset(DIGITS.test.y != 3)
    report = report_on(originals.x, originals, heldout=heldout)
    np.testing.assert_array_equal(report.class_mean_psnr, report.mean_image_psnr)
    mean = heldout.x.double().mean(dim=0).expand(originals.x.shape)
    np.testing.assert_allclose(report.mean_image_psnr, psnr(mean, originals.x))


def test_both_neighbours_are_sought_among_equally_many_records() -> None:
    """Noise is no nearer to training records than to others, though there are twenty times as many."""
    noise = pictures(200, 1, 8, 8)
    originals = DIGITS.train.subset(range(200))
    few = DIGITS.test.subset(range(60))
    report = report_on(noise, originals, heldout=few)
    again = report_on(noise, originals, heldout=few, seed=1)
    assert not np.array_equal(report.distance_to_train, again.distance_to_train)
    np.testing.assert_array_equal(report.distance_to_heldout, again.distance_to_heldout)
    gap = (report.distance_to_train - report.distance_to_heldout).mean()
    assert abs(gap) < 0.01
    everybody = torch.cdist(noise.flatten(1), DIGITS.train.x.flatten(1)).amin(dim=1) / 8
    assert everybody.numpy().mean() < report.distance_to_train.mean() - 0.01, "as they would be among all"


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_what_is_wrong_is_said(measure: Any) -> None:
    x = pictures(2, 1, 8, 8)
    for error, words, arguments in (
        (InvalidArgumentError, "one shape", (x, x[:1])),
        (EmptyDataError, "no reconstructions", (x[:0], x[:0])),
        (NonFiniteValueError, "NaN", (x * torch.nan, x)),
    ):
        with pytest.raises(error, match=words):
            measure(*arguments)
    with pytest.raises(InvalidArgumentError, match="data_range"):
        measure(x, x, data_range=0.0)


def test_what_is_wrong_in_a_report_is_said() -> None:
    originals = DIGITS.train.subset([0])
    with pytest.raises(InvalidArgumentError, match=r"\[n, channels, height, width\]"):
        ssim(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(InvalidArgumentError, match="one shape"):
        report_on(DIGITS.train.x[:2], originals)
    flat = Records(DIGITS.test.x.flatten(1), DIGITS.test.y, 10, "flat")
    with pytest.raises(InvalidArgumentError, match="'flat' should have records of shape"):
        report_on(originals.x, originals, heldout=flat)
    with pytest.raises(InvalidArgumentError, match="train holds nothing but copies"):
        report_on(originals.x, originals, train=originals)
