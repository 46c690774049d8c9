"""What is set of W&B is in the run that is written: team, tags, notes; and the shell's variables count or are said not to."""

import pytest

from lightning_sparse.app.settings.environment import overruled
from lightning_sparse.tracking import finish, job_run
from offline_runs import lines, started


def test_a_run_has_its_team_its_tags_and_its_notes(tmp_path):
    finish(job_run(name="a", project="p", group="g", folder=tmp_path, tags=["x", "paper"], entity="team", notes="why"))
    about = started(lines(tmp_path))
    assert (about["entity"], about["notes"], sorted(about["tags"])) == ("team", "why", ["paper", "x"])


@pytest.mark.parametrize("variable", ["WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"])
def test_a_variable_of_the_shell_counts_unless_a_setting_says_otherwise(variable, monkeypatch):
    from hydra import compose, initialize_config_module

    from lightning_sparse.app import hydra_parts

    name, value = variable.removeprefix("WANDB_").lower(), {"WANDB_MODE": "disabled"}.get(variable, "ours")
    monkeypatch.setenv(variable, value)

    def logger(*overrides):
        with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
            return hydra_parts.plain(compose("config", overrides=["logger=wandb", *overrides]).logger)

    assert logger()[name] == value
    assert not list(overruled(logger(), {variable: value}))
    set_otherwise = logger(f"logger.{name}=online")
    assert set_otherwise[name] == "online"
    assert list(overruled(set_otherwise, {variable: value})) == [
        f"logger.{name}=online counts, and {variable}={value} of the shell does not"
    ]


def test_without_wandb_nothing_is_said():
    assert not list(overruled({"kind": "csv"}, {"WANDB_MODE": "online"}))
