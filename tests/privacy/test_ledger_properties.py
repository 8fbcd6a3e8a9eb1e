"""The ledger against a model of it, over random sequences of operations, reopenings and torn ends."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from privkernels.errors import BudgetExceededError, InvalidArgumentError, KeyReusedError
from privkernels.privacy import BoundedRangeEvent, GaussianEvent, PureEvent, Relation, Unit, compose
from privkernels.privacy.ledger import Ledger
from privkernels.randomness import Key

DELTA = 1e-5
KEYS = [Key(bytes([i]) * 32) for i in range(2)]
common = {"count": st.integers(1, 100), "relation": st.sampled_from(Relation)}
events = st.one_of(
    st.builds(GaussianEvent, mu=st.floats(0, 2), **common),
    st.builds(BoundedRangeEvent, eta=st.floats(0, 1), **common),
    st.builds(PureEvent, epsilon=st.floats(0, 1), **common),
)
data_sets = st.sampled_from(["a", "b"])
units = st.sampled_from([Unit.EXAMPLE, Unit.MEMBER])


class LedgerMachine(RuleBasedStateMachine):
    """Model: the charges that were accepted, and the budgets."""

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.folder / "ledger")
        self.charged: list[tuple[str, str, str, dict]] = []
        self.budgets: dict[tuple[str, Unit], float] = {}

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def total(self, data, unit, extra=None):
        costs = [cost for _, name, _, cost in self.charged if name == data] + ([extra] if extra else [])
        if any(unit not in cost for cost in costs):
            return float("inf")
        return compose([event.replaced() for cost in costs for event in cost[unit]], DELTA).epsilon if costs else 0.0

    @rule(
        data=data_sets,
        key=st.sampled_from(KEYS),
        label=st.sampled_from("xyz"),
        costs=st.dictionaries(units, st.lists(events, min_size=1, max_size=2), min_size=1),
    )
    def charge(self, data, key, label, costs):
        used = any((key, label) == (k, other) for k, _, other, _ in self.charged)
        over = any(
            name == data and self.total(data, unit, costs) > limit * (1 + 1e-9)
            for (name, unit), limit in self.budgets.items()
        )
        close = any(
            name == data and abs(self.total(data, unit, costs) - limit) <= limit * 1e-9
            for (name, unit), limit in self.budgets.items()
        )
        try:
            self.ledger.charge(data, costs, key=key, label=label)
        except KeyReusedError:
            assert used
        except BudgetExceededError:
            assert over or close
            assert not used
        else:
            assert not used
            assert close or not over
            self.charged.append((key, data, label, costs))

    @rule(data=data_sets, unit=units, epsilon=st.floats(0.1, 20), change=st.booleans())
    def budget(self, data, unit, epsilon, change):
        try:
            self.ledger.set_budget(data, unit, epsilon, DELTA, change=change)
        except InvalidArgumentError:
            assert (data, unit) in self.budgets
            assert not change
        else:
            self.budgets[data, unit] = epsilon

    @rule()
    def reopen(self):
        self.ledger = Ledger(self.ledger.path, create=False)

    @rule(torn=st.integers(1, 40))
    def killed_while_writing(self, torn):
        with self.ledger.path.open("ab") as file:
            file.write(b'{"data": "a", "events": {"example": [{"count": 1, "eps'[:torn])

    @invariant()
    def totals_are_those_of_the_model(self):
        if not hasattr(self, "ledger"):
            return
        assert len(self.ledger.entries) == len(self.charged)
        for data in ("a", "b"):
            for unit in (Unit.EXAMPLE, Unit.MEMBER):
                assert self.ledger.total(data, unit, DELTA).epsilon == pytest.approx(self.total(data, unit), rel=1e-6)
                budget = self.ledger.budget(data, unit)
                assert (budget.epsilon if budget else None) == self.budgets.get((data, unit))


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
