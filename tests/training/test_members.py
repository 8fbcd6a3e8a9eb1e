from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from privkernels.data import Records, load
from privkernels.errors import (
    ConfigurationChangedError,
    InvalidArgumentError,
    NonFiniteValueError,
    OutputExistsError,
    TooFewRecordsError,
    UnknownNameError,
)
from privkernels.inference import accuracy
from privkernels.models import MLP, build
from privkernels.randomness import Key
from privkernels.training import Subsets, TrainingConfig, load_training, train_members

KEY = Key.from_seed(5)
CONFIG = TrainingConfig(epochs=3, batch_size=8, learning_rate=0.05)


@pytest.fixture(scope="module")
def records() -> Records:
    return load("digits").train.subset(range(60))


@pytest.fixture
def train(records, tmp_path):
    """train_members with short settings; what a test is about is given."""

    def run(name: str = "out", model="mlp-8", *, records=records, key=KEY, config=CONFIG, members=5, **settings):
        return train_members(records, model, tmp_path / name, members=members, config=config, key=key, **settings)

    return run


def members_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_file(path) for path in sorted(folder.glob("member-*.safetensors"))}


def assert_same_members(a: Path, b: Path, *, exactly: bool = True) -> None:
    first, second = members_of(a), members_of(b)
    assert first.keys() == second.keys()
    for name in first:
        for tensor in first[name]:
            if exactly:
                assert torch.equal(first[name][tensor], second[name][tensor])
            else:
                torch.testing.assert_close(first[name][tensor], second[name][tensor], rtol=1e-4, atol=1e-5)


def test_the_folder_holds_what_the_documentation_says(train, records) -> None:
    folder = train(data_description={"name": "digits", "records": 60})
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["initial.safetensors", "subsets.safetensors", "training.json"]
        + [f"member-{i:04d}.safetensors" for i in range(5)]
    )
    stored = json.loads((folder / "training.json").read_text())
    assert stored["format"] == 1
    assert stored["model"] == "mlp-8"
    assert stored["members"] == 5
    assert stored["config"]["epochs"] == 3
    assert stored["subsets"]["scheme"] == "random-fraction"
    assert stored["records"]["count"] == 60
    assert stored["records"]["fingerprint"] == records.fingerprint()
    assert stored["data_description"] == {"name": "digits", "records": 60}
    assert stored["key"]["reproducible"] is True


def test_the_key_is_not_written(train) -> None:
    key = Key.generate()
    folder = train(key=key)
    labels = ["training/initial", "training/subsets", "training/member/0"]
    secrets = [key.secret, *(key.derive(label).secret for label in labels)]
    for path in folder.iterdir():
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content
            assert secret.hex().encode() not in content
            assert str(int.from_bytes(secret[:8], "little") >> 1).encode() not in content
    assert json.loads((folder / "training.json").read_text())["key"]["reproducible"] is False


def test_members_start_together_and_end_apart(train, records) -> None:
    folder = train(config=TrainingConfig(epochs=1, batch_size=64, learning_rate=1e-12))
    initial = load_file(folder / "initial.safetensors")
    expected = build("mlp-8", input_shape=(1, 8, 8), n_classes=10, seed=KEY.seed_for("training/initial"))
    assert all(torch.equal(tensor, initial[name]) for name, tensor in expected.state_dict().items())
    for state in members_of(folder).values():
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, initial[name], rtol=0, atol=1e-9)
    apart = members_of(train("apart"))
    assert len({state["hidden.weight"].sum().item() for state in apart.values()}) == 5


def test_members_learn_their_own_records_better(records, train) -> None:
    config = TrainingConfig(epochs=60, batch_size=8, learning_rate=0.1)
    run = load_training(train(config=config, members=4))
    for i in range(4):
        network = run.load_member(i)
        inside, outside = records.subset(run.subsets.mask[i]), records.subset(~run.subsets.mask[i])
        assert accuracy(network, inside) == 1
        assert 0.5 < accuracy(network, outside) < 1


@pytest.mark.parametrize(
    ("scheme", "size", "overlap"),
    [("leave-one-out", {59}, 5), ("disjoint-shards", {12}, 1), ("random-fraction", {15}, None)],
)
def test_subset_schemes(train, scheme, size, overlap) -> None:
    run = load_training(train(subsets=scheme, subset_fraction=0.25))
    assert run.subsets.scheme == scheme
    assert set(run.subsets.mask.sum(dim=1).tolist()) == size
    if overlap is not None:
        assert run.subsets.overlap() == overlap


def test_own_subsets_decide_the_number_of_members(train) -> None:
    mask = torch.zeros(2, 60, dtype=torch.bool)
    mask[0, :10] = mask[1, 5:30] = True
    run = load_training(train(subsets=Subsets(mask), members=50))
    assert run.members == 2
    assert torch.equal(run.subsets.mask, mask)
    with pytest.raises(InvalidArgumentError, match="59 records"):
        train("other", subsets=Subsets(mask[:, :59]))


