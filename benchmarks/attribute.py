"""Attribute inference on UCI Adult: the three methods beside an imputation that never sees the model.

    python -m benchmarks.attribute --data-root DIR [--records 1000] [--json FILE]

DIR holds the publisher's adult.data.gz, or a folder adult with it. The target is a perceptron of 128 units that
predicts the income; marital status and sex are what is guessed. It is trained for 10 epochs, and for 200, when it is
overfitted. The attacker has 6,000 records of their own.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.papers.datasets import read_adult
from benchmarks.timing import machine_facts
from privkernels import _files, inference, models
from privkernels.attacks.attribute import AttributeInference, Method, attribute_leak
from privkernels.data import Records
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, fit_stacked

ATTRIBUTES = ("marital status", "sex")
METHODS: tuple[Method, ...] = ("prior", "conditional", "confidence")
ATTACKER = 6000


def trained(records: Records, epochs: int, key: Key) -> nn.Module:
    make_model = partial(models.build, "mlp-128", input_shape=tuple(records.x.shape[1:]), n_classes=2)
    module = make_model(seed=key.seed_for("initialisation"))
    config = TrainingConfig(epochs=epochs, batch_size=64, learning_rate=0.1)
    everything = [torch.arange(len(records))]
    states = fit_stacked(make_model, module.state_dict(), records, everything, config, [key.seed_for("training")])
    module.load_state_dict(states[0])
    return module


def run(records: Records, columns: dict[str, list[int]], n: int) -> list[dict[str, Any]]:
    """One row for each target, attribute and method: the counts on members and on non-members."""
    key = Key.from_seed(0)
    order = torch.randperm(len(records), generator=key.generator("split"))
    members, nonmembers, own = (
        records.subset(part) for part in (order[:n], order[n : 2 * n], order[2 * n :][:ATTACKER])
    )
    attacks = {name: AttributeInference(columns[name], torch.eye(len(columns[name]))).fit(own) for name in ATTRIBUTES}
    rows = []
    for epochs in (10, 200):
        target = trained(members, epochs, key)
        facts = {
            "epochs": epochs,
            "train_accuracy": round(inference.accuracy(target, members), 4),
            "test_accuracy": round(inference.accuracy(target, nonmembers), 4),
        }
        for name, attack in attacks.items():
            for attack.method in METHODS:
                leak = attribute_leak(attack, target, members, nonmembers)
                rows.append({**facts, "attribute": name, "method": attack.method, **asdict(leak)})
                print(rows[-1], flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--records", type=int, default=1000, help="training records, and as many others")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = run(*read_adult(options.data_root), options.records)
    if options.json:
        machine = machine_facts(torch.device("cpu"))
        result = {"benchmark": "attribute", "records": options.records, "attacker_records": ATTACKER}
        _files.write_json(options.json, {**result, "machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
