from __future__ import annotations

import pytest
import torch
from torch import nn

from privkernels.errors import InvalidArgumentError
from privkernels.models import MLP, CifarNet, Linear, MnistNet, SvhnNet, build, parameter_count

# The parameter counts that Mao et al. (TPDS 2022, section 6.1) state.
PAPER = [
    ("mnist-net", MnistNet, (1, 28, 28), 1_199_882),
    ("cifar-net", CifarNet, (3, 32, 32), 1_250_858),
    ("svhn-net", SvhnNet, (3, 32, 32), 314_394),
]


@pytest.mark.parametrize(("spec", "kind", "shape", "count"), PAPER)
def test_the_papers_networks_have_the_papers_size(spec, kind, shape, count) -> None:
    network = build(spec, seed=0)
    assert type(network) is kind
    assert parameter_count(network) == count
    assert network(torch.rand(3, *shape)).shape == (3, 10)


def layers(network: nn.Module) -> str:
    """The layers in order, in a short notation."""
    words = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            words.append(f"conv{layer.out_channels} {'same' if layer.padding == 'same' else 'valid'}")
            assert layer.kernel_size == (3, 3)
        elif isinstance(layer, nn.Linear):
            words.append(f"dense{layer.out_features}")
        elif isinstance(layer, nn.Dropout):
            words.append(f"drop{layer.p}")
        elif isinstance(layer, nn.MaxPool2d):
            words.append(f"pool{layer.kernel_size}")
        elif isinstance(layer, nn.ReLU):
            words.append("relu")
    return ", ".join(words)


def test_the_networks_have_keras_layers() -> None:
    assert layers(MnistNet()) == (
        "conv32 valid, relu, conv64 valid, relu, pool2, drop0.25, dense128, relu, drop0.5, dense10"
    )
    assert layers(CifarNet()) == (
        "conv32 same, relu, conv32 valid, relu, pool2, drop0.25, "
        "conv64 same, relu, conv64 valid, relu, pool2, drop0.25, dense512, relu, drop0.5, dense10"
    )
    assert layers(SvhnNet()) == (
        "conv16 same, relu, conv16 valid, relu, pool2, conv32 same, relu, conv32 valid, relu, pool2, "
        "dense256, relu, dense10"
    )


def test_keras_initialisation() -> None:
    """Glorot: uniform on +-sqrt(6 / (fan_in + fan_out)); zero biases."""
    network = build("mnist-net", seed=0)
    for name, tensor in network.state_dict().items():
        if name.endswith("bias"):
            assert not tensor.any()
            continue
        receptive = tensor[0, 0].numel()
        bound = (6 / (receptive * (tensor.shape[0] + tensor.shape[1]))) ** 0.5
        assert 0.95 * bound < tensor.abs().max() <= bound * (1 + 1e-6)
        assert tensor.std() == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize(("spec", "kind", "shape", "count"), PAPER)
def test_other_image_sizes_and_class_counts(spec, kind, shape, count) -> None:
    network = build(spec, input_shape=(2, 17, 13), n_classes=4)
    assert network(torch.rand(2, 2, 17, 13)).shape == (2, 4)
    with pytest.raises(InvalidArgumentError, match=r"too small"):
        build(spec, input_shape=(1, 28, 5))
    with pytest.raises(InvalidArgumentError, match=r"channels, height, width"):
        build(spec, input_shape=(784,))


@pytest.mark.parametrize("spec", [row[0] for row in PAPER])
def test_the_smallest_image_that_fits(spec) -> None:
    side = 6 if spec == "mnist-net" else 10
    assert build(spec, input_shape=(1, side, side))(torch.rand(1, 1, side, side)).shape == (1, 10)
    with pytest.raises(InvalidArgumentError, match="too small"):
        build(spec, input_shape=(1, side - 1, side))


@pytest.mark.parametrize("spec", ["mnist-net", "cifar-net", "svhn-net", "mlp", "linear"])
@pytest.mark.parametrize("bad", [(2, 3, 28, 27), (2, 784), (2, 28, 28)])
def test_a_wrong_input_shape_is_named(spec, bad) -> None:
    network = build(spec, input_shape=(3, 28, 28), n_classes=10)
    with pytest.raises(InvalidArgumentError, match=r"\[n, 3, 28, 28\].*" + str(list(bad)).replace("[", r"\[")):
        network(torch.rand(bad))
    with pytest.raises(InvalidArgumentError, match="int64"):
        network(torch.zeros(2, 3, 28, 28, dtype=torch.int64))


def test_small_networks_compute_what_they_say() -> None:
    x = torch.rand(5, 1, 3, 4)
    mlp, linear = MLP((1, 3, 4), 7, hidden=6), Linear((1, 3, 4), 7)
    hidden = (x.reshape(5, 12) @ mlp.hidden.weight.T + mlp.hidden.bias).clamp(min=0)
    torch.testing.assert_close(mlp(x), hidden @ mlp.output.weight.T + mlp.output.bias)
    torch.testing.assert_close(linear(x), x.reshape(5, 12) @ linear.output.weight.T + linear.output.bias)
    assert parameter_count(mlp) == 12 * 6 + 6 + 6 * 7 + 7
    assert parameter_count(linear) == 12 * 7 + 7


@pytest.mark.parametrize("sizes", [((), 10), ((0,), 10), ((-1, 4), 10), ((4,), 0), ((2.0,), 10), ((True,), 10)])
@pytest.mark.parametrize("kind", [MLP, Linear, MnistNet])
def test_impossible_sizes_are_refused(kind, sizes) -> None:
    with pytest.raises(InvalidArgumentError):
        kind(*sizes)


def test_an_mlp_needs_a_hidden_unit() -> None:
    with pytest.raises(InvalidArgumentError, match="hidden"):
        MLP((4,), 2, hidden=0)


def test_dropout_is_off_in_evaluation() -> None:
    network = build("mnist-net", seed=0).eval()
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(network(x), network(x))
