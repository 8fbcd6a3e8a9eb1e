"""What secure aggregation promises: the sum and nothing else. The sum itself is exact unless noise is inside it.

Paper: Mao et al., "Privacy-Preserving Computation Offloading for Parallel Deep Neural Networks Training", IEEE TPDS
2021, Section 6.2, S0 to S3, and requirements R0 to R3 of Section 2.5. It gives no epsilon, and neither can anyone for
an exact sum: whoever knows the inputs of all clients but one reads that one off it.

Against a malicious server two things are needed together: the clients sign one survivor set and check k signatures on
it, and 2 k > n + c. Two different sets with k signatures each take k - c honest clients each, and no honest client
signs twice, so 2 (k - c) <= n - c: with 2 k <= n + c there can be two, and the server collects both secrets of a client
that is in one of them only. With 2 k > n + c alone it can still tell honest clients different sets
(:func:`isolated_clients`).

What holds with noise: if every client adds to its fixed-point input independent discrete Gaussian noise of parameter
sigma (in steps of the fixed-point grid), the sum over n honest clients has rho-zCDP with

    rho = D^2 / (2 n sigma^2) + tau d / 4,   tau = 10 sum_{k=1}^{n-1} exp(-2 pi^2 sigma^2 k / (k + 1)),

D the L2 sensitivity of the sum in steps, d its dimension (Kairouz, Liu, Steinke, ICML 2021, Proposition 14). tau is
what a sum of discrete Gaussians differs from one discrete Gaussian; it vanishes for sigma of a few steps. Reduction
modulo the ring is post-processing. Colluding clients know their own noise, so only the others count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from privkernels.errors import InvalidArgumentError
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta, compose
from privkernels.privacy.accounting.budget import check_count, check_positive
from privkernels.privacy.events import ConcentratedEvent
from privkernels.privacy.guarantee import Assumption, Guarantee, Proof, Unit

PAPER = "Mao et al., IEEE TPDS 2021 (computation offloading)"


def isolated_clients(num_clients: int, colluders: int, threshold: int) -> int:
    """The fewest honest clients whose sum a malicious server can get where clients do not agree on who survived.

    ceil((n - c) (2 k - c - n) / (k - c)) for 2 k > n + c, by telling honest clients different survivor sets; 0
    otherwise: it can then collect both secrets of one client.

    Raises:
        InvalidArgumentError: not c < k <= n.
    """
    _check_threshold(num_clients, colluders, threshold)
    margin = 2 * threshold - colluders - num_clients
    if margin <= 0:
        return 0
    return -(-(num_clients - colluders) * margin // (threshold - colluders))


@dataclass(frozen=True, kw_only=True)
class AggregationNoise:
    """Discrete Gaussian noise that every client adds before masking.

    Attributes:
        client_sigma: sigma of one client's noise, in steps of the fixed-point grid; at least 1/2.
        sensitivity: D, L2 sensitivity of the sum to one unit, rounding included, in steps of the grid.
        dimension: d, numbers in the vector.
        rounds: sums that are released, each with fresh noise.
        unit: what the sensitivity is for.
        delta: delta of the guarantee.
    """

    client_sigma: float
    sensitivity: float
    dimension: int
    unit: Unit
    delta: float
    rounds: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", by_name(Unit, self.unit))
        check_delta(self.delta)
        _check_sigma(self.client_sigma)
        check_positive("sensitivity", self.sensitivity)
        check_count("dimension", self.dimension)
        check_count("rounds", self.rounds)


@dataclass(frozen=True, kw_only=True)
class AggregationPlan:
    """One secure aggregation, as it went.

    Attributes:
        num_clients: n.
        threshold: k, shares that reconstruct a secret.
        colluders: c, clients assumed to share what they see with the server.
        participants: U2, clients whose shares were accepted.
        survivors: U3, clients whose masked input is in the sum.
        blamed: clients found to have sent a bad share.
        survivors_agreed: whether the clients signed one survivor set and checked k signatures on it. Protects against a
            malicious server where 2 k > n + c as well (:attr:`withstands_malicious_server`).
        noise: noise inside the sum, or None.

    Raises:
        InvalidArgumentError: k <= c (any k shares unmask), k > n, survivors that are not among the participants, fewer
            than k of them, or fewer than two that do not collude (the sum would be one client's input).
    """

    num_clients: int
    threshold: int
    colluders: int
    participants: frozenset[int]
    survivors: frozenset[int]
    blamed: frozenset[int] = frozenset()
    survivors_agreed: bool = False
    noise: AggregationNoise | None = None

    def __post_init__(self) -> None:
        for name in ("participants", "survivors", "blamed"):
            object.__setattr__(self, name, _client_numbers(name, getattr(self, name)))
        _check_threshold(self.num_clients, self.colluders, self.threshold)
        highest = max(self.participants | self.blamed, default=1)
        if not self.survivors <= self.participants or highest > self.num_clients:
            raise InvalidArgumentError(
                f"clients are numbered 1 to {self.num_clients}, and survivors are participants; got participants "
                f"{sorted(self.participants)}, survivors {sorted(self.survivors)}, blamed {sorted(self.blamed)}"
            )
        if self.survivors & self.blamed:
            raise InvalidArgumentError(
                f"a client that was blamed cannot be in the sum: {sorted(self.survivors & self.blamed)}; restart "
                "without it"
            )
        if len(self.survivors) < self.threshold:
            raise InvalidArgumentError(
                f"{len(self.survivors)} survivors cannot give the {self.threshold} shares per secret that are needed"
            )
        if self.honest_survivors < 2:
            raise InvalidArgumentError(
                f"with {self.colluders} colluders among {len(self.survivors)} survivors the sum is one client's input: "
                "wait for more clients"
            )

    @property
    def honest_survivors(self) -> int:
        """Survivors that do not collude, at worst."""
        return len(self.survivors) - self.colluders

    @property
    def withstands_malicious_server(self) -> bool:
        """Whether the survivors were agreed on and 2 k > n + c; the server must be semi-honest otherwise."""
        return self.survivors_agreed and 2 * self.threshold > self.num_clients + self.colluders

    @property
    def mu(self) -> float | None:
        """D / (sigma sqrt(honest survivors)) of one sum, or None without noise."""
        if self.noise is None:
            return None
        return self.noise.sensitivity / (self.noise.client_sigma * math.sqrt(self.honest_survivors))


def event_of(plan: AggregationPlan) -> ConcentratedEvent:
    """What the released sums cost the noise's unit, for an accountant or the ledger.

    Raises:
        InvalidArgumentError: no noise is inside the sum.
    """
    if plan.noise is None or plan.mu is None:
        raise InvalidArgumentError("an exact sum has no privacy cost that could be charged: add noise inside it")
    excess = sum_excess(plan.noise.client_sigma, plan.honest_survivors)
    return ConcentratedEvent(rho=plan.mu**2 / 2 + excess * plan.noise.dimension / 4, count=plan.noise.rounds)


def sum_excess(client_sigma: float, num_clients: int) -> float:
    """tau: by how much the sum of n discrete Gaussians may differ from one, per coordinate (Proposition 14)."""
    check_count("num_clients", num_clients)
    _check_sigma(client_sigma)

    def term(k: int) -> float:
        return math.exp(-2 * (math.pi * client_sigma) ** 2 * k / (k + 1))

    # The terms fall with k, so of many clients the later ones are at most as large as the first that is left out.
    last = min(num_clients, 10_000)
    return 10 * (math.fsum(term(k) for k in range(1, last)) + (num_clients - last) * term(last))


def bound_of(plan: AggregationPlan) -> Bound:
    """(epsilon, delta) of the released sums for the noise's unit; raises as :func:`event_of`."""
    event = event_of(plan)
    assert plan.noise is not None
    return compose([event], plan.noise.delta)


def aggregation_guarantee(
    plan: AggregationPlan, *, assumptions: tuple[Assumption, ...] = (), reproducible: bool = False
) -> Guarantee:
    """The guarantee of a secure aggregation: of the sum only, and none without noise inside it.

    Args:
        plan: how it went.
        assumptions: what the caller knows (keys, channels, ...).
        reproducible: masks or noise came from a seed.
    """
    reasons = []
    if plan.noise is None:
        reasons.append(
            "The sum is revealed exactly. Secure aggregation hides each client's input behind the sum and does nothing "
            "for what the sum itself gives away; for that, noise has to be inside it."
        )
    if reproducible:
        reasons.append("The masks or the noise came from a seed, so they can be drawn again and subtracted.")
    bound = None if reasons else bound_of(plan)
    unit = Unit.MEMBER if plan.noise is None else plan.noise.unit
    return Guarantee(
        mechanism=f"secure aggregation of {len(plan.survivors)} of {plan.num_clients} clients, "
        + ("no noise inside" if plan.noise is None else "discrete Gaussian noise inside the sum"),
        unit=unit,
        neighbouring=f"two sets of client inputs that differ in one {unit}, the clients being the same",
        claimed=None,
        proven=None if bound is None else Proof(bound.epsilon, bound.delta, bound.accountant),
        not_proven_because=" ".join(reasons) or None,
        assumptions=assumptions + _assumptions(plan),
        implementation=_implementation(plan),
        warnings=_warnings(plan),
        reproducible=reproducible,
    )


def _assumptions(plan: AggregationPlan) -> tuple[Assumption, ...]:
    server = "malicious" if plan.withstands_malicious_server else "semi-honest"
    shared: tuple[Assumption, ...] = (
        Assumption(f"The server is at worst {server} and colludes with at most {plan.colluders} clients."),
        Assumption(
            "Decisional Diffie-Hellman, authenticated encryption, the generator of the masks and the hash hold."
        ),
        Assumption("More shares are needed than there are colluders: k > c.", checked=True),
        Assumption("At least two clients in the sum do not collude.", checked=True),
    )
    if plan.withstands_malicious_server:
        shared += (
            Assumption("No two survivor sets can have k signatures each: 2 k > n + c.", checked=True),
            Assumption(
                "Every honest client signed one survivor set, and gave no share before it saw k signatures on it."
            ),
        )
    if plan.noise is None:
        return shared
    return (
        *shared,
        Assumption("Every honest client adds its discrete Gaussian noise, and fresh noise for every sum."),
        Assumption(f"One {plan.noise.unit} moves the sum by at most {plan.noise.sensitivity} grid steps in L2 norm."),
    )


def _implementation(plan: AggregationPlan) -> dict[str, float | int | str | None]:
    noise = plan.noise
    return {
        "clients_n": plan.num_clients,
        "threshold_k": plan.threshold,
        "colluders_c_assumed": plan.colluders,
        "participants_U2": _names(plan.participants),
        "survivors_U3": _names(plan.survivors),
        "blamed": _names(plan.blamed),
        "clients_a_malicious_server_can_isolate": None
        if plan.withstands_malicious_server
        else isolated_clients(plan.num_clients, plan.colluders, plan.threshold),
        "sum": "revealed exactly, DP of the sum: none" if noise is None else "revealed with noise inside",
        "mu_of_one_sum": plan.mu,
        "rho_of_one_sum": None if noise is None else event_of(plan).rho,
        "sums": None if noise is None else noise.rounds,
        "client_sigma": None if noise is None else noise.client_sigma,
        "sum_of_discrete_gaussians_excess_tau": None
        if noise is None
        else sum_excess(noise.client_sigma, plan.honest_survivors),
        "paper_states": "R0 to R3 of Section 2.5.2: nothing but the aggregation result is learnt; no epsilon",
    }


def _warnings(plan: AggregationPlan) -> tuple[str, ...]:
    warnings = []
    if plan.threshold * 2 <= plan.num_clients + plan.colluders:
        warnings.append(
            "2 k <= n + c: a malicious server could collect both secrets of one client and unmask its input"
            + (", whether or not the clients signed one survivor set." if plan.survivors_agreed else ".")
        )
    elif not plan.survivors_agreed:
        warnings.append(
            "The clients did not agree on the survivors: a malicious server could tell them different sets and get the "
            f"sum of as few as {isolated_clients(plan.num_clients, plan.colluders, plan.threshold)} honest clients."
        )
    return tuple(warnings)


def _names(clients: frozenset[int]) -> str:
    return " ".join(str(client) for client in sorted(clients)) or "none"


def _client_numbers(name: str, clients: object) -> frozenset[int]:
    if not isinstance(clients, Iterable) or isinstance(clients, str):
        raise InvalidArgumentError(f"{name} is a set of client numbers, got {clients!r}")
    return frozenset(check_count(f"a client's number in {name}", client) for client in clients)


def _check_sigma(client_sigma: float) -> None:
    if check_positive("client_sigma", client_sigma) < 0.5:
        raise InvalidArgumentError(
            f"client_sigma must be at least half a step of the grid, got {client_sigma!r}: use a finer grid or more "
            "noise"
        )


def _check_threshold(num_clients: int, colluders: int, threshold: int) -> None:
    for name, value in (("num_clients", num_clients), ("colluders", colluders), ("threshold", threshold)):
        check_count(name, value, low=0)
    if not colluders < threshold <= num_clients:
        raise InvalidArgumentError(
            "needs 0 <= colluders (c) < threshold (k) <= num_clients (n), got "
            f"c = {colluders}, k = {threshold}, n = {num_clients}: with k <= c the colluders alone unmask every input"
        )
