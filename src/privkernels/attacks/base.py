"""What all membership inference attacks share: the interface, and a target's outputs in float64."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privkernels import inference
from privkernels.data import Records
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

Array = npt.NDArray[np.float64]

# What an attack must see of a target: predicted classes alone, logits, or the network itself.
Access = Literal["labels", "outputs", "weights"]

# A target: a module, or for black-box attacks any function from a batch x [b, ...] to logits
# [b, classes]. Log-probabilities are logits too; probabilities are not.
Predictor = nn.Module | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Fidelity:
    """How well an attacker's own models are trained, to be compared with the target.

    Attributes:
        n_models: shadow models trained.
        n_records: training records of each.
        train_accuracy, test_accuracy: means over the shadow models, each on its own training
            records and on the attacker's other records.
        train_loss, test_loss: likewise the cross-entropy, in nats.
    """

    n_models: int
    n_records: int
    train_accuracy: float
    test_accuracy: float
    train_loss: float
    test_loss: float


class Attack(ABC):
    """A membership inference attack in the manner of a scikit-learn estimator.

    The constructor only stores its arguments; ``fit``, where an attack has it, learns from shadow models
    (:class:`~privkernels.attacks.ShadowAttack`) or from public records
    (:class:`~privkernels.attacks.PublicDataAttack`) and returns ``self``; :meth:`score` then serves any number of
    targets.

    Attributes:
        name: short, unique within one audit; may be set per instance.
        access: what the attack must see of the target.
    """

    name: str
    access: ClassVar[Access] = "outputs"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, as ``sklearn.base.clone`` wants them."""
        names = list(inspect.signature(type(self)).parameters)
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments; raises :class:`InvalidArgumentError` for an unknown one."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise InvalidArgumentError(f"{type(self).__name__} has no parameter {name!r}; it has {sorted(known)}")
            setattr(self, name, value)
        return self

    @abstractmethod
    def score(self, target: Predictor, records: Records) -> Array:
        """One score per record, float64 [n], finite; higher means likelier a member of ``target``.

        Raises:
            EmptyDataError: no records.
            NonFiniteValueError: the target's outputs are NaN or infinite.
            InvalidArgumentError: the target's outputs do not have shape [n, classes], or are probabilities.
        """

    def queries_per_record(self) -> int:
        """About how many forward passes of the target one record's score takes: what a budget is planned with."""
        return 1

    def fidelity(self) -> Fidelity | None:
        """How well the attacker's shadow models are trained; None without shadow models."""
        return None

    def notes(self) -> tuple[str, ...]:
        """What a reader of this attack's figures should know, such as a fit that did not converge."""
        return ()

    def describe(self) -> dict[str, Any]:
        """The attack as JSON-able values, for reports."""
        fidelity = self.fidelity()
        return {
            "name": self.name,
            "class": type(self).__name__,
            "parameters": {key: _plain(value) for key, value in self.get_params().items()},
            "fidelity": None if fidelity is None else asdict(fidelity),
            "notes": list(self.notes()),
        }


class PublicDataAttack(Attack):
    """An attack that needs no shadow models, but records that the targets were not trained on."""

    @abstractmethod
    def fit(self, public: Records) -> Self:
        """Take ``public``, known non-members of every target that will be scored; returns ``self``.

        Raises:
            TooFewRecordsError: too few public records.
        """


# Of the records to score, at most this share may be equal to public ones: as chance makes some equal in small tables.
MOST_PUBLIC = 0.1


def check_not_public(attack: Attack, public: Set[bytes], records: Records) -> None:
    """Refuse to score records that the attack has learnt from as known non-members.

    What is fitted to them fits them better than others, so that they differ from records that it has not seen whether
    those are members or not.

    Args:
        public: digests of what the attack learns from.

    Raises:
        InvalidArgumentError: more than a tenth of the records are among them.
    """
    known = sum(digest in public for digest in records.digests())
    if known > MOST_PUBLIC * len(records):
        raise InvalidArgumentError(
            f"{known} of {len(records)} records to score are among the public records that {attack.name!r} learns "
            "from, which would make them look like non-members: give it records of the attacker's own"
        )


def network(target: Predictor, attack: Attack) -> nn.Module:
    """The target as a network, for an attack that needs its weights.

    Raises:
        InvalidArgumentError: the target is a prediction function.
    """
    if isinstance(target, nn.Module):
        return target
    raise InvalidArgumentError(
        f"{attack.name!r} looks inside the model and needs an nn.Module, not a {type(target).__name__}: "
        "give the module, or choose an attack with access 'outputs'"
    )


