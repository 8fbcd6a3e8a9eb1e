"""The exact law of integer noise: alias tables for the discrete Laplace and the discrete Gaussian distribution.

A draw K is put together from one outcome of each of a few tables. A table holds 2^r outcomes with integer counts
that sum to a power of two, so the law of K is a list of rational numbers that can be written down, and how far it
lies from the ideal law is computed here, with integers alone, and not argued about. The same integers come out on
every machine.

Discrete Laplace, P(k) proportional to exp(-|k|/s), q = exp(-1/s). With G geometric, P(G = g) = (1 - q) q^g,

    K = G with probability 1/(1 + q),  K = -1 - G with probability q/(1 + q)

has P(K = k) = (1 - q) q^k / (1 + q) for k >= 0 and (1 - q) q^(-1-k) q / (1 + q) for k < 0: the law wanted. In
G = d_0 + B_0 d_1 + B_0 B_1 d_2 + ... the weight q^G is a product over the digits, so these are independent: d_j is
geometric with ratio q^(B_0...B_(j-1)), truncated to [0, B_j), and the top digit is not truncated. The top table draws
digit and sign together.

Discrete Gaussian, P(k) proportional to rho_s(k) = exp(-k^2 / (2 s^2)) (Canonne, Kamath, Steinke 2020, Definition 1).
Narrow ones are one table of magnitudes and a sign bit. A wide one is K = K_1 + m K_2 with K_1, K_2 discrete Gaussian
of parameters s_1, s_2 and s_1^2 + m^2 s_2^2 = s^2 exactly (the idea of Micciancio and Walter 2017, section 4; the
bound below is derived here). Completing the square with t = m s_2 and s_3 = s_1 t / s,

    P(K = x) = c sum_j rho_(s_1)(x - m j) rho_t(m j) = c rho_s(x) sum_j rho_(s_3)(m j - x t^2 / s^2).

By Poisson summation the sum over j is A (1 + theta(x)), A not depending on x and |theta(x)| <= eta,

    eta = 2 sum_(n >= 1) exp(-2 pi^2 n^2 a),    a = (s_3 / m)^2 = s_1^2 s_2^2 / s^2.

So P(K = x) / ideal(x) = (1 + theta(x)) / (a mean of 1 + theta), and its logarithm is within 2 atanh(eta) of 0. With
a >= 2.143 every level adds less than 2^-59; K_2 may be such a sum itself, because a ratio of laws that lies within
exp(+-e) does so after convolution. The difference from Micciancio and Walter: variances add up exactly, as rational
numbers, and the parameters are the plain ones (their s is sqrt(2 pi) times this one).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

from privkernels.errors import InvalidArgumentError

Distribution = Literal["laplace", "gaussian"]

SMALLEST_STEPS, LARGEST_STEPS = 2.0**-3, 2.0**40
MAX_INDEX_BITS = 14  # tables of at most 16384 entries, 128 KiB: a look-up there costs less than another random word
_TAIL = 46  # exp(-46) < 2^-66: what lies beyond a table's end is below the resolution of its counts
_SMOOTH = Fraction(2143, 1000)  # the least a above: 2 exp(-2 pi^2 a) < 2^-60
_LOG_RATIO_OF_A_LEVEL = 2.0**-59
_FRACTION = 192  # fractional bits of the fixed-point numbers below; each is within 2^-150 of what it stands for
_ONE = 1 << _FRACTION
_FIXED_POINT_ERROR = Fraction(1, 1 << 150)


@dataclass(frozen=True)
class NoiseTable:
    """One alias table of ``2**index_bits`` outcomes v; a draw adds ``multiplier`` times its value to K.

    A 64-bit word is read from its low end: ``index_bits`` bits of index i, ``sign_bits`` bits of sign, and the rest as
    coin c. The outcome is i if c < threshold_i, else alias_i. ``entries[i]`` has threshold_i in the place of the coin
    and alias_i in that of the index.

    Attributes:
        index_bits: r, 1 to 14.
        sign_bits: 1 when the word has a sign bit of its own (Gaussian), else 0.
        multiplier: what one unit of this table is worth in grid steps.
        entries: ``2**index_bits`` integers below 2**64.
    """

    index_bits: int
    sign_bits: int
    multiplier: int
    entries: tuple[int, ...] = field(repr=False)

    @property
    def coin_bits(self) -> int:
        return 64 - self.index_bits - self.sign_bits

    def outcome(self, word: int) -> int:
        """The outcome that a 64-bit word picks, in [0, 2**index_bits)."""
        index = word % (1 << self.index_bits)
        shift = self.index_bits + self.sign_bits
        entry = self.entries[index]
        return index if word >> shift < entry >> shift else entry % (1 << self.index_bits)

    def counts(self) -> list[int]:
        """How many of the ``2**(index_bits + coin_bits)`` pairs of index and coin pick each outcome."""
        counts = [0] * len(self.entries)
        capacity, shift = 1 << self.coin_bits, self.index_bits + self.sign_bits
        for index, entry in enumerate(self.entries):
            threshold = entry >> shift
            counts[index] += threshold
            counts[entry % (1 << self.index_bits)] += capacity - threshold
        return counts


@dataclass(frozen=True)
class NoiseLaw:
    """The law that ``noise_add`` draws from, and how far it lies from the one it is named after.

    Attributes:
        distribution: "laplace", P(k) proportional to exp(-|k| / steps), or "gaussian", exp(-k^2 / (2 steps^2)).
        steps: s, the scale in grid steps.
        tables: lowest digit first; a draw takes one 64-bit word for each.
        total_variation: bound on the distance of one draw from the ideal law: rounding of the tables, tails, and
            ``log_ratio_error``. Computed from the tables and rounded up.
        log_ratio_error: bound on |log| of the ratio of probabilities that comes from summing discrete Gaussians
            (0 with one table, and for Laplace). It is part of ``total_variation`` already.
    """

    distribution: Distribution
    steps: float
    tables: tuple[NoiseTable, ...]
    total_variation: float
    log_ratio_error: float

    @property
    def words_per_element(self) -> int:
        """64-bit random words that one draw takes: the number of tables."""
        return len(self.tables)

    @property
    def largest(self) -> int:
        """No draw is larger in magnitude than this."""
        return sum(table.multiplier * (len(table.entries) - 1) for table in self.tables) + 1

    def draw(self, words: Sequence[int]) -> int:
        """K from one 64-bit word for each table: what the kernel computes, in Python integers."""
        total = 0
        for table, word in zip(self.tables, words, strict=True):
            value = table.outcome(word)
            if self.distribution == "gaussian":
                total += table.multiplier * (-value if word >> table.index_bits & 1 else value)
            elif table is self.tables[-1]:
                total += table.multiplier * (value >> 1)
                total = ~total if value & 1 else total
            else:
                total += table.multiplier * value
        return total

    def probabilities(self) -> dict[int, Fraction]:
        """The exact probability of every K that can be drawn. Takes time and memory in proportion to their number."""
        law = {0: 1}
        for table in self.tables:
            law = self._with(law, table)
        units = 1 << 64 * len(self.tables)
        return {k: Fraction(count, units) for k, count in sorted(law.items()) if count}

    def _with(self, law: dict[int, int], table: NoiseTable) -> dict[int, int]:
        """The counts after one more table, out of 2^64 times as many."""
        result: dict[int, int] = {}
        for value, count in enumerate(table.counts()):
            for before, times in law.items():
                for after in self._after(before, value, table):
                    result[after] = result.get(after, 0) + times * count
        return result

    def _after(self, before: int, value: int, table: NoiseTable) -> tuple[int, ...]:
        if self.distribution == "gaussian":
            return before + table.multiplier * value, before - table.multiplier * value
        if table is not self.tables[-1]:
            return (before + table.multiplier * value,)
        total = before + table.multiplier * (value >> 1)
        return (~total if value & 1 else total,)


def noise_law(distribution: Distribution, steps: float) -> NoiseLaw:
    """The law of discrete noise of scale ``steps`` in grid steps; cached.

    Args:
        distribution: "laplace" or "gaussian".
        steps: s in [2**-3, 2**40]: b or sigma over the granularity.

    Raises:
        InvalidArgumentError: another name, or a scale out of this range.
    """
    if distribution not in get_args(Distribution):
        raise InvalidArgumentError(f"distribution is 'laplace' or 'gaussian', got {distribution!r}")
    number = isinstance(steps, int | float) and not isinstance(steps, bool)
    if not number or not SMALLEST_STEPS <= steps <= LARGEST_STEPS:
        raise InvalidArgumentError(
            f"the scale must be 2**-3 to 2**40 grid steps, got {steps!r}: choose a granularity that fits the scale"
        )
    return _noise_law(distribution, float(steps), MAX_INDEX_BITS)


@functools.lru_cache(maxsize=64)
def _noise_law(distribution: Distribution, steps: float, max_index_bits: int) -> NoiseLaw:
    """As :func:`noise_law`; tests set ``max_index_bits`` (7 or more) to get many tables at small scales."""
    make = _laplace_tables if distribution == "laplace" else _gaussian_tables
    made = make(Fraction(steps), max_index_bits)
    log_ratio = _LOG_RATIO_OF_A_LEVEL * (len(made) - 1) if distribution == "gaussian" else 0.0
    # TV(P, Q) <= log_ratio where all probabilities agree within exp(+-log_ratio); TVs of independent parts add up.
    total = sum((distance for _, distance in made), Fraction(log_ratio))
    tables = tuple(table for table, _ in made)
    return NoiseLaw(distribution, steps, tables, _rounded_up(total), log_ratio)


def _laplace_tables(steps: Fraction, max_index_bits: int) -> list[tuple[NoiseTable, Fraction]]:
    bits = 1
    while 1 << (bits - 1) < _TAIL * steps:  # half the outcomes of the top table have the other sign
        bits += 1
    count = -(-bits // max_index_bits)
    each, more = divmod(bits, count)
    made, multiplier = [], 1
    for digit in range(count - 1):
        index_bits = each + (digit < more)
        weights = _powers(_exp_negative(multiplier / steps), 1 << index_bits)
        total = sum(weights)
        made.append(_table([(weight << _FRACTION) // total for weight in weights], index_bits, 0, multiplier))
        multiplier <<= index_bits
    index_bits = bits - (multiplier.bit_length() - 1)
    flip, ratio = _exp_negative(1 / steps), _exp_negative(multiplier / steps)
    ideal = []
    for power in _powers(ratio, 1 << (index_bits - 1)):
        positive = power * (_ONE - ratio) // (_ONE + flip)
        ideal += [positive, positive * flip >> _FRACTION]
    made.append(_table(ideal, index_bits, 0, multiplier))
    return made


def _gaussian_tables(steps: Fraction, max_index_bits: int) -> list[tuple[NoiseTable, Fraction]]:
    made, multiplier = [], 1
    for variance, factor in _split(steps * steps, max_index_bits):
        made.append(_gaussian_table(variance, multiplier))
        multiplier *= factor
    return made


def _split(variance: Fraction, max_index_bits: int) -> list[tuple[Fraction, int]]:
    """Variances of the tables and the factor m after each: as few tables as there can be, and then small ones."""
    widest = math.isqrt(((1 << max_index_bits) ** 2) // (2 * _TAIL))
    if variance <= widest**2:
        return [(variance, 1)]
    # m^2 <= own / _SMOOTH, so a level more takes a variance to own + own / _SMOOTH times as much at the most.
    levels, reach = 1, Fraction(widest**2)
    while reach < variance:
        levels, reach = levels + 1, widest**2 * (1 + reach / _SMOOTH)
    while True:
        for deviation in range(2, widest + 1):
            if (parts := _split_by(variance, deviation, levels)) is not None:
                return parts
        levels += 1


def _split_by(variance: Fraction, deviation: int, levels: int) -> list[tuple[Fraction, int]] | None:
    """The split into ``levels`` tables whose parameters are at most ``deviation``, or None where there is none."""
    own = Fraction(deviation**2)
    parts = []
    for _ in range(levels - 1):
        if variance <= own:
            return None
        # The largest m with own * rest / variance >= _SMOOTH, where rest = (variance - own) / m^2.
        factor = math.isqrt(math.floor(own * (variance - own) / (_SMOOTH * variance)))
        if factor < 1:
            return None
        parts.append((own, factor))
        variance = (variance - own) / factor**2
    return [*parts, (variance, 1)] if variance <= own else None


def _gaussian_table(variance: Fraction, multiplier: int) -> tuple[NoiseTable, Fraction]:
    index_bits = 1
    while (1 << index_bits) ** 2 < 2 * _TAIL * variance:
        index_bits += 1
    size = 1 << index_bits
    # weight_k = exp(-k^2 / 2v); weight_(k+1) / weight_k = step_k, which shrinks by exp(-1/v) each time.
    step, shrink = _exp_negative(1 / (2 * variance)), _exp_negative(1 / variance)
    weights, weight = [], _ONE
    for _ in range(size):
        weights.append(weight)
        weight = weight * step >> _FRACTION
        step = step * shrink >> _FRACTION
    # Steps only shrink, so what lies beyond the table sums to at most weight / (1 - step).
    beyond = (weight << _FRACTION) // (_ONE - step) + 1
    total = 2 * sum(weights) - _ONE
    ideal = [((1 if k == 0 else 2) * weight << _FRACTION) // total for k, weight in enumerate(weights)]
    # `ideal` is the law given that |k| is inside the table; the mass outside is the distance between the two.
    return _table(ideal, index_bits, 1, multiplier, Fraction(2 * beyond, total))


def _table(
    ideal: list[int], index_bits: int, sign_bits: int, multiplier: int, cut: Fraction = Fraction(0)
) -> tuple[NoiseTable, Fraction]:
    """The table for these probabilities (fixed point), and a bound on its distance from the ideal law.

    What the probabilities lack to 1 is mass beyond the end of the table; ``cut`` is a distance to be added.
    """
    bits = 64 - sign_bits
    shift = _FRACTION - bits
    counts = [p >> shift for p in ideal]
    # Largest remainders first, so that the counts sum to 2^bits and every one is within 1 of its ideal.
    by_remainder = sorted(range(len(ideal)), key=lambda i: (-(ideal[i] - (counts[i] << shift)), i))
    missing = (1 << bits) - sum(counts)
    assert 0 <= missing <= len(ideal)
    for i in by_remainder[:missing]:
        counts[i] += 1
    difference = sum(abs((count << shift) - p) for count, p in zip(counts, ideal, strict=True))
    beyond = max(_ONE - sum(ideal), 0)
    distance = Fraction(difference + beyond, 2 * _ONE) + cut + len(ideal) * _FIXED_POINT_ERROR
    return NoiseTable(index_bits, sign_bits, multiplier, _alias(counts, index_bits, bits)), distance


def _alias(counts: list[int], index_bits: int, bits: int) -> tuple[int, ...]:
    """Walker's alias table by Vose's method, in integers: every index holds 2^(bits - index_bits) of the counts."""
    capacity, shift = 1 << (bits - index_bits), 64 - bits + index_bits
    left = list(counts)
    small = [i for i, count in enumerate(left) if count < capacity]
    large = [i for i, count in enumerate(left) if count >= capacity]
    entries = list(range(len(left)))  # threshold 0, alias itself: for those that fill their index exactly
    while small:
        i, j = small.pop(), large[-1]
        entries[i] = left[i] << shift | j
        left[j] -= capacity - left[i]
        if left[j] < capacity:
            small.append(large.pop())
    return tuple(entries)


def _powers(ratio: int, count: int) -> list[int]:
    """1, ratio, ratio^2, ... in fixed point."""
    powers = [_ONE]
    while len(powers) < count:
        powers.append(powers[-1] * ratio >> _FRACTION)
    return powers


def _exp_negative(x: Fraction) -> int:
    """exp(-x) for x >= 0 in fixed point, within 2^-180: Taylor's series of x / 2^h, squared h times."""
    if x > 512:  # exp(-512) < 2^-700
        return 0
    extra = 64
    halvings = max(math.ceil(x).bit_length() + 6, 0)
    one = 1 << (_FRACTION + extra)
    small = math.floor(x * one) >> halvings
    term = total = one
    n = 0
    while term:
        n += 1
        term = term * small // (n * one)
        total += -term if n % 2 else term
    for _ in range(halvings):
        total = total * total >> (_FRACTION + extra)
    return total >> extra


def _rounded_up(value: Fraction) -> float:
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)
