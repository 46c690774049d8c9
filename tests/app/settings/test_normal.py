"""What means the same has one name and one key, and the advice of a message can be followed where it is given."""

import pytest
from hydra import compose, initialize_config_module

from lightning_sparse.app import hydra_parts
from lightning_sparse.app.measuring.measurements import measurements_of
from lightning_sparse.app.settings.normal import normal
from lightning_sparse.errors import SparsityError

EIGHT = 0.03137254901960784


def job(*overrides):
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    return hydra_parts.job_from(config, config.hydra.runtime.choices)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("8/255", [EIGHT]),
        ("8 / 255", [EIGHT]),
        (EIGHT, [EIGHT]),
        (["2/255", "8 / 255"], [2 / 255, EIGHT]),
        ([0.0625], [0.0625]),
        (1, [1]),
        (["0.5/255"], [0.5 / 255]),
        ([], []),
        (None, None),
    ],
)
def test_fractions_are_numbers_and_one_number_is_a_list(checked, written, means):
    assert checked({"attack.eps": written})["attack"]["eps"] == means


def test_a_fraction_and_its_number_have_one_key(checked):
    def keys(eps, transfer):
        config = checked({"attack.eps": eps, "transfer.eps": transfer})
        return [measurement.key for measurement in measurements_of(config)]

    assert keys("8/255", "2/255") == keys([EIGHT], 2 / 255) != keys([0.0313], 2 / 255)


def test_a_fraction_of_adversarial_training_gives_the_same_job():
    assert job("adversarial=pgd", "adversarial.eps=8/255") == job("adversarial=pgd", f"adversarial.eps={EIGHT}")


@pytest.mark.parametrize("path", ["attack.eps", "transfer.eps"])
def test_the_advice_for_a_radius_can_be_followed_where_it_is_given(checked, path):
    with pytest.raises(SparsityError) as error:
        checked({path: 8})
    advice = str(error.value).rpartition("write ")[2]
    assert advice == "8 / 255"
    checked({path: advice})


def test_a_seed_of_null_is_0_for_all_that_has_one(checked):
    assert job("seed=null") == job("seed=0")
    config = checked({"seed": None, "data.shuffle_seed": None, "sparsity.seed": None, "saliency.seed": None})
    assert {config["seed"], *(config[group]["seed"] for group in ("sparsity", "saliency"))} == {0}
    assert config["data"]["shuffle_seed"] == 0


def test_the_older_words_of_wandb_mean_todays(checked):
    for written, means in (("dryrun", "offline"), ("", "offline"), ("run", "online"), ("disabled", "disabled")):
        assert checked({"logger.mode": written}, "logger=wandb")["logger"]["mode"] == means


def test_a_variable_of_wandb_that_is_empty_is_one_that_is_not_set():
    empty = {"kind": "wandb", "entity": "", "notes": "", "project": "", "mode": ""}
    unset = {"kind": "wandb", "entity": None, "notes": None, "project": "lightning-sparse", "mode": "offline"}
    assert normal({"logger": empty})["logger"] == unset
