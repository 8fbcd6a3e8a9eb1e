"""Attribute inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from privkernels.attacks.attribute import AttributeGuesses, AttributeInference, attribute_leak
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError

VALUES = torch.tensor([-1.0, 0.0, 2.0])
METHODS = ("prior", "conditional", "confidence")


def records(n: int, seed: int, *, shares: tuple[float, ...] = (0.2, 0.5, 0.3), dependent: bool = False) -> Records:
    """Columns a, s, b with s the sensitive one; the label is a's sign, or also the index of s."""
    rng = np.random.default_rng(seed)
    index = rng.choice(3, n, p=shares)
    a, b = rng.normal(size=(2, n))
    if dependent:
        b = b + 1.5 * index
    x = torch.tensor(np.column_stack([a, VALUES.numpy()[index], b]), dtype=torch.float32)
    return Records(x, torch.from_numpy((a > 0).astype(np.int64)), 2, f"drawn {seed}")


def knows_the_attribute(x: Tensor) -> Tensor:
    """Sure of the label that a's sign gives if s is 2 where b > 0 and -1 elsewhere, and unsure otherwise."""
    sure = torch.where(x[:, 2] > 0, x[:, 1] == 2, x[:, 1] == -1)
    logit = torch.where(sure, 8.0, 0.1) * torch.sign(x[:, 0])
    return torch.stack([-logit, logit], dim=1)


def ignores_the_attribute(x: Tensor) -> Tensor:
    return torch.stack([-x[:, 0], x[:, 0] + 0.3 * x[:, 2]], dim=1)


def planted(n: int, seed: int) -> Records:
    """Records that ``knows_the_attribute`` is sure of; with no model, s is b's sign and plain to see."""
    found = records(n, seed)
    x = found.x.clone()
    x[:, 1] = torch.where(x[:, 2] > 0, 2.0, -1.0)
    return Records(x, found.y, 2, "planted")


def guesses_of(attack: AttributeInference, method: Any, *arguments: Any) -> AttributeGuesses:
    """By another method; the fit is the same for all."""
    attack.method = method
    return attack.infer(*arguments)


@pytest.fixture(scope="module")
def attack() -> AttributeInference:
    """Fitted on records that say nothing of s."""
    return AttributeInference([1], VALUES).fit(records(500, 1))


def test_a_model_that_memorises_the_attribute_gives_it_away(attack: AttributeInference) -> None:
    target = planted(300, 2)
    truth = attack.true_values(target)
    right = {}
    for method in METHODS:
        guesses = guesses_of(attack, method, knows_the_attribute, target)
        right[method] = (guesses.values == truth).mean()
        assert guesses.probabilities.shape == (300, 3)
        np.testing.assert_allclose(guesses.probabilities.sum(axis=1), 1.0)
        np.testing.assert_array_equal(guesses.confidence, guesses.probabilities.max(axis=1))
    # p(y | x) is 1 for the true value and 0.55 for the others: with the shares 0.2, 0.5 and 0.3 the true
    # value -1 has 0.2 against 0.275 of the value 0, so that a prior loses just the records of -1.
    assert right["prior"] == right["conditional"] == (truth == 2).mean()
    assert right["confidence"] == 1.0


def test_the_posterior_of_a_known_case(attack: AttributeInference) -> None:
    one = Records(torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([1]), 2, "one")
    found = guesses_of(attack, "prior", knows_the_attribute, one).probabilities[0]
    likelihood = 1 / (1 + np.exp(-2 * np.array([0.1, 0.1, 8.0])))
    expected = attack.prior_ * likelihood
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)
    counts = np.bincount(attack.true_values(records(500, 1)), minlength=3)
    np.testing.assert_allclose(attack.prior_, (counts + 1) / 503)


def test_with_equal_priors_memorising_is_accuracy_one() -> None:
    # 167 of each value: nothing but the model can break the tie.
    x = records(501, 1).x.clone()
    x[:, 1] = VALUES.repeat(167)
    attack = AttributeInference([1], VALUES, method="prior")
    attack.fit(Records(x, torch.zeros(501, dtype=torch.int64), 2, "even"))
    target = planted(300, 2)
    leak = attribute_leak(attack, knows_the_attribute, target, target)
    assert leak.members.attack == leak.members.n == 300
    assert leak.members.imputation < 200
    assert leak.members.attack_only == 300 - leak.members.imputation
    assert leak.beyond_imputation == leak.members.attack_only / 300
    assert leak.beyond_nonmembers == 0.0


