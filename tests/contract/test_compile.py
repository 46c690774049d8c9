"""Every callback with torch.compile: no mask update compiles a new graph, and the numbers are those of the plain module."""

import pytest
import torch
from lightning.pytorch import Callback
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

import settings
from lightning_sparse import BrainDevelopment, GradualPruning, Static, attach, load_masks, sparsity_of
from settings import SAFE

# torch's own, where a compiled module is given what another compiled module has computed.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")


class Silent(settings.Module):
    """Logs nothing, so that each step is one graph."""

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)


class Wrapped(Silent):
    """Replaces its own modules with compiled ones, which gives their parameters new names."""

    def __init__(self, backend, **arguments):
        super().__init__(**arguments)
        self.body = torch.compile(self.body, backend=backend)
        self.head = torch.compile(self.head, backend=backend)


class InPlace(Silent):
    """Compiles itself where it is, under its own names."""

    def __init__(self, backend):
        super().__init__()
        self.compile(backend=backend)


class SaveEpoch(Callback):
    """Saves a checkpoint at the end of one epoch."""

    def __init__(self, path, epoch):
        self.path, self.epoch = path, epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path, weights_only=False)


WAYS = {
    "whole": lambda backend: torch.compile(Silent(), backend=backend),
    "wrapped": Wrapped,
    "in place": InPlace,
}


class Zeros(Callback):
    """Checks the dead weights from outside the graphs, just before the next one reads them."""

    def __init__(self, method):
        self.method, self.seen = method, 0

    def on_train_batch_start(self, trainer, pl_module, *args):
        assert settings.dead_are_zero(pl_module, self.method.masks)
        self.seen += 1

    def on_validation_batch_start(self, trainer, pl_module, *args):
        if not trainer.sanity_checking:
            self.on_train_batch_start(trainer, pl_module)


@pytest.fixture
def graphs():
    """How many graphs a fit compiled; each count starts at zero."""

    def count(model, trainer, counter):
        torch._dynamo.reset()
        trainer.fit(model, settings.batches(), settings.batches())
        return counter.frame_count

    yield count
    torch._dynamo.reset()


@pytest.fixture(scope="module", params=WAYS)
def way(request):
    """One way of compiling, and how many graphs it takes without a callback."""
    counter = CompileCounter()
    torch._dynamo.reset()
    settings.quiet(max_epochs=2).fit(WAYS[request.param](counter), settings.batches(), settings.batches())
    return WAYS[request.param], counter.frame_count


def test_mask_updates_cost_no_graph_and_change_no_number(way, graphs, make_method, make_trainer):
    compiled, dense_graphs = way
    counter, method = CompileCounter(), make_method(0.9)
    model, zeros = compiled(counter), Zeros(method)
    assert graphs(model, make_trainer(method, zeros, max_epochs=2), counter) == dense_graphs > 0
    assert zeros.seen == 40
    assert settings.exact(method.masks, 0.9)

    eager, twin = Silent(), make_method(0.9)
    make_trainer(twin, max_epochs=2).fit(eager, settings.batches(), settings.batches())
    assert [update.step for update in method.history] == [update.step for update in twin.history]
    assert method.history == twin.history
    original = getattr(model, "_orig_mod", model)
    numbers = zip(original.state_dict().values(), eager.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in numbers)


def test_the_graphs_of_the_ahead_of_time_compiler_are_no_more_either(graphs, make_trainer):
    counts = []
    for callbacks in ([], [BrainDevelopment(0.9)]):
        counter = CompileCounterWithBackend("aot_eager")
        model = Wrapped(counter)
        counts.append(graphs(model, make_trainer(*callbacks, max_epochs=2), counter))
    assert counts[0] == counts[1] > 0
    assert settings.exact(callbacks[0].masks, 0.9)
    assert settings.dead_are_zero(model, callbacks[0].masks)


def test_masks_of_compiled_parts_bear_their_names_and_go_on_from_a_checkpoint(make_method, make_trainer, tmp_path):
    whole, one = Wrapped("eager"), make_method(0.9)
    make_trainer(one).fit(whole, settings.batches())
    assert list(one.masks) == ["body._orig_mod.0.weight", "body._orig_mod.3.weight", "head._orig_mod.weight"]

    first = make_trainer(make_method(0.9), SaveEpoch(tmp_path / "half.ckpt", epoch=1))
    first.fit(Wrapped("eager"), settings.batches())
    resumed, two = Wrapped("eager", seed=9), make_method(0.9)
    make_trainer(two).fit(resumed, settings.batches(), ckpt_path=tmp_path / "half.ckpt", **SAFE)
    assert two.history == one.history
    assert settings.same_state(resumed, whole)

    stored = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert list(load_masks(stored)) == list(one.masks)
    plain = {name.replace("_orig_mod.", ""): weight for name, weight in stored["state_dict"].items()}
    settings.Module().load_state_dict(plain, strict=True)


@pytest.mark.parametrize("make", [Static, GradualPruning], ids=lambda make: make.__name__)
def test_the_hooks_are_no_part_of_a_compiled_step(make):
    torch._dynamo.reset()
    features, labels = settings.digits()[:]
    nets = [torch.nn.Linear(64, 10) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    counter = CompileCounter()
    for net, compiled in zip(nets, (True, False), strict=True):
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        engine = attach(optimizer, net, make(0.9), total_steps=20)
        step = torch.compile(optimizer.step, backend=counter) if compiled else optimizer.step
        for _ in range(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(features), labels).backward()
            step()
        assert engine.clock == 20
        assert engine.sparsity == 0.9 == sparsity_of(net)
    assert counter.frame_count == 1
    assert torch.equal(nets[0].weight == 0, nets[1].weight == 0)
    assert torch.allclose(nets[0].weight, nets[1].weight, atol=1e-5)  # without hooks they differ by as much
