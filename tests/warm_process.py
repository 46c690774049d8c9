"""What `python -m MODULE` does, without ten seconds of imports: a process that has made them forks a child for each command.

The child is a process of its own, with its own folder, environment, arguments, random numbers, output and exit code. What it
shares with those before it: what is imported, the order of sets, and that the garbage collector leaves imported things alone.
Where the start, a signal or a launcher's own processes are what a test is about, it starts a cold process.
"""

import atexit
import gc
import json
import multiprocessing.process
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

# What commands import when they first need it, beside everything in the package. Not W&B, which makes a folder of temporary
# files as it is imported, and removes it when the process ends: the first child would remove that of all others.
LATER = [
    "captum.attr",
    "matplotlib.pyplot",
    "plotly.graph_objects",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.metrics",
]
LATER += ["torchattacks", "torchvision.transforms.v2"]


@cache
def _server():
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # a fork has no thread but the one that forks
    command = [sys.executable, __file__]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread)
    atexit.register(server.communicate)  # it ends when nobody can ask any more
    return server


def run(module, *arguments, cwd, env, seconds=570, each=({},)):
    """Run a module, or a script by its path, as a command: return and raise what :func:`subprocess.run` does.

    It runs as often at once as ``each`` has dicts, which are more of an environment; the first that fails ends the others.
    """
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": env, "seconds": seconds}
        asked |= {"out": str(out), "err": str(err)}
        print(json.dumps([asked | {"env": env | own} for own in each]), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired([module, *arguments], seconds, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess([module, *arguments], code, out.read_text(), err.read_text())


def ranks(count):
    """The environments in which Lightning's `strategy="ddp"` runs a script again, here for all of the processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    return [meeting | {"LOCAL_RANK": str(rank)} for rank in range(count)]


def _wait_for_a_command():
    """Return in a child, with what it is to do."""
    import lightning_sparse

    own = [found.name for found in pkgutil.walk_packages(lightning_sparse.__path__, "lightning_sparse.")]
    for name in [*own, *LATER]:
        if not name.endswith("__main__"):
            __import__(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads, of which a fork keeps one"
    gc.freeze()  # a collection in a child then leaves them, and their pages, alone
    while line := sys.stdin.readline():
        children, worst = set(), 0
        for asked in json.loads(line):
            child = os.fork()
            if child == 0:
                return asked
            children.add(child)
        while children:
            child, status = os.wait()
            children.discard(child)
            if status and not worst:  # the others would wait for it
                worst = os.waitstatus_to_exitcode(status)
                for left in children:
                    os.kill(left, signal.SIGKILL)
        print(worst, flush=True)
    sys.exit()


def main():
    asked = _wait_for_a_command()
    signal.alarm(asked["seconds"])
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
        os.dup2(os.open(path, write if number else os.O_RDONLY), number)
    _as_if_started_now(asked)
    code = 0
    try:
        if asked["module"].endswith(".py"):
            sys.path[0] = os.path.dirname(os.path.abspath(asked["module"]))
            runpy.run_path(os.path.abspath(asked["module"]), run_name="__main__")
        else:
            runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    _end(code or 0)


def _as_if_started_now(asked):
    """Give the child what an interpreter, or a module as it is imported, takes from outside."""
    import numpy as np
    import torch

    import warm_ranks

    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    multiprocessing.process.ORIGINAL_DIR = asked["cwd"]
    sys.path[0] = asked["cwd"]
    sys.argv = ["", *asked["arguments"]]
    sys.dont_write_bytecode = bool(asked["env"].get("PYTHONDONTWRITEBYTECODE"))
    np.random.seed()  # `random` does so itself
    torch.default_generator.seed()
    warm_ranks.warm()
    warm_ranks.serve_from_here()


def _end(code):
    """End as an interpreter does, but for taking a million objects apart, which takes two seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
