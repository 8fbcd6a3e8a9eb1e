"""Every kernel beside what a user would otherwise run.

    python -m benchmarks.kernels [--quick] [--kernel NAME ...] [--device cpu] [--rounds 5] [--isas]
                                 [--json FILE]

One process. Every case is checked against its reference before anything is timed; a wrong result ends the program
with exit code 1. A case's ways then run in turn, round after round; ratios are medians of the ratios within
a round, of CPU time on one thread and of elapsed time on several and on a GPU. A slow way does a share of the job, and
its time is scaled up. The fraction of the ceiling is the least time in which this machine, as measured in the same run,
moves the bytes or does the operations, over ours. --isas adds our CPU time on one thread with every instruction set.
How cost grows with M, R and N is in `python -m benchmarks.growth`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.ceilings import Ceilings, measure_all
from benchmarks.comparison import Row, WrongResultError, checked, compare
from benchmarks.kernels import KERNELS
from benchmarks.timing import for_each_instruction_set, machine_facts
from privkernels import _files

_LIBRARIES = ("opendp", "diffprivlib", "numba", "KDEpy", "pykeops", "scikit-learn", "cryptography")


def cases_of(kernel: str, quick: bool, device: torch.device) -> list[Case]:
    found: list[Case] = importlib.import_module(f"benchmarks.kernels.{kernel}").cases(quick, device)
    return found


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def show(rows: list[Row]) -> None:
    """One case: what it is and what we take, and a line for every peer."""
    for threads in sorted({row.threads for row in rows}):
        group = [row for row in rows if row.threads == threads]
        own = group[0]
        reached = "" if own.fraction is None else f", {own.fraction:.3g} of the {own.ceiling}'s ceiling"
        plural = "1 thread" if threads == 1 else f"{threads} threads"
        print(f"{own.kernel}, {own.case}, {plural}: {seconds(own.ours)}{reached}, error {own.error:.3g}")
        for row in group:
            if row.peer is not None and row.ratio is not None:
                print(f"    {row.peer:<52}{seconds(row.peer_seconds):>10}{row.ratio:>14,.4g} times")


def facts_of(device: torch.device) -> dict[str, Any]:
    facts = machine_facts(device) | {"threads": torch.get_num_threads()}
    for name in _LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description="every kernel beside what a user would otherwise run"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that all of it runs")
    parser.add_argument(
        "--kernel", action="append", nargs="+", choices=KERNELS, metavar="NAME", help=", ".join(KERNELS)
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, help="rounds that are counted (5; with --quick 2)")
    parser.add_argument("--isas", action="store_true", help="also every supported instruction set")
    parser.add_argument("--only-ours", action="store_true", help="leave out peers and ceilings")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args(words)
    if arguments.rounds is None:
        arguments.rounds = 2 if arguments.quick else 5
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no CUDA device")
    arguments.kernel = list(dict.fromkeys(name for names in arguments.kernel or [KERNELS] for name in names))
    return arguments


def instruction_sets(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Our seconds on one thread: instruction set by case."""
    words = ["--only-ours", "--rounds", str(arguments.rounds), "--kernel", *arguments.kernel]
    found = for_each_instruction_set("benchmarks.kernels", words + ["--quick"] * arguments.quick)
    return {
        isa: {f"{row['kernel']}, {row['case']}": row["ours"] for row in rows if row["threads"] == 1}
        for isa, rows in found.items()
    }


def compare_all(
    cases: list[tuple[Case, float]],
    arguments: argparse.Namespace,
    ceilings: dict[int, Ceilings],
    result: dict[str, Any],
) -> None:
    """Time and show the cases one after another; written after each, so that a kill loses one at most."""
    for case, error in cases:
        rows = compare(
            case, error, arguments.rounds, torch.device(arguments.device), ceilings, alone=arguments.only_ours
        )
        show(rows)
        result["rows"] += [row.to_dict() for row in rows]
        result["skipped"] |= {f"{case.kernel}: {name}" for name in case.skipped}
        write(arguments, result)


def write(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    if arguments.json is not None:
        _files.write_json(arguments.json, result | {"skipped": sorted(result["skipped"])})


def main(words: list[str] | None = None) -> None:
    arguments = parse(words)
    device = torch.device(arguments.device)
    start = time.perf_counter()
    facts = facts_of(device)
    print(f"{facts.get('gpu', facts['processor'])}, {facts['instruction_set']}, torch {facts['torch']}")
    cases = [case for kernel in arguments.kernel for case in cases_of(kernel, arguments.quick, device)]
    try:
        errors = checked(cases)
    except WrongResultError as wrong:
        sys.exit(f"the results are wrong: {wrong}")
    ceilings: dict[int, Ceilings] = {}
    if not arguments.only_ours:
        counts = [1] if device.type == "cuda" else sorted({1, torch.get_num_threads()})
        ceilings = measure_all(counts, device, arguments.quick)
    for threads, found in ceilings.items():
        print(
            f"ceilings, {threads} threads: read {found.read / 1e9:.1f} GB/s, "
            f"read and write {found.copy / 1e9:.1f} GB/s, "
            f"{found.operations / 1e9:,.0f} GFLOP/s"
        )
    settings = {name: getattr(arguments, name) for name in ("quick", "kernel", "device", "rounds")}
    result: dict[str, Any] = {"benchmark": "kernels", "machine": facts, "settings": settings, "rows": []}
    result |= {"ceilings": {str(n): found.to_dict() for n, found in ceilings.items()}, "skipped": set()}
    compare_all(list(zip(cases, errors, strict=True)), arguments, ceilings, result)
    if arguments.isas:
        result["seconds_by_instruction_set"] = instruction_sets(arguments)
        for isa, times in result["seconds_by_instruction_set"].items():
            print(f"{isa}: " + "; ".join(f"{case} {seconds(ours)}" for case, ours in times.items()))
    result["wall_seconds"] = round(time.perf_counter() - start, 1)
    write(arguments, result)
    for name in sorted(result["skipped"]):
        print(f"skipped: {name}")


if __name__ == "__main__":
    main()
