"""Membership and attribute inference by PrivacyGuard and by ART, as scores of ours: float64 [n], higher for members.

Import this module only where the library that a function names is installed. What a library draws at random comes from
the global generators, which are seeded where that is possible.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, logit
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.formulas import Bools, lira_moments, numpy_seeded
from privkernels.attacks.base import Array
from privkernels.data import Records
from privkernels.models import seeded


def _joined(analysis: Any, member: Bools) -> Array:
    """PrivacyGuard's scores of members and of non-members, in the order of the records."""
    scores = np.empty(len(member))
    scores[member], scores[~member] = analysis.df_train_user["score"], analysis.df_test_user["score"]
    return scores


def _frames(columns: dict[str, Any], member: Bools) -> tuple[Any, Any]:
    """Tables of the members and of the non-members."""
    import pandas

    table = pandas.DataFrame({"user_id": np.arange(len(member)), **columns})
    return table[member].copy(), table[~member].copy()


def privacyguard_loss(target: nn.Module, records: Records, member: Bools) -> Array:
    from privacy_guard.attacks.loss_attack import LossAttack

    def loader(rows: Bools) -> Any:
        part = records.subset(torch.from_numpy(rows))
        return DataLoader(TensorDataset(part.x, part.y), batch_size=len(part))

    return _joined(LossAttack(target, loader(member), loader(~member)).run_attack(), member)


def privacyguard_lira(phi: Array, margins: Array, trained: Bools, member: Bools, deviation: str | None) -> Array:
    """LiraAttack on the statistics that PrivacyGuard's ``prepare_lira_data`` would hand to it.

    That function is restated in :func:`~benchmarks.peers.formulas.lira_moments`: its module wants torchvision.

    Args:
        deviation: ``std_dev_type``; ``"per-record"`` for a variance that is not fixed; None for the offline attack.
    """
    from privacy_guard.analysis.mia.aggregate_analysis_input import AggregationType
    from privacy_guard.attacks.lira_attack import LiraAttack

    (mean_in, own_in), (mean_out, own_out) = lira_moments(margins, trained), lira_moments(margins, ~trained)
    if deviation is None:
        columns = {"score_orig": phi, "score_mean": mean_out, "score_std": own_out}
        settings: dict[str, Any] = {"use_fixed_variance": True, "std_dev_type": "shadows_out"}
    else:
        columns = {"score_orig": phi, "score_mean_in": mean_in, "score_std_in": own_in}
        columns |= {"score_mean_out": mean_out, "score_std_out": own_out}
        fixed = deviation != "per-record"
        settings = {"use_fixed_variance": fixed, "std_dev_type": deviation if fixed else "global"}
    attack = LiraAttack(
        *_frames(columns, member), AggregationType.NONE, online_attack=deviation is not None, **settings
    )
    return _joined(attack.run_attack(), member)


def privacyguard_rmia(
    scored: tuple[Array, Array, Bools], population: tuple[Array, Array], member: Bools, **settings: Any
) -> Array:
    """RmiaAttack.

    Args:
        scored: margins of the target [n] and of the shadow models [S, n], and which of these were trained on what.
        population: margins of the target [z] and of the shadow models [S, z].
        settings: of RmiaAttack.
    """
    import pandas
    from privacy_guard.analysis.mia.aggregate_analysis_input import AggregationType
    from privacy_guard.attacks.rmia_attack import RmiaAttack

    phi, margins, trained = scored
    # Its tuning takes the first two shadow models for independent ones: of a pair only one comes among the first half.
    order = [*range(0, len(margins), 2), *range(1, len(margins), 2)]

    def columns(phi: Array, margins: Array, trained: Bools) -> dict[str, Any]:
        found: dict[str, Any] = {"score_orig": expit(phi)}
        for place, shadow in enumerate(order):
            found[f"score_ref_{place}"] = expit(margins[shadow])
            found[f"member_ref_{place}"] = trained[shadow]
        return found

    frames = _frames(columns(phi, margins, trained), member)
    others = pandas.DataFrame(columns(*population, np.zeros(population[1].shape, dtype=np.bool_)))
    # It prints the AUC of each alpha that it tries.
    with contextlib.redirect_stdout(io.StringIO()):
        attack = RmiaAttack(*frames, others, AggregationType.NONE, **settings)
        return _joined(attack.run_attack(), member)


