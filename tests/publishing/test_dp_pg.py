"""DP-PG on collections: what is drawn, from where, and what is said of it."""

import math
import sys

import pytest
import torch
from torch import nn

from privkernels.data import Records
from privkernels.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    MemberMismatchError,
    NonFiniteValueError,
    QualityNotReachedError,
)
from privkernels.ops import kde_em
from privkernels.publishing import DpPgSettings, ParameterCollection, QualityCheck, dp_pg, kde_examples
from privkernels.randomness import Key

SEED = Key.from_seed(3)
PUBLIC = DpPgSettings(1.0, constant_tensors_are_public=True)


@pytest.fixture
def collection(make_members):
    return ParameterCollection.open(make_members(20))


def stacked(collection, name):
    return torch.stack([collection.state_dict(i)[name] for i in range(collection.num_members)])


def test_paper_mode_stays_within_the_members_range_and_near_their_mode(collection):
    release = dp_pg(collection, DpPgSettings(10.0, mode="paper"), key=SEED)
    for name in collection.names:
        members = stacked(collection, name)
        drawn = release.tensors[name]
        assert bool((drawn >= members.min(0).values).all())
        assert bool((drawn <= members.max(0).values).all())
        assert float((drawn - members.mean(0)).abs().max()) < 0.25
    assert release.tensors["steps"] == 12
    assert release.guarantee.proven is None
    assert release.guarantee.claimed.epsilon == pytest.approx(10.0)


def test_proven_mode_draws_from_a_grid_that_does_not_depend_on_the_members(make_members):
    settings = DpPgSettings(0.01, grid_points=5, clip=2.0)
    a = dp_pg(ParameterCollection.open(make_members(5)), settings, key=SEED)
    b = dp_pg(ParameterCollection.open(make_members(5, folder="other", seed=1)), settings, key=SEED)
    half = 2.0 / math.sqrt(7)
    grid = torch.linspace(-half, half, 5)
    for release in (a, b):
        for name in ("layer.weight", "layer.bias"):
            distance = (release.tensors[name].flatten().unsqueeze(1) - grid).abs().min(dim=1).values
            assert float(distance.max()) < 1e-6
    # At this budget the data decide next to nothing: the same key draws the same grid points.
    assert torch.equal(a.tensors["layer.weight"], b.tensors["layer.weight"])


def test_proven_mode_finds_the_members_when_the_budget_is_large(collection):
    settings = DpPgSettings(
        300.0, unit="member", center="zero", clip=8.0, bandwidths_per_range=16, constant_tensors_are_public=True
    )
    release = dp_pg(collection, settings, key=Key.generate())
    middle = stacked(collection, "layer.weight").mean(0)
    assert float((release.tensors["layer.weight"] - middle).abs().mean()) < 0.6
    assert release.guarantee.proven.epsilon <= 300


def test_the_grid_is_centred_on_the_initialisation(collection):
    initial = {"layer.weight": torch.full((3, 7), 50.0), "layer.bias": torch.full((3,), -50.0)}
    release = dp_pg(collection, DpPgSettings(1.0, clip=1.0), key=SEED, initial=initial)
    assert float((release.tensors["layer.weight"] - 50).abs().max()) <= 1 / math.sqrt(7) + 1e-5
    assert float((release.tensors["layer.bias"] + 50).abs().max()) <= 1 / math.sqrt(7) + 1e-5
    assert "initialisation" in release.guarantee.implementation["range_source"]
    zero = dp_pg(collection, DpPgSettings(1.0, center="zero"), key=SEED, initial=initial)
    assert float(zero.tensors["layer.weight"].abs().max()) < 5


def test_slices_do_not_change_the_draw(collection, monkeypatch):
    settings = DpPgSettings(1.0, mode="paper")
    whole = dp_pg(collection, settings, key=SEED)
    monkeypatch.setattr(ParameterCollection.slices, "__defaults__", (1,))
    sliced = dp_pg(collection, settings, key=SEED)
    assert all(torch.equal(whole.tensors[name], sliced.tensors[name]) for name in collection.names)


def test_fixed_work_reaches_the_draws(collection, monkeypatch):
    asked = []

    def watched(*rows, work, **rest):
        asked.append(work)
        return kde_em(*rows, work=work, **rest)

    monkeypatch.setattr(sys.modules["privkernels.publishing.dp_pg"], "kde_em", watched)
    for work in ("lazy", "fixed"):
        asked.clear()
        dp_pg(collection, DpPgSettings(1.0, mode="paper", work=work), key=SEED)
        assert set(asked) == {work}


def test_keys_decide_the_draw(collection):
    settings = DpPgSettings(1.0, mode="paper")
    a, b = (dp_pg(collection, settings, key=SEED).tensors["layer.weight"] for _ in range(2))
    c = dp_pg(collection, settings, key=Key.generate()).tensors["layer.weight"]
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_seeded_key_leaves_nothing_proven(collection):
    assert dp_pg(collection, DpPgSettings(1.0), key=SEED).guarantee.proven is None
    release = dp_pg(collection, PUBLIC, key=Key.generate())
    assert release.guarantee.proven is not None
    assert release.guarantee.reproducible is False


def test_members_that_agree_are_published_as_they_are_in_paper_mode(make_members):
    same = {"layer.weight": torch.full((3, 7), 0.3), "layer.bias": torch.zeros(3)}
    folder = make_members(4, change=dict.fromkeys(range(4), same))
    release = dp_pg(ParameterCollection.open(folder), DpPgSettings(1.0, mode="paper"), key=SEED)
    assert torch.equal(release.tensors["layer.weight"], same["layer.weight"])


