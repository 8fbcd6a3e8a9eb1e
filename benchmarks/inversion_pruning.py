"""What each layer of LeNet-5 gives away of a picture, dense and pruned by magnitude.

    python -m benchmarks.inversion_pruning --data-root DIR [--quick] [--json FILE]

The MNIST half of Huang et al. (2020, "Privacy-preserving Learning via Deep Net Pruning"), Section 5: the dense network
is trained, then in each round a fifth of the surviving weights is pruned and the rest trained on for five epochs. The
attacker has the pruned network's weights, what a layer put out, and the mean of the held-out records. Departures: the
first 5,000 training records instead of 60,000; pruning with one threshold for all layers and, as the paper does not say
which, with one for each layer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.inversion import best_of, controls, figures, mean, standard_error
from benchmarks.timing import machine_facts
from privkernels import _files, inference, models
from privkernels.attacks.base import Array
from privkernels.attacks.inversion import InversionSettings, representation_at
from privkernels.attacks.similarity import ReconstructionReport
from privkernels.data import DataSet, Records, load
from privkernels.ops import prune_apply_, prune_mask
from privkernels.randomness import Key

Scope = Literal["all layers", "each layer"]
SHARE, EPOCHS, RETRAINING = 0.2, 20, 5  # pruned in a round; epochs of the dense network; epochs after a round
ROUNDS = (3, 7, 15)  # after which the networks are attacked: 51 %, 21 % and 3.5 % of the weights are left
TV_WEIGHTS = (0.03, 0.3)  # of each row the one with the greatest mean PSNR, which favours the attack
# Each with its ReLU, before the pooling; the last are the logits.
LAYERS = {"Conv1": "1", "Conv2": "4", "FC1": "8", "FC2": "10", "FC3": "11"}


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def weights_of(module: nn.Module) -> list[Tensor]:
    """What is pruned: the weights of convolutions and dense layers, not their biases."""
    return [parameter for parameter in module.parameters() if parameter.dim() > 1]


def train(module: nn.Module, records: Records, epochs: int, order: torch.Generator, masks: Sequence[Tensor]) -> None:
    """SGD as the paper's (0.05, momentum 0.9, batches of 256); what ``masks`` does not keep stays 0."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(records), generator=order).split(256):
            optimizer.zero_grad()
            functional.cross_entropy(module(records.x[batch]), records.y[batch]).backward()
            optimizer.step()
            if masks:
                prune_apply_(weights_of(module), masks)


def masks_for(weights: Sequence[Tensor], kept: float, scope: Scope) -> list[Tensor]:
    if scope == "all layers":
        return prune_mask(weights, sparsity=1 - kept)[0]
    return [prune_mask(weight, sparsity=1 - kept)[0][0] for weight in weights]


def pruned(
    dense: nn.Module, records: Records, scope: Scope, rounds: int, epochs: int, order: torch.Generator
) -> dict[int, nn.Module]:
    """The networks after each of ROUNDS up to ``rounds``."""
    module = lenet5()
    module.load_state_dict(dense.state_dict())
    found = {}
    for number in range(1, rounds + 1):
        # Pruned weights are 0, the smallest magnitude: a mask over all keeps a share of the survivors alone.
        masks = masks_for(weights_of(module), (1 - SHARE) ** number, scope)
        prune_apply_(weights_of(module), masks)
        train(module, records, epochs, order, masks)
        if number in ROUNDS:
            found[number] = lenet5()
            found[number].load_state_dict(module.state_dict())
    return found


def attack(
    module: nn.Module, layer: str, originals: Records, data: DataSet, settings: InversionSettings
) -> tuple[ReconstructionReport, dict[str, Any]]:
    with torch.no_grad():
        seen = representation_at(module, layer)(originals.x)
    found, report, weight = best_of(module, layer, seen, originals, data, settings, TV_WEIGHTS)
    return report, {"tv_weight": weight, **figures(report, found.relative_error, found.steps)}


def difference(pruned: Array | None, dense: Array | None) -> dict[str, float]:
    """Of the same pictures' figures, so that what makes a picture easy or hard falls out."""
    assert pruned is not None
    assert dense is not None
    return {"mean": mean(pruned - dense), "standard_error": standard_error(pruned - dense)}


def run(data: DataSet, quick: bool) -> dict[str, Any]:
    records, heldout = data.train.subset(range(500 if quick else 5_000)), data.test
    attacked = DataSet(data.name, records, heldout)
    originals = records.subset(range(2 if quick else 16))
    settings = InversionSettings(steps=5) if quick else InversionSettings()
    key = Key.from_seed(0).derive("lenet-5")
    order = key.generator("order")
    with models.seeded(key.seed_for("initialisation")):
        dense = lenet5()
    train(dense, records, 1 if quick else EPOCHS, order, [])
    networks: list[tuple[str, int, nn.Module]] = [("dense", 0, dense)]
    scopes: tuple[Scope, ...] = ("all layers", "each layer")
    for scope in scopes:
        after = pruned(dense, records, scope, ROUNDS[0] if quick else ROUNDS[-1], 1 if quick else RETRAINING, order)
        networks += [(scope, number, module) for number, module in after.items()]
    reports: dict[str, ReconstructionReport] = {}
    results = []
    for scope_name, rounds, module in networks:
        rows = []
        for label, layer in LAYERS.items():
            report, row = attack(module, layer, originals, attacked, settings)
            first = reports.setdefault(label, report)
            row["psnr_to_dense"] = difference(report.psnr, first.psnr)
            row["ssim_to_dense"] = difference(report.ssim, first.ssim)
            rows.append({"layer": label, **row})
        left = [int((weight != 0).sum()) for weight in weights_of(module)]
        results.append(
            {
                "threshold": scope_name,
                "rounds": rounds,
                "kept": round((1 - SHARE) ** rounds, 4),
                "weights_left": left,
                "test_accuracy": round(inference.accuracy(module, heldout), 4),
                "rows": rows,
            }
        )
        print(results[-1], flush=True)
    return {
        "benchmark": "inversion_pruning",
        "data": data.name,
        "training_records": len(records),
        "heldout_records": len(heldout),
        "images": len(originals),
        "steps": settings.steps,
        "learning_rates": list(settings.learning_rates),
        "tv_weights": list(TV_WEIGHTS),
        "controls": controls(report, originals, heldout),
        "machine": machine_facts(torch.device("cpu")),
        "networks": results,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="a folder with MNIST")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    result = run(load("mnist", options.data_root), options.quick)
    if options.json:
        _files.write_json(options.json, result)


if __name__ == "__main__":
    main()
