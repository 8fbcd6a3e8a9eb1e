"""The neural inference attack: a network reads prediction and label, and tells members from others."""

from __future__ import annotations

import itertools
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from privkernels.attacks.base import Array, Predictor, log_complement, log_softmax, target_logits
from privkernels.attacks.shadows import ShadowAttack, Shadows
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.models import seeded
from privkernels.progress import Progress, silent
from privkernels.randomness import Key

Inputs = Literal["ranked", "probabilities"]

# Log-odds beyond this, of predictions that are certain, say nothing more to the network.
_LARGEST_LOG_ODDS = 30.0


class InferenceNetwork(nn.Module):
    """The inference model of Nasr et al. (CCS 2018): a branch for the prediction, one for the label, and their join.

    Fully connected layers of 1024, 512 and 64 units (prediction), 512 and 64 (label), then 256, 64 and 1, with ReLU
    between them. In the authors' published code the label has 128 and 64, and the join 512, 256, 128, 64 and 1
    (SPIN-UMass/ML-Privacy-Regulization, Purchase-100).

    Args:
        n_classes: of the target.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.prediction = _layers(n_classes, 1024, 512, 64)
        self.label = _layers(n_classes, 512, 64)
        self.joined = nn.Sequential(_layers(128, 256, 64), nn.Linear(64, 1))

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """The log-odds of "member", [b], for predictions [b, classes] and one-hot labels [b, classes]."""
        both = torch.cat([self.prediction(predictions), self.label(labels)], dim=1)
        log_odds: Tensor = self.joined(both)[:, 0]
        return log_odds


class NeuralAttack(ShadowAttack):
    """The inference attack of Nasr, Shokri and Houmansadr (CCS 2018), with shadow models.

    Their attacker is the adversary of the min-max game that they defend with, and of the paper on pruning that
    compares itself with that game (Wang et al., IJCAI 2021, section 5.2). A network sees the prediction vector and
    the one-hot label of a record (:class:`InferenceNetwork`) and is trained with Adam to tell members from others. The
    score is its log-odds.

    Departures:

    * Their attacker knows members and non-members of the target itself, and learns from them. This one learns from
      shadow models, whose members it knows.
    * ``inputs="ranked"``: the network sees log-odds, the true class's first and the others in descending order. The
      papers' ``"probabilities"`` in class order say less, and round to 1. On one target of noisy digits with 8 shadow
      models: AUC 0.635, against 0.627 with probabilities, which took twice the epochs, and 0.616 with log-odds in
      class order.
    * Of the network, the branch for the prediction is that of their published code; the other layers are not. Weights
      start as torch starts them, not from N(0, 0.01^2) as there, and Adam's rate is 0.001 (there 0.0001).
    * Training stops when the log-loss on the last pair of shadow models, which it does not learn from, has not
      fallen for ``patience`` epochs; the best epoch's network is kept. With one pair there is no such check, and
      :meth:`notes` says so.

    Measured by ``benchmarks/attacks.py`` with 4 shadow models, AUC over two targets: 0.720 on a mixture of 20 Gaussian
    classes (shadow model attack 0.703, loss 0.614), and 0.636 on noisy digits (0.636 and 0.637). At 1 % false
    positives it finds 2.5 and 0.8 % of the members: attacks that look at one record's own shadow models find far more.

    Args:
        inputs: what the network sees of a prediction: ``"ranked"`` or ``"probabilities"``.
        epochs: passes over the shadow models' predictions, or ``epoch_size`` of them, at most.
        patience: epochs without a lower loss before training stops.
        batch_size: of training, in predictions.
        epoch_size: predictions that an epoch passes over, at most; each epoch draws its own.
        seed: of initialisation and batch order.

    Attributes:
        network_: after :meth:`fit`, the trained :class:`InferenceNetwork`, on the CPU.
        losses_: held-out log-loss after each epoch, in nats; empty with one pair of shadow models.
    """

    name = "neural inference"

    def __init__(
        self,
        *,
        inputs: Inputs = "ranked",
        epochs: int = 30,
        patience: int = 3,
        batch_size: int = 256,
        epoch_size: int = 2**14,
        seed: int = 0,
    ) -> None:
        self.inputs = inputs
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.epoch_size = epoch_size
        self.seed = seed

    def fit(self, shadows: Shadows, *, progress: Progress = silent) -> Self:
        """Train the network on what the shadow models answer on their pool; see :meth:`ShadowAttack.fit`.

        Raises:
            InvalidArgumentError: unknown inputs, or a number of epochs, patience, batch size or epoch size below 1.
        """
        if self.inputs not in get_args(Inputs):
            raise InvalidArgumentError(f"inputs is one of {', '.join(get_args(Inputs))}, not {self.inputs!r}")
        for name in ("epochs", "patience", "batch_size", "epoch_size"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} is at least 1, got {getattr(self, name)}")
        labels = shadows.pool.y.cpu()
        predictions = torch.stack([self._seen(logits, labels) for logits in shadows.logits(shadows.pool)])
        inside = torch.from_numpy(shadows.trained_on(shadows.pool)).float()
        pairs = torch.tensor(shadows.pairs)
        held_out = pairs == pairs[-1] if len(set(shadows.pairs)) > 1 else torch.zeros(len(pairs), dtype=torch.bool)
        key = Key.from_seed(self.seed).derive("neural inference")
        with seeded(key.seed_for("initialisation")):
            self.network_ = InferenceNetwork(shadows.pool.n_classes)
        one_hot = nn.functional.one_hot(labels, shadows.pool.n_classes).float()
        parts = [
            (predictions[rows].flatten(0, 1), one_hot.repeat(int(rows.sum()), 1), inside[rows].flatten())
            for rows in (~held_out, held_out)
        ]
        self._train(parts[0], parts[1], key, progress)
        self.shadows_ = shadows
        return self

    def _train(
        self,
        learnt: tuple[Tensor, Tensor, Tensor],
        held_out: tuple[Tensor, Tensor, Tensor],
        key: Key,
        progress: Progress,
    ) -> None:
        optimizer = torch.optim.Adam(self.network_.parameters(), lr=1e-3)
        best: dict[str, Any] | None = None
        self.losses_: list[float] = []
        for epoch in range(self.epochs):
            order = torch.randperm(len(learnt[2]), generator=key.generator(f"order/{epoch}"))
            for rows in torch.split(order[: self.epoch_size], self.batch_size):
                optimizer.zero_grad()
                log_odds = self.network_(learnt[0][rows], learnt[1][rows])
                loss = nn.functional.binary_cross_entropy_with_logits(log_odds, learnt[2][rows])
                torch.autograd.backward(loss)
                optimizer.step()
            progress(epoch + 1, self.epochs, "training the inference network (epochs)")
            if not len(held_out[2]):
                continue
            self.losses_.append(self._loss(held_out))
            if self.losses_[-1] == min(self.losses_):
                best = {name: tensor.clone() for name, tensor in self.network_.state_dict().items()}
            if epoch - int(np.argmin(self.losses_)) >= self.patience:
                break
        if best is not None:
            self.network_.load_state_dict(best)
        self.network_.eval()

    def _loss(self, part: tuple[Tensor, Tensor, Tensor]) -> float:
        with torch.no_grad():
            log_odds = self.network_(part[0], part[1])
        return float(nn.functional.binary_cross_entropy_with_logits(log_odds, part[2]))

    def score(self, target: Predictor, records: Records) -> Array:
        """The network's log-odds of "member" per record, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that, :class:`InvalidArgumentError` before :meth:`fit` and for records with another number of
        classes.
        """
        self._fitted(records)
        seen = self._seen(target_logits(target, records), records.y.cpu())
        one_hot = nn.functional.one_hot(records.y.cpu(), records.n_classes).float()
        with torch.no_grad():
            result: Array = self.network_(seen, one_hot).double().numpy()
        return result

    def notes(self) -> tuple[str, ...]:
        """Whether training had a held-out pair to stop by."""
        if getattr(self, "shadows_", None) is None or self.losses_:
            return ()
        return (f"one pair of shadow models: trained for {self.epochs} epochs without a held-out pair to stop by",)

    def _seen(self, logits: Array, labels: Tensor) -> Tensor:
        """What the network sees of predictions, float32 [n, classes]."""
        log_p = log_softmax(logits)
        if self.inputs == "probabilities":
            return torch.from_numpy(np.exp(log_p)).float()
        log_odds = np.clip(log_p - log_complement(log_p), -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)
        rows, columns = np.arange(len(labels)), labels.numpy()
        own = log_odds[rows, columns]
        log_odds[rows, columns] = np.inf
        ranked = -np.sort(-log_odds, axis=1)
        ranked[:, 0] = own
        return torch.from_numpy(ranked).float()


def _layers(*sizes: int) -> nn.Sequential:
    pairs = itertools.pairwise(sizes)
    return nn.Sequential(*(part for first, second in pairs for part in (nn.Linear(first, second), nn.ReLU())))
