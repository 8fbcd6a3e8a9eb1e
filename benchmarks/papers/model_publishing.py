"""Membership inference against what DP-PG publishes: figures 8 and 9 and table 2 of its paper.

    python -m benchmarks.papers.model_publishing --data-root DIR [--dataset NAME ...] [--figure 8] [--figure 9]
        [--table 2] [--draws 3] [--images DIR] [--json FILE]

Paper: Mao et al., IEEE TPDS 2022, section 6.2. It attacks the unprotected model and its publications with the
black-box shadow-model attack and with the white-box attack of Leino and Fredrikson, and gives the attacks' accuracy
per class (figure 8), averaged (figure 9), and recall, precision and accuracy on SVHN (table 2). All three are views of
one experiment here: each method publishes from one folder of members, trained on the same records as in the paper, and
all attacks face the same members and non-members. :func:`methods` is the list of methods.

Accuracy is balanced, at a threshold chosen on a random half of the records and measured on the other half, so that
choosing it flatters nothing (``privkernels.audit.metrics``).

Departures from the paper: perceptrons in place of its convolutional networks, and fewer records and members, so that
it runs on a processor in minutes (``--model cifar-net`` takes the paper's); general-wb and bayes-wb at the last layer.
SVHN needs its files in --data-root; without ``--dataset svhn`` table 2 is that of the data sets that are given. A JSON
file that is there keeps its other data sets, so that they can be run one at a time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.papers import publishing_views as views
from benchmarks.papers.datasets import centred
from benchmarks.papers.results import put_study
from privkernels import data, models, workflow
from privkernels.attacks import (
    Attack,
    BayesWhiteBox,
    GeneralWhiteBox,
    LossThreshold,
    ShadowModelAttack,
    train_shadows,
)
from privkernels.audit import Target, audit
from privkernels.audit.audit import TargetResult
from privkernels.audit.intervals import Figure
from privkernels.data import DataSet
from privkernels.publishing import DpPgSettings, Release
from privkernels.training import TrainingConfig, load_training

PAPER_EPSILONS = (0.1, 1.0, 3.0, 10.0)
# At the paper's epsilons the proven mode is useless; the last two show from where on it is not.
PROVEN_EPSILONS = (1.0, 10.0, 1e4, 1e6)


@dataclass(frozen=True)
class Method:
    """One way to publish from a folder of members.

    Attributes:
        name: what it is.
        epsilon: the budget that it is given, as its paper or our proof means it; None without one.
        publish: makes a release from the folder; None publishes a member as it is.
    """

    name: str
    epsilon: float | None = None
    publish: Callable[[Path], Release] | None = None


def methods(quick: bool = False) -> list[Method]:
    """Every method that is compared, once per budget."""
    found = [Method(views.UNPROTECTED)]
    for mode, epsilons in (("paper", PAPER_EPSILONS), ("proven", PROVEN_EPSILONS)):
        for epsilon in epsilons[1:2] if quick else epsilons:
            settings = DpPgSettings(epsilon, mode=mode)
            found.append(Method(f"DP-PG, {mode} mode", epsilon, partial(workflow.publish, settings=settings)))
    return found


@dataclass(frozen=True)
class Setting:
    """What is trained on a data set.

    Attributes:
        records: training records of every member; the attacker has twice as many others, for shadow models that
            train on as many.
        model: a spec of :func:`privkernels.models.build`.
        config: how members and shadow models are trained.
        centred: whether pixels are centred first (:func:`~benchmarks.papers.datasets.centred`).
    """

    records: int
    model: str
    config: TrainingConfig
    centred: bool = False


SETTINGS = {
    "mnist": Setting(2000, "mlp-128", TrainingConfig(epochs=30, learning_rate=0.05)),
    "cifar-10": Setting(2000, "mlp-128", TrainingConfig(epochs=20, batch_size=100, learning_rate=0.01), centred=True),
    "svhn": Setting(2000, "mlp-128", TrainingConfig(epochs=20, batch_size=100, learning_rate=0.01), centred=True),
    "digits": Setting(300, "mlp-32", TrainingConfig(epochs=20, batch_size=32, learning_rate=0.1)),
}


def study(
    name: str,
    dataset: DataSet,
    setting: Setting,
    folder: Path,
    chosen: Sequence[Method],
    *,
    members: int = 16,
    draws: int = 3,
    shadows: int = 8,
) -> dict[str, Any]:
    """All methods under all attacks on one data set.

    Args:
        folder: for the members and the shadow models; what is there already is not trained again.
        draws: releases per method and budget.
        shadows: shadow models of the attacker.
    """
    if setting.centred:
        dataset = replace(dataset, train=centred(dataset.train), test=centred(dataset.test))
    trained = workflow.train(
        dataset, setting.model, folder / "members", members=members, records=setting.records, subset_fraction=1.0,
        config=setting.config, seed=0, progress=_progress,
    )  # fmt: skip
    who = workflow.audit_records(dataset, workflow.training_run(trained), max_records=setting.records)
    shape, classes = tuple(dataset.train.x.shape[1:]), dataset.train.n_classes
    make_model = partial(models.build, setting.model, input_shape=shape, n_classes=classes, seed=0)
    own = train_shadows(make_model, who.attacker, setting.config, shadows, cache=folder / "shadows", progress=_progress)
    attacks: list[Attack] = [
        LossThreshold(),
        ShadowModelAttack().fit(own, progress=_progress),
        BayesWhiteBox().fit(who.attacker),
        GeneralWhiteBox().fit(own, progress=_progress),
    ]
    member = models.load_weights(make_model(), load_training(trained).member_paths[0])
    rows = []
    for method in chosen:
        for draw in range(1 if method.publish is None else draws):
            if method.publish is None:
                target = Target(method.name, member)
            else:
                target = workflow.release_target(method.publish(trained), make_model, method.name)
            result = audit([target], attacks, who.members, who.nonmembers, test=who.test)
            rows.append({"method": method.name, "epsilon": method.epsilon, "draw": draw, **_row(result.targets[0])})
            print(method.name, method.epsilon, f"test accuracy {rows[-1]['test_accuracy']:.3f}", flush=True)
    return {
        "dataset": name,
        "data": dataset.name,
        **asdict(setting),
        "members": members,
        "n_members": len(who.members),
        "n_nonmembers": len(who.nonmembers),
        "attacker_records": len(who.attacker),
        "draws": draws,
        "shadows": shadows,
        "fidelity": asdict(own.fidelity),
        "rows": rows,
    }


def _progress(done: int, total: int, what: str) -> None:
    print(f"\r{what}: {done}/{total}", end="\n" if done == total else "", flush=True)


def _row(result: TargetResult) -> dict[str, Any]:
    guarantee = result.guarantee or {"claimed": None, "proven": None, "unit": None, "not_proven_because": None}
    return {
        "claimed": guarantee["claimed"] and guarantee["claimed"]["epsilon"],
        "proven": guarantee["proven"] and {key: guarantee["proven"][key] for key in ("epsilon", "delta")},
        "not_proven_because": guarantee["not_proven_because"],
        "unit": guarantee["unit"],
        "test_accuracy": result.test_accuracy,
        "member_accuracy": result.member_accuracy,
        "attacks": {
            attack.attack: {
                "auc": _limits(attack.metrics.auc),
                "tpr_at_1_percent": _limits(attack.metrics.tpr_at_fpr[0].tpr),
                "accuracy": _limits(attack.metrics.at_threshold.balanced_accuracy),
                "recall": _limits(attack.metrics.at_threshold.recall),
                "precision": _limits(attack.metrics.at_threshold.precision),
                "per_class": [_limits(row.balanced_accuracy) for row in attack.metrics.per_class],
            }
            for attack in result.attacks
        },
    }


def _limits(figure: Figure) -> list[float] | None:
    """Value and 95 % limits; None where there are too few records to say."""
    if figure.value is None or figure.low is None or figure.high is None:
        return None
    return [figure.value, figure.low, figure.high]


def main(arguments: list[str] | None = None) -> None:
    """Print the tables that are asked for (all by default), and write figures and pictures where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--dataset", nargs="+", choices=list(SETTINGS), default=["mnist"])
    parser.add_argument("--model", help="another network than the data set's perceptron, such as cifar-net")
    parser.add_argument("--figure", type=int, action="append", choices=(8, 9), default=[])
    parser.add_argument("--table", type=int, action="append", choices=(2,), default=[])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3, help="releases per method and budget")
    parser.add_argument("--folder", type=Path, help="keep members and shadow models here; rerun to continue")
    parser.add_argument("--images", type=Path, help="draw figure8.png and figure9.png of the first data set here")
    parser.add_argument("--quick", action="store_true", help="few members and methods: figures mean little")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    small = {"members": 4, "draws": 1, "shadows": 4}
    sizes = small if options.quick else {"members": options.members, "draws": options.draws}
    everything = not options.figure and not options.table
    wanted = [views.figure8] * (everything or 8 in options.figure)
    wanted += [views.figure9] * (everything or 9 in options.figure)
    wanted += [views.table2] * (everything or 2 in options.table)
    for name in options.dataset:
        setting = SETTINGS[name] if options.model is None else replace(SETTINGS[name], model=options.model)
        with tempfile.TemporaryDirectory() as scratch:
            folder = (options.folder or Path(scratch)) / name
            loaded = data.load(name, options.data_root)
            found = study(name, loaded, setting, folder, methods(options.quick), **sizes)
        for view in (*wanted, views.three_numbers):
            print("\n" + "\n".join(view(found)), flush=True)
        if options.json:
            put_study(options.json, "model_publishing", found | {"quick": options.quick})
        if options.images and name == options.dataset[0]:
            views.draw(found, options.images)


if __name__ == "__main__":
    main()
