"""Lightning's ``ModelPruning`` and ours in the same fifteen situations, each a pair of facts that is run here."""

import copy
import re
import socket
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LambdaCallback,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

import peers_workers
from lightning_sparse import BrainDevelopment, Curve, GradualPruning, SparseTraining, load_masks, sparsity_of
from settings import SAFE, Module, dead_are_zero, exact, same_state

pytestmark = [
    pytest.mark.peers,
    # Resuming without the ModelCheckpoint that saved is what some of these tests are about.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]

REPAIRED = "ModelPruning does this right now: correct the comparison"
LAYERS = ("body.0", "body.3", "head")


class Plain(Module):
    """Without the buffer that ModelPruning cannot save: one test is about that."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        del self.attention_mask


class Normless(Plain):
    """Without BatchNorm, after which weight averaging would take one more round through the data."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.body[1] = nn.Identity()


def model_pruning(model, **arguments):
    """ModelPruning at its fairest: the weights that ours prunes, half of the survivors an epoch, no rewinding."""
    fair = {
        "amount": 0.5,
        "parameters_to_prune": [(model.get_submodule(name), "weight") for name in LAYERS],
        "use_lottery_ticket_hypothesis": False,
    }
    return ModelPruning("l1_unstructured", **{**fair, **arguments})


@contextmanager
def fails(kind, message):
    """Make sure that ModelPruning still fails as it did when the comparison was written."""
    try:
        yield
    except kind as error:
        if not re.search(message, str(error), re.DOTALL):
            raise AssertionError("ModelPruning fails in another way now: correct the comparison") from error
    else:
        pytest.fail(REPAIRED)


def at_epoch_end(look):
    """Call ``look`` with the module at the end of each epoch, after the callbacks ahead of this one."""
    return LambdaCallback(on_train_epoch_end=lambda trainer, module: look(module))


def pruned_share(model):
    """Share of zeros in the masks that ModelPruning has hung into a model in training."""
    masks = [buffer for name, buffer in model.named_buffers() if name.endswith("weight_mask")]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def moved(model):
    """Copies of what the optimizer moves, one tensor for each layer that is pruned."""
    layers = [model.get_submodule(name) for name in LAYERS]
    return [getattr(layer, "weight_orig", layer.weight).detach().clone() for layer in layers]


def distance(weights, others):
    return sum(float((a - b).square().sum()) for a, b in zip(weights, others, strict=True)) ** 0.5


@pytest.fixture
def interrupt(loader, make_trainer, tmp_path):
    """Train four epochs; then, as a new process would, go on from the end of the third in a model of another seed."""

    def interrupt(make_callback, *watching):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
        whole, resumed = Plain(), Plain(seed=9)
        make_trainer(make_callback(whole), keep, enable_checkpointing=True).fit(whole, loader)
        checkpoint = folder / "epoch=2.ckpt"
        make_trainer(make_callback(resumed), *watching).fit(resumed, loader, ckpt_path=checkpoint, **SAFE)
        return whole, resumed, checkpoint

    return interrupt


def ticket(masks):
    """A score by which weights outside a lottery ticket die first, and then the smallest of those inside."""

    def score(layer):
        return layer.weight.abs() * masks[layer.name]

    return score


def test_01_resuming_keeps_the_masks(interrupt):
    whole, resumed, _ = interrupt(partial(model_pruning, apply_pruning=lambda epoch: epoch < 3))
    assert sparsity_of(whole) == pytest.approx(1 - 0.5**3, abs=1e-3)
    assert sparsity_of(resumed) < 0.05, REPAIRED

    _, resumed, checkpoint = interrupt(lambda model: GradualPruning(0.875))
    masks = load_masks(checkpoint)
    assert exact(masks, 0.875)
    assert dead_are_zero(resumed, masks)


def test_02_resuming_goes_on_with_the_schedule(interrupt):
    whole, resumed, _ = interrupt(model_pruning)
    assert sparsity_of(whole) == pytest.approx(1 - 0.5**4, abs=1e-3)
    assert sparsity_of(resumed) == pytest.approx(0.5, abs=1e-3), REPAIRED

    whole, resumed, _ = interrupt(lambda model: GradualPruning(1 - 0.5**4, end=1.0))
    assert sparsity_of(resumed) == pytest.approx(1 - 0.5**4, abs=1e-3)
    assert same_state(whole, resumed)


def test_03_what_was_saved_can_be_loaded(loader, make_trainer, tmp_path):
    def saved(callback, model, path):
        trainer = make_trainer(callback, max_epochs=2)
        trainer.fit(model, loader)
        trainer.save_checkpoint(path, weights_only=False)
        return path

    renamed = r'Missing key.*"body\.0\.weight".*Unexpected key.*"body\.0\.weight_orig", "body\.0\.weight_mask"'
    lasting = partial(model_pruning, make_pruning_permanent=False)
    model, fresh = Plain(), Plain()
    checkpoint = saved(lasting(model), model, tmp_path / "theirs.ckpt")
    with fails(RuntimeError, renamed):
        make_trainer(lasting(fresh)).fit(fresh, loader, ckpt_path=checkpoint, **SAFE)
    with fails(RuntimeError, renamed):
        make_trainer(lasting(fresh)).validate(fresh, loader, ckpt_path=checkpoint, verbose=False, **SAFE)

    fresh, callback = Plain(), GradualPruning(0.9, end=30, every=1)
    with pytest.warns(UserWarning, match="planned for step 30, and this training has 20 steps"):
        checkpoint = saved(GradualPruning(0.9, end=30, every=1), Plain(), tmp_path / "ours.ckpt")
    make_trainer(callback).validate(fresh, loader, ckpt_path=checkpoint, verbose=False, **SAFE)
    assert callback.masks.checksum() == load_masks(checkpoint).checksum()
    assert dead_are_zero(fresh, callback.masks)
    make_trainer(callback).fit(fresh, loader, ckpt_path=checkpoint, **SAFE)
    assert exact(callback.masks, 0.9)


def test_04_a_users_buffer_may_end_in_mask(loader, make_trainer, tmp_path):
    model = Module()
    trainer = make_trainer(model_pruning(model), max_epochs=1)
    trainer.fit(model, loader)
    with fails(KeyError, "attention_orig"):
        trainer.save_checkpoint(tmp_path / "theirs.ckpt", weights_only=False)

    callback = GradualPruning(0.9)
    trainer = make_trainer(callback, max_epochs=1)
    trainer.fit(Module(), loader)
    trainer.save_checkpoint(tmp_path / "ours.ckpt", weights_only=False)
    assert torch.equal(torch.load(tmp_path / "ours.ckpt")["state_dict"]["attention_mask"], torch.ones(3))
    assert load_masks(tmp_path / "ours.ckpt").checksum() == callback.masks.checksum()


def test_05_every_lottery_ticket_starts_at_the_first_weights(loader, make_trainer):
    model, off = Plain(), []
    first = moved(model)
    lottery = model_pruning(model, use_lottery_ticket_hypothesis=True)
    make_trainer(lottery, at_epoch_end(lambda module: off.append(distance(moved(module), first)))).fit(model, loader)
    assert off[0] == 0.0
    assert min(off[1:]) > 1.0, REPAIRED  # what it keeps of the first weights is trained along with the model

    # With ours a ticket is a new training of the first weights, under the masks that the last one ended with.
    sparsities, off = (0.0, 0.5, 0.75, 0.875, 0.9375), []
    masks = {f"{name}.weight": torch.ones_like(weight) for name, weight in zip(LAYERS, first, strict=True)}
    for before, after in pairwise(sparsities):
        callback = SparseTraining(Curve(before).then(9).then(10, after), drop=ticket(masks))
        start = [weight * mask for weight, mask in zip(first, masks.values(), strict=True)]
        look = LambdaCallback(
            on_train_start=lambda trainer, module, start=start: off.append(distance(moved(module), start))
        )
        make_trainer(callback, look, max_epochs=1).fit(Plain(), loader)
        assert exact(callback.masks, after)
        assert not any((mask & (masks[name] == 0)).any() for name, mask in callback.masks.items())
        masks = dict(callback.masks)
    assert off == [0.0] * 4


def test_06_a_resumed_lottery_ticket_keeps_its_first_weights(interrupt):
    rewound = []
    watch = at_epoch_end(lambda module: rewound.extend(moved(module)))
    interrupt(partial(model_pruning, use_lottery_ticket_hypothesis=True), watch)
    assert distance(rewound, moved(Plain(seed=9))) == 0.0, REPAIRED  # the weights of a model that was never trained

    first = dict(zip((f"{name}.weight" for name in LAYERS), moved(Plain()), strict=True))
    winning = {name: weight.abs() > 0.08 for name, weight in first.items()}
    sparsity = 1 - sum(int(mask.sum()) for mask in winning.values()) / sum(mask.numel() for mask in winning.values())
    next_round = Curve(sparsity).then(9).then(10, 0.9)
    whole, resumed, checkpoint = interrupt(lambda model: SparseTraining(next_round, drop=ticket(winning)))
    assert 0.5 < sparsity < 0.9
    assert exact(load_masks(checkpoint), 0.9)
    assert dead_are_zero(whole, winning)
    assert same_state(whole, resumed)


def test_07_one_gets_what_one_asked_for(loader, make_trainer):
    model, shares, off = Plain(), [], []
    first = moved(model)

    def look(module):
        shares.append(pruned_share(module))
        off.append(distance(moved(module), first))

    half = ModelPruning("l1_unstructured", parameter_names=["weight"], amount=0.5)
    make_trainer(half, at_epoch_end(look), max_epochs=5).fit(model, loader)
    assert shares == pytest.approx([0.5, 0.75, 0.875, 0.9375, 0.96875], abs=1e-3), REPAIRED
    assert off[0] == 0.0, REPAIRED  # one epoch of training is thrown away without being asked for

    callback, shares, off = GradualPruning(0.5), [], []

    def look_at_ours(module):
        shares.append(callback.sparsity)
        start = [weight * mask for weight, mask in zip(first, callback.masks.values(), strict=True)]
        off.append(distance(moved(module), start))

    make_trainer(callback, at_epoch_end(look_at_ours), max_epochs=5).fit(Plain(), loader)
    assert shares == sorted(shares)
    assert shares[-1] == 0.5
    assert off[0] > 1.0


def zhu_and_gupta(step, final=0.9, end=50):
    """Equation 1 of "To prune, or not to prune", from sparsity 0 at step 0."""
    return final - final * (1 - min(step, end) / end) ** 3


def test_08_a_published_schedule_gives_its_published_sparsities(loader, make_trainer):
    model, shares = Plain(), []
    theirs = model_pruning(model, amount=lambda epoch: zhu_and_gupta(10 * (epoch + 1)))
    make_trainer(theirs, at_epoch_end(lambda module: shares.append(pruned_share(module))), max_epochs=6).fit(
        model, loader
    )
    assert shares == pytest.approx([0.4392, 0.8348, 0.9740, 0.9972, 0.9997, 1.0], abs=1e-3), REPAIRED

    callback = GradualPruning(0.9, end=50, every=10)
    make_trainer(callback, max_epochs=6).fit(Plain(), loader)
    total = callback.masks.total
    pruned = {update.step: round(update.sparsity * total) for update in callback.history}
    assert pruned == {step: round(zhu_and_gupta(step) * total) for step in (10, 20, 30, 40, 50)}
    assert exact(callback.masks, 0.9)


@pytest.mark.parametrize("prune_on_train_epoch_end", [True, False])
def test_09_the_best_checkpoint_is_the_model_that_was_scored(prune_on_train_epoch_end, loader, make_trainer, tmp_path):
    def scored_and_saved(make_callback, folder):
        model = Plain()
        best = ModelCheckpoint(folder, monitor="accuracy", mode="max")
        make_trainer(make_callback(model), best, enable_checkpointing=True).fit(model, loader, loader)
        [again] = make_trainer().validate(Plain(), loader, ckpt_path=best.best_model_path, verbose=False, **SAFE)
        return float(best.best_model_score), again["accuracy"]

    theirs = partial(model_pruning, prune_on_train_epoch_end=prune_on_train_epoch_end)
    scored, saved = scored_and_saved(theirs, tmp_path / "theirs")
    assert scored - saved > 0.05, REPAIRED

    scored, saved = scored_and_saved(lambda model: GradualPruning(1 - 0.5**4), tmp_path / "ours")
    assert scored == saved


AVERAGES = {
    "swa": (Normless, lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)),
    "swa-and-norm": (Plain, lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)),
    "ema": (Plain, lambda: EMAWeightAveraging(decay=0.9)),
}


