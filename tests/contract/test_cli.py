"""Every callback under LightningCLI: from the command line, from a YAML file, and its help."""

import inspect
import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch import Callback

import lightning_sparse
import settings
from lightning_sparse import Curve, SparseTraining
from lightning_sparse.engine.scores.names import DROP

pytest.importorskip("jsonargparse")

from lightning.pytorch.cli import LightningCLI

PUBLIC = {name: getattr(lightning_sparse, name) for name in lightning_sparse.__all__}
CALLBACKS = {name: c for name, c in PUBLIC.items() if inspect.isclass(c) and issubclass(c, Callback)}

# What has no default, by the argument's name: a new callback that needs something else fails, and says what.
REQUIRED = {"final_sparsity": 0.9, "sparsity": 0.9, "monitor": "loss", "eps": 0.1, "density": 0.5}

# Of which one has to be given.
ONE_OF = {"SparseGradients": {"k": 30}}

# What needs several processes, which a test of its own starts.
OF_SEVERAL = {"GradientCompression"}

# What needs an embedding trained before, or dead channels, of which the module here has none.
OF_OTHERS = {"AllButTheTop", "PretrainedVectors", "Shrink"}

# What looks at images, of which the module here has none.
OF_IMAGES = {
    "AdversarialTraining",
    "Augmentation",
    "ExampleScores",
    "ExampleSteering",
    "RobustnessMonitor",
    "VarianceOfGradients",
}


class Module(settings.Module):
    """With its data, as LightningCLI wants it, and something to monitor."""

    def __init__(self):
        super().__init__()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss

    def train_dataloader(self):
        return settings.batches()


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """LightningCLI as it reads a command line of these arguments; it trains if the first is ``fit``."""
    quiet = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path),
    }

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        # Lightning uses jsonargparse's old names, which this library cannot change
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        return LightningCLI(
            Module,
            run=arguments[0] == "fit",
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            trainer_defaults=quiet,
        )

    return run


@pytest.fixture
def config(tmp_path):
    """The option that reads callbacks from a YAML file."""

    def write(**callbacks):
        entries = [{"class_path": f"lightning_sparse.{name}", "init_args": given} for name, given in callbacks.items()]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": entries}}))
        return f"--config={tmp_path / 'config.yaml'}"

    return write


def ours(cli):
    return [callback for callback in cli.trainer.callbacks if type(callback) in CALLBACKS.values()]


