"""noisy_activations: clip, cross-channel local response normalisation and Gaussian noise in one pass.

What an offloaded training sends in place of its activations (Mao et al., IEEE TPDS 2021, Eq. 4 and Section 4.1). The
contract (order of the stages, rounding, randomness) is csrc/include/privkernels/noisy_activations.h; the sensitivities
are in :mod:`privkernels.privacy.activation_formulae`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import KEYED, READS_BACK, check_key, define, implement, key_bytes, library
from privkernels.ops._memory import FORMATS
from privkernels.ops.noise_add import _entries, _exponent
from privkernels.ops.noise_law import noise_law
from privkernels.randomness import Key

ClipKind = Literal["clamp", "norm"]

# csrc/include/privkernels/noisy_activations.h: ActivationFormat
_NONE, _FLOAT, _GRID = 0, 1, 2  # ActivationNoise
_SMALL, _LARGE = 2.0**-40, 2.0**40
_FINENESS = 2.0**-13  # of the default grid: noise of two tables, and a rounding that adds little to the sensitivity
_CHANNELS = 2**20

define(
    "noisy_activations(Tensor x, float? clip, bool norm, bool signed, int? window, float alpha, float beta, "
    "float gamma, float noise_std, int? exponent, Tensor key, int first_element, int attempt) -> Tensor",
    outside_graphs=f"with noise, {KEYED}; without, {READS_BACK}",
)
define(
    "noisy_activations_backward(Tensor grad, Tensor x, float? clip, bool norm, bool signed, int? window, float alpha, "
    "float beta, float gamma) -> Tensor",
    outside_graphs=None,
)


def noisy_activations(
    x: torch.Tensor,
    *,
    clip: float | None,
    clip_kind: ClipKind = "clamp",
    signed: bool = False,
    window: int | None = 5,
    alpha: float = 1.0,
    beta: float = 0.5,
    gamma: float = 2.0,
    noise_std: float,
    secure: bool = True,
    granularity: float | None = None,
    key: Key | None = None,
    label: str | None = None,
    first_element: int = 0,
    attempt: int = 0,
) -> torch.Tensor:
    """``y + noise`` with ``y_i = a_i / (gamma + alpha sum_j a_j^2)^beta`` over neighbouring channels, a the clipped x.

    The sum runs over the channels from ``i - window // 2`` to ``i + window // 2`` that exist (Eq. 4), at the same
    example and position; alpha is not divided by the window, as ``torch.nn.LocalResponseNorm`` does: its alpha is
    ``window`` times this one, and for an even window it looks at one channel fewer.

    What one example's whole tensor can change by, in L2 norm, n its number of elements:

    * clip_kind "clamp": ``lrn_tensor_sensitivity(..., clamp=clip)``;
    * clip_kind "norm": ``clipped_tensor_sensitivity(clip / gamma**beta)`` (``clip`` without normalisation), with
      ``nonnegative=not signed``, because ``|y_i| <= |a_i| / gamma^beta`` (computed: within 1e-6 of that);
    * arithmetic in float32 moves each y_i by at most ``(beta (window + 5) 2**-24 + 2**-20) |y_i|`` from Eq. 4, and a
      tensor by twice that much of its norm from another;
    * ``secure`` adds ``granularity * sqrt(n)``: each element is rounded to the grid.

    Each stage can be left out: ``clip=None``, ``window=None``, ``noise_std=0`` (evaluation, a control).

    Args:
        x: float32, float16, bfloat16 or float64 [B, C] or [B, C, ...], finite, and below 2**40 in magnitude where it is
            normalised without a clip (float64: below 2**500). Differentiated once: gradients flow through clip
            and normalisation. x alone is saved; the noise is not stored, and not drawn again.
        clip: the clamp's bound, or the largest L2 norm of an example's whole tensor [C, ...]; 2**-40 to 2**40.
        clip_kind: "clamp" to [0, clip], or "norm": an example above that norm is scaled down to it.
        signed: negative activations are kept, and clamped to [-clip, clip]. Otherwise they become 0 first, as after a
            ReLU, which the smaller sensitivities of non-negative activations rest on.
        window: u of Eq. 4, 1 or more; None for no normalisation. alpha, beta, gamma: its constants; alpha 2**-40 to
            2**20, beta 2**-40 to 2, gamma 2**-40 to 2**40. The defaults are the paper's (Sections 4.1 and
            8).
        noise_std: standard deviation of each element's noise, absolute (not times a sensitivity); 0 for none.
        secure: exact discrete Gaussian noise on a grid (``noise_law("gaussian", noise_std / granularity)``). False:
            floating-point noise as in the paper, in about half the time. No proof of privacy covers that one: the low
            bits of the sum tell activations apart (Mironov 2012).
        granularity: step of the grid, a power of two chosen without looking at x; by default the largest one up to
            2**-13 noise_std.
        key, label: needed where there is noise. A (key, label) pair, with ``attempt``, is for one release only.
        first_element: index of element 0 within the release, so that it can be made in slices of whole examples.
        attempt: 0 to 2**28 - 1: further draws under the same key and label, one for each epoch or step.

    Returns:
        As x in shape and dtype; channels-last where x is dense that way and not contiguous, else contiguous. The values
        are the same in both: noise is addressed by (example, channel, position).

    Raises:
        InvalidArgumentError: a dtype, shape or number is wrong (the message says which).
        NonFiniteValueError: x holds NaN, infinity or too large a value (the element is named).

    Departures from the paper: it does not clip, but takes ``0 <= a < 1`` after preprocessing for granted (Section 4.1),
    which its sensitivity rests on; and its noise is in floating point.
    """
    exponent = _grid(noise_std, secure, granularity)
    secret = _secret(noise_std, key, label)
    clip_value = _number("clip", clip) if clip is not None else None
    norm = _norm(clip, clip_kind)
    numbers = [_number(name, value) for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma))]
    for name, value in (("window", window), ("first_element", first_element), ("attempt", attempt)):
        if (value is not None or name != "window") and (isinstance(value, bool) or not isinstance(value, int)):
            raise InvalidArgumentError(f"{name} must be an integer, got {value!r}")
    arguments: tuple[Any, ...] = (clip_value, norm, bool(signed), window, *numbers)
    _check(x, *arguments)
    result: torch.Tensor = torch.ops.privkernels.noisy_activations(
        x, *arguments, float(noise_std), exponent, secret, first_element, attempt
    )
    return result


def noisy_activations_reference(
    x: torch.Tensor,
    *,
    clip: float | None,
    clip_kind: ClipKind = "clamp",
    signed: bool = False,
    window: int | None = 5,
    alpha: float = 1.0,
    beta: float = 0.5,
    gamma: float = 2.0,
) -> torch.Tensor:
    """:func:`noisy_activations` without noise, in plain torch and float64, differentiable; the tests' oracle."""
    norm = _norm(clip, clip_kind)
    _check(x, clip, norm, signed, window, alpha, beta, gamma)
    a = x.double()
    if not norm and clip is not None:
        a = a.clamp(-clip if signed else 0.0, clip)
    elif not signed:
        a = a.clamp(min=0.0)
    if norm and a.numel():
        norms = torch.linalg.vector_norm(a.flatten(1), dim=1).clamp(min=clip)
        a = a * (clip / norms).reshape(-1, *[1] * (a.dim() - 1))
    if window is None or a.numel() == 0:
        return a
    squares, reach = a.square(), window // 2
    sums = [squares[:, max(0, i - reach) : i + reach + 1].sum(1) for i in range(a.shape[1])]
    return a / (gamma + alpha * torch.stack(sums, 1)) ** beta


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgumentError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _norm(clip: float | None, clip_kind: str) -> bool:
    if clip_kind not in get_args(ClipKind):
        raise InvalidArgumentError(f"clip_kind is 'clamp' or 'norm', got {clip_kind!r}")
    return clip_kind == "norm" and clip is not None


