"""SecProbe's choice of participants: scores, sensitivities and costs by exact laws, and where the paper's are wrong."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import special

from privkernels.errors import InvalidArgumentError, InvalidBudgetError, UnknownNameError
from privkernels.privacy import (
    BoundedRangeEvent,
    Guarantee,
    Unit,
    paper_score_sensitivity,
    plan_selection,
    regression_term,
    score_range,
    score_sensitivity,
    selection_guarantee,
    zcdp_to_epsilon,
)
from privkernels.privacy.secprobe import bound_of, event_of


def plan(epsilon=1.0, **changes):
    values = {
        "task": "regression", "unit": "validation record", "num_records": 10_000, "num_participants": 30,
        "num_selected": 15, "delta": 1e-5,
    }  # fmt: skip
    return plan_selection(epsilon, **(values | changes))


# The score


def printed_term(z, y):
    return 1 - abs(max(z, 3 * y) - y) / y


def test_with_max_no_term_is_above_minus_one_and_none_has_a_bound():
    y = 0.4
    terms = [printed_term(z, y) for z in np.linspace(-5, 37.4, 1000)]
    assert max(terms) == pytest.approx(-1)
    assert min(terms) == pytest.approx(-91.5)
    assert printed_term(1e6, y) < -1e6


def test_with_min_every_term_lies_in_its_range():
    terms = [regression_term(z, y) for z in np.linspace(0, 100, 500) for y in (0.01, 0.4, 1.0)]
    assert min(terms) == pytest.approx(-1)
    assert max(terms) <= 1
    assert regression_term(0.4, 0.4) == 1


def test_with_min_a_negative_prediction_or_a_zero_target_breaks_the_range():
    assert 1 - abs(min(-100 * 0.4, 3 * 0.4) - 0.4) / 0.4 == pytest.approx(-100)
    for z, y in ((-0.1, 0.4), (0.5, 0.0), (math.nan, 0.4), (0.5, math.inf)):
        with pytest.raises(InvalidArgumentError, match="public floor"):
            regression_term(z, y)


# Sensitivity to one validation record


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("records", [1, 2, 5])
def test_sensitivities_are_attained_and_not_exceeded(task, records):
    low, high = (-1, 1) if task == "regression" else (0, 1)
    rng = np.random.default_rng(0)
    terms = rng.choice([low, high], size=(500, records + 1)) if task == "classification" else rng.uniform(
        low, high, (500, records + 1)
    )  # fmt: skip
    terms[0] = low
    terms[0, -1] = high  # the largest change: one best record among the worst
    replaced = np.abs(terms[:, :-1].mean(1) - np.c_[terms[:, 1:-1], terms[:, -1]].mean(1))
    added = np.abs(terms.mean(1) - terms[:, :-1].mean(1))
    assert replaced.max() == pytest.approx(score_sensitivity(task, records))
    assert added.max() == pytest.approx(score_sensitivity(task, records + 1, "add-or-remove-one"))


def test_the_papers_sensitivities_are_loose_by_half_the_records_and_too_small_for_one():
    for task, paper in (("regression", 1.0), ("classification", 0.5)):
        assert paper_score_sensitivity(task) == paper
        assert paper / score_sensitivity(task, 10_000) == pytest.approx(5_000)
        assert score_sensitivity(task, 1) == 2 * paper
    # Lemma 2: (n - m) / (n (n + 1)) at n = 1, m = 0.
    assert score_sensitivity("classification", 2, "add-or-remove-one") == paper_score_sensitivity("classification")


def test_the_papers_multiplier_does_not_choose():
    """Two participants with scores .85 and .30 at epsilon 1, K = 15."""
    paper = plan(paper_sensitivity=True)
    assert paper.multiplier == pytest.approx(0.033, abs=4e-4)
    good = special.expit(paper.multiplier * (0.85 - 0.30))
    assert good == pytest.approx(0.504, abs=1e-3)
    assert 1 - good == pytest.approx(0.496, abs=1e-3)
    tight = plan()
    assert special.expit(tight.multiplier * (0.85 - 0.30)) > 0.9995
    assert paper.tilt == pytest.approx(math.exp(2 / 30))
    assert any("Near-uniform" in w for w in selection_guarantee(paper, scores_are_clipped=True).warnings)
    assert not any("Near-uniform" in w for w in selection_guarantee(tight, scores_are_clipped=True).warnings)


# Exact laws of a choice


def without_replacement(scores, multiplier, size):
    """{ordered choice: probability} by the sequential exponential mechanism."""
    law = {}
    for order in permutations(range(len(scores)), size):
        left, probability = list(range(len(scores))), 1.0
        for chosen in order:
            weights = special.softmax(multiplier * np.array([scores[i] for i in left]))
            probability *= weights[left.index(chosen)]
            left.remove(chosen)
        law[order] = probability
    return law


def worst_ratio(first, second):
    return max(abs(math.log(first[order] / second[order])) for order in first)


def test_a_record_costs_no_more_than_epsilon_over_k_draws():
    small = plan(num_records=4, num_participants=4, num_selected=2)
    change = score_sensitivity("regression", 4)
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(200):
        base = rng.uniform(-0.5, 0.5, 4)
        moved = base + rng.choice([-1, 1], 4) * change
        laws = [without_replacement(s, small.multiplier, 2) for s in (base, moved)]
        worst = max(worst, worst_ratio(*laws))
    assert 0.6 < worst <= 1.0


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_one_participants_score_costs_what_theorem_5_says_for_the_indices(task):
    """One candidate moves by the whole range of a score; the multiplier is the paper's own."""
    chosen = plan_selection(
        1.0, task=task, unit="participant score", num_records=100, num_participants=40, num_selected=1, delta=1e-5
    )
    assert chosen.multiplier == 1.0 / (2 * paper_score_sensitivity(task))
    low = -1.0 if task == "regression" else 0.0
    scores = np.zeros(40) + low
    laws = []
    for mine in (low, low + score_range(task)):
        scores[0] = mine
        laws.append(special.log_softmax(chosen.multiplier * scores))
    assert 0.95 < np.abs(laws[0] - laws[1]).max() <= 1.0
    assert bound_of(chosen).epsilon <= 1.0 + 1e-12


