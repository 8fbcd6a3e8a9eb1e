"""Small parameter collections on disk."""

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def make_members(tmp_path):
    """Write members into a folder: make_members(5, change={2: {"layer.bias": tensor}})."""

    def make(count=5, *, change=None, folder="members", dtype=torch.float32, seed=0):
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        common = {"layer.weight": torch.randn(3, 7, generator=generator), "layer.bias": torch.zeros(3)}
        for i in range(count):
            member = {
                name: (value + 0.1 * torch.randn(value.shape, generator=generator)).to(dtype)
                for name, value in common.items()
            }
            member["steps"] = torch.tensor(12)
            member.update((change or {}).get(i, {}))
            save_file(member, path / f"m{i}.safetensors")
        return path

    return make
