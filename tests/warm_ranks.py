"""What `strategy="ddp_spawn"` and `torch.multiprocessing.spawn` start, without ten seconds of imports for each rank.

Ranks are forks of a process that has made the imports, by Python's own start method "forkserver". Everything else is as it is
there: what they are given and return is pickled, and the launcher is Lightning's own.
"""

import os
import socket
import sys
from multiprocessing import forkserver

import numpy as np
import torch.multiprocessing

_start = torch.multiprocessing.start_processes

# The server begins with the first ranks, and ends with the process that asked for them.
forkserver.set_forkserver_preload(["lightning.pytorch", "lightning_sparse.callbacks"])


def warm():
    """Fork from now on what torch would spawn."""
    _start_by(_forked)


def cold():
    """Spawn again."""
    _start_by(_start)


def serve_from_here():
    """Let the forks be those of this process as it is now, with all that it has imported."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # Linux finds an address, which is no file
    listener.listen()
    alive, held = os.pipe()
    server = os.fork()
    if server == 0:
        os.close(held)
        try:
            forkserver.main(listener.fileno(), alive, [])
        finally:
            os._exit(0)
    os.close(alive)
    ours = forkserver._forkserver
    ours._forkserver_address, ours._forkserver_alive_fd, ours._forkserver_pid = listener.getsockname(), held, server
    listener.close()


def _start_by(function):
    torch.multiprocessing.start_processes = function  # Lightning calls it
    sys.modules["torch.multiprocessing.spawn"].start_processes = function  # `spawn` does


def _forked(function, *arguments, start_method="spawn", **others):
    if start_method == "spawn":
        function, start_method = _Rank(function), "forkserver"
    return _start(function, *arguments, start_method=start_method, **others)


class _Rank:
    """It has the environment of its parent and random numbers of its own, as a spawned one has, and not the server's."""

    def __init__(self, function):
        self.function, self.environment = function, dict(os.environ)

    def __call__(self, *arguments):
        os.environ.clear()
        os.environ.update(self.environment)
        np.random.seed()
        torch.default_generator.seed()
        self.function(*arguments)
