"""One JSON file for several data sets, each of which may be run on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import machine_facts
from privkernels import _files


def put_study(file: Path, benchmark: str, study: dict[str, Any], **facts: Any) -> None:
    """Write the study of one data set into the file, in place of an older one of the same data set.

    Args:
        study: with the key "dataset"; the machine is added to it.
        facts: what else the file says.
    """
    studies = {found["dataset"]: found for found in _files.read_json(file)["studies"]} if file.exists() else {}
    studies[study["dataset"]] = study | {"machine": machine_facts(torch.device("cpu"))}
    _files.write_json(file, {"benchmark": benchmark, **facts, "studies": list(studies.values())})