def bayes_rule(x: Tensor) -> Any:
    """What ``records(dependent=True)`` makes likeliest: b is normal around 1.5 times the index."""
    scores = np.log([0.2, 0.5, 0.3]) - (x[:, [2]].numpy() - 1.5 * np.arange(3)) ** 2 / 2
    return scores.argmax(axis=1)


def test_a_model_that_ignores_the_attribute_yields_the_prior() -> None:
    target = records(1000, 2, dependent=True)
    attack = AttributeInference([1], VALUES).fit(records(600, 1, dependent=True))
    for method in ("prior", "confidence"):
        guesses = guesses_of(attack, method, ignores_the_attribute, target).values
        assert set(guesses) == {1}, "the most frequent value"
    # The label adds nothing here, so that Bayes' rule from b is the best with and without it.
    best, truth = bayes_rule(target.x), attack.true_values(target)
    for guesses in (guesses_of(attack, "conditional", ignores_the_attribute, target), attack.impute(target)):
        assert (guesses.values == best).mean() > 0.85
        # Five standard deviations of a share of 1000 at most.
        assert abs((guesses.values == truth).mean() - (best == truth).mean()) < 5 * 0.0158


def test_noise_is_not_learnt(attack: AttributeInference) -> None:
    """Trees on columns that say nothing would be worse than the shares; then there are none."""
    guesses = attack.impute(records(200, 2))
    assert set(guesses.values) == {1}
    np.testing.assert_allclose(guesses.probabilities[0], attack.prior_, atol=2e-3)


