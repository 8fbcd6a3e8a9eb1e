"""The guarantee as a value: what it refuses, how it reads, and that it survives JSON."""

import json
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from privkernels.errors import CorruptFileError, InvalidArgumentError
from privkernels.privacy import Assumption, Claim, Guarantee, Proof, Relation, Unit
from privkernels.privacy.guarantee import round_up

CLAIM = Claim(1.0, 0.0, "Some paper", "Eq. 1", "max")


def guarantee(**changes):
    values = {
        "mechanism": "m", "unit": Unit.EXAMPLE, "neighbouring": "n", "claimed": CLAIM,
        "proven": Proof(2.0, 1e-5, "zCDP"), "assumptions": (Assumption("a", True), Assumption("b")),
        "implementation": {"score_error": 1e-7}, "warnings": ("w",),
    }  # fmt: skip
    return Guarantee(**(values | changes))


@pytest.mark.parametrize(
    "value", [guarantee(), guarantee(proven=None, not_proven_because="why"), guarantee(claimed=None)]
)
def test_json_round_trip(value):
    assert Guarantee.from_dict(json.loads(value.to_json())) == value


def test_claim_is_never_said_without_the_proof():
    text = guarantee(proven=None, not_proven_because="The range is private.").summary
    assert "claims epsilon = 1" in text
    assert "Proven: nothing. The range is private." in text
    both = guarantee().summary
    assert "claims epsilon = 1" in both
    assert "Proven: epsilon = 2" in both
    assert "7.39 times" in both


def test_numbers_are_rounded_up_never_down():
    text = guarantee(proven=Proof(1.00004, 1.00002e-5, "x")).summary
    assert "epsilon = 1.001, delta = 1.001e-05" in text
    assert "e^60 times" in guarantee(proven=Proof(60.0, 0.0, "x")).summary


def test_a_large_epsilon_is_called_large():
    assert "next to nothing" in guarantee(proven=Proof(30.0, 0.0, "basic")).summary


def test_unit_is_said_in_words():
    assert "not a person's record" in guarantee(unit=Unit.MEMBER).summary
    assert "one training record" in guarantee().summary


def test_needs_a_proof_or_a_reason_but_not_both():
    with pytest.raises(InvalidArgumentError, match="either a proof or the reason"):
        guarantee(proven=None)
    with pytest.raises(InvalidArgumentError, match="either a proof or the reason"):
        guarantee(not_proven_because="why")


@pytest.mark.parametrize("proof", [(-1.0, 0.0), (1.0, 2.0), (float("nan"), 0.0), (float("inf"), 0.0)])
def test_refuses_numbers_that_are_no_guarantee(proof):
    with pytest.raises(InvalidArgumentError):
        guarantee(proven=Proof(*proof, "x"))


@pytest.mark.parametrize("damage", [{"unit": "galaxy"}, {"proven": {"epsilon": 1}}, {"assumptions": 3}])
def test_damaged_json_is_named(damage):
    with pytest.raises(CorruptFileError, match="not a guarantee"):
        Guarantee.from_dict(guarantee().to_dict() | damage)


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("relation", list(Relation))
def test_every_unit_and_relation_reads_as_a_sentence(unit, relation):
    value = guarantee(unit=unit, relation=relation)
    assert Guarantee.from_json(value.to_json()) == value
    words = {Relation.REPLACE_ONE: "been replaced by another", Relation.ADD_OR_REMOVE_ONE: "had it not been there"}
    assert words[relation] in value.summary
    assert f"Unit: {unit}." in str(value)
    assert "  " not in value.summary


def test_the_whole_guarantee_as_text():
    lines = str(guarantee()).splitlines()
    assert "Needs (checked): a" in lines
    assert "Needs (assumed, nobody checked): b" in lines
    assert "score_error: 1e-07" in lines
    assert "Warning: w" in lines
    assert any(line.startswith("Claimed by Some paper, Eq. 1: max") for line in lines)
    assert any(line.startswith("Proven by: zCDP") for line in lines)
    nothing = str(guarantee(proven=None, not_proven_because="why", claimed=None))
    assert "Proven by" not in nothing
    assert "Claimed" not in nothing


