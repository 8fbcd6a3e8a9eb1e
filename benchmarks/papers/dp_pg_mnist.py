"""Accuracy of one member, of the members' mean, and of DP-PG in both modes, on MNIST-Net.

    python -m benchmarks.papers.dp_pg_mnist --data-root DIR [--members 16] [--records 10000] [--json FILE]

Paper: Mao et al., IEEE TPDS 2022, Section 6 (model quality of DP-PG). Besides the paper's figures it shows
two controls that tell where the privacy and the accuracy of the paper's mode come from:

* uniform   every parameter uniform between the smallest and the largest member's value, no density at all
            (DP-PG at epsilon -> 0 as printed);
* the effective randomness of the draw, as the mean entropy of a parameter's distribution in bits of log2 R.

Each model is attacked with the loss threshold, on the records of member 0 and on test records.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from privkernels import _files, inference, models, workflow
from privkernels.attacks import LossThreshold
from privkernels.audit.intervals import auc
from privkernels.data import load
from privkernels.ops import kde_em_probabilities_reference, kde_scores
from privkernels.publishing import DpPgSettings, ParameterCollection, dp_pg
from privkernels.publishing.dp_pg import _grid_of
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, load_training

EPSILONS = (0.1, 1.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--members-folder", type=Path, help="keep the members here; rerun to continue")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--subset-fraction", type=float, default=0.5)
    parser.add_argument("--draws", type=int, default=3, help="releases per setting; the median is reported")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = run(arguments, arguments.members_folder or Path(scratch) / "members")
    if arguments.json:
        _files.write_json(arguments.json, result)


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    data = load("mnist", arguments.data_root)
    config = TrainingConfig(epochs=arguments.epochs, batch_size=64, learning_rate=0.05, momentum=0.9)
    start = time.perf_counter()
    workflow.train(
        data, "mnist-net", folder, seed=0, members=arguments.members, records=arguments.records,
        subset_fraction=arguments.subset_fraction, config=config,
        progress=lambda done, total, what: print(f"{what}: {done}/{total}", flush=True),
    )  # fmt: skip
    seconds = time.perf_counter() - start
    training = load_training(folder)
    collection = ParameterCollection.open(folder)
    initial, _ = _files.read_safetensors(training.initial_path)
    network = training.build_model()

    records = workflow.audit_records(data, training)

    def accuracy(tensors: dict[str, torch.Tensor]) -> float:
        models.load_weights(network, tensors)
        return inference.accuracy(network, data.test)

    def attack(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        """AUC of the loss threshold on the records of member 0 and on test records, with its 95 % interval."""
        models.load_weights(network, tensors)
        scores = (LossThreshold().score(network, part) for part in (records.members, records.nonmembers))
        area = auc(*scores)
        return {"attack_auc": area.value, "attack_auc_low": area.low, "attack_auc_high": area.high}

    rows: list[dict[str, Any]] = []

    def add(what: str, **figures: Any) -> None:
        rows.append({"what": what, **figures})
        print(json.dumps(rows[-1]), flush=True)

    each = [accuracy(collection.state_dict(i)) for i in range(collection.num_members)]
    add(
        "one member",
        accuracy=statistics.median(each),
        lowest=min(each),
        highest=max(each),
        **attack(collection.state_dict(0)),
    )
    add("mean of members", accuracy=accuracy(collection.mean()), **attack(collection.mean()))
    for mode in ("paper", "proven"):
        for epsilon in (1e-6, *EPSILONS) if mode == "paper" else EPSILONS:
            settings = DpPgSettings(epsilon, mode=mode)
            releases = [
                dp_pg(
                    collection,
                    settings,
                    key=Key.generate(),
                    overlap=training.subsets.overlap(),
                    initial=initial,
                )
                for _ in range(arguments.draws)
            ]
            guarantee = releases[0].guarantee
            figures = [accuracy(dict(release.tensors)) for release in releases]
            add(
                f"DP-PG, {mode} mode" + (", uniform control" if epsilon < 1e-3 else ""),
                epsilon=epsilon,
                accuracy=statistics.median(figures),
                lowest=min(figures),
                highest=max(figures),
                **attack(dict(releases[0].tensors)),
                claimed=guarantee.claimed.epsilon if guarantee.claimed else None,
                proven=guarantee.proven.epsilon if guarantee.proven else None,
                unit=str(guarantee.unit),
                swing_nats=guarantee.implementation["score_swing_nats"],
                entropy_bits=_mean_entropy(collection, settings, guarantee.implementation["multiplier"], initial),
                uniform_bits=float(torch.tensor(float(settings.grid_points)).log2()),
            )
    return {
        "benchmark": "dp_pg_mnist",
        "members": collection.num_members,
        "parameters": collection.num_parameters,
        "records": arguments.records,
        "largest_overlap": training.subsets.overlap(),
        "epochs": arguments.epochs,
        "draws": arguments.draws,
        "delta": DpPgSettings(1.0).delta,
        "training_seconds": round(seconds),
        "torch": torch.__version__,
        "rows": rows,
    }


def _mean_entropy(
    collection: ParameterCollection, settings: DpPgSettings, multiplier: Any, initial: dict[str, torch.Tensor]
) -> float:
    """Mean entropy in bits of the draw of up to 2,000 parameters from each tensor."""
    settings = replace(settings, center="initial")
    center = {name: initial[name].flatten() for name in collection.names}
    bits = []
    for name in collection.names:
        piece = next(piece for piece in collection.slices() if piece.name == name)
        rows = [row[:2000] for row in piece.rows]
        size = len(rows[0])
        piece = replace(piece, rows=rows, stop=piece.start + size)
        lo, hi, bandwidth = _grid_of(piece, settings, center, collection.shapes)
        scores = kde_scores(rows, lo=lo, hi=hi, bandwidth=bandwidth, window_ratio=settings.window_ratio)
        p = kde_em_probabilities_reference(scores, float(multiplier))
        bits.append(-(p * p.clamp_min(1e-300).log2()).sum(dim=1).mean().item())
    return statistics.mean(bits)


if __name__ == "__main__":
    main()
