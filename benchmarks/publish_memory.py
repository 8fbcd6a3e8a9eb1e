"""Peak memory and time of publishing from files: N = 10 million parameters, M = 50 members.

    python -m benchmarks.publish_memory [--elements 10000000] [--members 50] [--mode proven] [--json FILE]

Writes the members (2 GB at the default size) to a temporary folder, publishes in a process of its own, and
reads that process's peak resident memory from the operating system. A bare read of the same files in the same
way is timed beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from privkernels import _files

_PUBLISH = """
import resource, sys, time
from privkernels import workflow
from privkernels.publishing import DpPgSettings
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
workflow.publish(sys.argv[1], DpPgSettings(1.0, mode=sys.argv[2]), sys.argv[3])
print(time.perf_counter() - start, base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_READ = """
import resource, sys, time
from privkernels.publishing import ParameterCollection
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
for piece in ParameterCollection.open(sys.argv[1]).slices():
    pass
print(time.perf_counter() - start, base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--mode", choices=("proven", "paper"), default="proven")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        members = Path(scratch) / "members"
        members.mkdir()
        generator = torch.Generator().manual_seed(0)
        common = 0.1 * torch.randn(arguments.elements // 1000, 1000, generator=generator)
        for i in range(arguments.members):
            member = common + 0.01 * torch.randn(common.shape, generator=generator)
            _files.write_safetensors(members / f"{i:03}.safetensors", {"layer.weight": member})
        read = _measure(_READ, str(members))
        publish = _measure(_PUBLISH, str(members), arguments.mode, str(Path(scratch) / "release"))
    bytes_read = 4 * common.numel() * arguments.members
    result = {
        "benchmark": "publish_memory",
        "elements": common.numel(),
        "members": arguments.members,
        "mode": arguments.mode,
        "threads": torch.get_num_threads(),
        "members_bytes": bytes_read,
        "read": read | {"bytes_per_second": bytes_read / read["seconds"]},
        "publish": publish | {"parameters_per_second": common.numel() / publish["seconds"]},
        "share_of_a_bare_read": read["seconds"] / publish["seconds"],
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        _files.write_json(arguments.json, result)


def _measure(program: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    seconds, base, peak = map(float, done.stdout.split())
    return {"seconds": seconds, "peak_mib": peak / 1024, "peak_above_start_mib": (peak - base) / 1024}


if __name__ == "__main__":
    main()
