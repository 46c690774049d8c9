"""The same training has the same name, and different trainings have different names."""

import json
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_module

from lightning_sparse.app import hydra_parts  # registers the resolvers and the search path
from lightning_sparse.results import launches
from lightning_sparse.tables.not_started import never_started


def composed(*overrides, name="config"):
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        return compose(name, overrides=list(overrides), return_hydra_config=True)


def job(*overrides):
    config = composed(*overrides)
    return hydra_parts.job_from(config, config.hydra.runtime.choices)


def run(*overrides):
    return job(*overrides).run


PINNED = {
    (): "gradual_pruning-0.9-seed0-ff590bfb",
    ("sparsity=dense", "seed=3"): "dense-seed3-82ebb90f",
    ("data=mnist", "model=small_cnn", "sparsity=rigl", "vog=default", "adversarial=pgd"): "rigl-0.9-pgd-seed0-403c5f1d",
}


@pytest.mark.parametrize("overrides", PINNED, ids=" ".join)
def test_names_stay_what_they_are(overrides):
    assert run(*overrides) == PINNED[overrides], "raise NAMING in results/jobs.py if this has to change"


SAME = [
    "data.num_workers=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "logger=wandb",
    "attack.eps=[0.3]",
    "saliency=none",
    # another path to the same class
    "sparsity._target_=lightning_sparse.callbacks.methods.gradual_pruning.GradualPruning",
    "data._target_=lightning_sparse.data.images.ImageData",
    "model.net._target_=lightning_sparse.models.networks.lenet_300_100",
    # a default that is written out, or one that is left out
    "+sparsity.redistribute=false",
    "~sparsity.allocation",
    "~sparsity.end",
    "+model.net.width=1.0",
    "+model.net.width=1",
    "+model.optimizer.nesterov=false",
    "+trainer.gradient_clip_val=null",
    "+trainer.strategy=auto",
    "data.shape=[1,8,8]",
    "data.label_noise=0",
    "~data.label_noise",
    "data.images=null",
    "data.permute_pixels=false",
    # the same number
    "sparsity.initial_sparsity=0",
    "sparsity.begin=0",
    "model.optimizer.momentum=9e-1",
    # callbacks that only look on
    "~callbacks.monitor",
    "+callbacks.robust={_target_: lightning_sparse.RobustnessMonitor}",
    "+callbacks.keep={_target_: lightning_sparse.callbacks.at_target.CheckpointAtTarget}",
    "+callbacks.keep={_target_: lightning.pytorch.callbacks.ModelCheckpoint, monitor: val_loss}",
    "+callbacks.rate={_target_: lightning.pytorch.callbacks.lr_monitor.LearningRateMonitor}",
    "+callbacks.bar={_target_: lightning.pytorch.callbacks.RichProgressBar}",
]
OTHER = [
    "seed=1",
    "sparsity.end=0.5",
    "sparsity.end=1.0",
    "sparsity.end=2",
    "trainer.max_epochs=3",
    "model.optimizer.lr=0.2",
    "model.optimizer._target_=torch.optim.Adam",
    "data.validation=0.2",
    "data.label_noise=0.2",
    "data.label_noise=1",
    "data.images=100",
    "data.permute_pixels=true",
    "data.batch_size=32",
    "+model.net.width=2",
    "+sparsity.redistribute=true",
    "+trainer.limit_train_batches=1",
    "+trainer.limit_train_batches=1.0",
    "vog=default",
    "+callbacks.stop={_target_: lightning_sparse.StopAtTarget}",
    "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val_loss}",
    "+callbacks.mine={_target_: nowhere.SparsityMonitor}",
    "+callbacks.mine={_target_: nowhere.Callback, at: 1}",
    "+callbacks.mine={_target_: nowhere.Callback, at: 1.0}",
]


@pytest.mark.parametrize("override", SAME)
def test_what_changes_no_weight_changes_no_name(override):
    assert job(override) == job()


def test_what_may_change_a_weight_changes_the_name():
    assert run().startswith("gradual_pruning-0.9-seed0-")
    assert len({run(), *map(run, OTHER)}) == 1 + len(OTHER)


