"""privkernels audit of any model: exit codes, files, and what it says when something is wrong."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from privkernels import audit
from privkernels.audit import make_canaries
from privkernels.audit.self_test import Calibration
from privkernels.data import Records
from privkernels.randomness import Key
from tests.support.commands import fails, run
from tests.support.membership import play

QUICK = ("--epochs", 20, "--batch-size", 32, "--learning-rate", 0.1, "--shadows", 8)


def save(path: Path, records: Records) -> Path:
    ward = np.where(np.arange(len(records)) % 2, "north", "south")
    np.savez(path, x=records.x.numpy(), y=records.y.numpy(), ward=ward)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overfitted network, its members and non-members, as files."""
    folder, game = tmp_path_factory.mktemp("files"), play()
    save_file(game.target.state_dict(), folder / "model.safetensors")
    # A third of them: every command makes every attack.
    save(folder / "a.npz", game.members.subset(range(200)))
    save(folder / "b.npz", game.nonmembers.subset(range(200)))
    return folder


def command(files: Path, *more: object) -> tuple[object, ...]:
    return ("audit", files / "model.safetensors", "--model", "mlp-32", "--members", files / "a.npz",
            "--non-members", files / "b.npz", *more)  # fmt: skip


def test_a_leak_exits_with_1_and_leaves_its_files(files: Path, tmp_path: Path) -> None:
    report, figures = tmp_path / "report.html", tmp_path / "audit.json"
    asked = ("--max-auc", 0.55, "--subgroup", "ward", "--invert", "hidden", "--report", report, "--json", figures)
    done = run(*command(files, *QUICK, *asked))
    assert done.returncode == 1, done.stderr
    assert "above the 0.55 that is allowed" in done.stdout
    assert "was chosen among" in done.stdout
    assert "Subgroups that leak more than guessing: " in done.stdout
    assert "(of 12 tested" in done.stdout
    assert "training shadow models" in done.stderr
    saved = json.loads(figures.read_text())
    assert saved["format"] == "privkernels model audit 1"
    assert saved["n_shadows"] == 8
    assert [(found["layer"], found["n_records"]) for found in saved["reconstructions"]] == [("hidden", 8)]
    assert "from hidden:" in done.stdout
    assert "model.safetensors, inverted from hidden" in report.read_text()
    assert [group["name"] for group in saved["verdicts"][0]["subgroups"]["groups"][10:]] == [
        "ward = north", "ward = south",
    ]  # fmt: skip
    assert '<h2 id="decision">' in report.read_text()
    assert "each class and each value of ward" in report.read_text()


def test_a_layer_that_is_not_there_ends_the_audit_before_the_long_work(files: Path) -> None:
    assert "choose one of hidden, output" in fails(*command(files, "--invert", "nothing"))


def test_below_exits_with_0_and_undecided_with_2(files: Path) -> None:
    assert run(*command(files, *QUICK, "--max-tpr", "0.9@0.1")).returncode == 0
    undecided = run(*command(files, *QUICK, "--max-tpr", "0.01@0.001"))
    assert undecided.returncode == 2
    assert "undecided" in undecided.stdout
    assert run(*command(files, *QUICK)).returncode == 0, "nothing was asked"


def test_two_sources_exit_with_2(files: Path, tmp_path: Path) -> None:
    with np.load(files / "b.npz") as arrays:
        np.savez(tmp_path / "b.npz", x=arrays["x"] * np.float32(1.2), y=arrays["y"])
    done = run(*command(files, *QUICK, "--max-auc", 0.99, "--non-members", tmp_path / "b.npz"))
    assert done.returncode == 2
    assert "void" in done.stdout


def test_the_cache_serves_a_second_audit(files: Path, tmp_path: Path) -> None:
    first = run(*command(files, *QUICK, "--cache", tmp_path))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("member-*.safetensors")}
    assert len(written) == 8
    second = run(*command(files, *QUICK, "--cache", tmp_path))
    assert first.returncode == second.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("member-*.safetensors")} == written


def test_mistakes_are_named_on_one_line(files: Path, tmp_path: Path) -> None:
    assert "give --model" in fails("audit", files / "model.safetensors", "--members", files / "a.npz")
    assert "0.01@0.001" in fails(*command(files, "--max-tpr", "one percent"))
    assert "10m" in fails(*command(files, "--budget", "soon"))
    assert "no model" in fails("audit", files / "none.safetensors", *command(files)[2:])
    assert "instead of" in fails(*command(files, "--model", "mlp-16"))
    assert "given twice" in fails("audit", files / "model.safetensors", *command(files)[1:])
    (tmp_path / "c.npz").write_bytes((files / "a.npz").read_bytes()[:1000])
    assert "is damaged" in fails(*command(files, "--members", tmp_path / "c.npz"))
    assert "go with --members as a .npz" in fails(*command(files, "--data", "digits"))
    release = ("audit", files, "--members", files, "--data", "digits")
    for option in (("--public", files), ("--classes", 10), ("--test", files / "a.npz"), ("--subgroup", "ward")):
        assert f"{option[0]} go with" in fails(*release, *option), "an option that is not looked at is refused"
    assert "--data" in fails(*command(files, "--member-records", files / "a.npz"))
    with np.load(files / "b.npz") as arrays:
        np.savez(tmp_path / "d.npz", x=arrays["x"], y=arrays["y"])
    plain = ("--subgroup", "ward", "--non-members", tmp_path / "d.npz")
    assert "d.npz holds ['x', 'y'] and no 'ward'" in fails(*command(files, *plain))
    assert "x and y are no attributes" in fails(*command(files, "--subgroup", "y"))
    (tmp_path / "model.pt").write_bytes(b"\x80\x04pickle")
    assert "pickle" in fails("audit", tmp_path / "model.pt", *command(files)[2:])


