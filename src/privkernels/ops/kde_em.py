"""kde_em: draw every parameter of a model by the exponential mechanism from its kernel density estimate.

The contract (shapes, units, ties, accuracy, randomness) is csrc/include/privkernels/kde_em.h.
Source: Mao et al., TPDS 2022, Eq. 2, Eq. 3 and Algorithm 1 (DP-PG).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import KEYED, READS_BACK, define, implement, key_bytes, refuse_capture
from privkernels.ops._memory import FORMATS
from privkernels.randomness import Key

_UNIT = 2.0**-24  # the rounding unit of float32
_TRIALS, _MOST_NODES = 9, 264  # kTrials and kMaxNodes of csrc/core/kde_envelope.h
_FEWEST_INTERVALS = 64  # kFewestIntervals of csrc/core/kde_nodes.h
_ROOT_HALF = math.sqrt(0.5)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

define(
    "kde_em(Tensor[] members, Tensor lo, Tensor hi, Tensor bandwidth, Tensor key, float window_ratio, "
    "int grid_points, float multiplier, int first_element, int attempt, bool fixed_work=False) -> (Tensor, Tensor)",
    outside_graphs=KEYED,
)
define(
    "kde_scores(Tensor[] members, Tensor lo, Tensor hi, Tensor bandwidth, float window_ratio, "
    "int grid_points) -> Tensor",
    outside_graphs=READS_BACK,
)


def kde_em(
    theta: torch.Tensor | Sequence[torch.Tensor],
    *,
    lo: torch.Tensor | float,
    hi: torch.Tensor | float,
    bandwidth: torch.Tensor | float,
    multiplier: float,
    key: Key,
    label: str,
    window_ratio: float = 1.0,
    grid_points: int = 256,
    first_element: int = 0,
    attempt: int = 0,
    work: str = "lazy",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one grid value per element with probability proportional to exp(multiplier * u_j).

    ``u_j(r)`` is the mass that the Gaussian kernel density estimate of the M values of element j puts
    on the window of width ``window_ratio * bandwidth`` around r (Eq. 3). The draw of element j is a
    function of its own inputs, of (key, label), ``first_element + j`` and ``attempt`` alone, bit for
    bit on every CPU instruction set; CUDA is written to agree, which no GPU has confirmed yet.

    Args:
        theta: float32, float16 or bfloat16 [M, N] with any strides, or a sequence of M such [N], all of one dtype
            (rows of separate, possibly memory-mapped, storage); nothing is stacked, converted or copied. M >= 2.
        lo, hi: ends of the grid, a number (per layer) or float32 [N] (per parameter); lo <= hi.
        bandwidth: b in [2**-126, 2**100], as lo.
        multiplier: lambda >= 0, per unit of u. ``eps / (2 * sensitivity)`` gives an eps-DP draw where
            sensitivity is that of u.
        key, label: a (key, label) pair must be used for one release only.
        window_ratio: the window delta of Eq. 3 in units of the bandwidth, in [1e-6, 1e6].
        grid_points: R, 2 to 65536.
        first_element: index of element 0 within the release; lets a release be drawn in slices.
        attempt: number of the try, 0 to 2**32 - 1.
        work: "lazy" computes only what a draw needs (rejection sampling: few scores, whatever R); "fixed" does the
            same work for every element, so that time does not depend on the members: all scores, and one uniform that
            chooses among them. Their draws differ; :func:`kde_em_accuracy` bounds both.

    Returns:
        value: float32 [N], grid values exactly as :func:`kde_grid` gives them.
        index: int32 [N], the grid index of each.

    Raises:
        InvalidArgumentError: a shape, dtype, device or value is wrong (the message says which).
        NonFiniteValueError: a member holds NaN or infinity (member and element are named).
    """
    members = _members(theta)
    refuse_capture("kde_em", members)
    lo, hi, bandwidth = (_per_element(value, members, name) for value, name in _named(lo, hi, bandwidth))
    if not isinstance(key, Key):
        raise InvalidArgumentError(f"key is a privkernels.Key, not {type(key).__name__}")
    _check_numbers(grid_points, first_element, attempt)
    if work not in ("lazy", "fixed"):
        raise InvalidArgumentError(f"work must be 'lazy' or 'fixed', got {work!r}")
    value, index = torch.ops.privkernels.kde_em(
        members, lo, hi, bandwidth, key.derive(label).tensor(), float(window_ratio), int(grid_points),
        float(multiplier), int(first_element), int(attempt), work == "fixed",
    )  # fmt: skip
    return value, index


