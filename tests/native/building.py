"""Finds CMake, a generator and a compiler, and builds targets of this repository outside of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import pytest

ROOT = Path(__file__).parents[2]


def find_program(*names: str) -> str | None:
    """The first of these programs that is on PATH or beside this Python."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    return None


def compiler() -> str:
    """The C++ compiler; skips the test where there is none (a wheel was installed, say)."""
    found = os.environ.get("CXX") or find_program("c++", "g++", "clang++")
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


def run(*command: str | Path) -> str:
    """Run a command; on failure the test fails with all that it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def build(folder: Path, target: str, **definitions: str) -> None:
    """Configure this repository in ``folder`` with the given CMake definitions and build one target."""
    cmake = find_program("cmake")
    if cmake is None:
        pytest.skip("there is no cmake: pip install 'privkernels[test]' brings one")
    ninja = find_program("ninja", "ninja-build")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    settings = {
        "CMAKE_CXX_COMPILER": compiler(),
        "PRIVKERNELS_CUDA": "OFF",
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "Python_EXECUTABLE": sys.executable,
        **definitions,
    }
    run(
        cmake,
        "-S",
        ROOT,
        "-B",
        folder,
        *generator,
        *(f"-D{name}={value}" for name, value in settings.items()),
    )
    run(cmake, "--build", folder, "--target", target, "--parallel", "2")


def linked_with_sanitizers(folder: Path) -> bool:
    """Whether the compiler has the sanitizers' libraries; some distributions package them apart."""
    source = folder / "probe.cpp"
    source.write_text("int main() { return 0; }\n")
    command = [compiler(), "-fsanitize=address,undefined", str(source), "-o", str(folder / "probe")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
