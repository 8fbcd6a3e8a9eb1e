"""The benchmarks run, check what they time, and write nothing that identifies a machine or a person."""

from __future__ import annotations

import dataclasses
import getpass
import json
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import accounting, timing
from benchmarks.kernels import em_select, kde_em, noise_add, randomized_response
from benchmarks.papers import privacy_tables


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


def identifies_nobody(*texts: str) -> bool:
    private = (platform.node(), str(Path.home()), str(Path.cwd()), f"/{getpass.getuser()}")
    return not any(word in text for word in private if len(word) > 3 for text in texts)


def test_em_select_times_all_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "em_select.json"
    arguments = ["--candidates", "300", "--rows", "3", "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["em_select", *arguments])
    em_select.main()
    text = file.read_text(encoding="utf-8")
    result = json.loads(text)
    assert len(result["results"]) == 6
    for case, timed in result["results"].items():
        assert timed[0]["name"] == "em_select, 1 thread", case
        assert timed[0]["times_ours"] == 1
        assert all(timing["wall_ns_per_element"] > 0 for timing in timed)
    assert 0 < result["check"]["total_variation_bound"] < 1e-15
    assert identifies_nobody(text, capsys.readouterr().out)


@pytest.mark.parametrize("wrong", ["multiplier", "mechanism", "smallest"])
def test_em_select_refuses_to_time_wrong_results(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    real = em_select.ours
    replacement = {
        "multiplier": lambda scores, mechanism="exponential": real(scores * 1.1, mechanism),
        "mechanism": lambda scores, mechanism="exponential": real(scores, "exponential"),
        "smallest": lambda scores, mechanism="exponential": real(-scores, mechanism),
    }
    monkeypatch.setattr(em_select, "ours", replacement[wrong])
    with pytest.raises(SystemExit, match="the results are wrong"):
        em_select.check(torch.device("cpu"))


def test_randomized_response_times_all_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "randomized_response.json"
    arguments = ["--elements", "300", "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["randomized_response", *arguments])
    randomized_response.main()
    text = file.read_text(encoding="utf-8")
    result = json.loads(text)
    names = [timed["name"] for timed in result["results"]]
    assert names[0] == "randomized_response, 1 thread"
    assert "torch (not private)" in names
    assert 0.99 < result["check"]["implemented_epsilon"] <= 1
    assert identifies_nobody(text, capsys.readouterr().out)


def test_randomized_response_refuses_to_time_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomized_response, "ours", lambda values: values)
    with pytest.raises(SystemExit, match="the results are wrong"):
        randomized_response.check(torch.device("cpu"))


@pytest.mark.parametrize("module", [em_select, randomized_response])
@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--device", "tpu"], ["--json"]])
def test_other_benchmarks_refuse_bad_arguments(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2


def run_noise_add(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["noise_add", *arguments])
    noise_add.main()


def test_noise_add_times_all_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "noise_add.json"
    run_noise_add(monkeypatch, "--elements", "300", "--rounds", "1", "--json", str(file))
    text = file.read_text(encoding="utf-8")
    result = json.loads(text)
    names = [timed["name"] for timed in result["results"]]
    for start in ("bare read and write, 1 thread", "noise_add laplace, s = 2^10", "noise_add gaussian", "torch float"):
        assert any(name.startswith(start) for name in names), names
    for library in ("opendp", "diffprivlib"):
        assert library in result["skipped"] or any(library in name.lower() for name in names)
    assert result["results"][0]["times_bare"] == 1
    assert {"processor", "cores", "instruction_set", "torch", "privkernels"} <= result["machine"].keys()
    for private in (platform.node(), str(Path.home()), str(Path.cwd()), f"/{getpass.getuser()}"):
        if len(private) > 3:
            assert private not in text


@pytest.mark.parametrize("wrong", ["sums", "scale"])
def test_noise_add_refuses_to_time_wrong_results(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    if wrong == "sums":
        real = noise_add.ours
        monkeypatch.setattr(noise_add, "ours", lambda *args: real(*args) * (1 + 2.0**-20))
    else:
        steps = noise_add.noise_steps
        monkeypatch.setattr(noise_add, "noise_steps", lambda size, **rest: steps(size, **rest | {"steps": 900.0}))
    with pytest.raises(SystemExit, match="the results are wrong"):
        run_noise_add(monkeypatch, "--elements", "300", "--rounds", "1")


@pytest.mark.parametrize("arguments", [["--elements", "0"], ["--rounds", "0"], ["--device", "tpu"]])
def test_noise_add_refuses_bad_arguments(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_noise_add(monkeypatch, *arguments)
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


def test_privacy_tables_print_and_write_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tables.json"
    monkeypatch.setattr(sys, "argv", ["privacy_tables", "--draws", "30000", "--json", str(file)])
    privacy_tables.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    assert all(row["caught"] == bool(row["bug"]) for row in result["audits"])
    assert {row["parameters"] for row in result["composition"]} == set(privacy_tables.PARAMETERS)
    assert all(row["proven"] <= row["zcdp"] * (1 + 1e-9) for row in result["composition"])
    printed = capsys.readouterr().out
    assert "the paper's sensitivity" in printed
