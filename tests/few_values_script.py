"""Trainings under DDP with few values and with factors, as two processes: `python few_values_script.py FOLDER`."""

import json
import logging
import sys
import warnings
from pathlib import Path

import settings
from lightning_sparse import Factorise, GradualPruning, Quantise, Share

FORMS = {
    "quantise": lambda: Quantise(2, begin=3),
    "rows": lambda: Quantise(3, per="row", symmetric=True, begin=3),
    "share": lambda: Share(2, begin=3),
    "network": lambda: Share(3, codebook_of="network", begin=3),
}


def main(folder):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    settings.quiet(devices=2, strategy="ddp", max_epochs=1).fit(settings.Module(), settings.batches())
    found = {}
    for name, make in FORMS.items():
        callback, pruning = make(), GradualPruning(0.8, end=0.5)
        trainer = settings.quiet(callback, pruning, devices=2, strategy="ddp", max_epochs=2)
        model = settings.Module()
        trainer.fit(model, settings.batches())
        held = callback.state_dict()["weights"]
        found[name] = {
            "weights": [float(p.detach().double().abs().sum()) for p in callback.weights.parameters.values()],
            "held": [float(t.double().sum()) for t in held.get("latent", held.get("values")).values()],
            "few": max(callback.distinct_values.values()) <= 2**callback.bits,
            "masks": pruning.masks.checksum(),
        }
        rank = trainer.global_rank
    pruning = GradualPruning(0.8, end=0.5)
    model = settings.Module()
    callbacks = Factorise(rank=4, fresh=False), pruning
    settings.quiet(*callbacks, devices=2, strategy="ddp", max_epochs=2).fit(model, settings.batches())
    found["factorise"] = {
        "weights": {name: float(p.detach().double().abs().sum()) for name, p in model.named_parameters()},
        "sparsity": pruning.sparsity,
        "masks": pruning.masks.checksum(),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
