"""Attribute inference: the sensitive value of a record whose other values are known.

A classifier is asked about the record with each candidate value in turn; the answers say which
value fits the known label best. Much of what such an attack gets right it could have guessed from
the other columns without any model. So it stands beside an imputation that never sees the model,
and beside itself on records that the model was not trained on (:func:`attribute_leak`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from privkernels.attacks.base import Array, Predictor, log_softmax, target_logits
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.randomness import Key

Method = Literal["prior", "conditional", "confidence"]
Indices = npt.NDArray[np.int64]

# Parts of the attacker's records that each choose once between imputations, and the most trees that are tried.
FOLDS, MAX_TREES = 5, 100
# A model must make the held-out values e^3 times as likely as their shares do; noise seldom seems worth that.
LEAST_GAIN = 3.0


@dataclass(frozen=True, eq=False)
class AttributeGuesses:
    """One guess per record.

    Attributes:
        values: int64 [n], rows of the attack's ``candidates``.
        confidence: float64 [n] in [0, 1]; the guess's own share of ``probabilities``.
        probabilities: float64 [n, candidates]; rows sum to 1. Under "confidence" they are shares of
            the target's confidence and no posterior.
    """

    values: Indices
    confidence: Array
    probabilities: Array


class AttributeInference:
    """Guess a discrete sensitive attribute from a classifier's answers to every candidate value.

    With v a candidate, x_v the record with its sensitive columns set to v and y its true label:

    ``"prior"``: the largest p(v) p(y | x_v), where p(v) is the share of v in the attacker's records
    and p(y | x_v) is the target's softmax. This is the model inversion of Fredrikson et al. (USENIX
    Security 2014) with the target's probability in the place of their error model; Yeom et al. (CSF
    2018) analyse it.

    ``"conditional"``: the same with p(v | other columns), which boosted trees or logistic regression
    learn from the attacker's records, whichever does it better in cross-validation. Not from a
    paper: it is what Bayes' rule asks for where the other columns tell something of the attribute.

    ``"confidence"``: Mehnaz et al. (USENIX Security 2022, CSMIA). If the target gives
    label y for one candidate alone, that one; for several, the one with the greatest confidence;
    for none, the one with the least confidence in the wrong label. Needs no prior.

    Ties go to the candidate that is more frequent in the attacker's records, then to the lower
    index, so a target that ignores the attribute yields the guess that its prior would make alone.

    Departure: probabilities of values that the attacker's records lack are not 0: counts have one
    added, and a model's probabilities are raised to 1 / (2n).

    Args:
        columns: k columns of x that hold the attribute; several where it is one-hot encoded.
        candidates: float [values, k]: what these columns hold for each value; [values] where k = 1.
        method: see above.
        seed: of the imputation's folds and trees.
        batch_size: records per forward pass.

    Raises:
        InvalidArgumentError: no or repeated columns, fewer than two or repeated candidates, a shape
            that does not fit, or an unknown method.
    """

    def __init__(
        self,
        columns: Sequence[int],
        candidates: Tensor,
        *,
        method: Method = "conditional",
        seed: int = 0,
        batch_size: int = 1024,
    ) -> None:
        self.columns = [int(column) for column in columns]
        self.candidates = candidates[:, None] if candidates.dim() == 1 else candidates
        self.method = method
        self.seed = seed
        self.batch_size = batch_size
        if not self.columns or len(set(self.columns)) < len(self.columns) or min(self.columns) < 0:
            raise InvalidArgumentError(f"columns are different indices from 0 on, at least one, got {list(columns)}")
        if self.candidates.dim() != 2 or self.candidates.shape[1] != len(self.columns):
            raise InvalidArgumentError(
                f"candidates have shape [values, {len(self.columns)}], a number for each column, "
                f"got {list(candidates.shape)}"
            )
        if len(set(map(tuple, self.candidates.tolist()))) < max(2, len(self.candidates)):
            raise InvalidArgumentError("candidates are at least two different rows")
        if method not in get_args(Method):
            raise InvalidArgumentError(f"method is one of {', '.join(get_args(Method))}, got {method!r}")

    def fit(self, records: Records) -> Self:
        """Learn how the attribute depends on the other columns and the label, without any model.

        ``records`` are the attacker's own, of the source of the attacked ones and none of them.

        Raises:
            InvalidArgumentError: x is not [n, columns], or a sensitive value is no candidate.
        """
        values = self.true_values(records)
        known, labels = self._known(records), records.y.cpu().numpy()
        n_values = len(self.candidates)
        self.prior_: Array = (np.bincount(values, minlength=n_values) + 1) / (len(values) + n_values)
        key = Key.from_seed(self.seed)
        self._given_known = _Imputation(known, values, n_values, key.derive("attribute/known"))
        with_label = np.column_stack([known, labels])
        self._given_label = _Imputation(with_label, values, n_values, key.derive("attribute/label"))
        return self

    def infer(self, target: Predictor, records: Records) -> AttributeGuesses:
        """Guess the attribute of each record; what its sensitive columns hold is not looked at.

        Raises:
            InvalidArgumentError: before :meth:`fit`, or for records of another shape.
            NonFiniteValueError: the target's outputs are NaN or infinite.
        """
        known = self._known(records)
        self._check_fitted()
        answers = [
            log_softmax(target_logits(target, self._with(records, value), self.batch_size))
            for value in range(len(self.candidates))
        ]
        outputs = np.stack(answers, axis=1)
        labels = records.y.cpu().numpy()
        if self.method == "confidence":
            return self._by_confidence(outputs, labels)
        likelihood = outputs[np.arange(len(labels)), :, labels]
        prior = self.prior_ if self.method == "prior" else self._given_known.probabilities(known)
        return self._guesses(np.log(prior) + likelihood)

    def impute(self, records: Records) -> AttributeGuesses:
        """The guess without the model, from the other columns and the label."""
        known = self._known(records)
        self._check_fitted()
        features = np.column_stack([known, records.y.cpu().numpy()])
        return self._guesses(np.log(self._given_label.probabilities(features)))

    def true_values(self, records: Records) -> Indices:
        """Which candidate each record holds, int64 [n].

        Raises:
            InvalidArgumentError: a record holds none of the candidates.
        """
        self._known(records)
        held = records.x[:, self.columns].cpu()
        matches = (held[:, None, :] == self.candidates.to("cpu", held.dtype)).all(dim=2)
        missing = int((~matches.any(dim=1)).sum())
        if missing:
            raise InvalidArgumentError(
                f"columns {self.columns} of {missing} of {len(records)} records in {records.name!r} hold none of the "
                f"{len(self.candidates)} candidates: give every value that occurs, scaled as the records are"
            )
        result: Indices = matches.int().argmax(dim=1).numpy()
        return result

    def _by_confidence(self, outputs: Array, labels: Indices) -> AttributeGuesses:
        predicted, confidence = outputs.argmax(axis=2), outputs.max(axis=2)
        right = predicted == labels[:, None]
        # Where any candidate is right, the wrong ones are out; where none is, the order is reversed.
        scores = np.where(right, confidence, -np.inf)
        scores = np.where(right.any(axis=1, keepdims=True), scores, -confidence)
        return self._guesses(scores)

    def _guesses(self, scores: Array) -> AttributeGuesses:
        """The best score per record; probabilities are the scores' softmax."""
        order = np.argsort(-self.prior_, kind="stable")
        values = order[scores[:, order].argmax(axis=1)]
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        return AttributeGuesses(values, probabilities[np.arange(len(values)), values], probabilities)

    def _with(self, records: Records, value: int) -> Records:
        x = records.x.clone()
        x[:, self.columns] = self.candidates[value].to(x)
        return Records(x, records.y, records.n_classes, records.name)

    def _known(self, records: Records) -> Array:
        """The other columns, float64 [n, columns - k]."""
        width = records.x.shape[1]
        if records.x.dim() != 2 or max(self.columns) >= width:
            raise InvalidArgumentError(
                f"attribute inference needs x of shape [n, columns] with columns {self.columns}, "
                f"got {list(records.x.shape)} for {records.name!r}"
            )
        others = [column for column in range(width) if column not in self.columns]
        result: Array = records.x[:, others].to("cpu", torch.float64).numpy()
        return result

    def _check_fitted(self) -> None:
        if not hasattr(self, "prior_"):
            raise InvalidArgumentError("attribute inference is not fitted: call fit(records) with the attacker's own")


