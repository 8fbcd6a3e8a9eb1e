from __future__ import annotations

import pytest

from privkernels.data import available, files, load
from privkernels.errors import DataUnavailableError, UnknownNameError


def test_available_names_load_or_say_what_is_missing(tmp_path) -> None:
    assert available() == ("digits", "mnist", "fashion-mnist", "cifar-10", "svhn")
    for name in available()[1:]:
        with pytest.raises(DataUnavailableError, match=name):
            load(name, tmp_path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'imagenet'.*mnist, fashion-mnist, cifar-10, svhn"):
        load("imagenet")


def test_a_root_that_does_not_exist_is_named(tmp_path) -> None:
    with pytest.raises(DataUnavailableError, match="nowhere does not exist"):
        load("mnist", tmp_path / "nowhere")


def test_without_a_root_the_cache_folder_is_searched(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files.pooch, "os_cache", lambda project: tmp_path / project)
    with pytest.raises(DataUnavailableError, match=str(tmp_path / "privkernels")):
        load("svhn")
