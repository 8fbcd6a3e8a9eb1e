"""Inversion of a layer: what the representation of a record tells of the record itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from privkernels.attacks.base import Array
from privkernels.attacks.image_regularizers import alpha_norm, total_variation
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError, UnknownNameError
from privkernels.inference import evaluating
from privkernels.progress import Progress, silent
from privkernels.randomness import Key

# x [b, ...] to a representation [b, ...].
Representation = nn.Module | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class InversionSettings:
    """How :func:`invert` searches.

    Attributes:
        steps: steps of Adam in each search; its learning rate falls to 0 as a half cosine.
        learning_rates: what it falls from, as shares of the range of x. Every restart searches once
            with each, from one starting point; record by record the search with the least loss is
            kept. No single rate does well in every layer.
        alpha, alpha_weight: exponent and weight of the alpha-norm; weight 0 leaves it out.
        beta, tv_weight: exponent and weight of the total variation; beta = 1 is that of Huang et
            al. (2020), Section 5.2. Ignored unless records are pictures [channels, height, width].
        jitter: before each step pictures are shifted, with wrap-around, by a random number of
            pixels up to this, the same for all of a step.
        restarts: starting points, each searched from with every learning rate.
        low, high: the range of x.
        tolerance: a search ends before ``steps`` when every record's relative error is below, and
            no other is made then.

    Raises:
        InvalidArgumentError: a value outside its range.
    """

    steps: int = 500
    learning_rates: tuple[float, ...] = (0.05, 0.2)
    alpha: float = 6.0
    alpha_weight: float = 0.0
    beta: float = 2.0
    tv_weight: float = 0.03
    jitter: int = 0
    restarts: int = 1
    low: float = 0.0
    high: float = 1.0
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("restarts", 1), ("jitter", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidArgumentError(f"{name} is an integer of at least {least}, got {value!r}")
        for name in ("alpha_weight", "tv_weight", "tolerance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidArgumentError(f"{name} is finite and at least 0, got {getattr(self, name)!r}")
        rates = self.learning_rates
        if not isinstance(rates, tuple) or not rates or not all(0 < rate < math.inf for rate in rates):
            raise InvalidArgumentError(f"learning_rates is a tuple of positive and finite numbers, got {rates!r}")
        if not (1 <= self.alpha < math.inf and 1 <= self.beta < math.inf):
            raise InvalidArgumentError(f"alpha and beta are at least 1, got {self.alpha!r} and {self.beta!r}")
        if not -math.inf < self.low < self.high < math.inf:
            raise InvalidArgumentError(f"the range of x needs low < high, got {self.low!r} and {self.high!r}")


@dataclass(frozen=True, eq=False)
class Inversion:
    """Records found for n observed representations.

    Attributes:
        x: float32 [n, ...] in the settings' range, on the device of the search.
        loss: what was minimised, regularisers included, at ``x`` without jitter, float64 [n].
        relative_error: ||Phi(x) - Phi0||^2 / ||Phi0||^2, float64 [n]; without the division where
            the observed representation is all zero.
        steps: of the longest search.
    """

    x: Tensor
    loss: Array
    relative_error: Array
    steps: int


def representation_at(module: nn.Module, layer: str | None) -> Callable[[Tensor], Tensor]:
    """The function from x [b, ...] to what ``layer`` puts out, in evaluation mode.

    The forward pass ends there: later layers cost nothing and, if they work in place as
    ``ReLU(inplace=True)`` does, do not overwrite it. Of a layer that runs several times it is the
    first time. Modes are put back after each call.

    Args:
        module: any network.
        layer: a name of ``module.named_modules()``; None for the module's own output.

    Raises:
        UnknownNameError: no such layer. The function itself raises
            :class:`InvalidArgumentError` if the layer does not run or does not return a tensor.
    """
    names = [name for name, _ in module.named_modules() if name]
    if layer is not None and layer not in names:
        raise UnknownNameError(f"{type(module).__name__} has no layer {layer!r}: choose one of {', '.join(names)}")

    def representation(x: Tensor) -> Tensor:
        with evaluating(module):
            output = module(x) if layer is None else _run_until(module, layer, x)
        if not isinstance(output, Tensor):
            raise InvalidArgumentError(
                f"layer {layer!r} returns a {type(output).__name__}; give a layer, or a function of x, "
                "that returns one tensor"
            )
        return output

    return representation


class _Reached(Exception):
    """Carries a layer's output out of the forward pass."""

    def __init__(self, output: object) -> None:
        self.output = output


