from __future__ import annotations

import pytest
import torch

from privkernels.training.common import dropout_generator, few_threads, order_generator


def test_generators_are_told_apart_by_seed_and_use() -> None:
    """Equal generators would give two layers the same mask, or tie a mask to the batch order."""
    generators = [
        generator
        for seed in (0, 1)
        for generator in (order_generator(seed), dropout_generator(seed, "a"), dropout_generator(seed, "b"))
    ]
    draws = [tuple(torch.rand(4, generator=generator).tolist()) for generator in generators]
    assert len(set(draws)) == len(draws) == 6
    again = torch.rand(4, generator=dropout_generator(1, "b"))
    assert tuple(again.tolist()) == draws[-1]


def test_small_steps_run_on_one_thread_and_the_setting_comes_back() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with few_threads(1000):
            assert torch.get_num_threads() == 1
        with few_threads(2**30):
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), few_threads(1000):
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
