"""randomized_response: its law in exact rationals, its draws to the bit, its frequencies, its errors."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.ops import randomized_response, randomized_response_law
from privkernels.randomness import Key
from tests.support import chacha20
from tests.support.instruction_sets import assert_same_bits
from tests.support.least_times import assert_alike

OPERATOR = torch.ops.privkernels.randomized_response.default
KEY = Key.from_seed(65)
PURPOSE = 5
ERROR_RATE = 1e-6
LAWS = [(k, e) for k in (2, 3, 4, 5, 6, 7, 10, 17) for e in (1e-6, 0.1, 1.0, math.log(3), 5.0, 30.0)]


def values_of(size: int, categories: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, categories, (size,), generator=torch.Generator().manual_seed(seed))


def respond(values: torch.Tensor, categories: int, epsilon: float, **rest: Any) -> torch.Tensor:
    return randomized_response(values, categories=categories, epsilon=epsilon, **({"key": KEY, "label": "r"} | rest))


def matrix(categories: int, epsilon: float) -> list[list[Fraction]]:
    """The law, [value][output], counted from the definition of the implemented mechanism in the header."""
    law = randomized_response_law(categories, epsilon)
    others = categories - 1
    ends = [-(-(j * 2**64) // others) for j in range(categories)]  # words with floor(d others / 2^64) < j
    result = []
    for value in range(categories):
        row = [Fraction(0)] * categories
        row[value] = Fraction(law.threshold, 2**64)
        for j in range(others):
            share = Fraction(ends[j + 1] - ends[j], 2**64)
            row[j + (j >= value)] += Fraction(2**64 - law.threshold, 2**64) * share
        result.append(row)
    return result


@pytest.mark.parametrize(("categories", "epsilon"), LAWS)
def test_the_exact_law_is_within_epsilon_and_uses_it(categories: int, epsilon: float) -> None:
    rows = matrix(categories, epsilon)
    assert all(sum(row) == 1 for row in rows)
    worst = max(
        rows[v][y] / rows[w][y] for v, w in itertools.permutations(range(categories), 2) for y in range(categories)
    )
    law = randomized_response_law(categories, epsilon)
    with mpmath.workdps(60):
        implemented = mpmath.log(mpmath.mpf(worst.numerator) / worst.denominator)
        assert implemented <= mpmath.mpf(epsilon)
        assert implemented <= mpmath.mpf(law.epsilon) <= mpmath.mpf(epsilon)
        assert mpmath.mpf(law.epsilon) - implemented <= mpmath.mpf(math.ulp(law.epsilon))
        # One more in the threshold would be too much, so nothing is given away.
        p = Fraction(law.threshold + 1, 2**64)
        q = Fraction(2**64 // (categories - 1), 2**64)
        if law.threshold < 2**64 - 1:
            assert mpmath.log(mpmath.mpf((p / ((1 - p) * q)).numerator) / (p / ((1 - p) * q)).denominator) > epsilon
    for v, y in itertools.product(range(categories), repeat=2):
        assert law.probability(v, y) == rows[v][y]
    ideal = math.exp(epsilon) / (math.exp(epsilon) + categories - 1)
    assert float(law.keep) == pytest.approx(ideal, rel=1e-12)
    assert min(min(row) for row in rows) == min(law.smallest_other, law.keep)
    assert law.smallest_other <= law.largest_other


def test_laws_of_many_categories() -> None:
    for categories, epsilon in itertools.product((1000, 2**31 - 1, 2**31), (1e-6, 1.0, 30.0, 800.0)):
        law = randomized_response_law(categories, epsilon)
        assert 0 < law.epsilon <= epsilon
        if epsilon <= 30:
            assert law.epsilon == pytest.approx(epsilon, rel=1e-2 if epsilon < 1e-3 else 1e-9)
        total = law.keep + sum(law.probability(0, y) for y in range(1, min(categories, 1000)))
        assert total == 1 if categories == 1000 else total < 1


def test_an_epsilon_beyond_64_bits_is_cut_and_said() -> None:
    law = randomized_response_law(2, 1000.0)
    assert law.threshold == 2**64 - 1
    assert law.epsilon == pytest.approx(64 * math.log(2))


@given(st.integers(2, 40), st.floats(1e-3, 100.0), st.integers(0, 2**62), st.integers(0, 300))
@settings(max_examples=40)
def test_results_are_those_of_plain_integers(categories: int, epsilon: float, first: int, size: int) -> None:
    values = values_of(size, categories)
    got = respond(values, categories, epsilon, first_element=first)
    threshold = randomized_response_law(categories, epsilon).threshold
    secret = KEY.derive("r").secret

    def word(element: int, attempt: int) -> int:
        block = chacha20.block(secret, struct.pack("<QII", element // 8, attempt, PURPOSE))
        return struct.unpack("<8Q", block)[element % 8]

    expected = []
    for i, value in enumerate(values.tolist()):
        j = word(first + i, 1) * (categories - 1) >> 64
        expected.append(value if word(first + i, 0) < threshold else j + (j >= value))
    assert got.tolist() == expected


def p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    return float(stats.chisquare(counts, probabilities * counts.sum()).pvalue)


@pytest.mark.parametrize(("categories", "epsilon"), [(2, 1.0), (3, 0.5), (10, 2.0), (33, 4.0)])
def test_frequencies(categories: int, epsilon: float) -> None:
    """All pairs of value and output; 2 % more or less epsilon is rejected."""
    size = 2_000_000
    values = values_of(size, categories)
    out = respond(values, categories, epsilon)
    pairs = np.bincount((values * categories + out).numpy(), minlength=categories**2)
    given_values = np.bincount(values.numpy(), minlength=categories) / size

    def expected(e: float) -> np.ndarray:
        law = np.array([[float(p) for p in row] for row in matrix(categories, e)])
        return (given_values[:, None] * law).reshape(-1)

    assert p_value(pairs, expected(epsilon)) > ERROR_RATE
    for wrong in (epsilon * 1.02, epsilon * 0.98):
        assert p_value(pairs, expected(wrong)) < ERROR_RATE


def test_any_layout_slice_and_number_of_threads(set_threads: Callable[[int], None]) -> None:
    values = values_of(60_000, 5).reshape(200, 300)
    set_threads(1)
    expected = respond(values, 5, 1.0, first_element=3)
    assert expected.shape == values.shape
    assert expected.is_contiguous()
    wide = torch.zeros(200, 600, dtype=torch.int64)
    wide[:, ::2] = values
    for layout in (values.t().contiguous().t(), wide[:, ::2], values.flip(0).flip(0)):
        assert torch.equal(respond(layout, 5, 1.0, first_element=3), expected)
    for threads in (2, 3, 64):
        set_threads(threads)
        assert torch.equal(respond(values, 5, 1.0, first_element=3), expected)
    flat, edges = values.reshape(-1), [0, 1, 9, 40_000, 60_000]
    parts = [respond(flat[a:b], 5, 1.0, first_element=3 + a) for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), expected.reshape(-1))
    assert torch.equal(respond(values[0, 0], 5, 1.0, first_element=3), expected[0, 0])
    ones = torch.ones((), dtype=torch.int64)
    assert torch.equal(respond(ones.expand(50), 5, 1.0), respond(torch.ones(50, dtype=torch.int64), 5, 1.0))
    assert respond(torch.zeros(0, 3, dtype=torch.int64), 5, 1.0).shape == (0, 3)
    assert torch.equal(values, values_of(60_000, 5).reshape(200, 300))


def test_other_keys_and_labels_draw_otherwise() -> None:
    values = torch.zeros(10_000, dtype=torch.int64)
    base = respond(values, 1000, 0.1)
    for other in (respond(values, 1000, 0.1, label="s"), respond(values, 1000, 0.1, key=Key.from_seed(1))):
        assert (base == other).float().mean() < 0.02


PROGRAM = """
from privkernels.ops import randomized_response
digest = hashlib.sha256()
for size, categories in [(1, 2), (1000, 7), (30_011, 2**31)]:
    values = torch.randint(0, categories, (size,), generator=torch.Generator().manual_seed(size))
    for first in (0, 5, 2**35 - 9):
        out = randomized_response(
            values, categories=categories, epsilon=1.0, key=Key.from_seed(1), label="isa", first_element=first
        )
        digest.update(out.numpy().tobytes())
