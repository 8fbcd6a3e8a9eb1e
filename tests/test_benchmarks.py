"""The benchmarks run, check what they time, and write nothing that identifies a machine or a person."""

from __future__ import annotations

import dataclasses
import getpass
import json
import platform
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import accounting, timing
from benchmarks.kernels import kde_em


def run_kde_em(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["kde_em", *arguments])
    kde_em.main()


def test_kde_em_times_all_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kde_em.json"
    run_kde_em(monkeypatch, "--elements", "300", "--rounds", "1", "--json", str(file))
    text = file.read_text(encoding="utf-8")
    result = json.loads(text)
    names = [timed["name"] for timed in result["results"]]
    for start in ("kde_em, 1 thread", "bare read", "torch eager", "scipy.stats.gaussian_kde"):
        assert any(name.startswith(start) for name in names), names
    assert all(timed["wall_ns_per_element"] > 0 for timed in result["results"])
    assert result["results"][0]["times_ours"] == 1
    assert 0 < result["check"]["score_error"] <= result["check"]["score_error_bound"]
    assert {"processor", "cores", "instruction_set", "torch", "privkernels"} <= result["machine"].keys()
    printed = capsys.readouterr().out
    for private in (platform.node(), str(Path.home()), str(Path.cwd()), f"/{getpass.getuser()}"):
        if len(private) > 3:  # "/" as a home, or no name, identifies nobody
            assert private not in text
            assert private not in printed


@pytest.mark.parametrize("wrong", ["scores", "draws"])
def test_kde_em_refuses_to_time_wrong_results(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    if wrong == "scores":
        real = kde_em.kde_scores
        monkeypatch.setattr(kde_em, "kde_scores", lambda *args, **rest: real(*args, **rest) * 1.001)
    else:
        monkeypatch.setattr(kde_em, "ours", lambda inputs: inputs["lo"])
    with pytest.raises(SystemExit, match="the results are wrong"):
        run_kde_em(monkeypatch, "--elements", "300", "--rounds", "1")


@pytest.mark.parametrize("arguments", [["--elements", "0"], ["--rounds", "0"], ["--device", "tpu"]])
def test_kde_em_refuses_bad_arguments(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_kde_em(monkeypatch, *arguments)
    assert ended.value.code == 2


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    calls: list[tuple[str, int]] = []

    def contender(name: str, threads: int) -> timing.Contender:
        return timing.Contender(name, lambda: calls.append((name, torch.get_num_threads())), 10, threads)

    before = torch.get_num_threads()
    result = timing.interleaved([contender("a", 1), contender("b", 2)], 3, torch.device("cpu"))
    assert calls == [("a", 1), ("b", 2)] * 4
    assert [timed.name for timed in result] == ["a", "b"]
    assert torch.get_num_threads() == before


def test_accounting_times_all_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "accounting.json"
    monkeypatch.setattr(sys, "argv", ["accounting", "--rounds", "1", "--largest", "10", "--json", str(file)])
    accounting.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    assert [question["question"].split()[0] for question in result["results"]] == ["1", "10", "Gaussian", "1000"]
    for question in result["results"]:
        ours = question["results"][0]
        assert ours["name"] == "compose"
        assert ours["times_ours"] == 1
        assert all(row["cpu_ms"] > 0 for row in question["results"])
    assert {"processor", "dp-accounting", "opacus"} <= result["machine"].keys()
    assert "milliseconds" in capsys.readouterr().out


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_accounting_refuses_to_time_wrong_results(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """A bound that an attack beats, and one that is far above another valid bound."""
    real = accounting.compose

    def wrong(*args: object, **rest: object) -> object:
        bound = real(*args, **rest)
        return dataclasses.replace(bound, epsilon=factor * bound.epsilon)

    monkeypatch.setattr(accounting, "compose", wrong)
    monkeypatch.setattr(sys, "argv", ["accounting", "--rounds", "1", "--largest", "10"])
    with pytest.raises(SystemExit, match="the results are wrong"):
        accounting.main()
