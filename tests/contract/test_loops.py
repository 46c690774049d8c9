"""The same masks from the Trainer, from a plain torch loop and under Fabric; both namespaces; data without a length."""

import pytest
import pytorch_lightning
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, IterableDataset

from lightning_sparse import SNIP, BrainDevelopment, Curve, GradualPruning, SparseTraining, SparsityError, attach
from settings import Module, batches, dead_are_zero, digits, exact, same_state


def loop(model, optimizer, backward):
    for _ in range(4):
        for x, y in batches():
            optimizer.zero_grad()
            backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()


def test_trainer_plain_loop_and_fabric_give_the_same_network(make_method, make_trainer):
    trained, callback = Module(), make_method(0.9)
    make_trainer(callback).fit(trained, batches())

    plain = Module()
    optimizer = plain.configure_optimizers()
    engine = attach(optimizer, plain, make_method(0.9), total_steps=40)
    loop(plain, optimizer, lambda loss: loss.backward())

    fabric, wrapped = Fabric(accelerator="cpu", devices=1), Module()
    model, optimizer = fabric.setup(wrapped, wrapped.configure_optimizers())
    under_fabric = attach(optimizer, model, make_method(0.9), total_steps=40)
    loop(model, optimizer, fabric.backward)

    assert exact(callback.masks, 0.9)
    assert list(under_fabric.masks) == list(engine.masks) == list(callback.masks)
    assert under_fabric.masks.checksum() == engine.masks.checksum() == callback.masks.checksum()
    assert same_state(plain, trained)
    assert same_state(wrapped, trained)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda model: nn.DataParallel(torch.compile(model))])
def test_attach_names_parameters_as_the_bare_model_does(wrap):
    bare = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1)
    engine = attach(optimizer, wrap(bare), SparseTraining(0.5, include=["0.*"], exclude=["*.bias"]))
    assert list(engine.masks) == ["0.weight"]
    assert dead_are_zero(bare, engine.masks)


def test_a_model_whose_only_child_is_called_module_keeps_its_name():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(8, 8)

    model = Holder()
    engine = attach(torch.optim.SGD(model.parameters(), lr=0.1), model, SparseTraining(0.5))
    assert list(engine.masks) == ["module.weight"]


def test_the_other_namespace(make_method):
    class Other(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    model, callback = Other(), make_method(0.9)
    trainer = pytorch_lightning.Trainer(
        max_epochs=4, accelerator="cpu", barebones=True, gradient_clip_val=0.5, callbacks=[callback]
    )
    trainer.fit(model, batches())
    assert exact(callback.masks, 0.9)
    assert dead_are_zero(model, callback.masks)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(digits())


ABSOLUTE = {
    "gradual": GradualPruning(0.9, end=20, every=2),
    "brain": BrainDevelopment(0.9, densest_at=6, pruned_by=20, turnover_until=30, every=2),
    "static": SparseTraining(0.9),
    "rigl": SparseTraining(0.9, turnover=Curve(0.3).then(30, 0.0, "cosine"), every=5),
    "told": BrainDevelopment(0.9, total_steps=40),
}


@pytest.mark.parametrize("method", ABSOLUTE)
def test_data_without_a_length_work_with_steps(method, make_trainer):
    model, callback = Module(), ABSOLUTE[method]
    make_trainer(callback).fit(model, DataLoader(Endless(), batch_size=64))
    assert callback.engine.clock == 40
    assert exact(callback.masks, 0.9)
    assert dead_are_zero(model, callback.masks)


@pytest.mark.parametrize("share", [GradualPruning(0.9), BrainDevelopment(0.9), SparseTraining(0.9, turnover=0.1)])
def test_data_without_a_length_refuse_shares_and_say_what_to_write(share, make_trainer):
    with pytest.raises(SparsityError, match=r"int steps, pass total_steps=, or set the Trainer's max_steps"):
        make_trainer(share).fit(Module(), DataLoader(Endless(), batch_size=64))
    make_trainer(share, max_steps=30).fit(Module(), DataLoader(Endless(), batch_size=64))
    assert share.engine.clock == 30
    assert exact(share.masks, 0.9)


def test_what_was_refused_leaves_no_hook_in_the_optimizer():
    model = Module()
    optimizer = model.configure_optimizers()
    before = len(optimizer._optimizer_step_post_hooks)
    with pytest.raises(SparsityError, match="loss_fn="):
        attach(optimizer, model, SNIP(0.9), total_steps=40, batches=list(batches())[:1])
    assert len(optimizer._optimizer_step_post_hooks) == before


def test_a_second_engine_in_an_optimizer_is_refused_and_what_is_said_to_write_works():
    model = Module()
    optimizer = model.configure_optimizers()
    first = attach(optimizer, model, GradualPruning(0.9), total_steps=40)
    with pytest.raises(SparsityError, match=r"prunes 'body.0.weight': call that engine's detach.*exclude=\['body"):
        attach(optimizer, model, GradualPruning(0.5), total_steps=40)
    rest = {"exclude": ["body.0.weight", "body.3.weight"]}
    second = attach(
        model.configure_optimizers(), model, GradualPruning(0.5, **rest), total_steps=40
    )  # another optimizer
    second.detach()
    first.detach()
    engine = attach(optimizer, model, GradualPruning(0.5), total_steps=40)
    loop(model, optimizer, lambda loss: loss.backward())
    assert exact(engine.masks, 0.5)
    assert dead_are_zero(model, engine.masks)


def test_a_sharded_weight_is_refused_with_what_to_do():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(8, 4)
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(
            SparsityError, match=r"'weight' is sharded, .* attach before fully_shard\(\), call detach\(\)"
        ):
            attach(optimizer, model, GradualPruning(0.9))
    finally:
        torch.distributed.destroy_process_group()
