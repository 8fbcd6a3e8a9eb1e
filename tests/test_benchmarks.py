"""The benchmarks run, check what they time, and write nothing that identifies a machine or a person."""

from __future__ import annotations

import dataclasses
import getpass
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import accounting, attacks, ceilings, comparison, growth, timing
from benchmarks.case import Case, Peer
from benchmarks.ceilings import Ceilings
from benchmarks.kernels import KERNELS, em_select, kde_em, kde_em_peers, noise_add, randomized_response
from benchmarks.kernels import __main__ as driver
from benchmarks.papers import privacy_tables
from tests.support.membership import margin_shadows

CPU = torch.device("cpu")


def identifies_nobody(*texts: str) -> bool:
    # "/" as a home, or no name, identifies nobody
    private = (platform.node(), str(Path.home()), str(Path.cwd()), f"/{getpass.getuser()}")
    return not any(word in text for word in private if len(word) > 3 for text in texts)


def small_case(error: float = 0.25, wrong: str = "") -> Case:
    def check() -> float:
        if wrong:
            raise AssertionError(wrong)
        return error

    peers = [Peer("half", lambda: sum(range(5000)), 0.5), Peer("threaded", lambda: sum(range(5000)), threaded=True)]
    return Case("noise_add", "injected", 10, lambda: sum(range(5000)), peers, check, bytes_moved=40, skipped=["absent"])


def test_the_driver_runs_a_kernel_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    driver.main(["--quick", "--rounds", "1", "--kernel", "randomized_response", "--isas", "--json", str(file)])
    text = file.read_text(encoding="utf-8")
    result = json.loads(text)
    cases = {row["case"] for row in result["rows"]}
    assert len(cases) == 1
    for row in result["rows"]:
        assert row.keys() == {field.name for field in dataclasses.fields(comparison.Row)}
        assert row["kernel"] == "randomized_response"
        assert min(row["ours"], row["peer_seconds"], row["ratio"], row["fraction"]) > 0
        assert 0 <= row["error"] < 1e-12
        assert row["ceiling"] in ("memory", "arithmetic")
    peers = [row["peer"] for row in result["rows"] if row["threads"] == 1]
    assert "torch (not private)" in peers
    assert "OpenDP make_randomized_response" in peers or "randomized_response: OpenDP" in result["skipped"]
    assert {"processor", "cores", "instruction_set", "torch", "privkernels"} <= result["machine"].keys()
    assert result["ceilings"]["1"].keys() == {"read", "copy", "operations"}
    for times in result["seconds_by_instruction_set"].values():
        assert {name.removeprefix("randomized_response, ") for name in times} == cases
    assert "base" in result["seconds_by_instruction_set"]
    assert identifies_nobody(text, capsys.readouterr().out)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_gives_cases_that_run_and_are_right(kernel: str) -> None:
    cases = driver.cases_of(kernel, True, CPU)
    assert len({case.name for case in cases}) == len(cases)
    assert all(error >= 0 for error in comparison.checked(cases))
    for case in cases:
        assert case.kernel == kernel
        assert 0 <= case.bytes_written <= case.bytes_moved
        assert all(0 < peer.share <= 1 for peer in case.peers)
        case.run()
    for peer in cases[0].peers:
        peer.run()


def test_kde_em_has_the_cases_that_are_reported() -> None:
    names = [case.name for case in driver.cases_of("kde_em", True, CPU)]
    usual = "M = 50, R = 256"
    for start in (f"{usual}, range", "M = 50, R = 64", "M = 50, R = 1024", "M = 8", "M = 200", f"{usual}, public"):
        assert any(name.startswith(start) for name in names), names


def test_all_peers_of_kde_em_that_are_installed_draw_from_the_law() -> None:
    """The mean of the grid's range, as members lie symmetrically in it: a way with a wrong scale or axis is far off."""
    inputs = kde_em.make_inputs(kde_em.USUAL, 64, CPU)
    task = kde_em_peers.Task(inputs, kde_em.USUAL.multiplier, kde_em.WINDOW_RATIO, 256)
    ways = [kde_em_peers.numba_draw(task), kde_em_peers.kdepy_draw(task), lambda: kde_em_peers.scipy_draw(task)]
    middle, width = (inputs["lo"] + inputs["hi"]) / 2, inputs["hi"] - inputs["lo"]
    for way in ways:
        if way is not None:
            where = (torch.as_tensor(way()) - middle) / width
            assert where.abs().max() <= 0.5 + 1e-6
            assert where.mean().abs() < 0.2


