"""LiRA and RMIA with 4, 16 and 64 shadow models on the data sets that membership inference is usually measured on.

    python -m benchmarks.papers.standard_benchmarks --data-root DIR [--dataset NAME ...] [--cache DIR] [--json FILE]

Of each data set a pool of records is drawn, and 66 networks are trained on complementary halves of it. The first
network of each of several pairs is the target in turn: its complement is left out, and of the other pairs as many as
the attack may have are drawn at random for each target. Every record of the pool is scored, so members and
non-members are equally many, and equally many of the attacker's shadow models were trained on each record of either.

A figure is the mean over the targets with its standard error. The targets share one pool and one set of shadow models,
so the error says how much targets differ, and nothing of other pools. True positive rates at 1 % carry, for each
target, the Clopper-Pearson interval given the threshold. At 0.1 % a target has one or two false positives, too few for
a figure of one target (``privkernels.audit`` refuses it); only the mean over targets is reported.

Seconds are the processor's, so that a busy machine changes them little; they are unknown for a training that a cache
held already. A JSON file that is there keeps its other data sets, so that they can be run one at a time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.papers.datasets import centred, read_records
from benchmarks.papers.results import put_study
from privkernels import inference, models
from privkernels.attacks import RMIA, Attack, LiRA, LossThreshold, ShadowAttack, Shadows, train_shadows
from privkernels.attacks.base import Array
from privkernels.audit.intervals import auc
from privkernels.audit.metrics import allowed_false_positives, tpr_at_fpr
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.randomness import Key
from privkernels.training import TrainingConfig

COUNTS = (4, 16, 64)
TARGETS = 12
ATTACKS: dict[str, Callable[[], ShadowAttack]] = {
    "LiRA online": lambda: LiRA(mode="online"),
    "LiRA offline": lambda: LiRA(mode="offline"),
    "LiRA imputed": lambda: LiRA(mode="imputed"),
    "RMIA online": lambda: RMIA(mode="online"),
    "RMIA offline": lambda: RMIA(mode="offline"),
}


@dataclass(frozen=True)
class Setting:
    """What is trained on a data set.

    Attributes:
        pool: records; each network is trained on half of them.
        model: a spec of :func:`privkernels.models.build`.
        config: how targets and shadow models are trained.
        centred: whether pixels are centred first (:func:`~benchmarks.papers.datasets.centred`).
    """

    pool: int
    model: str
    config: TrainingConfig
    centred: bool = False


SETTINGS = {
    "location-30": Setting(3000, "mlp-128", TrainingConfig(epochs=40, learning_rate=0.1)),
    "adult": Setting(5000, "mlp-128", TrainingConfig(epochs=100, learning_rate=0.1)),
    "mnist": Setting(5000, "mlp-128", TrainingConfig(epochs=30, learning_rate=0.1)),
    "cifar-10": Setting(4000, "mlp-128", TrainingConfig(epochs=20, batch_size=100, learning_rate=0.01), centred=True),
    "digits": Setting(1000, "mlp-64", TrainingConfig(epochs=30, batch_size=32, learning_rate=0.1)),
}

# Figures of others. AUCs in percent as they were printed; "models" counts shadow (reference) models.
PUBLISHED = (
    {
        "dataset": "cifar-10",
        "attack": "LiRA online",
        "models": 16,
        "figures": "AUC 66.8 %, TPR 1.7 % at 0.1 % FPR (pooled variance: 68.6 % and 5.9 %)",
        "network": "wide residual network, 25,000 records, test accuracy about 91 %",
        "source": "README of the authors' code (research/mi_lira_2021 in tensorflow/privacy)",
    },
    {
        "dataset": "cifar-10",
        "attack": "LiRA online",
        "models": 254,
        "figures": "AUC 72.0 % (61.1 % where others repeated it)",
        "network": "wide residual network, 25,000 records, accuracy 99.9 % / 92.4 %",
        "source": "Zarifzadeh et al., ICML 2024, as quoted with the repetition in issue 146 of Privacy Meter",
    },
    {
        "dataset": "cifar-10",
        "attack": "RMIA online",
        "models": 254,
        "figures": "AUC 72.3 % (60.9 % where others repeated it)",
        "network": "wide residual network, 25,000 records, accuracy 99.9 % / 92.4 %",
        "source": "Zarifzadeh et al., ICML 2024, as quoted with the repetition in issue 146 of Privacy Meter",
    },
    {
        "dataset": "cifar-10",
        "attack": "RMIA offline",
        "models": 4,
        "figures": "AUC 71.0 % (64.7 % where others repeated it)",
        "network": "wide residual network, 25,000 records, accuracy 99.9 % / 92.4 %",
        "source": "Zarifzadeh et al., ICML 2024, table 2, as quoted with the repetition in issue 151 of Privacy Meter",
    },
)


def study(
    name: str,
    records: Records,
    setting: Setting,
    *,
    counts: Sequence[int] = COUNTS,
    targets: int = TARGETS,
    cache: Path | None = None,
) -> dict[str, Any]:
    """All attacks on one data set; raises InvalidArgumentError for counts that do not come in pairs."""
    if any(count < 4 or count % 2 for count in counts) or not 2 <= targets <= max(counts) // 2 + 1:
        raise InvalidArgumentError(
            "shadow models come in pairs, at least two of them, and 2 or more targets each need a pair of their own: "
            f"not {list(counts)} shadow models and {targets} targets"
        )
    key = Key.from_seed(0).derive(f"standard benchmarks/{name}")
    order = torch.randperm(len(records), generator=key.generator("pool"))
    pool = _distinct(records.subset(order), setting.pool)
    if setting.centred:
        pool = centred(pool)
    start, reports = time.process_time(), []

    def progress(done: int, total: int, what: str) -> None:
        reports.append(done)
        print(f"\r{name}: {what} {done}/{total}", end="", flush=True)

    shadows = train_shadows(
        partial(_network, setting.model, pool), pool, setting.config, max(counts) + 2, cache=cache, progress=progress
    )
    print()
    # What a cache holds already is reported as done, once and at the end.
    training = time.process_time() - start if len(reports) > 1 else None
    shadows.margins(pool)  # Now, for all: what is selected of the shadow models later takes them along.
    chosen = range(0, 2 * targets, 2)
    rows = [attack_all(shadows, chosen, "loss threshold", 0, key)]
    rows += [attack_all(shadows, chosen, attack, count, key) for attack in ATTACKS for count in counts]
    return {
        "dataset": name,
        "pool": len(pool),
        "classes": pool.n_classes,
        "model": setting.model,
        "centred": setting.centred,
        "training": asdict(setting.config),
        "networks": len(shadows),
        "targets": targets,
        "train_accuracy": spread([_accuracy(shadows, target, inside=True) for target in chosen]),
        "test_accuracy": spread([_accuracy(shadows, target, inside=False) for target in chosen]),
        "training_cpu_seconds": training,
        "rows": rows,
    }


def _distinct(records: Records, most: int) -> Records:
    """The first ``most`` different records: of two equal ones (Adult has some) either may be the member."""
    first: dict[bytes, int] = {}
    for row, digest in enumerate(records.digests()):
        first.setdefault(digest, row)
    return records.subset(list(first.values())[:most])


def _network(spec: str, records: Records) -> nn.Module:
    return models.build(spec, input_shape=tuple(records.x.shape[1:]), n_classes=records.n_classes)


def _accuracy(shadows: Shadows, target: int, *, inside: bool) -> float:
    rows = torch.from_numpy(shadows.inside[target] == inside)
    return inference.accuracy(shadows.model(target), shadows.pool.subset(rows))


def attack_all(shadows: Shadows, targets: Sequence[int], attack: str, count: int, key: Key) -> dict[str, Any]:
    """One attack with ``count`` shadow models on each target."""
    areas: list[float] = []
    at_1_percent: list[list[float]] = []
    at_01_percent: list[float] = []
    start = time.process_time()
    for target in targets:
        found = fitted(shadows, target, attack, count, key).score(shadows.model(target), shadows.pool)
        members, nonmembers = found[shadows.inside[target]], found[~shadows.inside[target]]
        areas.append(float(auc(members, nonmembers).value or 0.0))
        figure = tpr_at_fpr(members, nonmembers, 0.01).tpr
        at_1_percent.append([figure.value or 0.0, figure.low or 0.0, figure.high or 0.0])
        at_01_percent.append(share_found(members, nonmembers, 0.001))
    row = {
        "attack": attack,
        "shadows": count,
        "auc": spread(areas),
        "tpr_at_1_percent": {**spread([value for value, _, _ in at_1_percent]), "clopper_pearson": at_1_percent},
        "tpr_at_0.1_percent": spread(at_01_percent),
        "cpu_seconds_per_target": round((time.process_time() - start) / len(targets), 2),
    }
    print(f"{attack}, {count} shadow models: AUC {row['auc']['mean']:.3f}", flush=True)
    return row


def fitted(shadows: Shadows, target: int, attack: str, count: int, key: Key) -> Attack:
    """The attack on shadow ``target``, fitted on ``count`` others that come in pairs and do not include its own."""
    if not count:
        return LossThreshold()
    others = shadows.without_pair_of(target)
    generator = np.random.default_rng(key.seed_for(f"shadows of target {target}"))
    # One order of the pairs for each target, so that 16 shadow models are the 4 and twelve more.
    pairs = generator.permutation(np.unique(others.pairs))[: count // 2]
    return ATTACKS[attack]().fit(others.select(np.isin(others.pairs, pairs)))


def share_found(members: Array, nonmembers: Array, rate: float) -> float:
    """The share of the members above the (k+1)-th highest non-member, k = floor(rate n)."""
    allowed = allowed_false_positives(len(nonmembers), rate)
    return float((members > np.sort(nonmembers)[::-1][allowed]).mean())


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard error and the values themselves, one for each target."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return {"mean": statistics.mean(values), "standard_error": error, "targets": list(values)}


def table(found: dict[str, Any]) -> list[str]:
    """One data set as the lines of a Markdown table, figures in percent with their standard errors."""
    counts = sorted({row["shadows"] for row in found["rows"]} - {0})
    columns = [("AUC", "auc"), ("TPR at 1 %", "tpr_at_1_percent"), ("TPR at 0.1 %", "tpr_at_0.1_percent")]
    head = [f"{title}, K={count}" if count == counts[0] else f"K={count}" for title, _ in columns for count in counts]
    lines = ["| " + " | ".join([found["dataset"], *head]) + " |", "| --- " * (1 + len(head)) + "|"]
    for attack in dict.fromkeys(row["attack"] for row in found["rows"]):
        of_count = {row["shadows"]: row for row in found["rows"] if row["attack"] == attack}
        cells = [_cell((of_count.get(count) or of_count[0])[name]) for _, name in columns for count in counts]
        lines.append("| " + " | ".join([attack, *cells]) + " |")
    return lines


def _cell(figure: dict[str, Any]) -> str:
    return f"{100 * figure['mean']:.1f} ± {100 * figure['standard_error']:.1f}"


def main(arguments: list[str] | None = None) -> None:
    """Print one table per data set, and write all figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--dataset", nargs="+", choices=list(SETTINGS), default=[s for s in SETTINGS if s != "digits"])
    parser.add_argument("--shadows", type=int, nargs="+", default=COUNTS, help="shadow models of the attacker, even")
    parser.add_argument("--targets", type=int, default=TARGETS, help="at most half of the networks trained")
    parser.add_argument("--cache", type=Path, help="keep the networks here; rerun to continue")
    parser.add_argument("--quick", action="store_true", help="a small pool and few networks: figures mean nothing")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    for name in options.dataset:
        setting, settings = SETTINGS[name], {"counts": options.shadows, "targets": options.targets}
        if options.quick:
            config = replace(setting.config, epochs=max(1, setting.config.epochs // 3))
            setting, settings = replace(setting, pool=1000, config=config), {"counts": (4, 8), "targets": 2}
        found = study(name, read_records(name, options.data_root), setting, cache=options.cache, **settings)
        print("\n".join(table(found)), flush=True)
        if options.json:
            put_study(options.json, "standard_benchmarks", found | {"quick": options.quick}, published=list(PUBLISHED))


if __name__ == "__main__":
    main()
