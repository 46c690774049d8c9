"""One right call of every public name, small enough to be made hundreds of times: {name: its arguments, made anew}."""

import numpy as np
import torch
from torch import nn

from lightning_sparse import Curve, Engine, Recipe


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval()


def images(n=8):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def labels(n=8):
    return torch.arange(n) % 4


def pair(n=8):
    return images(n), labels(n)


def maps(n=8, seed=0):
    return np.random.default_rng(seed).random((n, 8, 8))


def masks():
    return {"0.weight": torch.rand(3, 1, 3, 3) > 0.5, "4.weight": torch.rand(4, 108) > 0.5}


def measured():
    from lightning_sparse.measure import measure_saliency

    return measure_saliency(net(), pair(), methods=["gradient"], measures=["gini"]).arrays


def packed():
    from lightning_sparse.export import save_packed

    save_packed(net(), None, "written.packed")
    return "written.packed"


def sensitivity():
    from lightning_sparse.measure import measure_sensitivity_of_layers

    return measure_sensitivity_of_layers(net(), pair(), sparsities=[0.5])


def optimizer(model):
    return torch.optim.SGD(model.parameters(), 0.1)


def attached():
    model = net().train()
    return {
        "optimizer": optimizer(model),
        "model": model,
        "recipe": Recipe(Curve(0.5)),
        "total_steps": 8,
        "state": None,
    }


def attached_with_batches():
    return attached() | {"batches": [pair()], "loss_fn": nn.functional.cross_entropy}


def shape():
    return {"shape": (1, 28, 28), "classes": 4}  # a width of 90 is a network that takes minutes to make


COMMON = {
    "drop": "magnitude",
    "grow": "gradient",
    "granularity": "weights",
    "include": None,
    "exclude": None,
    "seed": 0,
    "total_steps": 20,
    "compact_masks": False,
    "rewind": None,
    "redistribute": False,
    "loss_fn": None,
}

REPLACING = {
    "final_sparsity": 0.5,
    "turnover": 0.3,
    "turnover_until": 0.7,
    "every": 4,
    "birth": "random",
    "allocation": "erk",
}

# Callbacks, with everything that they take; a real Trainer of twenty steps runs those that are taken.
CALLBACKS = {
    "ACDC": {"final_sparsity": 0.5, "warmup": 0.1, "phase": 0.2, "dense_from": 0.7, "sparse_from": 0.8},
    "BrainDevelopment": {
        "final_sparsity": 0.5,
        "birth_sparsity": 0.4,
        "sparsity_at_densest": 0.2,
        "densest_at": 0.2,
        "pruned_by": 0.6,
        "pruning_turnover": 0.0,
        "turnover": 0.2,
        "turnover_until": 0.9,
        "every": 2,
        "growth": "gradient",
        "criterion": "magnitude",
        "allocation": "global",
    },
    "DenseSparseDense": {"sparsity": 0.5, "sparse_from": 0.4, "dense_from": 0.7},
    "GraNet": {
        "final_sparsity": 0.5,
        "initial_sparsity": 0.3,
        "end": 0.7,
        "turnover": 0.5,
        "turnover_until": 0.7,
        "every": 2,
        "growth": "gradient",
    },
    "GraSP": {"final_sparsity": 0.5, "rounds": 1, "score_batches": 1},
    "GradualPruning": {
        "final_sparsity": 0.5,
        "initial_sparsity": 0.0,
        "begin": 0.0,
        "end": 0.75,
        "every": 2,
        "criterion": "magnitude",
        "allocation": "global",
    },
    "GrowAndPrune": {
        "final_sparsity": 0.5,
        "seed_sparsity": 0.9,
        "sparsity_at_densest": 0.3,
        "grown_at": 0.3,
        "pruned_by": 0.7,
        "every": 2,
        "growth": "gradient",
    },
    "IterativePruning": {"final_sparsity": 0.5, "trainings": 2, "criterion": "magnitude"},
    "LotteryTicket": {"final_sparsity": 0.5, "trainings": 2, "rewind_to": 0.0, "reinit": False},
    "OneShot": {"final_sparsity": 0.5, "at": 0.5, "criterion": "magnitude"},
    "RigL": REPLACING,
    "SET": REPLACING,
    "SNFS": REPLACING,
    "SNIP": {"final_sparsity": 0.5, "rounds": 1, "score_batches": 1},
    "SparseTraining": {
        "sparsity": 0.5,
        "turnover": 0.0,
        "birth": None,
        "allocation": "global",
        "every": 2,
        "rounds": 1,
        "score_batches": 1,
        **COMMON,
    },
    "Static": {"final_sparsity": 0.5, "criterion": "random", "allocation": "erk"},
    "SynFlow": {"final_sparsity": 0.5, "rounds": 3},
    "SparsityMonitor": {"per_layer": True},
    "RandomState": {},
    "Shrink": {},
    "AtTargetSparsity": {},
    "AdversarialTraining": {
        "eps": 0.1,
        "steps": 1,
        "step_size": None,
        "norm": "Linf",
        "images": 0,
        "labels": 1,
        "forward": None,
        "seed": 0,
        "mean": None,
        "std": None,
    },
    "RobustnessMonitor": {
        "eps": 0.1,
        "images": 8,
        "every": 1,
        "norm": "Linf",
        "forward": None,
        "seed": 0,
        "mean": None,
        "std": None,
    },
    "VarianceOfGradients": {
        "probe": None,
        "images": 8,
        "every": 1,
        "window": 0.5,
        "batch_size": 8,
        "mean": None,
        "std": None,
        "forward": None,
    },
}

