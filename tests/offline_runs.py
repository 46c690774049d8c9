"""Read W&B's offline files back, with its own reader."""

import json
import os
import subprocess
import sys
from pathlib import Path

WANDB = [sys.executable, "-m", "wandb"]


def folders(sweep: Path) -> list[Path]:
    """The offline runs of a sweep, the oldest first."""
    return sorted((sweep / "wandb").glob("offline-run-*"))


def inspect(folder: Path, *arguments: str) -> str:
    """What `wandb leet inspect --json` says about the one run in a folder."""
    (found,) = folders(folder)
    return told_by("leet", "inspect", "--json", *arguments, str(found))


def told_by(*arguments: str) -> str:
    """What W&B's command prints. It is kept from the network, to which its reader too sends how it is used."""
    kept = {**os.environ, "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run([*WANDB, *arguments], capture_output=True, text=True, check=False, env=kept)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stdout} {done.stderr}"
    return done.stdout


def lines(folder: Path) -> list[dict]:
    """Its records, in order."""
    return [json.loads(line) for line in inspect(folder).splitlines()]


def started(told: list[dict]) -> dict:
    (run,) = [line["run"] for line in told if line["type"] == "run"]
    return run


def history(told: list[dict]) -> list[dict]:
    return [line["history"]["item"] for line in told if line["type"] == "history"]


def axes(told: list[dict]) -> dict[str, str]:
    """Each metric, or group of metrics, with the metric on its x axis."""
    metrics = [line["metric"] for line in told if line["type"] == "metric"]
    return {metric.get("glob_name") or metric["name"]: metric.get("step_metric", "") for metric in metrics}


def artifacts(told: list[dict]) -> dict[str, list[dict]]:
    """By type, the files of our artifacts: `path`, `local_path`, `digest`. W&B makes those of tables itself."""
    kept = [line["artifact"] for line in told if line["type"] == "artifact"]
    return {one["type"]: one["manifest"]["contents"] for one in kept if one["type"] != "run_table"}
