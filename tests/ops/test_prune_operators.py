"""prune's operators: schema, fakes, torch.compile, and one result for threads, processes and instruction sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from privkernels.ops import pack_mask, prune_mask, prune_pattern_mask, prune_project_, prune_random_mask
from privkernels.randomness import Key
from tests.support.instruction_sets import assert_same_bits

OPS = torch.ops.privkernels
SECRET = Key.from_seed(3).derive("op").tensor()


def inputs() -> list[torch.Tensor]:
    x = torch.randn(60, generator=torch.Generator().manual_seed(0))
    return [x.view(6, 10), x.view(6, 10).t(), x[::7], torch.ones(()), torch.ones(0, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype) -> None:
    tensors = [x.to(dtype) for x in inputs()]
    masks = [x > 0 for x in tensors]
    for as_bits in (False, True):
        torch.library.opcheck(OPS.prune_mask.default, (tensors, 20, True, as_bits))
    torch.library.opcheck(OPS.prune_project.default, (tensors, 20))
    torch.library.opcheck(OPS.prune_project_.default, ([x.clone() for x in tensors], 20))
    torch.library.opcheck(OPS.prune_apply_.default, ([x.clone() for x in tensors], masks))
    torch.library.opcheck(OPS.prune_apply_.default, ([x.clone() for x in tensors], [pack_mask(m) for m in masks]))
    for x in tensors:
        torch.library.opcheck(OPS.prune_random_mask.default, (x, -9.0, 9.0, SECRET, 5))
        if x.dim() > 0:
            torch.library.opcheck(OPS.prune_pattern_mask.default, (x, 2, 4, 0))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    def function(x: torch.Tensor, secret: torch.Tensor) -> tuple[torch.Tensor, ...]:
        masks, threshold = OPS.prune_mask([x * 2, x], 7, True, False)
        bits, _ = OPS.prune_mask([x], 3, False, True)
        projected = OPS.prune_project([x], 4)[0]
        y, z = x * 3, x + 1
        OPS.prune_project_([y], 5)
        OPS.prune_apply_([z], [masks[1]])
        pattern = OPS.prune_pattern_mask(x, 2, 4, 0)
        return masks[0], threshold, bits[0], projected, y, z, pattern, OPS.prune_random_mask(x, -9.0, 9.0, secret, 3)

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (12, 40):
        x = torch.randn(size, generator=torch.Generator().manual_seed(size))
        for got, expected in zip(compiled(x, SECRET), function(x, SECRET), strict=True):
            assert torch.equal(got, expected)


def test_any_number_of_threads(set_threads: Callable[[int], None]) -> None:
    normal = torch.randn(400_001, generator=torch.Generator().manual_seed(1))
    for x in (normal, normal.round(), normal.bfloat16()):
        results: list[Any] = []
        for threads in (1, 2, 3, 64):
            set_threads(threads)
            y = x.clone()
            prune_project_(y, keep=123_456)
            masks, threshold = prune_mask([x[:99_999], x[99_999:]], keep=123_456)
            random = prune_random_mask(x, key=Key.from_seed(1), label="t")
            results.append([y, *masks, threshold, prune_pattern_mask(x.view(-1), 2, 4), *random])
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


PROGRAM = """
from privkernels.ops import prune_apply_, prune_mask, prune_pattern_mask, prune_project, prune_random_mask
digest = hashlib.sha256()
def add(*tensors):
    for t in tensors:
        row = t.reshape(-1).clone(memory_format=torch.contiguous_format)
        digest.update(row.view(torch.uint8).numpy().tobytes())
for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
    for size in (1, 77, 30_011, 200_003):
        x = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
        for y in (x, x.round(), x[::3]):
            for as_bits in (False, True):
                for rank_by in ("magnitude", "value"):
                    masks, threshold = prune_mask(y, sparsity=0.7, as_bits=as_bits, rank_by=rank_by)
                    add(*masks, threshold)
                z = y.clone()
                prune_apply_(z, masks)
                add(z)
            add(*prune_project(y, sparsity=0.4), prune_pattern_mask(y, 2, 4), prune_pattern_mask(y, 3, 7))
            add(*prune_random_mask(y, key=Key.from_seed(1), label="isa", first_element=77))
digests["all"] = digest.hexdigest()
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    assert_same_bits(PROGRAM, different=1)
