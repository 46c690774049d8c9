"""What `python -m MODULE` does, without its seconds of imports: a process that has them forks a child for each command.

The child is a process as any other: of its own are its id, folder, environment, arguments, output and exit code. Two things
it shares with those forked before: the order of sets, and what is imported. Where these, a kill or the start itself are what
a test is about, it starts a process of its own.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

IMPORTED = [
    "lightning_sparse.app.run_job",
    "lightning_sparse.app.task",
    "lightning_sparse.app.finish",
    "captum.attr",
    "matplotlib.pyplot",
    "pandas",
    "plotly.graph_objects",
    "scipy.stats",
    "sklearn.datasets",
    "torchattacks",
    "torchvision",
    "wandb",
]


@cache
def _server():
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(server.communicate)  # it ends when nobody can ask any more
    return server


def run(module, *arguments, cwd, env, seconds=570):
    """Run the module as a command; return what :func:`subprocess.run` does. Killed after so many seconds."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": env, "seconds": seconds}
        print(json.dumps(asked | {"out": str(out), "err": str(err)}), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess([module, *arguments], code, out.read_text(), err.read_text())


def _wait_for_a_command():
    """Return in a child, with what it is to do."""
    for name in IMPORTED:
        __import__(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads, of which a fork keeps one"
    gc.freeze()  # a collection in a child then leaves them, and their pages, alone
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


def main():
    asked = _wait_for_a_command()
    signal.alarm(asked["seconds"])
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
        os.dup2(os.open(path, write if number else os.O_RDONLY), number)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.path[0] = asked["cwd"]
    sys.argv = ["", *asked["arguments"]]
    code = 0
    try:
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    _end(1 if isinstance(code, str) else code or 0)


def _end(code):
    """End as an interpreter does, but for taking a million objects apart, which takes two seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
