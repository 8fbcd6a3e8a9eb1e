"""Builds csrc/tests under the address and undefined-behaviour sanitizers, warnings as errors, and runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.native.building import build, linked_with_sanitizers


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not linked_with_sanitizers(tmp_path_factory.mktemp("probe")):
        pytest.skip("this compiler cannot link programs with -fsanitize=address,undefined")
    folder = tmp_path_factory.mktemp("sanitize")
    build(folder, "kde_em_test", PRIVKERNELS_SANITIZE="ON", PRIVKERNELS_WERROR="ON")
    return folder / "kde_em_test"


def test_kernels_run_clean_under_the_sanitizers(program: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PRIVKERNELS_ISA", "LD_PRELOAD")}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: 0 failed" in done.stdout
    assert done.stderr == ""
