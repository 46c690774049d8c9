"""Steering draws what it says, resumes exactly, is the same on every rank, and refuses what it cannot steer."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import ExampleSteering, GradualPruning, RandomState, SparsityError
from lightning_sparse.data import ImageData
from lightning_sparse.data.datasets import EpochShuffle
from lightning_sparse.models import Classifier

DIGITS = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def net():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return Classifier(layers, mean=[0.3], std=[0.4])


def trainer(*callbacks, epochs=4, **more):
    return Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        **QUIET,
        **more,
    )


def drawn(weights, *, ordered=False, epoch=0):
    sampler = EpochShuffle(len(weights), seed=3)
    sampler.steer(torch.tensor(weights), ordered=ordered)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_each_image_is_drawn_by_its_share_of_the_weights():
    assert sorted(drawn([1.0] * 7)) == list(range(7))
    counts = Counter(drawn([0.0] * 4 + [1.0] * 8))  # 12 drawn of 8: one or two of each
    assert set(counts) == set(range(4, 12))
    assert set(counts.values()) <= {1, 2}
    assert sum(counts.values()) == 12
    assert Counter(drawn([4.0] * 2 + [1.0] * 4)) == {0: 2, 1: 2} | {
        place: 1 for place in Counter(drawn([4.0] * 2 + [1.0] * 4)) if place > 1
    }  # 6 * 4/12 = 2 exactly; the other four share two draws
    many = Counter(place for epoch in range(400) for place in drawn([0.25, 1.0, 1.0, 1.0, 1.0], epoch=epoch))
    # 5 * 0.25 / 4.25 = 0.294 a epoch, so 117.6 of 400, standard deviation 9.1
    assert 90 < many[0] < 145


def test_order_puts_the_chosen_last_and_draws_all_once():
    order = drawn([1.0, 0.0, 1.0, 0.0, 1.0], ordered=True)
    assert (set(order[:3]), set(order[3:])) == ({0, 2, 4}, {1, 3})


def test_a_steered_order_is_a_function_of_seed_and_epoch_and_starts_anywhere():
    weights = [1.0, 0.0, 4.0, 1.0, 1.0]
    assert drawn(weights, epoch=2) == drawn(weights, epoch=2)
    sampler = EpochShuffle(5, seed=3)
    sampler.steer(torch.tensor(weights))
    sampler.start_at(2, 0)
    assert list(sampler) == drawn(weights)[2:]


def test_wrong_labels_are_dropped_from_begin_on_at_equal_steps():
    data = ImageData("digits", **DIGITS, label_noise=0.2)
    steering = ExampleSteering("oracle", share=0.3, begin=0.5)
    run = trainer(steering)
    run.fit(net(), datamodule=data)
    assert run.global_step == 4 * 11  # 1293 images in batches of 128
    kept = steering.state_dict()["weights"] > 0
    wrong, labels = data.wrong_labels(), data.split("train")[1]
    for label in range(10):
        own = labels == label
        assert int((~kept & own).sum()) == round(0.3 * int(own.sum()))
    assert not (kept & wrong).any()
    sampler = run.train_dataloader.sampler
    sampler.set_epoch(3)
    order = torch.tensor(list(sampler))
    assert len(order) == 1293
    assert kept[order].all()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
@pytest.mark.parametrize(("action", "epoch"), [("drop", 0), ("down", 2), ("order", 1)])
def test_a_resumed_run_is_the_same_run(action, epoch, tmp_path):
    def run(ckpt=None):
        steering = ExampleSteering("loss", action=action, share=0.2, begin=0.5)
        keep = ModelCheckpoint(tmp_path / str(ckpt is None), "{epoch}", save_top_k=-1)
        model, data = net(), ImageData("digits", **DIGITS, label_noise=0.2)
        callbacks = [GradualPruning(0.5), steering, RandomState(), keep]
        Trainer(max_epochs=4, callbacks=callbacks, num_sanity_val_steps=0, **QUIET).fit(model, data, ckpt_path=ckpt)
        return model.state_dict(), steering.state_dict()["weights"]

    weights, drawn_by = run()
    again, by = run(tmp_path / "True" / f"epoch={epoch}.ckpt")
    assert torch.equal(drawn_by, by)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.parametrize("arguments", [{"share": 0.0}, {"share": 1.0}, {"begin": 0.0}, {"begin": 1}, {"share": 20}])
def test_shares_that_steer_nothing_or_everything_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(SparsityError, match=f"{name}=.*write"):
        ExampleSteering(**arguments)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(SparsityError, match="score='vogg'"):
        ExampleSteering("vogg")
    with pytest.raises(SparsityError, match="action='delete'"):
        ExampleSteering(action="delete")


def test_a_loader_whose_batches_have_no_index_is_refused():
    images, labels = ImageData("digits", **DIGITS).split("train")
    loader = DataLoader(TensorDataset(images, labels), batch_size=64)
    with pytest.raises(SparsityError, match=r"which image is which.*write|which image is which.*datamodule=ImageData"):
        trainer(ExampleSteering()).fit(net(), loader)


def test_another_loader_of_our_data_is_refused():
    class Plain(ImageData):
        def train_dataloader(self):
            return DataLoader(TensorDataset(*self.split("train")), batch_size=64)

    with pytest.raises(SparsityError, match="the loader that ImageData makes, and the Trainer has another"):
        trainer(ExampleSteering()).fit(net(), datamodule=Plain("digits", **DIGITS))


def test_an_oracle_needs_planted_noise():
    with pytest.raises(SparsityError, match=r"write data.label_noise=0.2"):
        trainer(ExampleSteering("oracle")).fit(net(), datamodule=ImageData("digits", **DIGITS))


def test_a_run_resumes_with_the_same_steering_only():
    state = ExampleSteering("loss").state_dict()
    with pytest.raises(SparsityError, match="resume as it was"):
        ExampleSteering("el2n").load_state_dict(state)


SCRIPT = """
import json, sys
import torch
from lightning.pytorch import Callback, Trainer
from lightning_sparse import ExampleSteering
from lightning_sparse.data import ImageData
sys.path.insert(0, {tests!r})
from callbacks.test_example_steering import DIGITS, QUIET, net

if __name__ == "__main__":
    data = ImageData("digits", **DIGITS, label_noise=0.2, batch_size=32)
    steering = ExampleSteering("loss", share=0.3, begin=0.5)
    run = Trainer(max_epochs=4, callbacks=[steering], strategy="ddp", devices=2, enable_checkpointing=False,
                  num_sanity_val_steps=0, **QUIET)
    run.fit(net(), datamodule=data)
    sampler = run.train_dataloader.sampler
    sampler.set_epoch(3)
    found = dict(steps=run.global_step, drawn=list(sampler), weights=steering.state_dict()["weights"].tolist())
    open(f"{folder}/{{run.global_rank}}.json", "w").write(json.dumps(found))
"""


def test_two_ranks_drop_the_same_images_and_draw_as_many(tmp_path):
    tests = str(Path(__file__).parent.parent)
    script = tmp_path / "steered.py"
    script.write_text(SCRIPT.format(tests=tests, folder=tmp_path))
    # A cold start, by which Lightning itself starts the second process: other tests fork both.
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["weights"] == two["weights"]
    assert len(one["drawn"]) == len(two["drawn"]) == 647  # 1293 images, one of them twice
    assert one["steps"] == two["steps"] == 4 * 21
    dropped = {place for place, weight in enumerate(one["weights"]) if weight == 0}
    assert len(dropped) > 300
    assert not dropped & set(one["drawn"] + two["drawn"])
