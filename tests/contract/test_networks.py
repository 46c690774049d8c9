"""Every callback on whole networks of the field: attention, recurrence, embeddings, skip connections, a GAN by hand."""

import pytest

import networks
import settings
from lightning_sparse import GradualPruning, SparsityError, sparsifiable

SPARSITY = 0.6

LAYERS = [f"encoder.layers.{i}.{part}.weight" for i in (0, 1) for part in ("self_attn.out_proj", "linear1", "linear2")]
IN_PROJ = ["encoder.layers.0.self_attn.in_proj_weight", "encoder.layers.1.self_attn.in_proj_weight"]
LSTM = ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l1", "lstm.weight_hh_l1"]
UNET = ["down.0.weight", "bottom.0.weight", "up.weight", "merge.0.weight", "head.weight"]
GENERATOR = ["generator.project.weight", "generator.up1.weight", "generator.up2.weight"]
CRITIC = ["discriminator.0.weight", "discriminator.3.weight"]

DEFAULTS = [
    (networks.Transformer, ["embed.weight", *LAYERS, "head.weight"]),
    (networks.Lstm, ["head.weight"]),
    (networks.Gru, ["head.weight"]),
    (networks.UNet, UNET),
    (networks.Tokens, ["head.weight"]),
    (networks.Gan, [*GENERATOR, *CRITIC]),
]

# name -> network, include, what that reaches
TRAINED = {
    "transformer": (networks.Transformer, None, ["embed.weight", *LAYERS, "head.weight"]),
    "transformer with in_proj": (
        networks.Transformer,
        ["*.in_proj_weight", "*.out_proj.weight", "*.linear?.weight"],
        [*IN_PROJ, *LAYERS],
    ),
    "lstm": (networks.Lstm, ["lstm.weight_*", "head.weight"], [*LSTM, "head.weight"]),
    "gru": (networks.Gru, ["*.weight_hh*"], ["gru.weight_hh_l0", "gru.weight_hh_l0_reverse"]),
    "u-net": (networks.UNet, None, UNET),
    "embedding": (networks.Tokens, ["embedding.weight", "head.weight"], ["embedding.weight", "head.weight"]),
}


def fit(make_trainer, net, *callbacks):
    trainer = make_trainer(*callbacks, max_epochs=3)
    trainer.fit(net, settings.batches(), settings.batches())
    return trainer


def check(net, callback, reached, sparsity=SPARSITY):
    """The promises about one trained network: what was reached, exactly how much of it is dead, and nothing else."""
    assert sorted(callback.masks) == sorted(reached)
    assert callback.masks.total == sum(net.get_parameter(name).numel() for name in reached)
    assert settings.exact(callback.masks, sparsity)
    assert settings.dead_are_zero(net, callback.masks)
    asked = round(sparsity * callback.masks.total)
    assert min(net.dead_seen.values()) >= asked, "no step has run on the sparse network: the zeros were never checked"


def check_untouched(net, *callbacks):
    """No weight outside the callbacks' reach has been zeroed (biases and norms may begin at zero)."""
    given = {name for callback in callbacks for name in callback.masks}
    others = [p for name, p in net.named_parameters() if name not in given and p.dim() > 1]
    assert all(bool((parameter != 0).all()) for parameter in others)


def check_learned(net):
    last = net.losses[-5:]
    assert sum(last) / len(last) < 0.8 * net.losses[0]


@pytest.mark.parametrize(("network", "names"), DEFAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_default_targets_are_the_weights_of_linear_and_conv_layers(network, names):
    assert sorted(sparsifiable(network())) == sorted(names)


@pytest.mark.parametrize(("network", "include", "reached"), TRAINED.values(), ids=TRAINED)
def test_every_method_trains_every_network_on_exact_zeros(make_method, make_trainer, network, include, reached):
    method, net = make_method(SPARSITY, include=include), network()
    fit(make_trainer, net, method)
    check(net, method, reached)
    check_untouched(net, method)
    check_learned(net)


@pytest.mark.parametrize("critic_steps", [1, 2])
def test_every_method_trains_a_generator_and_leaves_its_critic_alone(make_method, make_trainer, critic_steps):
    method = make_method(SPARSITY, include=["generator.*weight"], exclude=["generator.norm.*"], total_steps=30)
    net = networks.Gan(critic_steps)
    trainer = fit(make_trainer, net, method)
    check(net, method, GENERATOR)
    check_untouched(net, method)
    check_learned(net)
    # Lightning's own count takes every optimizer's steps together.
    assert (method.engine.clock, net.generator_steps, trainer.global_step) == (30, 30, 30 * (1 + critic_steps))


def test_steps_of_the_raw_optimizers_tick_and_mask_like_lightnings(make_method, make_trainer):
    nets = []
    for raw in (False, True):
        method = make_method(SPARSITY, include=["generator.*weight"], exclude=["generator.norm.*"], total_steps=30)
        net = networks.Gan(raw=raw)
        trainer = fit(make_trainer, net, method)
        check(net, method, GENERATOR)
        assert method.engine.clock == net.generator_steps == 30
        assert trainer.global_step == (0 if raw else 60)  # Lightning does not see raw steps
        nets.append(net)
    assert settings.same_state(*nets)


def test_two_callbacks_keep_a_gans_two_networks_each_by_its_own_clock(make_trainer):
    generator = GradualPruning(0.6, include=["generator.up*.weight"], total_steps=30)
    critic = GradualPruning(0.4, include=["discriminator.*weight"], total_steps=60)
    net = networks.Gan(critic_steps=2)
    fit(make_trainer, net, generator, critic)
    assert (generator.engine.clock, critic.engine.clock) == (30, 60)
    for method, sparsity in ((generator, 0.6), (critic, 0.4)):
        assert settings.exact(method.masks, sparsity)
        assert settings.dead_are_zero(net, method.masks)
    check_untouched(net, generator, critic)


def test_shares_of_a_manual_training_need_its_length(make_trainer):
    net = networks.Gan()
    with pytest.raises(SparsityError, match="total_steps="):
        fit(make_trainer, net, GradualPruning(SPARSITY, include=["generator.*weight"]))
    assert not net.losses


def test_an_embedding_with_sparse_gradients_is_refused_by_name(make_method, make_trainer):
    net = networks.Tokens(sparse=True)
    with pytest.raises(SparsityError, match=r"(?s)'embedding\.weight'.*sparse=False"):
        fit(make_trainer, net, make_method(SPARSITY, include=["embedding.weight", "head.weight"]))
    assert not net.losses


def test_an_embedding_with_sparse_gradients_that_is_left_dense_does_no_harm(make_trainer):
    method, net = GradualPruning(SPARSITY), networks.Tokens(sparse=True)
    fit(make_trainer, net, method)
    check(net, method, ["head.weight"])
    check_untouched(net, method)
