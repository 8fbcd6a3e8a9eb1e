from __future__ import annotations

import json

import pytest
import torch

from privkernels.data import Records, load
from privkernels.errors import ConfigurationChangedError, CorruptFileError, FileMissingError
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, leave_one_out, load_training, train_members
from privkernels.training.folder import state_fingerprint

CONFIG = TrainingConfig(epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def records() -> Records:
    return load("digits").train.subset(range(20))


@pytest.fixture
def folder(records, tmp_path):
    return train_members(
        records,
        "linear",
        tmp_path / "out",
        members=3,
        subsets="disjoint-shards",
        config=CONFIG,
        key=Key.from_seed(1),
        data_description={"said": [1, 2.5, None]},
    )


def test_everything_is_read_back(folder, records) -> None:
    run = load_training(str(folder))
    assert run.folder == folder
    assert (run.members, run.model, run.engine) == (3, "linear", "stacked")
    assert run.config == CONFIG
    assert run.subsets.overlap() == 1
    assert (run.input_shape, run.n_classes, run.records_count) == ((1, 8, 8), 10, 20)
    assert run.records_fingerprint == records.fingerprint()
    assert run.data_description == {"said": [1, 2.5, None]}
    assert run.reproducible is True
    assert run.initial_path == folder / "initial.safetensors"
    assert [path.name for path in run.member_paths] == [f"member-{i:04d}.safetensors" for i in range(3)]
    assert run.complete
    assert run.missing == ()


def test_unfinished_runs_are_read_too(folder) -> None:
    (folder / "member-0001.safetensors").unlink()
    run = load_training(folder)
    assert not run.complete
    assert run.missing == (1,)
    assert len(run.member_paths) == 3
    run.load_member(2)
    for member in (1, 3, -1):
        with pytest.raises(FileMissingError, match=f"no member {member}"):
            run.load_member(member)


def test_networks_are_built(folder) -> None:
    run = load_training(folder)
    initial, member = run.build_model(), run.load_member(0)
    assert initial.output.weight.shape == (10, 64)
    assert not torch.equal(initial.output.weight, member.output.weight)


def test_the_records_are_recognised(folder, records) -> None:
    run = load_training(folder)
    run.check_records(records)
    with pytest.raises(ConfigurationChangedError, match=r"19 records; 20 then"):
        run.check_records(records.subset(range(19)))


@pytest.mark.parametrize("name", ["training.json", "subsets.safetensors", "initial.safetensors"])
def test_a_missing_file_is_named(folder, name) -> None:
    (folder / name).unlink()
    with pytest.raises(FileMissingError, match=name):
        load_training(folder)


def test_a_folder_that_does_not_exist(tmp_path) -> None:
    with pytest.raises(FileMissingError, match="nowhere"):
        load_training(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.update(format=2),
        lambda s: s.pop("config"),
        lambda s: s["config"].update(epochs=0),
        lambda s: s["config"].update(colour="red"),
        lambda s: s.update(records=None),
        lambda s: s["key"].pop("reproducible"),
        lambda s: s.update(members="3"),
        lambda s: s.update(members=4),
        lambda s: s["records"].update(count=21),
        lambda s: s["subsets"].update(fingerprint="0"),
    ],
)
def test_damaged_settings_are_refused(folder, damage) -> None:
    settings = json.loads((folder / "training.json").read_text())
    damage(settings)
    (folder / "training.json").write_text(json.dumps(settings))
    with pytest.raises(CorruptFileError, match=r"training\.json"):
        load_training(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
def test_settings_that_are_no_settings_are_refused(folder, text) -> None:
    (folder / "training.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"training\.json"):
        load_training(folder)


def test_subsets_of_another_run_are_noticed(folder) -> None:
    leave_one_out(20, 3, Key.from_seed(2)).save(folder / "subsets.safetensors")
    with pytest.raises(CorruptFileError, match=r"subsets\.safetensors"):
        load_training(folder)


def test_state_fingerprints_tell_states_apart() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}
    variants = [
        state,
        {"a": torch.zeros(3, 2), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3).half(), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor(2)},
        {"a": torch.zeros(2, 3), "c": torch.tensor(1)},
        {"a": torch.zeros(2, 3).bfloat16(), "b": torch.tensor(1)},
    ]
    assert len({state_fingerprint(variant) for variant in variants}) == len(variants)
    strided = {"a": torch.zeros(3, 2).T, "b": torch.tensor(1)}
    assert state_fingerprint(strided) == state_fingerprint(state)
