"""The accountant beside dp-accounting and Opacus: time for one question, and the epsilon that each gives.

    python -m benchmarks.accounting [--rounds 5] [--largest 10000000] [--json FILE]

Questions, all at delta = 1e-6: k draws of the exponential mechanism of range 0.1 / sqrt(k / 1000), which others account
as zCDP with eta^2 / 8 or, for few draws, as pure DP; a mixture of Gaussian noise and draws; and 1000 steps of a sampled
Gaussian. Before anything is timed the numbers are checked: ours may not be above another valid bound by more than what
grids and orders explain, nor below what an attack reaches.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dp_accounting
import torch
from dp_accounting import pld, rdp
from dp_accounting.pld import privacy_loss_distribution
from opacus.accountants import PRVAccountant, RDPAccountant

from benchmarks.timing import Contender, interleaved, machine_facts
from privkernels import _files
from privkernels.privacy import BoundedRangeEvent, Event, GaussianEvent, SampledGaussianEvent, compose
from privkernels.privacy.accounting import nonadaptive_bounded_range_delta

DELTA = 1e-6
NOISE, RATE, STEPS = 1.0, 0.01, 1000
OURS = "compose"


@dataclass(frozen=True)
class Question:
    """What is asked, and every way to answer it: each a function without arguments that returns epsilon."""

    name: str
    ways: dict[str, Callable[[], float]]


def ours(events: list[Event], numerical: bool = False) -> Callable[[], float]:
    return lambda: compose(events, DELTA, numerical=numerical).epsilon


def ask(make: Callable[[], Any], event: Any, count: int = 1) -> Callable[[], float]:
    """An accountant of dp-accounting, made anew for each answer."""

    def answer() -> float:
        accountant = make()
        accountant.compose(event, count)
        return float(accountant.get_epsilon(DELTA))

    return answer


def opacus(make: Callable[[], Any]) -> Callable[[], float]:
    def answer() -> float:
        accountant = make()
        accountant.history = [(NOISE, RATE, STEPS)]
        return float(accountant.get_epsilon(DELTA))

    return answer


def pure_losses(eta: float, count: int) -> Callable[[], float]:
    """dp-accounting's privacy loss distribution of randomised response, composed."""

    def answer() -> float:
        one = privacy_loss_distribution.from_privacy_parameters(
            dp_accounting.pld.common.DifferentialPrivacyParameters(eta, 0.0)
        )
        return float(one.self_compose(count).get_epsilon_for_delta(DELTA))

    return answer


def selection(count: int) -> Question:
    eta = draw_range(count)
    events: list[Event] = [BoundedRangeEvent(eta=eta, count=count)]
    ways = {
        OURS: ours(events),
        "dp-accounting, RDP of zCDP eta^2 / 8": ask(rdp.RdpAccountant, dp_accounting.ZCDpEvent(eta**2 / 8), count),
    }
    if count <= 1000:
        ways["compose, numerical"] = ours(events, numerical=True)
        ways["dp-accounting, PLD of pure DP"] = pure_losses(eta, count)
    return Question(f"{count:,} draws of the exponential mechanism, range {eta:.4g}", ways)


def draw_range(count: int) -> float:
    """About the same epsilon at every count, but no more than a range of 1."""
    return min(1.0, 0.1 * math.sqrt(1000 / count))


def mixture() -> Question:
    events: list[Event] = [GaussianEvent(mu=0.25), BoundedRangeEvent(eta=0.1, count=50)]
    theirs = dp_accounting.ComposedDpEvent(
        [dp_accounting.GaussianDpEvent(4.0), dp_accounting.SelfComposedDpEvent(dp_accounting.ZCDpEvent(0.1**2 / 8), 50)]
    )
    ways = {
        OURS: ours(events),
        "compose, numerical": ours(events, numerical=True),
        "dp-accounting, RDP": ask(rdp.RdpAccountant, theirs),
    }
    return Question("Gaussian noise of mu 1/4 and 50 draws of range 0.1", ways)


def sampled() -> Question:
    events: list[Event] = [SampledGaussianEvent(noise_multiplier=NOISE, rate=RATE, count=STEPS)]
    theirs = dp_accounting.PoissonSampledDpEvent(RATE, dp_accounting.GaussianDpEvent(NOISE))
    ways = {
        OURS: ours(events),
        "compose, numerical": ours(events, numerical=True),
        "dp-accounting, RDP": ask(rdp.RdpAccountant, theirs, STEPS),
        "dp-accounting, PLD": ask(pld.PLDAccountant, theirs, STEPS),
        "Opacus, RDP": opacus(RDPAccountant),
        "Opacus, PRV": opacus(PRVAccountant),
    }
    return Question(f"{STEPS} steps of a Gaussian of noise {NOISE:g} sampled at {RATE:g}", ways)


def check(question: Question) -> dict[str, float]:
    """Every way's epsilon; ends the program where ours is above another's by more than 1 %."""
    answers = {name: way() for name, way in question.ways.items()}
    least = min(answers.get("compose, numerical", math.inf), answers[OURS])
    for name, epsilon in answers.items():
        if not 0 < least <= 1.01 * epsilon:
            sys.exit(f"the results are wrong: {question.name}: {least} by compose, {epsilon} by {name}")
    return answers


def check_not_below_an_attack(largest: int) -> None:
    """The best mechanisms known that are chosen in advance must not beat the bound."""
    for count in (1, 10, 1000):
        if count <= largest:
            eta = draw_range(count)
            epsilon = compose([BoundedRangeEvent(eta=eta, count=count)], DELTA).epsilon
            reached = nonadaptive_bounded_range_delta(eta, count, epsilon)
            if reached > DELTA * (1 + 1e-9):
                sys.exit(f"the results are wrong: {count} draws reach delta = {reached} at epsilon = {epsilon}")


def time_question(question: Question, rounds: int) -> dict[str, Any]:
    answers = check(question)
    contenders = [Contender(name, way, 1) for name, way in question.ways.items()]
    rows = []
    print(f"\n{question.name}\n{'':<44}{'epsilon':>12}{'milliseconds':>16}{'times ours':>12}")
    timings = interleaved(contenders, rounds, torch.device("cpu"))
    own = next(timing.cpu_ns for timing in timings if timing.name == OURS)
    for timing in timings:
        row = {
            "name": timing.name,
            "epsilon": answers[timing.name],
            "cpu_ms": round(timing.cpu_ns / 1e6, 4),
            "times_ours": round(timing.cpu_ns / own, 3),
        }
        rows.append(row)
        print(f"{row['name']:<44}{row['epsilon']:>12.5g}{row['cpu_ms']:>16,.3f}{row['times_ours']:>12,.2f}")
    return {"question": question.name, "delta": DELTA, "results": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description="the accountant beside dp-accounting and Opacus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=10**7, help="the largest number of draws asked about")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.largest < 1:
        parser.error("--rounds and --largest are at least 1")
    check_not_below_an_attack(arguments.largest)
    counts = [10**i for i in range(8) if 10**i <= arguments.largest]
    questions = [*map(selection, counts), mixture(), sampled()]
    results = [time_question(question, arguments.rounds) for question in questions]
    if arguments.json is not None:
        machine = machine_facts(torch.device("cpu")) | {name: version(name) for name in ("dp-accounting", "opacus")}
        _files.write_json(arguments.json, {"benchmark": "accounting", "machine": machine, "results": results})


if __name__ == "__main__":
    main()
