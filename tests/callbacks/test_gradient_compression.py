"""GradientCompression in a Trainer, with two real processes, and what it refuses."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import settings
import warm_process
from lightning_sparse import GradientCompression, GradualPruning, SparsityError

SCRIPT = Path(settings.__file__).with_name("compression_script.py")
# LeNet of settings.py: entries of its weights and of its vectors
WEIGHTS, VECTORS = 64 * 60 + 60 * 30 + 30 * 10, 3 * 60 + 30 + 10


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compression")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = warm_process.run(str(SCRIPT), str(folder), cwd=folder, env=environment, each=warm_process.ranks(2))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_gradients_and_weights_are_the_same_on_both_ranks(ranks):
    assert ranks[0] == ranks[1]


def test_at_a_density_of_one_it_is_plain_ddp(ranks):
    assert ranks[0]["whole"]["weights"] == ranks[0]["plain"]
    assert ranks[0]["whole"]["share"] == 1.0


@pytest.mark.parametrize("case", ["few", "forgetful", "corrected"])
def test_the_hook_is_called_on_cpus_before_the_first_step(case, ranks):
    counts = [count for count, _ in ranks[0][case]["seen"]]
    assert len(counts) == 10
    assert all(384 <= count <= 2 * 384 for count in counts)  # a tenth of the first weight, from each of two
    assert ranks[0][case]["share"] == (8 * WEIGHTS / 10 + 4 * VECTORS) / (4 * (WEIGHTS + VECTORS))
    assert ranks[0][case]["weights"] != ranks[0]["plain"]


def test_memory_and_momentum_make_each_a_training_of_its_own(ranks):
    cases = [ranks[0][case]["weights"][0] for case in ("few", "forgetful", "corrected")]
    assert len(set(cases)) == 3
    assert ranks[0]["accumulated"] != ranks[0]["few"]["weights"]


def test_only_the_living_are_sent_and_remembered(ranks):
    found = ranks[0]["pruned"]
    assert found["dead_remembered"] == 0
    assert found["seen"][-1][0] <= 2 * 0.1 * 0.21 * 3840 * 2  # global pruning may leave a layer more than its share
    assert found["seen"][-1][0] < found["seen"][0][0] / 3


def test_gradients_are_whole_where_growth_reads_them(ranks):
    found = ranks[0]["rigl"]
    assert found["born"] > 0
    for step, (count, _) in enumerate(found["seen"], 1):
        assert (count > 1000) == (step in found["updates"])


def test_a_resumed_training_is_the_one_that_never_stopped(ranks):
    assert ranks[0]["resumed"] == ranks[0]["corrected"]["weights"]
    assert ranks[0]["share_resumed"] == ranks[0]["corrected"]["share"]
    one, other = ranks[0]["ranks_remember_their_own"]
    assert one != other


def test_other_arguments_and_another_hook_are_refused(ranks):
    assert "density=0.2, and the checkpoint was trained with density=0.1: resume with" in ranks[0]["other_density"]
    assert ranks[0]["hook"].startswith("DDPStrategy has a ddp_comm_hook, and DDP takes one")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientCompression(0), "density=0 sends nothing: write a share such as 0.01"),
        (lambda: GradientCompression(10), "density=10 is not a share"),
        (lambda: GradientCompression(memory="no"), "memory='no' is neither"),
        (lambda: GradientCompression(momentum_correction=1.0), "momentum_correction=1.0 is not a share"),
        (lambda: GradientCompression(momentum_correction=0.9, memory=False), "accumulates in the memory"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(SparsityError, match=message):
        make()


def test_without_ddp_it_says_what_to_write(make_trainer, loader):
    with pytest.raises(SparsityError, match=r"strategy=SingleDeviceStrategy sends none .*write strategy='ddp'"):
        make_trainer(GradientCompression()).fit(settings.Module(), loader)


def test_what_does_not_go_together_is_refused_before_the_first_step(ranks):
    assert ranks[0]["snfs"].startswith("SNFS reads the whole gradient of every step (")
    assert "grow='momentum'" in ranks[0]["snfs"]
    assert "the optimizer is SGD(momentum=0.9): write SGD(momentum=0)" in ranks[0]["momentum"]


class Scaled(settings.Module):
    """As wide as a convolution's weight, whose gradient may lie in another order."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Unflatten(1, (4, 4, 4)), nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last), nn.Flatten()
        )
        self.head = nn.Linear(16, 10)


def test_after_spawn_and_with_channels_last(make_trainer, loader):
    model = Scaled()
    before = model.head.weight.clone()
    pruning = GradualPruning(0.5)
    make_trainer(GradientCompression(0.1), pruning, strategy="ddp_spawn", devices=2, max_epochs=1).fit(model, loader)
    assert not torch.equal(model.head.weight, before)
    assert settings.dead_are_zero(model, pruning.masks)
