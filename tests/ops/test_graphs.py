"""Which operators stay outside of CUDA graphs: their tags, and that they refuse before they touch the device."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from privkernels.errors import GraphCaptureError, PrivkernelsError
from privkernels.ops import _library, noise_add, pack_mask, prune_apply_, unpack_mask
from tests.support.graph_calls import DRAWS, INTERLEAVED, NOISE, READS, Call

CUDA = torch.device("cuda", 0)
# Operators that a graph may hold: no key, and nothing is read back.
CAPTURABLE = {"prune_apply_", "noisy_activations_backward"}
needs_the_tag = pytest.mark.skipif(
    not hasattr(torch.Tag, "cudagraph_unsafe"), reason=f"PyTorch {torch.__version__} has no such tag"
)


def operators() -> dict[str, torch._ops.OpOverload]:
    """All that is defined in the library, by name."""
    names = [name.partition("::") for name in torch._C._dispatch_get_all_op_names()]
    return {name: getattr(torch.ops.privkernels, name).default for space, _, name in names if space == "privkernels"}


class OnCuda(TorchDispatchMode):
    """Runs what is registered for the tensors' device, where fake tensors would have the operators' fakes run."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "privkernels":
            there = any(isinstance(leaf, torch.Tensor) and leaf.is_cuda for leaf in tree_leaves(args))
            key = torch._C.DispatchKey.CUDA if there else torch._C.DispatchKey.CPU
            return function.redispatch(torch._C.DispatchKeySet(key), *args)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a graph were captured on every stream of every device."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)


def on_a_device() -> torch.Tensor:
    with FakeTensorMode():
        return torch.ones(64, device=CUDA)


def test_there_are_operators_to_look_at() -> None:
    assert len(operators()) == 18
    assert set(operators()) >= CAPTURABLE


@needs_the_tag
@pytest.mark.parametrize("name", sorted(operators()))
def test_operators_that_refuse_are_tagged(name: str) -> None:
    tagged = torch.Tag.cudagraph_unsafe in operators()[name].tags
    assert tagged == (name not in CAPTURABLE)


def test_whatever_has_a_key_refuses() -> None:
    """A graph would replay one key, and so the same noise on another input."""
    keyed = {
        name
        for name, operator in operators().items()
        if any(argument.name in ("key", "seeds") for argument in operator._schema.arguments)
    }
    assert keyed == {name for name, _ in DRAWS}
    for name in keyed:
        assert _library.KEYED in _library._REASONS[name]


def test_every_operator_that_refuses_is_called_below() -> None:
    assert {name for name, _ in DRAWS + READS} >= set(operators()) - CAPTURABLE
    assert set(_library._REASONS) == set(operators()) - CAPTURABLE


@pytest.mark.usefixtures("capturing")
@pytest.mark.parametrize(("name", "call"), DRAWS, ids=[name for name, _ in DRAWS])
def test_a_draw_refuses_to_be_captured(name: str, call: Call) -> None:
    x = on_a_device()
    with OnCuda(), pytest.raises(GraphCaptureError, match=rf"^{name} cannot .* same random bits again") as raised:
        call(x)
    assert isinstance(raised.value, PrivkernelsError)


@pytest.mark.usefixtures("capturing")
@pytest.mark.parametrize(("name", "call"), READS, ids=[name for name, _ in READS])
def test_what_reads_back_refuses_to_be_captured(name: str, call: Call) -> None:
    x = on_a_device()
    with OnCuda(), pytest.raises(GraphCaptureError, match=rf"^{name} cannot .* waits for the device"):
        call(x)


@pytest.mark.usefixtures("capturing")
def test_interleaving_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "_cuda_devices", lambda arguments: {CUDA})
    with pytest.raises(GraphCaptureError, match="that interleave cannot"):
        INTERLEAVED(torch.ones(64))
    x = torch.ones(64)
    prune_apply_(x, x > 1)  # neither expanded nor interleaved: nothing to ask of the device
    assert x.sum() == 0


def test_the_stream_is_that_of_the_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    current = []

    @contextlib.contextmanager
    def device(index: torch.device) -> Any:
        current.append(index.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: current == [1])
    _library.refuse_capture("noise_add", [on_a_device(), [torch.device("cuda", 2)], 7, None])
    with pytest.raises(GraphCaptureError):
        _library.refuse_capture("noise_add", [on_a_device(), [torch.device("cuda", 1)]])


@pytest.mark.usefixtures("capturing")
def test_cpu_tensors_do_not_care() -> None:
    x = torch.ones(64)
    assert noise_add(x, **NOISE).shape == x.shape
    for _, call in DRAWS + READS:
        call(x.clone())
    assert torch.equal(unpack_mask(pack_mask(x > 0), [64]), x > 0)
