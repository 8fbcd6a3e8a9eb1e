"""What would make an audit's figures mean something else than membership, looked for before they are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch.nn import functional

from privkernels.attacks.base import Array, Predictor, target_logits, true_class_margin
from privkernels.attacks.shadows import Shadows, Transform, transformed
from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import CONFIDENCE, Figure, auc
from privkernels.data import Records
from privkernels.randomness import Key

# Records of each kind that the blind classifiers and the neighbour search look at.
MOST_RECORDS = 5000
_COMPONENTS = 30


@dataclass(frozen=True)
class Guard(JsonValue):
    """One check.

    Attributes:
        name: which.
        passed: False where something is wrong; None where the check could not be made.
        voids: whether the audit means nothing when it fails.
        statement: the finding, with its figures and what to do.
    """

    name: str
    passed: bool | None
    voids: bool
    statement: str


def voided(guards: Sequence[Guard]) -> bool:
    """Whether a failed check makes the figures meaningless."""
    return any(guard.voids and guard.passed is False for guard in guards)


def blind_baseline(members: Records, nonmembers: Records, *, seed: int = 0, confidence: float = CONFIDENCE) -> Guard:
    """Can members be told from non-members without any model?

    If so, they come from different sources, and an attack's figures measure that difference (Das, Zhang and Tramer,
    "Blind baselines beat membership inference attacks for foundation models", 2024, found it in eight published
    benchmarks): the audit is void. Two classifiers learn to tell them apart on one half of the records and are judged
    on the other: logistic regression and boosted trees, on the record's class, simple statistics and up to 30 principal
    components. Each interval has half of the error, so that the check fails for one and the same source in at most
    (1 - confidence) / 2 of audits.

    Records that repeat count once. Needs at least 20 different records of each kind; otherwise ``passed`` is None.
    """
    rng = np.random.default_rng(Key.from_seed(seed).seed_for("blind baseline"))
    # A record that repeats would be learnt in one half and known again in the other.
    kinds = [_some(_distinct(records), rng) for records in (nonmembers, members)]
    if min(map(len, kinds)) < 20:
        statement = (
            f"not made: {len(kinds[1])} different members and {len(kinds[0])} different non-members are too few to "
            "look for a difference that is not the model's; 20 of each are needed"
        )
        return Guard("blind baseline", None, True, statement)
    features = np.concatenate([_features(records) for records in kinds])
    inside = np.repeat([False, True], [len(records) for records in kinds])
    learn = rng.random(len(inside)) < 0.5
    judged, figures = inside[~learn], {}
    for name, classifier in _classifiers(features.shape[1], seed).items():
        with threadpool_limits(1, user_api="openmp"):
            classifier.fit(features[learn], inside[learn])
        scores = classifier.predict_proba(features[~learn])[:, 1]
        figures[name] = auc(scores[judged], scores[~judged], 1 - (1 - confidence) / 2)
    return _blind_guard(figures)


def _blind_guard(figures: Mapping[str, Figure]) -> Guard:
    words = ", ".join(
        f"{name} {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})" for name, figure in figures.items()
    )
    return _checked(
        "blind baseline",
        any(figure.low is not None and figure.low > 0.5 for figure in figures.values()),
        f"members and non-members differ without any model (AUC by {words}): they do not come from one source, and "
        "no figure of this audit tells membership from that difference. Draw both at random from the same records",
        f"without the model, members and non-members are not told apart (AUC by {words})",
        voids=True,
    )


def duplicates(members: Records, nonmembers: Records, *, seed: int = 0) -> list[Guard]:
    """Records that are both, records that repeat, and non-members that nearly are members.

    A record that is both voids the audit: counted as a false positive it hides as many members as stand below it. With
    a file given as members and as non-members, every model would be "below".

    A non-member counts as nearly a member where its nearest member is closer than a hundredth of the median distance
    between a member and its nearest other member (Euclidean, over at most 5,000 of each).
    """
    inside, outside = members.digests(), nonmembers.digests()
    shared = len(set(inside) & set(outside))
    repeated = len(inside) - len(set(inside)) + len(outside) - len(set(outside))
    found = [
        _checked(
            "shared records",
            shared > 0,
            f"{shared} records are both members and non-members: no attack can tell them apart, so its figures are "
            "too low, and too low most of all where few false positives are allowed. Remove them from the non-members",
            "no record is both a member and a non-member",
            voids=True,
        ),
        _checked(
            "repeated records",
            repeated > 0,
            f"{repeated} records repeat another of their kind: they count several times, and the intervals are too "
            "narrow. Keep one of each",
            "no record repeats another of its kind",
        ),
    ]
    near = _near(members, nonmembers, np.random.default_rng(Key.from_seed(seed).seed_for("neighbours")))
    if near is not None:
        near = max(0, near - shared)
        found.append(
            _checked(
                "near duplicates",
                near > 0,
                f"{near} non-members are nearly the same as a member: an attack that finds them is counted as wrong. "
                "Remove near duplicates",
                "no non-member is nearly the same as a member",
            )
        )
    return found


def _near(members: Records, nonmembers: Records, rng: np.random.Generator) -> int | None:
    inside, outside = (_flat(_some(records, rng)) for records in (members, nonmembers))
    if len(inside) < 20:
        return None
    index = NearestNeighbors(n_neighbors=2).fit(inside)
    own = index.kneighbors(inside)[0][:, 1]
    # Members that repeat have distance 0 and say nothing about how far apart records lie.
    own = own[own > 0]
    if not len(own):
        return None
    return int((index.kneighbors(outside, n_neighbors=1)[0][:, 0] < 0.01 * np.median(own)).sum())


def usual_transforms(records: Records) -> dict[str, Transform]:
    """What pictures [n, channels, height, width] are usually augmented with; nothing for other records."""
    if records.x.dim() != 4:
        return {}
    return {"mirroring": lambda x: x.flip(-1), "a shift by one pixel": lambda x: functional.pad(x, (1, -1))}


def augmentation(
    target: Predictor,
    shadows: Shadows,
    members: Records,
    transforms: Mapping[str, Transform],
    *,
    confidence: float = CONFIDENCE,
) -> list[Guard]:
    """Was the target trained on augmented records, and the shadow models not?

    The target's margin on members is compared with its margin on the same members transformed. Where it loses
    less by the transformation than three quarters of the shadow models do on their own records (a one-sided
    Wilcoxon test on the per-record differences, its error shared among the transforms), the target has probably seen
    such records: shadow models that were trained alike, and attacks that ask about transformed records, would be
    stronger.

    Args:
        transforms: by name, x [b, ...] to x [b, ...].
    """
    own = shadows.trained_on(members)
    asked = np.flatnonzero(own.any(axis=0))
    if len(asked) < 20 or not transforms:
        return []
    some = members.subset(torch.from_numpy(asked))
    own = own[:, asked]
    found = []
    for name, transform in transforms.items():
        ours = _drop(_target_margins(target, some), _target_margins(target, transformed(some, transform)))
        theirs = np.where(own, _drop(shadows.margins(some), shadows.margins(some, transform)), np.nan)
        typical = np.nanquantile(theirs, 0.25, axis=0)
        p = float(stats.wilcoxon(ours, typical, alternative="less").pvalue) if np.any(ours != typical) else 1.0
        suspect = p < (1 - confidence) / len(transforms) and float(np.median(ours)) < 0.5 * float(np.median(typical))
        words = f"(median loss of margin {np.median(ours):.2f} against {np.median(typical):.2f})"
        found.append(
            _checked(
                f"augmentation: {name}",
                suspect,
                f"the target minds {name} less than the shadow models do {words}: it was probably trained on such "
                "records. Train shadow models alike, and ask about transformed records too",
                f"the target minds {name} as the shadow models do {words}",
            )
        )
    return found


def _checked(name: str, wrong: bool, bad: str, good: str, *, voids: bool = False) -> Guard:
    return Guard(name, not wrong, voids, bad if wrong else good)


def _drop(plain: Array, changed: Array) -> Array:
    result: Array = plain - changed
    return result


def _target_margins(target: Predictor, records: Records) -> Array:
    return true_class_margin(target_logits(target, records), records.y)


def _distinct(records: Records) -> Records:
    """The first of equal records each, in order; the records themselves where none repeats."""
    first = {digest: row for row, digest in reversed(list(enumerate(records.digests())))}
    return records if len(first) == len(records) else records.subset(sorted(first.values()))


def _some(records: Records, rng: np.random.Generator) -> Records:
    if len(records) <= MOST_RECORDS:
        return records
    return records.subset(torch.from_numpy(np.sort(rng.permutation(len(records))[:MOST_RECORDS])))


def _flat(records: Records) -> npt.NDArray[np.float32]:
    flat: npt.NDArray[np.float32] = records.x.detach().cpu().reshape(len(records), -1).numpy()
    return flat


def _features(records: Records) -> Array:
    """Class, simple statistics of a record, then its values; float64 [n, features]."""
    flat = _flat(records).astype(np.float64)
    labels = records.y.cpu().numpy()
    steps = np.abs(np.diff(flat, axis=1, append=flat[:, -1:]))
    return np.column_stack(
        [
            np.eye(records.n_classes)[labels] if records.n_classes <= 50 else labels,
            flat.mean(axis=1), flat.std(axis=1), flat.min(axis=1), flat.max(axis=1), (flat == 0).mean(axis=1),
            steps.mean(axis=1), flat,
        ]
    )  # fmt: skip


def _classifiers(width: int, seed: int) -> dict[str, Pipeline]:
    # Trees on thousands of pixels take minutes and find no more than on their principal components.
    reduced = PCA(_COMPONENTS, random_state=0) if width > 4 * _COMPONENTS else "passthrough"
    trees = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=8, early_stopping=False, random_state=seed % 2**32
    )
    return {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)),
        "boosted trees": make_pipeline(reduced, trees),
    }
