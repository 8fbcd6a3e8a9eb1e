"""Shadow models: the attacker's own copies, trained on known halves of the attacker's records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privkernels.attacks.base import Array, Fidelity, log_softmax, target_logits
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.models import seeded
from privkernels.progress import Progress, silent
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, fit_stacked

# Half of them trains a shadow model, the other half shows how it treats what it has not seen.
MIN_RECORDS = 20


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow models say about the attacker's records.

    Attributes:
        inside: bool [S, n]; whether shadow s was trained on record i.
        log_probabilities: float64 [S, n, classes].
        fidelity: their accuracies, to be compared with a target's.
    """

    inside: npt.NDArray[np.bool_]
    log_probabilities: Array
    fidelity: Fidelity


def train_shadows(
    make_model: Callable[[], nn.Module],
    records: Records,
    config: TrainingConfig,
    n_shadows: int,
    key: Key,
    *,
    batch_size: int = 1024,
    progress: Progress = silent,
) -> Shadows:
    """Train ``n_shadows`` models on random halves of ``records``, and record their outputs on all.

    Shadows 2k and 2k+1 get the two halves of one random permutation, so that every record is
    inside half of the shadows when their number is even. All start from one random
    initialisation of the attacker's own.

    Raises:
        TooFewRecordsError: fewer than 20 records.
        InvalidArgumentError: fewer than one shadow model.
    """
    n = len(records)
    if n < MIN_RECORDS:
        raise TooFewRecordsError(f"shadow models need at least {MIN_RECORDS} records of the attacker's own, got {n}")
    if n_shadows < 1:
        raise InvalidArgumentError(f"expected at least one shadow model, got n_shadows={n_shadows}")
    inside = _halves(n, n_shadows, key)
    with seeded(key.seed_for("initialisation")):
        model = make_model()
    states = fit_stacked(
        make_model,
        model.state_dict(),
        records,
        [torch.from_numpy(np.flatnonzero(row)) for row in inside],
        config,
        [key.seed_for(f"shuffle/{shadow}") for shadow in range(n_shadows)],
        progress=progress,
    )
    model.to(records.x.device)
    outputs = np.empty((n_shadows, n, records.n_classes))
    for shadow, state in enumerate(states):
        model.load_state_dict(state)
        outputs[shadow] = log_softmax(target_logits(model, records, batch_size))
    correct = outputs.argmax(axis=2) == records.y.cpu().numpy()
    fidelity = Fidelity(
        n_models=n_shadows,
        n_records=round(inside.sum() / n_shadows),
        train_accuracy=float(correct[inside].mean()),
        test_accuracy=float(correct[~inside].mean()),
    )
    return Shadows(inside, outputs, fidelity)


def _halves(n: int, n_shadows: int, key: Key) -> npt.NDArray[np.bool_]:
    inside = np.zeros((n_shadows, n), dtype=np.bool_)
    for pair in range((n_shadows + 1) // 2):
        order = np.random.default_rng(key.seed_for(f"halves/{pair}")).permutation(n)
        inside[2 * pair, order[: n // 2]] = True
        if 2 * pair + 1 < n_shadows:
            inside[2 * pair + 1] = ~inside[2 * pair]
    return inside