def kde_scores(
    theta: torch.Tensor | Sequence[torch.Tensor],
    *,
    lo: torch.Tensor | float,
    hi: torch.Tensor | float,
    bandwidth: torch.Tensor | float,
    window_ratio: float = 1.0,
    grid_points: int = 256,
) -> torch.Tensor:
    """The scores u_j(r_k) that :func:`kde_em` draws from, float32 [N, R]; arguments and errors as there.

    They are a function of the private members and are not protected by anything.
    """
    members = _members(theta)
    refuse_capture("kde_scores", members)
    lo, hi, bandwidth = (_per_element(value, members, name) for value, name in _named(lo, hi, bandwidth))
    _check_numbers(grid_points)
    scores: torch.Tensor = torch.ops.privkernels.kde_scores(
        members, lo, hi, bandwidth, float(window_ratio), int(grid_points)
    )
    return scores


@dataclass(frozen=True)
class KdeEmAccuracy:
    """What the implementation adds to the privacy of one draw (csrc/include/privkernels/kde_em.h).

    Attributes:
        score_error: e, the largest error of a score u.
        epsilon_shift: how much the epsilon (bounded range) of one draw grows by score and weight rounding.
        resolution_epsilon: how much it grows by cutting weights and probabilities to integers and by the finite
            uniforms, or infinity where that is no useful bound; then use ``resolution_tv`` instead.
        resolution_tv: total variation of one draw from the law of the computed weights, by the same cause.
    """

    score_error: float
    epsilon_shift: float
    resolution_epsilon: float
    resolution_tv: float


def kde_em_accuracy(num_members: int, *, multiplier: float, window_ratio: float, grid_points: int) -> KdeEmAccuracy:
    """Bounds on what rounding and finite randomness cost one draw, lazy or with fixed work; public inputs only.

    Derived in docs/accounting.md, Statements 17 and 18.
    """
    peak = kde_peak(window_ratio)
    units = (24 if window_ratio <= 1 else 48 + window_ratio) + num_members / 8
    if window_ratio <= 2 and num_members <= 8192 and grid_points > _FEWEST_INTERVALS:  # else nodes serve no element
        units = max(units, _node_units(num_members, window_ratio, grid_points))
    error = peak * units * _UNIT
    swing = multiplier * peak
    shift = 4 * multiplier * error + 4 * (4 * swing + 12) * _UNIT
    bits = 62 - math.ceil(math.log2(grid_points))
    tv = grid_points * (2.0**-bits + 2.0**-64)
    # Every weight is at least exp(-swing) of the largest, so cutting it off costs at most this share.
    cut = math.exp(min(swing + shift, 700)) * 2.0**-bits
    uniform = math.exp(min(swing + shift, 700)) * grid_points * 2.0**-64 / max(1 - cut, 1e-300)
    parts = [cut, uniform]
    if window_ratio <= 2 and num_members <= 8192 and grid_points >= 8:  # else no element is drawn by the envelope
        nodes = min(_MOST_NODES, grid_points + 1)
        step = 2.0 ** (max(2, grid_points.bit_length() - 4) - 64)  # of the bits that choose a node, or accept
        tv += 2 * _TRIALS * (nodes + 1) * step
        # A node's weight is at least 2^-22 of the largest, and at least exp(-1.1 swing) of it; the reciprocal of an
        # accepted share is at most exp(gap), plus what rounding a node's weight up to an integer adds.
        node = 2 * nodes * step * math.exp(min(22 * math.log(2), 1.1 * swing))
        gap = _envelope_gap(window_ratio, swing)
        accepted = 2 * step * (math.exp(min(gap, 700)) + math.exp(min(1.1 * swing + shift, 700)) * 2.0**-22)
        parts += [node, accepted]
    resolution = -4 * sum(math.log1p(-part) for part in parts) if max(parts) < 1e-3 else math.inf
    return KdeEmAccuracy(error, shift, resolution, tv)