def test_noisy_labels_are_other_data_with_a_dense_network_of_their_own():
    assert job("data.label_noise=1").data == job("data.label_noise=1.0").data == "digits (label noise 1)"
    assert job("data.label_noise=1", "sparsity=dense").data == "digits (label noise 1)"
    assert job("data.images=100", "data.permute_pixels=true").data == "digits (100 images, permuted pixels)"


def test_a_time_in_steps_is_not_a_share():
    assert run("sparsity=rigl", "sparsity.every=1") != run("sparsity=rigl", "sparsity.every=1.0")
    assert run("sparsity=rigl", "sparsity.turnover=0") == run("sparsity=rigl", "sparsity.turnover=0.0")


def test_dense_is_one_job_at_every_level():
    assert run("sparsity=dense", "sparsity.final_sparsity=0.5") == run("sparsity=dense")


OWN = "sparsity={_target_: lightning_sparse.SparseTraining, sparsity: "


@pytest.mark.parametrize(
    ("curve", "asked"),
    [
        ("0.7", 0.7),
        ("{_target_: lightning_sparse.Curve, start: 0.8}", 0.8),
        ("{_target_: lightning_sparse.cubic, final: 0.95, end: 0.5}", 0.95),
        (
            "{_target_: lightning_sparse.Curve.then, self: {_target_: lightning_sparse.Curve, start: 0.0},"
            " end: 0.5, value: 0.6, shape: linear}",
            0.6,
        ),
    ],
)
def test_a_schedule_of_the_users_own_is_named_by_its_final_sparsity(curve, asked):
    config = composed("~sparsity", f"+{OWN}{curve}" + "}")
    found = hydra_parts.job_from(config, {"sparsity": "own", "data": "digits", "model": "cnn"})
    assert found.sparsity_asked == asked
    assert found.run.startswith(f"own-{asked:g}-seed0-")


def test_a_schedule_that_is_refused_has_a_name_to_be_refused_in():
    config = composed("~sparsity", f"+{OWN}{{_target_: lightning_sparse.Curve, start: 90}}" + "}")
    assert hydra_parts.job_from(config, {"sparsity": "own", "data": "d", "model": "m"}).run.startswith("own-nan-seed0-")


def test_a_curve_has_one_name_whatever_path_leads_to_it():
    def named(path, start):
        curve = f"{{_target_: {path}, start: {start}, segments: []}}"
        return hydra_parts.job_from(
            composed("~sparsity", f"+{OWN}{curve}" + "}"), {"sparsity": "own", "data": "d", "model": "m"}
        )

    assert named("lightning_sparse.Curve", 0.8) == named("lightning_sparse.engine.schedules.Curve", 0.8)
    assert named("lightning_sparse.Curve", 0.8) != named("lightning_sparse.Curve", 0.9)


def test_a_network_trained_against_attacks_is_another_subject():
    trained, plain = job("adversarial=fgsm", "adversarial.eps=0.1", "seed=1"), job("seed=1")
    assert (trained.model, plain.model) == ("lenet_300_100 (fgsm-trained)", "lenet_300_100")
    assert trained.run.startswith("gradual_pruning-0.9-fgsm-seed1-")
    assert trained.run != plain.run == run("seed=1", "adversarial=none", "vog=none")


def test_a_network_trained_with_weights_left_out_is_another_subject():
    trained, plain = job("weight_noise=targeted", "seed=1"), job("seed=1")
    assert (trained.model, plain.model) == ("lenet_300_100 (targeted-trained)", "lenet_300_100")
    assert trained.run.startswith("gradual_pruning-0.9-targeted-seed1-")
    assert plain.run == run("seed=1", "weight_noise=none")
    assert trained.run == run("weight_noise=targeted", "weight_noise.p=0.66", "seed=1")
    assert trained.run != run("weight_noise=targeted", "weight_noise.p=0.9", "seed=1")
    assert trained.training == job("weight_noise=targeted", "seed=2").training


def test_seeds_of_one_training_can_be_told_from_those_of_two():
    assert job("seed=0").training == job("seed=1").training
    assert job("seed=0").training != job("seed=1", "trainer.max_epochs=3").training