digests["all"] = digest.hexdigest()
"""


def test_every_instruction_set_gives_the_same_results() -> None:
    assert_same_bits(PROGRAM, different=1)


@pytest.mark.parametrize("bad", [-1, 5, 2**40, -(2**63)])
def test_a_value_out_of_range_is_named(bad: int, set_threads: Callable[[int], None]) -> None:
    values = torch.zeros(50_000, dtype=torch.int64)
    values[40_001], values[49_000] = bad, bad
    for threads in (1, 3):
        set_threads(threads)
        with pytest.raises(InvalidArgumentError, match=f"element 40001 is {bad}, but"):
            respond(values, 5, 1.0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, "1", None, True])
def test_epsilon(epsilon: Any) -> None:
    for call in (lambda: respond(values_of(3, 2), 2, epsilon), lambda: randomized_response_law(2, epsilon)):
        with pytest.raises(InvalidBudgetError, match="positive and finite"):
            call()


def test_an_epsilon_too_small_for_64_bits_is_refused() -> None:
    assert 0 < randomized_response_law(2, 1e-15).epsilon <= 1e-15
    half = randomized_response_law(2, 1e-25)  # a fair coin, which depends on nothing
    assert (half.keep, half.epsilon) == (Fraction(1, 2), 0.0)
    for categories, epsilon in ((3, 1e-25), (4, 1e-20), (2**31, 1e-12)):
        with pytest.raises(InvalidBudgetError, match="too small for"):
            randomized_response_law(categories, epsilon)


@pytest.mark.parametrize("categories", [1, 0, -3, 2**31 + 1, 2.0, True])
def test_categories(categories: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="categories must be"):
        respond(values_of(3, 2), categories, 1.0)


@pytest.mark.parametrize(
    ("values", "rest", "message"),
    [
        (torch.zeros(3), {}, "values must be int64"),
        (torch.zeros(3, dtype=torch.int32), {}, "values must be int64"),
        ([0, 1], {}, "values must be an int64 tensor"),
        (torch.zeros(3, dtype=torch.int64), {"first_element": -1}, "first_element must be"),
        (torch.zeros(3, dtype=torch.int64), {"first_element": 2**63 - 2}, "must be below 2\\*\\*63"),
        (torch.zeros(3, dtype=torch.int64), {"key": b"0" * 32}, "key is a privkernels.Key"),
    ],
)
def test_other_arguments(values: Any, rest: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        respond(values, 2, 1.0, **rest)


def test_probability_refuses_what_is_out_of_range() -> None:
    law = randomized_response_law(3, 1.0)
    for value, output in ((3, 0), (0, 3), (-1, 0)):
        with pytest.raises(InvalidArgumentError, match=r"must be in \[0, 3\)"):
            law.probability(value, output)


@pytest.mark.parametrize("shape", [(37,), (3, 4, 5), (0,), ()])
def test_opcheck(shape: tuple[int, ...]) -> None:
    values = torch.randint(0, 6, shape, generator=torch.Generator().manual_seed(0))
    torch.library.opcheck(OPERATOR, (values, KEY.derive("r").tensor(), 6, 1.0, 3))
    out = OPERATOR(values, KEY.derive("r").tensor(), 6, 1.0, 3)
    assert torch.equal(respond(values, 6, 1.0, first_element=3), out)
    mode = FakeTensorMode()
    with mode:
        fake = OPERATOR(mode.from_tensor(values), mode.from_tensor(KEY.tensor()), 6, 1.0, 3)
    assert (fake.shape, fake.dtype) == (out.shape, out.dtype)


def test_fake_of_strided_values_is_contiguous_as_the_result_is() -> None:
    values = torch.randint(0, 6, (4, 10), generator=torch.Generator().manual_seed(0)).t()
    torch.library.opcheck(OPERATOR, (values, KEY.tensor(), 6, 1.0, 0))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    def function(values: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return torch.ops.privkernels.randomized_response(values % 6, key, 6, 1.0, 0) + 1

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in (12, 30):
        values = torch.arange(size)
        assert torch.equal(compiled(values, KEY.tensor()), function(values, KEY.tensor()))


def test_time_does_not_depend_on_the_values() -> None:
    size, categories = 200_000, 1000
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "all the first": torch.zeros(size, dtype=torch.int64),
        "all the last": torch.full((size,), categories - 1),
        "random": torch.randint(0, categories, (size,), generator=generator),
        "sorted": torch.arange(size) * categories // size,
    }
    respond = {"categories": categories, "epsilon": 1.0, "key": Key.from_seed(1), "label": "t"}
    calls = {name: partial(randomized_response, values, **respond) for name, values in inputs.items()}
    assert_alike(calls, rounds=25, limit=1.5)
