"""The benchmark of inversion against pruned networks prunes as it says, and writes figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import inversion_pruning as benchmark
from privkernels.data import DataSet, Records


def noise(n: int, seed: int) -> Records:
    generator = torch.Generator().manual_seed(seed)
    return Records(torch.rand(n, 1, 28, 28, generator=generator), torch.arange(n) % 10, 10, "noise")


@pytest.mark.parametrize("scope", ["all layers", "each layer"])
def test_a_fifth_of_the_survivors_goes_in_each_round_and_stays_away(scope: benchmark.Scope) -> None:
    dense = benchmark.lenet5()
    before = [weight.clone() for weight in benchmark.weights_of(dense)]
    order = torch.Generator().manual_seed(0)
    after = benchmark.pruned(dense, noise(300, 0), scope, 7, 1, order)
    assert list(after) == [3, 7]
    total = sum(weight.numel() for weight in before)
    for rounds, module in after.items():
        weights = benchmark.weights_of(module)
        left = [int((weight != 0).sum()) for weight in weights]
        assert sum(left) == pytest.approx(0.8**rounds * total, abs=len(left))
        if scope == "each layer":
            shares = [kept / weight.numel() for kept, weight in zip(left, weights, strict=True)]
            assert shares == pytest.approx([0.8**rounds] * len(left), abs=0.01)
    third, seventh = (benchmark.weights_of(after[rounds]) for rounds in (3, 7))
    for early, late in zip(third, seventh, strict=True):
        assert not (late != 0)[early == 0].any(), "what was pruned is pruned"
        assert not early[late != 0].equal(late[late != 0]), "what is left is trained on"
    for weight, held in zip(benchmark.weights_of(dense), before, strict=True):
        assert weight.equal(held), "the dense network stays"


def test_it_runs_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataSet("noise", noise(600, 0), noise(300, 1))
    monkeypatch.setattr(benchmark, "load", lambda name, root: data)
    figures = tmp_path / "result.json"
    benchmark.main(["--quick", "--json", str(figures)])
    result = json.loads(figures.read_text(encoding="utf-8"))
    assert result["images"] == 2
    dense, *others = result["networks"]
    assert [(other["threshold"], other["rounds"]) for other in others] == [("all layers", 3), ("each layer", 3)]
    for row in dense["rows"]:
        assert row["psnr_to_dense"] == row["ssim_to_dense"] == {"mean": 0.0, "standard_error": 0.0}
    for network in others:
        assert [row["layer"] for row in network["rows"]] == list(benchmark.LAYERS)
        for row, first in zip(network["rows"], dense["rows"], strict=True):
            assert row["psnr_to_dense"]["mean"] == pytest.approx(row["psnr"] - first["psnr"], abs=0.02)
    assert capsys.readouterr().out.count("'test_accuracy'") == 3
