"""What the report says of a model audit: outcome, groups, exposed records, checks, choice, power."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from privkernels.audit import (
    Decision,
    Figure,
    Guard,
    ModelAudit,
    Threshold,
    decide,
    one_run_bound,
    tpr_at_fpr,
    white_box_advantage,
)
from privkernels.audit import sections as parts
from privkernels.audit.intervals import auc
from privkernels.audit.summary import number_with_interval, percent_with_interval
from privkernels.audit.thresholds import tpr_limits


def with_outcomes(audit: ModelAudit, *outcomes: str) -> ModelAudit:
    changed = zip(audit.verdicts, outcomes, strict=True)
    return dataclasses.replace(audit, verdicts=tuple(dataclasses.replace(v, outcome=o) for v, o in changed))


@pytest.fixture(scope="session")
def unchosen(model_audit: ModelAudit) -> ModelAudit:
    """The same audit without shadow models: both attacks count, at 97.5 % each."""
    verdicts = tuple(
        dataclasses.replace(
            verdict,
            exposed=None,
            subgroups=None,
            decisions=tuple(
                decide(Threshold(0.9), *attack.scores, 0.975, attack=attack.attack) for attack in target.attacks
            ),
        )
        for verdict, target in zip(model_audit.verdicts, model_audit.result.targets, strict=True)
    )
    return dataclasses.replace(model_audit, choice=None, n_shadows=0, verdicts=verdicts)


def test_a_card_shows_the_chosen_attack_alone(model_audit: ModelAudit) -> None:
    leaky, published = parts.outcome_cards(model_audit, model_audit.result)
    assert (leaky["name"], leaky["kind"], leaky["outcome"]) == ("leaky", "alarm", "Above a threshold")
    assert (published["kind"], published["outcome"]) == ("good", "Below the thresholds")
    assert [name for name, _ in leaky["measured"]] == ["the chosen one"]
    assert not any("pure noise" in sentence for sentence in leaky["sentences"])
    assert leaky["wrong"] == "2.5%"
    assert leaky["shared"] == 0
    assert published["words"].claimed == "ε = 1, δ = 0"
    assert published["words"].proven == "ε = 18.76, δ = 0 per parameter"


def test_the_measured_limits_are_those_that_the_decision_rests_on(model_audit: ModelAudit) -> None:
    card = parts.outcome_cards(model_audit, model_audit.result)[0]
    scores = model_audit.result.targets[0].attacks[1].scores
    area, asked, at_1, at_01 = dict(card["measured"])["the chosen one"]
    assert area == f"AUC {number_with_interval(auc(*scores))}"
    # 400 non-members are too few for 1 % and less.
    assert at_1 == "TPR at 1% FPR too few records to say"
    assert at_01 == "TPR at 0.1% FPR too few records to say"
    low, high = tpr_limits(*scores, 0.02)
    assert (low, high) == (card["decisions"][0].low, card["decisions"][0].high)
    value = tpr_at_fpr(*scores, 0.02).tpr.value
    assert low < value < high
    assert asked == f"TPR at 2% FPR {percent_with_interval(Figure(value, low, high))}"


def test_without_a_choice_every_attack_counts_at_its_share_of_the_error(unchosen: ModelAudit) -> None:
    card = parts.outcome_cards(unchosen, unchosen.result)[0]
    assert [name for name, _ in card["measured"]] == ["pure noise", "the chosen one"]
    assert (card["confidence"], card["wrong"], card["shared"]) == ("97.5%", "1.25%", 2)
    scores = unchosen.result.targets[0].attacks[1].scores
    assert dict(card["measured"])["the chosen one"][0] == f"AUC {number_with_interval(auc(*scores, 0.975))}"
    undecided = dataclasses.replace(
        unchosen, verdicts=tuple(dataclasses.replace(verdict, decisions=()) for verdict in unchosen.verdicts)
    )
    assert parts.interval_confidence(undecided) == 0.975
    assert parts.choice_table(unchosen) is None
    assert "chosen beforehand" in parts.exposed_lists(unchosen)[0]["words"]


def test_limits_have_the_share_of_the_error_that_thresholds_and_models_left(model_audit: ModelAudit) -> None:
    verdict = model_audit.verdicts[0]
    decision = dataclasses.replace(verdict.decisions[0], confidence=0.9875)
    shared = dataclasses.replace(model_audit, verdicts=(dataclasses.replace(verdict, decisions=(decision,)),))
    assert parts.interval_confidence(shared) == 0.9875


def test_an_attack_that_is_above_is_named_where_the_chosen_one_is_below(model_audit: ModelAudit) -> None:
    verdict = model_audit.verdicts[0]
    below = tuple(dataclasses.replace(decision, outcome="below") for decision in verdict.decisions)
    for outcome, decisions, contradicted in (
        ("undecided", below, True),
        ("below", below, False),
        ("undecided", (dataclasses.replace(below[0], outcome="undecided"),), False),
    ):
        changed = dataclasses.replace(verdict, outcome=outcome, decisions=decisions)
        audit = dataclasses.replace(model_audit, verdicts=(changed, *model_audit.verdicts[1:]))
        card = parts.outcome_cards(audit, audit.result)[0]
        assert ("another one of this audit is above" in card["meaning"]) is contradicted


def test_a_void_audit_measures_nothing(model_audit: ModelAudit) -> None:
    failed = Guard("blind baseline", False, True, "members differ without any model")
    void = dataclasses.replace(with_outcomes(model_audit, "void", "void"), guards=(failed,))
    for card in parts.outcome_cards(void, void.result):
        assert (card["kind"], card["outcome"], card["headline"]) == ("alarm", "Void", None)
        assert card["measured"] == []
        assert card["decisions"] == ()
        assert not any("of cases" in sentence for sentence in card["sentences"])
    assert parts.void_reasons(void) == ["Members differ without any model"]
    assert parts.group_tables(void, None) == []
    assert all(entry["rows"] == [] and "void" in entry["words"] for entry in parts.exposed_lists(void))
    assert parts.check_rows(void)[0]["words"] == "failed: the audit is void"
    assert parts.void_reasons(model_audit) == []
    assert parts.void_reasons(None) == []


def test_every_outcome_has_words() -> None:
    assert set(parts.OUTCOMES) == {"below", "above", "undecided", "void", "not asked", "not judged"}


def test_groups_stand_with_the_leaking_ones_first(model_audit: ModelAudit) -> None:
    leaky, published = parts.group_tables(model_audit, model_audit.result.class_names)
    assert [group.leaks for group in leaky["rows"]] == [True, False, False, False]
    assert leaky["names"][leaky["rows"][0].name] == "dog"
    assert set(leaky["names"].values()) == {"ant", "bee", "cat", "dog"}
    areas = [group.auc.value for group in published["rows"]]
    assert areas == sorted(areas, reverse=True)
    assert (leaky["rate"], leaky["confidence"]) == ("5%", "95%")
    assert leaky["picture"] is not None
    assert leaky["words"].startswith("Shown to leak more than guessing: dog (of 4 tested).")
    assert published["words"].startswith("No group is shown to leak (of 4 tested).")
    assert parts.group_tables(model_audit, None)[0]["names"]["class 3"] == "class 3"


def test_it_is_said_which_groups_share_the_error(model_audit: ModelAudit) -> None:
    assert parts.group_kinds(model_audit) == "each class"
    asked = dataclasses.replace(model_audit, attributes=("sex", "age"))
    assert parts.group_kinds(asked) == "each class and each value of sex and age"


def test_the_value_of_an_attribute_keeps_its_name(model_audit: ModelAudit) -> None:
    found = model_audit.verdicts[0].subgroups
    assert found is not None
    named = dataclasses.replace(found.groups[3], name="ward = 3")
    groups = dataclasses.replace(found, groups=(*found.groups, named))
    audit = dataclasses.replace(
        model_audit, verdicts=(dataclasses.replace(model_audit.verdicts[0], subgroups=groups),), attributes=("ward",)
    )
    table = parts.group_tables(audit, model_audit.result.class_names)[0]
    assert table["names"]["ward = 3"] == "ward = 3"
    assert table["words"].startswith("Shown to leak more than guessing: dog and ward = 3 (of 5 tested).")


def test_exposed_records_are_listed_with_their_p_values(model_audit: ModelAudit) -> None:
    leaky, published = parts.exposed_lists(model_audit)
    found = model_audit.verdicts[0].exposed
    assert found is not None
    assert leaky["n"] == len(found.records) >= 100
    assert len(leaky["rows"]) == parts.MOST_EXPOSED
    assert [record for record, _ in leaky["rows"]] == list(found.records[: parts.MOST_EXPOSED])
    assert {p for _, p in leaky["rows"]} == {f"{1 / 401:.2g}"}
    assert leaky["fdr"] == "5%"
    assert all(record >= 300 for record, _ in leaky["rows"]), "those of the class that leaks"
    assert published["rows"] == []
    assert leaky["words"].startswith(
        f"{leaky['n']} of 400 records are exposed by this attack, at a false discovery rate"
    )
    assert published["words"].startswith("0 of 400 records are exposed")
    assert "Fewer than 20 could not have been listed" in published["words"]
    few = dataclasses.replace(model_audit.verdicts[0], exposed=None)
    assert "too few" in parts.exposed_lists(dataclasses.replace(model_audit, verdicts=(few,)))[0]["words"]


def test_warnings_that_only_differ_in_the_attack_are_one(model_audit: ModelAudit) -> None:
    attack = model_audit.result.targets[0].attacks[0]
    attacks = tuple(dataclasses.replace(attack, attack=name) for name in ("loss", "loss: local", "other"))
    target = dataclasses.replace(model_audit.result.targets[0], attacks=attacks)
    warnings = ("no test", "loss: differ", "loss: local: differ", "loss: local: alone", "x: differ")
    result = dataclasses.replace(model_audit.result, targets=(target,), warnings=warnings)
    assert parts.merged_warnings(result) == [
        "no test", "loss, loss: local: differ", "loss: local: alone", "x: differ",
    ]  # fmt: skip


def test_failed_checks_stand_first(model_audit: ModelAudit) -> None:
    rows = parts.check_rows(model_audit)
    assert [(row["mark"], row["guard"].name) for row in rows] == [
        ("✗", "near duplicates"), ("?", "augmentation: mirrored"), ("✓", "blind baseline"),
    ]  # fmt: skip
    assert parts.check_summary(model_audit) == (
        "1 passed, 1 failed (near duplicates), 1 could not be made (augmentation: mirrored)"
    )


def test_the_choice_and_the_shadow_models(model_audit: ModelAudit) -> None:
    table = parts.choice_table(model_audit)
    assert table is not None
    assert (table["criterion"], table["held_out"]) == ("TPR at 1% FPR", "2 held-out shadow models")
    assert [(name, chosen) for name, chosen, _, _ in table["rows"]] == [("the chosen one", True), ("pure noise", False)]
    assert all(len(values) == 2 and mean.endswith("%") for _, _, mean, values in table["rows"])
    shadows, leaky, published = parts.fidelity_rows(model_audit.result)
    assert shadows == ("8 shadow models (pure noise, the chosen one)", "300", "98.0%", "71.0%", "0.0825")
    assert leaky[:2] == ("leaky", "400 audited")
    assert leaky[2] == f"{model_audit.result.targets[0].member_accuracy:.1%}"
    assert published[0] == "published"
    bare = dataclasses.replace(model_audit.result, attacks=({"name": "a", "fidelity": None},))
    assert parts.fidelity_rows(bare) == []


def test_what_could_have_been_found_stands_once(model_audit: ModelAudit) -> None:
    area, rate = parts.detectable_rows(model_audit)
    found = model_audit.verdicts[0].detectable
    assert area[:5] == ("AUC", f"{found[0].value:.3g}", "0.5", "80%", "5%")
    assert rate[:3] == ("TPR at 0.02 FPR", f"{found[1].value:.3g}", "0.02")
    none = dataclasses.replace(found[0], value=None)
    verdict = dataclasses.replace(model_audit.verdicts[0], detectable=(none,))
    rows = parts.detectable_rows(dataclasses.replace(model_audit, verdicts=(verdict,)))
    assert rows[0][1] == "none, however high"


def test_assumptions_stand_once(model_audit: ModelAudit, unchosen: ModelAudit) -> None:
    texts = parts.assumptions(model_audit)
    assert len(texts) == len(set(texts))
    assert sum(text.startswith(("Exposed records", "Groups")) for text in texts) == 2
    # Nothing was chosen, listed or grouped.
    assert len(parts.assumptions(unchosen)) == len(texts) - 3


def test_decisions_are_passed_on_as_they_are(model_audit: ModelAudit) -> None:
    decisions = parts.outcome_cards(model_audit, model_audit.result)[0]["decisions"]
    assert decisions == model_audit.verdicts[0].decisions
    assert all(isinstance(decision, Decision) for decision in decisions)


def test_canaries_and_white_box_access_have_a_sentence_each(model_audit: ModelAudit) -> None:
    rng = np.random.default_rng(3)
    included = rng.random(200) < 0.5
    bound = one_run_bound(rng.normal(size=200) + 3 * included, included, 1e-5)
    first, second = (attack.scores for attack in model_audit.result.targets[0].attacks)
    verdict = dataclasses.replace(
        model_audit.verdicts[0], epsilon=(bound,), white_box=white_box_advantage(second, first)
    )
    found = dataclasses.replace(model_audit, verdicts=(verdict, *model_audit.verdicts[1:]))
    sentences = parts.outcome_cards(found, found.result)[0]["sentences"]
    assert sentences[-2].startswith(f"The training's epsilon >= {bound.epsilon:.4g} at delta = 1e-05")
    assert sentences[-1].startswith("White-box access beats black-box access here")
    void = dataclasses.replace(found, verdicts=(dataclasses.replace(verdict, outcome="void"), *found.verdicts[1:]))
    assert not any("epsilon >=" in sentence for sentence in parts.outcome_cards(void, void.result)[0]["sentences"])