def _run_until(module: nn.Module, layer: str, x: Tensor) -> object:
    def leave(part: nn.Module, inputs: object, output: object) -> None:
        raise _Reached(output)

    handle = module.get_submodule(layer).register_forward_hook(leave)
    try:
        module(x)
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise InvalidArgumentError(f"{type(module).__name__} does not run its layer {layer!r}: choose one that it runs")


def invert(
    target: Representation,
    observed: Tensor,
    input_shape: tuple[int, ...],
    *,
    layer: str | None = None,
    start: Tensor | None = None,
    settings: InversionSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Inversion:
    """Find x whose representation is the observed one, for all records at once.

    Minimises, record by record,

        ||Phi(x) - Phi0||^2 / ||Phi0||^2 + alpha_weight * A(x) + tv_weight * V(x)

    over low <= x <= high. Phi is ``target`` up to ``layer``; Phi0 is what the attacker saw, which
    may have been normalised, pruned or noised on its way.

    Source: Mahendran and Vedaldi, CVPR 2015; used against pruned networks by Huang et al. (2020),
    Section 5.2. Departures:

    * A and V are means over a record in units of its range (:mod:`.image_regularizers`), so that
      weights mean the same for every picture size; the paper sums.
    * Adam with a cosine schedule instead of gradient descent with momentum, and x is put back
      into its range after every step, where the paper's alpha-norm only pulls towards it.
    * It starts at ``start`` with uniform noise added, a tenth of the range wide.
    * It searches with two learning rates and keeps the lower loss.

    The defaults are a compromise between trained networks without noise.

    learning_rates, mean PSNR in dB of 8 training records after 500 steps (tv_weight 0.03, start at the
    middle):

    ====================================  ====  ====  ====  =========
    network and layer                     0.05  0.1   0.2   0.05, 0.2
    ====================================  ====  ====  ====  =========
    CIFAR-Net, first pooling              22.8  24.0  25.1  25.1
    CIFAR-Net, third convolution          21.5  23.4  23.4  23.5
    CIFAR-Net, second pooling             13.1  13.0  12.5  13.2
    another CIFAR-Net, second pooling     13.2  12.7  11.9  13.0
    SVHN-Net, first pooling               19.1  19.7  22.1  22.2
    SVHN-Net, second pooling              12.0  11.5  11.6  12.1
    MNIST-Net, first dense layer           7.9   8.9   9.6   9.6
    perceptron of 256, hidden (MNIST)     17.9  20.9  22.2  22.2
    LeNet-5, second convolution (MNIST)   21.4  24.1  25.5  25.5
    LeNet-5, first dense layer (MNIST)     6.2   7.0   7.9   7.6
    ====================================  ====  ====  ====  =========

    CIFAR-Net and SVHN-Net were trained on CIFAR-10. MNIST-Net up to its pooling, and the first
    convolution of all, differ by at most 1 dB from 0.05 to 0.2.
    A third rate (0.02 or 0.1) gained at most 0.5 dB.

    start: LeNet-5's first dense layer with rate 0.05 gives 6.2 from the middle of the range and 9.9
    from the mean of the test records; with rate 0.2, 7.9 and 8.7.

    Weights:

    * Digits, small network, 500 steps, learning rate 0.1: first convolution, pooling after the
      second and first dense layer have 89, 104 and 14.0 dB with tv_weight 0, and 41, 34 and 15.5
      with 0.03.
    * CIFAR-10, CIFAR-Net, 300 steps, learning rate 0.05: tv_weight 0 gives 54, 19.8, 10.8; 0.1
      gives 39, 24.0, 12.2.
    * With noise of half the representation's standard deviation more is better: CIFAR-Net's first
      pooling, default rates, start at the mean, 6 records: 14.7, 17.8, 19.9 and 19.4 dB with
      tv_weight 0.1, 0.3, 1 and 3.
    * The alpha-norm gave at most 0.2 dB, in deep layers, and cost tens of dB in shallow ones: the
      range already does its work, so its default weight is 0. Jitter of one pixel cost about 3 dB.

    Args:
        target: a module, or a function from x [b, ...] to its representation. A module runs in
            evaluation mode, its parameters get no gradients and its modes are put back.
        observed: floating-point [n, ...], finite; row i of record i.
        input_shape: shape of one record.
        layer: name of the layer of the module that was observed; None for its output.
        start: where the search begins, of ``input_shape`` and finite: the mean of the attacker's own
            records is better than the middle of the range, which is None.
        settings: defaults when None.
        seed: of the starting points and the jitter.
        progress: called after every step.

    Raises:
        EmptyDataError: no observed representation.
        NonFiniteValueError: an observed value, one of ``start``, or the loss, is NaN or infinite.
        InvalidArgumentError: Phi's output has not the shape of ``observed`` or no gradient for x,
            ``start`` has not ``input_shape``, or a layer of a function was asked for.
        UnknownNameError: no such layer.
    """
    settings = settings or InversionSettings()
    if not isinstance(target, nn.Module) and layer is not None:
        raise InvalidArgumentError(f"layer {layer!r} needs a module; a function is the representation itself")
    phi = representation_at(target, layer) if isinstance(target, nn.Module) else target
    device = _device_of(target, observed)
    observed = _checked(observed).to(device)
    objective = _Objective(phi, observed, settings)
    key = Key.from_seed(seed)
    middle = _start(start, input_shape, settings).expand(len(observed), *input_shape)
    best: Inversion | None = None
    searches = itertools.product(range(settings.restarts), settings.learning_rates)
    for number, (restart, rate) in enumerate(searches, 1):
        generator = key.generator(f"inversion/{restart}")
        x, steps = _search(objective, middle, rate, settings, generator, device, progress, f"inversion {number}")
        found = objective.outcome(x, steps)
        best = found if best is None else _better(best, found)
        if bool((best.relative_error < settings.tolerance).all()):
            break
    assert best is not None
    return best


class _Objective:
    """The loss of each record, and its parts."""

    def __init__(self, phi: Callable[[Tensor], Tensor], observed: Tensor, settings: InversionSettings) -> None:
        self.phi = phi
        self.observed = observed
        self.settings = settings
        norms = observed.flatten(1).square().sum(dim=1)
        self.scale = torch.where(norms > 0, norms, torch.ones_like(norms))

    def error(self, x: Tensor) -> Tensor:
        """||Phi(x) - Phi0||^2 / ||Phi0||^2 per record, [n]."""
        output = self.phi(x)
        if output.shape != self.observed.shape:
            raise InvalidArgumentError(
                f"the representation of x {list(x.shape)} has shape {list(output.shape)}, "
                f"but {list(self.observed.shape)} was observed: give the layer and input_shape that belong to it"
            )
        return (output - self.observed).flatten(1).square().sum(dim=1) / self.scale

    def penalty(self, x: Tensor) -> Tensor:
        """The weighted regularisers per record, [n]."""
        settings = self.settings
        unit = (x - (settings.low + settings.high) / 2) / (settings.high - settings.low)
        total = torch.zeros(len(x), device=x.device)
        if settings.alpha_weight > 0:
            total = total + settings.alpha_weight * alpha_norm(2 * unit, settings.alpha)
        if settings.tv_weight > 0 and x.dim() == 4:
            total = total + settings.tv_weight * total_variation(unit, settings.beta)
        return total

    def outcome(self, x: Tensor, steps: int) -> Inversion:
        with torch.no_grad():
            error = self.error(x)
            loss = error + self.penalty(x)
        return Inversion(x, _float64(loss), _float64(error), steps)


def _search(
    objective: _Objective,
    middle: Tensor,
    rate: float,
    settings: InversionSettings,
    generator: torch.Generator,
    device: torch.device,
    progress: Progress,
    what: str,
) -> tuple[Tensor, int]:
    """Adam from one starting point; x and the steps made.

    Adam works number by number and the loss is a sum over records, so records do not influence
    each other.
    """
    width = settings.high - settings.low
    start = middle + 0.1 * width * (torch.rand(middle.shape, generator=generator) - 0.5)
    x = start.clamp(settings.low, settings.high).to(device).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=rate * width)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for step in range(1, settings.steps + 1):
        with torch.enable_grad():
            error = objective.error(_shifted(x, settings.jitter, generator))
            if not error.requires_grad:
                raise InvalidArgumentError("the representation has no gradient for x: give one that is differentiable")
            loss = (error + objective.penalty(x)).sum()
            (x.grad,) = torch.autograd.grad(loss, [x])
        if not bool(torch.isfinite(loss)):
            raise NonFiniteValueError(
                "the loss became NaN or infinite: lower learning_rates, or check the target's weights"
            )
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(settings.low, settings.high)
        progress(step, settings.steps, what)
        if bool((error < settings.tolerance).all()):
            break
    return x.detach(), step


