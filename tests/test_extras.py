"""A missing optional library is named with the extra that brings it, and that extra does."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from lightning_sparse.data import ImageData
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import EXTRAS, need
from lightning_sparse.models import resnet20

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("library", EXTRAS)
def test_the_extra_brings_the_library(library):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {re.split(r"[^\w.-]", wanted)[0] for wanted in extras[EXTRAS[library]]}
    # an extra that the tests do not install has the name of its library
    assert asked & set(packages_distributions().get(library, [library.replace("_", "-")]))


@pytest.mark.parametrize("library", EXTRAS)
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        SparsityError, match=rf'{library} could not .* pip install "lightning-sparse\[{EXTRAS[library]}\]"'
    ):
        need(library)


def test_every_library_that_is_needed_has_an_extra():
    asked = [
        name
        for path in (ROOT / "lightning_sparse").rglob("*.py")
        for name in re.findall(r'need\("(\w+)', path.read_text())
    ]
    assert set(asked) == set(EXTRAS)


def test_data_and_networks_ask_for_theirs(monkeypatch):
    for module in ("sklearn.datasets", "torchvision.models.resnet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SparsityError, match=r"sklearn could not be imported.*\[app\]"):
        ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4]).split("test")
    with pytest.raises(SparsityError, match=r"torchvision could not be imported.*\[measure\]"):
        resnet20((3, 8, 8), 10)
