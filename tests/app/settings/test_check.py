"""What nothing reads and what is of the wrong kind is refused by name; what was right before is taken."""

import math
from pathlib import Path

import pytest
import yaml

from lightning_sparse.app.settings.groups import PLAIN, TOP
from lightning_sparse.errors import SparsityError

CONF = Path(__file__).parents[3] / "conf"


@pytest.mark.parametrize("group", PLAIN)
def test_the_settings_of_a_group_are_those_of_its_files(group):
    files = [yaml.safe_load(path.read_text()) for path in (CONF / group).glob("*.yaml")]
    assert {name for node in files for name in node} - {"defaults"} == set(PLAIN[group])


def test_the_settings_at_the_top_are_those_of_the_file():
    here = set(yaml.safe_load((CONF / "config.yaml").read_text())) - {"defaults", "callbacks", "hydra"}
    assert here | {"task"} == set(TOP)  # which conf/task/ sets


@pytest.mark.parametrize(
    ("path", "guess"),
    [
        ("saliency.foo", "saliency has methods, measures"),
        ("saliency.method", "did you mean saliency.methods?"),
        ("attack.step", "did you mean attack.steps?"),
        ("stability.foo", "leave it out"),
        ("transfer.foo", "leave it out"),
        ("cost.image", "did you mean cost.images?"),
        ("vog.image", "did you mean vog.images?"),
        ("latency.batch_size", "did you mean latency.batch_sizes?"),
        ("logger.foo", "leave it out"),
        ("data.batchsize", "did you mean data.batch_size?"),
        ("sparsity.final_sparsty", "did you mean sparsity.final_sparsity?"),
        ("trainer.max_epoch", "did you mean trainer.max_epochs?"),
        ("trainer.foo", "is no argument of lightning.pytorch.Trainer"),
        ("model.foo", "is no argument of lightning_sparse.models.Classifier"),
        ("model.net.foo", "it takes shape, classes, width"),
        ("model.optimizer.momentun", "did you mean model.optimizer.momentum?"),
        ("callbacks.monitor.foo", "it takes per_layer"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(checked, path, guess):
    with pytest.raises(SparsityError) as error:
        checked({path: 1})
    assert str(error.value).startswith(f"{path}=1 is no ")
    assert guess in str(error.value)


@pytest.mark.parametrize("group", ["model", "sparsity", "trainer", "callbacks.monitor"])
def test_what_would_be_left_unbuilt_is_refused(checked, group):
    with pytest.raises(SparsityError, match=f"{group}._partial_=True would leave it unbuilt"):
        checked({f"{group}._partial_": True})


@pytest.mark.parametrize(("choice", "key"), [("sparsity=dense", "foo"), ("sparsity=small_dense", "turnover")])
def test_a_network_without_a_method_has_no_settings_of_none(checked, choice, key):
    with pytest.raises(SparsityError, match=f"sparsity.{key}=1 is no setting"):
        checked({f"sparsity.{key}": 1}, choice)
    checked({"sparsity.turnover": 0.1}, "sparsity=dense")  # of another method in the same sweep


def test_what_is_added_at_the_top_is_refused_unless_something_refers_to_it(checked):
    with pytest.raises(SparsityError, match="forward='x' is no setting: leave it out"):
        checked({"forward": "x"}, overrides=["+forward=x"], raw="")
    with pytest.raises(SparsityError, match="sed=1 is no setting: did you mean seed"):
        checked({"sed": 1}, overrides=["++sed=1"], raw="")
    with pytest.raises(SparsityError, match="did you mean retry_failed"):
        checked({"retry_faild": True}, raw="")  # in a file of the user's own
    checked({"half": 5}, overrides=["+half=5"], raw="{'trainer': {'max_epochs': '${half}'}}")
    checked({"budget": {"dense": 1}, "epochs": 3}, raw="")  # as the sweeps that ship have them


def test_what_a_users_own_class_takes_is_its_own_affair(checked):
    own = {"_target_": "package.Module", "width": 3, "forward": "x"}
    checked({"model": own, "callbacks.mine": {"_target_": "package.Callback", "at": 1}})


@pytest.mark.parametrize(
    ("path", "target", "message"),
    [
        ("callbacks.monitor", "lightning_sparse.SparsityMonitr", "did you mean lightning_sparse.SparsityMonitor?"),
        ("sparsity", "lightning_sparse.GradualPrunin", "did you mean lightning_sparse.GradualPruning?"),
        ("model", None, "model._target_ is missing: write model._target_=package.Module"),
        ("callbacks.monitor", 5, "is not an import path"),
    ],
)
def test_a_target_that_does_not_exist_is_refused(checked, path, target, message):
    with pytest.raises(SparsityError) as error:
        checked({f"{path}._target_": target})
    assert message in str(error.value)


# Each value, and what to write instead where the message says it.
WRONG = {
    "controls": ["maybe", "no", None, 1, []],
    "retry_failed": ["no", None, 0],
    "seed": [-1, "a", 1.5, [1], True, math.nan, math.inf, 2**40, {}],
    "name": [None, "", " ", "/abs", "..", "../x", "a/../../b", ".", True, [], " a"],
    "output": [None, "", [], False],
    "label": [[], {}, "", True],
    "batchnorm": [5, None, "trainde", []],
    "callbacks": [None, 5, []],
    "callbacks.monitor": [None, 5, "x", {}],
    "trainer": [None, 5, {}],
    "data": [None, "digits", {}],
    "trainer.max_epochs": [None, 0, -1, 1.5, "a", [1], True, math.inf, math.nan],
    "trainer.log_every_n_steps": ["a", 1.5, []],
    "trainer.enable_progress_bar": ["no", []],
    "trainer.logger": [True],
    "trainer.callbacks": [[]],
    "trainer.enable_checkpointing": [False],
    "trainer.fast_dev_run": [True],
    "trainer.limit_train_batches": [0, 0.0, "a", math.nan],
    "trainer.default_root_dir": ["x"],
    "data.std": [[-1], [0], [], 0.3, "a", [math.nan], [math.inf], [True], [0.1, 0.2], None],
    "data.mean": [[0.1, 0.2], [], 0.3, ["a"], None],
    "data.shape": [[1, 8], 8, [1, 8, 0], [1.0, 8, 8], None, "a"],
    "data.classes": [1, 0, "a", 2.5, None],
    "data.batch_size": [0, -1, 1.5, "a", [64], None],
    "data.num_workers": [-1, "a", 0.5],
    "data.validation": [0, 1, 2, -0.1, "a", math.nan],
    "data.split_seed": [-1, "a"],
    "data.label_noise": [-0.1, 20, "a", True, math.nan],
    "data.images": [0, 1, 1.5, "a", True],
    "data.permute_pixels": ["no", 1, None],
    "model.mean": [[0.5, 0.5], [], "a"],
    "model.optimizer.lr": ["a", [0.1], math.nan, True],
    "model.net.width": ["a", []],
    "sparsity.final_sparsity": [2, -0.1, "ninety", [0.5], math.nan, True],
    "saliency.methods": ["gradient", ["gradcam"], None, [1], 5],
    "saliency.measures": ["gini", ["ginni"], None],
    "saliency.max_sensitivity": ["gradient", ["x"]],
    "saliency.images": [-5, 0, 1.5, "a", [], True],
    "saliency.seed": [-1, "a"],
    "stability.images": [-5, 1.5, "a", []],
    "stability.severities": [3, [], [0], [4], ["a"], None, [1.5]],
    "stability.hessian_images": [0, -5, "a"],
    "stability.shift": [0, -1, 1.5, "a", None],
    "cost.images": [-1, 1.5, "a"],
    "vog.images": [-1, 1.5, "a"],
    "latency.batch_sizes": [1, [], [0], [1.5], ["a"], "a", [10**6], [True]],
    "latency.seconds": [0, -1, "a", None, True, math.nan, math.inf, 10**6],
    "export": [5, "shrnk", ["shrnk"], [1], True, {}],
    "transfer.images": [-1, 1.5, "a"],
    "transfer.eps": [8, -1, 0, "a", [0.1], math.nan],
    "transfer.steps": [0, 1.5, "a", None],
    "attack.eps": [8, [8], [0], [math.nan], math.inf, "abc", "", True, ["1/0"], [[0.1]], -1],
    "attack.transfer_eps": [8, "a"],
    "attack.norm": ["l2", None, 2],
    "attack.tier": ["swep", None],
    "attack.attacks": ["pgd", [], ["pgdd"], 5],
    "attack.steps": [0, 1.5, "a"],
    "attack.restarts": [0, "a"],
    "attack.batch_size": [0, "a", None, 1.5],
    "attack.seed": ["a", -1],
    "attack.images": ["x", 0, -1, 1.5],
    "attack.first": ["no", None, 1],
    "adversarial.eps": [0.1, "a", -1],
    "weight_noise.p": [0.5, "a"],
    "activation.density": [0, 10, -1],
    "activity.images": ["x", -1, 1.5],
    "logger.kind": ["wandbb", None, 5],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in WRONG.items() for value in values])
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(checked, path, value):
    with pytest.raises(SparsityError) as error:
        checked({path: value})
    assert str(error.value).startswith(path)
    assert any(advice in str(error.value) for advice in ("write ", "did you mean", "choose one", "eave it out"))
    assert "\n" not in str(error.value)


RIGHT = {
    "name": ["a/b", "x.y", 5],
    "label": [None, "x", 0.5],
    "seed": [None, 0, 2**32 - 1],
    "output": ["/tmp/x", "../x", 7],
    "callbacks": [{}],
    "trainer.deterministic": ["warn", False],
    "trainer.devices": ["auto", [0], 2],
    "trainer.precision": ["16-mixed", 16],
    "trainer.gradient_clip_val": [None, 0.5],
    "trainer.limit_train_batches": [5, 0.5],
    "trainer.max_time": ["00:01:00:00", {"hours": 1}],
    "data.mean": [[0.5], [0]],
    "saliency.methods": [[], ["grad_cam"]],
    "saliency.images": [None],
    "stability.images": [0, None],
    "latency.batch_sizes": [None],
    "latency.seconds": [1, 0.5, 3600],
    "export": [None, "none", [], "bf16", ["bf16"]],
    "transfer.eps": [None, "8/255"],
    "attack.eps": [None, 0, [], "8/255", 0.1, ["2 / 255", 0.1], 1],
    "attack.attacks": [None, ["square"], ["pgd"]],
    "sparsity.begin": [5, 0.1],
    "sparsity.every": [1, 1.0],
    "sparsity.include": [["a"], None],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in RIGHT.items() for value in values])
def test_what_was_right_before_is_taken(checked, path, value):
    checked({path: value})


@pytest.mark.parametrize(
    ("changes", "overrides"),
    [
        ({"trainer.max_epochs": None, "trainer.max_steps": 100}, ()),
        ({"trainer.max_epochs": -1, "trainer.max_time": "00:01:00:00"}, ()),
        ({"attack.norm": "L2", "attack.eps": [2.0], "attack.transfer_eps": None}, ()),
        ({"latency.batch_sizes": [1, 65536], "export": "bf16"}, ("latency=default",)),
        ({"adversarial.eps": "8/255", "adversarial.step_size": "2/255"}, ("adversarial=pgd",)),
        ({"data.mean": [0.5], "data.std": [0.5]}, ("data=cifar10",)),
        ({"logger.tags": ["a", 1], "logger.entity": "team", "logger.notes": "why"}, ("logger=wandb",)),
    ],
)
def test_what_goes_together_is_taken(checked, changes, overrides):
    checked(changes, *overrides)


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"attack.eps": [0.1]}, ("attack=none",), "attack.norm is missing: write attack=digits"),
        ({"stability.images": 20}, ("stability=none",), "stability.severities is missing: write stability=default"),
        ({"latency.batch_sizes": [1]}, ("latency=none",), "latency.seconds is missing: write latency=default"),
        (
            {"saliency.methods": ["gradient"]},
            ("saliency=none",),
            "saliency.measures is missing: write saliency=default",
        ),
        ({"logger.project": "x"}, (), "logger.project is a setting of W&B, not of logger=csv: write logger=wandb"),
        ({"logger.tags": "paper"}, ("logger=wandb",), "write logger.tags=[paper]"),
        ({"logger.mode": "ofline"}, ("logger=wandb",), "did you mean 'offline'?"),
        ({"adversarial.steps": 0}, ("adversarial=pgd",), "adversarial.steps=0 is not an integer of at least 1"),
        ({"sparsity.reinit": "no"}, ("sparsity=lottery_ticket",), "sparsity.reinit='no' is not true or false"),
    ],
)
def test_what_does_not_go_together_is_refused(checked, changes, overrides, message):
    with pytest.raises(SparsityError) as error:
        checked(changes, *overrides)
    assert message in str(error.value)


def test_what_lightning_and_a_users_own_file_may_hold_is_taken(checked):
    checked({"trainer.enable_checkpointing": None})
    checked({"seeds": [0, 1], "labels": ["a"]}, raw="")  # the plural of a setting, in a file of one's own
