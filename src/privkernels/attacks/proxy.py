"""Proxies: the upper part of a network, trained anew on public records over the network's own features."""

from __future__ import annotations

import copy

import numpy as np
import torch
from scipy import optimize
from torch import Tensor, nn
from torch.nn import functional

from privkernels.attacks.base import Array, log_softmax
from privkernels.attacks.internal_influence import batches, device_of, layer_input
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, NonFiniteValueError, TooFewRecordsError
from privkernels.inference import logits
from privkernels.models import seeded
from privkernels.randomness import Key

# A quarter of them says when to stop; fewer than 5 say nothing.
MIN_PUBLIC = 20
# L2 penalties to choose from, in units of the features' mean square.
_PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_LEARNING_RATE = 1e-3
_BATCH = 64
_PATIENCE = 10


def train_proxy(target: nn.Module, layer: str, public: Records, key: Key, epochs: int = 100) -> nn.Module:
    """A copy of ``target`` whose part from ``layer`` on has been trained anew on ``public``.

    What lies below ``layer`` keeps the target's weights. What a proxy should be is the network that the whole
    population would have led to, so overfitting to the public records is avoided by a held-out quarter of them:

    * If the part is one nn.Linear that gives the logits, it is softmax regression with an L2 penalty on the weights,
      solved to its optimum in float64. From strong to weak, the last penalty that still lowers the loss on the quarter
      is taken, and the whole is fitted with it.
    * Otherwise its layers start from a new initialisation and are trained by Adam (learning rate 0.001, batches of 64)
      with dropout and batch statistics in evaluation mode; the epoch with the least loss on the quarter is kept.

    Args:
        layer: one of :func:`~privkernels.attacks.internal_influence.weighted_layers`.
        public: records that ``target`` was not trained on.
        key: of the initialisation, the split and the order.
        epochs: at most so many; training also stops after 10 epochs without a lower loss.

    Raises:
        TooFewRecordsError: fewer than 20 public records.
        InvalidArgumentError: a layer with weights but without ``reset_parameters``, or ``epochs`` below 1.
        NonFiniteValueError: the training diverged.
    """
    if len(public) < MIN_PUBLIC:
        raise TooFewRecordsError(f"a proxy needs at least {MIN_PUBLIC} public records to train on, got {len(public)}")
    if epochs < 1:
        raise InvalidArgumentError(f"a proxy is trained for at least one epoch, got epochs={epochs}")
    proxy = copy.deepcopy(target).eval()
    order = torch.randperm(len(public), generator=key.generator("split"))
    kept, held = public.subset(order[len(public) // 4 :]), public.subset(order[: len(public) // 4])
    head = proxy.get_submodule(layer)
    if type(head) is nn.Linear and _gives_logits(proxy, layer, public):
        _refit_head(proxy, layer, head, kept, held, public)
    else:
        _train_top(proxy, _top(proxy, layer, public), kept, held, key, epochs)
    return proxy


def _gives_logits(module: nn.Module, layer: str, records: Records) -> bool:
    outputs: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _layer, _in, output: outputs.append(output))
    try:
        with torch.no_grad():
            result = module(records.x[:2].to(device_of(module)))
    finally:
        handle.remove()
    return outputs[0].shape == result.shape and torch.equal(outputs[0], result)


def _refit_head(proxy: nn.Module, layer: str, head: nn.Linear, kept: Records, held: Records, public: Records) -> None:
    def features(records: Records) -> tuple[Array, Array]:
        parts = [layer_input(proxy, layer, x) for x, _ in batches(records, 1024, device_of(proxy))]
        onehot = np.eye(head.out_features)[records.y.cpu().numpy()]
        return torch.cat(parts).double().cpu().numpy(), onehot

    train, test, both = features(kept), features(held), features(public)
    scale = float(np.square(both[0]).mean())
    fits: list[Array] = []
    losses: list[float] = []
    for penalty in _PENALTIES:
        fits.append(softmax_regression(*train, penalty * scale, head.bias is not None, fits[-1] if fits else None))
        losses.append(float(-(log_softmax(_with_one(test[0]) @ fits[-1]) * test[1]).sum(axis=1).mean()))
        if losses[-1] > min(losses):
            break
    best = int(np.argmin(losses))
    found = softmax_regression(*both, _PENALTIES[best] * scale, head.bias is not None, fits[best])
    solution = torch.from_numpy(found)
    with torch.no_grad():
        head.weight.copy_(solution[:-1].T)
        if head.bias is not None:
            head.bias.copy_(solution[-1])


def softmax_regression(
    features: Array, onehot: Array, penalty: float, intercept: bool = True, start: Array | None = None
) -> Array:
    """Weights and, as the last row, biases of multinomial logistic regression, float64 [d + 1, classes].

    Minimises the mean cross-entropy plus penalty/2 times the squared weights; biases are not penalised. Not
    scikit-learn's, which leaves out classes that no record has and so changes the shape.

    Args:
        features: float64 [n, d].
        onehot: float64 [n, classes].
        start: where to begin, as returned.
    """
    h, n = _with_one(features), len(features)
    shape = (h.shape[1], onehot.shape[1])
    penalties = np.full((shape[0], 1), penalty)
    penalties[-1] = 0.0
    free = np.ones((shape[0], 1))
    free[-1] = float(intercept)

    def objective(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(shape) * free
        log_p = log_softmax(h @ weights)
        loss = -(log_p * onehot).sum() / n + (penalties * weights**2).sum() / 2
        slope = (h.T @ (np.exp(log_p) - onehot) / n + penalties * weights) * free
        return float(loss), slope.ravel()

    begin = np.zeros(shape) if start is None else start
    found = optimize.minimize(objective, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    result: Array = found.x.reshape(shape) * free
    return result


def _with_one(features: Array) -> Array:
    return np.column_stack([features, np.ones(len(features))])


def _top(proxy: nn.Module, layer: str, records: Records) -> list[nn.Module]:
    """The submodules with parameters that are called from ``layer`` on, ``layer`` included."""
    calls: list[str] = []
    handles = [
        part.register_forward_pre_hook(lambda _part, _inputs, name=name: calls.append(name))
        for name, part in proxy.named_modules()
        if not any(part.children()) and any(True for _ in part.parameters())
    ]
    try:
        with torch.no_grad():
            proxy(records.x[:1].to(device_of(proxy)))
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name in dict.fromkeys(calls) if calls.index(name) >= calls.index(layer)]
    return [proxy.get_submodule(name) for name in names]


def _train_top(proxy: nn.Module, top: list[nn.Module], kept: Records, held: Records, key: Key, epochs: int) -> None:
    proxy.requires_grad_(False)
    with seeded(key.seed_for("initialisation")):
        for part in top:
            reset = getattr(part, "reset_parameters", None)
            if reset is None:
                raise InvalidArgumentError(
                    f"a proxy needs {type(part).__name__} to start anew, and it has no reset_parameters(): "
                    "add that method, or choose a layer above it"
                )
            reset()
    parameters = [parameter for part in top for parameter in part.requires_grad_(True).parameters()]
    optimizer = torch.optim.Adam(parameters, lr=_LEARNING_RATE)
    generator = key.generator("order")
    best, best_state, waited = float("inf"), copy.deepcopy(proxy.state_dict()), 0
    for _ in range(epochs):
        order = torch.randperm(len(kept), generator=generator)
        for x, y in batches(kept.subset(order), _BATCH, device_of(proxy)):
            with torch.enable_grad():
                loss = functional.cross_entropy(proxy(x), y)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
            optimizer.step()
        loss_held = float(functional.cross_entropy(logits(proxy, held), held.y.to(device_of(proxy))))
        waited += 1
        if loss_held < best:
            best, best_state, waited = loss_held, copy.deepcopy(proxy.state_dict()), 0
        if waited >= _PATIENCE:
            break
    if not np.isfinite(best):
        raise NonFiniteValueError("the training of a proxy diverged: are the features of the target extremely large?")
    proxy.load_state_dict(best_state)
    proxy.requires_grad_(False)