class Constant(nn.Module):
    """Predicts by its weights alone: the class is right when the first weight is positive."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(7, 3)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        right = (self.layer.weight[0, 0] > 0).float()
        return torch.stack([right, 1 - right]).expand(len(x), 2)


RECORDS = Records(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), 2, "validation")


def loop(collection, threshold, tries, *, public=True, seed=0):
    settings = DpPgSettings(0.05, max_tries=tries, unit="member")
    check = QualityCheck(Constant(), RECORDS, threshold, records_are_public=public)
    return dp_pg(collection, settings, key=Key.from_seed(seed), quality=check)


def test_the_quality_loop_accepts_only_above_the_threshold(collection):
    for seed in range(5):
        assert loop(collection, 0.5, 20, seed=seed).tensors["layer.weight"][0, 0] > 0
    with pytest.raises(QualityNotReachedError, match=r"none of 3 tries.*above 1"):
        loop(collection, 1.0, 3)


def test_tries_differ_and_all_are_charged(collection):
    signs = set()
    for seed in range(8):
        try:
            loop(collection, 0.5, 1, seed=seed)
            signs.add("accepted")
        except QualityNotReachedError:
            signs.add("rejected")
    assert signs == {"accepted", "rejected"}, "the case cannot tell a loop from none"
    many = loop(collection, 0.5, 20).guarantee.implementation
    one = dp_pg(collection, DpPgSettings(0.05, unit="member"), key=SEED).guarantee.implementation
    assert many["tries_charged"] == 20
    assert many["epsilon_of_one_draw"] < one["epsilon_of_one_draw"] / 3


def test_a_private_validation_set_is_never_silent(collection):
    guarantee = loop(collection, 0.5, 20, public=False).guarantee
    assert guarantee.proven is None
    assert "private records" in guarantee.not_proven_because
    with pytest.raises(TypeError):
        QualityCheck(Constant(), RECORDS, 0.5)
    with pytest.raises(InvalidArgumentError, match="records_are_public"):
        QualityCheck(Constant(), RECORDS, 0.5, None)


def test_kde_examples_show_what_was_drawn_from(collection):
    release = dp_pg(collection, DpPgSettings(1.0, mode="paper"), key=SEED)
    examples = kde_examples(collection, release)
    assert [example.parameter.split("[")[0] for example in examples] == list(collection.names)
    for example in examples:
        assert sum(example.weights) == pytest.approx(1)
        assert len(example.grid) == len(example.weights) == 256
        assert min(abs(example.drawn - point) for point in example.grid) < 1e-7
        assert len(example.members) == 20


@pytest.mark.parametrize("epsilon", [0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("mode", ["paper", "proven"])
def test_bad_epsilon(collection, epsilon, mode):
    with pytest.raises(InvalidBudgetError, match="positive, finite"):
        dp_pg(collection, DpPgSettings(epsilon, mode=mode), key=SEED)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "x"},
        {"unit": "x"},
        {"center": "x"},
        {"work": "x"},
        {"clip": 0},
        {"grid_points": 1},
        {"bandwidths_per_range": math.nan},
    ],
)
def test_bad_settings(changes):
    with pytest.raises(InvalidArgumentError):
        DpPgSettings(1.0, **changes)


def test_integer_tensors_leave_nothing_proven_unless_declared_public(collection):
    key = Key.generate()
    silent = dp_pg(collection, DpPgSettings(1.0), key=key).guarantee
    assert silent.proven is None
    assert "steps" in silent.not_proven_because
    declared = dp_pg(collection, PUBLIC, key=key).guarantee
    assert declared.proven is not None
    assert any("steps" in item.text for item in declared.assumptions)


def test_a_drawn_variance_is_not_negative(make_members):
    change = {i: {"norm.running_var": torch.rand(40)} for i in range(3)}
    collection = ParameterCollection.open(make_members(3, change=change))
    tensors = dp_pg(collection, DpPgSettings(0.1), key=SEED).tensors
    assert float(tensors["norm.running_var"].min()) == 0
    assert float(tensors["layer.weight"].min()) < 0


def test_one_key_never_draws_the_same_noise_twice(collection):
    key = Key.generate()
    a, b = (dp_pg(collection, DpPgSettings(1.0), key=key) for _ in range(2))
    assert not torch.equal(a.tensors["layer.weight"], b.tensors["layer.weight"])
    assert a.description["label"] != b.description["label"]


def test_paper_mode_says_nothing_of_settings_that_it_does_not_use(collection):
    settings = dp_pg(collection, DpPgSettings(1.0, mode="paper"), key=SEED).description["settings"]
    assert settings["unit"] is settings["delta"] is None


def test_bad_combinations(collection):
    with pytest.raises(InvalidArgumentError, match="needs a quality check"):
        dp_pg(collection, DpPgSettings(1.0, max_tries=2), key=SEED)
    with pytest.raises(InvalidArgumentError, match="needs the members' common initialisation"):
        dp_pg(collection, DpPgSettings(1.0, center="initial"), key=SEED)
    with pytest.raises(MemberMismatchError, match="another architecture"):
        dp_pg(collection, DpPgSettings(1.0), key=SEED, initial={"layer.weight": torch.zeros(2)})
    with pytest.raises(InvalidArgumentError, match="window_ratio < 1"):
        dp_pg(collection, DpPgSettings(1.0, mode="paper", window_ratio=1.5), key=SEED)


def test_not_finite_members_are_named(make_members):
    bad = ParameterCollection.open(make_members(3, change={1: {"layer.bias": torch.tensor([0.0, math.nan, 0.0])}}))
    with pytest.raises(NonFiniteValueError, match=r"m1.safetensors, tensor 'layer.bias'"):
        dp_pg(bad, DpPgSettings(1.0), key=SEED)
