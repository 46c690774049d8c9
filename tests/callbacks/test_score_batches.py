"""Scores of the whole network under a Trainer: which batches they see, and that training does not notice."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_sparse import SNIP, GradualPruning, GraSP, OneShot, SparsityError, SynFlow
from lightning_sparse.engine.scores.of_network import of_network
from settings import ByHand, Module, batches, digits, quiet, same_state


class Saw(Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.batches.append(batch)


class Logging(Module):
    """Logs, draws random numbers and keeps BatchNorm statistics in its training step."""

    calls = 0

    def training_step(self, batch, batch_idx):
        self.calls += 1
        x, y = batch
        x = x + 0.1 * torch.rand_like(x)
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return {"loss": loss}


@of_network
def none_dies_by_it(network):
    """Looks at the network as hard as GraSP does, and scores by magnitude."""
    network.hessian_product(network.gradient())
    return {name: weight.detach().abs() for name, weight in network.parameters.items()}


def same(one, two):
    return all(torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_every_batch_that_the_score_has_seen(workers):
    looked = []

    @of_network
    def look(network):
        looked.extend(network.batches)
        return none_dies_by_it(network)

    runs = {}
    for criterion in ("magnitude", look):
        torch.manual_seed(7)
        saw, module = Saw(), Logging()
        torch.manual_seed(8)
        loader = batches(shuffle=True, num_workers=workers, generator=torch.Generator().manual_seed(3))
        quiet(OneShot(0.5, at=0, criterion=criterion, score_batches=3), saw, max_epochs=2).fit(module, loader)
        runs[criterion] = saw.batches, module
    assert same(runs["magnitude"][0], runs[look][0])
    assert same_state(runs["magnitude"][1], runs[look][1])  # weights, BatchNorm, masks: no trace of the look
    assert len(looked) == 3
    assert same(looked, runs[look][0][:3])  # and what it saw is what training saw first
    assert runs[look][1].calls > runs["magnitude"][1].calls


def test_the_global_generators_are_not_drawn_from():
    ends = []
    for criterion in ("magnitude", none_dies_by_it):
        torch.manual_seed(8)
        module = Logging()
        quiet(OneShot(0.5, at=0, criterion=criterion)).fit(module, batches(shuffle=True))
        ends.append(torch.get_rng_state())
    assert torch.equal(*ends)


class Stream(IterableDataset):
    """Gives each image only once, ever."""

    def __init__(self):
        self.left = iter(range(640))

    def __iter__(self):
        for index in self.left:
            yield digits()[index]


def test_a_stream_loses_nothing():
    saw = Saw()
    quiet(SNIP(0.5, score_batches=2), saw, max_epochs=1, max_steps=10).fit(
        Module(), DataLoader(Stream(), batch_size=64)
    )
    seen = torch.cat([x.cpu() for x, _ in saw.batches])
    assert torch.equal(seen, digits().tensors[0])


def test_in_the_middle_of_training_the_last_batches_are_read():
    read = []

    @of_network
    def look(network):
        read.append([batch[0].sum().item() for batch in network.batches])
        return none_dies_by_it(network)

    saw = Saw()
    quiet(GradualPruning(0.9, criterion=look, begin=4, end=9, every=5, score_batches=2), saw, max_epochs=1).fit(
        Module(), batches()
    )
    sums = [x.sum().item() for x, _ in saw.batches]
    assert read == [sums[7:9]]


class Counting(Logging):
    """Counts what reaches Lightning's own ``log``."""

    logged = 0

    def log(self, *arguments, **named):
        self.logged += 1
        super().log(*arguments, **named)


def test_logging_is_off_while_a_score_looks_and_on_again_afterwards():
    module, trainer = Counting(), quiet(SNIP(0.5, score_batches=3), max_epochs=1)
    trainer.fit(module, batches())
    assert module.calls == 3 + 10
    assert module.logged == 10
    assert set(trainer.callback_metrics) == {"train_loss"}
    assert "log" not in vars(module)


def test_no_batch_is_kept_where_no_update_is_to_come():
    kept = []

    class Peek(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            kept.append(len(trainer.callbacks[0]._batches._recent))

    quiet(SNIP(0.5), Peek(), max_epochs=1).fit(Module(), batches())
    assert kept == [0] * 10
    kept.clear()
    quiet(OneShot(0.5, at=6, criterion="snip", score_batches=2), Peek(), max_epochs=1).fit(Module(), batches())
    assert kept[:6] == [1, 2, 2, 2, 2, 2]


def test_manual_optimization_needs_a_loss_and_works_with_one():
    with pytest.raises(SparsityError, match="give loss_fn="):
        quiet(SNIP(0.5)).fit(ByHand(), batches())
    loss_fn = lambda module, batch: nn.functional.cross_entropy(module(batch[0]), batch[1])  # noqa: E731
    pruning = SNIP(0.5, loss_fn=loss_fn)
    quiet(pruning).fit(ByHand(), batches())
    assert pruning.sparsity == 0.5


@pytest.mark.parametrize("method", [SNIP, GraSP, SynFlow])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_in_every_precision(method, precision):
    pruning, module = method(0.9), Module()
    quiet(pruning, precision=precision, max_epochs=1).fit(module, batches())
    assert round(0.9 * pruning.masks.total) == pruning.masks.total - pruning.masks.living


def test_grasp_under_a_compiled_module():
    plain, compiled = GraSP(0.9), GraSP(0.9)
    quiet(plain, max_epochs=1).fit(Module(), batches())
    quiet(compiled, max_epochs=1).fit(torch.compile(Module(), backend="aot_eager"), batches())
    assert all(torch.equal(plain.masks[name], compiled.masks[name]) for name in plain.masks)


def test_snip_keeps_what_lee_et_al_keep_on_the_first_batch():
    module, loader = Module(), batches()
    images, labels = next(iter(loader))
    other = Module()
    nn.functional.cross_entropy(other(images), labels).backward()
    names = ["body.0.weight", "body.3.weight", "head.weight"]
    weights = {name: other.get_parameter(name) for name in names}
    scores = torch.cat([(w * w.grad).abs().flatten() for w in weights.values()])
    kept = scores.argsort(descending=True)[: round(0.1 * scores.numel())]
    expected = torch.zeros(scores.numel(), dtype=torch.bool)
    expected[kept] = True
    pruning = SNIP(0.9)
    quiet(pruning, max_epochs=1).fit(module, loader)
    assert torch.equal(torch.cat([pruning.masks[name].flatten() for name in names]), expected)
