"""Channels that a sum, a depthwise convolution or a BatchNorm makes go together die together, with all that is theirs."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.functional import cross_entropy

import settings
from lightning_sparse import (
    BrainDevelopment,
    Curve,
    GradualPruning,
    LayerRules,
    Recipe,
    RigL,
    SparsityError,
    allocate,
    attach,
)

pytest.importorskip("torch_pruning")


class Residual(nn.Module):
    """A stem of six channels, a block with ten inside around which they are added, and a head."""

    def __init__(self, seed=0, bias=True):
        super().__init__()
        torch.manual_seed(seed)
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6)
        self.first, self.inside = nn.Conv2d(6, 10, 3, padding=1, bias=bias), nn.BatchNorm2d(10)
        self.second, self.after = nn.Conv2d(10, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x.view(-1, 1, 8, 8))))
        x = torch.relu(x + self.after(self.second(torch.relu(self.inside(self.first(x))))))
        return self.head(x.mean((2, 3)))


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def batches(count=8):
    images, labels = settings.digits().tensors
    return list(zip(images.split(64)[:count], labels.split(64)[:count], strict=True))


def attached(model, recipe, **optimizer):
    optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3} | optimizer)
    return attach(optimizer, model, recipe, total_steps=8, batches=batches(), loss_fn=loss), optimizer


def train(model, optimizer, seen=lambda: None):
    for batch in batches():
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        seen()


def rows(mask):
    return mask.flatten(1).any(1)


def test_what_a_sum_ties_dies_in_both_layers_with_biases_and_norms():
    model = Residual()
    engine, optimizer = attached(model, Recipe(Curve(0.0).then(0.5, 0.5), every=1, granularity="tied_channels"))

    def look():
        dead, inside = ~rows(engine.masks["stem.weight"]), ~rows(engine.masks["first.weight"])
        assert torch.equal(dead, ~rows(engine.masks["second.weight"]))
        for layer, gone in ((model.stem, dead), (model.norm, dead), (model.second, dead), (model.after, dead)):
            assert (layer.weight[gone] == 0).all()
            assert (layer.bias[gone] == 0).all()
        assert (model.inside.bias[inside] == 0).all()

    train(model, optimizer, look)
    assert 0 < int(rows(engine.masks["stem.weight"]).sum()) < 6
    assert engine.masks["head.weight"].all()  # what reads channels keeps its weights, and outputs do not die
    total = engine.masks.total
    assert abs(round(0.5 * total) - (total - engine.masks.living)) <= (9 + 90) / 2  # half of the larger unit
    model.eval()
    images = torch.rand(4, 1, 8, 8)
    hidden = torch.relu(model.norm(model.stem(images)))
    assert (hidden[:, ~rows(engine.masks["stem.weight"])] == 0).all()


def test_a_channel_is_ranked_by_the_mean_of_its_weights_in_all_layers():
    model = Residual()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if name.endswith("weight") else weight.zero_()
        model.stem.weight[2] = 5.0  # 9 weights; those of the second layer decide: 9 * 5 + 90 * 0.5 < 99
        model.second.weight[2] = 0.5
        model.stem.weight[4] = 0.1  # 9 * 0.1 + 90 * 1.1 > 99
        model.second.weight[4] = 1.1
        model.first.weight[7] = 0.99
    total = 60 + 9 * 6 + 2 * 540
    for gone, share in ((0, 99 / total), (1, (99 + 54) / total)):
        again = Residual()
        again.load_state_dict(model.state_dict())
        engine, _ = attached(again, Recipe(Curve(share), granularity="tied_channels"))
        assert (~rows(engine.masks["stem.weight"])).nonzero().flatten().tolist() == [2]  # its mean is 0.909
        assert (~rows(engine.masks["first.weight"])).nonzero().flatten().tolist() == [7][:gone]  # its mean is 0.99


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_callback_ties_on_the_first_batch_and_resumes_bit_for_bit(kind, tmp_path):
    class Mine(settings.Module):
        def __init__(self):
            super().__init__()
            self.net = Residual()

        def forward(self, x):
            return self.net(x)

        def configure_optimizers(self):
            weights = self.net.parameters()
            return torch.optim.AdamW(weights, lr=0.01) if kind == "adamw" else torch.optim.SGD(weights, 0.1, 0.9)

    class Half(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    def fit(*others, **resume):
        include, exclude = ["net.*.weight"], ["*norm*", "*inside*", "*after*"]
        callback, model = (
            GradualPruning(0.5, end=20, every=2, granularity="tied_channels", include=include, exclude=exclude),
            Mine(),
        )
        trainer = settings.quiet(callback, *others, max_epochs=3, default_root_dir=tmp_path)
        trainer.fit(model, settings.batches(), **resume)
        return callback, model

    whole, model = fit(Half())
    again, other = fit(ckpt_path=tmp_path / "half.ckpt", **settings.SAFE)
    assert settings.same_state(model, other)
    assert whole.masks.checksum() == again.masks.checksum()
    assert whole.sparsity == pytest.approx(0.5, abs=0.05)
    assert (model.net.after.bias[~rows(whole.masks["net.stem.weight"])] == 0).all()


@pytest.mark.parametrize("method", [RigL, BrainDevelopment])
def test_methods_that_bear_connections_are_refused(method):
    with pytest.raises(SparsityError, match=r"born in training.* such as GradualPruning, or granularity='channels'"):
        method(0.5, granularity="tied_channels")
    method(0.5, granularity="channels")


@pytest.mark.parametrize("allocation", ["erk", LayerRules("global", {"head.weight": 0.0})])
def test_layers_have_no_shares_of_their_own(allocation):
    with pytest.raises(SparsityError, match="write 'global' or 'uniform'"):
        attached(Residual(), Recipe(Curve(0.5), granularity="tied_channels", allocation=allocation))


def test_more_than_channels_can_give_is_refused_with_the_most():
    with pytest.raises(SparsityError, match=r"ask for at most (0\.\d+)") as refusal:
        attached(Residual(), Recipe(Curve(0.95), granularity="tied_channels"))
    most = float(str(refusal.value).split("ask for at most ")[1].split(",")[0])
    engine, _ = attached(Residual(), Recipe(Curve(most), granularity="tied_channels"))
    assert [int(rows(engine.masks[f"{name}.weight"]).sum()) for name in ("stem", "first", "second")] == [1, 1, 1]


def test_without_a_batch_there_is_nothing_to_follow():
    model = Residual()
    with pytest.raises(SparsityError, match=r"give attach\(\) batches=\[batch\] and loss_fn="):
        attach(torch.optim.SGD(model.parameters(), 0.1), model, Recipe(Curve(0.5), granularity="tied_channels"))
    with pytest.raises(SparsityError, match="write 'channels' here"):
        allocate(dict(model.named_parameters()), 0.5, granularity="tied_channels")


def test_a_network_without_channels_that_can_die_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LayerNorm(10), nn.Linear(10, 10))
    with pytest.raises(SparsityError, match=r"finds no channel that could be removed.*granularity='channels'"):
        attached(model, Recipe(Curve(0.5), granularity="tied_channels"))
    attached(model, Recipe(Curve(0.5), granularity="channels"))


def test_a_layer_left_out_keeps_what_it_is_tied_to():
    engine, _ = attached(Residual(), Recipe(Curve(0.4), granularity="tied_channels", exclude=["second.weight"]))
    assert engine.masks["stem.weight"].all()
    assert not engine.masks["first.weight"].all()


def test_every_optimizer_that_mixes_elements_leaves_followers_at_zero():
    model = Residual(bias=False)
    engine = attach(
        torch.optim.Adafactor(model.parameters(), lr=0.01),
        model,
        Recipe(Curve(0.5), granularity="tied_channels"),
        batches=batches(),
        loss_fn=loss,
    )
    train(model, engine.optimizers[0])
    gone = ~rows(engine.masks["first.weight"])
    assert gone.any()
    assert (model.inside.bias[gone] == 0).all()
    engine.verify()
    with torch.no_grad():
        model.inside.bias[gone] = 1.0
    with pytest.raises(SparsityError, match=r"inside\.bias"):
        engine.verify()
