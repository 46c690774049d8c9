"""Optimizers that people bring: wrappers, sharpness-aware, schedule-free, in 8 bits. Exact zeros in every forward pass."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch.nn.functional import cross_entropy

import settings
from lightning_sparse import GradualPruning, Quantise, RigL, Share, SparsityError, Static, attach, sparsity_of

accelerate = pytest.importorskip("accelerate")
pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
schedulefree = pytest.importorskip("schedulefree")
timm_optim = pytest.importorskip("timm.optim")
torchao_optim = pytest.importorskip("torchao.optim")

STEPS = 20


class Bare(torch.optim.Optimizer):
    """A wrapper that never calls Optimizer.__init__, as many do."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups
        self.defaults, self.state = optimizer.defaults, optimizer.state

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        return self.optimizer.step(closure)


class Own(Bare):
    """Another that steps by itself, and keeps no optimizer inside."""

    def __init__(self, parameters):
        self.param_groups, self.defaults, self.state = [{"params": list(parameters), "lr": 0.1}], {}, {}

    def zero_grad(self, set_to_none=True):
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(self.param_groups[0]["lr"] * parameter.grad)
        return loss


class Graft(torch.optim.Optimizer):
    """Holds an optimizer that it never steps."""

    def __init__(self, parameters):
        super().__init__(list(parameters), {"lr": 0.1})
        self.magnitude = torch.optim.SGD(self.param_groups[0]["params"], lr=0.1)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(0.1 * parameter.grad)
        return loss


class Hybrid(Graft):
    """Steps some matrices itself, and leaves the others to an optimizer inside."""

    def __init__(self, parameters):
        first, *others = parameters
        super().__init__([first])
        self.magnitude = torch.optim.SGD(others, lr=0.1)
        self.param_groups += self.magnitude.param_groups

    def step(self, closure=None):
        loss = super().step(closure)
        self.magnitude.step()
        return loss


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


WRAPPERS = {
    "bare": lambda p: Bare(sgd(p)),
    "bare in bare": lambda p: Bare(Bare(torch.optim.Adam(p, lr=1e-2))),
    "own": Own,
    "graft": Graft,
    "hybrid": Hybrid,
    "timm's Lookahead": lambda p: timm_optim.Lookahead(sgd(p), k=3),
    "pytorch_optimizer's Lookahead": lambda p: pytorch_optimizer.Lookahead(sgd(p), k=3),
    "accelerate's": lambda p: accelerate.Accelerator(cpu=True).prepare(sgd(p)),
    "Muon in Lookahead": lambda p: timm_optim.Lookahead(torch.optim.Muon(p, lr=0.02), k=3),
    "AdamW in 8 bits": lambda p: torchao_optim.AdamW8bit(p, lr=1e-2),
    "Ranger": lambda p: pytorch_optimizer.Ranger(p, lr=1e-2, k=3),
    "MADGRAD": lambda p: timm_optim.MADGRAD(p, lr=1e-2),
    "SOAP": lambda p: pytorch_optimizer.SOAP(p, lr=1e-2),
    "LAMB": lambda p: timm_optim.Lamb(p, lr=1e-2),
}
METHODS = {
    "static": lambda: Static(0.9, total_steps=STEPS),
    "gradual": lambda: GradualPruning(0.9, total_steps=STEPS),
    "rigl": lambda: RigL(0.9, every=3, total_steps=STEPS),
}


