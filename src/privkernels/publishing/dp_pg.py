"""DP-PG: every parameter of the published model is drawn from the members' density estimate.

Source: Mao et al., IEEE TPDS 2022, Algorithm 1. Two modes:

``paper``   As printed. Range: [MIN, MAX] of the members' values; bandwidth: Silverman's rule on them (the
            paper cites Sheather and Jones and says "set empirically"); sensitivity 1 / (M (M - 1));
            composition by maximum. Nothing can be proven of it; see :mod:`privkernels.privacy.dp_pg`.
``proven``  Public range, grid and bandwidth; sensitivity w_max / M; composition over all parameters and
            tries for the unit asked for.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from privkernels.errors import InvalidArgumentError, MemberMismatchError, QualityNotReachedError
from privkernels.ops import kde_em, kde_em_probabilities_reference, kde_grid, kde_scores
from privkernels.privacy.dp_pg import DpPgPlan, dp_pg_guarantee, events_of, plan_paper_dp_pg, plan_proven_dp_pg
from privkernels.privacy.guarantee import Assumption, Guarantee, Unit
from privkernels.privacy.ledger import Ledger, guarantee_from
from privkernels.progress import Progress, silent
from privkernels.publishing.collection import ParameterCollection, ParameterSlice
from privkernels.publishing.quality import QualityCheck
from privkernels.publishing.release import Release, events_to_json
from privkernels.randomness import Key

_LABEL = "dp-pg"


@dataclass(frozen=True)
class DpPgSettings:
    """How to publish with DP-PG.

    Attributes:
        epsilon: proven mode: the budget of the whole release for one ``unit``. Paper mode: epsilon_j of every
            parameter, which the paper also calls the release's.
        mode: "proven" or "paper".
        delta: of the budget; proven mode only.
        unit: "example", "member" or "parameter"; proven mode only.
        grid_points: R, 2 to 65536.
        window_ratio: the window delta of Eq. 3 in bandwidths; the paper needs it below 1.
        max_tries: tries of the quality loop, all of them charged.
        center: proven mode: the grid's centre: "initial" (the members' common initialisation, which must not
            depend on the data), "zero", or "auto" (initial where it is known).
        clip: proven mode: half the range of the grid, in units of 1 / sqrt(fan in) of the layer, and in
            absolute units for one-dimensional tensors without a layer. Public: do not tune it on the members.
        bandwidths_per_range: proven mode: bandwidth = range / this.
        constant_tensors_are_public: proven mode: the integer and boolean tensors, which are published as they
            are, do not depend on the records (for example BatchNorm's count of batches). Without this word
            nothing is proven of a model that has such tensors.
        work: "lazy" or "fixed": whether the time of the draws may depend on the members (:func:`kde_em`). They draw
            differently, from laws within the same bounds. In the paper's mode the grid is taken from the members, and
            the time of fixed work depends on it.
    """

    epsilon: float
    mode: str = "proven"
    delta: float = 1e-5
    unit: str = "example"
    grid_points: int = 256
    window_ratio: float = 0.99
    max_tries: int = 1
    center: str = "auto"
    clip: float = 4.0
    bandwidths_per_range: float = 8.0
    constant_tensors_are_public: bool = False
    work: str = "lazy"

    def __post_init__(self) -> None:
        choices = {
            "mode": ("proven", "paper"),
            "unit": tuple(Unit),
            "center": ("auto", "initial", "zero"),
            "work": ("lazy", "fixed"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InvalidArgumentError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("clip", "bandwidths_per_range"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InvalidArgumentError(f"{name} must be positive and finite, got {value!r}")
        if not 2 <= self.grid_points <= 65536:
            raise InvalidArgumentError(f"grid_points must be 2 to 65536, got {self.grid_points!r}")

    def plan(self, collection: ParameterCollection, overlap: int | None) -> DpPgPlan:
        """Settle sensitivity, multiplier and composition; raises as the privacy plans do."""
        shape: dict[str, Any] = {
            "num_members": collection.num_members,
            "num_parameters": collection.num_parameters,
            "grid_points": self.grid_points,
            "window_ratio": self.window_ratio,
            "max_tries": self.max_tries,
        }
        if self.mode == "paper":
            return plan_paper_dp_pg(self.epsilon, **shape)
        return plan_proven_dp_pg(self.epsilon, delta=self.delta, unit=self.unit, overlap=overlap, **shape)


def dp_pg(
    collection: ParameterCollection,
    settings: DpPgSettings,
    *,
    key: Key,
    overlap: int | None = None,
    initial: Mapping[str, torch.Tensor] | None = None,
    quality: QualityCheck | None = None,
    assumptions: tuple[Assumption, ...] = (),
    description: Mapping[str, Any] | None = None,
    ledger: Ledger | None = None,
    data_id: str | None = None,
    progress: Progress = silent,
) -> Release:
    """Draw a model from the members' parameters and state what it guarantees.

    Args:
        collection: the members. They must come from one common initialisation.
        settings: see :class:`DpPgSettings`.
        key: fresh for every release; a seeded one makes the release "not private". Unless it is seeded, a random
            word goes into the label of the draw, so that two calls never draw the same noise.
        overlap: for unit example, the largest number of members that one record was used in, from the
            recorded index sets; None means that it is not known and all M are assumed.
        initial: the members' common initialisation, if known and drawn without the data.
        quality: the quality loop; needed for max_tries > 1.
        assumptions: what the caller knows of the members, for the guarantee.
        description: how the members were made; goes into the release, so it must be public.
        ledger: charge the release there before it is drawn. The guarantee is then that of everything that the ledger
            holds on the same data set, this release included.
        data_id: name of the data set in the ledger.

    Raises:
        BudgetExceededError, KeyReusedError: the ledger refused; nothing was drawn.
        InvalidBudgetError: epsilon or delta is not usable.
        MemberMismatchError: ``initial`` is of another architecture.
        QualityNotReachedError: no try exceeded the threshold. The budget is spent all the same.
        NonFiniteValueError: a member holds NaN or infinity.
    """
    if settings.max_tries > 1 and quality is None:
        raise InvalidArgumentError("max_tries above 1 needs a quality check: without one the first try is taken")
    settings = _resolve_center(settings, initial)
    center = _center(collection, settings, initial)
    plan = settings.plan(collection, overlap)
    label = _LABEL if key.reproducible else f"{_LABEL}/{secrets.token_hex(16)}"

    def draw(attempt: int) -> dict[str, torch.Tensor]:
        return _draw(collection, settings, plan, key, label, center, attempt, progress)

    guarantee = dp_pg_guarantee(
        plan,
        assumptions=assumptions
        + _assumptions(settings, plan, overlap, quality, collection.other_names, ledger is not None),
        reproducible=key.reproducible,
        private_validation=quality is not None and not quality.records_are_public,
        unprotected_tensors=() if settings.constant_tensors_are_public else collection.other_names,
        grid_is_public=settings.mode == "proven",
        bandwidth_source=_bandwidth_source(settings),
        range_source=_range_source(settings),
    )
    # What this release costs, also where others in the ledger leave nothing proven of all together.
    events = events_to_json(events_of(plan, overlap)) if guarantee.proven is not None else None
    if ledger is not None:
        guarantee = _charge(ledger, data_id, plan, overlap, guarantee, key, label)
    tensors = _accepted(draw, settings.max_tries, quality)
    how = {
        "method": "dp-pg",
        "settings": _used(settings),
        "label": label,
        "members": collection.num_members,
        "parameters": collection.num_parameters,
        "quality_threshold": None if quality is None else quality.threshold,
        "quality_records": None if quality is None else quality.records.name,
        "events": events,
    }
    return Release(tensors, guarantee, {**(description or {}), **how})


def _charge(
    ledger: Ledger, data_id: str | None, plan: DpPgPlan, overlap: int | None, guarantee: Guarantee, key: Key, label: str
) -> Guarantee:
    """Charge the release, before it is drawn; the guarantee with everything else in the ledger counted."""
    if not data_id:
        raise InvalidArgumentError("a ledger adds up what is drawn from one data set: give its name (data_id)")
    proven = guarantee.proven is not None
    entry = ledger.charge(
        data_id, events_of(plan, overlap) if proven else None, key=key, label=label,
        unbounded_because=guarantee.not_proven_because, note=guarantee.mechanism,
    )  # fmt: skip
    return guarantee_from(ledger, entry, guarantee, plan.delta)


def _accepted(
    draw: Callable[[int], dict[str, torch.Tensor]], max_tries: int, quality: QualityCheck | None
) -> dict[str, torch.Tensor]:
    """The first draw that passes the quality check. How many tries it took is not kept: it is private."""
    if quality is None:
        return draw(0)
    best = -math.inf
    for attempt in range(max_tries):
        tensors = draw(attempt)
        accuracy = quality.accuracy(tensors)
        if accuracy > quality.threshold:
            return tensors
        best = max(best, accuracy)
    raise QualityNotReachedError(
        f"none of {max_tries} tries had an accuracy above {quality.threshold:.4g} (best {best:.4g}); the budget of all "
        "tries is spent: lower the threshold, or use more members"
    )


def _draw(
    collection: ParameterCollection,
    settings: DpPgSettings,
    plan: DpPgPlan,
    key: Key,
    label: str,
    center: Mapping[str, torch.Tensor],
    attempt: int,
    progress: Progress,
) -> dict[str, torch.Tensor]:
    flat = {name: torch.empty(math.prod(collection.shapes[name])) for name in collection.names}
    total = collection.num_parameters
    for piece in collection.slices():
        lo, hi, bandwidth = _grid_of(piece, settings, center, collection.shapes)
        value, _ = kde_em(
            piece.rows, lo=lo, hi=hi, bandwidth=bandwidth, multiplier=plan.multiplier, key=key, label=label,
            window_ratio=plan.window_ratio, grid_points=plan.grid_points, first_element=piece.first_element,
            attempt=attempt, work=settings.work,
        )  # fmt: skip
        flat[piece.name][piece.start : piece.stop] = value
        progress(piece.first_element + piece.stop - piece.start, total, "drawing parameters")
    for name, values in flat.items():
        if name.rpartition(".")[2] == "running_var":
            values.clamp_(min=0)  # BatchNorm takes its root; the values are drawn already, so this costs nothing
    return collection.assemble(flat)


def _grid_of(
    piece: ParameterSlice,
    settings: DpPgSettings,
    center: Mapping[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[torch.Tensor | float, torch.Tensor | float, torch.Tensor | float]:
    """Ends of the grid and bandwidth for the elements of a slice."""
    if settings.mode == "paper":
        return _grid_from_members(torch.stack(piece.rows))
    half = settings.clip * _layer_scale(piece.name, shapes)
    bandwidth = 2 * half / settings.bandwidths_per_range
    if piece.name not in center:
        return -half, half, bandwidth
    middle = center[piece.name][piece.start : piece.stop]
    return middle - half, middle + half, bandwidth


def _grid_from_members(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The paper's data-dependent range and bandwidth: theta [M, n] -> lo, hi, b, each [n].

    Silverman's rule of thumb, b = 0.9 min(sd, IQR / 1.34) M^(-1/5). Where the middle half of the values
    coincides, the standard deviation alone; where all do, the grid is one point and any b will do.
    """
    count = theta.shape[0]
    ordered = theta.sort(dim=0).values
    lo, hi = ordered[0], ordered[-1]
    quartiles = ordered[round(0.75 * (count - 1))] - ordered[round(0.25 * (count - 1))]
    deviation = theta.std(dim=0)
    spread = torch.where(quartiles > 0, torch.minimum(deviation, quartiles / 1.34), deviation)
    bandwidth = 0.9 * spread * count**-0.2
    smallest = torch.maximum(lo.abs(), hi.abs()) * 1e-6 + 1e-30
    return lo, hi, torch.maximum(bandwidth, smallest)


def _layer_scale(name: str, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """1 / sqrt(fan in), the scale of PyTorch's default initialisation: public, from the shapes alone."""
    shape = shapes[name]
    if len(shape) < 2 and name.rpartition(".")[2] == "bias":
        shape = shapes.get(name.removesuffix("bias") + "weight", shape)
    return 1 / math.sqrt(math.prod(shape[1:])) if len(shape) >= 2 else 1.0


def _resolve_center(settings: DpPgSettings, initial: Mapping[str, torch.Tensor] | None) -> DpPgSettings:
    if settings.center == "initial" and initial is None:
        raise InvalidArgumentError(
            "center 'initial' needs the members' common initialisation: give it, or use center 'zero'"
        )
    if settings.center != "auto":
        return settings
    return replace(settings, center="initial" if initial is not None else "zero")


def _center(
    collection: ParameterCollection, settings: DpPgSettings, initial: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    if settings.mode == "paper" or settings.center == "zero" or initial is None:
        return {}
    for name in collection.names:
        if name not in initial or tuple(initial[name].shape) != collection.shapes[name]:
            raise MemberMismatchError(
                f"the initialisation has no tensor {name!r} of shape {list(collection.shapes[name])}: it is of "
                "another architecture than the members"
            )
    return {name: initial[name].float().flatten() for name in collection.names}


def _used(settings: DpPgSettings) -> dict[str, Any]:
    """The settings that the mode uses; the others as null, so that nobody reads a promise into them."""
    values = asdict(settings)
    if settings.mode == "paper":
        unused = ("delta", "unit", "center", "clip", "bandwidths_per_range", "constant_tensors_are_public")
        values.update(dict.fromkeys(unused))
    return values


def _bandwidth_source(settings: DpPgSettings) -> str:
    if settings.mode == "paper":
        return "the private members: Silverman's rule for each parameter"
    return f"public: range / {settings.bandwidths_per_range:g}"


def _range_source(settings: DpPgSettings) -> str:
    if settings.mode == "paper":
        return "the private members: minimum and maximum of each parameter"
    middle = "the common initialisation" if settings.center == "initial" else "zero"
    return f"public: {middle} -/+ {settings.clip:g} / sqrt(fan in)"


def _assumptions(
    settings: DpPgSettings,
    plan: DpPgPlan,
    overlap: int | None,
    quality: QualityCheck | None,
    constant_names: tuple[str, ...],
    in_ledger: bool,
) -> tuple[Assumption, ...]:
    if settings.mode == "paper":
        return ()
    others = (
        "Everything that was drawn from these members, or from others of the same records, is in the ledger under one "
        "data set."
        if in_ledger
        else "No other model was drawn from these members, nor from others of the same records; runs that ended "
        "without a release count too. Their budgets add up."
    )
    items = [
        Assumption("The range, bandwidth, window, grid and clip were chosen without looking at the members."),
        Assumption("The number of members and the architecture are public."),
        Assumption("The key is secret and was used for no other release."),
        Assumption(others),
        Assumption(
            "Training ends with finite parameters whichever record is replaced: otherwise, whether there is a release "
            "reveals it."
        ),
        Assumption("Nobody observed the timing or the memory of the process that published."),
    ]
    if constant_names and settings.constant_tensors_are_public:
        items.append(Assumption(f"These tensors do not depend on the records: {', '.join(constant_names)}."))
    if plan.unit is Unit.EXAMPLE:
        known = f"A record was used in at most {plan.overlap} of {plan.num_members} members"
        if overlap is None:
            items.append(Assumption(f"{known} (no index sets were recorded, so all of them are assumed).", True))
        else:
            items.append(Assumption(f"{known}."))
        items.append(
            Assumption(
                "A member depends on its own records and on public randomness alone: no preprocessing, early "
                "stopping or tuning that looked at other private records."
            )
        )
    if settings.center == "initial":
        items.append(Assumption("The common initialisation was drawn without looking at the records."))
    if quality is not None and quality.records_are_public:
        items.append(quality.assumption)
    return tuple(items)


@dataclass(frozen=True)
class KdeExample:
    """One parameter's density estimate and draw, for a plot. Holds private member values."""

    parameter: str
    members: list[float]
    grid: list[float]
    weights: list[float]  # the exponential mechanism's probabilities
    drawn: float


def kde_examples(
    collection: ParameterCollection,
    release: Release,
    *,
    initial: Mapping[str, torch.Tensor] | None = None,
    count: int = 4,
) -> list[KdeExample]:
    """From each of up to ``count`` tensors, the parameter on which the members differ most."""
    used = {name: value for name, value in release.description["settings"].items() if value is not None}
    settings = DpPgSettings(**used)
    center = _center(collection, settings, initial)
    multiplier = float(release.guarantee.implementation["multiplier"] or 0)
    examples: list[KdeExample] = []
    seen: set[str] = set()
    for piece in collection.slices():
        if piece.name in seen or len(examples) == count:
            continue
        seen.add(piece.name)
        theta = torch.stack(piece.rows)
        at = int(theta.std(dim=0).argmax())
        one = ParameterSlice(piece.name, piece.start + at, piece.start + at + 1, 0, list(theta[:, at : at + 1]))
        lo, hi, bandwidth = _grid_of(one, settings, center, collection.shapes)
        scores = kde_scores(
            one.rows, lo=lo, hi=hi, bandwidth=bandwidth, window_ratio=settings.window_ratio,
            grid_points=settings.grid_points,
        )  # fmt: skip
        examples.append(
            KdeExample(
                parameter=f"{piece.name}[{one.start}]",
                members=theta[:, at].tolist(),
                grid=kde_grid(lo, hi, settings.grid_points).flatten().tolist(),
                weights=kde_em_probabilities_reference(scores, multiplier).flatten().tolist(),
                drawn=float(release.tensors[piece.name].flatten()[one.start]),
            )
        )
    return examples
