from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, MemberMismatchError, NonFiniteValueError
from privkernels.models import seeded
from privkernels.training import TrainingConfig, fit_stacked
from privkernels.training.alone import fit_alone
from privkernels.training.common import order_generator

CONFIG = TrainingConfig(epochs=3, batch_size=4, learning_rate=0.05)


def make_records(n: int = 30, shape: tuple[int, ...] = (6,), classes: int = 3) -> Records:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, *shape, generator=generator)
    return Records(x, torch.randint(classes, (n,), generator=generator), classes, "made")


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Dropout2d(0.3),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def state_of(make: Callable[[], nn.Module], seed: int = 0) -> dict[str, torch.Tensor]:
    with seeded(seed):
        return make().state_dict()


def subsets_of(sizes: list[int], n: int = 30) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randperm(n, generator=generator)[:size].sort().values for size in sizes]


def assert_states_close(found, expected, **tolerance) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **(tolerance or {"rtol": 1e-4, "atol": 1e-5}))


def plain_training(make, initial, records, rows, config: TrainingConfig, order: torch.Generator) -> nn.Module:
    """What anybody would write for one network without dropout; only the batch order is given."""
    model = make()
    model.load_state_dict(initial)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=config.momentum)
    for _ in range(config.epochs):
        shuffled = rows[torch.randperm(len(rows), generator=order)]
        for batch in shuffled.split(config.batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(model(records.x[batch]), records.y[batch]).backward()
            optimizer.step()
    return model


def test_members_are_trained_as_written_by_hand() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    records, initial, subsets = make_records(), state_of(make), subsets_of([9, 14])
    found = fit_stacked(make, initial, records, subsets, CONFIG, [11, 12])
    for state, rows, seed in zip(found, subsets, [11, 12], strict=True):
        expected = plain_training(make, initial, records, rows, CONFIG, order_generator(seed))
        assert_states_close(state, expected.state_dict())


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        TrainingConfig(epochs=3, batch_size=4, optimizer="adam", learning_rate=0.01, weight_decay=0.01),
        TrainingConfig(epochs=4, batch_size=5, momentum=0.0, weight_decay=0.01, schedule="cosine"),
        TrainingConfig(epochs=3, batch_size=100),
        TrainingConfig(epochs=2, batch_size=1, learning_rate=0.01),
    ],
    ids=["sgd", "adam", "cosine", "one batch", "single records"],
)
@pytest.mark.parametrize("sizes", [[12, 12, 12], [5, 12, 8, 13, 1], [9, 8, 8]], ids=["equal", "unequal", "shards"])
@pytest.mark.parametrize(("make", "shape"), [(dense, (6,)), (convolutional, (1, 4, 4))])
def test_a_member_is_what_it_would_be_alone(make, shape, sizes, config) -> None:
    """Against torch.optim on one network at a time: padding, dropout and sitting out must not show."""
    records, initial = make_records(shape=shape), state_of(make)
    subsets, seeds = subsets_of(sizes), list(range(100, 100 + len(sizes)))
    found = fit_stacked(make, initial, records, subsets, config, seeds)
    for state, rows, seed in zip(found, subsets, seeds, strict=True):
        assert_states_close(state, fit_alone(make, initial, records, rows, config, seed))


def test_a_member_does_not_depend_on_the_others() -> None:
    records, initial, subsets = make_records(), state_of(dense), subsets_of([5, 12, 8])
    together = fit_stacked(dense, initial, records, subsets, CONFIG, [1, 2, 3])
    for i in range(3):
        (alone,) = fit_stacked(dense, initial, records, subsets[i : i + 1], CONFIG, [i + 1])
        assert_states_close(together[i], alone)


