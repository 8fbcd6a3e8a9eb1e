"""Label-only attack by augmentation: a member's label survives more changes to the record."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Self, get_args

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from privkernels.attacks.base import Access, Array, Predictor
from privkernels.attacks.labels import predicted_labels
from privkernels.attacks.shadows import ShadowAttack, Shadows
from privkernels.data import Records
from privkernels.errors import EmptyDataError, InvalidArgumentError
from privkernels.progress import Progress, silent
from privkernels.randomness import Key

# A query: from records x [b, ...] to as many changed ones.
Query = Callable[[Tensor], Tensor]
Family = Literal["translations", "translations and mirrors", "gaussian", "bernoulli"]


class LabelOnlyAugmentation(ShadowAttack):
    """The augmentation attack of Choquette-Choo, Tramer, Carlini and Papernot (ICML 2021), from labels alone.

    The target is asked for each record and for changed copies of it, and answers with a class. A record's features are
    which of the answers are its label. After :meth:`fit` the score is the log-odds of a logistic regression on them,
    learnt from shadow models' answers about their own records. Without it, records that are predicted rightly come
    before the others, and among either those with more right answers come first.

    The paper asks for the record and rotations, or the 4 d translations by |i| + |j| = d pixels. The authors' published
    code trains a shallow network for each class on the answers of one shadow model, and fills pixels that come in from
    outside with the nearest ones. Here translations are all those with |i| + |j| <= d, such pixels are 0, and there is
    one logistic regression for all classes and as many shadow models as are given. For tabular records the changes are
    noise, the same in every record, so that a record's score does not depend on the others.

    If the target was trained with augmentation, the changes of its training are the ones to ask for: give them as
    ``queries``.

    Fit it where shadow models can be had. That a member survives more changes need not hold: of the records that an
    overfitted network predicts rightly, those that it had to memorise are the fragile ones. Measured as AUC, with
    d = 2: on 600 digits with a fifth of the labels wrong (mlp-32) 0.616, and fitted on 8 shadow models 0.677, where
    whether the label is right gives 0.641; on 2,000 records of MNIST (mlp-128) fitted 0.583, where it gives 0.545.

    Args:
        queries: ``"translations"`` and ``"translations and mirrors"`` for images [channels, height, width];
            ``"gaussian"``, which adds noise, or ``"bernoulli"``, which turns 0 into 1 and 1 into 0, for any records; or
            a sequence of functions from a batch to its changed copy.
        strength: d in pixels for translations; the noise's standard deviation; or the probability to turn a value.
            None takes 2 pixels, 0.3 and 0.05.
        n_queries: copies with noise; translations have their own number, 2 d (d + 1).
        seed: of the noise.
        batch_size: records per forward pass.

    Attributes:
        shadows_, model_: after :meth:`fit`, the shadow models and the logistic regression.
    """

    name = "label-only (augmentation)"
    access: ClassVar[Access] = "labels"

    def __init__(
        self,
        *,
        queries: Family | Sequence[Query] = "translations",
        strength: float | None = None,
        n_queries: int = 40,
        seed: int = 0,
        batch_size: int = 1024,
    ) -> None:
        self.queries = queries
        self.strength = strength
        self.n_queries = n_queries
        self.seed = seed
        self.batch_size = batch_size

    def fit(self, shadows: Shadows, *, progress: Progress = silent) -> Self:
        """Learn how much each answer counts; see :meth:`ShadowAttack.fit`.

        Raises:
            InvalidArgumentError: queries that do not suit the records.
        """
        answers = []
        for shadow in range(len(shadows)):
            answers.append(self.answers(shadows.model(shadow), shadows.pool))
            progress(shadow + 1, len(shadows), "asking shadow models")
        self.model_ = LogisticRegression(max_iter=1000).fit(np.concatenate(answers), shadows.inside.reshape(-1))
        self.shadows_ = shadows
        return self

    def queries_per_record(self) -> int:
        """See :meth:`Attack.queries_per_record`."""
        return 1 + self.n_queries

    def score(self, target: Predictor, records: Records) -> Array:
        """The number of right answers, the record's own first, or their weighted sum after :meth:`fit`; float64 [n].

        See :meth:`Attack.score`.

        Raises, besides that:
            InvalidArgumentError: queries that do not suit the records, or records with another number of classes than
                those of :meth:`fit`.
        """
        if not hasattr(self, "model_"):
            answers = self.answers(target, records)
            count: Array = answers.sum(axis=1) + answers.shape[1] * answers[:, 0]
            return count
        self._fitted(records)
        scores: Array = np.asarray(self.model_.decision_function(self.answers(target, records)), dtype=np.float64)
        return scores

    def answers(self, target: Predictor, records: Records) -> Array:
        """Whether the target calls each record's copies by its label, 0.0 or 1.0, float64 [n, 1 + queries].

        The first column is the record itself.
        """
        if not len(records):
            raise EmptyDataError("there are no records to score")
        columns = []
        for query in (_unchanged, *self._queries(records.x)):
            asked = query(records.x)
            if asked.shape != records.x.shape:
                raise InvalidArgumentError(
                    f"a query keeps the shape of its records, {list(records.x.shape)}; one gave {list(asked.shape)}"
                )
            found = predicted_labels(target, asked, records.n_classes, self.batch_size)
            columns.append((found == records.y).cpu().numpy())
        return np.stack(columns, axis=1).astype(np.float64)

    def _queries(self, x: Tensor) -> list[Query]:
        if not isinstance(self.queries, str):
            if not self.queries:
                raise InvalidArgumentError("expected at least one query, got none: name a family, or give functions")
            return list(self.queries)
        if self.queries not in get_args(Family):
            raise InvalidArgumentError(
                f"queries is one of {', '.join(get_args(Family))}, or a sequence of functions, not {self.queries!r}"
            )
        if self.queries in ("gaussian", "bernoulli"):
            return noise_queries(x.shape[1:], self.queries, self.strength, self.n_queries, Key.from_seed(self.seed))
        return image_queries(x.shape[1:], self.strength, mirrors=self.queries.endswith("mirrors"))


def _unchanged(x: Tensor) -> Tensor:
    return x


def image_queries(shape: Sequence[int], strength: float | None, *, mirrors: bool) -> list[Query]:
    """Translations by (i, j) with 0 < |i| + |j| <= strength, and, with ``mirrors``, each of them and (0, 0) mirrored.

    Raises:
        InvalidArgumentError: records that are no images, or a strength that is no whole number of pixels from 1 to
            less than the image's sides.
    """
    if len(shape) != 3:
        raise InvalidArgumentError(
            f"translations need images [channels, height, width], and a record has the shape {list(shape)}: "
            "use queries='gaussian' or 'bernoulli'"
        )
    pixels = 2 if strength is None else strength
    if pixels != int(pixels) or not 1 <= pixels < min(shape[1:]):
        raise InvalidArgumentError(
            f"strength is a whole number of pixels from 1 to {min(shape[1:]) - 1} for images of {shape[1]}x{shape[2]}, "
            f"not {pixels}"
        )
    steps = range(-int(pixels), int(pixels) + 1)
    shifts = [(i, j) for i in steps for j in steps if 0 < abs(i) + abs(j) <= pixels]
    moves: list[Query] = [functools.partial(_translated, down=i, right=j) for i, j in shifts]
    if mirrors:
        moves += [functools.partial(_mirrored, down=i, right=j) for i, j in [(0, 0), *shifts]]
    return moves


def noise_queries(shape: Sequence[int], kind: str, strength: float | None, n_queries: int, key: Key) -> list[Query]:
    """``n_queries`` draws of noise, each added to every record alike.

    Raises:
        InvalidArgumentError: no query, a standard deviation that is not positive, or a probability outside (0, 1).
    """
    if n_queries < 1:
        raise InvalidArgumentError(f"n_queries is at least 1, got {n_queries}")
    scale = {"gaussian": 0.3, "bernoulli": 0.05}[kind] if strength is None else strength
    if not 0 < scale < (1 if kind == "bernoulli" else float("inf")):
        raise InvalidArgumentError(
            f"strength is a probability in (0, 1), not {scale}"
            if kind == "bernoulli"
            else f"strength is a positive standard deviation, not {scale}"
        )
    generator = key.generator(f"noise/{kind}")
    if kind == "gaussian":
        return [
            functools.partial(_added, noise=scale * torch.randn(*shape, generator=generator)) for _ in range(n_queries)
        ]
    return [functools.partial(_turned, where=torch.rand(*shape, generator=generator) < scale) for _ in range(n_queries)]


def _translated(x: Tensor, *, down: int, right: int) -> Tensor:
    """Moved by whole pixels; what comes in is 0."""
    height, width = x.shape[-2:]
    moved = torch.zeros_like(x)
    rows, columns = _overlap(down, height), _overlap(right, width)
    moved[..., rows[1], columns[1]] = x[..., rows[0], columns[0]]
    return moved


def _overlap(by: int, size: int) -> tuple[slice, slice]:
    """Where a shifted axis comes from, and where it goes to."""
    return slice(max(0, -by), size - max(0, by)), slice(max(0, by), size - max(0, -by))


def _mirrored(x: Tensor, *, down: int, right: int) -> Tensor:
    return _translated(x, down=down, right=right).flip(-1)


def _added(x: Tensor, *, noise: Tensor) -> Tensor:
    return x + noise.to(x.device)


def _turned(x: Tensor, *, where: Tensor) -> Tensor:
    return torch.where(where.to(x.device), 1 - x, x)