def _start(start: Tensor | None, input_shape: tuple[int, ...], settings: InversionSettings) -> Tensor:
    """float32 of ``input_shape``, on the CPU, where the noise is drawn."""
    if start is None:
        return torch.full(input_shape, (settings.low + settings.high) / 2)
    if start.shape != torch.Size(input_shape):
        raise InvalidArgumentError(
            f"start has the shape of one record, {list(input_shape)}, got {list(start.shape)}: give one for all records"
        )
    if not bool(torch.isfinite(start).all()):
        raise NonFiniteValueError("start holds NaN or infinity")
    return start.detach().to("cpu", torch.float32)


def _shifted(x: Tensor, jitter: int, generator: torch.Generator) -> Tensor:
    if not jitter or x.dim() != 4:
        return x
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
    return x.roll((down, right), dims=(2, 3))


def _better(a: Inversion, b: Inversion) -> Inversion:
    """Of each record the one with the lower loss."""
    second = b.loss < a.loss
    rows = torch.from_numpy(second).to(a.x.device).reshape(-1, *[1] * (a.x.dim() - 1))
    return Inversion(
        torch.where(rows, b.x, a.x),
        np.where(second, b.loss, a.loss),
        np.where(second, b.relative_error, a.relative_error),
        max(a.steps, b.steps),
    )


def _checked(observed: Tensor) -> Tensor:
    if not isinstance(observed, Tensor) or not observed.is_floating_point() or observed.dim() < 2:
        raise InvalidArgumentError("observed is a floating-point tensor [n, ...], a row for each record")
    if observed.numel() == 0:
        raise EmptyDataError("there is no observed representation to invert")
    if not bool(torch.isfinite(observed).all()):
        raise NonFiniteValueError("the observed representation holds NaN or infinity")
    return observed.detach().float()


def _device_of(target: Representation, observed: Tensor) -> torch.device:
    parameter = next(target.parameters(), None) if isinstance(target, nn.Module) else None
    return observed.device if parameter is None else parameter.device


def _float64(values: Tensor) -> Array:
    result: Array = values.to("cpu", torch.float64).numpy()
    return result
