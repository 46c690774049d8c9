"""Measure every promise about cost and write results.md: `python benchmarks/run.py`, 25 minutes on a quiet machine."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = [
    *("masking", "update", "trainer", "memory", "imports", "gpu", "robustness", "sweeps"),
    *("narrower", "shrink", "channels", "packed", "export", "layer_sensitivity", "quantised", "loader"),
]


def machine() -> str:
    """What this runs on, in one line."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "lightning", "numpy"))
    return (
        f"{os.cpu_count()} x {names[0] if names else platform.machine()}, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def main() -> int:
    parts = [
        "# What it costs\n",
        f"{datetime.date.today():%d %B %Y}; {machine()}; load {os.getloadavg()[0]:.1f} at the start.\n",
        "Written by `python benchmarks/run.py`. CPU time of one thread, every variant once a round in shuffled order, median "
        "over the rounds of the ratio within a round. Where a second copy of the reference is not within 0.97 to 1.03 of the "
        "first, the verdict is that the figures do not count: run it again on a quiet machine.\n",
    ]
    failed = False
    for script in SCRIPTS:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, HERE / f"{script}.py"],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        print(done.stdout, f"({script}: {time.perf_counter() - start:.0f} s)\n", sep="", flush=True)
        parts.append(done.stdout)
        if done.returncode:
            failed = True
            parts.append(f"{script}.py failed.\n")
            print(done.stderr, file=sys.stderr)
    (HERE / "results.md").write_text("\n".join(parts))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
