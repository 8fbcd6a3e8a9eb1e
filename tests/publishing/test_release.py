"""The release folder: whole or absent, safe to read, and never apart from its guarantee."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from privkernels import _files
from privkernels.errors import CorruptFileError, DiskFullError, FileMissingError, OutputExistsError
from privkernels.privacy import Bound, Unit, compose
from privkernels.publishing import DpPgSettings, ParameterCollection, Release, dp_pg
from privkernels.publishing.card import model_card
from privkernels.randomness import Key


@pytest.fixture
def release(make_members):
    settings = DpPgSettings(1.0, constant_tensors_are_public=True)
    return dp_pg(ParameterCollection.open(make_members(5)), settings, key=Key.generate())


def test_round_trip(release, tmp_path):
    folder = release.save(tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "guarantee.json",
        "model.safetensors",
    ]
    again = Release.load(folder)
    assert again.guarantee == release.guarantee
    assert again.description == json.loads(json.dumps(dict(release.description)))
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in release.tensors.items())


def test_a_release_says_what_it_cost_so_that_it_can_be_added_to_others(release, tmp_path):
    again = Release.load(release.save(tmp_path / "out"))
    assert again.events == release.events
    event = again.events[Unit.EXAMPLE]
    proven = release.guarantee.proven
    assert compose([event], 1e-5) == Bound(proven.epsilon, proven.delta, proven.accountant)
    assert compose([event, event], 1e-5).epsilon > proven.epsilon
    damaged = replace(release, description={**release.description, "events": "[1]"})
    with pytest.raises(CorruptFileError, match="events"):
        _ = damaged.events


def test_an_existing_folder_is_not_overwritten(release, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("the only copy")
    with pytest.raises(OutputExistsError, match="not empty"):
        release.save(out)
    with pytest.raises(OutputExistsError, match="something else than a release"):
        release.save(out, replace=True)
    assert (out / "thesis.txt").read_text() == "the only copy"
    (out / "thesis.txt").unlink()
    release.save(out)
    release.save(out, replace=True)
    assert Release.load(out).guarantee == release.guarantee


def test_a_swapped_guarantee_is_noticed(release, tmp_path):
    folder = release.save(tmp_path / "out")
    value = json.loads((folder / "guarantee.json").read_text())
    value["guarantee"]["proven"]["epsilon"] = 0.001
    (folder / "guarantee.json").write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match="not the guarantee"):
        Release.load(folder)


@pytest.mark.parametrize("name", ["guarantee.json", "model.safetensors"])
def test_missing_and_damaged_files(release, tmp_path, name):
    path = release.save(tmp_path / "out") / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CorruptFileError, match=name):
        Release.load(path.parent)
    path.unlink()
    with pytest.raises(FileMissingError, match=name):
        Release.load(path.parent)


def test_a_model_without_a_guarantee_is_not_a_release(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "guarantee.json").write_text("{}")
    with pytest.raises(CorruptFileError, match="no guarantee"):
        Release.load(tmp_path)


def test_no_room_leaves_nothing(release, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files, "save_file", full)
    with pytest.raises(DiskFullError, match="free some space"):
        release.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


_LIMITED = """
import resource, sys
from privkernels.errors import DiskFullError
from privkernels.publishing import *
from privkernels.randomness import Key
release = dp_pg(ParameterCollection.open(sys.argv[1]), DpPgSettings(1.0), key=Key.generate())
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    release.save(sys.argv[2])
except DiskFullError as error:
    print("full:", error)
"""


def test_a_write_that_the_system_refuses_leaves_nothing(make_members, tmp_path):
    command = [sys.executable, "-c", _LIMITED, str(make_members(3)), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("full: no room left")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


_SLOW = """
import sys, time
from privkernels import _files, workflow
from privkernels.publishing import DpPgSettings, release
write = _files.write_json
def slow(path, value, **options):
    print("writing", flush=True)
    time.sleep(30)
    write(path, value, **options)
release._files.write_json = slow
workflow.publish(sys.argv[1], DpPgSettings(1.0), sys.argv[2])
"""


def test_killed_while_publishing(make_members, tmp_path):
    """SIGKILL between two files: no release is there, and publishing again gives a whole one."""
    members, out = make_members(5), tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(members), str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    leftovers = list(tmp_path.glob(".out*"))
    assert leftovers, "the case is too early to leave anything half-written"
    dp_pg(ParameterCollection.open(members), DpPgSettings(1.0), key=Key.generate()).save(out)
    assert Release.load(out).tensors
    assert not list(tmp_path.glob(".out*"))


def test_the_card_says_both_numbers_and_escapes_what_came_from_files(release):
    text = model_card(release.guarantee, {"title": "<script>alert(1)</script>\n# Other", "model": "a`b|c"})
    assert "<script>" not in text
    assert "\n# Other" not in text
    assert "claimed by the paper" in text
    assert "| proven | 1 | 1e-05 | one example |" in text
    assert "No attack was run" in text
    assert "- [ ] The key is secret" in text
    rows = [{"target": "a|b", "accuracy": "90%", "auc": "0.5", "tpr": "1%"}]
    assert "| a&#124;b | 90% | 0.5 | 1% |" in model_card(release.guarantee, {}, rows)


def test_the_card_of_an_unproven_release_speaks_of_no_proof(make_members):
    settings = DpPgSettings(1.0, mode="paper")
    guarantee = dp_pg(ParameterCollection.open(make_members(5)), settings, key=Key.generate()).guarantee
    text = model_card(guarantee, {})
    assert "The proof" not in text
    assert "| proven | none | none |" in text