def test_survives_the_metadata_of_a_safetensors_file(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"guarantee": guarantee().to_json()})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert Guarantee.from_json(file.metadata()["guarantee"]) == guarantee()


def test_a_guarantee_without_a_relation_is_replace_one():
    old = guarantee().to_dict()
    del old["relation"]
    assert Guarantee.from_dict(old).relation is Relation.REPLACE_ONE


def test_text_that_is_no_json():
    with pytest.raises(CorruptFileError, match="not a guarantee"):
        Guarantee.from_json("{")


def test_is_frozen():
    with pytest.raises(AttributeError):
        guarantee().unit = Unit.MEMBER


# Over drawn guarantees

WORDS = st.text(max_size=30)
REASON = WORDS.filter(bool)
NUMBER = st.floats(0, 1e300) | st.floats(0, 60)
PROBABILITY = st.floats(0, 1)
TERMS = st.dictionaries(WORDS, st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | WORDS)
PROOFS = st.builds(Proof, epsilon=NUMBER, delta=PROBABILITY, accountant=WORDS)


@st.composite
def guarantees(draw):
    proof = draw(st.none() | PROOFS)
    return Guarantee(
        mechanism=draw(WORDS),
        unit=draw(st.sampled_from(Unit)),
        neighbouring=draw(WORDS),
        claimed=draw(st.none() | st.builds(Claim, NUMBER, PROBABILITY, WORDS, WORDS, WORDS)),
        proven=proof,
        not_proven_because=draw(REASON) if proof is None else None,
        assumptions=tuple(draw(st.lists(st.builds(Assumption, WORDS, st.sampled_from((True, None))), max_size=3))),
        implementation=draw(TERMS),
        warnings=tuple(draw(st.lists(WORDS, max_size=3))),
        reproducible=draw(st.booleans()),
        relation=draw(st.sampled_from(Relation)),
    )


@given(guarantees())
def test_every_guarantee_survives_json_and_reads(value):
    assert Guarantee.from_json(value.to_json()) == value
    assert Guarantee.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    text = str(value)
    assert f"Unit: {value.unit}." in text
    for assumption in value.assumptions:
        assert assumption.text in text
    assert ("Proven: nothing" in text) or value.proven is not None


def numbers_shown(summary):
    """epsilon, delta and the factor of the sentence on what is proven."""
    proven = summary[summary.rindex("Proven: epsilon") :]
    pattern = r"epsilon = ([-+.e\d]+), delta = ([-+.e\d]+) .* at most (e\^)?([-+.e\d]+) times as likely"
    epsilon, delta, is_power, factor = re.search(pattern, proven).groups()
    return float(epsilon), float(delta), float(factor) if is_power else math.log(float(factor))


@settings(max_examples=300)
@given(NUMBER, PROBABILITY)
def test_a_summary_never_shows_less_than_is_proven(epsilon, delta):
    shown_epsilon, shown_delta, log_factor = numbers_shown(guarantee(proven=Proof(epsilon, delta, "x")).summary)
    assert epsilon <= shown_epsilon <= epsilon * 1.0011
    assert delta <= shown_delta <= delta * 1.0011
    # The logarithm itself is rounded, in its last digits.
    assert log_factor >= epsilon * (1 - 1e-15) - 1e-15
    assert (
        f"(up to {shown_delta:.4g} more in probability)" in guarantee(proven=Proof(epsilon, delta, "x")).summary
    ) == (delta > 0)


@given(st.floats(-1e300, 1e300).filter(lambda number: number == 0 or abs(number) > 1e-290), st.integers(1, 15))
def test_round_up_is_an_upper_bound_with_few_digits(number, digits):
    rounded = round_up(number, digits)
    assert rounded >= number
    assert float(f"{rounded:.{digits}g}") == rounded, "or printing it would round again"
    assert rounded - number <= abs(number) * 10.0 ** (1 - digits) * (1 + 1e-9)