def test_the_two_units_conflict():
    """The multiplier that is tight for a record costs epsilon d / 2 for a participant's score."""
    assert plan().multiplier * score_range("regression") * 15 == pytest.approx(5_000)


def test_draws_without_replacement_are_one_gumbel_top_k():
    scores, multiplier, draws = np.array([0.9, 0.1, -0.4, 0.5]), 1.3, 200_000
    rng = np.random.default_rng(0)
    noisy = multiplier * scores + rng.gumbel(size=(draws, 4))
    top = np.argsort(-noisy, axis=1)[:, :2]
    for order, probability in without_replacement(scores, multiplier, 2).items():
        share = np.mean((top == order).all(axis=1))
        assert abs(share - probability) < 5 * math.sqrt(probability / draws)


# Rounds


def test_rounds_compose():
    """'epsilon_1 in each epoch' by parallel composition: but every round asks the same records again."""
    for rounds, expected in ((50, 4.26), (500, 16.9)):
        many = plan(rounds=rounds)
        assert event_of(many) == BoundedRangeEvent(eta=many.eta, count=15 * rounds)
        assert many.eta == pytest.approx(1 / 15)
        rho = rounds * 1.0 / (8 * 15)
        assert zcdp_to_epsilon(rho, 1e-5) == pytest.approx(expected, rel=5e-3)
        terms = selection_guarantee(many, scores_are_clipped=True).implementation
        assert terms["rho_of_all_rounds"] == pytest.approx(rho)
        assert terms["epsilon_of_all_rounds_basic"] == pytest.approx(rounds)
        assert 1.0 < bound_of(many).epsilon <= expected * 1.005


