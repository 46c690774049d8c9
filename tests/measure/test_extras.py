"""Imports are late, and a missing library is named with its command."""

import subprocess
import sys

import pytest

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import attribute, measure_robustness
from lightning_sparse.statistics import t_interval


def test_a_missing_library_is_named_with_the_command_that_installs_it(digits, monkeypatch):
    for name in ("torchattacks", "captum.attr", "scipy.special"):
        monkeypatch.setitem(sys.modules, name, None)
    install = r'pip install "lightning-sparse\[measure\]"'
    with pytest.raises(SparsityError, match=f"torchattacks could not be imported.*{install}"):
        measure_robustness(digits.model, (digits.images, digits.labels), eps=[0.1], attacks=["apgd-ce"])
    with pytest.raises(SparsityError, match=f"captum could not be imported.*{install}"):
        attribute(digits.model, digits.images, digits.labels, "gradient")
    with pytest.raises(SparsityError, match=f"scipy could not be imported.*{install}"):
        t_interval([1.0, 2.0])


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_the_package_costs_nothing():
    loaded = loaded_after("import lightning_sparse.measure as m; dir(m)")
    assert not loaded & {"torch", "numpy", "scipy", "captum", "torchattacks", "lightning", "hydra", "wandb"}


def test_importing_its_modules_leaves_the_extras_alone():
    names = "measure_accuracy measure_robustness measure_saliency ATTACKS attribute insertion_deletion_gap"
    modules = (
        f"from lightning_sparse.measure import {', '.join(names.split())}\nimport lightning_sparse.statistics.intervals"
    )
    loaded = loaded_after(modules)
    assert "torch" in loaded
    assert not loaded & {"scipy", "captum", "torchattacks", "lightning", "hydra", "wandb"}


def test_every_public_name_can_be_had():
    from lightning_sparse import measure

    for name in measure.__all__:
        assert getattr(measure, name) is not None
        assert name in dir(measure)
    with pytest.raises(AttributeError, match="attribute measure_beauty"):
        measure.measure_beauty  # noqa: B018
