"""Run a sweep again and again and kill it at a different moment each time: `python kill_sweep.py MOMENTS OVERRIDE ...`.

First it runs in `whole/`, undisturbed. In `killed/` it is killed by `kill -9` as soon as its folder shows that a
moment has come (or as it opens or renames a file, if the moment is too short to be seen from outside), launched again for
the next moment, and in the end left alone. It runs in forked processes, so that nothing has to be imported again. MOMENTS
are some of those below, with a ; between them, or `all`. The last line of output is JSON that says how each launch ended.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import lightning_sparse.app.finish
import lightning_sparse.app.run_job  # noqa: F401  a task imports both when it needs them
from lightning_sparse.app import task as app

FOLDER = Path("outputs/runs")


def some(pattern, size=0):
    return any(path.stat().st_size >= size for path in FOLDER.glob(pattern))


def told(*words):
    lines = (FOLDER / "launches.jsonl").read_text().splitlines() if (FOLDER / "launches.jsonl").exists() else []
    return any(all(f'"{word}"' in line for word in words) for line in lines)


def later(pattern):
    """Whether another file has taken the place of the first one that was there."""
    first = {}

    def look():
        found = {path: path.stat().st_mtime_ns for path in FOLDER.glob(pattern)}
        return any(first.setdefault(path, changed) != changed for path, changed in found.items())

    return look


MOMENTS = {
    "a training has begun": lambda: told("started"),
    "an epoch is saved": lambda: some("*/training.ckpt"),
    "a later epoch is saved": later("*/training.ckpt"),
    "the model is being saved": "ended.ckpt",
    "the model is saved": lambda: some("*/model.ckpt"),
    "a measurement is done": lambda: some("*/records.jsonl", size=1),
    "arrays are being saved": ".part.npz",
    "a job is done": lambda: told("done"),
    "the dense network trains": lambda: some("dense*/training.ckpt"),
    "the jobs are compared": lambda: some("records.jsonl"),
    "figures are drawn": lambda: some("figures/*"),
}


def die_at(name):
    def look(event, arguments):
        if event in ("open", "os.rename") and any(name in str(argument) for argument in arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def launch(reached=None):
    child = os.fork()
    if child == 0:
        if isinstance(reached, str):
            die_at(reached)
        sys.argv = ["lightning-sparse", "--multirun", *sys.argv[2:]]
        app.run()
        sys.stdout.flush()
        os._exit(0)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        try:
            if callable(reached) and reached():
                os.kill(child, signal.SIGKILL)
        except FileNotFoundError:  # it was replaced while it was looked at
            pass
        time.sleep(0.0005)


def main():
    ends = {}
    for folder in ("whole", "killed"):
        Path(folder).mkdir()
    os.chdir("whole")
    ends["whole"] = launch()
    os.chdir("../killed")
    for moment in MOMENTS if sys.argv[1] == "all" else sys.argv[1].split(";"):
        ends[moment] = launch(MOMENTS[moment])
    ends["left alone"] = launch()
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
