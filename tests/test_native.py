"""Loading of the compiled modules, and what is said when they are not there."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from privkernels import _native
from privkernels.errors import (
    InvalidArgumentError,
    NativeModuleError,
    NonFiniteValueError,
    PrivkernelsError,
)

HEADERS = Path(__file__).parents[1] / "csrc" / "include" / "privkernels"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType | ImportError]]:
    """Stand-ins for the compiled modules: what importing each of these names gives."""
    fakes: dict[str, ModuleType | ImportError] = {}
    real = importlib.import_module

    def import_module(name: str) -> ModuleType:
        result = fakes.get(name)
        if isinstance(result, ImportError):
            raise result
        return result or real(name)

    monkeypatch.setattr(_native.importlib, "import_module", import_module)
    _native.cpu.cache_clear()
    _native.cuda.cache_clear()
    yield fakes
    _native.cpu.cache_clear()
    _native.cuda.cache_clear()


def fake_cpu(**changed: Any) -> Any:
    """A compiled CPU module with this build information."""
    info = {
        "compiler": "GNU 12", "build_type": "Release", "version": "0", "instruction_sets": [],
        "chosen": "base", "reason": "", "cuda_built": False, "cuda_note": "not built: PRIVKERNELS_CUDA=OFF",
    } | changed  # fmt: skip
    return SimpleNamespace(build_info=lambda: info, __file__="_cpu.so")


def fake_cuda(count: int, error: str) -> Any:
    return SimpleNamespace(device_info=lambda: {"device_count": count, "error": error})


def test_the_installed_module_loads_and_describes_itself() -> None:
    info = _native.cpu().build_info()
    names = [isa["name"] for isa in info["instruction_sets"]]
    assert names == ["base", "avx2", "avx512"]
    usable = [isa["name"] for isa in info["instruction_sets"] if isa["supported"]]
    assert usable[0] == "base"
    assert all(isa["compiled"] for isa in info["instruction_sets"] if isa["supported"])
    assert info["chosen"] == os.environ.get("PRIVKERNELS_ISA", usable[-1])
    assert info["compiler"]
    assert info["build_type"] == "Release"
    assert ("built with nvcc" in info["cuda_note"]) == info["cuda_built"]


def test_describe_is_complete_and_fits_json() -> None:
    report = json.loads(json.dumps(_native.describe()))
    assert report["torch"] == torch.__version__
    assert report["cpu"]["loaded"]
    assert report["cpu"]["version"]
    assert report["cuda"]["reason"]
    if not torch.cuda.is_available():
        assert not report["cuda"]["usable"]


def test_a_missing_module_says_how_to_build_it(modules: dict[str, Any]) -> None:
    modules["privkernels._cpu"] = ImportError("no such file")
    with pytest.raises(NativeModuleError, match=r"cannot be loaded \(no such file\): install the package"):
        _native.cpu()
    with pytest.raises(NativeModuleError):
        _native.cuda()
    report = _native.describe()
    assert report["cpu"] == {"loaded": False, "reason": "no such file"}
    assert not report["cuda"]["loaded"]


def test_an_instruction_set_that_is_not_there_is_refused(modules: dict[str, Any]) -> None:
    modules["privkernels._cpu"] = fake_cpu(chosen=None, reason="PRIVKERNELS_ISA=x is not one of base, avx2, avx512")
    with pytest.raises(NativeModuleError, match=r"PRIVKERNELS_ISA=x is not one of .*; unset PRIVKERNELS_ISA"):
        _native.cpu()


def test_a_build_without_cuda_says_why(modules: dict[str, Any]) -> None:
    modules["privkernels._cpu"] = fake_cpu()
    modules["privkernels._cuda"] = ImportError("No module named 'privkernels._cuda'")
    with pytest.raises(NativeModuleError, match=r"no CUDA kernels .* \(not built: PRIVKERNELS_CUDA=OFF\)"):
        _native.cuda()
    cuda = _native.describe()["cuda"]
    assert cuda == {
        "built": False, "loaded": False, "usable": False, "reason": "not built: PRIVKERNELS_CUDA=OFF",
    }  # fmt: skip


def test_a_cuda_module_that_does_not_load_says_why(modules: dict[str, Any]) -> None:
    modules["privkernels._cpu"] = fake_cpu(cuda_built=True, cuda_note="built with nvcc 13.0")
    modules["privkernels._cuda"] = ImportError("libx.so: cannot open")
    cuda = _native.describe()["cuda"]
    assert (cuda["built"], cuda["loaded"], cuda["usable"]) == (True, False, False)
    assert "libx.so: cannot open" in cuda["reason"]
    assert "nvcc 13.0" in cuda["reason"]


@pytest.mark.parametrize(
    ("count", "error", "torch_has_cuda", "usable", "reason"),
    [
        (0, "no driver", False, False, "no usable GPU: no driver"),
        (0, "", True, False, "no usable GPU: no device found"),
        (1, "", False, False, "has no CUDA support"),
        (1, "", True, True, "built with nvcc"),
    ],
)
def test_why_a_cuda_module_is_usable_or_not(
    modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch, count: int, error: str, torch_has_cuda: bool,
    usable: bool, reason: str,
) -> None:  # fmt: skip
    modules["privkernels._cpu"] = fake_cpu(cuda_built=True, cuda_note="built with nvcc 13.0")
    modules["privkernels._cuda"] = fake_cuda(count, error)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_has_cuda)
    cuda = _native.describe()["cuda"]
    assert (cuda["built"], cuda["loaded"], cuda["usable"]) == (True, True, usable)
    assert reason in cuda["reason"]


def test_every_status_has_its_error() -> None:
    _native.raise_for_status((0, -1, -1, ""), "kernel")
    with pytest.raises(InvalidArgumentError, match="kernel: a message"):
        _native.raise_for_status((1, -1, -1, "a message"), "kernel")
    with pytest.raises(NonFiniteValueError, match="kernel: member 3 holds NaN or infinity in element 4;"):
        _native.raise_for_status((2, 3, 4, ""), "kernel")
    with pytest.raises(InvalidArgumentError, match="kernel: lo, hi and bandwidth of element 4 must be finite"):
        _native.raise_for_status((3, -1, 4, ""), "kernel")
    with pytest.raises(PrivkernelsError, match="kernel: CUDA failed: out of memory"):
        _native.raise_for_status((4, -1, -1, "out of memory"), "kernel")


def test_status_codes_are_those_of_the_header() -> None:
    text = (HEADERS / "status.h").read_text(encoding="utf-8")
    codes = {"kInvalidArgument": 1, "kNonFinite": 2, "kInvalidParameter": 3, "kCudaError": 4}
    assert [*codes.values()] == [
        _native._INVALID_ARGUMENT,
        _native._NON_FINITE,
        _native._INVALID_PARAMETER,
        _native._CUDA_ERROR,
    ]
    for name, code in codes.items():
        assert f"{name} = {code}," in text


def test_importing_the_operators_loads_no_compiled_module() -> None:
    """So that a machine where it cannot load can still run the doctor and read releases."""
    program = (
        "import sys, privkernels.ops\n"
        "assert 'privkernels._cpu' not in sys.modules and 'privkernels._cuda' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
