"""The regularisers of inversion, on pictures whose values are known."""

from __future__ import annotations

import pytest
import torch

from privkernels.attacks.image_regularizers import alpha_norm, total_variation


def test_the_alpha_norm_is_a_mean_of_powers() -> None:
    x = torch.tensor([[1.0, -2.0], [0.0, 0.5]])
    torch.testing.assert_close(alpha_norm(x, 6.0), torch.tensor([(1 + 64) / 2, 0.5**6 / 2]))


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_total_variation_of_a_corner(beta: float) -> None:
    # One pixel of height 3 in the middle: itself has both differences, two neighbours have one each.
    x = torch.zeros(1, 1, 5, 4)
    x[0, 0, 2, 2] = 3.0
    expected = ((9 + 9) ** (beta / 2) + 2 * 9 ** (beta / 2)) / 20
    assert total_variation(x, beta).item() == pytest.approx(expected, rel=1e-3)
    # In the last column it has no right-hand neighbour: three pixels have one difference each.
    last = x.roll(1, dims=3)
    assert total_variation(last, beta).item() == pytest.approx(3 * 9 ** (beta / 2) / 20, rel=1e-3)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_flat_picture_has_none_and_a_finite_gradient(beta: float) -> None:
    x = torch.full((2, 3, 4, 4), 0.7, requires_grad=True)
    value = total_variation(x, beta)
    value.sum().backward()
    assert value.abs().max() < 1e-9
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_a_border_has_no_difference_beyond_it() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    assert total_variation(ramp, 2.0).item() == pytest.approx(9 / 12)
