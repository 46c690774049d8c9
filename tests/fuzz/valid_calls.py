"""One right call of every public function, small enough to be made hundreds of times: {name: its arguments, made anew}."""

import torch
from torch import nn

from fuzz.small_inputs import attached_with_batches, images, labels, masks, net, packed, sensitivity, shape
from fuzz.valid_callbacks import COMMON
from fuzz.valid_measuring import MEASURING
from lightning_sparse import Curve, Engine, Recipe

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
    **MEASURING,
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
