"""The commands, as a user types them, on digits; and what they say when something is wrong."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from privkernels import workflow
from privkernels.attacks import LossThreshold, ShadowModelAttack
from privkernels.cli.app import app
from privkernels.cli.options import DATA_NAMES, MODEL_NAMES
from privkernels.publishing import Release
from privkernels.training import load_training
from tests.support.commands import TRAIN, fails, run


@pytest.fixture(autouse=True)
def few_attacks(monkeypatch):
    """All attacks on a release are in test_audit.py; here, those that take no time."""
    monkeypatch.setattr(workflow, "all_attacks", lambda records: [LossThreshold(), ShadowModelAttack()])


@pytest.fixture(scope="module")
def release(members):
    out = members.parent / "release"
    done = run("publish", members, "--method", "dp-pg", "--mode", "paper", "--epsilon", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "claims epsilon = 1" in done.stdout
    assert "Proven: nothing" in done.stdout
    return out


def test_train_shows_progress_and_says_that_members_are_private(tmp_path):
    done = run(*TRAIN, tmp_path / "members")
    assert done.returncode == 0
    assert "training members" in done.stderr
    assert "They are private" in done.stdout
    assert len(list((tmp_path / "members").glob("member-*.safetensors"))) == 4


def test_publish_and_audit(members, release):
    assert Release.load(release).guarantee.proven is None
    report, figures = release.parent / "report.html", release.parent / "audit.json"
    done = run(
        "audit",
        release,
        "--members",
        members,
        "--data",
        "digits",
        "--shadows",
        2,
        "--report",
        report,
        "--json",
        figures,
    )
    assert done.returncode == 0, done.stderr
    for words in ("unprotected member", "release", "loss threshold", "shadow models", "none"):
        assert words in done.stdout
    assert "do not publish it" in done.stdout
    assert report.read_text().startswith("<!DOCTYPE html>") or "<html" in report.read_text()
    found = json.loads(figures.read_text())
    assert [target["name"] for target in found["result"]["targets"]] == ["unprotected member", str(release)]
    assert found["n_shadows"] == 2


def test_publish_with_a_proof_by_default(members, tmp_path):
    done = run("publish", members, "--epsilon", 1, "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    assert "Proven: epsilon = 1, delta = 1e-05 for one training record" in done.stdout
    assert "Near-uniform" in done.stdout
    guarantee = Release.load(tmp_path / "r").guarantee
    assert guarantee.proven.epsilon <= 1
    assert guarantee.unit == "example"


def test_a_release_does_not_say_which_records_were_used(members, release):
    text = (release / "guarantee.json").read_text() + (release / "README.md").read_text()
    assert "pool" not in text
    training = json.loads((members / "training.json").read_text())["data_description"]
    assert len(training["key"]) == 64
    assert training["key"] not in text
    assert str(members) not in text


FACTORY = """
from torch import nn

