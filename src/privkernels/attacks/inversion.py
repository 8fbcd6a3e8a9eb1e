"""Inversion of a layer: what the representation of a record tells of the record itself."""

from __future__ import annotations

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
        steps: steps of Adam; its learning rate falls from ``learning_rate`` to 0 as a half cosine.
        learning_rate: as a share of the range of x.
        alpha, alpha_weight: exponent and weight of the alpha-norm; weight 0 leaves it out.
        beta, tv_weight: exponent and weight of the total variation; beta = 1 is that of Huang et
            al. (2020), Section 5.2. Ignored unless records are pictures [channels, height, width].
        jitter: before each step pictures are shifted, with wrap-around, by a random number of
            pixels up to this, the same for all of a step.
        restarts: searches from other starting points; the one with the least loss is kept, record
            by record.
        low, high: the range of x.
        tolerance: the search ends before ``steps`` when every record's relative error is below.

    Raises:
        InvalidArgumentError: a value outside its range.
    """

    steps: int = 500
    learning_rate: float = 0.1
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
        if not 0 < self.learning_rate < math.inf:
            raise InvalidArgumentError(f"learning_rate is positive and finite, got {self.learning_rate!r}")
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
        steps: of the longest restart.
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
    * It starts at uniform noise around the middle of the range (a tenth of its width).

    The defaults are a compromise between two trained networks without noise, mean PSNR in dB of the
    first convolution, of the pooling after the second and of the first dense layer:

    * Digits, small network, 500 steps: with learning_rate 0.1, tv_weight 0 gives 89, 104, 14.0;
      0.03 gives 41, 34, 15.5. Learning rates: 0.05 gives 12.4 and 0.5 gives 17.3 for the dense
      layer (tv_weight 0).
    * CIFAR-10, CIFAR-Net, 300 steps, learning_rate 0.05: tv_weight 0 gives 54, 19.8, 10.8; 0.1
      gives 39, 24.0, 12.2. Learning rate 0.2 is about 2 dB worse in deep layers.
    * The alpha-norm gave at most 0.2 dB, in deep layers, and cost tens of dB in shallow ones: the
      range already does its work, so its default weight is 0. Jitter of one pixel cost about 3 dB.

    Args:
        target: a module, or a function from x [b, ...] to its representation. A module runs in
            evaluation mode, its parameters get no gradients and its modes are put back.
        observed: floating-point [n, ...], finite; row i of record i.
        input_shape: shape of one record.
        layer: name of the layer of the module that was observed; None for its output.
        settings: defaults when None.
        seed: of the starting points and the jitter.
        progress: called after every step.

    Raises:
        EmptyDataError: no observed representation.
        NonFiniteValueError: an observed value, or the loss, is NaN or infinite.
        InvalidArgumentError: Phi's output has not the shape of ``observed`` or no gradient for x,
            or a layer of a function was asked for.
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
    best: Inversion | None = None
    for restart in range(settings.restarts):
        generator = key.generator(f"inversion/{restart}")
        shape = (len(observed), *input_shape)
        x, steps = _search(objective, shape, settings, generator, device, progress, f"inversion {restart + 1}")
        found = objective.outcome(x, steps)
        best = found if best is None else _better(best, found)
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
    shape: tuple[int, ...],
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
    start = (settings.low + settings.high) / 2 + 0.1 * width * (torch.rand(shape, generator=generator) - 0.5)
    x = start.to(device).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=settings.learning_rate * width)
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
                "the loss became NaN or infinite: lower learning_rate, or check the target's weights"
            )
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(settings.low, settings.high)
        progress(step, settings.steps, what)
        if bool((error < settings.tolerance).all()):
            break
    return x.detach(), step


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
