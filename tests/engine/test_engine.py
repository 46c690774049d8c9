import ast
import copy

import pytest
import torch
from torch import nn

from lightning_sparse import Curve, GradualPruning, Recipe, SparsityError, attach, cubic, load_masks

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))


def batches(steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 20, generator=generator), torch.randint(0, 5, (16,), generator=generator))
        for _ in range(steps)
    ]


def train(model, optimizer, data, each=lambda step: None):
    for step, (x, y) in enumerate(data, 1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        each(step)


LIFE = Recipe(
    Curve(0.7).then(20, 0.2, "linear").then(50, 0.9, "cubic"),
    turnover=Curve(0.0).then(50).then(80, 0.3).then(80, 0.0),
    every=5,
)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_dead_weights_are_zero_after_every_step_and_counts_are_exact(make):
    model = net()
    optimizer = make(model.parameters())
    engine = attach(optimizer, model, LIFE)
    weights = {name: model.get_parameter(name) for name in engine.masks}
    total = engine.masks.total

    def check(step):
        assert all((weights[name][~mask] == 0).all() for name, mask in engine.masks.items())
        if LIFE.resolve(None).due(step):
            assert total - engine.masks.living == round(LIFE.sparsity(step) * total)

    train(model, optimizer, batches(100), check)
    assert engine.clock == 100
    assert engine.masks.total - engine.masks.living == round(0.9 * total)
    assert [u.step for u in engine.history] == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75]
    assert all(u.replaced > 0 for u in engine.history if u.step in (55, 60, 65, 70, 75))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_newborn_takes_no_leap(make):
    """Its first step is at most three times a living weight's typical one (zeroed second moments make it 13 to 68)."""
    model = net()
    optimizer = make(model.parameters())
    engine = attach(optimizer, model, Recipe(Curve(0.8), turnover=Curve(0.3), every=40, grow="random"))
    data = batches(81)
    train(model, optimizer, data[:79])
    before = {name: mask for name, mask in engine.masks.items()}
    train(model, optimizer, data[79:80])  # the update at step 80 bears connections
    weights = {name: model.get_parameter(name).detach().clone() for name in engine.masks}
    train(model, optimizer, data[80:])
    for name, mask in engine.masks.items():
        moved = (model.get_parameter(name).detach() - weights[name]).abs()
        newborn, old = moved[mask & ~before[name]], moved[mask & before[name]]
        assert len(newborn) > 0
        assert newborn.max() <= 3 * old.max()
        assert newborn.median() <= 3 * old.median()


def test_sparsity_zero_is_the_dense_run_bit_for_bit():
    models = net(), net()
    data = batches(30)
    optimizers = [OPTIMIZERS["adam"](model.parameters()) for model in models]
    state = torch.get_rng_state()
    attach(optimizers[0], models[0], Recipe(cubic(0.0, end=20), grow="random", every=1))
    assert torch.equal(state, torch.get_rng_state())
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, data)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("grow", ["gradient", "momentum", "random"])
@pytest.mark.parametrize("stop", [1, 7, 20, 33, 52, 61])
def test_resumed_equals_uninterrupted_bit_for_bit(grow, stop, tmp_path):
    recipe = Recipe(LIFE.sparsity, LIFE.turnover, grow=grow, every=5, seed=3)
    data = batches(90)

    def start():
        model = net()
        optimizer = OPTIMIZERS["adam"](model.parameters())
        return model, optimizer, attach(optimizer, model, recipe)

    whole, optimizer, engine = start()
    train(whole, optimizer, data)

    model, optimizer, first = start()
    train(model, optimizer, data[:stop])
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sparse": first.state_dict()}, tmp_path / "c"
    )
    saved = torch.load(tmp_path / "c", weights_only=True)

    torch.manual_seed(99)
    model, optimizer, second = start()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    assert second.load_state_dict(saved["sparse"])
    train(model, optimizer, data[stop:])

    assert second.masks.checksum() == engine.masks.checksum()
    assert second.history == engine.history
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)
    assert load_masks(saved["sparse"]).checksum() == first.masks.checksum()


def test_changed_arguments_on_resume_are_an_error_that_names_them():
    model = net()
    first = attach(OPTIMIZERS["sgd"](model.parameters()), model, Recipe(cubic(0.9, end=50), every=5))
    second = attach(OPTIMIZERS["sgd"](model.parameters()), model, Recipe(cubic(0.8, end=50), every=5, seed=4))
    with pytest.raises(SparsityError, match=r"sparsity: .*0\.9.* -> .*0\.8.*seed: 0 -> 4"):
        second.load_state_dict(first.state_dict())


