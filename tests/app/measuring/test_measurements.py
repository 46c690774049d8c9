"""Which keys a configuration's measurements have: one for each thing that can be measured alone."""

import subprocess
import sys

import pytest

from lightning_sparse import SparsityError
from lightning_sparse.app.measuring.measurements import check_measurements, measurements_of
from lightning_sparse.app.measuring.robust import robust_keys
from lightning_sparse.data.images import ImageData

CONFIG = {
    "data": {"name": "digits"},
    "attack": {"eps": [0.05, 0.2], "norm": "Linf", "steps": 20, "first": False, "images": 100},
    "saliency": {"methods": ["gradient"]},
    "stability": {"images": 0},
    "transfer": {"images": 10, "eps": None, "steps": 20, "seed": 0},
    "cost": {"images": 10},
    "vog": {"images": 5},
}


def keys(**changes):
    found = measurements_of({**CONFIG, **changes})
    assert len({measurement.key for measurement in found}) == len(found)
    return {measurement.key: measurement for measurement in found}


def of(found, kind):
    return {key for key, measurement in found.items() if measurement.kind.name == kind}


def test_one_more_eps_is_one_more_key_and_another_curve():
    few, more = keys(), keys(attack=CONFIG["attack"] | {"eps": [0.2, 0.1, 0.05]})
    new, gone = of(more, "robust") - of(few, "robust"), of(few, "robust") - of(more, "robust")
    assert sorted(key.split("-")[2] for key in new) == ["0.1", "curve"]
    assert [key.split("-")[2] for key in gone] == ["curve"]
    assert of(few, "saliency") | of(few, "clean") | of(few, "cost") <= set(more)


def test_neither_the_order_of_eps_nor_doubles_nor_integers_are_other_keys():
    assert robust_keys({"eps": [0.5, 1]}) == robust_keys({"eps": [1.0, 0.5, 0.5]})


@pytest.mark.parametrize("change", [{"norm": "L2"}, {"steps": 40}, {"images": 50}])
def test_any_other_setting_is_all_new(change):
    assert not of(keys(), "robust") & of(keys(attack=CONFIG["attack"] | change), "robust")


def test_recalibrated_batchnorm_is_another_measurement_except_of_the_training():
    trained, anew = keys(batchnorm="trained"), keys(batchnorm="recalibrated")
    assert set(trained) == set(keys())
    assert set(trained) & set(anew) == of(trained, "vog")


def test_what_is_set_to_nothing_is_not_measured():
    found = keys(attack={"eps": []}, saliency={"methods": []}, cost={"images": 0}, vog={"images": 0})
    assert [measurement.kind.name for measurement in found.values()] == ["clean"]


@pytest.mark.parametrize("eps", [0.1, "abc", ["x"], [None]])
def test_anything_but_a_list_of_radii_is_left_to_the_check(eps):
    assert set(robust_keys({"eps": eps})) == {"model", "curve"}


@pytest.mark.parametrize(
    ("group", "name"),
    [("attack", "images"), ("stability", "images"), ("stability", "hessian_images"), ("cost", "images")],
)
def test_images_that_cannot_hold_every_class_are_refused_by_the_name_of_the_setting(group, name):
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    whole = {"attack": CONFIG["attack"] | {"tier": "sweep", "attacks": None, "restarts": None}}
    whole["stability"] = {"images": 10, "hessian_images": 10}
    whole["cost"] = {"images": 10}
    config = CONFIG | whole | {"saliency": {}, "vog": {"images": 0}}
    check_measurements(measurements_of(config), data)
    config[group] = config[group] | {name: 9}
    with pytest.raises(SparsityError, match=f"{group}.{name}=9: 9 images cannot hold all 10 classes"):
        check_measurements(measurements_of(config), data)


def test_what_jobs_are_asked_for_is_known_without_what_measures():
    slow = {"torch", "lightning", "numpy", "pandas", "matplotlib", "wandb"}
    code = f"import sys, lightning_sparse.app.task; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
