"""The guarantee as a value: what it refuses, how it reads, and that it survives JSON."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from privkernels.errors import CorruptFileError, InvalidArgumentError
from privkernels.privacy import Assumption, Claim, Guarantee, Proof, Relation, Unit

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