class Net(LightningModule):
    """Matrices alone (Muon takes nothing else), which look at their dead weights in every forward pass."""

    def __init__(self, make, method):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(64, 32, bias=False),
            nn.ReLU(),
            nn.Linear(32, 32, bias=False),
            nn.ReLU(),
            nn.Linear(32, 10, bias=False),
        )
        self.make, self.method, self.forwards, self.losses = make, method, 0, []

    def forward(self, images):
        assert settings.dead_are_zero(self, self.method.masks)
        self.forwards += 1
        return self.body(images)

    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return self.make(self.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_dead_weights_are_zero_in_every_pass_under_any_optimizer(wrapper, method, make_trainer):
    callback = METHODS[method]()
    module = Net(WRAPPERS[wrapper], callback)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert module.forwards == callback.engine.clock == STEPS
    assert settings.dead_are_zero(module, callback.masks)
    assert settings.exact(callback.masks, 0.9)
    assert sparsity_of(module) == callback.sparsity == callback.masks.sparsity
    assert module.losses[-1] < module.losses[0]
    if method == "rigl":
        assert sum(update.replaced for update in callback.history) > 0


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_nothing_is_left_on_an_optimizer(wrapper):
    net = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 4, bias=False))
    optimizer = WRAPPERS[wrapper](net.parameters())
    before = [dict(vars(each)) for each in (optimizer, getattr(optimizer, "optimizer", optimizer))]
    hooks = [len(entry.get("_optimizer_step_post_hooks", ())) for entry in before]
    attach(optimizer, net, Static(0.5)).detach()
    after = [vars(each) for each in (optimizer, getattr(optimizer, "optimizer", optimizer))]
    assert [entry.keys() for entry in after] == [entry.keys() for entry in before]
    assert [len(entry.get("_optimizer_step_post_hooks", ())) for entry in after] == hooks


class Sharp(Net):
    """Sharpness-aware minimization by hand, in two steps or in one with a closure."""

    def __init__(self, make, method, closure):
        super().__init__(make, method)
        self.automatic_optimization, self.closure = False, closure

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()

        def evaluate():
            loss = super(Sharp, self).training_step(batch, batch_idx)
            self.manual_backward(loss)
            return loss

        evaluate()
        if self.closure:
            optimizer.step(evaluate)
        else:
            optimizer.first_step(zero_grad=True)
            evaluate()
            optimizer.second_step(zero_grad=True)
        optimizer.zero_grad()


def sam(parameters):
    return pytorch_optimizer.SAM(parameters, torch.optim.AdamW, lr=1e-2)


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_sam_sees_exact_zeros_in_both_passes(method, closure, make_trainer):
    callback = METHODS[method]()
    module = Sharp(sam, callback, closure)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert callback.engine.clock == STEPS
    assert module.forwards == 2 * STEPS
    assert settings.exact(callback.masks, 0.9)
    assert module.losses[-2] < module.losses[0]


def test_the_radius_of_sam_is_that_of_the_living():
    """Dead gradients lengthen the gradient, and so shorten what the living are moved by: rho in all, by hand."""
    net = nn.Linear(4, 2, bias=False)
    optimizer = pytorch_optimizer.SAM(net.parameters(), torch.optim.SGD, rho=0.1, lr=0.1)
    attach(optimizer, net, Static(0.5))
    before = net.weight.detach().clone()
    net(torch.randn(3, 4)).square().sum().backward()
    optimizer.first_step()
    assert (net.weight - before).norm().item() == pytest.approx(0.1, rel=1e-4)
    assert sparsity_of(net) == 0.5


def test_averages_of_schedule_free_are_as_sparse_as_the_weights():
    features, labels = settings.digits()[:]
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = schedulefree.AdamWScheduleFree(net.parameters(), lr=1e-2)
    engine = attach(optimizer, net, GradualPruning(0.9), total_steps=60)
    for step in range(60):
        optimizer.eval()  # as before a validation: the weights become their average
        assert settings.dead_are_zero(net, engine.masks), step
        optimizer.train()
        optimizer.zero_grad()
        cross_entropy(net(features), labels).backward()
        optimizer.step()
    optimizer.eval()
    assert sparsity_of(net) == engine.sparsity == pytest.approx(0.9, abs=1e-4)
    assert (net(features).argmax(1) == labels).float().mean() > 0.8


