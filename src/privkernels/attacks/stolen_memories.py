"""White-box attacks on how a network uses its features, not only on what it answers: bayes-wb and general-wb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch import nn

from privkernels.attacks.base import (
    Access,
    Array,
    Attack,
    Predictor,
    PublicDataAttack,
    check_not_public,
    network,
    target_logits,
)
from privkernels.attacks.internal_influence import (
    Quantity,
    batches,
    check_quantity,
    chosen_layers,
    device_of,
    internal_influence,
    layer_input,
    quantity_of,
)
from privkernels.attacks.proxy import MIN_PUBLIC, train_proxy
from privkernels.attacks.shadow_model import (
    Classifier,
    _fit_recording,
    _log_odds,
    _sklearn_seed,
    gradient_boosting,
)
from privkernels.attacks.shadows import ShadowAttack, Shadows
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.progress import Progress, silent
from privkernels.randomness import Key
from privkernels.training.folder import state_fingerprint


class BayesWhiteBox(PublicDataAttack):
    """bayes-wb of Leino and Fredrikson ("Stolen memories", USENIX Security 2020).

    A network overfits by using features of its training records as evidence that they are not in the population.
    In a Gaussian naive Bayes model, whose softmax-regression form has the weights W of the training records' own
    means where the population would give W~, the log-odds that a record (x, y) was trained on is, up to a constant,

        m(x, y) = (W_y - W~_y) . x + (b_y - b~_y).

    W~ is unknown, and a proxy trained on public records stands in for it. In a deep network this is done at a layer:
    h are the features that enter it, computed by the target's own lower layers; the proxy is the part from the layer
    on, trained anew over h (:func:`~privkernels.attacks.proxy.train_proxy`); and the weights of either part are those
    of its local linear model, the internal influence of h on the true class's output
    (:func:`~privkernels.attacks.internal_influence.internal_influence`).

    Choices, some of them departures from the paper:

    * The path from the baseline 0 makes the local linear model exact at h itself: w . h + b = q(h). The displacement
      is therefore the difference of the two outputs, q_target - q_proxy, and is computed as such, without gradients.
    * ``quantity="log-probability"``, the default, takes q = log p(y | h) and not the logit of y. Softmax regression
      knows its weights only up to a vector added to all classes, which the logit keeps as noise. AUC and TPR at 1 %
      FPR on 600 digits with a fifth of the labels wrong (mlp-32): 0.703 and 7.8 % against 0.642 and 1.3 %; the loss:
      0.636 and 0.8 %. On 2,000 records of MNIST (mlp-128): 0.577 and 1.3 % against 0.536 and 1.3 %; the loss 0.552
      and 0.8 %.
    * Several layers count equally (the mean of their displacements). The paper combines layers by a meta-model, as
      :class:`GeneralWhiteBox` does.
    * No threshold is set: the audit does that.

    At the first layer the proxy shares nothing with the target, and the attack compares the target with a model of the
    attacker's own: it needs the target's outputs alone. That is stronger than the last layer on digits (0.730 and
    12.7 %) and on MNIST (0.585 and 3.8 %): what this attack gains over the loss comes from the public records, and not
    from access to the weights.

    Args:
        quantity: ``"log-probability"`` or ``"logit"``, which makes w and b those of the formula above.
        layers: names of layers to cut at (:func:`~privkernels.attacks.internal_influence.weighted_layers`); the last
            where None.
        epochs: at most so many, to train the proxy of a layer that is not the last.
        seed: of the proxies' initialisation, split and batch order.
        batch_size: records per forward pass.

    Attributes:
        public_: the records of :meth:`fit`.
    """

    name = "bayes-wb"
    access: ClassVar[Access] = "weights"

    def __init__(
        self,
        *,
        quantity: Quantity = "log-probability",
        layers: Sequence[str] | None = None,
        epochs: int = 100,
        seed: int = 0,
        batch_size: int = 1024,
    ) -> None:
        self.quantity = quantity
        self.layers = layers
        self.epochs = epochs
        self.seed = seed
        self.batch_size = batch_size

    def fit(self, public: Records) -> Self:
        """Keep ``public``; proxies are trained when a target is scored. See :meth:`PublicDataAttack.fit`.

        Raises:
            TooFewRecordsError: fewer than 20 records.
            InvalidArgumentError: an unknown ``quantity``.
        """
        check_quantity(self.quantity)
        if len(public) < MIN_PUBLIC:
            raise TooFewRecordsError(f"{self.name!r} needs at least {MIN_PUBLIC} public records, got {len(public)}")
        self.public_ = public
        self._proxies = _Proxies(self, public, Key.from_seed(self.seed), self.epochs)
        return self

    def score(self, target: Predictor, records: Records) -> Array:
        """The displacement per record, float64 [n]; see :meth:`Attack.score`.

        Raises, besides that:
            InvalidArgumentError: before :meth:`fit`; a target that is a function; records that are among the public
                ones.
            TooFewRecordsError: records of a class that no public record has.
            UnknownNameError: a layer that the network does not have.
        """
        module = network(target, self)
        if not hasattr(self, "public_"):
            raise InvalidArgumentError(f"{self.name!r} is not fitted: call fit(public) first")
        found = quantity_of(
            torch.from_numpy(target_logits(module, records, self.batch_size)), records.y.cpu(), self.quantity
        )
        proxies = self._proxies.of(module, records, self.layers)
        displaced = torch.zeros(len(records), dtype=torch.float64)
        for proxy in proxies.values():
            logits = torch.from_numpy(target_logits(proxy, records, self.batch_size))
            displaced += found - quantity_of(logits, records.y.cpu(), self.quantity)
        result: Array = (displaced / len(proxies)).numpy()
        return result


class GeneralWhiteBox(ShadowAttack):
    """general-wb of Leino and Fredrikson (USENIX Security 2020): :class:`BayesWhiteBox` with a learned displacement.

    Where features are not Gaussian and independent, the difference w - w~ of influences is not the right measure of
    how far a target's use of a feature lies from a proxy's. It is learned, from shadow models whose training records
    are known: each has its own proxies, trained on records of the pool that it was not trained on.

    For each layer, with h what enters it and (w, b), (w~, b~) the internal influence of target and proxy, an attack
    model is given

        w . h,  w~ . h,  |w| . |h|,  |w~| . |h|,  |w - w~| . |h|,  b,  b~,
        w . h + b,  w~ . h + b~  and the difference of these two, which is the score of bayes-wb,

    and a logistic meta-model adds up the layers' log-odds. The meta-model learns from log-odds of shadows that the
    attack models have not seen, so that its log-odds are calibrated: of records with log-odds 0, half are members.

    Departures from the paper:

    * The paper learns, for each layer, a distance of w and w~ that takes the place of their difference. Here five fixed
      elementwise functions of the two are summed over the features, and the attack model
      (:func:`~privkernels.attacks.shadow_model.gradient_boosting`) may combine the sums in any way.
    * q is log p(y | h) as in :class:`BayesWhiteBox`.
    * Records that a shadow was not trained on are two groups; the proxy that judges one group was trained on the
      other. A proxy that had seen them would make non-members easy to tell, and only those of the shadows.

    Scored records must not be in the shadows' pool: the target's proxies are trained on it.

    Measured as for :class:`BayesWhiteBox`, with 8 shadow models, the last layer: 0.712 and 12.5 % on digits, 0.624 and
    3.9 % on MNIST; with both layers 0.727 and 13.2 %, and 0.634 and 5.2 %. The black-box attack on the same shadow
    models (:class:`~privkernels.attacks.ShadowModelAttack`, pooled) reaches 0.658 and 1.7 %, and 0.647 and 5.6 %:
    white-box access won on the one and not on the other.

    Args:
        quantity, layers, epochs, seed, batch_size: see :class:`BayesWhiteBox`.
        attack_model: called with a seed, returns a new scikit-learn-like classifier; one for each layer.
        steps: points on the path that the influence is averaged over.

    Attributes:
        shadows_: the shadow models.
        layers_: the layers, in order.
        attack_models_: one for each layer.
        meta_model_: the logistic regression over the layers.
        warnings_: messages of attack models that did not converge.
    """

    name = "general-wb"
    access: ClassVar[Access] = "weights"
    needs_own_pool: ClassVar[bool] = True

    def __init__(
        self,
        *,
        quantity: Quantity = "log-probability",
        layers: Sequence[str] | None = None,
        attack_model: Callable[[int], Classifier] = gradient_boosting,
        steps: int = 10,
        epochs: int = 100,
        seed: int = 0,
        batch_size: int = 1024,
    ) -> None:
        self.quantity = quantity
        self.layers = layers
        self.attack_model = attack_model
        self.steps = steps
        self.epochs = epochs
        self.seed = seed
        self.batch_size = batch_size

    def fit(self, shadows: Shadows, *, progress: Progress = silent) -> Self:
        """Train proxies, attack models and the meta-model; see :meth:`ShadowAttack.fit`.

        Raises:
            InvalidArgumentError: fewer than two pairs of shadow models, or an unknown ``quantity``.
            TooFewRecordsError: a pool of fewer than 80 records.
        """
        check_quantity(self.quantity)
        if len(set(shadows.pairs)) < 2:
            raise InvalidArgumentError(
                f"{self.name!r} learns from some shadow models and is calibrated on others: it needs two complementary "
                f"pairs, got {len(shadows)} shadow models in {len(set(shadows.pairs))} pair(s)"
            )
        if len(shadows.pool) < 4 * MIN_PUBLIC:
            raise TooFewRecordsError(
                f"{self.name!r} trains proxies on quarters of the shadows' pool and needs {4 * MIN_PUBLIC} records in "
                f"it, got {len(shadows.pool)}"
            )
        key = Key.from_seed(self.seed)
        features = []
        for shadow in range(len(shadows)):
            features.append(self._of_shadow(shadows, shadow, key.derive(f"shadow/{shadow}")))
            progress(shadow + 1, len(shadows), "training proxies (shadow models)")
        self._learn(np.concatenate(features), shadows.inside.reshape(-1), np.array(shadows.pairs), key)
        self.shadows_ = shadows
        self._proxies = _Proxies(self, shadows.pool, key.derive("target"), self.epochs)
        return self

    def score(self, target: Predictor, records: Records) -> Array:
        """The meta-model's log-odds of membership per record, float64 [n]; see :meth:`Attack.score`.

        Raises as :meth:`BayesWhiteBox.score` does, with the shadows' pool in place of the public records.
        """
        module = network(target, self)
        self._fitted(records)
        target_logits(module, records, self.batch_size)
        proxies = self._proxies.of(module, records, self.layers_)
        features = self._features(module, proxies, records)
        log_odds = [_log_odds(model, features[:, i]) for i, model in enumerate(self.attack_models_)]
        result: Array = np.asarray(self.meta_model_.decision_function(np.stack(log_odds, axis=1)), dtype=np.float64)
        return result

    def notes(self) -> tuple[str, ...]:
        """Which attack models did not converge."""
        return tuple(getattr(self, "warnings_", ()))

    def _of_shadow(self, shadows: Shadows, shadow: int, key: Key) -> Array:
        """Features of every record of the pool, float64 [n, layers, features]."""
        model, inside = shadows.model(shadow), shadows.inside[shadow]
        self.layers_ = chosen_layers(model, shadows.pool, self.layers)
        half = np.zeros(len(inside), dtype=np.bool_)
        order = np.random.default_rng(key.seed_for("halves")).permutation(len(inside))
        half[order[::2]] = True
        parts: list[Array] = []
        for name, judged in (("first", half), ("second", ~half)):
            public = shadows.pool.subset(torch.from_numpy(~inside & ~judged))
            proxies = {
                layer: train_proxy(model, layer, public, key.derive(f"{name}/{layer}"), self.epochs)
                for layer in self.layers_
            }
            parts.append(self._features(model, proxies, shadows.pool.subset(torch.from_numpy(judged))))
        result = np.empty((len(inside), *parts[0].shape[1:]))
        result[half], result[~half] = parts
        return result

    def _features(self, module: nn.Module, proxies: Mapping[str, nn.Module], records: Records) -> Array:
        layers = []
        for layer, proxy in proxies.items():
            parts = []
            for x, y in batches(records, self.batch_size, device_of(module)):
                h = layer_input(module, layer, x)
                flat = h.flatten(1).double()
                w, b = internal_influence(module, layer, h, x, y, self.quantity, self.steps)
                v, c = internal_influence(proxy, layer, h, x, y, self.quantity, self.steps)
                terms = [w * flat, v * flat, (w * flat).abs(), (v * flat).abs(), ((w - v) * flat).abs()]
                sums = [each.sum(1) for each in terms]
                ours, theirs = sums[0] + b, sums[1] + c
                parts.append(torch.stack([*sums, b, c, ours, theirs, ours - theirs], dim=1))
            layers.append(torch.cat(parts).cpu().numpy())
        return np.stack(layers, axis=1)

    def _learn(self, features: Array, inside: npt.NDArray[np.bool_], pairs: npt.NDArray[np.int64], key: Key) -> None:
        """Attack models on all shadows, and the meta-model on what others like them say of unseen shadows."""
        groups = np.repeat(pairs, len(features) // len(pairs))
        folds = list(GroupKFold(min(5, len(set(pairs)))).split(features, inside, groups))
        log_odds = np.empty(features.shape[:2])
        messages: list[str] = []
        self.attack_models_: list[Classifier] = []
        for i, layer in enumerate(self.layers_):
            for fold, (seen, unseen) in enumerate(folds):
                model = self.attack_model(_sklearn_seed(key, f"{layer}/fold {fold}"))
                messages += _fit_recording(model, features[seen, i], inside[seen], f"layer {layer}")
                log_odds[unseen, i] = _log_odds(model, features[unseen, i])
            final = self.attack_model(_sklearn_seed(key, layer))
            messages += _fit_recording(final, features[:, i], inside, f"layer {layer}")
            self.attack_models_.append(final)
        self.meta_model_ = LogisticRegression().fit(log_odds, inside)
        self.warnings_ = tuple(messages)


class _Proxies:
    """The proxies of the target that was scored last, so that its members and non-members meet the same ones."""

    def __init__(self, attack: Attack, public: Records, key: Key, epochs: int) -> None:
        self._attack, self._public, self._key, self._epochs = attack, public, key, epochs
        self._digests = set(public.digests())
        self._target = ""
        self._found: dict[str, nn.Module] = {}

    def of(self, target: nn.Module, records: Records, layers: Sequence[str] | None) -> dict[str, nn.Module]:
        """A proxy for each of the chosen layers, after a check that ``records`` may be judged by them."""
        self._check(records)
        name = f"{target} {state_fingerprint(target.state_dict())}"
        if name != self._target:
            self._target, self._found = name, {}
        chosen = chosen_layers(target, self._public, layers)
        for layer in chosen:
            if layer not in self._found:
                key = self._key.derive(f"proxy/{layer}")
                self._found[layer] = train_proxy(target, layer, self._public, key, self._epochs)
        return {layer: self._found[layer] for layer in chosen}

    def _check(self, records: Records) -> None:
        check_not_public(self._attack, self._digests, records)
        missing = sorted(set(records.y.tolist()) - set(self._public.y.tolist()))
        if missing:
            raise TooFewRecordsError(
                f"the public records of {self._attack.name!r} have none of class(es) {missing}, and records to score "
                "do: give public records of every class"
            )