def _node_units(num_members: int, window_ratio: float, grid_points: int) -> float:
    """The error of a score from sums at nodes, in units of w_max 2^-24: docs/accounting.md, Statement 18."""
    halvings = max(0, ((grid_points - 1) // (_FEWEST_INTERVALS - 1)).bit_length() - 2)
    return 39.9 + 1.7 * window_ratio + math.ceil(num_members / 32) + 4.6 * max(0, halvings - 1)


def _envelope_gap(window_ratio: float, swing: float) -> float:
    """The most that the envelope's logarithm lies above a weight's: docs/accounting.md, Statement 17 (3)."""
    closer = min(1.0, math.sqrt(26 / max(swing, 26)))
    half = window_ratio / 2
    width = 2 * half * math.exp(-half * half / 2) / math.sqrt(2 * math.pi) / kde_peak(window_ratio)  # 1 / s^2 < 1
    curve = (1 - width) * math.exp(width * math.log(width) / (1 - width)) if width < 1 - 1e-9 else 1e-9
    return swing * (0.3143 * closer + 0.0347 * closer**2 + curve + 0.006) + 1e-4


def kde_peak(window_ratio: float) -> float:
    """w_max = 2 Phi(window_ratio / 2) - 1, the largest value that one member adds to M * u."""
    return math.erf(window_ratio / 2 / math.sqrt(2))


def kde_grid(lo: torch.Tensor | float, hi: torch.Tensor | float, grid_points: int) -> torch.Tensor:
    """The grid in float32, exactly as the kernel computes it: [R] for numbers, [N, R] for [N]."""
    lo32 = torch.as_tensor(lo, dtype=torch.float32)
    hi32 = torch.as_tensor(hi, dtype=torch.float32)
    step = ((hi32 - lo32) / float(grid_points - 1)).unsqueeze(-1)
    points = torch.arange(grid_points, dtype=torch.float32, device=lo32.device)
    return torch.minimum(lo32.unsqueeze(-1) + step * points, hi32.unsqueeze(-1))


def kde_scores_reference(
    theta: torch.Tensor, grid: torch.Tensor, bandwidth: torch.Tensor | float, window_ratio: float
) -> torch.Tensor:
    """Eq. 3 in float64 and plain torch, the tests' oracle: theta [M, N], grid [N, R] or [R] -> [N, R]."""
    theta64 = theta.double()
    grid64 = grid.double().expand(theta.shape[1], grid.shape[-1])
    width = torch.as_tensor(bandwidth, dtype=torch.float32).double().reshape(-1, 1).expand(theta.shape[1], 1)
    total = torch.zeros_like(grid64)
    for row in theta64:
        # Upper tails of both edges on the same side of the mean, so that nothing cancels. erfc gives
        # ndtr's accuracy in a tenth of its time.
        t = ((grid64 - row.unsqueeze(1)) / width).abs()
        half = window_ratio / 2
        total += (torch.erfc((t - half) * _ROOT_HALF) - torch.erfc((t + half) * _ROOT_HALF)) / 2
    return total / theta.shape[0]


def kde_em_probabilities_reference(scores: torch.Tensor, multiplier: float) -> torch.Tensor:
    """The exponential mechanism's probabilities in float64: softmax(multiplier * u) over the last axis."""
    return torch.softmax(multiplier * scores.double(), dim=-1)


def _named(lo: object, hi: object, bandwidth: object) -> list[tuple[object, str]]:
    return [(lo, "lo"), (hi, "hi"), (bandwidth, "bandwidth")]


def _members(theta: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if isinstance(theta, torch.Tensor):
        if theta.dim() != 2:
            raise InvalidArgumentError(f"theta must be [M, N], not of shape {tuple(theta.shape)}")
        return list(theta.detach().unbind(0))
    rows = list(theta)
    for i, row in enumerate(rows):
        if not isinstance(row, torch.Tensor):
            raise InvalidArgumentError(f"member {i} must be a float32 tensor, not {type(row).__name__}")
    return [row.detach() for row in rows]


def _per_element(value: object, members: list[torch.Tensor], name: str) -> torch.Tensor:
    device = members[0].device if members else torch.device("cpu")
    if isinstance(value, torch.Tensor):
        return value.detach()
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgumentError(f"{name} must be a finite number or a float32 tensor, not {value!r}")
    return torch.tensor(value, dtype=torch.float32, device=device)


@dataclass
class _Inputs:
    """Validated arguments in the form that the compiled modules take."""

    format: int
    size: int
    device: torch.device
    pointers: list[int]
    strides: list[int]
    scalars: list[int]  # address and stride of lo, hi, bandwidth


def _check(members: list[torch.Tensor], lo: torch.Tensor, hi: torch.Tensor, bandwidth: torch.Tensor) -> int:
    """Check number, device, dtype and shape; returns N. Also runs on fake tensors, which have no memory."""
    if len(members) < 2:
        raise InvalidArgumentError(f"kde_em needs at least 2 members, got {len(members)}")
    size, device = members[0].numel(), members[0].device
    dtype = members[0].dtype if members[0].dtype in _DTYPES else torch.float32
    for i, row in enumerate(members):
        if row.dim() != 1 or row.numel() != size or row.dtype != dtype or row.device != device:
            raise InvalidArgumentError(
                f"member {i} must be {str(dtype)[6:]} [{size}] on {device}, "
                f"got {row.dtype} {list(row.shape)} on {row.device}"
            )
    for name, value in (("lo", lo), ("hi", hi), ("bandwidth", bandwidth)):
        fits = value.numel() == 1 or (value.dim() == 1 and value.numel() == size)
        if value.dtype != torch.float32 or value.device != device or not fits:
            raise InvalidArgumentError(
                f"{name} must be one float32 or float32 [{size}] on {device}, "
                f"got {value.dtype} {list(value.shape)} on {value.device}"
            )
    return size


def _inputs(members: list[torch.Tensor], lo: torch.Tensor, hi: torch.Tensor, bandwidth: torch.Tensor) -> _Inputs:
    size = _check(members, lo, hi, bandwidth)
    scalars: list[int] = []
    for value in (lo, hi, bandwidth):
        scalars += [value.data_ptr(), 0 if value.numel() == 1 else value.stride(0)]
    pointers, strides = [row.data_ptr() for row in members], [row.stride(0) for row in members]
    return _Inputs(FORMATS[members[0].dtype], size, members[0].device, pointers, strides, scalars)


def _check_numbers(grid_points: int, first_element: int = 0, attempt: int = 0) -> None:
    # Before the operator is called, because its schema refuses what does not fit 64 bits with a bare
    # RuntimeError, and before the outputs are allocated.
    if not 2 <= grid_points <= 65536:
        raise InvalidArgumentError(f"grid_points must be in [2, 65536], got {grid_points}")
    if not 0 <= first_element < 2**63 or not 0 <= attempt < 2**32:
        raise InvalidArgumentError(
            f"first_element must be in [0, 2**63) and attempt in [0, 2**32), got {first_element} and {attempt}"
        )


def _run_cpu(inputs: _Inputs, settings: tuple[object, ...], outputs: tuple[int, int, int]) -> None:
    status = _native.cpu().kde_em(
        inputs.pointers,
        inputs.strides,
        inputs.size,
        *inputs.scalars,
        *settings,
        *outputs,
        torch.get_num_threads(),
    )
    _native.raise_for_status(status, "kde_em")


def _run_cuda(inputs: _Inputs, settings: tuple[object, ...], outputs: tuple[int, int, int]) -> None:
    module = _native.cuda()
    device, size, count = inputs.device, inputs.size, len(inputs.pointers)
    index = device.index if device.index is not None else torch.cuda.current_device()
    rows = torch.tensor([inputs.pointers, inputs.strides], dtype=torch.int64).to(device)
    room = module.kde_em_workspace(count, size, settings[1], settings[-1], index)
    workspace = torch.empty(max(room, 1), dtype=torch.float32, device=device)
    failure = torch.full((1,), -1, dtype=torch.int64, device=device)
    status = module.kde_em(
        rows[0].data_ptr(), rows[1].data_ptr(), count, size, *inputs.scalars, *settings, *outputs,
        workspace.data_ptr(), failure.data_ptr(), index, torch.cuda.current_stream(device).cuda_stream,
    )  # fmt: skip
    _native.raise_for_status(status, "kde_em")
    failed = int(failure.item())
    if failed >= 0 and failed % 2:
        raise NonFiniteValueError(
            f"kde_em: a member holds NaN or infinity in element {failed // 2}; every value must be finite"
        )
    if failed >= 0:
        _native.raise_for_status((3, -1, failed // 2, ""), "kde_em")


def _kde_em(
    members: list[torch.Tensor], lo: torch.Tensor, hi: torch.Tensor, bandwidth: torch.Tensor,
    key: torch.Tensor, window_ratio: float, grid_points: int, multiplier: float, first_element: int,
    attempt: int, fixed_work: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    inputs = _inputs(members, lo, hi, bandwidth)
    _check_numbers(grid_points, first_element, attempt)
    value = torch.empty(inputs.size, dtype=torch.float32, device=inputs.device)
    index = torch.empty(inputs.size, dtype=torch.int32, device=inputs.device)
    settings = (
        window_ratio,
        grid_points,
        multiplier,
        key_bytes(key),
        first_element,
        attempt,
        inputs.format,
        fixed_work,
    )
    run = _run_cuda if inputs.device.type == "cuda" else _run_cpu
    run(inputs, settings, (value.data_ptr(), index.data_ptr(), 0))
    return value, index


def _kde_scores(
    members: list[torch.Tensor], lo: torch.Tensor, hi: torch.Tensor, bandwidth: torch.Tensor,
    window_ratio: float, grid_points: int,
) -> torch.Tensor:  # fmt: skip
    inputs = _inputs(members, lo, hi, bandwidth)
    _check_numbers(grid_points)
    scores = torch.empty((inputs.size, grid_points), dtype=torch.float32, device=inputs.device)
    run = _run_cuda if inputs.device.type == "cuda" else _run_cpu
    run(inputs, (window_ratio, grid_points, 0.0, bytes(32), 0, 0, inputs.format, False), (0, 0, scores.data_ptr()))
    return scores


def _fake_kde_em(
    members: list[torch.Tensor], lo: torch.Tensor, hi: torch.Tensor, bandwidth: torch.Tensor,
    key: torch.Tensor, window_ratio: float, grid_points: int, multiplier: float, first_element: int,
    attempt: int, fixed_work: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    size = _check(members, lo, hi, bandwidth)
    return members[0].new_empty(size, dtype=torch.float32), members[0].new_empty(size, dtype=torch.int32)


def _fake_kde_scores(
    members: list[torch.Tensor], lo: torch.Tensor, hi: torch.Tensor, bandwidth: torch.Tensor,
    window_ratio: float, grid_points: int,
) -> torch.Tensor:  # fmt: skip
    return members[0].new_empty((_check(members, lo, hi, bandwidth), grid_points), dtype=torch.float32)


implement("kde_em", _kde_em, _fake_kde_em)
implement("kde_scores", _kde_scores, _fake_kde_scores)
