"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import hypothesis
import pytest
import torch

# The same examples on every run: a failure in CI is a failure at home, and nothing is written to disk.
hypothesis.settings.register_profile(
    "privkernels",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("privkernels")

# Workers of pytest-xdist have a width of their own, which the console would keep; tests say which one they want.
os.environ.pop("COLUMNS", None)

# The tests' tensors are small: on a busy machine a second OpenMP thread made them twenty times slower.
# What must not depend on the number of threads is tested with set_threads.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``gpu`` where PyTorch sees no CUDA device, and say so."""
    if torch.cuda.is_available():
        return
    reason = f"no CUDA device is usable by PyTorch {torch.__version__}"
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """``torch.set_num_threads``, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
