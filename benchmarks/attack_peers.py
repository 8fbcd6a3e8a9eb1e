"""The same attack on the same targets by this library, by PrivacyGuard and by ART.

    python -m benchmarks.attack_peers [--shadows 32] [--targets 6] [--json FILE]

Two games: digits with a fifth of the labels replaced, and scikit-learn's diabetes records (is the progression above the
median?). Each target is trained on a random half of the pool; the attacker's shadow models on other halves. Where a
peer's AUC is not ours, its formula is computed here again without the peer (benchmarks/peers/formulas.py), and must
then rank the records as the peer does. A library that is not installed is skipped by name.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmarks.peers import attacks
from benchmarks.peers.comparisons import Comparison, art_comparisons, privacyguard_comparisons
from benchmarks.peers.formulas import Bools
from benchmarks.peers.games import View, diabetes, noisy_digits, play
from benchmarks.timing import machine_facts
from privkernels import _files
from privkernels.attacks import AttributeInference
from privkernels.attacks.base import Array
from privkernels.audit.metrics import tpr_at_fpr
from privkernels.audit.paired import auc_difference

RATE = 0.01
# Two AUCs that differ by no more than this on every target are called equal.
ROUNDING = 5e-4
# The column of diabetes that holds the sex, which is what attribute inference guesses.
SEX = 1


def figures(scores: Sequence[Array], views: Sequence[View]) -> dict[str, Any]:
    """Mean AUC, TPR and share of records whose score another has too, over the targets.

    The TPR is None where the non-members are too few.
    """
    areas, rates, tied = [], [], []
    for values, view in zip(scores, views, strict=True):
        areas.append(float(roc_auc_score(view.member, values)))
        rates.append(tpr_at_fpr(values[view.member], values[~view.member], RATE).tpr.value)
        counts = np.unique(values, return_counts=True)[1]
        tied.append(float(counts[counts > 1].sum() / len(values)))
    known = [rate for rate in rates if rate is not None]
    return {
        "auc": float(np.mean(areas)),
        "tpr": float(np.mean(known)) if len(known) == len(rates) else None,
        "tied": float(np.mean(tied)),
        "aucs": areas,
    }


def compare(comparison: Comparison, views: Sequence[View]) -> dict[str, Any]:
    """One row: both sides, their paired difference, and the ways from one to the other.

    The difference is the mean over the targets, and its limits are the means of the limits: an interval that holds
    however much the targets' differences depend on each other, since they share their records.
    """
    views = comparison.views(views)
    sides = [[way(view) for view in views] for _, way in (comparison.ours, comparison.theirs)]
    pairs = [
        auc_difference(*((scores[view.member], scores[~view.member]) for scores in both))
        for *both, view in zip(*sides, views, strict=True)
    ]
    mine, their = (figures(scores, views) for scores in sides)
    row: dict[str, Any] = {
        "attack": comparison.attack,
        "library": comparison.library,
        "targets": len(views),
        "ours": {"what": comparison.ours[0], **mine},
        "theirs": {"what": comparison.theirs[0], **their},
        "difference": {
            name: float(np.mean([getattr(pair, name) for pair in pairs])) for name in ("value", "low", "high")
        },
        "apart": _apart(mine, their),
        "explained": [],
    }
    for what, way in comparison.explained:
        found = figures([way(view) for view in views], views)
        row["explained"].append({"what": what, **found, "apart": _apart(found, their)})
    if comparison.explained and comparison.exact:
        apart = row["explained"][-1]["apart"]
        assert apart < ROUNDING, f"{comparison.attack}, {comparison.theirs[0]}: not explained, {apart} apart"
    return row


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(np.abs(np.subtract(one["aucs"], other["aucs"])).max())


def attribute_rows(views: Sequence[View], with_art: bool) -> list[dict[str, Any]]:
    """Right guesses of the sex among the diabetes records, summed over the targets, and the imputation's."""
    pool, own = views[0].records, views[0].population
    values = sorted(set(pool.x[:, SEX].tolist()))
    ours = AttributeInference([SEX], torch.tensor(values)).fit(own)
    truth = ours.true_values(pool)

    def art(kind: str) -> Callable[[View], Any]:
        return lambda view: attacks.art_attribute(kind, view.target, own, pool, SEX, values, seed=0)

    ways: dict[str, Callable[[View], Any]] = {
        "imputation, no model": lambda _: ours.impute(pool).values,
        "ours, conditional": lambda view: ours.infer(view.target, pool).values,
    }
    if with_art:
        ways |= {f"ART, {kind}": art(kind) for kind in ("nn", "rf", "gb")}
    right = {what: np.stack([np.asarray(way(view)) == truth for view in views]) for what, way in ways.items()}
    member = np.stack([view.member for view in views])
    return [
        {
            "what": what,
            "members": int((found & member).sum()),
            "n_members": int(member.sum()),
            "nonmembers": int((found & ~member).sum()),
            "n_nonmembers": int((~member).sum()),
            # Of one target: the same records come again with each.
            "p_of_imputation": [
                _mcnemar(one[view.member], blind[view.member])
                for one, blind, view in zip(found, right["imputation, no model"], views, strict=True)
            ],
        }
        for what, found in right.items()
    ]


