from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import privkernels
from privkernels.errors import InvalidArgumentError, UnknownNameError
from privkernels.models import MLP, Linear, available, build, parameter_count, seeded

MODULE = """
import torch
from torch import nn
import {helper}

not_callable = 3

class Family:
    @staticmethod
    def make():
        return nn.Linear(3, 2)

def make():
    return nn.Linear(3, 2)

def needs_argument(n):
    return nn.Linear(n, 2)

def fails():
    raise RuntimeError("no such luck")

def number():
    return 4
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch) -> str:
    """A module in the current working directory that imports another one there."""
    name = f"own_network_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(helper=f"{name}_helper"))
    (tmp_path / f"{name}_helper.py").write_text("")
    monkeypatch.chdir(tmp_path)
    # As under a console script, which does not have the working directory on its path.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    return name


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("spec", ["mnist-net", "mlp", "linear"])
def test_a_seed_fixes_the_parameters_and_leaves_the_global_generator(spec) -> None:
    state = torch.get_rng_state()
    shape = {"input_shape": (1, 28, 28), "n_classes": 10}
    first, again, other = (build(spec, **shape, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, again)
    assert not same(first, other)


def test_without_a_seed_the_global_generator_is_used() -> None:
    with seeded(3):
        first = build("linear", input_shape=(4,), n_classes=2)
    assert same(first, build("linear", input_shape=(4,), n_classes=2, seed=3))


def test_seeded_puts_the_generator_back_after_an_error() -> None:
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="on purpose"), seeded(1):
        raise ValueError("on purpose")
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hidden_size_is_part_of_the_name() -> None:
    for spec, hidden in (("mlp", 32), ("mlp-7", 7)):
        network = build(spec, input_shape=(5,), n_classes=3)
        assert isinstance(network, MLP)
        assert parameter_count(network) == 5 * hidden + hidden + 3 * hidden + 3
    assert isinstance(build("linear", input_shape=(5,), n_classes=3), Linear)


@pytest.mark.parametrize("spec", ["mnist", "mlp-0", "mlp-", "mlp-x", "", "MLP"])
def test_unknown_names_list_the_known_ones(spec) -> None:
    with pytest.raises(UnknownNameError) as caught:
        build(spec, input_shape=(4,), n_classes=2)
    assert all(name in str(caught.value) for name in available())


@pytest.mark.parametrize("given", [{}, {"n_classes": 3}, {"input_shape": (3,)}])
@pytest.mark.parametrize("spec", ["mlp", "linear"])
def test_networks_for_any_records_need_both_sizes(spec, given) -> None:
    with pytest.raises(InvalidArgumentError, match="needs input_shape and n_classes"):
        build(spec, **given)


def test_a_factory_in_the_working_directory_is_found(own_module) -> None:
    path = list(sys.path)
    network = build(f"{own_module}:make", seed=5)
    assert isinstance(network, nn.Linear)
    assert same(network, build(f"{own_module}:make", seed=5))
    assert isinstance(build(f"{own_module}:Family.make"), nn.Linear)
    assert sys.path == path


def test_an_installed_module_comes_before_one_in_the_working_directory(tmp_path, monkeypatch) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the wrong module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(InvalidArgumentError, match="calling colorsys:rgb_to_hls without arguments"):
        build("colorsys:rgb_to_hls")


@pytest.mark.parametrize(
    ("factory", "error", "says"),
    [
        ("missing", UnknownNameError, "has no 'missing'"),
        ("Family.missing", UnknownNameError, "has no 'Family.missing'"),
        ("not_callable", UnknownNameError, "is a int"),
        ("number", UnknownNameError, "returned a int"),
        ("fails", InvalidArgumentError, "RuntimeError: no such luck"),
        ("needs_argument", InvalidArgumentError, "without arguments failed with TypeError"),
        ("", UnknownNameError, "package.module:factory"),
    ],
)
def test_a_factory_that_will_not_do_is_named(own_module, factory, error, says) -> None:
    with pytest.raises(error, match=says):
        build(f"{own_module}:{factory}")


def test_a_module_that_is_missing_or_broken_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=r"'no_such_module_here' could not be imported"):
        build("no_such_module_here:make")
    (tmp_path / "broken_network_module.py").write_text("def make(:\n")
    with pytest.raises(UnknownNameError, match="SyntaxError"):
        build("broken_network_module:make")
    with pytest.raises(UnknownNameError, match=r"package\.module:factory"):
        build(":make")


def test_a_console_script_finds_the_module_too(own_module, tmp_path) -> None:
    """In a fresh interpreter without the working directory on its path."""
    code = (
        f"import sys; sys.path = [p for p in sys.path if p not in ('', {str(tmp_path)!r})]\n"
        f"from privkernels.models import build; print(type(build({own_module + ':make'!r})).__name__)"
    )
    source = Path(privkernels.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "Linear", run.stderr


def test_parameter_count_leaves_out_buffers_and_counts_shared_ones_once() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    assert parameter_count(network) == 9 + 3 + 3 + 3 + 3