def art_classifier(target: nn.Module, records: Records, clip: tuple[float, float] | None = None) -> Any:
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(records.x.shape[1:])
    loss = nn.CrossEntropyLoss()
    return PyTorchClassifier(target, loss, shape, records.n_classes, clip_values=clip, device_type="cpu")


class ArtShadowModels:
    """MembershipInferenceBlackBox, fitted once on what shadow models answer."""

    def __init__(
        self, kind: str, target: nn.Module, records: Records, shadow_logits: Array, inside: Bools, seed: int
    ) -> None:
        from art.attacks.inference.membership_inference import MembershipInferenceBlackBox

        self.labels = records.y.numpy()
        self.attack = MembershipInferenceBlackBox(art_classifier(target, records), attack_model_type=kind)
        rows, labels = np.concatenate(shadow_logits), np.tile(self.labels, len(shadow_logits))
        chosen = inside.reshape(-1)
        with numpy_seeded(seed), seeded(seed):
            inside, outside = (rows[chosen], labels[chosen]), (rows[~chosen], labels[~chosen])
            self.attack.fit(pred=inside[0], y=inside[1], test_pred=outside[0], test_y=outside[1])

    def score(self, logits: Array) -> Array:
        found = self.attack.infer(x=None, y=self.labels, pred=logits, probabilities=True)
        return np.asarray(found, dtype=np.float64)[:, 0]


def art_rule(target: nn.Module, records: Records, *, probabilities: bool = False) -> Array:
    """MembershipInferenceBlackBoxRuleBased: its answer, or what it calls the probability of it."""
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBoxRuleBased

    attack = MembershipInferenceBlackBoxRuleBased(art_classifier(target, records))
    found = attack.infer(records.x.numpy(), records.y.numpy(), probabilities=probabilities)
    scores: Array = np.asarray(found, dtype=np.float64)
    return scores[:, 1] if probabilities else scores


def art_boundary(
    target: nn.Module, records: Records, clip: tuple[float, float], max_iter: int
) -> tuple[Array, Array, float]:
    """LabelOnlyDecisionBoundary: distances [n], the points found [n, ...], and labels asked for per record."""
    from art.attacks.evasion import hop_skip_jump
    from art.attacks.inference.membership_inference import LabelOnlyDecisionBoundary

    asked, points = 0, []

    class Recorded(hop_skip_jump.HopSkipJump):  # type: ignore[misc, name-defined, unused-ignore]
        def generate(self, *args: Any, **kwargs: Any) -> Any:
            points.append(super().generate(*args, **kwargs))
            return points[-1]

    class Counted(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            nonlocal asked
            asked += len(x)
            # Its bisection leads float32 records to float64 queries.
            return target(x.float())

    attack = LabelOnlyDecisionBoundary(art_classifier(Counted(), records, clip), distance_threshold_tau=1.0)
    plain = hop_skip_jump.HopSkipJump
    hop_skip_jump.HopSkipJump = Recorded
    try:
        with numpy_seeded(0):
            found = attack.infer(
                records.x.numpy(), records.y.numpy(), probabilities=True, norm=2, max_iter=max_iter, verbose=False
            )
    finally:
        hop_skip_jump.HopSkipJump = plain
    # It gives the sigmoid of the distance beyond the threshold.
    distances: Array = logit(np.asarray(found, dtype=np.float64)[:, 1]) + 1.0
    return distances, points[0], asked / len(records)


def art_attribute(
    kind: str, target: nn.Module, own: Records, attacked: Records, column: int, values: list[float], seed: int
) -> npt.NDArray[np.int64]:
    """AttributeInferenceBlackBox, fitted on the attacker's own records: the index of each guessed value, [n]."""
    from art.attacks.inference.attribute_inference import AttributeInferenceBlackBox

    classifier = art_classifier(target, own)
    with numpy_seeded(seed), seeded(seed), warnings.catch_warnings():
        # Its network has a softmax without a dimension, of which torch warns.
        warnings.simplefilter("ignore", UserWarning)
        attack = AttributeInferenceBlackBox(classifier, attack_model_type=kind, attack_feature=column)
        attack.fit(own.x.numpy(), own.y.numpy())
        x = attacked.x.numpy()
        seen = classifier.predict(x).argmax(axis=1).reshape(-1, 1)
        found = attack.infer(np.delete(x, column, axis=1), attacked.y.numpy(), pred=seen, values=values)
    guessed = np.asarray(found, dtype=np.float64).reshape(len(attacked), 1)
    result: npt.NDArray[np.int64] = np.abs(guessed - np.array(values)).argmin(axis=1)
    return result
