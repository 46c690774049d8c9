"""Sparse training for PyTorch Lightning, and what sparsity does to a network.

Every public name is imported when it is first used, so that ``import lightning_sparse`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sparse.allocation import layer_table as layer_table
    from lightning_sparse.callbacks.ac_dc import ACDC as ACDC
    from lightning_sparse.callbacks.adversarial_training import AdversarialTraining as AdversarialTraining
    from lightning_sparse.callbacks.at_target import AtTargetSparsity as AtTargetSparsity
    from lightning_sparse.callbacks.at_target import CheckpointAtTarget as CheckpointAtTarget
    from lightning_sparse.callbacks.at_target import StopAtTarget as StopAtTarget
    from lightning_sparse.callbacks.brain_development import BrainDevelopment as BrainDevelopment
    from lightning_sparse.callbacks.dense_sparse_dense import DenseSparseDense as DenseSparseDense
    from lightning_sparse.callbacks.gradual_pruning import GradualPruning as GradualPruning
    from lightning_sparse.callbacks.granet import GraNet as GraNet
    from lightning_sparse.callbacks.grasp import GraSP as GraSP
    from lightning_sparse.callbacks.grow_and_prune import GrowAndPrune as GrowAndPrune
    from lightning_sparse.callbacks.iterative_pruning import IterativePruning as IterativePruning
    from lightning_sparse.callbacks.lottery_ticket import LotteryTicket as LotteryTicket
    from lightning_sparse.callbacks.lottery_ticket import steps_of_one_training as steps_of_one_training
    from lightning_sparse.callbacks.one_shot import OneShot as OneShot
    from lightning_sparse.callbacks.random_state import RandomState as RandomState
    from lightning_sparse.callbacks.rigl import RigL as RigL
    from lightning_sparse.callbacks.robustness_monitor import RobustnessMonitor as RobustnessMonitor
    from lightning_sparse.callbacks.set_ import SET as SET
    from lightning_sparse.callbacks.snfs import SNFS as SNFS
    from lightning_sparse.callbacks.snip import SNIP as SNIP
    from lightning_sparse.callbacks.sparse_training import SparseTraining as SparseTraining
    from lightning_sparse.callbacks.sparsity_monitor import SparsityMonitor as SparsityMonitor
    from lightning_sparse.callbacks.static import Static as Static
    from lightning_sparse.callbacks.synflow import SynFlow as SynFlow
    from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients as VarianceOfGradients
    from lightning_sparse.engine import Engine as Engine
    from lightning_sparse.errors import SparsityError as SparsityError
    from lightning_sparse.layer_rules import LayerRules as LayerRules
    from lightning_sparse.masks import Masks as Masks
    from lightning_sparse.masks import load_masks as load_masks
    from lightning_sparse.masks import sparsity_of as sparsity_of
    from lightning_sparse.parameters import sparsifiable as sparsifiable
    from lightning_sparse.plain_loop import attach as attach
    from lightning_sparse.recipe import Recipe as Recipe
    from lightning_sparse.rewinding import Rewind as Rewind
    from lightning_sparse.schedules import Curve as Curve
    from lightning_sparse.schedules import cubic as cubic
    from lightning_sparse.update import allocate as allocate

__version__ = "0.1.0"

_HOME = {
    "AdversarialTraining": "callbacks.adversarial_training",
    "RobustnessMonitor": "callbacks.robustness_monitor",
    "VarianceOfGradients": "callbacks.variance_of_gradients",
    "AtTargetSparsity": "callbacks.at_target",
    "CheckpointAtTarget": "callbacks.at_target",
    "StopAtTarget": "callbacks.at_target",
    "BrainDevelopment": "callbacks.brain_development",
    "GradualPruning": "callbacks.gradual_pruning",
    "ACDC": "callbacks.ac_dc",
    "DenseSparseDense": "callbacks.dense_sparse_dense",
    "GraNet": "callbacks.granet",
    "GrowAndPrune": "callbacks.grow_and_prune",
    "IterativePruning": "callbacks.iterative_pruning",
    "OneShot": "callbacks.one_shot",
    "RigL": "callbacks.rigl",
    "SET": "callbacks.set_",
    "Static": "callbacks.static",
    "GraSP": "callbacks.grasp",
    "LotteryTicket": "callbacks.lottery_ticket",
    "steps_of_one_training": "callbacks.lottery_ticket",
    "SNFS": "callbacks.snfs",
    "SNIP": "callbacks.snip",
    "SynFlow": "callbacks.synflow",
    "Rewind": "rewinding",
    "RandomState": "callbacks.random_state",
    "SparseTraining": "callbacks.sparse_training",
    "SparsityMonitor": "callbacks.sparsity_monitor",
    "Engine": "engine",
    "attach": "plain_loop",
    "SparsityError": "errors",
    "layer_table": "allocation",
    "LayerRules": "layer_rules",
    "allocate": "update",
    "Masks": "masks",
    "load_masks": "masks",
    "sparsity_of": "masks",
    "sparsifiable": "parameters",
    "Recipe": "recipe",
    "Curve": "schedules",
    "cubic": "schedules",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lightning_sparse' has no attribute {name!r}")
    return getattr(import_module(f"lightning_sparse.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
