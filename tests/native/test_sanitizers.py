"""Builds csrc/tests under the address and undefined-behaviour sanitizers, warnings as errors, and runs each program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.native.building import ROOT, build, linked_with_sanitizers

PROGRAMS = sorted(file.stem for file in (ROOT / "csrc" / "tests").glob("*_test.cpp"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not linked_with_sanitizers(tmp_path_factory.mktemp("probe")):
        pytest.skip("this compiler cannot link programs with -fsanitize=address,undefined")
    return tmp_path_factory.mktemp("sanitize")


@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_run_clean_under_the_sanitizers(folder: Path, program: str) -> None:
    build(folder, program, PRIVKERNELS_SANITIZE="ON", PRIVKERNELS_WERROR="ON")
    environment = {k: v for k, v in os.environ.items() if k not in ("PRIVKERNELS_ISA", "LD_PRELOAD")}
    command = [folder / program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: 0 failed" in done.stdout
    assert done.stderr == ""