@pytest.mark.parametrize("make", [lambda: Quantise(2), lambda: Share(2, begin=0)], ids=["Quantise", "Share"])
@pytest.mark.parametrize("kind", [schedulefree.SGDScheduleFree, schedulefree.AdamWScheduleFree])
def test_few_values_refuse_schedule_free_by_name_before_a_step(kind, make, make_trainer):
    module = settings.Module()
    module.configure_optimizers = lambda: kind(module.parameters(), lr=0.1)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(SparsityError, match=rf"{kind.__name__} puts an average .* train with SGD or Adam"):
        make_trainer(make(), max_epochs=1).fit(module, settings.batches())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("make", [lambda: Quantise(2), lambda: Share(2, begin=0)], ids=["Quantise", "Share"])
@pytest.mark.parametrize("closure", [False, True])
def test_few_values_under_sam_are_few_where_it_begins_and_ends(closure, make, make_trainer):
    models = []
    for order in (1, -1):
        pruning, few = METHODS["gradual"](), make()
        module = Sharp(sam, pruning, closure)
        make_trainer(*[pruning, few][::order], max_epochs=2).fit(module, settings.batches())
        assert max(few.distinct_values.values()) <= 4
        assert settings.exact(pruning.masks, 0.9)
        assert module.losses[-2] < module.losses[0]
        models.append(module)
    assert settings.same_state(*models)


def test_a_replaced_optimizer_is_followed(make_trainer):
    class Replaces(Net):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.trainer.optimizers = [torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)]

    callback = METHODS["gradual"]()
    module = Replaces(lambda p: torch.optim.Adam(p, lr=1e-2), callback)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert callback.engine.clock == STEPS
    assert settings.exact(callback.masks, 0.9)
    assert callback.sparsity == sparsity_of(module)


class Stray(Net):
    """Steps an optimizer that Lightning does not know."""

    def __init__(self, method, make):
        super().__init__(make, method)
        self.automatic_optimization = False
        self.stray = torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):
        self.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        self.stray.step()


def test_an_optimizer_that_the_trainer_does_not_know_is_noticed_at_the_next_batch(make_trainer):
    callback = Static(0.9)
    module = Stray(callback, sgd)
    with pytest.raises(
        SparsityError, match=r"dead weights of 'body.0.weight' and .* after step 0.*No step of SGD was seen"
    ):
        make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert module.forwards == 1


def test_and_is_no_trouble_once_it_is_returned_as_the_message_says(make_trainer):
    callback = Static(0.9, total_steps=STEPS)
    module = Stray(callback, sgd)
    module.configure_optimizers = lambda: module.stray
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert callback.engine.clock == STEPS
    assert sparsity_of(module) == callback.sparsity


class Writes(Net):
    """Code of one's own that writes weights after a step."""

    def __init__(self, method, tidy=False, through_data=False):
        super().__init__(sgd, method)
        self.tidy, self.through_data = tidy, through_data

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if batch_idx == 3:
            weight = self.body[2].weight
            with torch.no_grad():
                (weight.data if self.through_data else weight).add_(0.01)
            if self.tidy:
                self.method.engine.zero_dead()


def test_code_that_writes_dead_weights_is_noticed_at_the_next_batch(make_trainer):
    callback = Static(0.9)
    module = Writes(callback)
    message = r"^\d+ dead weights of 'body.2.weight' are not zero after step 4; .* began. Probably code of yours writes"
    with pytest.raises(SparsityError, match=message):
        make_trainer(callback, max_epochs=1).fit(module, settings.batches())
    assert module.forwards == 4


def test_and_is_no_trouble_once_it_calls_zero_dead_as_the_message_says(make_trainer):
    callback = Static(0.9)
    module = Writes(callback, tidy=True)
    make_trainer(callback, max_epochs=1).fit(module, settings.batches())
    assert callback.sparsity == sparsity_of(module) == callback.masks.sparsity


