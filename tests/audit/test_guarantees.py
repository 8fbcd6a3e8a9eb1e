"""Reading guarantees and putting them into words."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from privkernels.audit.guarantees import guarantee_words, read_guarantee
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.privacy import Claim, Guarantee, Unit
from privkernels.privacy.guarantee import round_up


def test_claimed_and_proven_come_together(guarantee: dict[str, Any]) -> None:
    words = guarantee_words(read_guarantee(guarantee))
    assert words.claimed == "ε = 1, δ = 0"
    assert words.proven == "ε = 18.76, δ = 0 per parameter"


def test_nothing_proven_says_why(guarantee: dict[str, Any]) -> None:
    guarantee |= {"proven": None, "not_proven_because": "the bandwidth depends on the data"}
    assert guarantee_words(read_guarantee(guarantee)).proven == "none: the bandwidth depends on the data"
    guarantee |= {"not_proven_because": None}
    assert guarantee_words(read_guarantee(guarantee)).proven == "none: no reason was given"


def test_no_protection_and_no_claim_are_none(guarantee: dict[str, Any]) -> None:
    assert read_guarantee(None) is None
    assert guarantee_words(None).claimed == guarantee_words(None).proven == "none"
    assert guarantee_words(read_guarantee(guarantee | {"claimed": None})).claimed == "none"


def test_noise_from_a_seed_proves_nothing(guarantee: dict[str, Any]) -> None:
    words = guarantee_words(read_guarantee(guarantee | {"reproducible": True}))
    assert words.proven.startswith("none: drawn from a seed")
    assert "18.76" in words.proven


def test_the_librarys_own_guarantee_is_understood() -> None:
    guarantee = Guarantee(
        "DP-PG", Unit.MEMBER, "replace one", Claim(1.0, 0.0, "Mao et al.", "eq. 7", "..."), None, "no bound"
    )
    words = guarantee_words(read_guarantee(guarantee))
    assert (words.claimed, words.proven) == ("ε = 1, δ = 0", "none: no bound")


@given(st.floats(1e-300, 1e300))
def test_rounding_never_makes_a_budget_look_smaller(number: float) -> None:
    rounded = round_up(number)
    assert rounded >= number
    assert rounded <= number * 1.0011
    assert float(f"{rounded:.4g}") == rounded


def test_rounding_known_values() -> None:
    assert [round_up(x) for x in (0, 1, 18.75612, 1.00001, 9.9999, 1e-5)] == [0, 1, 18.76, 1.001, 10, 1e-5]


@pytest.mark.parametrize("key", ["mechanism", "proven", "not_proven_because", "assumptions", "reproducible"])
def test_a_missing_key_is_named(guarantee: dict[str, Any], key: str) -> None:
    del guarantee[key]
    with pytest.raises(InvalidArgumentError, match=key):
        read_guarantee(guarantee)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reproducible", "no"),
        ("proven", 3.0),
        ("proven", {"epsilon": "1", "delta": 0}),
        ("claimed", {"epsilon": True, "delta": 0}),
        ("proven", {"delta": 0}),
        ("assumptions", ["the grid is public"]),
        ("implementation", {"error": float("nan")}),
        ("implementation", {"error": object()}),
    ],
)
def test_a_value_of_another_kind_is_refused(guarantee: dict[str, Any], key: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError):
        read_guarantee(guarantee | {key: value})


@pytest.mark.parametrize("epsilon", [math.inf, math.nan, -1.0])
@pytest.mark.parametrize("key", ["claimed", "proven"])
def test_an_epsilon_that_is_none_is_refused(guarantee: dict[str, Any], key: str, epsilon: float) -> None:
    with pytest.raises(NonFiniteValueError, match=key):
        read_guarantee(guarantee | {key: {"epsilon": epsilon, "delta": 0.0}})