@pytest.mark.parametrize("order", [1, -1], ids=["averaged-first", "pruned-first"])
@pytest.mark.parametrize(("kind", "average"), AVERAGES.values(), ids=AVERAGES)
def test_10_an_averaged_model_is_as_sparse_as_asked(kind, average, order, loader, make_trainer):
    model = kind()
    with fails(RuntimeError, r"The size of tensor a \(\d+\) must match the size of tensor b \(\d+\)"):
        make_trainer(*[average(), model_pruning(model)][::order]).fit(model, loader)

    # An average remembers connections that have died since, whether once or, replaced by others, again and again.
    for method in (GradualPruning, BrainDevelopment):
        model, callback = kind(), method(0.9)
        make_trainer(*[average(), callback][::order]).fit(model, loader)
        assert exact(callback.masks, 0.9)
        assert dead_are_zero(model, callback.masks)


def test_11_the_model_can_be_copied_and_the_callback_used_again(loader, make_trainer):
    not_a_leaf = "Only Tensors created explicitly by the user"
    model = Plain()
    with fails(RuntimeError, not_a_leaf):
        make_trainer(model_pruning(model), at_epoch_end(lambda module: copy.deepcopy(module.body))).fit(model, loader)
    model = Plain()
    callback = model_pruning(model, use_lottery_ticket_hypothesis=True, make_pruning_permanent=False)
    make_trainer(callback).fit(model, loader)
    with fails(RuntimeError, not_a_leaf):
        make_trainer(callback).fit(model, loader)
    callback = ModelPruning("l1_unstructured")
    make_trainer(callback, max_epochs=1).fit(Plain(), loader)
    with fails(MisconfigurationException, "`parameters_to_prune` don't exist in the model"):
        make_trainer(callback, max_epochs=1).fit(Plain(), loader)

    model, callback, copies = Plain(), GradualPruning(0.9), []
    make_trainer(callback, at_epoch_end(lambda module: copies.append(copy.deepcopy(module.body)))).fit(model, loader)
    assert len(copies) == 4
    assert same_state(copies[-1], model.body)
    for again in (model, Plain()):
        make_trainer(callback).fit(again, loader)
        assert exact(callback.masks, 0.9)
        assert dead_are_zero(again, callback.masks)


