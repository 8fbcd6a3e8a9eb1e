"""Whether some calls take the same time: the least of many interleaved rounds of each.

What disturbs a machine only ever makes a run slower, so least times are the code's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest


def assert_alike(calls: Mapping[str, Callable[[], object]], *, rounds: int, limit: float, attempts: int = 4) -> None:
    """Fail if one call's least time is more than ``limit`` times another's.

    A busy machine gets more rounds, up to ``attempts`` times as many; code that differs gets no other chance by it,
    because its least times differ however often it runs.
    """
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(attempts):
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                least[name] = min(least[name], time.perf_counter() - start)
        if max(least.values()) <= limit * min(least.values()):
            return
    pytest.fail(f"the times differ: {least}")
