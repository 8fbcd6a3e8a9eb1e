"""noise_add: discrete Laplace or discrete Gaussian noise on a power-of-two grid, added to a tensor.

The contract (rounding, formats, randomness, run time) is csrc/include/privkernels/noise_add.h; the law of the noise and
its distance from the ideal one are in :mod:`privkernels.ops.noise_law`.

Why a grid: noise that is a float, added to a float, gives the value away. The floats that a Laplace sampler can give
are few, and their sums with 0 and with 1 differ (Mironov 2012); the last place of a sum tells how large value and noise
were (Haney et al. 2022). Here value and noise are integers on a grid chosen without looking at the data, the sum is
exact, and rounding it to the tensor's dtype is post-processing.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import torch

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import KEYED, define, implement, key_bytes, refuse_capture
from privkernels.ops._memory import FORMATS
from privkernels.ops.noise_law import Distribution, NoiseLaw, noise_law
from privkernels.randomness import Key

# Precision in bits and the smallest normal exponent of the dtypes that are taken.
_FORMATS = {torch.float32: (24, -126), torch.float16: (11, -14), torch.bfloat16: (8, -126)}
_LARGEST_STEPS = 2**50
_LARGEST_EXPONENT = 100

define(
    "noise_add(Tensor x, str distribution, float steps, int exponent, Tensor key, int first_element) -> Tensor",
    outside_graphs=KEYED,
)
define(
    "noise_steps(int size, str distribution, float steps, Tensor key, int first_element, Device device) -> Tensor",
    outside_graphs=KEYED,
)


def noise_add(
    x: torch.Tensor,
    *,
    distribution: Distribution,
    scale: float,
    granularity: float,
    key: Key,
    label: str,
    first_element: int = 0,
) -> torch.Tensor:
    """``round_to_dtype(granularity * (clamp(round(x / granularity)) + K))``, K integer noise of its own per element.

    Both roundings are half to even; the clamp is at +-2**50 steps. Values rounded to the grid move by up to half a step
    each, so count on a sensitivity that is larger by ``granularity`` per element, or pass values on the grid. The
    result has a finite value in every place: what exceeds the dtype's largest number becomes that number. The noise of
    an element is a function of (key, label), scale over granularity, ``first_element`` + its index in row-major order,
    bit for bit on every CPU instruction set; CUDA is written to agree, which no GPU has confirmed yet.

    Args:
        x: float32, float16 or bfloat16 of any shape and strides, finite. Not differentiated: the result is detached.
        distribution: "laplace", P(K = k) proportional to exp(-|k| granularity / scale), or "gaussian",
            exp(-(k granularity / scale)**2 / 2). The law as drawn is :func:`noise_law` of scale / granularity.
        scale: Laplace's b or the Gaussian's sigma, in units of x; 2**-3 to 2**40 times the granularity.
        granularity: step of the grid, in units of x; a power of two from 2**-100 to 2**100, chosen without looking
            at x.
        key, label: a (key, label) pair must be used for one release only.
        first_element: index of element 0 within the release; lets a release be made in slices.

    Returns:
        As x in shape, dtype and device; contiguous.

    Raises:
        InvalidArgumentError: a dtype, name or number is wrong (the message says which).
        NonFiniteValueError: x holds NaN or infinity (the element is named).

    Source: Canonne, Kamath, Steinke 2020 for the discrete laws; rounding the value to the noise's grid as in
    Google's "Secure Noise Generation" (2020). Departure: sampled from exact tables in fixed time per element, not
    by rejection.
    """
    _check_tensor(x)
    exponent = _exponent(granularity)
    steps = _steps(scale, granularity)
    _check_draw(distribution, steps, key, first_element)
    result: torch.Tensor = torch.ops.privkernels.noise_add(
        x.detach(), distribution, steps, exponent, key.derive(label).tensor(), int(first_element)
    )
    return result


def noise_steps(
    size: int,
    *,
    distribution: Distribution,
    steps: float,
    key: Key,
    label: str,
    first_element: int = 0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """The noise alone, in grid steps: int64 [size], the K that :func:`noise_add` adds under the same arguments.

    For sums of integers, which need no grid, and for tests.

    Args:
        size: number of draws, 0 or more.
        distribution, key, label, first_element: as for :func:`noise_add`.
        steps: the scale in grid steps, 2**-3 to 2**40.
        device: where the result is made; the CPU if None.

    Raises:
        InvalidArgumentError: an argument is wrong (the message says which).
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**60:
        raise InvalidArgumentError(f"size is a number of elements, 0 or more, got {size!r}")
    _check_draw(distribution, steps, key, first_element)
    result: torch.Tensor = torch.ops.privkernels.noise_steps(
        size,
        distribution,
        float(steps),
        key.derive(label).tensor(),
        int(first_element),
        torch.device(device if device is not None else "cpu"),
    )
    return result


def noise_add_reference(x: torch.Tensor, noise: torch.Tensor, granularity: float) -> torch.Tensor:
    """What :func:`noise_add` gives for this noise (int64, of x's shape), in exact rationals; the tests' oracle."""
    _check_tensor(x)
    step = Fraction(granularity)
    results = []
    for value, k in zip(x.detach().double().flatten().tolist(), noise.flatten().tolist(), strict=True):
        grid_value = max(-_LARGEST_STEPS, min(_LARGEST_STEPS, round(Fraction(value) / step)))
        results.append(_nearest(step * (grid_value + k), x.dtype))
    return torch.tensor(results, dtype=torch.float64).to(x.dtype).reshape(x.shape)


