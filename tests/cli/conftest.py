"""Members that a user trained on digits, once for all commands."""

import pytest

from tests.support.commands import TRAIN, run


@pytest.fixture(scope="session")
def members(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "members"
    done = run(*TRAIN, folder)
    assert done.returncode == 0, done.stderr
    return folder