@pytest.mark.parametrize("engine", ["stacked", "processes"])
def test_a_continued_run_has_the_same_bits_and_keeps_what_is_there(train, engine) -> None:
    settings = {"engine": engine, "group_size": 2, "subsets": "disjoint-shards"}
    if engine == "processes":
        settings["workers"] = 1
    whole = train("whole", **settings)
    cut = train("cut", **settings)
    for member in (1, 4):
        (cut / f"member-{member:04d}.safetensors").unlink()
    kept = {path: path.stat().st_mtime_ns for path in cut.iterdir()}
    assert load_training(cut).missing == (1, 4)
    train("cut", **settings)
    assert load_training(cut).complete
    assert_same_members(whole, cut)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_finished_run_trains_nothing_again(train) -> None:
    folder = train()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    def no_work(done: int, total: int, what: str) -> None:
        raise AssertionError("a member was trained again")

    for engine in ("stacked", "auto"):
        train(engine=engine, progress=no_work)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_a_member_does_not_depend_on_its_group(train) -> None:
    folders = [train(f"group{size}", engine="stacked", group_size=size) for size in (1, 2, 5)]
    for folder in folders[1:]:
        assert_same_members(folders[0], folder, exactly=False)


@pytest.mark.parametrize(("model", "expected"), [("mlp-8", 34), ("mlp-2048", 12)])
def test_small_networks_share_one_stack_and_larger_ones_are_not_lost_all_at_once(train, model, expected) -> None:
    # One epoch of one step; 34 members of 156,000 parameters in batches of 60 are work enough in stacks of 16.
    config = TrainingConfig(epochs=1, batch_size=60, learning_rate=0.05)
    settings = json.loads((train(model=model, config=config, members=34) / "training.json").read_text())
    assert settings["engine"] == {"name": "stacked", "group_size": expected}


def test_both_engines_and_any_number_of_workers_agree(train) -> None:
    # Local, so that it travels to the workers as code: a worker may not find this module.
    def with_dropout() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 10))

    stacked = train("stacked", with_dropout, engine="stacked")
    one = train("one", with_dropout, engine="processes", workers=1)
    two = train("two", with_dropout, engine="processes", workers=2)
    assert_same_members(stacked, one, exactly=False)
    assert_same_members(one, two, exactly=False)


def test_more_members_leave_the_first_ones_as_they_were(train) -> None:
    few, many = members_of(train("few", members=2)), members_of(train("many", members=4))
    for name, state in few.items():
        for tensor in state:
            torch.testing.assert_close(state[tensor], many[name][tensor], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"config": TrainingConfig(epochs=4, batch_size=8)}, r"config\.epochs was 3 and is now 4"),
        ({"model": "mlp-9"}, "model was 'mlp-8' and is now 'mlp-9'"),
        ({"members": 6}, "members was 5 and is now 6"),
        ({"key": Key.from_seed(6)}, r"key\.fingerprint"),
        ({"subsets": "disjoint-shards"}, r"subsets\.scheme was 'random-fraction'"),
        ({"subset_fraction": 0.25}, r"subsets\.largest was 30 and is now 15"),
        ({"engine": "processes"}, r"engine\.name was 'stacked'"),
        ({"group_size": 2}, r"engine\.group_size was 5 and is now 2"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(train, changed, says) -> None:
    folder = train()
    (folder / "member-0002.safetensors").unlink()
    with pytest.raises(ConfigurationChangedError, match=says):
        train(**changed)
    assert load_training(folder).missing == (2,)


def test_other_records_in_the_same_folder_are_refused(train, records) -> None:
    train()
    y = records.y.clone()
    y[0] = (y[0] + 1) % 10
    with pytest.raises(ConfigurationChangedError, match=r"records\.fingerprint"):
        train(records=Records(records.x, y, 10, records.name))


def test_another_initialisation_under_the_same_name_is_refused(train) -> None:
    def zeros() -> nn.Module:
        network = MLP((1, 8, 8), 10, 8)
        nn.init.zeros_(network.output.weight)
        return network

    def ones() -> nn.Module:
        network = zeros()
        nn.init.ones_(network.output.weight)
        return network

    ones.__qualname__ = zeros.__qualname__
    train(model=zeros)
    with pytest.raises(ConfigurationChangedError, match="initial_state"):
        train(model=ones)


def test_another_description_is_no_other_run(train) -> None:
    train(data_description={"said": "first"})
    folder = train(data_description={"said": "later"})
    assert load_training(folder).data_description == {"said": "first"}
    with pytest.raises(InvalidArgumentError, match="JSON"):
        train("other", data_description={"path": Path("x")})


def test_a_folder_with_something_else_is_refused(train, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"thesis\.tex"):
        train()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="file"):
        train("file")