def _mcnemar(one: Bools, other: Bools) -> float:
    """The exact two-sided p-value of "both are right equally often"."""
    more, less = int((one & ~other).sum()), int((other & ~one).sum())
    return float(stats.binomtest(more, more + less).pvalue) if more + less else 1.0


def run(n_targets: int, n_shadows: int, libraries: Sequence[str]) -> dict[str, Any]:
    """Both games, with the peers that are in ``libraries``."""
    games = {
        "noisy digits": play(noisy_digits(), 1400, 60, n_targets, n_shadows),
        "diabetes": play(diabetes(), 300, 200, n_targets, n_shadows),
    }
    rows = []
    for name, views in games.items():
        comparisons: list[Comparison] = []
        if "PrivacyGuard" in libraries:
            comparisons += privacyguard_comparisons(views)
        if "ART" in libraries:
            x = views[0].records.x
            comparisons += art_comparisons(views, (float(x.min()), float(x.max())))
        for comparison in comparisons:
            rows.append({"data": name, **compare(comparison, views)})
            print(line(rows[-1]), flush=True)
    attributes = attribute_rows(games["diabetes"], "ART" in libraries)
    return {"targets": n_targets, "shadows": n_shadows, "rows": rows, "attribute": attributes}


def line(row: dict[str, Any]) -> str:
    """A row of the page's table."""
    ours, theirs, difference = row["ours"], row["theirs"], row["difference"]
    verdict = "equal" if row["apart"] < ROUNDING else ""
    interval = f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
    sides = (f"{side['what']}: {side['auc']:.3f}, {_percent(side['tpr'])}" for side in (ours, theirs))
    cells = (row["data"], row["attack"], next(sides), f"{row['library']} {next(sides)}", verdict or interval)
    return f"| {' | '.join(cells)} |"


def explanations(row: dict[str, Any]) -> list[str]:
    """Rows of the page's second table: the peer's figures, and what was computed here on the way to them."""
    if not row["explained"] or row["apart"] < ROUNDING:
        return []
    name = f"{row['data']} | {row['attack']}"
    ways = [{**row["theirs"], "what": f"**{row['library']} {row['theirs']['what']}**"}, *row["explained"]]
    return [
        f"| {name} | {way['what']} | {way['auc']:.4f} | {_percent(way['tpr'])} | {way['tied']:.0%} |" for way in ways
    ]


def attribute_line(row: dict[str, Any]) -> str:
    """A row of the page's third table."""
    shares = (f"{row[side] / row[f'n_{side}']:.1%}" for side in ("members", "nonmembers"))
    return f"| {row['what']} | {' | '.join(shares)} |"


def _percent(rate: float | None) -> str:
    return "too few" if rate is None else f"{rate:.1%}"


def installed() -> dict[str, str]:
    """The peers that are there, with their versions."""
    known = {
        "PrivacyGuard": ("privacy_guard", "privacyguard-platform"),
        "ART": ("art", "adversarial-robustness-toolbox"),
    }
    found = {}
    for name, (module, distribution) in known.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed (pip install {distribution}): skipped")
        else:
            found[name] = version(distribution)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shadows", type=int, default=32)
    parser.add_argument("--targets", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args(arguments)
    libraries = installed()
    result = run(options.targets, options.shadows, list(libraries))
    for row in result["rows"]:
        for way in explanations(row):
            print(way)
    print(*map(attribute_line, result["attribute"]), sep="\n")
    if options.json is not None:
        facts = {"benchmark": "attack_peers", "machine": machine_facts(torch.device("cpu")), "libraries": libraries}
        _files.write_json(options.json, {**facts, **result})


if __name__ == "__main__":
    main()
