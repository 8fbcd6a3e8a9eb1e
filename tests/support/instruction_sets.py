"""The same bits on every instruction set: a program run once for each, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from privkernels import _native

_BEGIN = """
import hashlib, json, torch
from privkernels import _native
from privkernels.randomness import Key
digests = {}
"""
_END = """
print(json.dumps({"isa": _native.cpu().build_info()["chosen"], "digests": digests}))
"""


def run_with(isa: str, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with this instruction set."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PRIVKERNELS_ISA": isa} | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def assert_same_bits(program: str, *, different: int, **environment: str) -> None:
    """``program`` fills the dictionary ``digests`` (hex by case); hashlib, torch and Key are there already.

    The digests must be those of the base instruction set on every one that this machine has, and ``different`` of them
    at least must differ from each other: a kernel that always gave the same would pass otherwise.
    """
    digests = {}
    for isa in _native.cpu().build_info()["instruction_sets"]:
        if not isa["supported"]:
            continue
        done = run_with(isa["name"], _BEGIN + program + _END, **environment)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["isa"] == isa["name"]
        digests[isa["name"]] = found["digests"]
    assert "base" in digests
    assert len(set(digests["base"].values())) >= different
    for isa_name, bits in digests.items():
        assert bits == digests["base"], isa_name
