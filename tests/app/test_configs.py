"""Every file in conf/ and sweeps/ composes, says its command, and cannot drift from what it configures."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_class, get_object, instantiate
from omegaconf import OmegaConf

from lightning_sparse import SparsityError  # app registers the resolver and the search path
from lightning_sparse.app import hydra_parts
from lightning_sparse.app import task as app
from lightning_sparse.callbacks.sparse_training import SparseTraining

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "sweeps").glob("*.yaml")])
CHOICES = [(path.parent.name, path.stem) for path in FILES if path.parent.parent.name == "conf"]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "sparsity").glob("*.yaml"))


def composed(*overrides, name="config"):
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        return compose(name, overrides=list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_opens_with_the_command_that_uses_it(path):
    comments = [line for line in path.read_text().splitlines()[:6] if line.startswith("#")]
    command = next(line for line in comments if "lightning-sparse" in line)
    if path.parent.name not in ("conf", "sweeps"):
        assert f"{path.parent.name}={path.stem}" in command or f"{path.parent.name}." in command
    if path.parent.name == "sweeps":
        assert f"-cn {path.stem}" in command


def arguments(made):
    """Names of the arguments; a recipe's ``**others`` are those of SparseTraining."""
    names = set(inspect.signature(made).parameters)
    return names - {"others"} | set(inspect.signature(SparseTraining).parameters) if "others" in names else names


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_its_arguments_exist(group, choice):
    node = composed(f"{group}={choice}")[group]
    if choice == "own":
        assert OmegaConf.is_missing(node, "_target_")
    elif "_target_" in node:
        assert set(node) - {"_target_"} <= arguments(get_object(node._target_))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_sparsity_and_shows_every_argument(method):
    share = "sparsity" if method == "dense_sparse_dense" else "final_sparsity"  # it ends dense
    node = composed(f"sparsity={method}", f"sparsity.{share}=0.77", "seed=5").sparsity
    if method in ("dense", "small_dense"):
        assert node.final_sparsity == 0.77
        return
    callback = instantiate(node, _convert_="all")
    if method == "predict_weights":  # no recipe: nothing dies
        assert callback.final_sparsity == 0.77
        assert set(node) - {"_target_"} == set(inspect.signature(get_class(node._target_)).parameters)
        return
    assert isinstance(callback, SparseTraining)
    assert 0.77 in (callback.recipe.sparsity.final, callback.recipe.sparsity.highest)
    assert callback.recipe.seed == 5
    own = set(inspect.signature(get_class(node._target_)).parameters) - {"others"}
    common = {"allocation", "granularity", "include", "exclude", "seed"}
    assert set(node) - {"_target_"} == own | common


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"dense", "small_dense", "random_reinit"}))
def test_a_method_has_one_name_in_python_and_in_the_files(method):
    node = composed(f"sparsity={method}").sparsity
    assert get_class(node._target_).__name__.lower() == method.replace("_", "")


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_is_a_primary_config(path):
    from hydra.types import RunMode

    config = composed(name=path.stem)  # found by the search path that the app registers
    assert config.hydra.mode == RunMode.MULTIRUN
    assert config.name == path.stem
    assert config.hydra.sweep.dir == f"outputs/{path.stem}"
    assert OmegaConf.to_container(config.hydra.sweeper.params)


def test_a_sweep_has_dense_once_a_seed():
    names = [composed(*job).hydra.run.dir for job in hydra_parts._asked(composed(name="quick"))]
    assert len(names) == len(set(names)) == 3 + 2 * 5 * 3


def test_sweepers_of_others_decide_for_themselves():
    assert hydra_parts._asked(composed("hydra/sweeper=basic", name="quick")) is None


def test_a_glob_is_every_choice_of_its_group():
    config = composed(name="quick")
    config.hydra.overrides.task = ["sparsity=glob(*)", "sparsity.final_sparsity=0.5", "seed=0"]
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        asked = hydra_parts._asked(config)
    assert sorted(job[0] for job in asked) == [f"sparsity={method}" for method in METHODS]


def test_bad_values_in_a_config_are_refused_by_the_callback():
    with pytest.raises(Exception, match=r"final_sparsity=1\.5") as error:
        instantiate(composed("sparsity=brain_development", "sparsity.final_sparsity=1.5").sparsity)
    assert isinstance(app._cause(error.value), SparsityError)


def test_controls_are_one_flag():
    def methods(*overrides):
        return composed(*overrides, name="quick").hydra.sweeper.params.sparsity.split(",")

    assert methods() == ["dense", "gradual_pruning", "brain_development"]
    assert methods("controls=true") == ["gradual_pruning", "brain_development", "dense", "static", "small_dense"]


@pytest.mark.parametrize(
    "override",
    [
        "hydra.sweep.dir=elsewhere",
        "hydra.sweep.subdir=x",
        "hydra.run.dir=y",
        "hydra.job.chdir=true",
        "hydra.sweeper.max_batch_size=1",
    ],
)
def test_results_cannot_be_sent_to_another_folder(override, capsys):
    hydra_parts.refuse_moved_folders(composed(name="quick").hydra)
    with pytest.raises(SystemExit) as left:
        hydra_parts.refuse_moved_folders(composed(override, name="quick").hydra)
    assert left.value.code == 2
    assert f"{override.partition('=')[0]}=" in capsys.readouterr().err


def test_one_more_eps_leaves_the_eps_of_transfer_where_it_was():
    from lightning_sparse.app.measuring.measurements import measurements_of

    def keys(*overrides):
        config = OmegaConf.to_container(composed(*overrides), resolve=True)
        return {measurement.kind.name: measurement.key for measurement in measurements_of(config)}

    before, after = keys(), keys("attack.eps=[0.03125,0.0625,0.09,0.125,0.1875]")
    assert before["transfer"] == after["transfer"]
    assert before["robust"] != after["robust"]