def test_members_without_settings_are_not_taken_over(train) -> None:
    folder = train()
    (folder / "training.json").unlink()
    with pytest.raises(OutputExistsError, match="member-0000"):
        train()


def test_unfinished_files_are_removed_and_not_taken_for_members(train) -> None:
    whole = train("whole")
    folder = train()
    (folder / "member-0003.safetensors").unlink()
    for name in (".member-0003.safetensors.partial-0123", ".training.json.partial-4567"):
        (folder / name).write_bytes(b"half")
    assert load_training(folder).missing == (3,)
    train()
    assert not list(folder.glob(".*"))
    assert_same_members(whole, folder)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"members": 0}, InvalidArgumentError, "members"),
        ({"members": -3}, InvalidArgumentError, "members"),
        ({"members": 61, "subsets": "disjoint-shards"}, TooFewRecordsError, "60 records"),
        ({"members": 61, "subsets": "leave-one-out"}, TooFewRecordsError, "60"),
        ({"subset_fraction": 0.0}, InvalidArgumentError, r"\(0, 1\]"),
        ({"subset_fraction": 1.5}, InvalidArgumentError, r"\(0, 1\]"),
        ({"subset_fraction": 0.001}, TooFewRecordsError, "raise the fraction"),
        ({"subsets": "bootstrap"}, InvalidArgumentError, "leave-one-out, random-fraction, disjoint-shards"),
        ({"engine": "threads"}, InvalidArgumentError, "auto, stacked, processes"),
        ({"group_size": 0}, InvalidArgumentError, "group_size"),
        ({"workers": 0}, InvalidArgumentError, "workers"),
        ({"model": "mlpp"}, UnknownNameError, "mlpp"),
        ({"model": 3}, InvalidArgumentError, "a int"),
        ({"model": lambda: 3}, InvalidArgumentError, "returned a int"),
        ({"model": lambda: nn.Linear(3, 10)}, InvalidArgumentError, r"\[1, 8, 8\]"),
        ({"model": "cifar-net"}, InvalidArgumentError, "too small"),
    ],
)
def test_bad_arguments_are_named_and_leave_no_folder(train, tmp_path, settings, error, says) -> None:
    with pytest.raises(error, match=says):
        train(**settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ["stacked", "processes"])
def test_a_diverged_member_is_named_and_not_written(train, tmp_path, engine) -> None:
    wild = TrainingConfig(epochs=30, batch_size=8, learning_rate=1e30)
    with pytest.raises(NonFiniteValueError, match=r"member \d diverged.*lower the learning rate"):
        train(config=wild, engine=engine, **({"workers": 1} if engine == "processes" else {}))
    assert len(load_training(tmp_path / "out").missing) == 5


def test_auto_stacks_dense_networks_and_not_convolutions(train) -> None:
    assert load_training(train("dense")).engine == "stacked"
    assert load_training(train("convolution", small_convolution, members=2, workers=1)).engine == "processes"
    assert load_training(train("norm", with_batch_norm, members=2, workers=1)).engine == "processes"
    with pytest.raises(InvalidArgumentError, match='engine="processes"'):
        train("refused", with_batch_norm, engine="stacked")


def small_convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))


def test_batch_normalisation_statistics_are_stored(train) -> None:
    run = load_training(train(model=with_batch_norm, members=2, workers=1))
    states = [load_file(path) for path in run.member_paths]
    assert all(state["2.num_batches_tracked"] == 12 for state in states)
    assert not torch.equal(states[0]["2.running_mean"], states[1]["2.running_mean"])


def test_progress_counts_to_its_total(train) -> None:
    for engine, steps in (("stacked", 9), ("processes", 5)):
        calls: list[tuple[int, int]] = []
        train(
            engine,
            engine=engine,
            workers=1,
            group_size=2,
            progress=lambda done, total, what, calls=calls: calls.append((done, total)),
        )
        assert len(calls) == steps
        assert calls == sorted(calls)
        assert {total for _, total in calls} == {15}
        assert calls[-1] == (15, 15)


def test_the_model_is_kept_by_a_name_that_can_be_built(train, tmp_path, monkeypatch) -> None:
    (tmp_path / "own_network_for_members.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = "own_network_for_members:make"
    by_spec = load_training(train("spec", spec))
    by_callable = load_training(train("callable", sys.modules["own_network_for_members"].make))
    assert by_spec.model == by_callable.model == spec
    assert_same_members(by_spec.folder, by_callable.folder)
    assert isinstance(by_callable.load_member(1)[1], nn.Linear)
    local = load_training(train("local", functools.partial(MLP, (1, 8, 8), 10)))
    assert local.model == "<callable partial>"
    with pytest.raises(UnknownNameError, match="load_weights"):
        local.build_model()


def test_global_state_is_left_alone(train) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train("a", engine="stacked")
    train("b", engine="processes", workers=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
