"""Configurations as the command line composes them, once, and changed as plain data."""

from copy import deepcopy

import pytest
from hydra import compose, initialize_config_module

from lightning_sparse.app import hydra_parts  # registers the resolvers
from lightning_sparse.app.settings.check import check_settings
from lightning_sparse.app.settings.normal import normal


@pytest.fixture(scope="session")
def composed():
    known = {}

    def plain(*overrides):
        if overrides not in known:
            with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
                config = compose("config", overrides=list(overrides))
            known[overrides] = hydra_parts.plain(config)
        return deepcopy(known[overrides])

    return plain


@pytest.fixture(scope="session")
def checked(composed):
    """Check a configuration with some settings at dotted paths changed, and return it as it is used."""

    def check(changes, *overrides, **about):
        config = composed(*overrides)
        for path, value in changes.items():
            *above, last = path.split(".")
            node = config
            for name in above:
                node = node[name]
            node[last] = value
        written = normal(config)
        check_settings(written, **about)
        return written

    return check
