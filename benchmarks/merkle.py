"""The table of Merkle et al. 2021 beside what the sweep `merkle` found: fills docs/merkle.md.

    lightning-sparse -cn merkle
    python benchmarks/merkle.py outputs/merkle [the folder of the data]

Text in docs/merkle.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced; the figure goes to docs/images/merkle.svg.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.app.build import stored_model
from lightning_sparse.data import ImageData
from lightning_sparse.drawing.style import PALETTE, WIDTH, caption, save, style
from lightning_sparse.measure import pgd
from lightning_sparse.results.jobs import Job, read_jobs
from lightning_sparse.statistics import t_interval

DOCS = Path(__file__).parent.parent / "docs"
EPS = [2, 4, 8, 16, 32]  # of 255
# Means over their five repetitions, from the CSV files in FlorianMerkle/network-pruning-and-robustness: clean accuracy, and
# the share of the first 1000 test images that are wrong under attack at each eps, including those wrong without it.
THEIRS = {
    0.0: [0.9891, 0.016, 0.024, 0.048, 0.183, 0.739],
    0.5: [0.9906, 0.014, 0.019, 0.040, 0.173, 0.704],
    0.75: [0.9904, 0.017, 0.021, 0.053, 0.231, 0.813],
    0.875: [0.9890, 0.019, 0.031, 0.081, 0.385, 0.927],
    0.9375: [0.9868, 0.027, 0.046, 0.147, 0.572, 0.980],
    0.96875: [0.9817, 0.038, 0.074, 0.225, 0.718, 0.995],
}


class Softmax(nn.Module):
    """What they attack: probabilities, which the attack takes for logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to probabilities."""
        return self.model(images).softmax(dim=1)


def ours(job: Job) -> list[float]:
    """Clean accuracy, and the success of the sweep's own attack at each eps."""
    rows = job.current_rows()
    clean = next(row.value for row in rows if row.metric == "clean_accuracy")
    worst = {round(255 * (row.eps or 0)): row.value for row in rows if row.attack == "worst" and row.eps}
    return [clean, *(1 - worst[eps] for eps in EPS)]


def as_theirs(job: Job, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """The success of their attack: 40 steps of eps / 30, the last iterate, on the softmax. The result is kept on disk."""
    kept = job.folder / "as_theirs.json"
    if kept.exists():
        return json.loads(kept.read_text())
    model = Softmax(stored_model(job))
    found = []
    for eps in EPS:
        with untouched(model, seed=0):
            attack = {"eps": eps / 255, "steps": 40, "step_size": eps / 255 / 30, "keep_broken": True}
            broken = [pgd(model, *part, **attack)[1] for part in zip(images.split(250), labels.split(250), strict=True)]
        found.append(float(torch.cat(broken).float().mean()))
    with untouched(model), torch.no_grad():
        gradients = _zero_gradients(model, images, labels)
    kept.write_text(json.dumps([*found, gradients]))
    return [*found, gradients]


def _zero_gradients(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images whose gradient, through the softmax and the loss's own softmax, is exactly zero."""
    with torch.enable_grad():
        point = images.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(model(point), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
    return float((gradient.flatten(1).abs().amax(dim=1) == 0).float().mean())


def table(found: dict[float, np.ndarray], columns: list[int]) -> str:
    head = ["sparsity", "clean accuracy", *(f"{eps}/255" for eps in EPS)]
    head = [head[0], *(head[1 + column] for column in columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for sparsity, theirs in THEIRS.items():
        cells = []
        for place, column in enumerate(columns):
            mean, low, high = t_interval(found[sparsity][:, place])
            digits = 4 if column == 0 else 3
            cells.append(f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f} ({theirs[column]:.{digits}f})")
        lines.append(f"| {sparsity:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(mine: dict[float, np.ndarray], like_them: dict[float, np.ndarray]) -> None:
    from matplotlib.figure import Figure

    with style():
        drawn = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        left, right = drawn.subplots(1, 2)
        x = range(len(THEIRS))
        for axes, column, name in ((left, 0, "clean accuracy"), (right, 4, "attack success at 16/255")):
            axes.plot(x, [THEIRS[s][column] for s in THEIRS], "k--o", label="Merkle et al. 2021")
            series = [("ours, on the logits", mine, column, PALETTE[0])]
            if column:
                series.append(("ours, attacked as theirs", like_them, column - 1, PALETTE[1]))
            for label, found, place, color in series:
                middle, low, high = zip(*(t_interval(found[s][:, place]) for s in THEIRS), strict=True)
                axes.plot(x, middle, "o-", color=color, label=label)
                axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
            axes.set_title(name)
            axes.set_xticks(x, labels=[f"{s:g}" for s in THEIRS], rotation=30)
            axes.set_xlabel("sparsity")
        left.set_ylim(0.97, 0.995)
        right.set_ylim(0, 1)
        right.legend(frameon=False)
        caption(
            drawn,
            "LeNet-5 on MNIST, iterative global magnitude pruning; five seeds, 95 % intervals; theirs: means.",
        )
        save(drawn, DOCS / "images" / "merkle")
    (DOCS / "images" / "merkle.png").unlink()


def fill(name: str, text: str) -> None:
    page = DOCS / "merkle.md"
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.S)
    page.write_text(pattern.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", page.read_text()))


def main() -> None:
    folder = Path(sys.argv[1])
    jobs = [job for job in read_jobs(folder)[0] if job.status == "done"]
    torch.set_num_threads(1)
    root = sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parents[2] / "shared" / "data"
    data = ImageData("mnist", root=root, shape=(1, 28, 28), classes=10, mean=[0.0], std=[1.0])
    images, labels = (part[:1000] for part in data.split("test"))
    mine: dict[float, list[list[float]]] = {sparsity: [] for sparsity in THEIRS}
    like_them: dict[float, list[list[float]]] = {sparsity: [] for sparsity in THEIRS}
    for job in sorted(jobs, key=lambda job: (job.sparsity_asked, job.seed)):
        mine[job.sparsity_asked].append(ours(job))
        like_them[job.sparsity_asked].append(as_theirs(job, images, labels))
    own = {sparsity: np.array(values) for sparsity, values in mine.items()}
    theirs = {sparsity: np.array(values) for sparsity, values in like_them.items()}
    fill("ours", table(own, [0, 1, 2, 3, 4, 5]))
    fill("as theirs", table({s: values[:, :5] for s, values in theirs.items()}, [1, 2, 3, 4, 5]))
    zero = ", ".join(f"{100 * values[:, 5].mean():.1f} % at {s:g}" for s, values in theirs.items())
    fill("zero gradients", f"Images whose gradient through the softmax is exactly zero: {zero}.")
    figure(own, theirs)


if __name__ == "__main__":
    main()
