"""What `import lightning_sparse` adds to `import lightning.pytorch`, in a fresh process each time."""

from __future__ import annotations

import statistics
import subprocess
import sys

from harness import Table

CODE = """
import time
import lightning.pytorch
start = time.process_time()
import lightning_sparse
print(time.process_time() - start)
from lightning_sparse import BrainDevelopment, GradualPruning, SparsityMonitor
print(time.process_time() - start)
"""


def seconds() -> list[float]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()[-2:]]


if __name__ == "__main__":
    seconds()  # once, for the compiled files
    rounds = [seconds() for _ in range(5)]
    table = Table("Import: CPU seconds beyond `import lightning.pytorch`")
    table.add("import lightning_sparse", statistics.median(r[0] for r in rounds), 0.1, " s")
    table.add("from lightning_sparse import its callbacks", statistics.median(r[1] for r in rounds), 0.1, " s")
    table.show()
