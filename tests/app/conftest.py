"""The command, run for real: in a process of its own, as a user types it."""

import os
import subprocess
from pathlib import Path

import pytest

import warm_process

# Everything small: one epoch, few images, few steps.
TINY = [
    "model=lenet_300_100",
    "trainer.max_epochs=2",
    "attack.images=60",
    "attack.steps=3",
    "attack.eps=[0.05,0.1,0.2]",
    "saliency.images=20",
    "stability.images=20",
    "stability.hessian_images=20",
    "transfer.images=16",
    "cost.images=100",
    "vog.images=20",
]


@pytest.fixture(scope="session")
def command():
    def run(*arguments, cwd, program=None):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # Keep W&B out of the user's home, where it stages what is to be uploaded.
        environment |= {"WANDB_DATA_DIR": str(cwd), "WANDB_CACHE_DIR": str(cwd)}
        environment["PYTHONPATH"] = str(cwd)
        if program is None:
            return warm_process.run("lightning_sparse", *arguments, cwd=cwd, env=environment)
        return subprocess.run(
            [*program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=570, check=False
        )

    return run


@pytest.fixture(scope="session")
def tiny():
    return TINY


@pytest.fixture(scope="session")
def root():
    return Path(__file__).parents[2]