class _Imputation:
    """p(value | features) by the best of what the attacker's own records can tell apart.

    The shares of the values alone, 1 to 100 boosted trees of 8 leaves, or logistic regression on standardised
    features: whichever has the least log-loss in cross-validation; all records then train it. A weak baseline flatters
    the attack, and so do overfitted trees, or a choice by chance: on 142 of scikit-learn's diabetes records a single
    held-out fifth chose between no trees and many, and 52 to 68 % of the others' sexes were guessed, for five seeds;
    with cross-validation it is 65 to 69 %.
    """

    def __init__(self, features: Array, values: Indices, n_values: int, key: Key) -> None:
        self.shares = np.bincount(values, minlength=n_values) / len(values)
        self.least = 1 / (2 * len(values))
        self.model: Any = None
        order = np.random.default_rng(key.seed_for("folds")).permutation(len(values))
        folds = [(np.setdiff1d(order, order[first::FOLDS]), order[first::FOLDS]) for first in range(FOLDS)]
        # One value leaves nothing to learn, and without features there is nothing to learn from.
        if not features.shape[1] or any(len(np.unique(values[rest])) < 2 for rest, _ in folds):
            return
        with _few_threads(features):
            # Shares, 1 to 100 trees, regression.
            losses = np.sum([self._losses(features, values, *fold, key) for fold in folds], axis=0)
            best = int(np.argmin(losses))
            if losses[0] - losses[best] > LEAST_GAIN:
                self.model = _regression() if best > MAX_TREES else _trees(best, key)
                self.model.fit(features, values)

    def probabilities(self, features: Array) -> Array:
        """Float64 [n, values], positive; rows sum to 1."""
        if self.model is None:
            return self._spread(np.tile(self.shares, (len(features), 1)), np.arange(len(self.shares)))
        with _few_threads(features):
            return self._spread(self.model.predict_proba(features), self.model.classes_)

    def _losses(self, features: Array, values: Indices, rest: Indices, check: Indices, key: Key) -> Array:
        """Summed log-loss on ``check`` of what ``rest`` trains, [2 + MAX_TREES]."""
        known, shares = np.unique(values[rest], return_counts=True)
        tried = [(np.tile(shares / len(rest), (len(check), 1)), known)]
        trees = _trees(MAX_TREES, key).fit(features[rest], values[rest])
        tried += [(stage, trees.classes_) for stage in trees.staged_predict_proba(features[check])]
        line = _regression().fit(features[rest], values[rest])
        tried.append((line.predict_proba(features[check]), line.classes_))
        rows, truth = np.arange(len(check)), values[check]
        return np.array([-np.log(self._spread(found, classes)[rows, truth]).sum() for found, classes in tried])

    def _spread(self, found: Array, classes: Indices) -> Array:
        """Probabilities of ``classes`` over all values, each raised to the least."""
        result = np.zeros((len(found), len(self.shares)))
        result[:, classes] = found
        result = np.maximum(result, self.least)
        normalised: Array = result / result.sum(axis=1, keepdims=True)
        return normalised


