"""ParameterCollection: every way in which a folder of members can be wrong, and reading in slices."""

import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from privkernels.errors import (
    CorruptFileError,
    FileMissingError,
    InvalidArgumentError,
    MemberMismatchError,
    NonFiniteValueError,
    TooFewMembersError,
    UnsafeFormatError,
)
from privkernels.publishing import ParameterCollection


def test_describes_the_members(make_members):
    collection = ParameterCollection.open(make_members(4))
    assert collection.num_members == 4
    assert collection.num_parameters == 24
    assert collection.names == ("layer.bias", "layer.weight")
    assert collection.other_names == ("steps",)


@pytest.mark.parametrize("max_bytes", [1, 4 * 4 * 1024, 1 << 20])
def test_slices_cover_every_element_once(tmp_path, max_bytes):
    members = [{"a": torch.randn(3000), "b": torch.randn(2, 5)} for _ in range(4)]
    for i, member in enumerate(members):
        save_file(member, tmp_path / f"{i}.safetensors")
    collection = ParameterCollection.open(tmp_path)
    seen = 0
    for piece in collection.slices(max_bytes):
        assert piece.first_element == seen
        seen += piece.stop - piece.start
        for row, member in zip(piece.rows, members, strict=True):
            assert torch.equal(row, member[piece.name].flatten()[piece.start : piece.stop])
    assert seen == collection.num_parameters == 3010


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_dtypes_are_read_and_written(make_members, dtype):
    folder = make_members(3, dtype=dtype)
    collection = ParameterCollection.open(folder)
    first = load_file(folder / "m0.safetensors")
    for piece in collection.slices():
        assert torch.equal(piece.rows[0], first[piece.name].float().flatten())
    mean = collection.mean()
    assert mean["layer.weight"].dtype == dtype
    expected = sum(load_file(path)["layer.weight"].double() for path in collection.paths) / 3
    assert torch.allclose(mean["layer.weight"].double(), expected, atol=1e-2)
    assert mean["steps"] == 12


def test_unaligned_tensors_are_read(tmp_path):
    for i in range(2):
        save_file({"a": torch.ones(3, dtype=torch.uint8), "b": torch.arange(5.0) + i}, tmp_path / f"{i}.safetensors")
    rows = next(iter(ParameterCollection.open(tmp_path).slices())).rows
    assert torch.equal(rows[1], torch.arange(5.0) + 1)


def test_training_folders_are_read_without_their_other_files(make_members):
    folder = make_members(3)
    for i in range(3):
        (folder / f"m{i}.safetensors").rename(folder / f"member-000{i}.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "initial.safetensors")
    save_file({"mask": torch.zeros(1)}, folder / "subsets.safetensors")
    (folder / ".member-0003.safetensors.partial-abc").write_bytes(b"half")
    assert ParameterCollection.open(folder).num_members == 3


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"layer.weight": torch.zeros(3, 8)}, r"m2.*layer.weight.*\[3, 8\].*\[3, 7\]"),
        ({"layer.weight": torch.zeros(3, 7, dtype=torch.float16)}, "F16.*F32"),
        ({"extra": torch.zeros(1)}, "only one has 'extra'"),
        ({"steps": torch.tensor(13)}, "steps.*not the same integers"),
    ],
)
def test_members_of_another_architecture(make_members, tensors, words):
    with pytest.raises(MemberMismatchError, match=words):
        ParameterCollection.open(make_members(4, change={2: tensors}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_names_file_and_tensor(make_members, value):
    bad = torch.zeros(3, 7)
    bad[1, 2] = value
    collection = ParameterCollection.open(make_members(4, change={3: {"layer.weight": bad}}))
    with pytest.raises(NonFiniteValueError, match=r"m3\.safetensors, tensor 'layer.weight', element 9"):
        list(collection.slices())


def test_one_file_twice_is_refused(make_members):
    path = make_members(2) / "m0.safetensors"
    link = path.with_name("m9.safetensors")
    link.symlink_to(path)
    with pytest.raises(InvalidArgumentError, match="the same file"):
        ParameterCollection.open(path.parent)
    with pytest.raises(InvalidArgumentError, match="the same file"):
        ParameterCollection([path] * 10)


def test_dtypes_that_cannot_be_drawn_are_refused(make_members):
    change = {i: {"odd": torch.zeros(2, dtype=torch.complex64)} for i in range(3)}
    with pytest.raises(MemberMismatchError, match=r"odd.*cannot be published"):
        ParameterCollection.open(make_members(3, change=change))


def test_one_member_is_too_few(make_members):
    with pytest.raises(TooFewMembersError, match="at least 2 members, got 1"):
        ParameterCollection.open(make_members(1))


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(TooFewMembersError, match=r"no .safetensors files"):
        ParameterCollection.open(tmp_path)
    with pytest.raises(FileMissingError, match="not a folder"):
        ParameterCollection.open(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file(make_members, keep):
    folder = make_members(3)
    path = folder / "m1.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match=r"m1.safetensors is not a whole safetensors file"):
        ParameterCollection.open(folder)


def test_corrupt_header(make_members):
    path = make_members(3) / "m1.safetensors"
    content = bytearray(path.read_bytes())
    content[8:20] = b"garbage here"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"m1.safetensors"):
        ParameterCollection.open(path.parent)


class Exploit:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_and_not_run(make_members, protocol):
    folder = make_members(3)
    (folder / "m1.safetensors").write_bytes(pickle.dumps(Exploit(), protocol))
    with pytest.raises(UnsafeFormatError, match=r"m1.safetensors is a pickle"):
        ParameterCollection.open(folder)


def test_torch_checkpoints_are_refused(tmp_path, make_members):
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(UnsafeFormatError, match=r"model.pt, which is a pickle"):
        ParameterCollection.open(tmp_path)
    folder = make_members(3)
    torch.save({"a": torch.zeros(1)}, folder / "m1.safetensors")
    with pytest.raises(UnsafeFormatError, match=r"torch.save archive"):
        ParameterCollection.open(folder)


_PEAK = """
import resource, sys
from privkernels.publishing import ParameterCollection
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for piece in ParameterCollection.open(sys.argv[1]).slices(4 << 20):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_members_are_never_all_in_memory(tmp_path):
    """Reading 160 MB of members in slices of 4 MB must not raise the peak by more than a fraction."""
    for i in range(20):
        save_file({"a": torch.full((2_000_000,), float(i))}, tmp_path / f"{i:02}.safetensors")
    done = subprocess.run([sys.executable, "-c", _PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60_000, "kilobytes"
