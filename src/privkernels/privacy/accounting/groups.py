"""Records that are in several of the units a mechanism protects."""

from __future__ import annotations

from scipy import stats

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting.budget import check_count, check_delta


def inclusion_tail(members: int, rate: float, overlap: int) -> float:
    """P(Binomial(members, rate) > overlap): a record is in more than ``overlap`` of the members; rounded up.

    Args:
        members: M, subsets drawn independently; 1 or more.
        rate: probability that a given record is in a given member's subset, in [0, 1].
        overlap: s; 0 or more.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    members, overlap = check_count("members", members), check_count("overlap", overlap, low=0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise InvalidArgumentError(f"rate is a probability, in [0, 1], got {rate!r}")
    return min(1.0, float(stats.binom.sf(overlap, members, rate)) * (1 + 1e-9))


def inclusion_quantile(members: int, rate: float, delta: float) -> int:
    """The least s with P(a record is in more than s of the members) <= ``delta``: docs/accounting.md, Statement 15.

    A mechanism that is (epsilon, delta')-DP for records in at most s members is then (epsilon, delta' + delta)-DP,
    provided that the subsets are secret and drawn independently of what the records hold.
    """
    check_delta(delta)
    low, high = -1, check_count("members", members)  # the tail is above delta at low (or low is -1), and 0 at members
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if inclusion_tail(members, rate, middle) <= delta else (middle, high)
    return high