def tiny():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_members_trained_elsewhere(tmp_path):
    (tmp_path / "mymodels.py").write_text(FACTORY)
    (tmp_path / "mine").mkdir()
    for i in range(3):
        tensors = {"1.weight": torch.randn(10, 64) * 0.1, "1.bias": torch.zeros(10) + i}
        save_file(tensors, tmp_path / "mine" / f"run-{i}.safetensors")
    model = ("--model", "mymodels:tiny")
    done = run("publish", "mine", "--epsilon", 1, "--mode", "paper", *model, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "out" / "model.safetensors")["1.weight"].shape == (10, 64)
    done = run("audit", "out", "--members", "mine", "--data", "digits", "--shadows", 2, *model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line = fails("audit", "out", "--members", "mine", "--data", "digits", cwd=tmp_path)
    assert "give model" in line


def test_who_was_used_decides_what_an_audit_finds(members, release, tmp_path):
    """The same members as files from elsewhere: a warning, and figures that are right with the record list."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in members.glob("member-*.safetensors"):
        shutil.copy(path, outside)
    audit = ("audit", release, "--members", outside, "--data", "digits", "--shadows", 2, "--model", "mlp")
    assert "the whole training split counts as members" in run(*audit).stdout
    own = tmp_path / "own.txt"
    run_ = load_training(members)
    pool = workflow.pool_indices(1197, 200, workflow._recorded_key(run_))
    own.write_text("\n".join(str(int(i)) for i in pool[run_.subsets.indices(0)]))
    done = run(*audit, "--member-records", own, "--json", tmp_path / "a.json")
    assert "counts as members" not in done.stdout
    assert json.loads((tmp_path / "a.json").read_text())["result"]["members"]["n"] == 100
    own.write_text("1 x 2")
    assert "holds 'x'" in fails(*audit, "--member-records", own)
    own.write_text("5000")
    assert "indices from 0 to 1196" in fails(*audit, "--member-records", own)


def test_the_table_fits_80_columns(members, release):
    command = ("audit", release, "--members", members, "--data", "digits", "--shadows", 2)
    done = CliRunner().invoke(app, list(map(str, command)), env={"COLUMNS": "80"})
    lines = [line for line in done.stdout.splitlines() if line[:1] in set("┏┃┡│├└")]
    assert len(lines) > 10
    assert {len(line) for line in lines} == {80}
    assert all(line[-1] in "┓┃┩│┤┘" for line in lines)


def test_nothing_but_a_release_is_replaced(members, tmp_path):
    publish = ("publish", members, "--epsilon", 1, "--mode", "paper", "--replace", "--out")
    before = sorted(path.name for path in members.iterdir())
    assert "something else than a release" in fails(*publish, members)
    assert sorted(path.name for path in members.iterdir()) == before
    assert run(*publish, tmp_path / "r").returncode == 0
    assert run(*publish, tmp_path / "r").returncode == 0


def test_outputs_that_cannot_be_written_are_one_line_and_early(members, release, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in fails("publish", members, "--epsilon", 1, "--out", tmp_path / "file")
    for out in (tmp_path / "file" / "sub", "/proc/nothing/here"):
        assert "error" in fails("publish", members, "--epsilon", 1, "--out", out)
    audit = ("audit", release, "--members", members, "--data", "digits")
    assert "is a folder" in fails(*audit, "--report", tmp_path)
    assert "given twice" in fails("audit", release, *audit[1:])


def test_only_a_release_is_readable_by_others(members, release):
    assert (members / "training.json").stat().st_mode & 0o077 == 0
    assert (members / "member-0000.safetensors").stat().st_mode & 0o077 == 0
    mask = os.umask(0)
    os.umask(mask)
    for name in ("model.safetensors", "guarantee.json", "README.md"):
        assert (release / name).stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_damaged_member_is_trained_again(members, tmp_path):
    folder = tmp_path / "members"
    shutil.copytree(members, folder)
    # Copied, because the tensors are a view of the file that is about to be damaged.
    whole = {name: value.clone() for name, value in load_file(folder / "member-0002.safetensors").items()}
    (folder / "member-0002.safetensors").write_bytes(b"half")
    assert "1 of 4 members are not trained yet" in fails("publish", folder, "--epsilon", 1, "--out", tmp_path / "r")
    assert run(*TRAIN, folder).returncode == 0
    again = load_file(folder / "member-0002.safetensors")
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_fixed_work(members, tmp_path):
    publish = ("publish", members, "--epsilon", 1, "--mode", "paper", "--seed", 1)
    for work in ("lazy", "fixed"):
        assert run(*publish, "--work", work, "--out", tmp_path / work).returncode == 0
    lazy, fixed = (load_file(tmp_path / work / "model.safetensors") for work in ("lazy", "fixed"))
    assert any(not torch.equal(lazy[name], fixed[name]) for name in lazy)
    assert "work must be one of lazy, fixed" in fails(*publish, "--work", "x", "--out", tmp_path / "x")


def test_the_quality_loop(members, tmp_path):
    loop = (
        "publish",
        members,
        "--epsilon",
        1,
        "--mode",
        "paper",
        "--max-tries",
        3,
        "--validation-data",
        "digits",
    )
    public = run(*loop, "--min-accuracy", 0.3, "--validation-is-public", "--out", tmp_path / "a")
    assert public.returncode == 0, public.stderr
    private = run(*loop, "--min-accuracy", 0.3, "--validation-is-private", "--out", tmp_path / "b")
    assert "accepted or rejected on private records" in private.stdout
    assert "never done silently" in fails(*loop, "--min-accuracy", 0.5, "--out", tmp_path / "c")
    assert "none of 3 tries" in fails(*loop, "--min-accuracy", 1, "--validation-is-public", "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_the_model_that_is_named_must_fit(members, tmp_path):
    line = fails("publish", members, "--epsilon", 1, "--model", "mnist-net", "--out", tmp_path / "r")
    assert "tensor" in line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("epsilon", ["0", "-1", "nan", "inf"])
def test_bad_epsilon(members, tmp_path, epsilon):
    assert "positive, finite" in fails("publish", members, "--epsilon", epsilon, "--out", tmp_path / "r")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "nonsense", "--model", "mlp"), "nonsense"),
        (("--data", "digits", "--model", "nonsense"), "nonsense"),
        (("--data", "digits", "--model", "no_such_module:f"), "no_such_module"),
        (("--data", "mnist", "--model", "mnist-net", "--data-root", "nowhere"), "nowhere"),
        (("--data", "digits", "--model", "mlp", "--records", "99999"), "99999"),
        (("--data", "digits", "--model", "mlp", "--records", "0"), "0 training records"),
        (("--data", "digits", "--model", "mlp", "--members", "0"), "member"),
        (("--data", "digits", "--model", "mlp", "--subset-fraction", "1.5"), "1.5"),
        (("--data", "digits", "--model", "mlp", "--subsets", "nonsense"), "nonsense"),
        (
            (
                "--data",
                "digits",
                "--model",
                "mlp",
                "--records",
                "5",
                "--members",
                "9",
                "--subsets",
                "disjoint-shards",
            ),
            "5",
        ),
        (("--data", "digits", "--model", "mlp", "--learning-rate", "nan"), "learning_rate"),
    ],
)
def test_bad_training_input(tmp_path, arguments, words):
    assert words in fails("train", "--out", tmp_path / "m", *arguments)


def test_bad_members(tmp_path, members):
    publish = ("publish", tmp_path / "m", "--epsilon", 1, "--out", tmp_path / "r")
    assert "not a folder" in fails(*publish)
    (tmp_path / "m").mkdir()
    assert "at least 2 members" in fails(*publish)
    save_file({"a": torch.zeros(3)}, tmp_path / "m" / "a.safetensors")
    assert "at least 2 members, got 1" in fails(*publish)
    save_file({"a": torch.zeros(4)}, tmp_path / "m" / "b.safetensors")
    assert "[4]" in fails(*publish)
    save_file({"a": torch.tensor([0.0, float("nan"), 0.0])}, tmp_path / "m" / "b.safetensors")
    assert "b.safetensors, tensor 'a'" in fails(*publish)
    (tmp_path / "m" / "b.safetensors").write_bytes(b"\x80\x04pickle")
    assert "is a pickle" in fails(*publish)
    assert not (tmp_path / "r").exists()


def test_an_unfinished_training_is_not_published(members, tmp_path):
    folder = tmp_path / "members"
    shutil.copytree(members, folder)
    (folder / "member-0001.safetensors").unlink()
    assert "1 of 4 members are not trained yet" in fails("publish", folder, "--epsilon", 1, "--out", tmp_path / "r")


def test_an_existing_output_is_kept(members, release):
    before = (release / "guarantee.json").read_text()
    assert "not empty" in fails("publish", members, "--epsilon", 1, "--out", release)
    assert (release / "guarantee.json").read_text() == before


def test_other_data_than_trained_on(release, tmp_path):
    folder = tmp_path / "members"
    assert run(*TRAIN, folder).returncode == 0
    facts = json.loads((folder / "training.json").read_text())
    facts["data_description"]["data"] = "mnist"
    (folder / "training.json").write_text(json.dumps(facts))
    assert "trained on 'mnist'" in fails("audit", release, "--members", folder, "--data", "digits")


def test_usage_errors_are_short(tmp_path):
    done = run("publish")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_names_what_there_is():
    from privkernels import data, models

    assert set(DATA_NAMES) == set(data.available())
    assert set(MODEL_NAMES) == set(models.available())


def test_help_does_not_wait_for_torch():
    code = "import sys, privkernels.cli.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_runs_as_a_program():
    done = subprocess.run(["privkernels", "--help"], capture_output=True, text=True, check=True)
    for command in ("train", "publish", "audit", "demo", "doctor"):
        assert command in done.stdout


def test_doctor():
    done = run("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CPU kernels: loaded" in done.stdout
    assert "CUDA kernels:" in done.stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["cpu"]["chosen"] in {"base", "avx2", "avx512"}
    assert facts["cuda"]["reason"]


def test_doctor_with_a_forced_instruction_set():
    facts = json.loads(run("doctor", "--json", PRIVKERNELS_ISA="base").stdout)
    assert facts["cpu"]["chosen"] == "base"
    done = run("doctor", PRIVKERNELS_ISA="mmx")
    assert done.returncode == 1
    assert "NONE: PRIVKERNELS_ISA=mmx is not one of" in done.stdout


def test_a_forced_instruction_set_that_is_unknown_stops_the_work(members, tmp_path):
    line = fails("publish", members, "--epsilon", 1, "--out", tmp_path / "r", PRIVKERNELS_ISA="mmx")
    assert "PRIVKERNELS_ISA=mmx" in line