def _grid(noise_std: float, secure: bool, granularity: float | None) -> int | None:
    """The exponent of the grid's step, or None without a grid."""
    if not 0 <= _number("noise_std", noise_std) <= _LARGE:
        raise InvalidArgumentError(f"noise_std must be 0 (no noise) to 2**40, got {noise_std!r}")
    if not secure and granularity is not None:
        raise InvalidArgumentError("granularity is that of secure noise: leave it out, or set secure=True")
    if not secure or noise_std == 0:
        return None
    if granularity is None:
        return math.frexp(noise_std * _FINENESS)[1] - 1
    return _exponent(granularity)


def _secret(noise_std: float, key: Key | None, label: str | None) -> torch.Tensor:
    if noise_std == 0:
        return torch.zeros(32, dtype=torch.uint8)
    if not isinstance(key, Key) or label is None:
        raise InvalidArgumentError("noise needs key, a privkernels.Key, and label: give both, or noise_std=0")
    return key.derive(label).tensor()


def _check(
    x: torch.Tensor, clip: float | None, norm: bool, signed: bool, window: int | None, alpha: float, beta: float,
    gamma: float,
) -> None:  # fmt: skip
    if not isinstance(x, torch.Tensor):
        raise InvalidArgumentError(f"x must be a tensor, not {type(x).__name__}")
    if x.dtype not in FORMATS or x.layout != torch.strided:
        raise InvalidArgumentError(
            f"x must be a dense float32, float16, bfloat16 or float64 tensor, got {x.dtype} ({x.layout})"
        )
    if x.dim() < 2:
        raise InvalidArgumentError(f"x has examples and channels first, [B, C, ...], got {list(x.shape)}")
    ranges = [] if clip is None else [("clip", clip, _SMALL, _LARGE)]
    if norm and clip is None:
        raise InvalidArgumentError("the norm is clipped to a number: give clip")
    if window is not None:
        if window < 1:
            raise InvalidArgumentError(f"window must be 1 or more, or None for no normalisation, got {window}")
        ranges += [("alpha", alpha, _SMALL, 2.0**20), ("beta", beta, _SMALL, 2.0), ("gamma", gamma, _SMALL, _LARGE)]
        if x.shape[1] > _CHANNELS:
            raise InvalidArgumentError(f"normalisation is over at most 2**20 channels, got {x.shape[1]}")
    for name, value, low, high in ranges:
        if not low <= value <= high:
            raise InvalidArgumentError(f"{name} must be from {low:g} to {high:g}, got {value!r}")


