"""A run that was stopped and resumed equals the run that was never stopped, bit for bit, as far as its loader allows."""

import os
import signal
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import kill_script
import warm_process
from lightning_sparse import GradualPruning, SparsityError, load_masks
from settings import METHODS, SAFE, Module, batches

RUNS = [None, *METHODS]  # a dense run is checked beside ours

# Every resumed run here saves nothing: it has no ModelCheckpoint, where the first had one.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


def same(a, b):
    return (
        a["history"] == b["history"]
        and a["scores"] == b["scores"]
        and all(torch.equal(a[kind][name], b[kind][name]) for kind in ("weights", "masks") for name in b[kind])
        and [*a["weights"], *a["masks"]] == [*b["weights"], *b["masks"]]
    )


@pytest.mark.parametrize("method", RUNS)
def test_resumed_at_an_epochs_end_with_a_plain_shuffling_loader(method, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
    whole = kill_script.train(method, "plain", keep)
    for epoch in (0, 2):
        assert same(kill_script.train(method, "plain", start=tmp_path / f"epoch={epoch}.ckpt"), whole)


@pytest.mark.parametrize("method", RUNS)
def test_resumed_in_the_middle_of_an_epoch_with_a_loader_that_has_a_state(method, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=8)
    whole = kill_script.train(method, "stateful", keep)
    for step in (8, 24):
        assert same(kill_script.train(method, "stateful", start=tmp_path / f"step={step}.ckpt"), whole)


def test_killed_twice_and_started_again(tmp_path):
    for die_at in (13, 31, 0):
        command = [kill_script.__file__, str(tmp_path), "brain", str(die_at)]
        ended = warm_process.run(*command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert ended.returncode == (-signal.SIGKILL if die_at else 0), ended.stderr
    assert same(torch.load(tmp_path / "end.pt", weights_only=True), kill_script.train("brain", "plain"))


def test_in_the_middle_of_an_epoch_a_plain_loader_is_warned_of_once_and_masks_and_clock_go_on(make_trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=17)
    make_trainer(METHODS["brain"](0.9), keep, enable_checkpointing=True).fit(Module(), batches(shuffle=True))
    path = tmp_path / "step=17.ckpt"
    resumed = METHODS["brain"](0.9)
    seen = []

    class Look(Module):
        def on_train_start(self):
            seen.append((resumed.engine.clock, resumed.masks.checksum()))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        make_trainer(resumed).fit(Look(), batches(shuffle=True), ckpt_path=path, **SAFE)
    assert seen == [(17, load_masks(path).checksum())]
    assert resumed.engine.clock == 40
    assert len([w for w in said if "your dataloader is not resumable" in str(w.message)]) == 1


def drop_by_square(layer):
    return layer.weight.square()


@pytest.mark.parametrize(
    ("saved", "resumed"),
    [
        (lambda layer: layer.weight.square(), lambda layer: -layer.weight.square()),
        (lambda layer: layer.weight * 2, lambda layer: layer.weight * 3),
        (drop_by_square, lambda layer: layer.weight.square()),
    ],
)
def test_another_user_defined_score_is_another_argument(saved, resumed, make_trainer, tmp_path):
    trainer = make_trainer(GradualPruning(0.9, criterion=saved), max_epochs=1)
    trainer.fit(Module(), batches())
    trainer.save_checkpoint(Path(tmp_path) / "one.ckpt")
    with pytest.raises(SparsityError, match=r"other arguments .*drop"):
        make_trainer(GradualPruning(0.9, criterion=resumed), max_epochs=2).fit(
            Module(), batches(), ckpt_path=tmp_path / "one.ckpt", **SAFE
        )