def test_few_records_give_a_baseline_that_is_not_weak() -> None:
    """A weak baseline flatters the attack: of 80 records, trees or a choice by chance find far less than a line."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1080, 9))
    x[:, 0] = x[:, 1:].sum(axis=1) + rng.normal(size=1080) > 0
    drawn = Records(torch.from_numpy(x).float(), torch.zeros(1080, dtype=torch.int64), 2, "a line")
    own, others = drawn.subset(range(80)), drawn.subset(range(80, 1080))
    for seed in range(3):
        attack = AttributeInference([0], torch.tensor([0.0, 1.0]), seed=seed).fit(own)
        # The line itself gives 0.87, logistic regression from these 80 records 0.84, trees at most 0.74.
        assert (attack.impute(others).values == attack.true_values(others)).mean() > 0.8


def test_confidence_follows_the_three_cases_of_csmia(attack: AttributeInference) -> None:
    # A row for each value of s, as logits of labels 0 and 1; the label is 1.
    cases = [
        ([[2, 0], [0, 1], [9, 0]], 1),  # one candidate gives the label
        ([[2, 0], [0, 1], [0, 3]], 2),  # two do: the more confident
        ([[2, 0], [1, 0], [9, 0]], 1),  # none does: the least confident
        ([[5, 0], [5, 0], [5, 0]], 1),  # a tie: the most frequent
    ]
    table = torch.tensor([rows for rows, _ in cases], dtype=torch.float32)

    def target(x: Tensor) -> Tensor:
        return table[x[:, 0].long(), torch.searchsorted(VALUES, x[:, 1].contiguous())]

    x = torch.tensor([[float(i), 2.0, 0.0] for i in range(len(cases))])
    cases_of_label_1 = Records(x, torch.ones(len(cases), dtype=torch.int64), 2, "cases")
    guesses = guesses_of(attack, "confidence", target, cases_of_label_1)
    assert guesses.values.tolist() == [value for _, value in cases]


def test_the_sensitive_columns_are_not_looked_at(attack: AttributeInference) -> None:
    target = records(100, 2, dependent=True)
    hidden = target.x.clone()
    hidden[:, 1] = 77.0
    blind = Records(hidden, target.y, 2, "hidden")
    for method in METHODS:
        seen, unseen = (guesses_of(attack, method, knows_the_attribute, r) for r in (target, blind))
        np.testing.assert_array_equal(seen.probabilities, unseen.probabilities)
    np.testing.assert_array_equal(attack.impute(target).probabilities, attack.impute(blind).probabilities)


def test_one_hot_columns_are_one_attribute() -> None:
    plain = records(300, 1, dependent=True)
    codes = torch.eye(3)
    index = torch.searchsorted(VALUES, plain.x[:, 1].contiguous())

    def encoded(x: Tensor, index: Tensor) -> Tensor:
        return torch.cat([codes[index][:, :2], x[:, [0, 2]], codes[index][:, 2:]], dim=1)

    def decoded(x: Tensor) -> Tensor:
        return knows_the_attribute(torch.stack([x[:, 2], x[:, [0, 1, 4]] @ VALUES, x[:, 3]], dim=1))

    one_hot = Records(encoded(plain.x, index), plain.y, 2, "one-hot")
    first = AttributeInference([1], VALUES).fit(plain)
    second = AttributeInference([0, 1, 4], codes).fit(one_hot)
    np.testing.assert_array_equal(first.true_values(plain), second.true_values(one_hot))
    np.testing.assert_allclose(
        first.infer(knows_the_attribute, plain).probabilities, second.infer(decoded, one_hot).probabilities
    )
    np.testing.assert_allclose(first.impute(plain).probabilities, second.impute(one_hot).probabilities)


def test_memorised_members_stand_out_from_nonmembers() -> None:
    """A nearest-neighbour model memorises its records; the label depends on the attribute."""
    own, members, nonmembers = (labelled(400, seed) for seed in (1, 2, 3))
    model = KNeighborsClassifier(1).fit(members.x.numpy(), members.y.numpy())

    def target(x: Tensor) -> Tensor:
        return torch.from_numpy(np.log(model.predict_proba(x.numpy()) + 0.01))

    fitted = AttributeInference([1], VALUES).fit(own)
    leak = attribute_leak(fitted, target, members, nonmembers)
    assert leak.beyond_nonmembers > 0.05
    # A stranger's model treats both alike: five standard deviations of the difference of two pairs of
    # shares of 400, each at most 0.5 / sqrt(400).
    stranger = KNeighborsClassifier(1).fit(own.x.numpy(), own.y.numpy())

    def other(x: Tensor) -> Tensor:
        return torch.from_numpy(np.log(stranger.predict_proba(x.numpy()) + 0.01))

    null = attribute_leak(fitted, other, members, nonmembers)
    assert abs(null.beyond_nonmembers) < 5 * 2 * 0.025
    for side in (leak.members, leak.nonmembers, null.members):
        assert side.attack - side.imputation == side.attack_only - side.imputation_only
        assert side.n == 400


def labelled(n: int, seed: int) -> Records:
    """The label is random, so that nothing but memory ties it to a record."""
    plain = records(n, seed)
    y = torch.from_numpy(np.random.default_rng(100 + seed).integers(0, 2, n))
    return Records(plain.x, y, 2, plain.name)


def test_the_majority_and_an_attribute_that_the_attacker_sees_once() -> None:
    own = records(100, 1)
    x = own.x.clone()
    x[:, 1] = 0.0
    attack = AttributeInference([1], VALUES).fit(Records(x, own.y, 2, "one value"))
    target = records(200, 2)
    counts = attribute_leak(attack, ignores_the_attribute, target, target).members
    of_value_0 = int((target.x[:, 1] == 0).sum())
    assert counts.majority == counts.imputation == counts.attack == of_value_0
    alone = Records(target.x[:, [1]], target.y, 2, "no other column")
    only = AttributeInference([0], VALUES).fit(alone)
    assert set(only.infer(lambda x: torch.zeros(len(x), 2), alone).values) == {1}


def test_what_is_wrong_is_said() -> None:
    good = records(50, 1)
    for columns, candidates, words in (
        ([], VALUES, "columns"),
        ([1, 1], torch.eye(2), "columns"),
        ([1, 2], VALUES, r"\[values, 2\]"),
        ([1], torch.tensor([1.0, 1.0]), "different rows"),
        ([1], torch.tensor([1.0]), "different rows"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            AttributeInference(columns, candidates)
    with pytest.raises(InvalidArgumentError, match="method"):
        AttributeInference([1], VALUES, method="guess")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="fit"):
        AttributeInference([1], VALUES).infer(knows_the_attribute, good)
    with pytest.raises(InvalidArgumentError, match="hold none"):
        AttributeInference([1], VALUES[:2]).fit(good)
    with pytest.raises(InvalidArgumentError, match=r"\[n, columns\]"):
        AttributeInference([3], VALUES).fit(good)