def test_a_wrong_result_ends_the_program_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "cases_of", lambda *_: [small_case(), small_case(wrong="off by\n   one")])
    monkeypatch.setattr(driver, "measure_all", lambda *_: pytest.fail("ceilings were measured"))
    monkeypatch.setattr(driver, "compare", lambda *_, **__: pytest.fail("something was timed"))
    with pytest.raises(SystemExit) as ended:
        driver.main(["--quick", "--kernel", "noise_add"])
    # A message as the code is printed, and the exit code is then 1.
    assert ended.value.code == "the results are wrong: noise_add, injected: off by one"


def test_injected_cases_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "cases_of", lambda *_: [small_case()])
    file = tmp_path / "result.json"
    driver.main(["--quick", "--rounds", "1", "--kernel", "noise_add", "--json", str(file)])
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["skipped"] == ["noise_add: absent"]
    assert {row["error"] for row in result["rows"]} == {0.25}
    threads = {(row["peer"], row["threads"]) for row in result["rows"]}
    assert ("half", 1) in threads
    assert not any(peer == "half" and count > 1 for peer, count in threads)
    assert "skipped: noise_add: absent" in capsys.readouterr().out


def test_ratios_are_medians_of_paired_rounds_and_shares_are_scaled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = timing.Rounds(wall=(9.0, 9.0, 9.0), cpu=(1.0, 2.0, 4.0))
    half = timing.Rounds(wall=(1.0, 1.0, 1.0), cpu=(5.0, 4.0, 2.0))
    threaded = timing.Rounds(wall=(3.0, 9.0, 18.0), cpu=(1.0, 2.0, 4.0))

    def fake(ways: list[timing.Contender], rounds: int, device: torch.device) -> list[timing.Rounds]:
        assert rounds == 3
        return [{"ours": ours, "half": half, "threaded": threaded}[way.name] for way in ways]

    monkeypatch.setattr(comparison, "rounds_of", fake)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    of = {1: Ceilings(read=10.0, copy=20.0, operations=1.0)}
    rows = comparison.compare(small_case(), 0.25, 3, CPU, of)
    one, other, both = rows
    assert (one.peer, one.threads, one.ours, one.peer_seconds) == ("half", 1, 2.0, 8.0)
    assert one.ratio == 4.0  # of 10, 4 and 1
    assert (other.peer, other.ratio) == ("threaded", 1.0)
    assert (both.peer, both.threads, both.ours, both.peer_seconds, both.ratio) == ("threaded", 2, 9.0, 9.0, 1.0)
    assert (one.fraction, one.ceiling) == (2.0, "memory")
    assert (both.fraction, both.ceiling) == (None, None)
    assert comparison.ratio_of([1.0, 10.0, 2.0], [3.0, 10.0, 8.0]) == 3.0  # of the medians: 4


def test_the_fraction_of_the_ceiling_names_the_nearer_one() -> None:
    limits = Ceilings(read=100.0, copy=50.0, operations=10.0)
    case = dataclasses.replace(small_case(), bytes_moved=300.0, bytes_written=50.0, operations=20.0)
    assert limits.fraction(case, 8.0) == (pytest.approx((200 / 100 + 100 / 50) / 8), "memory")
    busy = dataclasses.replace(case, operations=60.0)
    assert limits.fraction(busy, 8.0) == (pytest.approx(6 / 8), "arithmetic")
    written = dataclasses.replace(case, bytes_written=300.0, operations=0.0)
    assert limits.fraction(written, 8.0) == (pytest.approx(300 / 50 / 8), "memory")


def test_more_threads_have_no_lower_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {1: Ceilings(10.0, 5.0, 3.0), 2: Ceilings(8.0, 9.0, 6.0)}
    monkeypatch.setattr(ceilings, "measure", lambda threads, *_: measured[threads])
    assert ceilings.measure_all([1, 2], CPU) == {1: measured[1], 2: Ceilings(10.0, 9.0, 6.0)}


