"""Timing of several ways to do one job, in one process, and the facts of the machine it ran on."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from privkernels import _files, _native


@dataclass(frozen=True)
class Contender:
    """One way to do the job.

    Attributes:
        name: what it is.
        run: does the whole job once, for ``elements`` elements.
        elements: how many; a slow way gets fewer.
        threads: torch threads while it runs.
    """

    name: str
    run: Callable[[], object]
    elements: int
    threads: int = 1


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds; ``cpu`` counts all threads of the process and little of other processes."""

    name: str
    elements: int
    threads: int
    wall_ns: float
    cpu_ns: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "elements": self.elements,
            "threads": self.threads,
            "wall_ns_per_element": round(self.wall_ns, 4),
            "cpu_ns_per_element": round(self.cpu_ns, 4),
            "elements_per_second": round(1e9 / self.wall_ns),
        }


@dataclass(frozen=True)
class Rounds:
    """One contender's seconds in every round: elapsed, and of all the process's threads together."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]


def rounds_of(contenders: Sequence[Contender], rounds: int, device: torch.device) -> list[Rounds]:
    """Time every contender once in each round, after one round that is not counted.

    So what slows the machine for a while slows all of them, and ratios hold better than times.
    """

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wall: list[list[float]] = [[] for _ in contenders]
    cpu: list[list[float]] = [[] for _ in contenders]
    before = torch.get_num_threads()
    try:
        for round_number in range(rounds + 1):
            for i, contender in enumerate(contenders):
                torch.set_num_threads(contender.threads)
                wait()
                start, cpu_start = time.perf_counter(), time.process_time()
                contender.run()
                wait()
                if round_number > 0:
                    cpu[i].append(time.process_time() - cpu_start)
                    wall[i].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return [Rounds(tuple(w), tuple(c)) for w, c in zip(wall, cpu, strict=True)]


def interleaved(contenders: Sequence[Contender], rounds: int, device: torch.device) -> list[Timing]:
    """The medians of :func:`rounds_of`, per element."""
    return [
        Timing(
            c.name,
            c.elements,
            c.threads,
            statistics.median(timed.wall) * 1e9 / c.elements,
            statistics.median(timed.cpu) * 1e9 / c.elements,
        )
        for c, timed in zip(contenders, rounds_of(contenders, rounds, device), strict=True)
    ]


def for_each_instruction_set(module: str, arguments: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """``rows`` of the JSON that ``python -m MODULE ARGUMENTS`` writes for every supported instruction set, each in a
    process of its own."""
    results = {}
    for isa in _native.cpu().build_info()["instruction_sets"]:
        if not isa["supported"]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "result.json"
            command = [sys.executable, "-m", module, *arguments, "--json", str(file)]
            environment = os.environ | {"PRIVKERNELS_ISA": isa["name"]}
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            results[isa["name"]] = _files.read_json(file)["rows"]
    return results


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Processor, instruction set, compiler and versions; no host name, user or path."""
    info = _native.cpu().build_info()
    facts: dict[str, Any] = {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "instruction_set": info["chosen"],
        "compiler": info["compiler"],
        "cuda_build": info["cuda_note"],
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: version(name) for name in ("privkernels", "torch", "numpy", "scipy")},
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
