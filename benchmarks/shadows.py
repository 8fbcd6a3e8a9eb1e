"""Training shadow models together beside training them one by one.

    python -m benchmarks.shadows [--shadows 64] [--rounds 3] [--json FILE]

The same shadows (halves, initialisations, batch order) are trained twice in one process: by
:func:`privkernels.attacks.train_shadows`, and one at a time with torch.optim. Before anything is timed, the shadows of
one way after five epochs are compared with those of the other: the same networks, up to float rounding. What is timed
includes writing the shadows to files for the first, and not for the second.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.timing import Contender, interleaved, machine_facts
from privkernels import _files, data, models
from privkernels.attacks import Shadows, train_shadows
from privkernels.attacks.shadows import GROUP
from privkernels.data import Records
from privkernels.randomness import Key
from privkernels.training import TrainingConfig
from privkernels.training.alone import fit_alone
from privkernels.training.common import new_model

# The largest distance between a parameter of the two after so many epochs: float rounding, which training amplifies.
TOLERANCE, CHECKED_EPOCHS = 1e-3, 5


@dataclass(frozen=True)
class Setting:
    """A network and how its shadows are trained."""

    spec: str
    records: Records
    config: TrainingConfig

    def make_model(self) -> nn.Module:
        """A new network."""
        return models.build(self.spec, input_shape=tuple(self.records.x.shape[1:]), n_classes=self.records.n_classes)

    def __str__(self) -> str:
        size = models.parameter_count(self.make_model())
        return (
            f"{self.spec} ({size:,} parameters), {len(self.records) // 2} records, batches of {self.config.batch_size}"
        )


def settings() -> list[Setting]:
    """Small networks on scikit-learn's digits."""
    digits = data.load("digits").train
    config = TrainingConfig(epochs=20, batch_size=32, learning_rate=0.1)
    return [Setting(spec, digits, config) for spec in ("linear", "mlp-32", "mlp-128")]


def one_by_one(setting: Setting, shadows: Shadows) -> list[dict[str, torch.Tensor]]:
    """The same shadows, each trained alone."""
    states = []
    for shadow, row in enumerate(shadows.inside):
        key = Key.from_seed(0).derive(f"group/{shadow // GROUP}")
        member = shadow % GROUP
        start = new_model(setting.make_model, key.seed_for(f"training/initial/{member}")).state_dict()
        indices = torch.from_numpy(row).nonzero()[:, 0]
        seed = key.seed_for(f"training/member/{member}")
        states.append(fit_alone(setting.make_model, start, setting.records, indices, setting.config, seed))
    return states


def distance(shadows: Shadows, states: list[dict[str, torch.Tensor]]) -> float:
    """The largest distance between a parameter of one way and of the other."""
    return max(
        float((tensor - state[name]).abs().max())
        for shadow, state in enumerate(states)
        for name, tensor in shadows.model(shadow).state_dict().items()
    )


def measure(setting: Setting, n_shadows: int, rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds, with all threads."""

    def together(setting: Setting = setting) -> Shadows:
        return train_shadows(setting.make_model, setting.records, setting.config, n_shadows)

    short = replace(setting, config=replace(setting.config, epochs=CHECKED_EPOCHS))
    shadows = together(short)
    error = distance(shadows, one_by_one(short, shadows))
    assert error < TOLERANCE, f"the two ways train different networks: a parameter differs by {error}"
    threads = torch.get_num_threads()
    contenders = [
        Contender("together", together, n_shadows, threads),
        Contender("one by one", lambda: one_by_one(setting, shadows), n_shadows, threads),
    ]
    ours, theirs = interleaved(contenders, rounds, torch.device("cpu"))
    return {
        "setting": str(setting),
        "shadows": n_shadows,
        "epochs": setting.config.epochs,
        "largest_difference": error,
        "together_s": ours.wall_ns * n_shadows / 1e9,
        "one_by_one_s": theirs.wall_ns * n_shadows / 1e9,
        "ratio": theirs.wall_ns / ours.wall_ns,
    }


def main() -> None:
    """Print one row per setting, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    rows = []
    for setting in settings():
        row = measure(setting, arguments.shadows, arguments.rounds)
        rows.append(row)
        print(
            f"{row['setting']}: {row['shadows']} shadows together {row['together_s']:.2f} s, one by one "
            f"{row['one_by_one_s']:.2f} s: {row['ratio']:.1f} times as long"
        )
    if arguments.json is not None:
        machine = machine_facts(torch.device("cpu"))
        _files.write_json(arguments.json, {"benchmark": "shadows", "machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
