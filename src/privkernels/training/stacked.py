"""Training many members at once, as one network whose parameters have a member dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.progress import Progress, silent
from privkernels.training.common import (
    MakeModel,
    diverged,
    dropout_generator,
    few_threads,
    initialised,
    order_generator,
)
from privkernels.training.config import TrainingConfig
from privkernels.training.dropout import ReplayedDropout, replace_dropout
from privkernels.training.examine import examine
from privkernels.training.optimizers import Rows, make_optimizer


def fit_stacked(
    make_model: MakeModel,
    initial_state: Mapping[str, torch.Tensor] | Sequence[Mapping[str, torch.Tensor]],
    records: Records,
    subsets_indices: Sequence[torch.Tensor],
    config: TrainingConfig,
    seeds: Sequence[int],
    *,
    labels: Sequence[str] | None = None,
    progress: Progress = silent,
) -> list[dict[str, torch.Tensor]]:
    """Train G members, each on its own subset, in one process.

    Every member's batch order and dropout masks follow from its own seed, and members of unequal
    subset sizes are padded with their own records at weight 0, so each result is what the member would be if
    trained alone, up to float rounding.

    Args:
        make_model: builds the network; its own initialisation is overwritten. It is called once.
        initial_state: parameters and buffers that every member starts from, or G of them, one per member, which
            may differ in their trainable parameters alone.
        records: n records; training runs on their device.
        subsets_indices: G tensors, int64 [k_i] with k_i >= 1, of indices into ``records``.
        config: epochs, batch size, optimiser.
        seeds: G integers.
        labels: what to call the members in errors; "member 0", "member 1", ... by default.
        progress: called after every epoch.

    Returns:
        G state dicts on the CPU, in the order of ``seeds``.

    Raises:
        InvalidArgumentError: the network cannot be stacked (batch normalisation, changing buffers,
            random draws outside nn.Dropout): train it with engine="processes".
        NonFiniteValueError: a member's training diverged; the message names it.
    """
    subsets = _checked_subsets(subsets_indices, seeds, records)
    names = list(labels) if labels is not None else [f"member {i}" for i in range(len(seeds))]
    initial_states = [initial_state] if isinstance(initial_state, Mapping) else list(initial_state)
    model = initialised(make_model, initial_states[0]).to(records.x.device)
    dropouts = replace_dropout(model)
    obstacle = examine(model, dropouts, records).obstacle
    if obstacle:
        raise InvalidArgumentError(f'{obstacle}: train with engine="processes"')
    stack = _Stack(model, initial_states, dropouts, seeds)
    orders = [order_generator(seed) for seed in seeds]
    optimizer = make_optimizer(config, stack.parameters)
    with few_threads(stack.parameters.numel() * config.batch_size):
        for epoch in range(config.epochs):
            rows, present = _shuffle(subsets, orders, records.x.device)
            total = torch.zeros(len(seeds), device=records.x.device)
            for start in range(0, rows.shape[1], config.batch_size):
                batch = slice(start, start + config.batch_size)
                losses, gradients = stack.gradients(records, rows[:, batch], present[:, batch])
                active = present[:, start]
                chosen: Rows = slice(None) if bool(active.all()) else active.nonzero()[:, 0]
                optimizer.step(stack.parameters, gradients, chosen, config.rate(epoch))
                total += losses
            _require_finite(total[:, None], names, f"its loss in epoch {epoch + 1}")
            progress(epoch + 1, config.epochs, f"training {len(seeds)} members")
    _require_finite(stack.parameters, names, "a parameter")
    return stack.states()


class _Stack:
    """G copies of a network's trainable parameters, as the rows of one matrix.

    One matrix, so that the optimiser is a few large operations, whatever the number of tensors.
    Frozen parameters and buffers stay in the network, common to all members.
    """

    def __init__(
        self,
        model: nn.Module,
        initial_states: Sequence[Mapping[str, torch.Tensor]],
        dropouts: dict[str, ReplayedDropout],
        seeds: Sequence[int],
    ) -> None:
        self.model = model
        self.dropouts = dropouts
        trainable = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
        self.shapes = {name: tensor.shape for name, tensor in trainable.items()}
        starts = [_flat_start(model, state, self.shapes) for state in initial_states]
        if len(starts) not in (1, len(seeds)):
            raise InvalidArgumentError(
                f"give one initial state, or one for each of {len(seeds)} members: {len(starts)}"
            )
        self.parameters = torch.stack(starts).expand(len(seeds), -1).clone()
        self.generators = [{name: dropout_generator(seed, name) for name in dropouts} for seed in seeds]
        self._forward = vmap(self._member_forward, randomness="error")

    def gradients(
        self, records: Records, rows: torch.Tensor, present: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss [G] and its gradient [G, N] on the batches ``rows`` [G, B], where ``present``."""
        leaf = self.parameters.requires_grad_()
        logits = self._forward(self._views(leaf), records.x[rows], self._masks(present))
        loss = functional.cross_entropy(logits.flatten(0, 1), records.y[rows].flatten(), reduction="none")
        # A padded row has weight 0; a member with no row at all gets loss 0 and gradient 0.
        weights = present / present.sum(dim=1, keepdim=True).clamp(min=1)
        losses = (loss.view_as(weights) * weights).sum(dim=1)
        # A member's loss depends on its own row alone, so the sum's gradient holds each one's.
        (gradients,) = torch.autograd.grad(losses.sum(), leaf)
        self.parameters.requires_grad_(False)
        return losses.detach(), gradients

    def states(self) -> list[dict[str, torch.Tensor]]:
        """One state dict per member, on the CPU, that share no memory."""
        common = self.model.state_dict(keep_vars=True)
        canonical = {id(tensor): name for name, tensor in self.model.named_parameters()}
        views = self._views(self.parameters)
        return [
            {
                # Tied parameters have several names in a state dict, and one in `views`.
                name: (views[key][member] if (key := canonical.get(id(tensor))) in views else tensor)
                .detach()
                .cpu()
                .clone()
                for name, tensor in common.items()
            }
            for member in range(len(self.parameters))
        ]

    def _member_forward(
        self, parameters: dict[str, torch.Tensor], x: torch.Tensor, masks: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        logits: torch.Tensor = functional_call(self.model, {**parameters, **masks}, (x,))
        return logits

    def _views(self, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = torch.split(matrix, [shape.numel() for shape in self.shapes.values()], dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _masks(self, present: torch.Tensor) -> dict[str, torch.Tensor]:
        """Dropout masks [G, B, ...]; a member draws for the rows it has, as if it were alone."""
        counts = present.sum(dim=1).tolist()
        masks = {}
        for name, layer in self.dropouts.items():
            drawn = [
                layer.draw((count, *layer.input_shape[1:]), generators[name])
                for count, generators in zip(counts, self.generators, strict=True)
            ]
            padded = torch.zeros(len(counts), present.shape[1], *drawn[0].shape[1:])
            for row, mask in zip(padded, drawn, strict=True):
                row[: len(mask)] = mask
            masks[f"{name}.mask"] = padded.to(self.parameters)
        return masks


def _flat_start(model: nn.Module, state: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]) -> torch.Tensor:
    """A member's trainable parameters, one after another; all else must be what ``model`` holds."""
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if found != expected:
        raise InvalidArgumentError(f"every member's initial state has the tensors {expected}, not {found}")
    own = dict(model.named_parameters(remove_duplicate=False))
    for name, held in model.state_dict(keep_vars=True).items():
        trainable = name in own and own[name].requires_grad
        if not trainable and not torch.equal(state[name].to(held.device), held):
            raise InvalidArgumentError(
                f"the initial states of the members differ in {name!r}, which is not trained: members in one stack "
                'share frozen parameters and buffers; train with engine="processes"'
            )
    reference = next(model.parameters())
    return torch.cat([state[name].detach().to(reference.device, reference.dtype).flatten() for name in shapes])


def _checked_subsets(subsets: Sequence[torch.Tensor], seeds: Sequence[int], records: Records) -> list[torch.Tensor]:
    if len(subsets) != len(seeds) or not seeds:
        raise InvalidArgumentError(
            f"give one subset and one seed per member, at least one; got {len(subsets)} and {len(seeds)}"
        )
    for member, rows in enumerate(subsets):
        if rows.dim() != 1 or rows.dtype != torch.int64 or len(rows) == 0:
            raise InvalidArgumentError(
                f"the subset of member {member} is int64 [k] with k >= 1, not {rows.dtype} {list(rows.shape)}"
            )
        if int(rows.min()) < 0 or int(rows.max()) >= len(records):
            raise InvalidArgumentError(
                f"the subset of member {member} must lie in 0..{len(records) - 1}, "
                f"and runs from {int(rows.min())} to {int(rows.max())}"
            )
    return [rows.cpu() for rows in subsets]


def _shuffle(
    subsets: Sequence[torch.Tensor], orders: Sequence[torch.Generator], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each member's records in this epoch's order, int64 [G, k_max], and which are there, bool [G, k_max].

    Missing places come last and hold a record of the member's own: one that it does not have could
    bring in an infinite loss, which a weight of 0 does not undo.
    """
    longest = max(len(subset) for subset in subsets)
    rows = torch.empty(len(subsets), longest, dtype=torch.int64)
    for row, subset, order in zip(rows, subsets, orders, strict=True):
        row[len(subset) :] = subset[0]
        row[: len(subset)] = subset[torch.randperm(len(subset), generator=order)]
    sizes = torch.tensor([len(subset) for subset in subsets])
    present = torch.arange(longest) < sizes[:, None]
    return rows.to(device), present.to(device)


def _require_finite(values: torch.Tensor, labels: Sequence[str], what: str) -> None:
    """``values`` [G, ...] must be finite; the first member whose values are not is named."""
    finite = torch.isfinite(values).all(dim=1)
    if not bool(finite.all()):
        raise diverged(labels[int(finite.int().argmin())], what)
