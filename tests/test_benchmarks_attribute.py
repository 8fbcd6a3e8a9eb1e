"""The benchmark of attribute inference reads the publisher's file and writes its counts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import attribute
from benchmarks.papers import datasets
from privkernels.errors import DataUnavailableError

LINE = "{age}, {work}, 77516, Bachelors, 13, {status}, Sales, Husband, White, {sex}, 0, 0, 40, United-States, {income}"


def write_adult(folder: Path, n: int = 200) -> None:
    rng = np.random.default_rng(0)
    lines = [
        LINE.format(
            age=rng.integers(20, 60),
            work=rng.choice(["?", "Private"]),
            status=rng.choice(["Divorced", "Widowed", "Never-married"]),
            sex=rng.choice(["Male", "Female"]),
            income=rng.choice(["<=50K", ">50K"]),
        )
        for _ in range(n)
    ]
    folder.mkdir()
    # The publisher's file ends with an empty line.
    (folder / "adult.data.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n\n").encode()))


def test_it_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A column of one value has no standard deviation to divide by; the file has several of each.
    monkeypatch.setattr(datasets, "NUMBERS", {"age": 0})
    write_adult(tmp_path / "adult")
    file = tmp_path / "result.json"
    attribute.main(["--data-root", str(tmp_path), "--records", "40", "--json", str(file)])
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        for side in ("members", "nonmembers"):
            assert row[side]["n"] == 40
            assert 0 <= max(row[side]["attack"], row[side]["imputation"], row[side]["majority"]) <= 40


def test_the_table_is_the_publishers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "NUMBERS", {"age": 0})
    write_adult(tmp_path / "adult", n=50)
    records, columns = datasets.read_adult(tmp_path / "adult")
    assert records.x.shape == (50, 1 + 2 + 3 + 1 + 1 + 1 + 2)
    assert columns["marital status"] == [3, 4, 5]
    for found in columns.values():
        assert records.x[:, found].sum(dim=1).eq(1).all()
    torch.testing.assert_close(records.x[:, 0].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert 0 < records.y.sum() < 50


def test_a_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailableError, match=r"adult\.data\.gz"):
        datasets.read_adult(tmp_path)
