"""Labelled records of the data sets that attacks are measured on, from files as their publishers offer them.

Besides what :func:`privkernels.data.load` knows: UCI Adult (adult.data.gz) and Location-30 (location30.npz, with x
[5010, 446] and y [5010]).
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from privkernels import data
from privkernels.data import Records
from privkernels.errors import CorruptFileError, DataUnavailableError

# Column numbers in the publisher's file; the weight, the country and the education's second code are left out.
NUMBERS = {"age": 0, "education": 4, "capital gain": 10, "capital loss": 11, "hours": 12}
CATEGORIES = {"work": 1, "marital status": 5, "occupation": 6, "relationship": 7, "race": 8, "sex": 9}
INCOME = 14


def read_records(name: str, root: Path) -> Records:
    """The training records of a data set: adult, location-30, or a name that :func:`privkernels.data.load` knows.

    Raises:
        DataUnavailableError, CorruptFileError: the files are not there, or are something else.
        UnknownNameError: no such data set.
    """
    if name == "adult":
        return read_adult(root)[0]
    if name == "location-30":
        return read_location(root)
    return data.load(name, root).train


def centred(records: Records) -> Records:
    """Pixels x in [0, 1] as (x - 0.5) / 0.25: a perceptron learns from coloured pictures so, and hardly else."""
    return replace(records, x=(records.x - 0.5) / 0.25)


def read_location(root: Path) -> Records:
    """Location-30: 5,010 people, 446 binary marks of where they checked in, 30 classes."""
    file = _found(root, "location30.npz", "location-30")
    with np.load(file, allow_pickle=False) as arrays:
        if not {"x", "y"} <= set(arrays.files):
            raise CorruptFileError(f"{file} should hold the arrays x and y, found {sorted(arrays.files)}")
        x, y = arrays["x"].astype(np.float32), arrays["y"].astype(np.int64)
    return Records(torch.from_numpy(x), torch.from_numpy(y), 30, "location-30")


def read_adult(root: Path) -> tuple[Records, dict[str, list[int]]]:
    """All records of adult.data, standardised and one-hot encoded, and the columns of each category."""
    with gzip.open(_found(root, "adult.data.gz", "adult"), "rt", encoding="utf-8") as lines:
        table = np.array([line.strip().split(", ") for line in lines if line.strip()])
    numbers = table[:, list(NUMBERS.values())].astype(np.float64)
    parts = [(numbers - numbers.mean(axis=0)) / numbers.std(axis=0)]
    columns: dict[str, list[int]] = {}
    width = len(NUMBERS)
    for name, number in CATEGORIES.items():
        values = np.unique(table[:, number])
        parts.append((table[:, [number]] == values).astype(np.float64))
        columns[name] = list(range(width, width + len(values)))
        width += len(values)
    x = torch.from_numpy(np.column_stack(parts).astype(np.float32))
    return Records(x, torch.from_numpy((table[:, INCOME] == ">50K").astype(np.int64)), 2, "adult"), columns


def _found(root: Path, file: str, folder: str) -> Path:
    for path in (root / file, root / folder / file):
        if path.exists():
            return path
    raise DataUnavailableError(f"there is no {file} in {root} or its folder {folder}")
