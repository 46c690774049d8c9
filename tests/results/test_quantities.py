"""Every metric that the package writes is described, in one place."""

import ast
from pathlib import Path

import lightning_sparse
from lightning_sparse.results.quantities import QUANTITIES

ROW_MAKERS = ("Record", "share_row", "mean_row")
DESCRIBED = {described.metric for described in QUANTITIES}


def written() -> set[str]:
    """First arguments of what makes rows; of an f-string what stands before its first brace, and a `*`."""
    found = set()
    for file in Path(lightning_sparse.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ROW_MAKERS and node.args:
                metric = node.args[0]
                if isinstance(metric, ast.Constant):
                    found.add(metric.value)
                elif isinstance(metric, ast.JoinedStr) and isinstance(metric.values[0], ast.Constant):
                    found.add(f"{metric.values[0].value}*")
    return found


def test_what_is_written_is_described():
    metrics = written()
    assert {"clean_accuracy", "cost_bits_*", "trust_*", "vog_mean", "shortcut_reliance"} <= metrics
    families = {name for name in DESCRIBED if name.endswith("_")}
    alone = {metric for metric in metrics if not metric.startswith(tuple(families))}
    assert {metric for metric in alone if "*" not in metric} <= DESCRIBED
    begun = {metric.removesuffix("*") for metric in alone if "*" in metric}
    assert {start for start in begun if not any(known.startswith(start) for known in DESCRIBED)} == set()


def test_nothing_is_described_twice():
    assert len(DESCRIBED) == len(QUANTITIES)
