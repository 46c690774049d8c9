"""A real data set, a real module and a real Trainer, small enough to run in a moment; see settings.py."""

import logging
import sys
from functools import cache

import pytest
import torch
from lightning.fabric.utilities import registry

import settings
import warm_ranks

# Each Trainer reads the metadata of all installed packages, to look for callbacks there: here only the first one does.
registry.entry_points = cache(registry.entry_points)

# torch keeps each seed for each kind of GPU, with the stack where it was set, until one is used: here there is none.
if not torch.cuda.is_available():
    for kind in ("torch.cuda.random", "torch.xpu.random", "torch.mtia"):
        if kind in sys.modules:
            sys.modules[kind]._lazy_call = lambda *_, **__: None

# See there: nothing differs but the time it takes.
warm_ranks.warm()


@pytest.fixture
def cold_ranks():
    """Spawn them, where that is what is tested."""
    warm_ranks.cold()
    yield
    warm_ranks.warm()


@pytest.fixture(params=settings.METHODS)
def make_method(request):
    """Each method in turn, as a function of the sparsity."""
    return settings.METHODS[request.param]


@pytest.fixture(scope="session")
def digits():
    return settings.digits()


@pytest.fixture
def loader():
    return settings.batches()


@pytest.fixture
def make_trainer(tmp_path):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lambda *callbacks, **arguments: settings.quiet(*callbacks, default_root_dir=tmp_path, **arguments)


@pytest.fixture
def module():
    return settings.Module