@pytest.mark.parametrize(("threads", "seconds"), [(1, 0.5), (2, 0.25)])
def test_ceilings_are_bytes_and_operations_over_the_least_time(
    monkeypatch: pytest.MonkeyPatch, threads: int, seconds: float
) -> None:
    """CPU time on one thread, elapsed on two; of several ways the fastest."""

    def fake(ways: list[timing.Contender], *_: object) -> list[timing.Rounds]:
        assert {way.threads for way in ways} == {threads}
        fast = timing.Rounds(wall=(3.0, 0.25), cpu=(0.5, 3.0))
        return [fast, *(timing.Rounds(wall=(1.0, 2.0), cpu=(1.0, 2.0)) for _ in ways[1:])]

    monkeypatch.setattr(ceilings, "rounds_of", fake)
    size = 64 * 2**20
    found = ceilings.measure(threads, CPU, quick=True)
    assert found == Ceilings(read=size / seconds, copy=2 * size / seconds, operations=2 * 1024**3 / seconds)


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--device", "tpu"], ["--json"], ["--kernel", "none"]])
@pytest.mark.parametrize("main", [driver.main, growth.main])
def test_bad_arguments_are_refused(arguments: list[str], main: Callable[[list[str]], None]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("wrong", ["scores", "draws"])
def test_kde_em_refuses_wrong_results(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    if wrong == "scores":
        real = kde_em.kde_scores
        monkeypatch.setattr(kde_em, "kde_scores", lambda *args, **rest: real(*args, **rest) * 1.001)
    else:
        monkeypatch.setattr(kde_em, "ours", lambda inputs, setting: inputs["lo"])
    with pytest.raises(AssertionError, match="score error"):
        kde_em.check(kde_em.make_inputs(kde_em.USUAL, 300, CPU), kde_em.USUAL)


@pytest.mark.parametrize("wrong", ["multiplier", "mechanism", "smallest"])
def test_em_select_refuses_wrong_results(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    real = em_select.ours
    replacement = {
        "multiplier": lambda scores, mechanism="exponential": real(scores * 1.1, mechanism),
        "mechanism": lambda scores, mechanism="exponential": real(scores, "exponential"),
        "smallest": lambda scores, mechanism="exponential": real(-scores, mechanism),
    }
    monkeypatch.setattr(em_select, "ours", replacement[wrong])
    with pytest.raises(AssertionError, match="chi-square"):
        em_select.check("permute-and-flip", CPU)


def test_randomized_response_refuses_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomized_response, "ours", lambda values: values)
    with pytest.raises(AssertionError, match="chi-square"):
        randomized_response.check(CPU)


@pytest.mark.parametrize("wrong", ["sums", "scale"])
def test_noise_add_refuses_wrong_results(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    if wrong == "sums":
        real = noise_add.ours
        monkeypatch.setattr(noise_add, "ours", lambda *args: real(*args) * (1 + 2.0**-20))
    else:
        steps = noise_add.noise_steps
        monkeypatch.setattr(noise_add, "noise_steps", lambda size, **rest: steps(size, **rest | {"steps": 900.0}))
    with pytest.raises(AssertionError, match="standard errors from"):
        noise_add.check(torch.ones(300), "laplace", 2.0**10)


def test_growth_measures_and_draws(tmp_path: Path) -> None:
    file, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    growth.main(["--quick", "--rounds", "1", "--json", str(file), "--plot", str(picture)])
    curves = json.loads(file.read_text(encoding="utf-8"))["curves"]
    assert {(curve["kernel"], curve["axis"]) for curve in curves} >= {("kde_em", axis) for axis in "MRN"}
    assert {curve["kernel"] for curve in curves if curve["axis"] == "N"} == set(KERNELS)
    for curve in curves:
        assert len(curve["values"]) == len(curve["seconds"]) >= 3
        assert min(curve["seconds"]) > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


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


def test_the_attacks_are_measured_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    chosen = ["loss threshold", "LiRA online", "RMIA offline"]
    attacks.main(["--quick", "--set", "digits", "--attack", *chosen, "--json", str(file)])
    text = file.read_text(encoding="utf-8")
    result = json.loads(text)
    assert [(row["attack"], row["shadows"]) for row in result["rows"]] == [
        ("loss threshold", 0),
        ("LiRA online", 4),
        ("LiRA online", 16),
        ("RMIA offline", 4),
        ("RMIA offline", 16),
    ]
    for row in result["rows"]:
        value, low, high = row["tpr_at_0.01"]
        assert 0 <= low <= value <= high <= 1
        assert 0 < row["auc"] < 1
    # 9 targets of 600 non-members allow 5 false positives at 0.1 %; 4 do not.
    assert result["rows"][0]["tpr_at_0.001"] is not None
    assert result["rows"][-1]["tpr_at_0.001"] is None
    assert result["shadows"]["digits"]["n_models"] == 18
    assert identifies_nobody(text, capsys.readouterr().out)


def test_a_target_is_attacked_with_other_pairs_only() -> None:
    inside = np.zeros((10, 4), dtype=np.bool_)
    shadows = margin_shadows(np.zeros((10, 4)), inside)
    for target in range(10):
        chosen = attacks.shadows_for(shadows, target, 8)
        assert sorted(set(chosen.pairs)) == [pair for pair in range(5) if pair != target // 2]
        assert len(attacks.shadows_for(shadows, target, 4)) == 4