def _plain(value: Any) -> Any:
    """A JSON value for a constructor argument: itself, or its name; never an object's address."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(item) for key, item in asdict(value).items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    name = getattr(value, "__qualname__", None)
    return str(name) if name else type(value).__name__ if callable(value) else str(value)


def target_logits(target: Predictor, records: Records, batch_size: int = 1024) -> Array:
    """The target's logits on ``records``, float64 [n, classes].

    Answers that are probabilities are refused: their softmax is another distribution, and an attack that compares it
    with shadow models' finds little (an overfitted network on 300 records: LiRA's AUC 0.83, and 0.54 on its softmax).

    Raises as :meth:`Attack.score` does.
    """
    if not len(records):
        raise EmptyDataError("there are no records to score")
    if isinstance(target, nn.Module):
        outputs = inference.logits(target, records, batch_size)
    else:
        with torch.no_grad():
            outputs = torch.cat([_answer(target, x) for x in torch.split(records.x, batch_size)])
    if outputs.shape != (len(records), records.n_classes):
        raise InvalidArgumentError(
            f"the target should give logits of shape {[len(records), records.n_classes]} "
            f"(records, classes), got {list(outputs.shape)}"
        )
    values: Array = outputs.detach().to("cpu", torch.float64).numpy()
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    if bad:
        raise NonFiniteValueError(
            f"the target's logits are NaN or infinite on {bad} of {len(records)} records: give logits or "
            "clipped log-probabilities, and check that training did not diverge"
        )
    if _are_probabilities(values):
        raise InvalidArgumentError(
            "the target's answers look like probabilities (between 0 and 1, rows that add up to 1): give logits, or "
            "the logarithms of the probabilities, clipped away from 0; as logits they would hide a leak"
        )
    return values


def _are_probabilities(values: Array) -> bool:
    """Whether all rows [n, classes] are distributions; one-hot labels, from which order alone is read, are none.

    Of fewer than 10 rows nothing is said: logits of one record may add up to 1 by chance.
    """
    if len(values) < 10 or values.shape[1] < 2 or values.min() < 0 or values.max() > 1:
        return False
    one_hot = bool(np.isin(values, (0.0, 1.0)).all())
    return not one_hot and bool((np.abs(values.sum(axis=1) - 1.0) < 0.01).all())


def _answer(target: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    found = target(x)
    if isinstance(found, Tensor):
        return found
    raise InvalidArgumentError(
        f"a prediction function returns logits as a torch.Tensor [b, classes], not {type(found).__name__}: wrap it, "
        "such as in lambda x: torch.from_numpy(predict(x.numpy()))"
    )


def log_softmax(logits: Array) -> Array:
    """Log-probabilities, float64 [n, classes], from float64 logits.

    The largest term is left out of the sum and brought back by ``log1p``, so that a probability
    of 1 - 1e-30 keeps its distance from 1: confident records do not tie.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    others = np.exp(shifted)
    others[np.arange(len(logits)), logits.argmax(axis=1)] = 0.0
    result: Array = shifted - np.log1p(others.sum(axis=1, keepdims=True))
    return result


def log_complement(log_p: Array) -> Array:
    """log(1 - p) of every class, float64 [n, classes], from log-probabilities [n, classes].

    Where p > 1/2 it comes from the other classes, so that 1 - p is not lost; with one class it is -inf.
    """
    likely = log_p > -np.log(2.0)
    others = np.where(likely, -np.inf, log_p)
    result: Array = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    return np.where(likely, np.logaddexp.reduce(others, axis=1, keepdims=True), result)


def true_class_log_probability(logits: Array, labels: Tensor) -> Array:
    """log p(y | x) per record, float64 [n]; minus the cross-entropy."""
    result: Array = log_softmax(logits)[np.arange(len(logits)), labels.cpu().numpy()]
    return result


def true_class_margin(logits: Array, labels: Tensor) -> Array:
    """log p(y|x) - log(1 - p(y|x)) per record, float64 [n]: z_y minus the logsumexp of the other logits.

    The logit-scaled confidence of LiRA (Carlini et al., IEEE S&P 2022, section VI-A, the stable form), computed
    without a probability that rounds to 1: confident records keep their order.

    Raises:
        InvalidArgumentError: fewer than two classes.
    """
    if logits.shape[1] < 2:
        raise InvalidArgumentError("a margin needs at least two classes: with one, no prediction tells anything")
    rows, columns = np.arange(len(logits)), labels.cpu().numpy()
    others = logits.copy()
    others[rows, columns] = -np.inf
    largest = others.max(axis=1)
    result: Array = logits[rows, columns] - largest - np.log(np.exp(others - largest[:, None]).sum(axis=1))
    return result


def log_probability_of_margin(margins: Array) -> Array:
    """log p(y|x) from the margin log p - log(1 - p), same shape, without loss where p is near 0 or 1."""
    result: Array = -np.logaddexp(0.0, -margins)
    return result
