"""The common interface, and a target's outputs in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import Tensor, nn

from privkernels.attacks import LossThreshold, ShadowModelAttack, target_logits
from privkernels.attacks.base import (
    _plain,
    log_probability_of_margin,
    log_softmax,
    network,
    true_class_log_probability,
    true_class_margin,
)
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from tests.support.membership import Game, numbered, table_target


def test_a_function_is_a_target_as_good_as_a_module(game: Game) -> None:
    def predict(x: Tensor) -> Tensor:
        return game.target(x)

    as_module = target_logits(game.target, game.members, batch_size=1024)
    as_function = target_logits(predict, game.members, batch_size=64)
    assert as_module.dtype == np.float64
    np.testing.assert_allclose(as_function, as_module, rtol=1e-5, atol=1e-5)


def test_the_target_keeps_its_mode_and_is_scored_in_evaluation_mode() -> None:
    target = nn.Sequential(table_target(torch.ones(4, 3)), nn.Dropout(0.5)).train()
    logits = target_logits(target, numbered([0, 1, 2, 0], 3))
    assert (logits == 1.0).all()
    assert target.training


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("as_function", [False, True])
def test_outputs_that_are_not_finite_are_refused(bad: float, as_function: bool) -> None:
    table = table_target(torch.tensor([[0.0, 1.0], [bad, 0.0]]))
    target = (lambda x: table(x)) if as_function else table
    with pytest.raises(NonFiniteValueError):
        target_logits(target, numbered([0, 1], 2))


@pytest.mark.parametrize("shape", [(3, 2), (3,), (2, 3), (3, 4)])
def test_outputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\[3, 3\]"):
        target_logits(lambda x: torch.zeros(shape), numbered([0, 1, 2], 3))


def test_a_function_that_returns_no_tensor_is_refused(game: Game) -> None:
    with pytest.raises(InvalidArgumentError, match=r"as a torch.Tensor \[b, classes\], not ndarray"):
        target_logits(lambda x: np.zeros((len(x), 10)), game.members)


def test_probabilities_are_no_logits(game: Game) -> None:
    def probabilities(x: Tensor) -> Tensor:
        return torch.softmax(game.target(x), dim=1)

    for half in (False, True):
        with pytest.raises(InvalidArgumentError, match="look like probabilities"):
            target_logits(lambda x, half=half: probabilities(x).half() if half else probabilities(x), game.members)
    # Their logarithms are, and one-hot labels show an order.
    log_p = target_logits(lambda x: probabilities(x).double().log(), game.members)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1.0, rtol=1e-6)
    labels = target_logits(lambda x: nn.functional.one_hot(game.target(x).argmax(1), 10).float(), game.members)
    np.testing.assert_array_equal(labels.argmax(axis=1), log_p.argmax(axis=1))


def test_log_softmax_is_exact_where_float32_is_not() -> None:
    gaps = [5.0, 20.0, 40.0, 90.0, 300.0]
    logits = np.array([[gap, 0.0] for gap in gaps])
    expected = [-math.log1p(math.exp(-gap)) for gap in gaps]
    np.testing.assert_allclose(log_softmax(logits)[:, 0], expected, rtol=1e-14)
    np.testing.assert_allclose(
        log_softmax(logits)[:, 1], [e - g for e, g in zip(expected, gaps, strict=True)], rtol=1e-14
    )


def test_log_softmax_handles_ties_one_class_and_large_logits() -> None:
    np.testing.assert_allclose(log_softmax(np.zeros((1, 4))), -math.log(4))
    np.testing.assert_array_equal(log_softmax(np.array([[7.0]])), [[0.0]])
    np.testing.assert_allclose(log_softmax(np.array([[1e30, 0.0]])), [[0.0, -1e30]])


def test_true_class_log_probability_is_minus_the_cross_entropy() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(50) % 7
    expected = -nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
    np.testing.assert_allclose(true_class_log_probability(logits.numpy(), labels), expected, rtol=1e-12)


def test_attacks_clone_and_set_their_parameters_like_estimators() -> None:
    attack = ShadowModelAttack(min_class_records=6, seed=5)
    assert clone(attack).get_params() == attack.get_params()
    assert attack.set_params(min_class_records=4).min_class_records == 4
    assert LossThreshold(batch_size=7).get_params() == {"batch_size": 7}
    with pytest.raises(InvalidArgumentError, match="no_such"):
        attack.set_params(no_such=1)


def test_a_description_is_plain_and_names_the_functions() -> None:
    description = ShadowModelAttack(seed=3).describe()
    assert description["parameters"]["seed"] == 3
    assert description["parameters"]["attack_model"] == "gradient_boosting"
    assert description["fidelity"] is None


def test_the_margin_is_exact_where_a_probability_rounds_to_one() -> None:
    logits = np.array([[gap, 0.0, -1.0] for gap in (-5.0, 0.0, 40.0, 90.0, 800.0)])
    found = true_class_margin(logits, torch.zeros(5, dtype=torch.int64))
    expected = [gap - math.log(1 + math.exp(-1)) for gap in (-5.0, 0.0, 40.0, 90.0, 800.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(log_probability_of_margin(found), log_softmax(logits)[:, 0], rtol=1e-12)


def test_one_class_has_no_margin() -> None:
    with pytest.raises(InvalidArgumentError, match="two classes"):
        true_class_margin(np.zeros((3, 1)), torch.zeros(3, dtype=torch.int64))


def test_an_attack_on_weights_refuses_a_function(game: Game) -> None:
    assert network(game.target, LossThreshold()) is game.target
    with pytest.raises(InvalidArgumentError, match=r"nn\.Module"):
        network(lambda x: game.target(x), LossThreshold())


def test_functions_in_a_tuple_are_described_by_name() -> None:
    described = _plain((None, log_softmax, 3))
    assert described == [None, "log_softmax", 3]