def test_the_self_test_counts_false_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    few = functools.partial(audit.self_test, 10)
    monkeypatch.setattr(audit, "self_test", few)
    done = run("audit", "--self-test")
    assert done.returncode == 0
    assert "Passed: 10 audits" in done.stdout
    failing = dataclasses.replace(few(), calibrations=(Calibration("a", 10, 9, 0.9, 1.0, 0.05, False),))
    monkeypatch.setattr(audit, "self_test", lambda **_: failing)
    assert run("audit", "--self-test").returncode == 1


def test_canaries_come_from_their_file(files: Path, tmp_path: Path) -> None:
    with np.load(files / "b.npz") as arrays:
        records = Records(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]), 10, "b")
    make_canaries(records, 50, "natural", Key.from_seed(1)).save(tmp_path / "canaries.safetensors")
    done = run(*command(files, "--shadows", 1, "--epochs", 1, "--canaries", tmp_path / "canaries.safetensors"))
    assert done.returncode == 0, done.stderr
    assert "epsilon >= 0 at delta = 1e-05" in done.stdout
    assert "holds no canaries" in fails(*command(files, "--canaries", files / "model.safetensors"))


def test_a_release_is_audited_like_any_model(members: Path, tmp_path: Path) -> None:
    """Every option but those that say which records: the folder of members and the data set say it."""
    release, report, figures = tmp_path / "release", tmp_path / "report.html", tmp_path / "audit.json"
    assert run("publish", members, "--epsilon", 1, "--mode", "paper", "--out", release).returncode == 0
    command = ("audit", release, "--members", members, "--data", "digits", "--max-records", 25, "--shadows", 8)
    asked = ("--max-auc", 0.501, "--max-tpr", "0.9@0.3", "--budget", "1h", "--cache", tmp_path / "shadows")
    done = run(*command, *asked, "--invert", "hidden", "--report", report, "--json", figures)
    assert done.returncode in (1, 2), "no 25 members show an AUC of at most 0.501"
    assert "was chosen among" in done.stdout
    assert "unprotected member: for comparison; no threshold is decided for it" in done.stdout
    assert f"{release}: AUC at most 0.501: " in done.stdout
    found = audit.ModelAudit.load(figures)
    assert found.budget == 3600
    assert {row.attack for row in found.plan if row.ran} >= {"LiRA online", "RMIA online", "bayes-wb"}
    assert not any("not audited" in row.reason for row in found.plan), "there are public records"
    compared, judged = found.verdicts
    assert (compared.outcome, compared.decisions) == ("not judged", ())
    assert [decision.threshold.most for decision in judged.decisions] == [0.9, 0.501]
    assert found.outcome == judged.outcome
    assert {"blind baseline", "shared records"} <= {guard.name for guard in found.guards}
    # Those of the attacker's own pool, too.
    assert len(list((tmp_path / "shadows").glob("shadows-*"))) == 2
    words = report.read_text()
    assert '<h2 id="decision">' in words
    assert "For comparison" in words
    assert "released value" in words
    assert f"{release}, inverted from hidden" in words


def test_how_members_were_trained_is_said_once(members: Path, tmp_path: Path) -> None:
    audited = ("audit", tmp_path, "--members", members, "--data", "digits")
    assert "leave out --epochs, --learning-rate" in fails(*audited, "--epochs", 3, "--learning-rate", 0.1)


def test_without_models_it_says_what_is_missing() -> None:
    assert "give the models" in fails("audit")


def test_compare_sets_models_side_by_side(files: Path, tmp_path: Path) -> None:
    state = load_file(files / "model.safetensors")
    name = next(name for name, tensor in state.items() if tensor.dim() > 1)
    state[name] = torch.where(state[name].abs() < state[name].abs().median(), 0.0, state[name])
    save_file(state, tmp_path / "pruned.safetensors")
    models = files / "model.safetensors", tmp_path / "pruned.safetensors"
    done = run("compare", *models, *command(files)[2:], *QUICK, "--subgroup", "ward", "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    left = sum(int(tensor.count_nonzero()) for tensor in state.values())
    for words in ("not zero", f"{left:,}", "proven", "pruned.safetensors", "these sentences together", "(of 12 tested"):
        assert words in done.stdout
    assert len(json.loads((tmp_path / "c.json").read_text())["pairs"]) == 1
    assert "two or more" in fails("compare", models[0], *command(files)[2:])
