"""Many projects' configurations say ``seed: null``: each of our groups composes there, and null is 0."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_sparse.app import hydra_parts  # noqa: F401  registers the resolvers
from lightning_sparse.app.subjects import SUBJECTS

DRAW_NOTHING = {"ActivationSparsity", "ExampleSteering", "PredictWeights", "PretrainedVectors"}
CONF = Path(__file__).parents[2] / "conf"
NODES = {
    f"{group}={path.stem}": OmegaConf.load(path)
    for group in ("sparsity", *SUBJECTS)
    for path in sorted((CONF / group).glob("*.yaml"))
}


@pytest.mark.parametrize("choice", [choice for choice, node in NODES.items() if "_target_" in node])
def test_a_group_composes_in_a_project_without_a_seed(choice):
    config = OmegaConf.create({"seed": None, "callback": NODES[choice]})
    for name in OmegaConf.missing_keys(config):  # which have no default
        OmegaConf.update(config, name, "vectors.txt")
    built = instantiate(config.callback, _convert_="all")
    if type(built).__name__ not in DRAW_NOTHING:
        assert getattr(built, "recipe", built).seed == 0
