"""docs/reconstruction.md: its examples run and show what the page says, and its figures are the benchmark's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reconstruction.md").read_text(encoding="utf-8")
INVERSION, ATTRIBUTE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def results(benchmark: str) -> dict[str, Any]:
    """What a benchmark wrote; a source distribution has no results."""
    file = ROOT / "benchmarks" / "results" / f"{benchmark}.json"
    if not file.exists() and not (ROOT / ".git").exists():
        pytest.skip("a source distribution has no results")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def names_after(example: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(example, "docs/reconstruction.md", "exec"), names)
    return names


def test_the_example_of_inversion_recovers_records(capsys: pytest.CaptureFixture[str]) -> None:
    report = names_after(INVERSION)["report"]
    assert report.n_beyond_neighbour == 4
    assert "4 of 4 picked out of 1797 candidates" in capsys.readouterr().out


def test_the_example_of_attribute_inference_finds_the_memory() -> None:
    leak = names_after(ATTRIBUTE)["leak"]
    assert leak.beyond_imputation > 0.15
    assert leak.beyond_nonmembers > 0.15
    # Without memory the model is a coin: nothing beyond the imputation, up to five standard deviations.
    assert abs(leak.nonmembers.attack - leak.nonmembers.imputation) < 5 * (300 * 0.5) ** 0.5


def test_the_table_is_the_benchmarks() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| (digits|CIFAR-10) \|", line)]
    expected = []
    for name, study in zip(("digits", "CIFAR-10"), results("inversion")["studies"], strict=True):
        for row in study["rows"]:
            layer = row["layer"] + (", noise" if row["noise"] else "")
            counts = [f"{row[key]}/{study['images']}" for key in ("identified", "beyond_neighbour")]
            quality = f"{row['psnr']:.1f} ± {row['psnr_se']:.1f}"
            expected.append([name, layer, f"{row['tv_weight']:g}", quality, f"{row['ssim']:.2f}", *counts])
    assert rows == expected


def test_the_controls_are_the_benchmarks() -> None:
    for study in results("inversion")["studies"]:
        words = f"{study['mean_image_psnr']:.1f}, {study['class_mean_psnr']:.1f} and {study['neighbour_psnr']:.1f} dB"
        assert words in PAGE.replace("\n", " ")


def test_the_table_of_pruned_networks_is_the_benchmarks() -> None:
    found = results("inversion_pruning")
    lines = [line for line in PAGE.splitlines() if re.match(r"\| (dense|all layers|each layer) \|", line)]
    expected = []
    for network in found["networks"]:
        kept, accuracy = (f"{100 * network[key]:.1f} %" for key in ("kept", "test_accuracy"))
        cells = [f"{row['psnr']:.1f} ± {row['psnr_se']:.1f}, {row['ssim']:.2f}" for row in network["rows"]]
        expected.append([network["threshold"], kept, accuracy, *cells])
    assert [line.strip("| ").split(" | ") for line in lines] == expected
    controls = found["controls"]
    words = f"{controls['neighbour_psnr']:.1f} ± {controls['neighbour_psnr_se']:.1f} dB"
    assert f"{words} and an SSIM of {controls['neighbour_ssim']:.2f}" in PAGE.replace("\n", " ")


def test_the_table_of_adult_is_the_benchmarks() -> None:
    rows = [
        line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| (marital status|sex) \|", line)
    ]
    expected = []
    for row in results("attribute")["rows"]:
        if row["epochs"] == 200:
            sides = row["members"], row["nonmembers"]
            if row["method"] == "prior":
                expected.append(
                    [row["attribute"], "imputation, no model", *(str(side["imputation"]) for side in sides)]
                )
            expected.append([row["attribute"], row["method"], *(str(side["attack"]) for side in sides)])
    assert rows == expected