@pytest.mark.parametrize("clock_steps_first", [True, False])
def test_two_optimizers_share_the_model_and_the_first_owner_is_the_clock(clock_steps_first):
    from lightning_sparse import Engine, sparsifiable

    model = net()
    clock = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
    other = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    engine = Engine(sparsifiable(model), LIFE)
    engine.install([clock, other])
    engine.birth()
    for x, y in batches(60):
        assert all((model.get_parameter(name)[~mask] == 0).all() for name, mask in engine.masks.items())
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        for optimizer in (clock, other) if clock_steps_first else (other, clock):
            optimizer.step()
    assert engine.clock == 60
    assert engine.masks.sparsity == 0.9


def test_a_parameter_that_no_optimizer_owns_is_refused_by_name():
    model = net()
    with pytest.raises(SparsityError, match=r"no optimizer owns '2.weight'.*exclude=\['2.weight'\]"):
        attach(torch.optim.SGD(model[0].parameters(), lr=0.1), model, LIFE)


def test_all_parameters_that_no_optimizer_owns_are_named_by_patterns_that_leave_them_out():
    model = nn.ModuleDict({"net": net(), "ema": net(), "head": nn.Linear(3, 2)})
    optimizer = torch.optim.SGD(model["net"].parameters(), lr=0.1)
    with pytest.raises(SparsityError, match=r"no optimizer owns 'ema.0.weight' and 1 more.*'ema") as error:
        attach(optimizer, model, Recipe(Curve(0.5), exclude=("head.*",)))
    exclude = ast.literal_eval(str(error.value).partition("exclude=")[2])
    assert exclude == ["head.*", "ema.*"]
    engine = attach(optimizer, model, Recipe(Curve(0.5), exclude=exclude))
    assert list(engine.masks) == ["net.0.weight", "net.2.weight"]
    train(model["net"], optimizer, batches(3))
    assert engine.sparsity == 0.5


def test_an_optimizer_that_owns_no_target_is_refused_without_an_exclude_that_would_leave_nothing():
    model = net()
    with pytest.raises(SparsityError, match=r"no optimizer owns .* and 1 more.*give them to an optimizer$"):
        attach(torch.optim.SGD([model[0].bias], lr=0.1), model, LIFE)


def test_detached_engine_leaves_the_optimizer_alone():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    engine = attach(optimizer, model, Recipe(Curve(0.9)))
    engine.detach()
    train(model, optimizer, batches(3))
    assert engine.clock == 0
    assert not optimizer._optimizer_step_post_hooks
    assert (model[2].weight == 0).sum() < 0.5 * model[2].weight.numel()


def test_shares_without_a_length_are_refused():
    model = net()
    with pytest.raises(SparsityError, match="total_steps="):
        attach(OPTIMIZERS["sgd"](model.parameters()), model, GradualPruning(0.9))


def test_a_sparsity_that_would_empty_a_layer_is_refused_with_the_most_that_fits():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    with pytest.raises(SparsityError, match=r"leaves 1 for 4 layers.*at most 0\.75"):
        attach(OPTIMIZERS["sgd"](model.parameters()), model, Recipe(Curve(0.95)))


def test_a_user_defined_score_with_and_without_gradient():
    from lightning_sparse.engine.scores.of_layer import needs_gradient

    @needs_gradient
    def taylor(layer):
        return (layer.weight * layer.gradient).abs()

    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    engine = attach(optimizer, model, Recipe(cubic(0.5, end=10), drop=taylor, every=5))
    train(model, optimizer, batches(10))
    assert engine.sparsity == 0.5

    engine.detach()
    with pytest.raises(SparsityError, match="one number a connection"):
        attach(optimizer, model, Recipe(cubic(0.5, end=10), drop=lambda layer: layer.weight.sum(0), every=5))


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_changes_neither_clock_nor_masks(fused):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=fused)
    engine = attach(optimizer, model, Recipe(cubic(0.9, end=4), every=1))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    clocks = []
    for step, (x, y) in enumerate(batches(6)):
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
        if step in (1, 4):
            model[0].weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        clocks.append((engine.clock, len(engine.history)))
    assert clocks == [(1, 1), (1, 1), (2, 2), (3, 3), (3, 3), (4, 4)]
    assert engine.sparsity == 0.9


