"""A training that is killed, or that runs out of room, can be finished, and nothing is half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import privkernels
from privkernels import _files
from privkernels.data import load
from privkernels.errors import DiskFullError
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, load_training, train_members

MEMBERS = 6
CONFIG = TrainingConfig(epochs=5, batch_size=8)

# Trains as `train` below does, in a process of its own; AFTER_PROGRESS runs at every report.
SCRIPT = """
import resource, sys, time
import torch
from privkernels.data import load
from privkernels.errors import PrivkernelsError
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, train_members

torch.set_num_threads(1)

def progress(done, total, what):
    {after_progress}

try:
    train_members(
        load("digits").train.subset(range(60)), "mlp-8", sys.argv[1],
        members={members}, subsets="disjoint-shards",
        config=TrainingConfig(epochs={epochs}, batch_size=8), key=Key.from_seed(3), engine=sys.argv[2],
        workers=1, group_size=2, progress=progress,
    )
except PrivkernelsError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
"""


def train(folder: Path, engine: str = "stacked", **settings) -> Path:
    return train_members(
        load("digits").train.subset(range(60)),
        "mlp-8",
        folder,
        members=MEMBERS,
        subsets="disjoint-shards",
        config=CONFIG,
        key=Key.from_seed(3),
        engine=engine,
        workers=1,
        group_size=2,
        **settings,
    )


def start(folder: Path, engine: str, after_progress: str) -> subprocess.Popen[str]:
    script = SCRIPT.format(after_progress=after_progress, members=MEMBERS, epochs=CONFIG.epochs)
    environment = {**os.environ, "PYTHONPATH": str(Path(privkernels.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder), engine],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_same_members(a: Path, b: Path) -> None:
    for member in range(MEMBERS):
        name = f"member-{member:04d}.safetensors"
        first, second = load_file(a / name), load_file(b / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("engine", ["stacked", "processes"])
def test_a_killed_training_is_finished_with_the_same_bits(tmp_path, engine) -> None:
    cut = tmp_path / "cut"
    with start(cut, engine, "time.sleep(0.3)") as process:
        deadline = time.monotonic() + 120
        while not (cut / "member-0000.safetensors").exists():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline, "no member appeared within two minutes"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    # As left by a process that was killed while it wrote.
    (cut / ".member-0005.safetensors.partial-0123456789abcdef").write_bytes(b"half a member")
    run = load_training(cut)
    assert 0 < len(run.missing) < MEMBERS
    assert 5 in run.missing
    train(cut, engine)
    assert load_training(cut).complete
    assert sorted(path.name for path in cut.iterdir()) == sorted(
        ["initial.safetensors", "subsets.safetensors", "training.json"]
        + [f"member-{i:04d}.safetensors" for i in range(MEMBERS)]
    )
    assert_same_members(train(tmp_path / "whole", engine), cut)


def test_a_run_killed_while_it_set_up_is_started_again(tmp_path) -> None:
    """Settings are written last: without them, the other two files are written anew."""
    folder = train(tmp_path / "out")
    for path in folder.glob("member-*"):
        path.unlink()
    (folder / "training.json").unlink()
    (folder / "initial.safetensors").write_bytes(b"from another run")
    (folder / ".training.json.partial-0123").write_bytes(b"{")
    train(folder)
    assert_same_members(train(tmp_path / "whole"), folder)


@pytest.mark.parametrize("fails_at", ["subsets", "initial", "training", "member-0000", "member-0003"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, fails_at) -> None:
    folder = tmp_path / "out"
    sync = _files.sync

    def full(path: Path) -> None:
        """The data reached the file system only in part: fsync says so."""
        if path.name.startswith(f".{fails_at}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    with monkeypatch.context() as patched:
        patched.setattr(_files, "sync", full)
        with pytest.raises(DiskFullError, match=fails_at):
            train(folder)
    names = [path.name for path in folder.iterdir()]
    assert not [name for name in names if fails_at in name or ".partial-" in name]
    if fails_at == "member-0003":
        assert load_training(folder).missing == (3, 4, 5)
    train(folder)
    assert_same_members(train(tmp_path / "whole"), folder)


def test_a_real_limit_of_the_operating_system(tmp_path) -> None:
    """No file may grow beyond 1,000 bytes once the first epoch is reported; a member takes about 2,500."""
    folder = tmp_path / "out"
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    with start(folder, "stacked", limit) as process:
        output = process.stdout.read()
    assert process.returncode == 2, output
    assert output.startswith("DiskFullError no room left to write"), output
    assert "member-000" in output
    assert load_training(folder).missing == tuple(range(MEMBERS))
    assert not list(folder.glob(".*"))
    train(folder)
    assert_same_members(train(tmp_path / "whole"), folder)