def test_two_rounds_of_the_same_scores_spend_more_than_one():
    laws = [special.log_softmax(0.5 * np.array([mine, *[-1.0] * 30])) for mine in (-1.0, 1.0)]
    one = np.abs(laws[0] - laws[1]).max()
    both = np.abs(laws[0][:, None] + laws[0][None] - laws[1][:, None] - laws[1][None]).max()
    assert both == pytest.approx(2 * one)


# The guarantee as a value


def test_the_claim_is_theorem_5_or_the_maximum():
    paper = selection_guarantee(plan(paper_sensitivity=True), scores_are_clipped=True)
    assert paper.claimed.epsilon == pytest.approx(1.0)
    assert paper.claimed.equation == "Theorem 5"
    assert "applied" not in paper.claimed.paper
    assert paper.proven.epsilon < 0.001, "the paper's sensitivity is loose: far less is spent than it says"
    both = selection_guarantee(plan(paper_sensitivity=True), scores_are_clipped=True, epsilon_training=3.0)
    assert both.claimed.epsilon == 3.0
    assert "max(epsilon_1, epsilon_2)" in both.claimed.formula
    tight = selection_guarantee(plan(), scores_are_clipped=True)
    assert tight.claimed.epsilon == pytest.approx(5_000)
    assert "applied" in tight.claimed.paper
    assert tight.proven.epsilon <= 1.0 + 1e-9


def test_scores_without_a_range_leave_no_proof():
    guarantee = selection_guarantee(plan(), scores_are_clipped=False)
    assert guarantee.proven is None
    assert "max where min is meant" in guarantee.not_proven_because
    assert "seed" in selection_guarantee(plan(), scores_are_clipped=True, reproducible=True).not_proven_because


@pytest.mark.parametrize("unit", ["validation record", "participant score"])
def test_the_guarantee_reads_and_survives_json(unit):
    guarantee = selection_guarantee(plan(unit=unit, rounds=50), scores_are_clipped=True, validation_is_public=True)
    assert Guarantee.from_json(guarantee.to_json()) == guarantee
    text = str(guarantee)
    assert f"Unit: {unit}" in text
    assert "Indices only" in text
    assert "not a training record" in text or "not the records that it trained on" in text


def test_bad_arguments():
    with pytest.raises(InvalidArgumentError, match="hides one of"):
        plan(unit=Unit.MEMBER)
    with pytest.raises(UnknownNameError, match="ranking"):
        plan(task="ranking")
    with pytest.raises(InvalidArgumentError, match="num_selected"):
        plan(num_selected=31)
    with pytest.raises(InvalidArgumentError, match="too small"):
        plan(num_records=1, paper_sensitivity=True)
    with pytest.raises(InvalidArgumentError, match="1 or more validation records"):
        plan(num_records=0)
    with pytest.raises(InvalidArgumentError, match="2 or more"):
        score_sensitivity("regression", 1, "add-or-remove-one")
    for epsilon in (0, -1, math.nan, math.inf):
        with pytest.raises(InvalidBudgetError):
            plan(epsilon)
    with pytest.raises(InvalidBudgetError):
        selection_guarantee(plan(), scores_are_clipped=True, epsilon_training=-1.0)


def test_numbers_in_warnings_are_rounded_up():
    """ "At most" must hold, and so must what the draws cost one participant's score."""
    nearest_is_below = 0
    for epsilon in (0.0307, 0.1113, 0.2223, 0.3337):
        value = plan(epsilon, num_records=8, num_selected=7)
        warnings = selection_guarantee(value, scores_are_clipped=True).warnings
        (tilt,) = (float(w.split("at most ")[1].split()[0]) for w in warnings if "Near-uniform" in w)
        (cost,) = (float(w.split("cost ")[1].split()[0]) for w in warnings if "same draws cost" in w)
        of_score = value.multiplier * score_range(value.task)
        assert value.tilt <= tilt < value.tilt * 1.01
        assert of_score <= cost < of_score * 1.001
        nearest_is_below += float(f"{value.tilt:.3g}") < value.tilt
        nearest_is_below += float(f"{of_score:.4g}") < of_score
    assert nearest_is_below >= 2, "or the test could not fail"
