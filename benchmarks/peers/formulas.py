"""What other libraries compute in an attack, computed from the same margins and logits without them.

Each function states a formula as the peer's code has it (PrivacyGuard 0.0.2, ART 1.20.1). Where its ranking equals the
peer's own, the formula is what sets the peer apart from ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from privkernels.attacks.base import Array
from privkernels.data import Records

Bools = npt.NDArray[np.bool_]


@contextlib.contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator inside the block, and put it back: scikit-learn's defaults draw from it."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def float32_log_probability(target: nn.Module, records: Records) -> Array:
    """Minus the cross-entropy in float32: below about 6e-8 it is 0, and confident records tie."""
    with torch.no_grad():
        loss = functional.cross_entropy(target(records.x), records.y, reduction="none")
    return -loss.to(torch.float64).numpy()


def lira_moments(margins: Array, which: Bools) -> tuple[Array, Array]:
    """Mean and standard deviation per record, [n] each, over the shadow models of ``which`` [S, n].

    The deviation is divided by the number of models, not by one less, and 1e-8 is added to it.
    """
    count = which.sum(axis=0)
    mean = np.where(which, margins, 0.0).sum(axis=0) / count
    squares = np.square(np.where(which, margins - mean, 0.0)).sum(axis=0)
    return mean, np.sqrt(squares / count) + 1e-8


def lira_online(phi: Array, margins: Array, trained: Bools, deviation: str) -> Array:
    """log N(phi; IN) - log N(phi; OUT), [n].

    Args:
        deviation: ``"per-record"``; ``"global"``: one for both, that of the target's margins over all scored records,
            members and non-members; ``"mix"``: for each of the two, the mean of the records' deviations.
    """
    (mean_in, own_in), (mean_out, own_out) = lira_moments(margins, trained), lira_moments(margins, ~trained)
    if deviation == "per-record":
        inside, outside = own_in, own_out
    elif deviation == "global":
        inside = outside = np.full_like(phi, phi.std(ddof=1))
    else:
        inside, outside = np.full_like(phi, own_in.mean()), np.full_like(phi, own_out.mean())
    result: Array = stats.norm.logpdf(phi, mean_in, inside) - stats.norm.logpdf(phi, mean_out, outside)
    return result


def lira_offline(phi: Array, margins: Array, trained: Bools) -> Array:
    """-log N(phi; OUT), [n]: the density in place of the tail, so that far below counts like far above."""
    mean, own = lira_moments(margins, ~trained)
    result: Array = -stats.norm.logpdf(phi, mean, own.mean())
    return result


def mean_of_top(probabilities: Array, count: int) -> Array:
    """Mean of each record's ``count`` largest probabilities over the shadow models [S, n]; [n]."""
    result: Array = np.sort(probabilities, axis=0)[-count:].mean(axis=0)
    return result


def rmia_ratio(phi: Array, margins: Array, kept: Bools, count: int, a: float | None) -> Array:
    """p(target) / p(models in general), [n], where the latter is a mean over the ``count`` largest of the kept.

    Args:
        kept: bool [S, n]; what is not kept counts as 0, and is among the ``count`` where too few are kept.
        a: of the offline formula; None for the online one.
    """
    mean = mean_of_top(np.where(kept, expit(margins), 0.0), count)
    result: Array = expit(phi) / (mean if a is None else (1 + a) / 2 * mean + (1 - a) / 2)
    return result


def share_below(ratios: Array, population: Array) -> Array:
    """The share of the population whose ratio is below each record's, [n]: at most len(population) + 1 values."""
    result: Array = (ratios[:, None] / population > 1.0).mean(axis=1)
    return result


def rmia_tuned_a(margins: Array, population: Array, truth: Bools, answered: Bools) -> float:
    """The alpha that PrivacyGuard's tuning takes: its AUC on shadow model 0 with shadow model 1 as the only other.

    Args:
        margins: of the two on the scored records, [2, n].
        population: likewise [2, z].
        truth: bool [n]; what shadow model 1 was trained on, which the formula needs.
        answered: bool [n]; what the scores are taken to answer. PrivacyGuard takes ``truth`` again, where the records
            that shadow model 0 was trained on are meant.
    """
    (first, second), (first_z, second_z) = expit(margins), expit(population)
    best, best_area = 0.0, 0.0
    for a in np.arange(0, 1.1, 0.1):
        # Of a model that was trained on a record, an OUT probability is made up.
        made_up = (second + a - 1) / a if a else (second - 0.7) / 0.3
        ratios = first / ((1 + a) / 2 * np.where(truth, made_up, second) + (1 - a) / 2)
        others = first_z / ((1 + a) / 2 * second_z + (1 - a) / 2)
        area = float(roc_auc_score(answered, share_below(ratios, others)))
        if area > best_area:
            best, best_area = float(a), area
    return best


def classifier_on_logits(
    make: Callable[[], Any], shadow_logits: Array, inside: Bools, labels: npt.NDArray[np.int64], seed: int
) -> Callable[[Array], Array]:
    """Fit a classifier of scikit-learn on standardised float32 logits beside the one-hot label, all classes together.

    Args:
        shadow_logits: [S, n, classes]; what shadow models answer.
        inside: [S, n].
        labels: [n].

    Returns:
        from a target's logits [n, classes] to the probability of "inside", [n].
    """
    n_classes = shadow_logits.shape[-1]
    one_hot = np.eye(n_classes, dtype=np.float32)[labels]

    def features(logits: Array) -> Any:
        return np.c_[logits.astype(np.float32), one_hot]

    rows = np.concatenate([features(logits) for logits in shadow_logits])
    # Members first, as ART joins the two.
    chosen = inside.reshape(-1)
    rows = np.concatenate([rows[chosen], rows[~chosen]])
    scaler = StandardScaler().fit(rows)
    with numpy_seeded(seed):
        model = make().fit(scaler.transform(rows), np.sort(chosen)[::-1])

    def score(logits: Array) -> Array:
        result: Array = model.predict_proba(scaler.transform(features(logits)))[:, 1]
        return result

    return score


def onto_boundary(target: nn.Module, records: Records, points: Array, steps: int = 30) -> Array:
    """Distances [n] from the records to the boundary, on the lines to points [n, ...] that the target calls otherwise.

    Where the record itself is called otherwise than its label, 0.
    """
    x, y = records.x, records.y
    shape = (-1,) + (1,) * (x.dim() - 1)
    far = torch.from_numpy(points.astype(np.float32))
    low, high = torch.zeros(len(records)), torch.ones(len(records))
    with torch.no_grad():
        right = target(x).argmax(dim=1) == y
        for _ in range(steps):
            middle = (low + high) / 2
            other = target(x + middle.view(shape) * (far - x)).argmax(dim=1) != y
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
    distances = high * (far - x).flatten(1).norm(dim=1)
    result: Array = torch.where(right, distances, torch.zeros(())).to(torch.float64).numpy()
    return result
