"""Building a network from its name, or from the user's own factory."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from privkernels.errors import InvalidArgumentError, UnknownNameError
from privkernels.models.cifar_net import CifarNet
from privkernels.models.mnist_net import MnistNet
from privkernels.models.simple import MLP, Linear
from privkernels.models.svhn_net import SvhnNet

_PAPER_NETWORKS: dict[str, type[nn.Module]] = {
    "mnist-net": MnistNet,
    "cifar-net": CifarNet,
    "svhn-net": SvhnNet,
}
_MLP = re.compile(r"mlp(?:-([1-9][0-9]{0,6}))?")


def available() -> tuple[str, ...]:
    """The names that :func:`build` knows, besides ``package.module:factory``."""
    return (*_PAPER_NETWORKS, "mlp", "mlp-HIDDEN", "linear")


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block, and put it back as it was afterwards.

    For what insists on the global generator: initialisation, dropout. None changes nothing.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def build(
    spec: str,
    *,
    input_shape: tuple[int, ...] | None = None,
    n_classes: int | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network that returns logits.

    Args:
        spec: one of

            - ``mnist-net``, ``cifar-net``, ``svhn-net``: the DP-PG paper's networks. They have the
              paper's shapes unless ``input_shape`` or ``n_classes`` say otherwise.
            - ``mlp``: one hidden layer of 32 units; ``mlp-128`` has 128. Needs both shapes.
            - ``linear``: no hidden layer. Needs both shapes.
            - ``package.module:factory``: a callable without arguments that returns an
              ``nn.Module``. It is imported and called, so name only code that you trust. A module
              in the current working directory is found, after the installed ones. ``input_shape``
              and ``n_classes`` are not passed on.
        input_shape: shape of one record, (channels, height, width) for images.
        n_classes: number of logits.
        seed: draws the initial parameters from this seed and leaves torch's global generator as
            it was. None draws them from the global generator, as torch.nn does.

    Raises:
        UnknownNameError: no such network, module or factory, or what the factory returns is no nn.Module.
        InvalidArgumentError: a missing or impossible shape, or the factory failed.
    """
    with seeded(seed):
        if ":" in spec:
            return _from_factory(spec)
        hidden = _MLP.fullmatch(spec)
        if spec in _PAPER_NETWORKS:
            sizes: dict[str, Any] = {"input_shape": input_shape, "n_classes": n_classes}
            return _PAPER_NETWORKS[spec](**{name: size for name, size in sizes.items() if size is not None})
        if not hidden and spec != "linear":
            raise UnknownNameError(
                f"no network is called {spec!r}: choose one of {', '.join(available())}, "
                "or give your own as package.module:factory"
            )
        if input_shape is None or n_classes is None:
            raise InvalidArgumentError(
                f"{spec} fits any records, so it needs input_shape and n_classes "
                f"(got {input_shape!r} and {n_classes!r})"
            )
        if hidden:
            return MLP(input_shape, n_classes, int(hidden[1] or 32))
        return Linear(input_shape, n_classes)


def parameter_count(module: nn.Module) -> int:
    """How many numbers the module's parameters hold; buffers are left out, shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _from_factory(spec: str) -> nn.Module:
    module_name, _, attribute = spec.partition(":")
    with _working_directory_importable():
        factory = _find_factory(spec, module_name, attribute)
        try:
            module = factory()
        except Exception as error:
            raise InvalidArgumentError(
                f"calling {spec} without arguments failed with {type(error).__name__}: {error}"
            ) from error
    if not isinstance(module, nn.Module):
        raise UnknownNameError(f"{spec} returned a {type(module).__name__}; it must return a torch.nn.Module")
    return module


def _find_factory(spec: str, module_name: str, attribute: str) -> Callable[[], Any]:
    if not module_name or not attribute:
        raise UnknownNameError(f"{spec!r} is not of the form package.module:factory")
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        # Importing runs the user's code, which may fail in any way.
        raise UnknownNameError(
            f"{spec}: the module {module_name!r} could not be imported ({type(error).__name__}: {error}); "
            "install it, or run from the folder that holds it"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UnknownNameError(f"{spec}: the module {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise UnknownNameError(f"{spec} is a {type(found).__name__}; it must be a callable without arguments")
    factory: Callable[[], Any] = found
    return factory


@contextlib.contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Let imports see the current folder, as ``python -m`` does and a console script does not.

    It goes last, so that a file there cannot take the place of an installed module.
    """
    folder = os.getcwd()
    if "" in sys.path or folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