def _check_draw(noise_std: float, exponent: int | None, key: torch.Tensor, first_element: int, attempt: int) -> None:
    if not 0 <= noise_std <= _LARGE:
        raise InvalidArgumentError(f"noise_std must be 0 to 2**40, got {noise_std!r}")
    if exponent is not None and abs(exponent) > 100:
        raise InvalidArgumentError(f"granularity must be 2**-100 to 2**100, got 2**{exponent}: give another one")
    check_key(key)
    if not 0 <= first_element < 2**63:
        raise InvalidArgumentError(f"first_element must be in [0, 2**63), got {first_element}")
    if not 0 <= attempt < 2**28:
        raise InvalidArgumentError(f"attempt must be in [0, 2**28), got {attempt}")


def _is_channels_last(x: torch.Tensor) -> bool:
    return not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def _laid_out(x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """x, or a copy of it, dense in the given order."""
    x = x.resolve_neg()
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x.contiguous()


def _empty(x: torch.Tensor, channels_last: bool, dtype: torch.dtype) -> torch.Tensor:
    if not channels_last:
        return torch.empty(x.shape, dtype=dtype, device=x.device)
    return torch.empty(x.movedim(1, -1).shape, dtype=dtype, device=x.device).movedim(-1, 1)


def _work_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _run(
    x: torch.Tensor, memory: list[int], channels_last: bool, stages: tuple[Any, ...], noise: tuple[Any, ...]
) -> int:
    """Run the kernel on memory that is laid out; returns the first element that is refused, or -1."""
    clip, norm, signed, window, alpha, beta, gamma = stages
    clip_kind = 0 if clip is None else 2 if norm else 1
    sizes = [x.shape[0], x.shape[1], math.prod(x.shape[2:])]
    arguments = (
        memory, FORMATS[x.dtype], sizes, channels_last, clip_kind, clip or 0.0, signed, window or 0,
        [alpha, beta, gamma], *noise,
    )  # fmt: skip
    if x.device.type != "cuda":
        status = _native.cpu().noisy_activations(*arguments, torch.get_num_threads())
        if status[2] < 0:
            _native.raise_for_status(status, "noisy_activations")
        return int(status[2])
    module = _native.cuda()
    workspace = torch.empty(
        module.noisy_activations_workspace(sizes[0], sizes[2]), dtype=torch.float64, device=x.device
    )
    failure = torch.full((1,), -1, dtype=torch.int64, device=x.device)
    index = x.device.index if x.device.index is not None else torch.cuda.current_device()
    stream = torch.cuda.current_stream(x.device).cuda_stream
    status = module.noisy_activations(*arguments, workspace.data_ptr(), failure.data_ptr(), index, stream)
    _native.raise_for_status(status, "noisy_activations")
    return int(failure.item()) if memory[1] == 0 else -1


_NO_NOISE: tuple[Any, ...] = [_NONE, 0], 0.0, 0, [], [], bytes(32), 0, 0


def _noisy_activations(
    x: torch.Tensor, clip: float | None, norm: bool, signed: bool, window: int | None, alpha: float, beta: float,
    gamma: float, noise_std: float, exponent: int | None, key: torch.Tensor, first_element: int, attempt: int,
) -> torch.Tensor:  # fmt: skip
    stages = clip, norm, signed, window, alpha, beta, gamma
    _check(x, *stages)
    _check_draw(noise_std, exponent, key, first_element, attempt)
    channels_last = _is_channels_last(x)
    result = _empty(x, channels_last, x.dtype)
    source = _laid_out(x, channels_last)
    noise: tuple[Any, ...] = _NO_NOISE
    if noise_std > 0:
        secret = key_bytes(key), first_element, attempt
        if exponent is None:
            noise = [_FLOAT, 0], noise_std, 0, [], [], *secret
        else:
            law = noise_law("gaussian", noise_std * 2.0**-exponent)
            entries = _entries("gaussian", law.steps, x.device)
            bits, multipliers = [t.index_bits for t in law.tables], [t.multiplier for t in law.tables]
            noise = [_GRID, exponent], noise_std, entries.data_ptr(), bits, multipliers, *secret
    failed = _run(x, [source.data_ptr(), 0, result.data_ptr()], channels_last, stages, noise)
    if failed >= 0:
        value = x.reshape(-1)[failed].item()
        raise NonFiniteValueError(
            f"noisy_activations: x holds {value} in element {failed} (in row-major order); every value must be finite, "
            "and below 2**40 in magnitude if it is normalised without a clip (float64: below 2**500)"
        )
    return result


def _noisy_activations_backward(
    grad: torch.Tensor, x: torch.Tensor, clip: float | None, norm: bool, signed: bool, window: int | None,
    alpha: float, beta: float, gamma: float,
) -> torch.Tensor:  # fmt: skip
    stages = clip, norm, signed, window, alpha, beta, gamma
    _check(x, *stages)
    _check_grad(grad, x)
    channels_last, work = _is_channels_last(x), _work_dtype(x)
    result = _empty(x, channels_last, work)
    source, upstream = _laid_out(x, channels_last), _laid_out(grad.to(work), channels_last)
    _run(x, [source.data_ptr(), upstream.data_ptr(), result.data_ptr()], channels_last, stages, _NO_NOISE)
    return result.to(x.dtype)


def _check_grad(grad: torch.Tensor, x: torch.Tensor) -> None:
    if grad.shape != x.shape or grad.dtype != x.dtype:
        raise InvalidArgumentError(
            f"the gradient is as x, {x.dtype} {list(x.shape)}, got {grad.dtype} {list(grad.shape)}"
        )


def _fake(
    x: torch.Tensor, clip: float | None, norm: bool, signed: bool, window: int | None, alpha: float, beta: float,
    gamma: float, noise_std: float, exponent: int | None, key: torch.Tensor, first_element: int, attempt: int,
) -> torch.Tensor:  # fmt: skip
    _check(x, clip, norm, signed, window, alpha, beta, gamma)
    return _empty(x, _is_channels_last(x), x.dtype)


def _fake_backward(grad: torch.Tensor, x: torch.Tensor, *stages: Any) -> torch.Tensor:
    _check_grad(grad, x)
    return _empty(x, _is_channels_last(x), x.dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.stages = inputs[1:8]


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    return torch.ops.privkernels.noisy_activations_backward(grad, x, *ctx.stages), *[None] * 12


def _no_second(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    raise InvalidArgumentError(
        "noisy_activations is differentiated once: for second derivatives use noisy_activations_reference"
    )


implement("noisy_activations", _noisy_activations, _fake)
implement("noisy_activations_backward", _noisy_activations_backward, _fake_backward)
torch.library.register_autograd("privkernels::noisy_activations", _backward, setup_context=_setup_context, lib=library)
torch.library.register_autograd("privkernels::noisy_activations_backward", _no_second, lib=library)
