"""Exactly what lands in the sdist and in the wheel, and which package Python imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.native.building import compiler

ROOT = Path(__file__).parents[1]
ROOT_FILES = {
    "CHANGELOG.md",
    "CITATION.cff",
    "CMakeLists.txt",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
}
SUFFIXES = {
    "benchmarks": {".py", ".sh"},
    "csrc": {".cpp", ".cu", ".h"},
    "docs": {".md"},
    "src": {".j2", ".py", ".typed"},
    "tests": {".py"},
}
# What lies about in a working tree, and must be in no package.
STRAYS = [
    ".ci/run",
    ".env",
    ".git/config",
    ".hypothesis/x",
    ".pre-commit-config.yaml",
    "build/x.cpp",
    "build/wheel/libx.so",
    "dist/old.whl",
    "benchmarks/results/kernels.json",
    "benchmarks/kernels/.cache.py",
    "csrc/cpu/kde_em.o",
    "members.safetensors",
    "notes.txt",
    "src/privkernels/__pycache__/x.cpython-311.pyc",
    "src/privkernels/__pycache__/x.py",
    "src/privkernels/_cpu.stray.so",
    "src/privkernels/key.bin",
    "src/privkernels/model.safetensors",
    "src/privkernels.egg-info/PKG-INFO",
    "tests/__pycache__/x.pyc",
    "tests/ops/.lock.py",
    "tests/data/record.npz",
]


@dataclass(frozen=True)
class Built:
    """The two packages and the files, relative to the repository's root, that they were made from."""

    sdist: Path
    wheel: Path
    sources: set[str]
    version: str

    def sdist_files(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            names = [member.name for member in archive.getmembers() if not member.isdir()]
        assert all(name.startswith(f"privkernels-{self.version}/") for name in names)
        return {name.partition("/")[2] for name in names}

    def wheel_files(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


def build_package(what: str, tree: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{what}", "--outdir", str(out), str(tree)]
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    environment = os.environ | {"PRIVKERNELS_CUDA": "OFF", "PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = out.iterdir()
    return package


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of a copy of this tree with strays in it, and the wheel of that sdist."""
    compiler()
    folder = tmp_path_factory.mktemp("packaging")
    tree = folder / "tree"
    skipped = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "results", "*.so", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=skipped)
    if (ROOT / ".gitignore").exists():
        shutil.copy(ROOT / ".gitignore", tree)
    sources = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    for stray in STRAYS:
        assert stray not in sources
        (tree / stray).parent.mkdir(parents=True, exist_ok=True)
        (tree / stray).write_text("must not be packaged")
    sdist = build_package("sdist", tree, folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    wheel = build_package("wheel", unpacked, folder / "wheel")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return Built(sdist, wheel, sources, version)


def under(sources: set[str], folder: str) -> set[str]:
    """The files of a folder that have one of the suffixes it may hold."""
    return {path for path in sources if path.startswith(f"{folder}/") and Path(path).suffix in SUFFIXES[folder]}


def test_the_sdist_holds_the_sources_and_nothing_else(built: Built) -> None:
    assert built.sdist.name == f"privkernels-{built.version}.tar.gz"
    expected = ROOT_FILES | {"PKG-INFO"}
    for folder in SUFFIXES:
        expected |= under(built.sources, folder)
    assert built.sdist_files() == expected


def test_every_folder_of_the_sdist_is_really_there(built: Built) -> None:
    """The test above compares with the tree; this one with names that must exist."""
    files = built.sdist_files()
    for path in (
        "csrc/cpu/kde_em.cpp",
        "csrc/cuda/kde_em.cu",
        "csrc/include/privkernels/kde_em.h",
        "csrc/tests/kde_em_test.cpp",
        "src/privkernels/__init__.py",
        "src/privkernels/py.typed",
        "tests/test_packaging.py",
        "benchmarks/kernels/kde_em.py",
        "benchmarks/gpu.sh",
    ):
        assert path in files
    assert not any("/build/" in path or path.endswith((".so", ".o", ".pyc")) for path in files)


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    package = {path.removeprefix("src/") for path in under(built.sources, "src")}
    info = f"privkernels-{built.version}.dist-info"
    metadata = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    assert built.wheel_files() == package | {f"privkernels/_cpu{suffix}"} | metadata
    assert "privkernels/py.typed" in package
    assert any(path.endswith(".html.j2") for path in package)


# Takes the package from the folder given, past an editable installation (an import hook) of the same name.
DRAW = """
import sys
sys.path.insert(0, sys.argv[1])
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
import torch, privkernels, privkernels._cpu
from privkernels.ops import kde_em
from privkernels.randomness import Key
theta, key = torch.zeros(3, 5), Key.generate()
value, _ = kde_em(theta, lo=-1.0, hi=1.0, bandwidth=0.1, multiplier=1e9, key=key, label="x", grid_points=3)
assert value.tolist() == [0.0] * 5, value
print(privkernels.__file__, privkernels._cpu.__file__, sep="\\n")
"""


def test_the_wheel_runs_where_it_is_unpacked(built: Built, tmp_path: Path) -> None:
    """Its own compiled module loads and draws."""
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert Path(line).is_relative_to(tmp_path)


def imported_from(folder: Path) -> str:
    command = [sys.executable, "-c", "import privkernels; print(privkernels.__file__)"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_repository_does_not_shadow_the_installed_package(tmp_path: Path) -> None:
    """``python -c`` puts the current folder first on the path; from the root that must change nothing."""
    assert not (ROOT / "privkernels").exists()
    assert not (ROOT / "privkernels.py").exists()
    assert imported_from(ROOT) == imported_from(tmp_path)