# Everything else, each with what it is called with.
FUNCTIONS = {
    "Curve": lambda: {"start": 0.5, "segments": ()},
    "Engine": lambda: {
        "parameters": {"w": nn.Parameter(torch.rand(8, 8))},
        "recipe": Recipe(Curve(0.5)),
        "total_steps": 8,
    },
    "LayerRules": lambda: {"base": "global", "sparsity": {"*.weight": 0.5}, "first": 0.1, "last": None, "floor": 0.0},
    "Masks": lambda: {"masks": masks(), "itemsize": None, "compact": False},
    "Recipe": lambda: {
        "sparsity": Curve(0.5),
        "turnover": Curve(0.0),
        "birth": None,
        "allocation": "global",
        "every": 0.1,
        "rounds": 1,
        "score_batches": 1,
        **{name: value for name, value in COMMON.items() if name != "loss_fn"},
    },
    "Rewind": lambda: {"to": 0, "reinit": False},
    "allocate": lambda: {
        "parameters": {"w": torch.rand(8, 8), "v": torch.rand(4, 8)},
        "sparsity": 0.5,
        "allocation": "global",
        "granularity": "weights",
    },
    "apportion": lambda: {"living": 5, "weights": {"a": 1.0, "b": 2.0}, "most": {"a": 4, "b": 4}, "least": 1},
    "attach": attached_with_batches,
    "cubic": lambda: {"final": 0.9, "initial": 0.0, "begin": 0.0, "end": 0.75},
    "layer_table": lambda: {"masks": masks()},
    "load_masks": lambda: {
        "checkpoint": Engine({"w": nn.Parameter(torch.rand(8, 8))}, Recipe(Curve(0.5)), 8).state_dict()
    },
    "needs_gradient": lambda: {"score": lambda layer: layer.weight},
    "of_network": lambda: {"score": lambda network: network},
    "plot_layer_sensitivity": lambda: {"measured": sensitivity()},
    "plot_schedule": lambda: {"schedule": Curve(0.5), "total_steps": 100},
    "schedule_table": lambda: {"schedule": Recipe(Curve(0.5)), "total_steps": 100, "most": 5},
    "sparsifiable": lambda: {"model": net(), "include": None, "exclude": None},
    "sparsity_of": lambda: {"model": net(), "include": None, "exclude": None},
    "measure.GradientVariance": lambda: {"batch_size": 8},
    "measure.agreement_records": lambda: {
        "maps_a": maps(),
        "maps_b": maps(seed=1),
        "attribution": "gradient",
        "keep": None,
        "seed": 0,
    },
    "measure.as_classifier": lambda: {"model": net(), "mean": [0.5], "std": [0.5], "forward": None},
    "measure.attribute": lambda: {
        "classifier": net(),
        "images": images(),
        "targets": labels(),
        "method": "gradient",
        "seed": 0,
    },
    "measure.check_images": lambda: {"images": images(), "labels": labels(), "classes": 4},
    "measure.check_logits": lambda: {"outputs": torch.rand(4, 3)},
    "measure.class_normalised": lambda: {"scores": np.random.default_rng(0).random(8), "labels": labels()},
    "measure.corrupt": lambda: {"images": images(), "name": "rotation", "severity": 1, "seed": 0},
    "measure.craft": lambda: {
        "model": net(),
        "data": pair(),
        "eps": 0.1,
        "norm": "Linf",
        "steps": 1,
        "batch_size": 8,
        "seed": 0,
    },
    "measure.fit_temperature": lambda: {"logits": torch.rand(8, 4), "labels": labels()},
    "measure.gini": lambda: {"maps": maps()},
    "measure.has_batchnorm": lambda: {"model": net()},
    "measure.insertion_deletion_gap": lambda: {
        "classifier": net(),
        "images": images(),
        "labels": labels(),
        "maps": torch.rand(8, 8, 8),
        "temperature": 1.0,
        "seed": 0,
    },
    "measure.mass_accuracy": lambda: {"maps": maps(), "masks": maps() > 0.5},
    "measure.max_sensitivity": lambda: {
        "classifier": net(),
        "images": images(),
        "targets": labels(),
        "method": "gradient",
        "seed": 0,
    },
    "measure.measure_accuracy": lambda: {"model": net(), "data": pair(), "batch_size": 8},
    "measure.measure_corruptions": lambda: {
        "model": net(),
        "data": pair(),
        "corruptions": ["rotation"],
        "severities": (1,),
        "batch_size": 8,
        "seed": 0,
    },
    "measure.measure_cost": lambda: {"model": net(), "data": pair(), "masks": None, "batch_size": 8},
    "measure.measure_description_length": lambda: {
        "model": net(),
        "train_data": pair(),
        "masks": None,
        "max_bits": 2,
        "train_size": 8,
        "batch_size": 8,
        "seed": 0,
    },
    "measure.measure_forgotten": lambda: {
        "sparse_predictions": np.zeros((5, 8), int),
        "dense_predictions": np.ones((5, 8), int),
        "labels": labels().numpy(),
    },
    "measure.measure_hessian": lambda: {
        "model": net(),
        "data": pair(),
        "masks": None,
        "iterations": 2,
        "batch_size": 8,
        "seed": 0,
    },
    "measure.measure_jacobian": lambda: {
        "model": net(),
        "data": pair(),
        "calibration": None,
        "batch_size": 8,
        "seed": 0,
    },
    "measure.measure_latency": lambda: {
        "model": {"same": net()},
        "example": images(),
        "batch_sizes": [1],
        "baseline": net(),
        "seconds": 0.01,
    },
    "measure.measure_robustness": lambda: {
        "model": net(),
        "data": pair(),
        "eps": [0.1],
        "norm": "Linf",
        "tier": "monitor",
        "attacks": ["pgd"],
        "steps": 1,
        "restarts": 1,
        "batch_size": 8,
        "seed": 0,
        "known": None,
    },
    "measure.measure_saliency": lambda: {
        "model": net(),
        "data": pair(),
        "methods": ["gradient"],
        "measures": ["gini"],
        "truth": None,
        "calibration": None,
        "batch_size": 8,
        "seed": 0,
    },
    "measure.measure_sensitivity_of_layers": lambda: {
        "model": net(),
        "data": pair(),
        "sparsities": [0.5],
        "granularity": "weights",
        "include": None,
        "exclude": None,
        "train_data": pair(),
        "batch_size": 8,
        "seed": 0,
    },
    "measure.measure_shift_consistency": lambda: {
        "model": net(),
        "data": pair(),
        "most": 1,
        "batch_size": 8,
        "seed": 0,
    },
    "measure.measure_shortcut": lambda: {
        "model": net(),
        "data": {name: pair() for name in ("aligned", "absent", "conflicting")},
        "batch_size": 8,
    },
    "measure.measure_transfer": lambda: {
        "sources": {"other": images()},
        "model": net(),
        "data": pair(),
        "eps": 1.0,
        "norm": "Linf",
        "batch_size": 8,
        "seed": 0,
    },
    "measure.pgd": lambda: {
        "classifier": net(),
        "images": images(),
        "labels": labels(),
        "eps": 0.1,
        "norm": "Linf",
        "steps": 1,
        "step_size": None,
        "restarts": 1,
        "loss": "ce",
        "random_start": True,
        "start": None,
        "keep_broken": False,
    },
    "measure.randomisation_check": lambda: {
        "classifier": net(),
        "images": images(),
        "targets": labels(),
        "maps": torch.rand(8, 8, 8),
        "method": "gradient",
        "seed": 0,
    },
    "measure.rank_accuracy": lambda: {"maps": maps(), "masks": maps() > 0.5, "seed": 0},
    "measure.rank_agreement": lambda: {"maps_a": maps(), "maps_b": maps(seed=1)},
    "measure.recalibrate_batchnorm": lambda: {"model": net(), "data": pair(), "most": 8, "batch_size": 8, "seed": 0},
    "measure.records_over": lambda: {"arrays": measured(), "keep": None, "models": 1},
    "measure.same_images": lambda: {"several": [measured(), measured()]},
    "measure.storage_formats": lambda: {"model": net(), "masks": None},
    "measure.suggest_layer_rules": lambda: {"measured": sensitivity(), "tolerance": 1.0},
    "measure.top_agreement": lambda: {"maps_a": maps(), "maps_b": maps(seed=1), "seed": 0},
    "measure.true_class_gradients": lambda: {"model": net(), "images": images(), "labels": labels(), "batch_size": 8},
    "measure.vog_overlap": lambda: {"vog": np.random.default_rng(0).random(8), "forgotten": np.arange(8) < 3},
    "export.narrow_to": lambda: {"model": net(), "tensors": net().state_dict()},
    "export.load_packed": lambda: {"path": packed(), "model": net()},
    "export.packed_table": lambda: {"path": packed()},
    "export.shrink": lambda: {"model": net(), "example": images(2), "fold": True},
    "export.save_packed": lambda: {"model": net(), "masks": None, "path": "net.packed", "values": "int4"},
    "export.CSRLinear": lambda: {"weight": torch.eye(4), "bias": torch.ones(4), "contiguous": False},
    "export.GatheredLinear": lambda: {"weight": torch.eye(4), "bias": torch.ones(4)},
    "statistics.holm": lambda: {"p_values": [0.1, 0.02]},
    "statistics.mcnemar": lambda: {"a_right": [True, False, True], "b_right": [True, True, False]},
    "statistics.mean_interval": lambda: {"values": [0.1, 0.2, 0.3]},
    "statistics.t_interval": lambda: {"values": [0.1, 0.2, 0.3]},
    "statistics.welch": lambda: {"a": [0.1, 0.2, 0.3], "b": [0.2, 0.3, 0.5]},
    "statistics.wilson": lambda: {"successes": 3, "n": 10},
    "data.ImageData": lambda: {
        "name": "digits",
        "shape": (1, 8, 8),
        "classes": 10,
        "mean": [0.3],
        "std": [0.4],
        "shortcut": 0.0,
        "root": None,
        "download": False,
        "batch_size": 64,
        "validation": 0.1,
        "split_seed": 0,
        "shuffle_seed": 0,
        "num_workers": 0,
    },
    "data.plant": lambda: {"digits": images()[:, 0], "labels": labels(), "quadrants": labels(), "places": None},
    "data.shortcut_versions": lambda: {
        "images": torch.rand(8, 1, 16, 16),
        "labels": labels(),
        "quadrant": torch.arange(16 * 16).view(16, 16).repeat(8, 1, 1) < 64,
        "seed": 0,
    },
    "models.Classifier": lambda: {"net": net(), "mean": [0.5], "std": [0.5], "optimizer": None, "schedule": "cosine"},
    "models.lenet5": shape,
    "models.lenet_300_100": shape,
    "models.resnet18": shape,
    "models.resnet20": shape,
    "models.small_cnn": shape,
}

# Not called with odd values: constants, records, an exception, subclasses of Lightning's callbacks, functions of a
# Trainer, and what takes a second and more.
LEFT_OUT = {
    "SparsityError",
    "Layer",
    "Network",
    "CheckpointAtTarget",
    "StopAtTarget",
    "steps_of_one_training",
    "style",
    "untouched",
    "measure.ATTACKS",
    "measure.ATTRIBUTIONS",
    "measure.CORRUPTIONS",
    "measure.THRESHOLDS",
    "measure.TIERS",
    "measure.batchnorm_in_words",
    "export.Finalised",
    "export.OnnxFile",
    "export.Shrunk",
    "export.ShrunkLayer",
    "export.Sparsified",
    "export.SparsifiedLayer",
    "export.finalise",
    "export.sparsify",
    "export.to_exported_program",
    "export.to_onnx",
    "data.Planted",
    "data.planted",
}