def test_under_fabric_the_masks_are_those_of_a_plain_loop():
    from lightning.fabric import Fabric

    plain = net()
    optimizer = OPTIMIZERS["adam"](plain.parameters())
    alone = attach(optimizer, plain, LIFE)
    train(plain, optimizer, batches(90))

    fabric = Fabric(accelerator="cpu", devices=1)
    original = net()
    model, optimizer = fabric.setup(original, OPTIMIZERS["adam"](original.parameters()))
    engine = attach(optimizer, original, LIFE)
    for x, y in batches(90):
        optimizer.zero_grad()
        fabric.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    assert engine.masks.checksum() == alone.masks.checksum()


def test_attach_goes_on_from_a_state_without_touching_weights():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    engine = attach(optimizer, model, LIFE)
    train(model, optimizer, batches(20))  # the densest point, far denser than the birth
    state, weights = engine.state_dict(), {name: weight.clone() for name, weight in model.state_dict().items()}
    engine.detach()
    again = attach(optimizer, model, LIFE, state=state)
    assert again.masks.checksum() == engine.masks.checksum()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())


def test_lbfgs_in_a_plain_loop_sees_exact_zeros_and_grows():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=5, line_search_fn="strong_wolfe")
    engine = attach(optimizer, model, LIFE)
    for x, y in batches(60):

        def closure(x=x, y=y):
            assert all((model.get_parameter(name)[~mask] == 0).all() for name, mask in engine.masks.items())
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert engine.sparsity == 0.9
    assert sum(update.born for update in engine.history) > 100
    engine.detach()
    assert not model[0].weight._post_accumulate_grad_hooks


def test_the_last_update_of_a_slow_curve_is_not_lost_to_rounding():
    """Over hundreds of thousands of steps the curve moves less than a float can tell before its end."""
    plan = Recipe(cubic(0.9, begin=0, end=337_500), every=4_500).resolve(None)
    assert plan.sparsity(337_499) == plan.sparsity(337_500)
    assert plan.due(337_500)


def test_a_score_with_a_memory_is_not_shared_between_trainings():
    from lightning_sparse.engine.scores.running import Momentum

    score = Momentum(0.5)
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    attach(optimizer, model, Recipe(LIFE.sparsity, LIFE.turnover, grow=score, every=5))
    train(model, optimizer, batches(10))
    assert score.state_dict() == {}
    assert Recipe(cubic(0.9), grow=Momentum(0.5)).plain() == Recipe(cubic(0.9), grow=Momentum(0.5)).plain()
    assert Recipe(cubic(0.9), grow=Momentum(0.5)).plain() != Recipe(cubic(0.9), grow=Momentum(0.6)).plain()


@pytest.mark.parametrize("total", [0, -5, 2.5, True])
def test_a_length_that_is_none_is_refused(total):
    model = net()
    with pytest.raises(SparsityError, match="is not an integer of at least 1: write the number of optimizer steps"):
        attach(OPTIMIZERS["sgd"](model.parameters()), model, GradualPruning(0.9), total_steps=total)


@pytest.mark.parametrize("compact", [False, True])
def test_on_a_cpu_masks_take_a_byte_a_weight(compact):
    model = net()
    engine = attach(torch.optim.SGD(model.parameters(), lr=0.1), model, Recipe(Curve(0.5), compact_masks=compact))
    assert all(words.element_size() == 1 for words in engine.masks._words.values())


def test_a_run_stopped_while_an_update_waits_for_gradients_does_it_at_the_next_step():
    def net_and_optimizer():
        torch.manual_seed(0)
        net = nn.Linear(20, 10)
        return net, torch.optim.SGD(net.parameters(), lr=0.1)

    def step(net, optimizer, *, left_out=False):
        optimizer.zero_grad()
        if not left_out:
            net(torch.ones(4, 20)).square().sum().backward()
        optimizer.step()

    recipe = Recipe(Curve(0.8), turnover=Curve(0.3), every=3)
    net, optimizer = net_and_optimizer()
    engine = attach(optimizer, net, recipe)
    for _ in range(2):
        step(net, optimizer)
    step(net, optimizer, left_out=True)
    weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(engine.state_dict())
    step(net, optimizer)

    again, other = net_and_optimizer()
    again.load_state_dict(weights)
    resumed = attach(other, again, recipe, state=state)
    step(again, other)
    for history in (engine.history, resumed.history):
        assert [update.step for update in history] == [0, 4]
        assert history[-1].replaced > 0
    assert torch.equal(again.weight, net.weight)
