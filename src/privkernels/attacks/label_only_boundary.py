"""Label-only attacks by distance: members lie farther from the decision boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from privkernels.attacks.base import Access, Array, Attack, Predictor
from privkernels.attacks.labels import predicted_labels
from privkernels.data import Records
from privkernels.errors import EmptyDataError, InvalidArgumentError
from privkernels.randomness import Key

# Random points that are tried for one of another class, and halvings of a step that leads back to the record's class.
_STARTS = 20
_HALVINGS = 8
# Coordinates of queries held at once: 64 MB of float32.
_HELD = 16_000_000


class LabelOnlyBoundary(Attack):
    """Score a record by its L2 distance to the decision boundary, from labels alone; 0 where the label is wrong.

    The distance attack of Choquette-Choo, Tramer, Carlini and Papernot (ICML 2021) and of Li and Zhang (CCS 2021). The
    distance is found by HopSkipJump (Chen, Jordan and Wainwright, IEEE S&P 2020): from a point on the boundary, the
    boundary's normal is estimated from the labels of random points around it, a step along it is followed by a
    bisection back towards the record, and so on. It is a distance to a point that the target calls otherwise, and so
    never less than the true distance.

    Departures from the paper, for many records at once:

    * All records share the random directions of an iteration. Each record's estimate is as good as with directions of
      its own, and its score does not depend on what other records are scored with it.
    * The budget of queries counts for each record alone and is kept; with the last of it, fewer directions are tried.
    * A step is halved at most 8 times until it ends in another class, and a point that came no nearer to the record is
      not taken.

    A record for which no point of another class is found among 20 random ones (uniform in the box of ``clip``; without
    a box, at distances that double from 1/16 of the records' typical norm) gets the largest distance that was tried.

    Measured as AUC on 600 digits with a fifth of the labels wrong (mlp-32): 0.618, 0.619 and 0.621 with 300, 1,000 and
    3,000 queries, where whether the label is right gives 0.641: records that the network had to memorise lie nearer to
    the boundary than others that it predicts rightly. The distance to a plane in 20 dimensions is found within 5 % with
    1,000 queries for most records and with 3,000 for all; in 784 dimensions 3,000 queries leave it 24 % too large, and
    its correlation with the true one is 0.9999.

    Args:
        max_queries: labels asked for per record, at least 100.
        directions: random directions of the first iteration; iteration t has sqrt(t) times as many (the paper's B_t).
        clip: the box that queries stay in, as (low, high); None for no box.
        seed: of starting points and directions.
        batch_size: queries per forward pass.
    """

    name = "label-only (boundary)"
    access: ClassVar[Access] = "labels"

    def __init__(
        self,
        *,
        max_queries: int = 1000,
        directions: int = 100,
        clip: tuple[float, float] | None = (0.0, 1.0),
        seed: int = 0,
        batch_size: int = 4096,
    ) -> None:
        self.max_queries = max_queries
        self.directions = directions
        self.clip = clip
        self.seed = seed
        self.batch_size = batch_size

    def queries_per_record(self) -> int:
        """See :meth:`Attack.queries_per_record`."""
        return self.max_queries

    def score(self, target: Predictor, records: Records) -> Array:
        """The distance per record in the unit of ``records.x``, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that:
            InvalidArgumentError: a budget below 100, no direction, or records outside the box of ``clip``.
        """
        if not len(records):
            raise EmptyDataError("there are no records to score")
        if self.max_queries < 100 or self.directions < 1:
            raise InvalidArgumentError(
                f"expected max_queries >= 100 and directions >= 1, got {self.max_queries} and {self.directions}"
            )
        if self.clip is not None:
            low, high = float(records.x.min()), float(records.x.max())
            if not self.clip[0] <= low <= high <= self.clip[1] or self.clip[0] >= self.clip[1]:
                raise InvalidArgumentError(
                    f"records lie in [{low:.3g}, {high:.3g}], outside the box {self.clip} that queries are kept in: "
                    "give clip=(low, high) of the data, or None"
                )
        right = predicted_labels(target, records.x, records.n_classes, self.batch_size) == records.y
        distances = torch.zeros(len(records), dtype=torch.float64)
        rows = right.nonzero()[:, 0]
        if len(rows):
            search = _Search(self, target, records.subset(rows))
            distances[rows.cpu()] = search.run().cpu()
        return distances.numpy()


class _Search:
    """HopSkipJump on records that the target predicts rightly; x and all points are [n, d]."""

    def __init__(self, attack: LabelOnlyBoundary, target: Predictor, records: Records) -> None:
        self.attack, self.target, self.records = attack, target, records
        self.x = records.x.flatten(1)
        self.y = records.y
        self.d = self.x.shape[1]
        self.key = Key.from_seed(attack.seed)
        # A bisection ends within d^(-3/2) of the way (the paper's theta for L2).
        self.bisections = max(4, math.ceil(1.5 * math.log2(self.d)))

    def run(self) -> Tensor:
        points, found = self._start()
        reach = _distance(points, self.x)
        if not bool(found.any()):
            return reach
        rows = found.nonzero()[:, 0]
        left = self.attack.max_queries - 1 - _STARTS - self.bisections
        points = self._bisect(points, rows)
        step = 1
        while (room := left - _HALVINGS - self.bisections) >= 10:
            n_directions = min(room, int(self.attack.directions * math.sqrt(step)))
            points = self._iterate(points, rows, step, n_directions)
            left -= n_directions + _HALVINGS + self.bisections
            step += 1
        distances = reach
        distances[rows] = _distance(points[rows], self.x[rows])
        return distances

    def _other(self, points: Tensor, rows: Tensor) -> Tensor:
        """Whether the target calls points [k, ..., d] otherwise than records ``rows`` [k]; bool [k, ...]."""
        shape = self.records.x.shape[1:]
        asked = points.reshape(-1, *shape)
        found = predicted_labels(self.target, asked, self.records.n_classes, self.attack.batch_size)
        labels = self.y[rows].reshape(-1, *[1] * (points.dim() - 2))
        return found.reshape(points.shape[:-1]) != labels

    def _boxed(self, points: Tensor) -> Tensor:
        return points if self.attack.clip is None else points.clamp(*self.attack.clip)

    def _start(self) -> tuple[Tensor, Tensor]:
        """For each record the first random point of another class, [n, d]; where there is none, the farthest tried."""
        generator = self.key.generator("start")
        points, found = self.x.clone(), torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        for trial in range(_STARTS):
            rows = (~found).nonzero()[:, 0]
            if not len(rows):
                break
            if self.attack.clip is None:
                noise = torch.randn(self.d, generator=generator)
                # The norm of typical records is a matter of d alone, lest the score depend on other records.
                length = math.sqrt(self.d) * 2.0 ** (trial - 4)
                tried = self.x[rows] + (length * noise / noise.norm()).to(self.x)
            else:
                low, high = self.attack.clip
                tried = (low + (high - low) * torch.rand(self.d, generator=generator)).to(self.x).expand(len(rows), -1)
            other = self._other(tried, rows)
            farther = _distance(tried, self.x[rows]) > _distance(points[rows], self.x[rows])
            points[rows] = torch.where((other | farther)[:, None], tried, points[rows])
            found[rows] = other
        return points, found

    def _bisect(self, points: Tensor, rows: Tensor) -> Tensor:
        """Points of another class, moved towards their records up to the boundary."""
        low = torch.zeros(len(rows), 1, device=points.device)
        high = torch.ones_like(low)
        for _ in range(self.bisections):
            middle = (low + high) / 2
            other = self._other(torch.lerp(self.x[rows], points[rows], middle), rows)[:, None]
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
        moved = points.clone()
        moved[rows] = torch.lerp(self.x[rows], points[rows], high)
        return moved

    def _iterate(self, points: Tensor, rows: Tensor, step: int, n_directions: int) -> Tensor:
        """One step along the estimated normal, and back to the boundary; points that came no nearer stay."""
        here = points[rows]
        distance = _distance(here, self.x[rows])[:, None].to(here.dtype)
        normal = self._normal(here, rows, distance / self.d, step, n_directions)
        length = distance / math.sqrt(step)
        moved, waiting = here.clone(), torch.ones(len(rows), dtype=torch.bool, device=here.device)
        for _ in range(_HALVINGS):
            if not bool(waiting.any()):
                break
            tried = self._boxed(here[waiting] + length[waiting] * normal[waiting])
            other = self._other(tried, rows[waiting])
            moved[waiting] = torch.where(other[:, None], tried, here[waiting])
            waiting[waiting.clone()] = ~other
            length = length / 2
        candidates = points.clone()
        candidates[rows] = moved
        candidates = self._bisect(candidates, rows)
        nearer = _distance(candidates, self.x) < _distance(points, self.x)
        return torch.where(nearer[:, None], candidates, points)

    def _normal(self, here: Tensor, rows: Tensor, radius: Tensor, step: int, n_directions: int) -> Tensor:
        """The direction into the other class (the paper's estimate with its baseline), unit vectors [k, d]."""
        directions = torch.randn(n_directions, self.d, generator=self.key.generator(f"directions/{step}"))
        directions = _unit(directions).to(here)
        normals = []
        for part in torch.split(torch.arange(len(here)), max(1, _HELD // directions.numel())):
            around = self._boxed(here[part, None] + radius[part, None] * directions)
            sign = self._other(around, rows[part]).to(here.dtype) * 2 - 1
            mean = sign.mean(dim=1, keepdim=True)
            # Where all answers are alike, they tell on which side most of the ball lies.
            weight = torch.where(mean.abs() == 1, sign, sign - mean)
            moved = (around - here[part, None]) / radius[part, None].clamp_min(torch.finfo(here.dtype).tiny)
            normals.append(torch.einsum("kb,kbd->kd", weight, moved))
        normal = torch.cat(normals)
        return _unit(normal)


def _unit(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / lengths.clamp_min(1e-30)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(a.double() - b.double(), dim=1)
    return lengths


class LabelOnlyNoise(Attack):
    """Score a record by the distance to the boundary that its label's survival under Gaussian noise speaks for.

    With a plane at signed distance r as boundary, noise of standard deviation s leaves the label right with
    probability Phi(r / s). The score is the maximum-likelihood r from the right answers at several s (Choquette-Choo et
    al., ICML 2021, use the share of right answers at one s as the cheaper stand-in for the distance). It needs less
    than a tenth of the queries of :class:`LabelOnlyBoundary` and no box, and tells wrongly predicted records apart as
    well: theirs is negative.

    All records share the noise. Half a right and half a wrong answer are added at each s, so that scores are finite.

    Measured as AUC on 600 digits with a fifth of the labels wrong (mlp-32): 0.631, where whether the label is right
    gives 0.641, and 0.625 with scales (0.1, 0.2, 0.4, 0.8); on 600 members and 600 others of MNIST (mlp-128) 0.606, and
    0.554 with those scales.

    Args:
        scales: standard deviations, in the unit of the records' values.
        n_queries: labels asked for per record and scale.
        seed: of the noise.
        batch_size: records per forward pass.
    """

    name = "label-only (noise)"
    access: ClassVar[Access] = "labels"

    def __init__(
        self,
        *,
        scales: Sequence[float] = (0.05, 0.1, 0.2),
        n_queries: int = 25,
        seed: int = 0,
        batch_size: int = 4096,
    ) -> None:
        self.scales = scales
        self.n_queries = n_queries
        self.seed = seed
        self.batch_size = batch_size

    def queries_per_record(self) -> int:
        """See :meth:`Attack.queries_per_record`."""
        return 1 + len(self.scales) * self.n_queries

    def score(self, target: Predictor, records: Records) -> Array:
        """The signed distance per record in the unit of ``records.x``, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that:
            InvalidArgumentError: no scale, a scale that is not positive, or no query.
        """
        if not len(records):
            raise EmptyDataError("there are no records to score")
        if not len(self.scales) or min(self.scales) <= 0 or self.n_queries < 1:
            raise InvalidArgumentError(
                f"expected positive scales and n_queries >= 1, got {tuple(self.scales)} and {self.n_queries}"
            )
        generator = Key.from_seed(self.seed).generator("noise")
        right = np.zeros((len(self.scales), len(records)))
        for level, scale in enumerate(self.scales):
            for _ in range(self.n_queries):
                noise = scale * torch.randn(*records.x.shape[1:], generator=generator)
                found = predicted_labels(target, records.x + noise.to(records.x), records.n_classes, self.batch_size)
                right[level] += (found == records.y).cpu().numpy()
        return probit_distance(right, self.n_queries, np.asarray(self.scales, dtype=np.float64))


def probit_distance(right: Array, trials: int, scales: Array) -> Array:
    """The r that makes ``right`` [levels, n] of ``trials`` with success probability Phi(r / scale) likeliest, [n].

    Half a success and half a failure are added at each level.
    """
    s = scales[:, None]
    successes, failures = right + 0.5, trials - right + 0.5
    # The log-likelihood is concave in r: bisection of its slope, between bounds where the answers decide it.
    high = np.full(right.shape[1], 10.0 * scales.max())
    low = -high
    for _ in range(60):
        middle = (low + high) / 2
        t = middle / s
        density = stats.norm.logpdf(t)
        slope = successes * np.exp(density - stats.norm.logcdf(t)) - failures * np.exp(density - stats.norm.logsf(t))
        rising = (slope / s).sum(axis=0) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    result: Array = (low + high) / 2
    return result