def arguments_of(callback):
    parameters = inspect.signature(callback).parameters.values()
    return {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def required_by(callback):
    required = {name: REQUIRED[name] for name, p in arguments_of(callback).items() if p.default is p.empty}
    return required | ONE_OF.get(callback.__name__, {})


def test_shrink_from_yaml_narrows_what_the_callback_beside_it_has_pruned(cli, config):
    pytest.importorskip("torch_pruning")
    run = cli("fit", config(GradualPruning={"final_sparsity": 0.5, "granularity": "tied_channels"}, Shrink={}))
    assert run.model.body[0].out_features == run.model.body[1].num_features < 60


@pytest.mark.filterwarnings("ignore:no connection will be replaced")  # RigL and others update every 100 steps
@pytest.mark.parametrize("name", sorted(CALLBACKS.keys() - OF_IMAGES - OF_SEVERAL - OF_OTHERS))
def test_a_callback_from_yaml_trains_as_the_one_from_python_does(name, cli, config, tmp_path):
    given = required_by(CALLBACKS[name])
    run = cli("fit", config(**{name: given}))
    (from_yaml,) = ours(run)
    assert type(from_yaml) is CALLBACKS[name]

    model, callback = Module(), CALLBACKS[name](**given)
    settings.quiet(callback, max_epochs=2, enable_checkpointing=True, default_root_dir=tmp_path / "python").fit(model)
    assert settings.same_state(run.model, model)
    if isinstance(callback, SparseTraining):
        assert settings.exact(from_yaml.masks, callback.recipe.sparsity.final)
        assert settings.dead_are_zero(run.model, from_yaml.masks)
        assert all(torch.equal(from_yaml.masks[layer], mask) for layer, mask in callback.masks.items())


@pytest.mark.parametrize("name", sorted(OF_IMAGES))
def test_a_callback_of_images_comes_from_yaml_too(name, cli, config):
    given = required_by(CALLBACKS[name])
    (from_yaml,) = ours(cli(config(**{name: given})))
    told, expected = (one.state_dict() for one in (from_yaml, CALLBACKS[name](**given)))
    assert repr(told) == repr(expected)


@pytest.mark.parametrize("name", CALLBACKS)
def test_help_says_what_every_argument_is(name, cli, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli("fit", f"--trainer.callbacks.help=lightning_sparse.{name}")
    _, described = capsys.readouterr().out.split("Help for ")
    blocks = re.split(r"^  --trainer\.callbacks\.", described, flags=re.MULTILINE)[1:]
    help_of = {re.match(r"[\w.]+", block)[0]: " ".join(block.split()) for block in blocks}
    for argument in arguments_of(CALLBACKS[name]):
        # The option and its placeholder in capitals or braces; the words; the type in brackets.
        words = re.fullmatch(
            r"\w+ (?:[A-Z_]+|{.*?})(?:, \S+ [A-Z_]+)? (.*?) ?\((?:required, )?type: .*", help_of[argument]
        )
        assert words, help_of[argument]
        assert len(words[1].split()) >= 2


def test_curves_are_written_in_yaml(cli, config):
    sparsity = {
        "class_path": "lightning_sparse.Curve",
        "init_args": {
            "start": 0.5,
            "segments": [
                {"end": 0.5, "value": 0.2, "shape": "linear", "name": "grow"},
                {"end": 1.0, "value": 0.9, "shape": "cubic", "name": "prune"},
            ],
        },
    }
    turnover = {
        "class_path": "lightning_sparse.Curve",
        "init_args": {
            "start": 0.3,
            "segments": [
                {
                    "class_path": "lightning_sparse.engine.schedules.Segment",
                    "init_args": {"end": 15, "value": 0.0, "shape": "cosine"},
                }
            ],
        },
    }
    run = cli("fit", config(SparseTraining={"sparsity": sparsity, "turnover": turnover, "every": 1}))
    (callback,) = ours(run)
    in_python = SparseTraining(
        Curve(0.5).then(0.5, 0.2, "linear", name="grow").then(1.0, 0.9, "cubic", name="prune"),
        turnover=Curve(0.3).then(15, 0.0, "cosine"),
        every=1,
    )
    assert callback.recipe == in_python.recipe
    assert settings.exact(callback.masks, 0.9)
    assert max(update.replaced for update in callback.history) > 0


def test_a_curve_without_its_class_path_is_understood_too(cli, config):
    (callback,) = ours(
        cli(config(SparseTraining={"sparsity": {"start": 0.5, "segments": [{"end": 0.5, "value": 0.9}]}}))
    )
    assert callback.recipe == SparseTraining(Curve(0.5).then(0.5, 0.9)).recipe


@pytest.mark.parametrize("criterion", [name for name in DROP if name != "obs"])  # that one goes with reconstruct
def test_a_criterion_is_given_as_a_name(criterion, cli, config):
    from_yaml = cli(config(GradualPruning={"final_sparsity": 0.9, "criterion": criterion}))
    typed = cli(
        "--trainer.callbacks+=lightning_sparse.GradualPruning",
        "--trainer.callbacks.final_sparsity=0.9",
        f"--trainer.callbacks.criterion={criterion}",
    )
    for run in (from_yaml, typed):
        (callback,) = ours(run)
        assert callback.recipe == lightning_sparse.GradualPruning(0.9, criterion=criterion).recipe


def test_a_user_defined_score_is_given_by_its_class_path(cli, config):
    momentum = {"class_path": "lightning_sparse.engine.scores.running.Momentum", "init_args": {"decay": 0.5}}
    (callback,) = ours(cli("fit", config(BrainDevelopment={"final_sparsity": 0.9, "growth": momentum})))
    assert repr(callback.recipe.grow) == "Momentum(decay=0.5)"
    assert settings.exact(callback.masks, 0.9)


def test_steps_stay_steps_and_shares_stay_shares(cli):
    (callback,) = ours(
        cli(
            "--trainer.callbacks+=lightning_sparse.GradualPruning",
            "--trainer.callbacks.final_sparsity=0.9",
            "--trainer.callbacks.begin=10",
            "--trainer.callbacks.end=1.0",
            "--trainer.callbacks.every=1",
            "--trainer.callbacks.exclude=[head.*]",
        )
    )
    in_python = lightning_sparse.GradualPruning(0.9, begin=10, end=1.0, every=1, exclude=["head.*"])
    assert callback.recipe.plain() == in_python.recipe.plain()
    begin, end, every = *[s.end for s in callback.recipe.sparsity.segments][:2], callback.recipe.every
    assert [type(time) for time in (begin, end, every)] == [int, float, int]


@pytest.mark.parametrize(
    ("given", "instead"),
    [("end=1", "write 1.0 for the whole training"), ("criterion=magnitud", "did you mean 'magnitude'")],
)
def test_meaningless_arguments_are_refused_in_our_words(given, instead, cli):
    with pytest.raises(ValueError, match=instead):
        cli(
            "--trainer.callbacks+=lightning_sparse.GradualPruning",
            "--trainer.callbacks.final_sparsity=0.9",
            f"--trainer.callbacks.{given}",
        )


SCRIPT = """
import sys
from pathlib import Path
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

def train():
    quiet = {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False}
    cli = LightningCLI(BoringModel, trainer_defaults=quiet)
    callbacks = [type(callback).__name__ for callback in cli.trainer.callbacks if "pars" in type(callback).__module__]
    weight = cli.model.layer.weight.detach()
    print(callbacks, int((weight == 0).sum()), weight.tolist())
    return Path(cli.trainer.log_dir, "config.yaml")

saved = train()
sys.argv = ["train.py", "fit", f"--config={saved}"]
train()
"""


def test_a_run_from_the_shell_can_be_run_again_from_the_config_it_saved(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    typed = [
        "--seed_everything=3",
        "--trainer.callbacks+=lightning_sparse.GradualPruning",
        "--trainer.callbacks.final_sparsity=0.9",
        "--trainer.callbacks.end=0.5",
        "--trainer.callbacks+=lightning_sparse.SparsityMonitor",
        "--trainer.callbacks.per_layer=false",
    ]
    command = [sys.executable, "train.py", "fit", *typed]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, again = [
        line for line in done.stdout.splitlines() if line.startswith("['GradualPruning', 'SparsityMonitor']")
    ]
    assert "] 58 [" in first  # round(0.9 * 64)
    assert first == again