def test_what_torch_does_not_count_is_noticed_before_a_checkpoint_is_saved(make_trainer, tmp_path):
    class Late(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 9:
                self.body[2].weight.data.add_(0.01)

    callback = Static(0.9)
    module = Late(sgd, callback)
    with pytest.raises(SparsityError, match=r"dead weights of 'body.2.weight' are not zero after step 10"):
        make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert module.forwards == 10


def test_the_sparsity_that_is_reported_is_counted_in_the_weights(make_trainer):
    callback = Static(0.9)
    module = Net(sgd, callback)
    make_trainer(callback, max_epochs=1).fit(module, settings.batches())
    assert callback.sparsity == callback.masks.sparsity
    dead = callback.masks.total - callback.masks.living
    with torch.no_grad():
        module.body[0].weight[~callback.masks["body.0.weight"]] = 1.0  # by whatever came after
    lost = int((~callback.masks["body.0.weight"]).sum())
    assert callback.sparsity == (dead - lost) / callback.masks.total


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_step_whose_batch_was_left_out_only_puts_the_update_off(make_trainer):
    class LeavesOut(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if self.method.engine.clock == 8 else loss

    for method, due in (
        (RigL(0.9, every=3, total_steps=STEPS), 9),
        (GradualPruning(0.9, every=1, total_steps=STEPS), None),
    ):
        callback = copy.deepcopy(method)
        make_trainer(callback, max_epochs=2).fit(LeavesOut(sgd, callback), settings.batches())
        steps = [update.step for update in callback.history]
        assert settings.exact(callback.masks, 0.9)
        assert callback.engine.clock == STEPS
        if due:
            assert due not in steps
            assert callback.history[steps.index(due + 1)].replaced > 0


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_network_without_any_gradient_is_still_refused_at_the_second_update(make_trainer):
    class Never(Net):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)

    callback = RigL(0.9, every=3, total_steps=STEPS)
    with pytest.raises(SparsityError, match="no gradient at a mask update"):
        make_trainer(callback, max_epochs=2).fit(Never(sgd, callback), settings.batches())
    assert callback.engine.clock == 6


class WritesInStep(Net):
    """Adds noise to its weights within training_step, as few do."""

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            self.body[2].weight.add_(0.01)
        return cross_entropy(self.body(batch[0]), batch[1])


def test_what_training_step_writes_is_noticed_before_its_loss_is_learned_from(make_trainer):
    callback = Static(0.9)
    with pytest.raises(SparsityError, match=r"dead weights of 'body.2.weight' are not zero after step 0"):
        make_trainer(callback, max_epochs=1).fit(WritesInStep(sgd, callback), settings.batches())


def test_clipping_of_weights_that_keeps_zeros_is_nobodys_leak(make_trainer):
    class Clips(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            with torch.no_grad():
                for weight in self.parameters():
                    weight.clamp_(-0.1, 0.1)

    callback = RigL(0.9, every=3, total_steps=STEPS)
    module = Clips(sgd, callback)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert callback.sparsity == sparsity_of(module) == callback.masks.sparsity


@pytest.mark.parametrize("first", [True, False])
def test_an_average_put_in_place_at_the_very_end_is_masked_and_said(first, make_trainer):
    class Ends(Callback):
        def on_train_end(self, trainer, module):
            with torch.no_grad():
                module.body[0].weight.add_(0.01)

    callback, ends = Static(0.9), Ends()
    module = Net(sgd, callback)
    with pytest.warns(UserWarning, match=r"^\d+ dead weights were not zero when training ended"):
        make_trainer(*((ends, callback) if first else (callback, ends)), max_epochs=1).fit(module, settings.batches())
    assert settings.dead_are_zero(module, callback.masks)
    assert callback.sparsity == sparsity_of(module)


def test_two_optimizers_that_share_weights_are_not_taken_for_foreign_writes():
    net = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    both = [torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.SGD(net[0].parameters(), lr=0.1)]
    engine = attach(both[0], net, Static(0.8))
    engine.install(both)
    features, labels = settings.digits()[:]
    for _ in range(3):
        for optimizer in both:
            net.zero_grad()
            cross_entropy(net(features), labels).backward()
            assert not engine.moved()
            optimizer.step()
    assert engine.clock == 3
    assert engine.sparsity == engine.masks.sparsity
