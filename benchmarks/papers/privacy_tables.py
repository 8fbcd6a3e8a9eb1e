"""The epsilons behind the papers' claims, and what audits of the mechanisms find, planted bugs included.

    python -m benchmarks.papers.privacy_tables [--draws 200000] [--json FILE]

Tables: DP-PG's composition over all parameters of a network (delta = 1e-5), the offloading paper's Section 5.3, and
lower bounds on the epsilon of each mechanism from its draws on a pair of neighbouring inputs (95 % confidence), beside
what is promised; a bug is found where the lower bound is above the promise.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privkernels import _files
from privkernels.audit import audit_mechanism
from privkernels.ops import kde_em, kde_peak
from privkernels.privacy import (
    BoundedRangeEvent,
    GaussianEvent,
    compose,
    discrete_gaussian,
    discrete_laplace,
    exponential_mechanism,
    formula_curves,
    paper_kde_sensitivity,
    permute_and_flip,
    randomized_response,
    zcdp_to_epsilon,
)
from privkernels.randomness import Key

DELTA = 1e-5
PARAMETERS = (7_850, 314_394, 1_199_882)
DRAW_EPSILONS = (1.0, 0.1, 0.01)
MEMBERS = 10
_labels = itertools.count()


def composition_rows() -> list[dict[str, float]]:
    """N draws of epsilon each, for one member: what the paper claims is the epsilon of one."""
    rows = []
    for count, epsilon in itertools.product(PARAMETERS, DRAW_EPSILONS):
        proven = compose([BoundedRangeEvent(eta=epsilon, count=count)], DELTA).epsilon
        rows.append(
            {
                "parameters": count,
                "claimed": epsilon,
                "basic": count * epsilon,
                "zcdp": zcdp_to_epsilon(count * epsilon**2 / 8, DELTA),
                "proven": proven,
            }
        )
    return rows


def offloading_rows() -> list[dict[str, float]]:
    stds = (0.23, 0.5, 1.0, 2.0, 3.1, 10.0)
    curves = formula_curves(stds)
    names = ("dp_a", "zcdp_a_printed", "rdp_a_printed", "zcdp_a", "rdp_a", "cks", "exact")
    return [{"std": std, **{name: float(getattr(curves, name)[i]) for name in names}} for i, std in enumerate(stds)]


def label() -> str:
    return str(next(_labels))


def selection(mechanism: Any, key: Key, **arguments: float) -> Any:
    """Thirty candidates move against one: scores on which a selection spends most of its epsilon."""
    first, second = [0.0] * 30 + [1.0], [1.0] * 30 + [0.0]

    def draw(other: bool, count: int) -> np.ndarray:
        rows = torch.tensor(second if other else first).expand(count, -1)
        return np.asarray(mechanism(rows, key=key, label=label(), **arguments).value)

    return draw


def noise(mechanism: Any, key: Key, **arguments: float) -> Any:
    def draw(other: bool, count: int) -> np.ndarray:
        x = torch.full((count,), float(other))
        return np.asarray(mechanism(x, key=key, label=label(), coordinates_affected=1, **arguments).value)

    return draw


def response(key: Key, epsilon: float) -> Any:
    def draw(other: bool, count: int) -> np.ndarray:
        values = torch.full((count,), int(other))
        return np.asarray(randomized_response(values, categories=10, epsilon=epsilon, key=key, label=label()).value)

    return draw


def density(key: Key, sensitivity: float, *, private_grid: bool = False) -> Any:
    """One parameter of DP-PG: nine members beyond the grid, the tenth replaced."""

    def draw(other: bool, count: int) -> np.ndarray:
        theta = torch.full((MEMBERS, count), 5.0)
        theta[0] = -1.0 if other else 1.0
        lo, hi = (float(theta.min()), float(theta.max())) if private_grid else (-1.0, 1.0)
        value, _ = kde_em(
            theta, lo=lo, hi=hi, bandwidth=0.1, window_ratio=0.99, grid_points=9, multiplier=1 / (2 * sensitivity),
            key=key, label=label(),
        )  # fmt: skip
        return np.asarray(value)

    return draw


def audit_rows(draws: int) -> list[dict[str, Any]]:
    key = Key.from_seed(0)
    delta = 1e-3
    gaussian = compose([GaussianEvent(mu=1.0)], delta).epsilon
    proved = kde_peak(0.99) / MEMBERS
    unit = {"sensitivity": 1.0}
    cases: list[tuple[str, str, Any, float, float]] = [
        ("exponential mechanism", "", selection(exponential_mechanism, key, epsilon=1.0, **unit), 1.0, 0.0),
        ("exponential mechanism", "half the noise", selection(exponential_mechanism, key, epsilon=2.0, **unit), 1.0, 0),
        ("permute-and-flip", "", selection(permute_and_flip, key, epsilon=1.0, **unit), 1.0, 0.0),
        ("permute-and-flip", "half the noise", selection(permute_and_flip, key, epsilon=2.0, **unit), 1.0, 0.0),
        ("discrete Laplace", "", noise(discrete_laplace, key, epsilon=1.0, **unit), 1.0, 0.0),
        ("discrete Laplace", "half the noise", noise(discrete_laplace, key, epsilon=2.0, **unit), 1.0, 0.0),
        ("discrete Gaussian", "", noise(discrete_gaussian, key, noise_std=1.0, **unit), gaussian, delta),
        ("discrete Gaussian", "half the noise", noise(discrete_gaussian, key, noise_std=0.5, **unit), gaussian, delta),
        ("randomised response", "", response(key, 1.0), 1.0, 0.0),
        ("randomised response", "half the noise", response(key, 2.0), 1.0, 0.0),
        ("DP-PG, one parameter", "", density(key, proved), 1.0, 0.0),
        ("DP-PG, one parameter", "the paper's sensitivity", density(key, paper_kde_sensitivity(MEMBERS)), 1.0, 0.0),
        ("DP-PG, one parameter", "a grid from the data", density(key, proved, private_grid=True), 1.0, 0.0),
    ]
    rows = []
    for mechanism, bug, draw, promised, allowed in cases:
        found = audit_mechanism(draw, draws, delta=allowed)
        rows.append(
            {
                "mechanism": mechanism, "bug": bug, "promised": promised, "delta": allowed,
                "at_least": found.epsilon_low, "ceiling": found.ceiling, "caught": found.epsilon_low > promised,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="epsilons of the papers' tables, and audits of the mechanisms")
    parser.add_argument("--draws", type=int, default=200_000, help="of each of two inputs, for each audit")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.draws < 1000:
        parser.error("--draws is at least 1000")
    composition, offloading, audits = composition_rows(), offloading_rows(), audit_rows(arguments.draws)
    print(f"DP-PG over all parameters, for one member, delta = {DELTA:g}")
    print(f"{'N':>10}{'claimed':>10}{'basic':>12}{'zCDP':>12}{'proven':>12}")
    for row in composition:
        numbers = "".join(f"{row[name]:>12.5g}" for name in ("basic", "zcdp", "proven"))
        print(f"{row['parameters']:>10,}{row['claimed']:>10g}{numbers}")
    print("\nOffloading paper, Section 5.3: sensitivity 1/sqrt(2), delta = 1e-4")
    print("   std     DP-A   zCDP-A    RDP-A  zCDP-A ln  RDP-A ln  best zCDP    exact")
    for row in offloading:
        print(
            f"{row['std']:>6g}{row['dp_a']:>9.4g}{row['zcdp_a_printed']:>9.4g}{row['rdp_a_printed']:>9.4g}"
            f"{row['zcdp_a']:>11.4g}{row['rdp_a']:>10.4g}{row['cks']:>11.4g}{row['exact']:>9.4g}"
        )
    print(f"\nAudits, {arguments.draws:,} draws of each input")
    print(f"{'mechanism':<24}{'bug':<26}{'promised':>10}{'at least':>10}{'caught':>8}")
    for found in audits:
        caught = "yes" if found["caught"] else "no"
        print(
            f"{found['mechanism']:<24}{found['bug'] or 'none':<26}{found['promised']:>10.4g}{found['at_least']:>10.4g}"
            f"{caught:>8}"
        )
    if arguments.json is not None:
        result = {"composition": composition, "offloading": offloading, "audits": audits, "draws": arguments.draws}
        _files.write_json(arguments.json, result, public=True)


if __name__ == "__main__":
    main()
