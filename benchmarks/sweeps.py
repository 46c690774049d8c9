"""What a sweep costs beyond the same trainings in a plain loop: whole processes, with their imports."""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from harness import Table, ratio

ROUNDS = 5
JOBS = 7
APP = [sys.executable, "-m", "lightning_sparse"]
TINY = ["trainer.max_epochs=10", "attack=none", "saliency=none", "stability=none", "transfer=none", "cost=none"]
TINY += ["vog=none", "logger=none"]
LOOP = textwrap.dedent(
    f"""
    from functools import partial
    import torch
    from lightning.pytorch import Trainer, seed_everything
    from lightning_sparse import GradualPruning, SparsityMonitor
    from lightning_sparse.data import ImageData
    from lightning_sparse.measure import measure_accuracy
    from lightning_sparse.models import Classifier, lenet_300_100

    for seed in range({JOBS}):
        seed_everything(seed, workers=True, verbose=False)
        data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3053], std=[0.3764], batch_size=64, shuffle_seed=seed)
        net = lenet_300_100(shape=(1, 8, 8), classes=10)
        sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4)
        model = Classifier(net, optimizer=sgd, mean=[0.3053], std=[0.3764])
        callbacks = [GradualPruning(0.9, seed=seed), SparsityMonitor()]
        trainer = Trainer(max_epochs=10, callbacks=callbacks, logger=False, enable_progress_bar=False, deterministic=True,
                          enable_model_summary=False, enable_checkpointing=False, accelerator="auto", devices=1)
        trainer.fit(model, datamodule=data)
        print(measure_accuracy(model, data.split("test")).records[0].value)
    """
)
BARE_HYDRA = textwrap.dedent(
    """
    import hydra

    @hydra.main(version_base="1.3", config_path=None)
    def main(config):
        pass

    main()
    """
)


def seconds(folder: Path, *commands: list[str]) -> float:
    """CPU time of the processes and of all that they start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in commands:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": ""}
        )
        assert done.returncode == 0, done.stdout + done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def times(variants: dict[str, list[list[str]]], rounds: int) -> dict[str, list[float]]:
    """Run each variant once per round, in shuffled order, each time in an empty folder."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for _ in range(rounds):
        random.Random(len(found[order[0]])).shuffle(order)
        for name in order:
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(seconds(Path(folder), *variants[name]))
    return found


def main() -> None:
    sweep = [*APP, "--multirun", f"seed=range({JOBS})", *TINY]
    found = times(
        {
            "sweep": [sweep],
            "loop": [[sys.executable, "-c", LOOP]],
            "loop again": [[sys.executable, "-c", LOOP]],
            "processes": [[*APP, f"seed={seed}", *TINY] for seed in range(JOBS)],
            "wandb": [[*sweep[:-1], "logger=wandb"]],
        },
        ROUNDS,
    )
    loop = statistics.median(found["loop"])
    noise = ratio(found, "loop again", "loop")
    table = Table(
        f"{JOBS} tiny jobs as a sweep: ratio to a plain loop over a Trainer in one process ({loop:.1f} s)", noise
    )
    table.add("the sweep, with its records and its report", ratio(found, "sweep", "loop"), 1.3)
    table.show()
    table = Table(f"{JOBS} tiny jobs as a sweep: ratio to {JOBS} processes")
    table.add("the sweep, with its records and its report", ratio(found, "sweep", "processes"), 1 / 3)
    table.show()
    table = Table("W&B offline: CPU seconds that it adds to a job, the summary run among them")
    added = [(wandb - plain) / JOBS for wandb, plain in zip(found["wandb"], found["sweep"], strict=True)]
    table.add("one run a job, and the import", statistics.median(added), 0.3, " s")
    table.show()
    found = times({"help": [[*APP, "--help"]], "bare": [[sys.executable, "-c", BARE_HYDRA, "--help"]]}, 9)
    table = Table(f"`lightning-sparse --help`: ratio to a bare Hydra app's ({statistics.median(found['bare']):.2f} s)")
    table.add("all of it", ratio(found, "help", "bare"), 1.3)
    table.show()


if __name__ == "__main__":
    main()
