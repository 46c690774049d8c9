"""Two real processes on the CPU: by script (one pair runs every method), and by spawn.

Both of a pair are forked with imports made, here and in other tests: but one spawn below is a real one, and
test_example_steering.py has a script that Lightning starts again for its second process.
"""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DistributedSampler

import settings
import warm_process
from lightning_sparse import BrainDevelopment, GradualPruning, Masks, OneShot, attach

SCRIPT = Path(settings.__file__).with_name("ddp_script.py")
CASES = [*settings.METHODS, *settings.RECIPES, "random-drop", "born-wanda", "born-obs"]
CASES += ["accumulated", "clipped", "lbfgs"]
# These return to masks that they have had before: all connections.
RETURNS = ("ACDC", "DenseSparseDense")
NAMES = ["body.0.weight", "body.3.weight", "head.weight"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = warm_process.run(str(SCRIPT), str(folder), cwd=folder, env=environment, each=warm_process.ranks(2))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_masks_and_weights_are_the_same_on_both_ranks_at_every_update(case, ranks):
    first, second = (rank[case] for rank in ranks)
    assert first == second
    assert len(set(first["checksums"])) == len(first["checksums"]) >= 1 or case in RETURNS
    assert all(earlier != later for earlier, later in pairwise(first["checksums"]))
    assert first["clock"] == (6 if case == "accumulated" else 10)  # 10 batches, shared by two ranks, for 2 epochs


def sensitivity(weights, losses):
    """SNIP's score: the gradient of the mean loss, times the weight."""
    gradients = [torch.autograd.grad(loss, weights) for loss in losses()]
    return [(w * sum(g) / len(g)).abs() for w, g in zip(weights, zip(*gradients, strict=True), strict=True)]


def flow(weights, losses):
    """GraSP's: the Hessian of the mean loss, times the gradient of the mean loss, times the weight."""
    gradients = torch.autograd.grad(sum(losses()) / 4, weights, create_graph=True)
    slope = sum((g * g.detach()).sum() for g in gradients)
    return [w * h for w, h in zip(weights, torch.autograd.grad(slope, weights), strict=True)]


def start():
    """The model as both ranks begin with it, that of the script's first, and which images each reads in two batches."""
    torch.manual_seed(100)
    model = settings.Module(seed=0)
    nn.init.normal_(model.head.weight)
    samplers = [DistributedSampler(settings.digits(), num_replicas=2, rank=rank, shuffle=True) for rank in (0, 1)]
    return model, [[*sampler][begin : begin + 64] for sampler in samplers for begin in (0, 64)]


@pytest.mark.parametrize(
    ("case", "choices"), [("born-wanda", {"criterion": "wanda"}), ("born-obs", {"reconstruct": "obs"})]
)
def test_inputs_are_those_of_all_batches_of_both_ranks(case, choices, ranks):
    """One process that reads the four batches makes the same masks."""
    model, shares = start()
    data = [tuple(tensor[share] for tensor in settings.digits().tensors) for share in shares]

    def loss_fn(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    method = OneShot(0.9, at=0, score_batches=4, **choices)
    engine = attach(model.configure_optimizers(), model, method, batches=data, loss_fn=loss_fn)
    assert ranks[0][case]["checksums"] == [engine.masks.checksum()]


@pytest.mark.parametrize(("case", "score", "rounds"), [("SNIP", sensitivity, 2), ("GraSP", flow, 1)])
def test_a_score_of_the_network_is_that_of_the_mean_loss_over_both_ranks(case, score, rounds, ranks):
    """Computed here by one process, from the two batches of 64 that Lightning's sampler gives to each rank."""
    model, shares = start()
    weights = [model.body[0].weight, model.body[3].weight, model.head.weight]
    images, labels = settings.digits().tensors

    def losses():
        return [nn.functional.cross_entropy(model(images[share]), labels[share]) for share in shares]

    masks = Masks({name: torch.ones_like(w) > 0 for name, w in zip(NAMES, weights, strict=True)})
    total, asked = masks.total, masks.total - round(0.9 * masks.total)
    for done in range(1, rounds + 1):
        flat = torch.cat([s.flatten() for s in score(weights, losses)])
        flat[~torch.cat([masks[name].flatten() for name in NAMES])] = -torch.inf
        count = asked if done == rounds else round(total * (asked / total) ** (done / rounds))
        alive = torch.zeros(total, dtype=torch.bool)
        alive[flat.argsort(descending=True)[:count]] = True
        parts = alive.split([w.numel() for w in weights])
        masks = Masks({name: part.view_as(w) for name, part, w in zip(NAMES, parts, weights, strict=True)})
        for weight, mask in zip(weights, masks.values(), strict=True):
            weight.data *= mask
    assert ranks[0][case]["checksums"] == [masks.checksum()]


def test_a_score_that_differs_between_ranks_stops_both_and_says_which(ranks):
    for rank in ranks:
        assert "the masks of rank 1 differ from those of rank 0" in rank["planted"]
        assert "grow='__main__.by_rank'" in rank["planted"]


@pytest.mark.parametrize("method", [GradualPruning, BrainDevelopment])
def test_after_a_spawned_fit_masks_and_history_are_in_the_main_process(method, loader, make_trainer, tmp_path, request):
    if method is GradualPruning:
        request.getfixturevalue("cold_ranks")
    model, callback = settings.Module(), method(0.9)
    trainer = make_trainer(callback, devices=2, strategy="ddp_spawn", max_epochs=2)
    trainer.fit(model, loader)
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)
    assert [update.step for update in callback.history][-1] <= 10
    assert callback.history[-1].sparsity == callback.sparsity
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    # The checkpoint saved at home holds them too, and another process goes on from it.
    resumed = method(0.9)
    again = make_trainer(resumed, max_epochs=2)
    again.validate(settings.Module(), loader, ckpt_path=tmp_path / "end.ckpt", verbose=False, **settings.SAFE)
    assert resumed.masks.checksum() == callback.masks.checksum()
