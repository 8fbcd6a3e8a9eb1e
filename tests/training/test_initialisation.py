"""Members that start from parameters of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from privkernels import workflow
from privkernels.data import Records, load
from privkernels.errors import ConfigurationChangedError, InvalidArgumentError, MemberMismatchError
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, fit_stacked, load_training, train_members
from privkernels.training.alone import fit_alone
from privkernels.training.common import new_model

CONFIG = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.05)
KEY = Key.from_seed(5)


@pytest.fixture(scope="module")
def records() -> Records:
    return load("digits").train.subset(range(40))


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10))


def train(folder: Path, records: Records, **settings) -> Path:
    return train_members(records, network, folder, members=3, config=CONFIG, key=KEY, **settings)


def weights(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(path) for path in sorted(folder.glob("member-*.safetensors"))]


def test_a_stacked_member_is_what_it_would_be_alone_from_its_own_start(records: Records) -> None:
    starts = [new_model(network, seed).state_dict() for seed in (1, 2, 3)]
    rows = [torch.arange(20), torch.arange(10, 35), torch.arange(40)]
    found = fit_stacked(network, starts, records, rows, CONFIG, [7, 8, 9])
    for state, start, subset, seed in zip(found, starts, rows, [7, 8, 9], strict=True):
        expected = fit_alone(network, start, records, subset, CONFIG, seed)
        for name, tensor in expected.items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["stacked", "processes"])
def test_own_starts_differ_and_common_ones_do_not(records: Records, tmp_path: Path, engine: str) -> None:
    # At a learning rate of almost 0 a member is what it started from.
    frozen = TrainingConfig(epochs=1, batch_size=40, learning_rate=1e-30)
    for kind in ("common", "own"):
        folder = train_members(
            records, network, tmp_path / kind, members=3, config=frozen, key=KEY, engine=engine, workers=1,
            initialisation=kind,
        )  # fmt: skip
        first, second, third = (state["1.weight"] for state in weights(folder))
        assert torch.equal(first, second) == torch.equal(second, third) == (kind == "common")
        assert load_training(folder).initialisation == kind


def test_both_engines_give_the_same_members(records: Records, tmp_path: Path) -> None:
    stacked = weights(train(tmp_path / "a", records, engine="stacked", initialisation="own"))
    alone = weights(train(tmp_path / "b", records, engine="processes", workers=1, initialisation="own"))
    for a, b in zip(stacked, alone, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_a_folder_does_not_change_its_kind(records: Records, tmp_path: Path) -> None:
    train(tmp_path / "a", records)
    with pytest.raises(ConfigurationChangedError, match="initialisation"):
        train(tmp_path / "a", records, initialisation="own")


def test_an_unknown_kind_is_refused(records: Records, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="common, own"):
        train(tmp_path / "a", records, initialisation="none")


def test_members_without_a_common_start_are_not_published(records: Records, tmp_path: Path) -> None:
    train(tmp_path / "a", records, initialisation="own")
    with pytest.raises(MemberMismatchError, match="common initialisation"):
        workflow.training_run(tmp_path / "a")


def test_initial_states_must_fit_together(records: Records) -> None:
    start, rows = new_model(network, 1).state_dict(), [torch.arange(9)] * 3
    with pytest.raises(InvalidArgumentError, match="one for each of 3"):
        fit_stacked(network, [start, start], records, rows, CONFIG, [1, 2, 3])
    other = start | {"1.weight": torch.zeros(5, 64)}
    with pytest.raises(InvalidArgumentError, match="has the tensors"):
        fit_stacked(network, [start, other, start], records, rows, CONFIG, [1, 2, 3])


def test_what_is_not_trained_must_be_common(records: Records) -> None:
    def half_frozen() -> nn.Module:
        module = network()
        module[1].requires_grad_(False)
        return module

    starts = [new_model(half_frozen, seed).state_dict() for seed in (1, 2)]
    with pytest.raises(InvalidArgumentError, match=r"1\.weight"):
        fit_stacked(half_frozen, starts, records, [torch.arange(9)] * 2, CONFIG, [1, 2])
