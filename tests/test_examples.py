"""The examples, run as their first lines say, in a copy of their folder, and judged by what they print and leave behind."""

import csv
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from PIL import Image

import settings
import warm_process
from lightning_sparse import BrainDevelopment, GradualPruning, SparsityMonitor, load_masks

EXAMPLES = Path(__file__).parents[1] / "examples"
TEMPLATE = EXAMPLES / "hydra_template"
COMMANDS = {
    line.split("  #")[0].strip()
    for file in (TEMPLATE / "train.py", *TEMPLATE.glob("configs/**/*.yaml"))
    for line in re.findall(r"^(?:# |    )(python train\.py.*)", file.read_text(), flags=re.M)
}


class Summary(NamedTuple):
    accuracy: float
    zeros: int
    total: int
    results: Path


@pytest.fixture
def run(tmp_path):
    """Type a command in a folder of the copy, and read the summaries that it prints, one a job."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("outputs", "__pycache__"))

    def command(line, folder=tmp_path):
        words = shlex.split(line)
        assert words[0] == "python"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = warm_process.run(*words[1:], cwd=folder, env=environment, seconds=300)
        assert done.returncode == 0, done.stderr
        summaries = re.findall(
            r"test accuracy: (\S+)\nsparsity: (\d+) of (\d+) weights are zero .*\nresults: (.+)", done.stdout
        )
        return [Summary(float(a), int(z), int(t), folder / results) for a, z, t, results in summaries]

    return command


@pytest.mark.parametrize("name", ["plain_loop.py", "fabric.py"])
def test_a_plain_loop_runs_as_its_first_lines_say(run, tmp_path, name):
    head = (EXAMPLES / name).read_text().splitlines()[:5]
    (done,) = run(next(line for line in head if line.startswith("python ")))
    assert done.accuracy > 0.9
    assert done.zeros == round(0.9 * done.total)
    assert {path.name for path in tmp_path.iterdir()} == {"examples", "outputs"}

    left = torch.load(done.results, weights_only=True)
    masks = load_masks(left["sparsity"])
    assert masks.total == done.total
    assert settings.exact(masks, 0.9)
    assert all(bool((left["model"][name][~mask] == 0).all()) for name, mask in masks.items())


def test_masks_are_held_on_the_shards_of_two_processes(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = warm_process.run(str(EXAMPLES / "sharded.py"), cwd=tmp_path, env=environment, seconds=300)
    assert done.returncode == 0, done.stderr[-3000:]
    accuracy, zeros = re.match(r"accuracy ([\d.]+), (\d+) of 7400 weights are zero, .*: True", done.stdout).groups()
    assert float(accuracy) > 0.8
    assert int(zeros) == 0.8 * 7400
    assert not list(tmp_path.iterdir())


def check_sparsity(job, level):
    masks = load_masks(job.results)
    assert settings.exact(masks, level)
    assert masks.total == job.total
    # A newborn that no image has pulled at is zero too.
    assert 0 <= job.zeros - (masks.total - masks.living) <= 0.02 * job.total


def test_a_hydra_project_has_the_callbacks_by_their_targets_alone(run, tmp_path):
    home = tmp_path / "examples" / "hydra_template"
    before = {path.name for path in home.iterdir()}
    (alone,) = run("python train.py callbacks.sparsity.final_sparsity=0.5", home)
    assert alone.accuracy > 0.9
    check_sparsity(alone, 0.5)
    assert {path.name for path in home.iterdir()} == before | {"outputs"}
    folder = alone.results.parents[1]
    assert folder.parent == home / "outputs" / "hydra_template" / "runs"
    assert len(list(folder.glob("*/version_0"))) == 2, "two loggers, each with a folder of its own"
    with open(folder / "csv" / "version_0" / "metrics.csv") as file:
        levels = [float(row["sparsity"]) for row in csv.DictReader(file) if row["sparsity"]]
    assert levels[0] == pytest.approx(0.7, abs=1e-3)  # at birth
    assert min(levels) == pytest.approx(0.2, abs=1e-3)  # at the densest point
    assert levels[-1] == 0.5

    # Two jobs in one process: the first equals the run above, whatever runs beside it.
    first, second = run("python train.py -m callbacks.sparsity.final_sparsity=0.5,0.95", home)
    assert first[:3] == alone[:3]
    check_sparsity(second, 0.95)
    assert second.accuracy > 0.85
    jobs = [job.results.parents[1] for job in (first, second)]
    assert [job.name for job in jobs] == ["0", "1"]
    assert jobs[0].parent == jobs[1].parent
    assert jobs[0].parents[1] == home / "outputs" / "hydra_template" / "multiruns"

    # Resumed from the last checkpoint, for longer, past the end of the turnover: the masks stay as they were.
    shutil.copy(folder / "checkpoints" / "last.ckpt", home)
    longer = "python train.py trainer.max_epochs=18 ckpt_path=last.ckpt"
    assert longer in COMMANDS
    (resumed,) = run(f"{longer} callbacks.sparsity.final_sparsity=0.5", home)
    check_sparsity(resumed, 0.5)
    assert load_masks(home / "last.ckpt").checksum() == load_masks(resumed.results).checksum()


def composed(*overrides):
    with initialize_config_dir(str(TEMPLATE / "configs"), version_base="1.3"):
        return compose("train", overrides=list(overrides))


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_every_command_in_the_hydra_project_composes(line):
    words = shlex.split(line)[2:]
    if words[:1] == ["-m"]:
        words = [word.split(",")[0] for word in words[1:]]
    cfg = composed(*words)
    if "sparsity" in cfg.callbacks:
        instantiate(cfg.callbacks.sparsity)


def test_the_configs_make_the_callbacks_they_name():
    for choice, kind in (("default", BrainDevelopment), ("gradual", GradualPruning)):
        callbacks = composed(f"callbacks={choice}").callbacks
        assert type(instantiate(callbacks.sparsity)) is kind
        assert type(instantiate(callbacks.sparsity_monitor)) is SparsityMonitor
        assert {"model_checkpoint", "last_checkpoint", "early_stopping"} < set(callbacks)


def test_a_value_out_of_range_is_refused_by_its_key_in_the_config():
    cfg = composed("callbacks.sparsity.final_sparsity=90").callbacks.sparsity
    with pytest.raises(InstantiationException, match=r"(?s)final_sparsity=90.*write 0\.9.*callbacks\.sparsity"):
        instantiate(cfg)


def test_every_schedule_is_drawn(run, tmp_path):
    run("python examples/schedules.py")
    with Image.open(tmp_path / "outputs" / "schedules.png") as picture:
        assert picture.size == (1200, 1275)
