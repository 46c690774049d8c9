"""The adversarial images are right, training on them helps, and nothing else is touched."""

import copy
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import settings
from lightning_sparse import GradualPruning, SparsityError, SparsityMonitor
from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.callbacks.adversarial_training import AdversarialTraining
from lightning_sparse.measure.robustness.pgd import pgd
from lightning_sparse.models.classifier import Classifier
from lightning_sparse.models.networks import small_cnn
from settings import SAFE

# Resuming without the ModelCheckpoint that saved is what some tests here do.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


class Own:
    """A loader that gives its very own tensors, as a list in memory does."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def pictures(begin=0, end=640):
    flat, labels = settings.digits()[begin:end]
    return flat.view(-1, 1, 8, 8), labels


class Seeing(settings.Module):
    """Keeps what training_step sees, and the gradients, modes and random states that it finds."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.seen, self.found = [], []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch[0].clone(), batch[1].clone()))
        buffers = {name: buffer.clone() for name, buffer in self.named_buffers()}
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        gradients = [parameter.grad for parameter in self.parameters()]
        self.found.append((buffers, [part.training for part in self.modules()], states, gradients))
        return super().training_step(batch, batch_idx)


class Watching(Classifier):
    """Likewise, with the pictures normalised inside."""

    def __init__(self, net=None):
        super().__init__(net or small_cnn((1, 8, 8), 10), mean=[0.3], std=[0.4], schedule="constant")
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].clone())
        return super().training_step(batch, batch_idx)