def _nearest(value: Fraction, dtype: torch.dtype) -> float:
    """The nearest number of dtype, half to even, kept in its finite range; exact."""
    precision, smallest = _FORMATS[dtype]
    largest = Fraction(torch.finfo(dtype).max)
    value = max(-largest, min(largest, value))
    if value == 0:
        return 0.0
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    if abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    exponent = max(exponent, smallest)
    unit = Fraction(2) ** (exponent - precision + 1)
    return float(round(value / unit) * unit)


def _check_tensor(x: torch.Tensor) -> None:
    if not isinstance(x, torch.Tensor):
        raise InvalidArgumentError(f"x must be a tensor, not {type(x).__name__}")
    if x.dtype not in _FORMATS or x.layout != torch.strided:
        raise InvalidArgumentError(
            f"x must be a dense float32, float16 or bfloat16 tensor, got {x.dtype} ({x.layout}): convert it first"
        )


def _exponent(granularity: float) -> int:
    number = isinstance(granularity, int | float) and not isinstance(granularity, bool)
    if number and math.isfinite(granularity) and granularity > 0:
        mantissa, exponent = math.frexp(granularity)
        if mantissa == 0.5 and abs(exponent - 1) <= _LARGEST_EXPONENT:
            return exponent - 1
    raise InvalidArgumentError(
        f"granularity must be a power of two from 2**-100 to 2**100, got {granularity!r}: round it down to one"
    )


def _steps(scale: float, granularity: float) -> float:
    number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not number or not math.isfinite(scale) or scale <= 0:
        raise InvalidArgumentError(f"scale must be positive and finite, got {scale!r}")
    return float(scale) / granularity  # exact in the range that noise_law accepts


def _check_draw(distribution: str, steps: float, key: Key, first_element: int) -> None:
    # Before the operator is called, because its schema refuses wrong types with a bare RuntimeError.
    if not isinstance(key, Key):
        raise InvalidArgumentError(f"key is a privkernels.Key, not {type(key).__name__}")
    noise_law(distribution, steps)  # type: ignore[arg-type]  # checks both
    _check_first(first_element)


def _check_first(first_element: int) -> None:
    if not 0 <= first_element < 2**63:
        raise InvalidArgumentError(f"first_element must be in [0, 2**63), got {first_element}")


@functools.lru_cache(maxsize=64)
def _entries(distribution: Distribution, steps: float, device: torch.device) -> torch.Tensor:
    """All tables' entries one after another, uint64 bits as int64, on the device."""
    entries = [entry for table in noise_law(distribution, steps).tables for entry in table.entries]
    signed = [entry - (1 << 64) if entry >> 63 else entry for entry in entries]
    return torch.tensor(signed, dtype=torch.int64).to(device)


def _run(
    law: NoiseLaw, device: torch.device, form: tuple[int, int, int], key: torch.Tensor, first_element: int,
    memory: tuple[int, int, int],
) -> None:  # fmt: skip
    """Run the kernel. form: format, size, exponent; memory: addresses of input, output and steps, 0 for none."""
    _check_first(first_element)
    secret = key_bytes(key)
    entries = _entries(law.distribution, law.steps, device)
    tables = entries.data_ptr(), [t.index_bits for t in law.tables], [t.multiplier for t in law.tables]
    arguments = (*form, law.distribution == "gaussian", *tables, secret, first_element, *memory)
    if device.type == "cuda":
        failure = torch.full((1,), -1, dtype=torch.int64, device=device)
        index = device.index if device.index is not None else torch.cuda.current_device()
        stream = torch.cuda.current_stream(device).cuda_stream
        status = _native.cuda().noise_add(*arguments, failure.data_ptr(), index, stream)
        _native.raise_for_status(status, "noise_add")
        failed = int(failure.item())
    else:
        status = _native.cpu().noise_add(*arguments, torch.get_num_threads())
        failed = status[2]
        if failed < 0:
            _native.raise_for_status(status, "noise_add")
    if failed >= 0:
        raise NonFiniteValueError(
            f"noise_add: x holds NaN or infinity in element {failed} (in row-major order); every value must be finite"
        )


def _noise_add(
    x: torch.Tensor, distribution: Distribution, steps: float, exponent: int, key: torch.Tensor, first_element: int
) -> torch.Tensor:
    _check_tensor(x)
    law = noise_law(distribution, steps)
    result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    # A tensor that is not contiguous is copied into the result and replaced there: the kernel may work in place.
    source = x if x.is_contiguous() and not x.is_neg() else result.copy_(x)
    form = FORMATS[x.dtype], x.numel(), exponent
    _run(law, x.device, form, key, first_element, (source.data_ptr(), result.data_ptr(), 0))
    return result


def _noise_steps(
    size: int, distribution: Distribution, steps: float, key: torch.Tensor, first_element: int, device: torch.device
) -> torch.Tensor:
    refuse_capture("noise_steps", [device])  # the key, a tensor on the CPU, decides what is called
    law = noise_law(distribution, steps)
    if device.type not in ("cpu", "cuda"):
        raise InvalidArgumentError(f"device must be cpu or cuda, got {device}")
    result = torch.empty(size, dtype=torch.int64, device=device)
    _run(law, result.device, (0, size, 0), key, first_element, (0, 0, result.data_ptr()))
    return result


def _fake_noise_add(
    x: torch.Tensor, distribution: str, steps: float, exponent: int, key: torch.Tensor, first_element: int
) -> torch.Tensor:
    _check_tensor(x)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _fake_noise_steps(
    size: int, distribution: str, steps: float, key: torch.Tensor, first_element: int, device: torch.device
) -> torch.Tensor:
    return torch.empty(size, dtype=torch.int64, device=device)


implement("noise_add", _noise_add, _fake_noise_add)
implement("noise_steps", _noise_steps, _fake_noise_steps)