def _trees(count: int, key: Key) -> HistGradientBoostingClassifier:
    seed = key.seed_for("trees") % 2**32
    return HistGradientBoostingClassifier(max_iter=count, max_leaf_nodes=8, early_stopping=False, random_state=seed)


def _regression() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _few_threads(features: Array) -> threadpool_limits:
    # Small work is over before its threads are in step; on a busy machine they wait for each other.
    return threadpool_limits(1 if features.size < 1_000_000 else None, user_api="openmp")


@dataclass(frozen=True)
class AttributeCounts:
    """How many of n records each way of guessing gets right.

    Attributes:
        n: records.
        attack, imputation, majority: right guesses with the model, without it, and by always
            naming the attacker's most frequent value.
        attack_only, imputation_only: records that one of the two gets right and the other wrong.
            Their difference is what the model adds; of n pairs the two are the discordant ones,
            as McNemar's test wants them.
    """

    n: int
    attack: int
    imputation: int
    majority: int
    attack_only: int
    imputation_only: int


@dataclass(frozen=True)
class AttributeLeak:
    """An attack's right guesses on both sides of membership.

    What ``attack`` exceeds ``imputation`` by on non-members is what the model's task tells about
    the attribute: it is no leak of training records, and stays when they are replaced by others.
    What it exceeds it by on members more than that is.
    """

    members: AttributeCounts
    nonmembers: AttributeCounts

    @property
    def beyond_imputation(self) -> float:
        """Accuracy on members, with the model minus without."""
        return (self.members.attack - self.members.imputation) / self.members.n

    @property
    def beyond_nonmembers(self) -> float:
        """``beyond_imputation`` minus the same for non-members: the part that membership explains."""
        nonmembers = self.nonmembers
        return self.beyond_imputation - (nonmembers.attack - nonmembers.imputation) / nonmembers.n


def attribute_leak(
    attack: AttributeInference, target: Predictor, members: Records, nonmembers: Records
) -> AttributeLeak:
    """Count a fitted attack's right guesses on training records and on others of their source.

    Raises as :meth:`AttributeInference.infer` and :meth:`AttributeInference.true_values` do.
    """
    return AttributeLeak(_counts(attack, target, members), _counts(attack, target, nonmembers))


def _counts(attack: AttributeInference, target: Predictor, records: Records) -> AttributeCounts:
    truth = attack.true_values(records)
    with_model = attack.infer(target, records).values == truth
    without = attack.impute(records).values == truth
    return AttributeCounts(
        n=len(truth),
        attack=int(with_model.sum()),
        imputation=int(without.sum()),
        majority=int((truth == attack.prior_.argmax()).sum()),
        attack_only=int((with_model & ~without).sum()),
        imputation_only=int((without & ~with_model).sum()),
    )
