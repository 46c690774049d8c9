"""Every name that users are told to write, in YAML, docs and examples, is public: anything deeper may move."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from lightning_sparse.app.signatures import PUBLIC

ROOT = Path(__file__).parents[1]
# Every package with a stub, except the app's, which lists what Hydra's own settings name.
STUBS = sorted((ROOT / "lightning_sparse").glob("**/__init__.pyi"))
WINGS = [".".join(stub.parent.relative_to(ROOT).parts) for stub in STUBS if stub.parent.name != "app"]
# Packages of YAML, on Hydra's search path, and what Hydra's own settings name.
PACKAGES = {*WINGS, "lightning_sparse.conf", "lightning_sparse.sweeps", "lightning_sparse.app.SweepWatcher"}
PLACES = ("conf/**/*.yaml", "sweeps/*.yaml", "docs/**/*.md", "README.md", "examples/**/*.py", "examples/**/*.yaml")
FILES = sorted({path for place in PLACES for path in ROOT.glob(place)})


def named_in(text):
    """Dotted names, and those that are imported from a module."""
    found = set(re.findall(r"(?<![\w./])lightning_sparse(?:\.[A-Za-z]\w*)*", text))
    for module, names in re.findall(r"^from (lightning_sparse[\w.]*) import (\([^)]*\)|.*)$", text, flags=re.M):
        found |= {f"{module}.{name}" for name in re.findall(r"\w+", re.sub(r"#.*| as \w+", "", names))}
    return found


def is_public(name):
    module, _, last = name.rpartition(".")
    return name in PACKAGES or (module in WINGS and last in import_module(module).__all__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_that_users_are_told_is_public(path):
    names = named_in(path.read_text())
    assert [name for name in sorted(names) if not is_public(name)] == []
    for name in names - PACKAGES:
        module, _, last = name.rpartition(".")
        getattr(import_module(module), last)


def test_a_job_is_named_under_the_names_of_every_wing():
    assert sorted(PUBLIC) == sorted(WINGS)


def test_names_are_seen():
    imports = "from lightning_sparse.data import (\n    Planted,  # digits\n    plant as sow,\n)"
    assert named_in(f"x: lightning_sparse.engine.Curve\n{imports}") == {
        "lightning_sparse.engine.Curve",
        "lightning_sparse.data",
        "lightning_sparse.data.Planted",
        "lightning_sparse.data.plant",
    }


@pytest.mark.parametrize("wing", WINGS)
def test_a_star_imports_every_public_name(wing):
    found = {}
    exec(f"from {wing} import *", found)
    assert set(import_module(wing).__all__) <= set(found)
    assert len(found) > 3
