"""Time and peak memory of whole audits: `privkernels audit` with every attack of the library.

    python -m benchmarks.audit_cost [--setting digits] [--data-root DIR] [--json FILE]

A target is trained on the members with the settings that the shadow models are told, and audited by the command line in
a process of its own. Its peak resident memory comes from the operating system; what Python and torch
take before any record is loaded is stated beside it. mnist needs its files in DIR.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import machine_facts
from privkernels import _files, data, models
from privkernels.data import Records
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, train_members

_IMPORTS = "import resource, privkernels.auditing; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


@dataclass(frozen=True)
class Setting:
    """An audit: a network, how it was trained, and on how many of how many records."""

    name: str
    data: str
    spec: str
    members: int
    public: int
    epochs: int
    budget: str | None


SETTINGS = (
    Setting("digits", "digits", "mlp-32", 500, 187, 30, None),
    Setting("mnist", "mnist", "mlp-128", 5000, 5000, 30, "5m"),
)


def measure(setting: Setting, root: Path | None) -> dict[str, Any]:
    """Train a target, audit it, and read what the audit says of itself."""
    source = data.load(setting.data, root).train
    order = torch.randperm(len(source), generator=Key.from_seed(0).generator("benchmark"))
    limits = np.cumsum([0, setting.members, setting.members, setting.public])
    parts = [source.subset(order[a:b]) for a, b in itertools.pairwise(limits)]
    config = TrainingConfig(epochs=setting.epochs, batch_size=64, learning_rate=0.05)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for role, part in zip(("members", "nonmembers", "public"), parts, strict=True):
            np.savez(folder / f"{role}.npz", x=part.x.numpy(), y=part.y.numpy())
        trained = train_members(
            parts[0], setting.spec, folder / "target", members=1, subset_fraction=1.0, config=config,
            key=Key.from_seed(1),
        )  # fmt: skip
        seconds, peak = _audit(folder, trained / "member-0000.safetensors", setting)
        audit = json.loads((folder / "audit.json").read_text())
    made = [row for row in audit["plan"] if row["ran"]]
    return {
        "setting": vars(setting) | {"parameters": _size(setting, parts[0])},
        "seconds": seconds,
        "peak_mib": peak,
        "imports_mib": float(subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, check=True).stdout)
        / 1024,
        "attacks": len(made),
        "seconds_per_attack": {row["attack"]: row["seconds"] for row in made},
        "left_out": {row["attack"]: row["reason"] for row in audit["plan"] if not row["ran"]},
        "shadow_models": audit["n_shadows"],
        "chosen": None if audit["choice"] is None else audit["choice"]["name"],
    }


def _size(setting: Setting, records: Records) -> int:
    model = models.build(setting.spec, input_shape=tuple(records.x.shape[1:]), n_classes=records.n_classes)
    return models.parameter_count(model)


def _audit(folder: Path, model: Path, setting: Setting) -> tuple[float, float]:
    """Seconds and peak MiB of the command."""
    command = [
        sys.executable, "-m", "privkernels", "audit", str(model), "--model", setting.spec,
        "--members", str(folder / "members.npz"), "--non-members", str(folder / "nonmembers.npz"),
        "--public", str(folder / "public.npz"), "--epochs", str(setting.epochs), "--batch-size", "64",
        "--learning-rate", "0.05", *(() if setting.budget is None else ("--budget", setting.budget)),
        "--json", str(folder / "audit.json"), "--report", str(folder / "report.html"),
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    # The largest of the children waited for so far: so nothing larger may be waited for before this.
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Print one line per setting, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=[setting.name for setting in SETTINGS], action="append")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    rows = []
    for setting in SETTINGS:  # the smaller one first, see _audit
        if arguments.setting is None or setting.name in arguments.setting:
            row = measure(setting, arguments.data_root)
            rows.append(row)
            slowest = max(row["seconds_per_attack"].items(), key=lambda pair: pair[1])
            print(
                f"{setting.name}, {setting.spec} ({row['setting']['parameters']:,} parameters), {setting.members} + "
                f"{setting.members} records, {row['shadow_models']} shadow models, {row['attacks']} attacks, budget "
                f"{setting.budget}: {row['seconds']:.0f} s, {row['peak_mib']:.0f} MiB at most "
                f"({row['imports_mib']:.0f} MiB are Python and torch); slowest attack: {slowest[0]}, {slowest[1]:.0f} s"
            )
    if arguments.json is not None:
        machine = machine_facts(torch.device("cpu"))
        _files.write_json(arguments.json, {"benchmark": "audit_cost", "machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
