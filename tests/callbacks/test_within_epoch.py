"""A training that is killed before its first epoch ends goes on within it, and becomes the one that was never stopped."""

import os

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping

import warm_process
import within_epoch_script as script
from lightning_sparse import GradualPruning, OneShot, RigL, RobustnessMonitor, VarianceOfGradients
from lightning_sparse.callbacks import epoch_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")


def difference(one, other, path=""):
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        return [found for key in one for found in difference(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, list | tuple):
        assert len(one) == len(other), path
        return [
            found
            for place, pair in enumerate(zip(one, other, strict=True))
            for found in difference(*pair, f"{path}/{place}")
        ]
    return [] if one == other or one != one else [f"{path}: {one} {other}"]


def same_end(folder):
    ends = [torch.load(folder / name, weights_only=True) for name in ("whole.ckpt", "end.ckpt")]
    for end in ends:
        del end["callbacks"]["EpochCheckpoint"]  # what the last save saw, which may have been another
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch", "global_step")
    assert [found for part in parts for found in difference(ends[0][part], ends[1][part])] == []


def test_sixteen_kills_in_a_row_within_an_epoch_cost_two_batches_each(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = warm_process.run(script.__file__, str(tmp_path), "16", cwd=tmp_path, env=environment)
    assert ended.returncode == 0, ended.stderr
    began = [line.split() for line in ended.stdout.splitlines() if line[:1].isdigit()]
    assert [int(step) for _, step in began] == [*range(0, 22, 2), 22, 24, 26, 28, 30, 32][: len(began)], ended.stdout
    same_end(tmp_path)


class Stop(script.Death):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.after:
            raise KeyError("stopped")


Stop.__module__ = script.Death.__module__


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(epoch_checkpoint, "LONG", 0.0)
    monkeypatch.setattr(epoch_checkpoint, "COSTS_AT_MOST", 1e9)


def saved_at(folder):
    saved = torch.load(folder / "training.ckpt", weights_only=True)
    return saved["epoch"], saved["callbacks"]["EpochCheckpoint"]["batches"]


CASES = {
    "dense": (list, (0, 5), (0, 5), {}),
    "a worker that reads ahead": (lambda: [GradualPruning(0.8)], (1, 7), (1, 7), {"workers": 1}),
    "accumulated": (lambda: [RigL(0.8, every=3)], (1, 8), (1, 6), {"accumulate": 3}),
    "monitors": (lambda: [VarianceOfGradients(images=40), RobustnessMonitor(0.1, images=30)], (1, 2), (1, 2), {}),
    "batches remembered for a score to come": (
        lambda: [OneShot(0.8, at=40, criterion="snip", score_batches=2)],
        (1, 4),
        (0, 0),
        {},
    ),
}


@pytest.mark.parametrize(("make", "stop", "at", "how"), CASES.values(), ids=CASES)
def test_it_goes_on_bit_for_bit(make, stop, at, how, tmp_path, often):
    script.fit(tmp_path, "whole.ckpt", *make(), **how)
    (tmp_path / "training.ckpt").unlink()
    with pytest.raises(KeyError, match="stopped"):
        script.fit(tmp_path, "end.ckpt", *make(), Stop(stop), **how)
    assert saved_at(tmp_path) == at
    script.fit(tmp_path, "end.ckpt", *make(), **how)
    same_end(tmp_path)


class Hooked(script.Net):
    def on_train_batch_end(self, *arguments):
        self.count = getattr(self, "count", 0) + 1


class Schedules(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.strength = trainer.current_epoch


@pytest.mark.parametrize(
    ("module", "callbacks"),
    [
        (Hooked, []),
        (script.Net, [Schedules()]),
        (script.Net, [EarlyStopping("loss", patience=9)]),
        (script.Net, [EarlyStopping("loss_epoch", patience=9)]),
    ],
    ids=["a module with a hook", "a callback with a hook", "a mean that decides", "the same by its other name"],
)
def test_where_an_epoch_holds_more_than_a_checkpoint_only_its_end_is_saved(module, callbacks, tmp_path, often):
    with pytest.raises(KeyError, match="stopped"):
        script.fit(tmp_path, "end.ckpt", *callbacks, Stop((1, 9)), module=module)
    assert saved_at(tmp_path) == (0, 0)


def test_an_epoch_of_less_than_a_minute_is_saved_at_its_end(tmp_path):
    with pytest.raises(KeyError, match="stopped"):
        script.fit(tmp_path, "end.ckpt", Stop((1, 9)))
    assert saved_at(tmp_path) == (0, 0)