def test_12_random_masks_are_the_same_on_every_rank(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(peers_workers.train_with_random_masks, (port, str(tmp_path)), nprocs=2)

    def both(whose):
        one, two = (torch.load(tmp_path / f"{whose}-{rank}.pt") for rank in (0, 1))
        return [torch.cat([weight.flatten() for weight in weights.values()]) for weights in (one, two)]

    one, two = both("theirs")
    # DDP broadcasts rank 0's masks at the next training step; after the last pruning there is none.
    assert ((one == 0) != (two == 0)).float().mean() == pytest.approx(0.5, abs=0.05), REPAIRED

    one, two = both("ours")
    assert torch.equal(one, two)
    assert int((one == 0).sum()) == round(0.5 * len(one))


def test_13_norm_layers_and_biases_are_left_alone(loader, make_trainer):
    model = Plain()
    defaults = ModelPruning("l1_unstructured", amount=0.5, use_lottery_ticket_hypothesis=False)
    make_trainer(defaults, max_epochs=1).fit(model, loader)
    assert (model.body[1].bias == 0).float().mean() > 0.9, REPAIRED
    assert (model.body[0].bias == 0).float().mean() > 0.3, REPAIRED

    model, callback = Plain(), GradualPruning(0.5)
    make_trainer(callback, max_epochs=1).fit(model, loader)
    assert list(callback.masks) == [f"{name}.weight" for name in LAYERS]
    assert not any((p == 0).any() for name, p in model.named_parameters() if name not in callback.masks)


def test_14_whole_units_can_be_pruned(loader, make_trainer):
    model = Plain()
    units = ModelPruning("ln_structured", use_global_unstructured=False, pruning_dim=0, pruning_norm=2, amount=0.5)
    with fails(ValueError, "Structured pruning can only be applied to multidimensional tensors"):
        make_trainer(units, max_epochs=1).fit(model, loader)

    def norm_of_the_unit(layer):
        return layer.weight.norm(dim=1, keepdim=True).expand_as(layer.weight)

    model = Plain()
    callback = GradualPruning(
        0.5, begin=10, end=10, criterion=norm_of_the_unit, allocation="uniform", exclude=["head.*"]
    )
    make_trainer(callback, max_epochs=2).fit(model, loader)
    for mask in callback.masks.values():
        half = len(mask) // 2
        assert sorted(mask.sum(1).tolist()) == [0] * half + [mask.shape[1]] * half
    assert dead_are_zero(model, callback.masks)


def test_15_dead_weights_stand_still(loader, make_trainer):
    model, dead = Plain(), []

    def look(module):
        layers = [module.get_submodule(name) for name in LAYERS]
        dead.append(torch.cat([layer.weight_orig.detach()[layer.weight_mask == 0] for layer in layers]))

    once = model_pruning(model, apply_pruning=lambda epoch: epoch == 0)
    make_trainer(once, at_epoch_end(look), max_epochs=3).fit(model, loader)
    assert (dead[2] - dead[1]).abs().mean() > 1e-3, REPAIRED

    model, callback, still = Plain(), GradualPruning(0.5, begin=10, end=10), []
    watch = LambdaCallback(on_train_batch_end=lambda *_: still.append(dead_are_zero(model, callback.masks)))
    make_trainer(callback, watch, max_epochs=3).fit(model, loader)
    assert still == [True] * 30
    assert exact(callback.masks, 0.5)