def test_devices_are_part_of_a_training_that_shares_its_batches_among_them():
    assert run("trainer.devices=2") == run("trainer.devices=1")
    spawned = "+trainer.strategy=ddp_spawn"
    assert run("trainer.devices=2", spawned) != run("trainer.devices=4", spawned)


def test_a_name_with_a_slash_is_one_folder():
    assert "/" not in run("label=a/b")


def test_a_name_costs_no_import_of_torch():
    command = (
        "from hydra import compose, initialize_config_module\nfrom lightning_sparse.app import task\nimport sys\n"
        "with initialize_config_module('lightning_sparse.conf', version_base='1.3'):\n"
        "    print(compose('config', return_hydra_config=True).hydra.run.dir, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"outputs/runs/{run()}", "False"]


@pytest.mark.parametrize("arguments", [("-cn", "quick"), ("name=quick",)], ids=["a sweep", "a single job"])
def test_a_folder_of_earlier_names_is_refused_and_left_alone(arguments, command, tmp_path):
    folder = tmp_path / "outputs" / "quick" / "dense-seed0-3e37fc65"
    folder.mkdir(parents=True)
    earlier = {
        "run": folder.name,
        "method": "dense",
        "data": "digits",
        "model": "cnn",
        "seed": 0,
        "sparsity_asked": 0.0,
    }
    (folder / "job.json").write_text(json.dumps({**earlier, "status": "done", "version": "0.1.0"}))
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr == (
        "lightning-sparse: outputs/quick holds jobs named by another version of the library (dense-seed0-3e37fc65, 1 in all)"
        ", which this one would not find but train again: `lightning-sparse-report outputs/quick` still reports on them; to "
        "train, write name=... or output=... for a new folder\n"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["outputs", "quick", folder.name, "job.json"]


def test_activations_are_a_subject_of_their_own_and_none_has_no_density():
    plain, sparse = job("seed=1"), job("activation=k_winners", "activation.density=0.1", "seed=1")
    assert sparse.run.startswith("gradual_pruning-0.9-k_winners-0.1-seed1-")
    assert sparse.model == "lenet_300_100 (k_winners-0.1)"
    assert plain.run == run("activation=none", "activation.density=0.3", "seed=1")
    assert (
        len({run("activation=k_winners"), run("activation=top_k"), run("activation=top_k", "activation.density=0.3")})
        == 3
    )
    both = job("adversarial=fgsm", "activation=top_k", "activation.density=0.05")
    assert both.model == "lenet_300_100 (fgsm-trained) (top_k-0.05)"


def test_activations_go_with_no_compression_and_no_export():
    from lightning_sparse import SparsityError

    for overrides, says in (
        (("compression=share", "bits=0.1", "sparsity=dense"), "write activation=none or compression=none"),
        (("export=[bf16]",), "write activation=none or export=none"),
        (("activation.density=0",), "leaves a layer nothing to read"),
    ):
        with pytest.raises(SparsityError, match=says):
            hydra_parts.check_config(without_hydra(composed("activation=top_k", *overrides)))


def without_hydra(config):
    from omegaconf import open_dict

    with open_dict(config):
        config.pop("hydra")
    return config


@pytest.mark.parametrize(
    "overrides",
    [
        ["activation=top_k", "activation.density=0.1", "seed=2"],
        ["steering=loss", "steering.score=aum", "data.label_noise=0.2", "data.images=500"],
        ["weight_noise=targeted", "adversarial=pgd", "data.permute_pixels=true"],
        ["compression=share", "bits=0.05", "sparsity=dense"],
        ["sparsity=dense"],
    ],
)
def test_a_job_never_started_stands_where_it_would_have_stood(overrides, tmp_path):
    asked = job(*overrides)
    launches.launch(tmp_path, [hydra_parts.as_asked(asked, overrides)])
    (found,) = never_started(tmp_path, [])
    for name in ("method", "data", "model", "seed", "sparsity_asked", "compressed"):
        assert getattr(found, name) == getattr(asked, name)
    assert never_started(tmp_path, [asked]) == []
