"""A training on augmented images is a subject of its own: named so, and measured on the images as they are."""

import pytest

from app.test_activation import SMALL
from app.test_configs import composed
from app.test_job_names import job, run, without_hydra
from hydra_plugins.lightning_sparse.distinct_sweeper import distinct
from lightning_sparse import SparsityError
from lightning_sparse.app import hydra_parts
from lightning_sparse.results.jobs import read_job


def test_a_network_trained_on_augmented_images_is_another_subject():
    trained = job("augment=randaugment")
    assert trained.model == "lenet_300_100 (randaugment augmentation)"
    assert trained.run.startswith("gradual_pruning-0.9-randaugment-seed0-")
    assert run() == run("augment=none")
    assert trained.run == run("augment=randaugment", "augment.transform.magnitude=9")
    assert trained.run != run("augment=randaugment", "augment.transform.magnitude=5")
    assert trained.training == job("augment=randaugment", "seed=2").training
    assert job("augment=standard", "adversarial=pgd").model == "lenet_300_100 (standard augmentation) (pgd-trained)"


@pytest.mark.parametrize("choice", ["standard", "cutout", "randaugment"])
def test_texts_are_refused_before_anything_is_trained(choice):
    config = without_hydra(composed(f"augment={choice}", "data=glosses", "model=bag_of_words", "attack=none"))
    with pytest.raises(SparsityError, match=r"texts cannot be shifted and mirrored: write augment=none"):
        hydra_parts.check_config(config)


def test_a_setting_without_an_augmentation_is_refused():
    with pytest.raises(SparsityError, match=r"augment\.pad=2 is no setting of augment=none: write augment=standard"):
        hydra_parts.check_config(without_hydra(composed("augment.pad=2")))


def test_a_sweep_trains_without_augmentation_once():
    jobs = [[f"augment={choice}", f"augment.pad={pad}"] for choice in ("none", "standard") for pad in (1, 2)]
    assert distinct(jobs) == [
        ["augment=none"],
        ["augment=standard", "augment.pad=1"],
        ["augment=standard", "augment.pad=2"],
    ]


def test_a_job_trains_on_them_and_goes_on_in_a_later_launch(command, tmp_path):
    asked = [f"output={tmp_path}", "augment=randaugment", "augment.pad=1", "augment.flip=0.0", *SMALL]
    done = command(*asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*/job.json")
    assert read_job(path).model == "lenet_300_100 (randaugment augmentation)"
    again = command(*asked, cwd=tmp_path)  # measured already, and nothing is trained
    assert again.returncode == 0, again.stderr
