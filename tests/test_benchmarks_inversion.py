"""The benchmark of inversion runs, and writes figures and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import inversion


def test_it_runs_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, picture = tmp_path / "result.json", tmp_path / "picture.png"
    inversion.main(["--quick", "--json", str(figures), "--plot", str(picture)])
    (study,) = json.loads(figures.read_text(encoding="utf-8"))["studies"]
    assert [(row["layer"], row["noise"]) for row in study["rows"]] == [
        ("convolution 1", 0.0),
        ("convolution 1", 0.5),
        ("pooling", 0.0),
        ("pooling", 0.5),
        ("dense 1", 0.0),
        ("logits", 0.0),
    ]
    for row in study["rows"]:
        assert row["steps"] == 5
        assert row["identified_low"] <= row["identified"] / study["images"] <= row["identified_high"]
    assert study["mean_image_psnr"] < study["class_mean_psnr"] < study["neighbour_psnr"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("digits") == 6
