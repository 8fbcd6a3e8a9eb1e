"""How strong each attack is, at 4, 16 and 64 shadow models, on two small data sets.

    python -m benchmarks.attacks [--quick] [--set NAME ...] [--attack NAME ...] [--json FILE]

Targets are shadow models themselves: each is attacked with shadow models of other pairs, on the pool that all of them
were trained on halves of, as an auditor would. The AUC is a mean over targets; true positive rates are of the scores of
all targets together, with Clopper-Pearson intervals. The targets share their records, so that these intervals leave out
how figures would vary over other records.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.timing import machine_facts
from privkernels import _files, data, models
from privkernels.attacks import (
    RMIA,
    Attack,
    BayesWhiteBox,
    GradientNorm,
    LabelOnlyAugmentation,
    LabelOnlyBoundary,
    LiRA,
    LossThreshold,
    ModifiedEntropy,
    NeuralAttack,
    PublicDataAttack,
    QuantileRegression,
    ShadowAttack,
    ShadowModelAttack,
    Shadows,
    train_shadows,
)
from privkernels.audit.metrics import FALSE_POSITIVE_RATES, measure, tpr_at_fpr
from privkernels.training import TrainingConfig


@dataclass(frozen=True)
class DataSet:
    """What shadow models are trained on and how.

    Attributes:
        pool: half of it trains each shadow model; all of it is scored.
        public: records that train none of them.
    """

    name: str
    pool: data.Records
    public: data.Records
    make_model: Callable[[], nn.Module]
    config: TrainingConfig


def noisy_digits() -> DataSet:
    """scikit-learn's digits, a fifth of the labels replaced at random; 1200 records train mlp-32."""
    digits = data.load("digits")
    x, y = (torch.cat([getattr(part, name) for part in (digits.train, digits.test)]) for name in "xy")
    rng = np.random.default_rng(0)
    wrong = torch.from_numpy(rng.random(len(y)) < 0.2)
    y = torch.where(wrong, torch.from_numpy(rng.integers(0, 10, len(y))), y)
    records = data.Records(x, y, 10, "noisy digits").subset(torch.from_numpy(rng.permutation(len(y))))
    config = TrainingConfig(epochs=60, batch_size=32, learning_rate=0.1)
    pool, public = records.subset(range(1200)), records.subset(range(1200, len(y)))
    return DataSet("digits", pool, public, lambda: models.build("mlp-32", input_shape=(1, 8, 8), n_classes=10), config)


def mixture() -> DataSet:
    """20 Gaussian classes in 40 dimensions, class means N(0, 0.46^2): 4000 records train mlp-128."""
    rng = np.random.default_rng(0)
    means = 0.46 * rng.standard_normal((20, 40))
    y = rng.integers(0, 20, 5000)
    x = means[y] + rng.standard_normal((5000, 40))
    records = data.Records(torch.from_numpy(x).float(), torch.from_numpy(y), 20, "Gaussian mixture")
    config = TrainingConfig(epochs=15, batch_size=64, learning_rate=0.05)
    pool, public = records.subset(range(4000)), records.subset(range(4000, 5000))
    return DataSet("mixture", pool, public, lambda: models.build("mlp-128", input_shape=(40,), n_classes=20), config)


DATA_SETS = {"digits": noisy_digits, "mixture": mixture}


@dataclass(frozen=True)
class Entry:
    """An attack of the benchmark.

    Attributes:
        make: a new one.
        shadow_counts: numbers of shadow models that it is measured at.
        n_targets: at most; few for an attack that is slow to fit.
    """

    make: Callable[[], Attack]
    shadow_counts: tuple[int, ...] = (4, 16, 64)
    n_targets: int = 10


NO_SHADOWS = (0,)
ATTACKS: dict[str, Entry] = {
    "loss threshold": Entry(LossThreshold, NO_SHADOWS),
    "modified entropy": Entry(ModifiedEntropy, NO_SHADOWS),
    "quantile regression": Entry(QuantileRegression, NO_SHADOWS, 4),
    "gradient norm": Entry(GradientNorm, NO_SHADOWS, 4),
    "bayes-wb": Entry(BayesWhiteBox, NO_SHADOWS, 4),
    "label-only, boundary": Entry(lambda: LabelOnlyBoundary(max_queries=300, clip=None), NO_SHADOWS, 1),
    "label-only, augmentation": Entry(lambda: LabelOnlyAugmentation(queries="gaussian"), (4, 16), 4),
    "shadow models": Entry(ShadowModelAttack, (4, 16), 2),
    "neural inference": Entry(NeuralAttack, (4,), 2),
    "LiRA online, per-record": Entry(lambda: LiRA(variance="per-record"), (16, 64)),
    "LiRA online, pooled": Entry(lambda: LiRA(variance="pooled")),
    "LiRA online": Entry(LiRA),
    "LiRA offline": Entry(lambda: LiRA(mode="offline")),
    "LiRA imputed": Entry(lambda: LiRA(mode="imputed")),
    "RMIA online": Entry(RMIA),
    "RMIA offline": Entry(lambda: RMIA(mode="offline"), n_targets=4),
}


