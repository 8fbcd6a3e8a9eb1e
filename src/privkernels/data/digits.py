"""Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, shipped with scikit-learn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from privkernels.data.records import DataSet, Records

TEST_RECORDS = 600


def load_digits(root: Path | None, download: bool) -> DataSet:
    """Load digits: x [n, 1, 8, 8], 1,197 training and 600 test records.

    The data set has no official split. Ours: record ``i`` gets the rank of SHA-256("digits/i"),
    and the 600 lowest are the test records; both parts keep scikit-learn's order. The split
    depends on no library's random generator, so it never changes. Neighbouring records in
    scikit-learn's order are often by the same writer, so test and training writers overlap.

    Args:
        root: not used; the data comes with scikit-learn.
        download: not used.
    """
    # scikit-learn takes a second to import, and only this loader needs it.
    from sklearn.datasets import load_digits as sklearn_digits

    source = sklearn_digits()
    x = torch.from_numpy(source.images.astype(np.float32))[:, None] / 16
    y = torch.from_numpy(source.target.astype(np.int64))
    ranks = sorted(range(len(y)), key=lambda i: hashlib.sha256(f"digits/{i}".encode()).digest())
    in_test = torch.zeros(len(y), dtype=torch.bool)
    in_test[ranks[:TEST_RECORDS]] = True
    return DataSet(
        "digits",
        Records(x[~in_test], y[~in_test], 10, "digits/train"),
        Records(x[in_test], y[in_test], 10, "digits/test"),
    )
