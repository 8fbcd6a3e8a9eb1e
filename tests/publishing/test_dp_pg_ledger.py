"""DP-PG with a ledger: charged before it is drawn, refused when it must be, and in the guarantee."""

import math
import sys

import pytest
import torch

from privkernels.errors import BudgetExceededError, InvalidArgumentError, KeyReusedError, NonFiniteValueError
from privkernels.privacy import Unit, compose
from privkernels.privacy.ledger import Ledger
from privkernels.publishing import DpPgSettings, ParameterCollection, dp_pg
from privkernels.randomness import Key


@pytest.fixture
def collection(make_members):
    return ParameterCollection.open(make_members(5))


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


def publish(collection, ledger, epsilon=1.0, *, data_id="digits", key=None, **settings):
    settings = DpPgSettings(epsilon, constant_tensors_are_public=True, **settings)
    return dp_pg(collection, settings, key=key or Key.generate(), ledger=ledger, data_id=data_id)


def test_one_release_costs_what_it_costs_without_a_ledger(collection, ledger):
    settings = DpPgSettings(1.0, constant_tensors_are_public=True)
    alone = dp_pg(collection, settings, key=Key.generate()).guarantee
    charged = publish(collection, ledger).guarantee
    assert charged.proven.epsilon == alone.proven.epsilon
    assert charged.implementation["ledger_operations"] == 1
    assert "ledger of 1 operation" in charged.proven.accountant
    assert any("is in the ledger" in item.text for item in charged.assumptions)
    assert not any("No other model was drawn" in item.text for item in charged.assumptions)


def test_the_second_releases_guarantee_counts_the_first(collection, ledger):
    first = publish(collection, ledger).guarantee
    second = publish(collection, ledger).guarantee
    assert first.proven.epsilon <= 1 < second.proven.epsilon <= 2
    assert second.implementation["epsilon_of_this_release_alone"] <= 1
    assert second.proven.epsilon == ledger.total("digits", Unit.EXAMPLE, 1e-5).epsilon
    other = publish(collection, ledger, data_id="other").guarantee
    assert other.proven.epsilon <= 1


def test_every_unit_is_charged(collection, ledger):
    publish(collection, ledger, unit="member")
    (entry,) = ledger.entries
    assert set(entry.events) == {Unit.PARAMETER, Unit.MEMBER, Unit.EXAMPLE}
    totals = {unit: ledger.total("digits", unit, 1e-5).epsilon for unit in entry.events}
    assert totals[Unit.PARAMETER] < totals[Unit.MEMBER] <= 1 < totals[Unit.EXAMPLE]


def test_a_release_beyond_the_budget_is_refused_before_it_is_drawn(collection, ledger, monkeypatch):
    ledger.set_budget("digits", "example", 1.2, 1e-5)
    publish(collection, ledger)
    drawn = []
    monkeypatch.setattr(sys.modules["privkernels.publishing.dp_pg"], "_draw", lambda *args: drawn.append(1))
    with pytest.raises(BudgetExceededError, match="is spent"):
        publish(collection, ledger)
    assert drawn == []
    assert len(ledger.entries) == 1


def test_a_seeded_key_is_refused_the_second_time(collection, ledger):
    publish(collection, ledger, key=Key.from_seed(1))
    with pytest.raises(KeyReusedError):
        publish(collection, ledger, key=Key.from_seed(1), data_id="other")


@pytest.mark.parametrize("change", [{"mode": "paper"}, {"key": Key.from_seed(1)}], ids=["paper", "seed"])
def test_what_nothing_is_proven_of_leaves_no_bound(collection, ledger, change):
    guarantee = publish(collection, ledger, **change).guarantee
    assert guarantee.proven is None
    assert math.isinf(ledger.total("digits", Unit.EXAMPLE, 1e-5).epsilon)
    release = publish(collection, ledger)
    assert release.guarantee.proven is None
    assert "no bound together" in release.guarantee.not_proven_because
    assert compose([release.events[Unit.EXAMPLE]], 1e-5).epsilon <= 1, "what this release costs is known all the same"


def test_a_draw_that_fails_is_charged_all_the_same(make_members, ledger):

    broken = ParameterCollection.open(make_members(5, change={1: {"layer.bias": torch.full((3,), math.nan)}}))
    with pytest.raises(NonFiniteValueError):
        publish(broken, ledger)
    assert len(ledger.entries) == 1


def test_a_ledger_needs_the_name_of_the_data_set(collection, ledger):
    with pytest.raises(InvalidArgumentError, match="data_id"):
        publish(collection, ledger, data_id=None)
    assert ledger.entries == ()
