"""Bad input to kde_em and kde_scores raises a named error that says what was wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import kde_em, kde_grid, kde_scores
from privkernels.randomness import Key

N = 2500
GOOD: dict[str, Any] = {"lo": -1.0, "hi": 1.0, "bandwidth": 0.1}
DRAW: dict[str, Any] = {"multiplier": 10.0, "key": Key.from_seed(0), "label": "x"}


def members(num_members: int = 5, size: int = N) -> torch.Tensor:
    return torch.zeros(num_members, size)


def vector(value: float, at: int, bad: float) -> torch.Tensor:
    result = torch.full((N,), value)
    result[at] = bad
    return result


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("member", "element"), [(0, 0), (4, 1023), (2, 1024), (3, N - 1)])
def test_non_finite_members_are_named(bad: float, member: int, element: int) -> None:
    theta = members()
    theta[member, element] = bad
    for call in (lambda: kde_em(theta, **GOOD, **DRAW), lambda: kde_scores(theta, **GOOD, grid_points=3)):
        with pytest.raises(NonFiniteValueError, match=rf"member {member} .* element {element};"):
            call()


def test_the_first_bad_element_is_named_whatever_the_threads(set_threads: Any) -> None:
    theta = members()
    theta[4, 700], theta[1, 2100], theta[0, 2200], theta[3, 700] = math.nan, math.nan, math.inf, -math.inf
    for threads in (1, 2, 7):
        set_threads(threads)
        for _ in range(5):
            with pytest.raises(NonFiniteValueError, match=r"member 3 .* element 700;"):
                kde_em(theta, **GOOD, **DRAW)
            with pytest.raises(InvalidArgumentError, match="of element 650 "):
                kde_em(theta, **GOOD | {"bandwidth": vector(0.1, 650, 0.0)}, **DRAW)
            with pytest.raises(NonFiniteValueError, match="element 700;"):
                kde_em(theta, **GOOD | {"bandwidth": vector(0.1, 703, 0.0)}, **DRAW)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("bandwidth", 0.0), ("bandwidth", -0.1), ("bandwidth", 1e-39), ("bandwidth", 2e30),
        ("bandwidth", math.nan), ("bandwidth", math.inf), ("lo", 1.5), ("lo", math.nan), ("lo", -math.inf),
        ("lo", -3.4e38), ("hi", -1.5), ("hi", math.nan), ("hi", math.inf), ("hi", 3.4e38),
    ],
)  # fmt: skip
def test_unusable_parameters_of_an_element(name: str, bad: float) -> None:
    other = {"lo": ("hi", 3.4e38), "hi": ("lo", -3.4e38)}.get(name) if abs(bad) == 3.4e38 else None
    for element in (0, 1500, N - 1):
        changed = {name: vector(GOOD[name], element, bad)}
        if other is not None:  # a range that is not finite though its ends are
            changed[other[0]] = torch.full((N,), other[1] / 2)
            changed[other[0]][element] = other[1]
        with pytest.raises(InvalidArgumentError, match=f"lo, hi and bandwidth of element {element} "):
            kde_em(members(), **GOOD | changed, **DRAW)


@pytest.mark.parametrize("name", ["lo", "hi", "bandwidth"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.1", None, np.ones(3)])
def test_parameters_that_are_no_finite_number(name: str, bad: object) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name} must be a finite number or a float32 tensor"):
        kde_em(members(), **GOOD | {name: bad}, **DRAW)


@pytest.mark.parametrize("number", [0.0, 1e-39, 2e30, -0.1])
def test_a_number_as_bandwidth_is_checked_too(number: float) -> None:
    with pytest.raises(InvalidArgumentError, match="element 0 "):
        kde_em(members(), **GOOD | {"bandwidth": number}, **DRAW)


@pytest.mark.parametrize("name", ["lo", "hi", "bandwidth"])
@pytest.mark.parametrize(
    "bad",
    [
        torch.ones(N - 1), torch.ones(2), torch.ones(N, 1), torch.ones(0),
        torch.ones(N, dtype=torch.float64), torch.ones((), dtype=torch.int32), torch.ones(N, device="meta"),
    ],
    ids=["shorter", "two", "matrix", "none", "float64", "int32", "meta"],
)  # fmt: skip
def test_parameter_tensors_of_a_wrong_shape_dtype_or_device(name: str, bad: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"{name} must be one float32 or float32 \[{N}\] on cpu, got"):
        torch.ops.privkernels.kde_scores(
            list(members().unbind(0)),
            *(bad if key == name else torch.tensor(GOOD[key]) for key in ("lo", "hi", "bandwidth")),
            1.0,
            4,
        )


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        (torch.zeros(1, 4), "at least 2 members, got 1"),
        (torch.zeros(0, 4), "at least 2 members, got 0"),
        ([], "at least 2 members, got 0"),
        (torch.zeros(4), r"theta must be \[M, N\], not of shape \(4,\)"),
        (torch.zeros(2, 2, 2), r"theta must be \[M, N\]"),
        (torch.zeros(2, 4, dtype=torch.float64), r"member 0 must be float32 \[4\] on cpu, got torch.float64"),
        (torch.zeros(2, 4, dtype=torch.int16), "member 0 must be float32"),
        (
            [torch.zeros(4, dtype=torch.bfloat16), torch.zeros(4)],
            r"member 1 must be bfloat16 \[4\] on cpu, got",
        ),
        ([torch.zeros(4), torch.zeros(5)], r"member 1 must be float32 \[4\] on cpu, got torch.float32 \[5\]"),
        ([torch.zeros(4), torch.zeros(4, dtype=torch.int32)], "member 1 must be float32"),
        ([torch.zeros(4), torch.zeros(2, 2)], "member 1 must be float32"),
        ([torch.zeros(4), np.zeros(4, dtype=np.float32)], "member 1 must be a float32 tensor, not ndarray"),
    ],
)
def test_members_of_a_wrong_number_shape_or_dtype(theta: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        kde_em(theta, **GOOD, **DRAW)
    with pytest.raises(InvalidArgumentError, match=message):
        kde_scores(theta, **GOOD)


def test_members_on_another_device() -> None:
    theta = [torch.zeros(4), torch.zeros(4, device="meta")]
    with pytest.raises(InvalidArgumentError, match=r"member 1 must be float32 \[4\] on cpu, got .* on meta"):
        torch.ops.privkernels.kde_scores(theta, *(torch.tensor(GOOD[k]) for k in GOOD), 1.0, 4)


@pytest.mark.parametrize("grid_points", [1, 0, -1, 65537, 2**40, 2**70])
def test_grid_points_out_of_range(grid_points: int) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"grid_points must be in \[2, 65536\], got {grid_points}"):
        kde_em(members(), **GOOD, **DRAW, grid_points=grid_points)
    with pytest.raises(InvalidArgumentError, match="grid_points"):
        kde_scores(members(), **GOOD, grid_points=grid_points)
    if abs(grid_points) < 2**63:
        with pytest.raises(InvalidArgumentError, match="grid_points"):
            torch.ops.privkernels.kde_scores(
                list(members().unbind(0)), *(torch.tensor(GOOD[k]) for k in GOOD), 1.0, grid_points
            )


@pytest.mark.parametrize("multiplier", [-1e-9, math.nan, math.inf, -math.inf, 1e31])
def test_multiplier_out_of_range(multiplier: float) -> None:
    with pytest.raises(InvalidArgumentError, match="multiplier in"):
        kde_em(members(), **GOOD, **DRAW | {"multiplier": multiplier})


@pytest.mark.parametrize("window_ratio", [0.0, -1.0, 9e-7, 1.1e6, math.nan, math.inf])
def test_window_out_of_range(window_ratio: float) -> None:
    with pytest.raises(InvalidArgumentError, match="window_ratio in"):
        kde_em(members(), **GOOD, **DRAW, window_ratio=window_ratio)


@pytest.mark.parametrize(
    "address", [{"first_element": -1}, {"first_element": 2**63}, {"attempt": -1}, {"attempt": 2**32}]
)
def test_addresses_out_of_range(address: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError, match="first_element must be in"):
        kde_em(members(), **GOOD, **DRAW, **address)


@pytest.mark.parametrize("key", [b"0" * 32, None, 7])
def test_a_key_is_a_key(key: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"key is a privkernels.Key, not"):
        kde_em(members(), **GOOD, **DRAW | {"key": key})


@pytest.mark.parametrize(
    "key", [torch.zeros(31, dtype=torch.uint8), torch.zeros(32), torch.zeros(2, 16, dtype=torch.uint8)]
)
def test_the_operators_key_is_32_bytes(key: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match=r"a key is uint8 \[32\], got"):
        torch.ops.privkernels.kde_em(
            list(members().unbind(0)), *(torch.tensor(GOOD[k]) for k in GOOD), key, 1.0, 4, 1.0, 0, 0
        )


def test_no_elements_is_not_an_error() -> None:
    value, index = kde_em(members(3, 0), **GOOD, **DRAW)
    assert value.shape == index.shape == (0,)
    assert (value.dtype, index.dtype) == (torch.float32, torch.int32)
    assert kde_scores(members(3, 0), **GOOD, grid_points=7).shape == (0, 7)
    assert kde_grid(torch.zeros(0), torch.zeros(0), 4).shape == (0, 4)


@pytest.mark.parametrize("work", ["", "Lazy", "constant", None])
def test_unknown_work(work: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="work must be 'lazy' or 'fixed'"):
        kde_em(members(), **GOOD, **DRAW, work=work)