def shadows_for(shadows: Shadows, target: int, count: int) -> Shadows:
    """``count`` shadow models in pairs, none of them the target's; other pairs for other targets."""
    others = [pair for pair in sorted(set(shadows.pairs)) if pair != shadows.pairs[target]]
    start = target % len(others)
    chosen = (others[start:] + others[:start])[: count // 2]
    return shadows.select(np.isin(shadows.pairs, chosen))


def fitted(attack: Attack, settings: DataSet, shadows: Shadows, target: int, count: int) -> Attack:
    if isinstance(attack, ShadowAttack):
        return attack.fit(shadows_for(shadows, target, count))
    return attack.fit(settings.public) if isinstance(attack, PublicDataAttack) else attack


def measured(name: str, settings: DataSet, shadows: Shadows, count: int) -> dict[str, Any]:
    """One attack at one number of shadow models: means over targets, and what they took."""
    entry, rates = ATTACKS[name], FALSE_POSITIVE_RATES
    step = 2 * max(1, len(shadows) // (2 * entry.n_targets))
    targets = range(0, len(shadows), step)[: entry.n_targets]
    areas, members, others, start = [], [], [], time.process_time()
    for target in targets:
        attack = fitted(entry.make(), settings, shadows, target, count)
        scores, inside = attack.score(shadows.model(target), settings.pool), shadows.inside[target]
        members.append(scores[inside])
        others.append(scores[~inside])
        areas.append(measure(members[-1], others[-1]).auc.value)
    row: dict[str, Any] = {"data": settings.name, "attack": name, "shadows": count, "targets": len(targets)}
    row |= {"auc": round(float(np.mean(areas)), 4), "auc_sd": round(float(np.std(areas)), 4)}
    for rate in rates:
        share = tpr_at_fpr(np.concatenate(members), np.concatenate(others), rate).tpr
        known = share.value is not None
        row[f"tpr_at_{rate:g}"] = [round(v, 4) for v in (share.value, share.low, share.high)] if known else None
    return row | {"seconds": round((time.process_time() - start) / len(targets), 2)}


def line(row: dict[str, Any]) -> str:
    def share(name: str) -> str:
        value = row[name]
        return "too few records      " if value is None else "{:5.1%} [{:5.1%}, {:5.1%}]".format(*value)

    return (
        f"{row['data']:8} {row['attack']:24} {row['shadows']:3}  {row['auc']:.3f}  "
        f"{share('tpr_at_0.01')}  {share('tpr_at_0.001')}  {row['seconds']:6.2f} s"
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description="how strong each attack is")
    parser.add_argument("--quick", action="store_true", help="few epochs and shadow models: to see that all of it runs")
    parser.add_argument("--set", nargs="+", choices=DATA_SETS, default=list(DATA_SETS), metavar="NAME")
    parser.add_argument("--attack", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args(words)
    rows, fidelities = [], {}
    print("data     attack                    K   AUC    TPR at 1 % FPR         TPR at 0.1 % FPR        per target")
    for settings in (DATA_SETS[name]() for name in arguments.set):
        config = TrainingConfig(epochs=2) if arguments.quick else settings.config
        n_shadows = 18 if arguments.quick else 66
        shadows = train_shadows(settings.make_model, settings.pool, config, n_shadows)
        fidelities[settings.name] = vars(shadows.fidelity)
        for name in arguments.attack:
            for count in ATTACKS[name].shadow_counts:
                if count < n_shadows:
                    rows.append(measured(name, settings, shadows, count))
                    print(line(rows[-1]), flush=True)
    if arguments.json is not None:
        result = {"benchmark": "attacks", "machine": machine_facts(torch.device("cpu")), "shadows": fidelities}
        _files.write_json(arguments.json, result | {"rows": rows})


if __name__ == "__main__":
    main()
