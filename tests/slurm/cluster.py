"""A real Slurm of one node, with everything of its daemons in one folder: munged, slurmctld, slurmd, and accounting.

Accounting (slurmdbd and its MariaDB) is what tells `sacct`, and so submitit, that a job was cancelled.

As root, ``python tests/slurm/cluster.py`` starts one to try things on, until Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=3
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting}
AccountingStoragePass={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

ACCOUNTING = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={accounting}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
"""


def until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask four times a second; on a timeout, raise with what was waited for."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.25)
    return found


def told(*command: str) -> str:
    """What a command prints; an empty string if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@contextmanager
def one_node() -> Iterator[Path]:
    """Start the daemons and stop them again; in between ``SLURM_CONF`` in the environment says where they listen.

    They stay in the foreground as children of this process, and touch nothing of a Slurm that is set up in ``/etc``.

    Yields:
        Their folder, with their logs; it stays where something failed.
    """
    missing = [name for name in ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd") if shutil.which(name) is None]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: write make test-slurm, which installs Debian's packages")
    if os.geteuid() != 0:
        raise PermissionError("slurmd starts jobs in their owners' names: it needs root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short, because paths of sockets have to be
    folder.chmod(0o755)  # munged's socket is for everyone
    _write_settings(folder)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        with ExitStack() as daemons:
            for command, up in _daemons(folder):
                daemons.enter_context(_daemon(folder, command))
                until(up, 60, f"{command[0]} is up: see {folder}")
            yield folder
            told("scancel", "--user=root")
            until(lambda: not told("squeue", "--noheader"), 60, f"the end of all jobs: see {folder}")
    finally:
        del os.environ["SLURM_CONF"]
    shutil.rmtree(folder)


def _write_settings(folder: Path) -> None:
    for name in ("state", "spool", "database"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    names = ("controller", "node", "accounting", "database")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    found = {"folder": folder, "host": socket.gethostname().partition(".")[0], "cpus": os.cpu_count(), **ports}
    (folder / "slurm.conf").write_text(CONF.format(**found))
    (folder / "slurmdbd.conf").write_text(ACCOUNTING.format(**found))
    (folder / "my.cnf").write_text(
        f"[mariadbd]\nuser=mysql\ndatadir={folder}/database\nsocket={folder}/database/socket\n"
        f"pid-file={folder}/database/pid\nbind-address=127.0.0.1\nport={ports['database']}\n"
    )
    for name in ("munge.key", "slurmdbd.conf"):
        (folder / name).chmod(0o600)


def _daemons(folder: Path) -> Iterator[tuple[list[str], Callable[[], Any]]]:
    """Each daemon's command, in the order of starting them, and how it is known that it is up."""
    own = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    yield ["munged", "--foreground", f"--socket={folder}/munge.socket", *own], (folder / "munge.socket").exists
    defaults = f"--defaults-file={folder}/my.cnf"
    install = ["mariadb-install-db", defaults, "--skip-test-db", "--auth-root-authentication-method=normal"]
    subprocess.run([*install, "--user=mysql"], check=True, stdout=subprocess.DEVNULL)
    yield ["mariadbd", defaults], (folder / "database" / "socket").exists
    yield ["slurmdbd", "-D"], lambda: "tests" in told("sacctmgr", "-i", "add", "cluster", "tests")
    yield ["slurmctld", "-D"], lambda: "UP" in told("scontrol", "ping")
    yield ["slurmd", "-D"], lambda: told("sinfo", "--noheader", "--format=%t") == "idle"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextmanager
def _daemon(folder: Path, command: list[str]) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with one_node(), suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={os.environ['SLURM_CONF']}", flush=True)
        signal.pause()
