"""The standard benchmarks and the publishing paper's attacks run in miniature, and what they print is right."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.papers import datasets, model_publishing, publishing_views, results, standard_benchmarks
from privkernels.attacks import LossThreshold, Shadows
from privkernels.audit.summary import tpr_bound
from privkernels.data import load
from privkernels.errors import CorruptFileError, DataUnavailableError, InvalidArgumentError
from privkernels.publishing import DpPgSettings
from privkernels.randomness import Key
from privkernels.training import TrainingConfig
from tests.test_benchmarks import identifies_nobody

SMALL = standard_benchmarks.Setting(300, "mlp-16", TrainingConfig(epochs=6, batch_size=32, learning_rate=0.2))
DIGITS = load("digits").train


def test_the_standard_benchmarks_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(standard_benchmarks.SETTINGS, "digits", SMALL)
    file, cache = tmp_path / "result.json", tmp_path / "cache"
    arguments = ["--data-root", str(tmp_path), "--dataset", "digits", "--quick", "--cache", str(cache)]
    standard_benchmarks.main([*arguments, "--json", str(file)])
    text = file.read_text(encoding="utf-8")
    (study,) = json.loads(text)["studies"]
    assert (study["networks"], study["targets"], study["pool"]) == (10, 2, 1000)
    counted = [(row["attack"], row["shadows"]) for row in study["rows"]]
    assert counted == [("loss threshold", 0)] + [(name, k) for name in standard_benchmarks.ATTACKS for k in (4, 8)]
    for row in study["rows"]:
        for value, low, high in row["tpr_at_1_percent"]["clopper_pearson"]:
            assert 0 <= low <= value <= high <= 1
        assert row["auc"]["mean"] == pytest.approx(np.mean(row["auc"]["targets"]))
        assert row["auc"]["standard_error"] == pytest.approx(abs(np.diff(row["auc"]["targets"])[0]) / 2)
    printed = capsys.readouterr().out
    assert "\n".join(standard_benchmarks.table(study)) in printed
    assert identifies_nobody(text, printed)
    # Ten networks on disc, which a second run finds.
    trained = sorted(cache.rglob("*.safetensors"))
    standard_benchmarks.main(arguments)
    assert sorted(cache.rglob("*.safetensors")) == trained


@pytest.fixture(scope="module")
def shadows() -> Shadows:
    make_model = standard_benchmarks.partial(standard_benchmarks._network, SMALL.model, DIGITS)
    return standard_benchmarks.train_shadows(make_model, DIGITS.subset(range(SMALL.pool)), SMALL.config, 10)


@pytest.mark.parametrize("target", [0, 4])
def test_neither_the_target_nor_its_complement_serves_the_attack(shadows: Shadows, target: int) -> None:
    used = {}
    for count in (4, 8):
        attack = standard_benchmarks.fitted(shadows, target, "LiRA online", count, Key.from_seed(0))
        own: Shadows = attack.shadows_  # type: ignore[attr-defined]
        assert len(own) == count
        assert own.inside.sum(axis=0).tolist() == [count // 2] * SMALL.pool  # whole pairs
        assert shadows.paths[target] not in own.paths
        assert shadows.paths[target + 1] not in own.paths
        used[count] = set(own.paths)
    assert used[4] < used[8]
    assert isinstance(standard_benchmarks.fitted(shadows, target, "", 0, Key.from_seed(0)), LossThreshold)


def test_networks_that_learnt_nothing_leak_nothing() -> None:
    config = replace(SMALL.config, epochs=1, learning_rate=1e-7)
    study = standard_benchmarks.study("digits", DIGITS, replace(SMALL, config=config), counts=(8,), targets=4)
    for row in study["rows"]:
        # One target's AUC has a standard error of 0.033 under the null, the mean of four (correlated) at most that.
        assert abs(row["auc"]["mean"] - 0.5) < 4 * 0.033


@pytest.mark.parametrize(("counts", "targets"), [((4, 7), 2), ((2,), 2), ((4,), 1), ((4, 8), 6)])
def test_shadow_models_without_pairs_are_refused(counts: tuple[int, ...], targets: int) -> None:
    with pytest.raises(InvalidArgumentError, match="pair"):
        standard_benchmarks.study("digits", DIGITS, SMALL, counts=counts, targets=targets)


def test_overfitted_networks_leak(shadows: Shadows) -> None:
    row = standard_benchmarks.attack_all(shadows, (0, 2, 4), "LiRA imputed", 8, Key.from_seed(0))
    assert row["auc"]["mean"] > 0.53


@pytest.mark.parametrize(("rate", "share"), [(0.001, 0.25), (0.1, 0.5), (0.29, 0.75), (0.5, 1.0)])
def test_the_share_found_at_a_rate(rate: float, share: float) -> None:
    nonmembers = np.arange(10.0)
    assert standard_benchmarks.share_found(np.array([6.5, 8.0, 8.5, 9.5]), nonmembers, rate) == share
    # A tie with the threshold is no find.
    assert standard_benchmarks.share_found(np.array([9.0, 9.0]), nonmembers, 0.001) == 0.0


def test_equal_records_enter_the_pool_once() -> None:
    pool = standard_benchmarks._distinct(DIGITS.subset([5, 3, 5, 5, 8, 3, 9, 7]), 4)
    assert pool.x.equal(DIGITS.x[[5, 3, 8, 9]])
    assert pool.y.equal(DIGITS.y[[5, 3, 8, 9]])


def test_a_file_keeps_its_other_data_sets(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    for name, figure in (("one", 1), ("two", 2), ("one", 3)):
        results.put_study(file, "toy", {"dataset": name, "figure": figure}, other=5)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["benchmark"], found["other"]) == ("toy", 5)
    studies = found["studies"]
    assert [(study["dataset"], study["figure"]) for study in studies] == [("one", 3), ("two", 2)]


def test_location_30_is_read_and_another_file_refused(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailableError, match=r"location30\.npz"):
        datasets.read_records("location-30", tmp_path)
    x, y = np.eye(40, 446, dtype=np.uint8), np.arange(40, dtype=np.uint8) % 30
    np.savez(tmp_path / "location30.npz", x=x, y=y)
    records = datasets.read_records("location-30", tmp_path)
    assert records.x.equal(torch.eye(40, 446))
    assert records.y.tolist() == y.tolist()
    assert records.n_classes == 30
    np.savez(tmp_path / "location30.npz", x=x)
    with pytest.raises(CorruptFileError, match="x and y"):
        datasets.read_location(tmp_path)


def test_centred_pixels() -> None:
    x = datasets.centred(DIGITS).x
    assert (x.min(), x.max()) == (-2, 2)
    assert datasets.read_records("digits", Path()).x.equal(DIGITS.x)


def test_the_papers_attacks_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(model_publishing.SETTINGS, "digits", model_publishing.Setting(200, "mlp-16", SMALL.config))
    file, images = tmp_path / "result.json", tmp_path / "images"
    arguments = ["--data-root", str(tmp_path), "--dataset", "digits", "--quick", "--images", str(images)]
    model_publishing.main([*arguments, "--figure", "9", "--json", str(file)])
    text = file.read_text(encoding="utf-8")
    (study,) = json.loads(text)["studies"]
    member, paper, proven = study["rows"]
    assert (member["claimed"], member["proven"], member["unit"]) == (None, None, None)
    assert (paper["claimed"], paper["proven"], paper["unit"]) == (1.0, None, "parameter")
    assert paper["not_proven_because"]
    assert 0 < proven["proven"]["epsilon"] <= 10.0
    assert proven["unit"] == "example"
    for row in study["rows"]:
        assert set(row["attacks"]) == {"loss threshold", "shadow models", "bayes-wb", "general-wb"}
        for attack in row["attacks"].values():
            for name in ("auc", "accuracy", "recall", "precision"):
                value, low, high = attack[name]
                assert 0 <= low <= value <= high <= 1
            assert len(attack["per_class"]) == 10
    printed = capsys.readouterr().out
    for view, wanted in (
        (publishing_views.figure8, False), (publishing_views.figure9, True), (publishing_views.table2, False),
        (publishing_views.three_numbers, True),
    ):  # fmt: skip
        assert ("\n".join(view(study)) in printed) == wanted
    assert identifies_nobody(text, printed)
    for name in ("figure8.png", "figure9.png"):
        assert (images / name).read_bytes().startswith(b"\x89PNG")


def test_every_method_has_its_budget() -> None:
    methods = model_publishing.methods()
    assert methods[0].publish is None
    for method in methods[1:]:
        settings: DpPgSettings = method.publish.keywords["settings"]  # type: ignore[union-attr]
        assert settings.epsilon == method.epsilon
        assert method.name == f"DP-PG, {settings.mode} mode"
    assert len({(method.name, method.epsilon) for method in methods}) == len(methods)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (math.log(3), 0.0), (1.0, 1e-2), (3.0, 0.2), (800.0, 0.0)])
def test_the_accuracy_that_privacy_allows(epsilon: float, delta: float) -> None:
    rates = np.linspace(0, 1, 20001)
    best = max((tpr_bound(epsilon, delta, rate) + 1 - rate) / 2 for rate in rates)
    assert publishing_views.accuracy_allowed(epsilon, delta) == pytest.approx(best, abs=1e-4)
    assert publishing_views.accuracy_allowed(math.log(3)) == pytest.approx(0.75)


def attack(value: float, classes: list[list[float] | None]) -> dict[str, object]:
    figure = [value, value - 0.1004, value + 0.1004]
    return dict.fromkeys(("accuracy", "recall", "precision", "tpr_at_1_percent"), figure) | {"per_class": classes}


def study_of(rows: list[tuple[str, float | None, float, list[list[float] | None]]]) -> dict[str, object]:
    names = (publishing_views.BLACK_BOX, *publishing_views.WHITE_BOX)
    return {
        "dataset": "toy",
        "rows": [
            {
                "method": method, "epsilon": epsilon, "claimed": epsilon, "unit": "parameter", "test_accuracy": 0.9,
                "proven": None if epsilon is None else {"epsilon": 2 * epsilon, "delta": 0.0},
                "attacks": {name: attack(value, classes) for name in names},
            }
            for method, epsilon, value, classes in rows
        ],
    }  # fmt: skip


def test_the_views_average_over_draws_and_leave_out_what_is_not_known() -> None:
    known = [[0.5, 0.4, 0.6], [0.7, 0.6, 0.8]]
    study = study_of(
        [
            ("unprotected member", None, 0.6, [[0.6, 0.5, 0.7], None]),
            ("m", 1.0, 0.5, known),
            ("m", 1.0, 0.7, [[0.7, 0.6, 0.8], [0.7, 0.6, 0.8]]),
        ]
    )
    assert publishing_views.figure8(study) == [
        "| toy | class 0 | class 1 |",
        "| --- | --- | --- |",
        "| unprotected member | 60.0 | - |",
        "| m, ε = 1 | 60.0 | 70.0 |",
    ]
    # 49.96 to 70.04, rounded outwards; no average over classes where one is not known.
    assert publishing_views.figure9(study)[2].startswith("| unprotected member | - (49.9 to 70.1) |")
    assert publishing_views.figure9(study)[3].startswith("| m, ε = 1 | 65.0 (49.9 to 70.1) |")
    assert publishing_views.table2(study)[3] == f"| m, ε = 1 |{' 60.0 / 60.0 / 60.0 |' * 3} 90.0 |"
    numbers = publishing_views.three_numbers(study)
    assert numbers[2].startswith("| unprotected member | none | none | 60.0")
    assert numbers[3].startswith("| m, ε = 1 | 1 [73.1] | 2 per parameter [88.1] | 60.0 (49.9 to 70.1)")