def test_the_same_call_gives_the_same_bits() -> None:
    records, initial, subsets = make_records(), state_of(dense), subsets_of([5, 12])
    first, second = (fit_stacked(dense, initial, records, subsets, CONFIG, [1, 2]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_seed_decides_order_and_dropout() -> None:
    records, initial = make_records(), state_of(dense)
    rows = subsets_of([12])[0]
    same, again, other = fit_stacked(dense, initial, records, [rows] * 3, CONFIG, [1, 1, 2])
    assert_states_close(same, again)
    assert not torch.allclose(same["0.weight"], other["0.weight"], atol=1e-4)
    # One batch of everything: the order cannot matter, so what differs is dropout.
    whole = TrainingConfig(epochs=3, batch_size=12)
    one, two = fit_stacked(dense, initial, records, [rows] * 2, whole, [1, 2])
    assert not torch.allclose(one["0.weight"], two["0.weight"], atol=1e-4)


def test_members_start_from_the_given_state_and_share_no_memory() -> None:
    records, initial = make_records(), state_of(dense, seed=9)
    tiny = TrainingConfig(epochs=1, batch_size=4, learning_rate=1e-12)
    before = {name: tensor.clone() for name, tensor in initial.items()}
    states = fit_stacked(dense, initial, records, subsets_of([8, 8]), tiny, [1, 2])
    assert all(torch.equal(initial[name], before[name]) for name in before)
    for state in states:
        assert_states_close(state, initial, rtol=0, atol=1e-9)
    states[0]["0.weight"].zero_()
    assert states[1]["0.weight"].any()
    assert initial["0.weight"].any()


def test_global_generators_are_left_alone() -> None:
    state = torch.get_rng_state()
    fit_stacked(dense, state_of(dense), make_records(), subsets_of([8, 8]), CONFIG, [1, 2])
    fit_alone(dense, state_of(dense), make_records(), subsets_of([8])[0], CONFIG, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_learns() -> None:
    records = make_records(n=60)
    y = (records.x @ torch.tensor([[3.0, -3, 0]] * 3 + [[0.0, 3, -3]] * 3)).argmax(dim=1)
    records = Records(records.x, y, 3, "separable")
    rows = torch.arange(60)
    config = TrainingConfig(epochs=60, batch_size=10, learning_rate=0.1)
    model = dense().eval()
    for state in fit_stacked(dense, state_of(dense), records, [rows] * 2, config, [1, 2]):
        model.load_state_dict(state)
        assert (model(records.x).argmax(dim=1) == y).float().mean() > 0.9


class Tied(nn.Module):
    """Two layers with one weight, a frozen layer and a constant buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))) * self.scale)


def test_tied_and_frozen_parameters_and_constant_buffers() -> None:
    records, initial, subsets = make_records(), state_of(Tied), subsets_of([8, 11])
    found = fit_stacked(Tied, initial, records, subsets, CONFIG, [1, 2])
    for state, rows, seed in zip(found, subsets, [1, 2], strict=True):
        assert torch.equal(state["first.weight"], state["second.weight"])
        assert torch.equal(state["second.bias"], initial["second.bias"])
        assert not torch.equal(state["first.weight"], initial["first.weight"])
        assert_states_close(state, fit_alone(Tied, initial, records, rows, CONFIG, seed))


@pytest.mark.parametrize("fit", ["stacked", "alone"])
def test_divergence_names_the_member(fit) -> None:
    """With a record of 1e30, the weights of the second member, and then its loss, overflow."""

    def make() -> nn.Module:
        return nn.Linear(6, 3)

    records, initial = make_records(), state_of(make)
    x = records.x.clone()
    x[7] = 1e30
    extreme = Records(x, records.y, 3, "extreme")
    tame, wild = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 7])
    if fit == "stacked":
        with pytest.raises(NonFiniteValueError, match="member 1 diverged"):
            fit_stacked(make, initial, extreme, [tame, wild], CONFIG, [1, 2])
        with pytest.raises(NonFiniteValueError, match="the odd one diverged"):
            fit_stacked(make, initial, extreme, [wild, tame], CONFIG, [1, 2], labels=["the odd one", "b"])
    else:
        fit_alone(make, initial, extreme, tame, CONFIG, 1, label="member 7")
        with pytest.raises(NonFiniteValueError, match="member 7 diverged"):
            fit_alone(make, initial, extreme, wild, CONFIG, 1, label="member 7")


def test_an_extreme_record_does_not_reach_members_without_it() -> None:
    """Padding must not bring in a record that the member does not have: 0 times infinity is NaN."""

    def make() -> nn.Module:
        return nn.Linear(6, 3)

    records, initial = make_records(), {"weight": torch.full((3, 6), 0.5), "bias": torch.zeros(3)}
    x = records.x.clone()
    x[0] = 3e38
    extreme = Records(x, records.y, 3, "extreme")
    subsets = [torch.arange(1, 6), torch.arange(6, 18)]
    found = fit_stacked(make, initial, extreme, subsets, CONFIG, [1, 2])
    for state, rows, seed in zip(found, subsets, [1, 2], strict=True):
        assert_states_close(state, fit_alone(make, initial, extreme, rows, CONFIG, seed))


def test_it_reports_every_epoch() -> None:
    calls = []
    fit_stacked(
        dense,
        state_of(dense),
        make_records(),
        subsets_of([8, 8]),
        CONFIG,
        [1, 2],
        progress=lambda done, total, what: calls.append((done, total, what)),
    )
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("subsets", "seeds", "says"),
    [
        ([], [], "at least one"),
        ([torch.tensor([0])], [1, 2], "got 1 and 2"),
        ([torch.tensor([], dtype=torch.int64)], [1], "k >= 1"),
        ([torch.tensor([0.0])], [1], "float32"),
        ([torch.tensor([[0]])], [1], r"\[1, 1\]"),
        ([torch.tensor([30])], [1], r"0\.\.29"),
        ([torch.tensor([-1])], [1], "-1"),
    ],
)
def test_bad_subsets_are_refused(subsets, seeds, says) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        fit_stacked(dense, state_of(dense), make_records(), subsets, CONFIG, seeds)


def test_a_network_that_does_not_fit_is_named() -> None:
    records, rows = make_records(), subsets_of([8])
    with pytest.raises(MemberMismatchError, match=r"0\.weight"):
        fit_stacked(lambda: nn.Sequential(nn.Linear(5, 3)), state_of(dense), records, rows, CONFIG, [1])
    for wrong in (lambda: nn.Linear(5, 3), lambda: nn.Linear(6, 4)):
        with pytest.raises(InvalidArgumentError, match=r"records of shape|must return logits"):
            fit_stacked(wrong, state_of(wrong), records, rows, CONFIG, [1])
    with pytest.raises(InvalidArgumentError, match="returned a int"):
        fit_stacked(lambda: 3, {}, records, rows, CONFIG, [1])
    with pytest.raises(InvalidArgumentError, match="no parameter"):
        fit_stacked(nn.Flatten, {}, records, rows, CONFIG, [1])


@pytest.mark.gpu
def test_members_train_where_the_records_are() -> None:
    records, initial, subsets = make_records(), state_of(dense), subsets_of([8, 11])
    moved = Records(records.x.cuda(), records.y.cuda(), 3, "moved")
    found = fit_stacked(dense, initial, moved, subsets, CONFIG, [1, 2])
    for state, expected in zip(found, fit_stacked(dense, initial, records, subsets, CONFIG, [1, 2]), strict=True):
        assert state["0.weight"].device.type == "cpu"
        assert_states_close(state, expected, rtol=1e-3, atol=1e-4)