class Linear(LightningModule):
    """Two classes: the direction that hurts most is the same everywhere."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 2)
        self.seen = []

    def forward(self, images):
        return self.layer(images.flatten(1))

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].clone())
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(make_trainer, model, loader, *callbacks, **arguments):
    trainer = make_trainer(*callbacks, **{"max_epochs": 1, **arguments})
    trainer.fit(model, loader)
    return trainer


def along(model, labels):
    """Of each image, the weights of the other class minus those of its own."""
    weight = model.layer.weight.detach()
    return (weight[1 - labels] - weight[labels]).view(-1, 1, 8, 8)


def two_classes(low=0.0, high=1.0):
    torch.manual_seed(0)
    return low + (high - low) * torch.rand(48, 1, 8, 8), torch.randint(2, (48,))


def test_pgd_on_a_linear_model_is_the_corner_of_the_ball(make_trainer):
    images, labels = two_classes()
    model = Linear()
    fit(make_trainer, model, Own((images, labels)), AdversarialTraining(0.1, steps=5))
    expected = (images + 0.1 * along(model, labels).sign()).clamp(0, 1)
    assert torch.allclose(model.seen[0], expected, atol=1e-6)


def test_pgd_in_l2_on_a_linear_model_goes_eps_far_along_its_weights(make_trainer):
    images, labels = two_classes(0.4, 0.6)
    model = Linear()
    fit(make_trainer, model, Own((images, labels)), AdversarialTraining(0.3, steps=100, step_size=0.15, norm="L2"))
    direction = along(model, labels)
    expected = images + 0.3 * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(model.seen[0], expected, atol=1e-4)


def test_one_step_is_fgsm_from_a_random_start(make_trainer):
    """From a start u in [-eps, eps], 1.25 eps along s ends where s u in [-eps, -eps/4] gives s u + 1.25 eps, others eps."""
    images, labels = two_classes(0.4, 0.6)
    model = Linear()
    fit(make_trainer, model, Own((images, labels)), AdversarialTraining(0.1))
    moved = (model.seen[0] - images) * along(model, labels).sign() / 0.1
    at_the_edge = moved > 1 - 1e-5
    inside = moved[~at_the_edge]
    assert inside.min() > 0.25 - 1e-5
    assert float(at_the_edge.float().mean()) == pytest.approx(1.25 / 2, abs=0.03)  # 3072 pixels
    assert float(inside.mean()) == pytest.approx(0.625, abs=0.02)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_images_are_those_of_torchattacks(norm, make_trainer):
    torchattacks = pytest.importorskip("torchattacks")
    model = Watching()
    before = copy.deepcopy(model).eval()
    images, labels = pictures(0, 64)
    eps, steps = {"Linf": (0.1, 4), "L2": (0.8, 4)}[norm]
    fit(make_trainer, model, Own((images, labels)), AdversarialTraining(eps, steps=steps, norm=norm, seed=3))
    # Seed, epoch, batch, rank.
    torch.manual_seed(int(np.random.SeedSequence((3, 0, 0, 0)).generate_state(1, np.uint64)[0]))
    attack = {"Linf": torchattacks.PGD, "L2": torchattacks.PGDL2}[norm]
    expected = attack(before, eps=eps, alpha=2.5 * eps / steps, steps=steps)(images, labels)
    assert torch.allclose(model.seen[0], expected, atol=1e-5)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 1.0)])
@pytest.mark.parametrize("steps", [1, 5])
def test_it_stays_in_its_ball_and_raises_the_loss(norm, eps, steps, make_trainer):
    trained = Watching()
    fit(make_trainer, trained, DataLoader(TensorDataset(*pictures()), batch_size=64), max_epochs=3)
    model, images, labels = Watching(copy.deepcopy(trained.net)), *pictures(0, 64)
    fit(make_trainer, model, Own((images, labels)), AdversarialTraining(eps, steps=steps, norm=norm))
    (seen,) = model.seen
    change = (seen - images).flatten(1)
    size = change.abs().amax(1) if norm == "Linf" else change.norm(dim=1)
    assert size.max() <= eps + 1e-5
    assert 0 <= seen.min() <= seen.max() <= 1
    with untouched(trained):
        clean, adversarial = (nn.functional.cross_entropy(trained(x), labels) for x in (images, seen))
    assert adversarial > 1.5 * clean


def robust(model, eps, images, labels):
    with untouched(model):
        _, broken = pgd(model, images, labels, eps=eps, steps=20)
    return 1 - float(broken.float().mean())


def test_it_makes_a_network_robust(make_trainer):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = torch.tensor(bunch.images / 16).float().unsqueeze(1), torch.tensor(bunch.target)
    loader, held_out = (
        DataLoader(TensorDataset(images[:1200], labels[:1200]), 48),
        (images[1200:1450], labels[1200:1450]),
    )
    found = {}
    for name, callbacks in {
        "standard": [],
        "fgsm": [AdversarialTraining(0.15)],
        "pgd, sparse": [AdversarialTraining(0.15, steps=3), GradualPruning(0.8)],
    }.items():
        torch.manual_seed(0)
        model = Classifier(small_cnn((1, 8, 8), 10, width=0.5), mean=[0.3], std=[0.4], schedule="constant")
        model._optimizer = lambda parameters: torch.optim.Adam(parameters, 3e-3)
        fit(make_trainer, model, loader, *callbacks, max_epochs=6)
        with torch.no_grad():
            clean = float((model.eval()(held_out[0]).argmax(1) == held_out[1]).float().mean())
        found[name] = clean, robust(model, 0.15, *held_out)
    assert all(clean > 0.8 for clean, _ in found.values()), found
    standard = found["standard"][1]
    assert all(found[name][1] > standard + 0.2 for name in ("fgsm", "pgd, sparse")), found


@pytest.mark.filterwarnings("ignore:Found 1 module")
def test_the_step_finds_the_model_as_it_was(module, loader, make_trainer):
    """At lr 0 and with a frozen BatchNorm, what training_step finds must not depend on the attack."""

    def run(*callbacks):
        model = Seeing()
        model.lr = 0.0
        model.body[1].train(False)
        model.body[0].bias.requires_grad_(False)
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(5)
        fit(make_trainer, model, loader, *callbacks)
        assert [p.requires_grad for p in model.parameters()] == [True, False] + [True] * 6
        return model

    clean, attacked = run(), run(AdversarialTraining(0.1, steps=2))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(clean.seen, attacked.seen, strict=True))
    for (one, modes, states, gradients), (two, modes_2, states_2, gradients_2) in zip(
        clean.found, attacked.found, strict=True
    ):
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert modes == modes_2
        assert False in modes
        assert torch.equal(states[0], states_2[0])
        assert states[1:] == states_2[1:]
        assert [gradient is None for gradient in gradients] == [gradient is None for gradient in gradients_2]
    assert attacked.found[0][3] == [None] * 8


class Failing(settings.Module):
    def training_step(self, batch, batch_idx):
        assert not torch.equal(batch[0].cpu(), self.clean)
        raise RuntimeError("in the middle of a step")


class Skipping(Failing):
    def on_train_batch_start(self, batch, batch_idx):
        assert not torch.equal(batch[0].cpu(), self.clean)
        return -1


@pytest.mark.parametrize("kind", [Seeing, Failing, Skipping])
def test_the_data_set_is_not_written_into(kind, make_trainer):
    images, labels = settings.digits()[:64]
    original, memory = images.clone(), images.data_ptr()
    model = kind()
    model.clean = original
    stops = pytest.raises(RuntimeError, match="in the middle of a step") if kind is Failing else nullcontext()
    with stops:
        fit(make_trainer, model, Own((images, labels)), AdversarialTraining(0.2), max_epochs=2)
    assert torch.equal(images, original)
    assert images.data_ptr() == memory
    if kind is Seeing:
        assert len(model.seen) == 2
        assert not torch.equal(model.seen[0][0], model.seen[1][0])  # other noise in every epoch


class Again(settings.Module):
    """With Dropout, whose random state the callback does not save: here it is a function of the step."""

    def training_step(self, batch, batch_idx):
        torch.manual_seed(self.trainer.global_step)
        x = nn.functional.dropout(batch[0], 0.2)
        return nn.functional.cross_entropy(self(x), batch[1])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("at", ["epoch=1-step=", "mid"])
def test_a_resumed_run_is_the_run_that_never_stopped(at, accumulate, order, make_trainer, tmp_path):
    def callbacks():
        return [AdversarialTraining(0.1, steps=2, seed=7), GradualPruning(0.8, every=2)][::order]

    arguments = {"accumulate_grad_batches": accumulate, "enable_checkpointing": True, "max_epochs": 4}
    loader = settings.batches()
    if at == "mid":  # a loader whose state can be saved
        loader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader(
            settings.digits(), batch_size=64
        )
    every = {"every_n_train_steps": 14 // accumulate} if at == "mid" else {}
    keep = ModelCheckpoint(tmp_path, filename="{epoch}-{step}", save_top_k=-1, **every)
    whole = Again()
    make_trainer(*callbacks(), keep, **arguments).fit(whole, loader)
    pattern = f"*step={14 // accumulate}.ckpt" if at == "mid" else f"{at}*.ckpt"
    (path,) = tmp_path.glob(pattern)
    resumed = Again(seed=9)
    if at == "mid":
        loader = type(loader)(settings.digits(), batch_size=64)
    make_trainer(*callbacks(), **{**arguments, "enable_checkpointing": False}).fit(
        resumed, loader, ckpt_path=path, **SAFE
    )
    assert settings.same_state(resumed, whole)


def test_a_run_resumed_with_another_attack_is_refused(module, loader, make_trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="end")
    fit(make_trainer, module(), loader, AdversarialTraining(0.1), keep, enable_checkpointing=True)
    other = AdversarialTraining(0.2)
    trainer = make_trainer(other)
    with pytest.raises(
        SparsityError, match=r"eps=0\.2, and the checkpoint was trained with eps=0\.1: resume with the same"
    ):
        trainer.fit(module(), loader, ckpt_path=tmp_path / "end.ckpt", **SAFE)
    make_trainer(other).validate(module(), loader, ckpt_path=tmp_path / "end.ckpt", verbose=False, **SAFE)
    fit(make_trainer, module(), loader, other)  # a fresh training is not compared with an earlier one


def test_the_order_of_callbacks_makes_no_difference(loader, make_trainer):
    found = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        model, monitor = settings.Module(), SparsityMonitor()
        all_three = [AdversarialTraining(0.1, steps=2), GradualPruning(0.9, every=2), monitor]
        trainer = fit(make_trainer, model, loader, *[all_three[place] for place in order], max_epochs=2)
        found.append((model, monitor.flops.dense, monitor.flops.sparse, dict(trainer.callback_metrics)))
    for model, *numbers in found[1:]:
        assert settings.same_state(model, found[0][0])
        assert numbers == list(found[0][1:])
    weights = 64 * 60 + 60 * 30 + 30 * 10
    assert found[0][1] == 3 * 2 * weights * 640 * 2  # the steps' own, as without an attack


def test_dead_connections_are_zero_while_the_attack_looks(module, loader, make_trainer):
    method, looked = GradualPruning(0.9, every=2), []

    def forward(model, images):
        looked.append(settings.dead_are_zero(model, method.masks))
        return model(images)

    fit(make_trainer, module(), loader, AdversarialTraining(0.1, steps=2, forward=forward), method)
    assert looked == [True] * 20


def test_in_manual_optimization_it_is_the_same(loader, make_trainer):
    models = [settings.Module(), settings.ByHand()]
    for model in models:
        fit(make_trainer, model, loader, AdversarialTraining(0.1, steps=2))
    assert settings.same_state(*models)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, r"eps=8 is not in \(0, 1\], the units of pixels: write 8 / 255"),
        ({"eps": 0}, r"eps=0 is not in"),
        ({"eps": -1.0, "norm": "L2"}, r"eps=-1\.0 is not a positive number"),
        ({"eps": 0.1, "norm": "L1"}, r"norm='L1' does not exist: .*Linf"),
        ({"eps": 0.1, "steps": 0}, r"steps=0 is not an integer of at least 1"),
        ({"eps": 0.1, "step_size": 5}, r"step_size=5 is not in \(0, 1\]"),
        ({"eps": 0.1, "seed": -1}, r"seed=-1 is not an integer in \[0, 4294967295\]"),
        ({"eps": 0.1, "images": None}, r"images=None is no place in a batch: write images=0"),
        ({"eps": 0.1, "mean": 0.5}, r"mean=0\.5 is not one number per channel"),
        ({"eps": 0.1, "std": [0.0]}, r"std=\[0\.0\] is not positive"),
        ({"eps": 0.1, "forward": "logits"}, r"forward='logits' cannot be called"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(SparsityError, match=message):
        AdversarialTraining(**arguments)


X, Y = settings.digits()[:8]


@pytest.mark.parametrize(
    ("batch", "arguments", "message"),
    [
        ((X * 16, Y), {}, r"images lie in \[0, 16\], not in \[0, 1\]"),
        ((X - 0.5, Y), {}, r"images lie in \[-0\.5, 0\.5\]"),
        (((X * 255).byte(), Y), {}, r"images are torch\.uint8, not floats"),
        ((X, Y - 5), {}, r"labels reach -5"),
        ((X, Y + 5), {}, r"labels reach 1\d, but the model has 10 classes"),
        ((X, Y.float()), {}, r"labels are torch\.float32, not integers"),
        ((X, Y[:4]), {}, r"labels have shape \(4,\), not \(8,\)"),
        ({"x": X, "y": Y}, {}, r"images=0 finds nothing in a batch that is a dict with keys 'x', 'y'.*write images="),
        ({"x": X, "y": Y}, {"images": "x"}, r"labels=1 finds nothing"),
        (X, {}, r"images=0 finds nothing in a batch that is a Tensor"),
        ((X, Y), {"labels": 2}, r"labels=2 finds nothing in a batch that is a list|tuple"),
        ((X, Y), {"forward": lambda m, x: m(x).softmax(1)}, r"gives probabilities .* not logits"),
        (
            (X, Y),
            {"forward": lambda m, x: {"logits": m(x)}},
            r"a dict of 'logits' \(8, 10\), not logits: write Adv.*\(\.\.\., forward=",
        ),
        ((X, Y), {"forward": lambda m, x: m(x).detach()}, r"have no gradient with respect to the images"),
    ],
)
def test_a_batch_that_cannot_be_attacked_is_refused_at_the_first(batch, arguments, message, module, make_trainer):
    model = module()
    before = copy.deepcopy(model)
    with pytest.raises(SparsityError, match=message):
        fit(make_trainer, model, Own(batch), AdversarialTraining(0.1, **arguments))
    assert settings.same_state(model, before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_several_loaders_at_once_are_refused(module, make_trainer):
    both = CombinedLoader({"a": settings.batches(), "b": settings.batches()}, "min_size")
    with pytest.raises(SparsityError, match=r"images='a' finds a list in a batch.*combine several loaders into one"):
        fit(make_trainer, module(), both, AdversarialTraining(0.1, images="a", labels="b"))


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
def test_a_step_that_reads_the_loader_itself_is_refused(loader, make_trainer):
    class Reading(settings.Module):
        def training_step(self, dataloader_iter):
            return super().training_step(next(dataloader_iter)[0], 0)

    with pytest.raises(SparsityError, match="training_step takes a dataloader_iter"):
        fit(make_trainer, Reading(), loader, AdversarialTraining(0.1))


def test_sharded_strategies_are_refused(module):
    callback = AdversarialTraining(0.1)
    trainer = type(
        "Trainer", (), {"ckpt_path": None, "callbacks": [callback], "strategy": type("FSDPStrategy", (), {})()}
    )()
    with pytest.raises(SparsityError, match="strategy=FSDPStrategy keeps a shard"):
        callback.setup(trainer, module(), "fit")
