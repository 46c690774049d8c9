"""Train a few weights of every unit, from which the others are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType, ref

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_sparse.anatomy.first_tensor import first_tensor
from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.anatomy.parameters import names_of
from lightning_sparse.anatomy.patterns import check_patterns, matching
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.private import loader_to_come
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.compress.replaceable import reasons_to_stay
from lightning_sparse.errors import SparsityError, check_share
from lightning_sparse.measure.images_and_labels import read_apart
from lightning_sparse.measure.predictability.dictionary import chosen_coordinates, dictionary
from lightning_sparse.measure.predictability.layer_inputs import hidden_layers, inputs_of

IMAGES = 2000  # of the training data, for the covariance of each layer's inputs


class PredictWeights(OneOfAKind):
    """Train a few weights of every unit; the others follow from them by a dictionary that stays as it is.

    Denil et al. 2013 (arXiv 1306.0543). Before the first step the weight of every hidden Linear and Conv2d layer becomes
    V U: V, which is trained, holds the unit's weights at a few inputs, and U, which is fixed, predicts all its weights from
    those by kernel ridge regression. The inputs are those that say most about the others (pivots of their covariance over
    2000 training images), the kernel is that covariance; of later layers in the network as it is before training. The output
    layer is trained whole. :func:`~lightning_sparse.measure.measure_predictability` asks the same of a trained network.

    The parameters stay the same objects, so an optimizer may be made before or after; when training has ended they hold the
    whole weights again, and the layers are ordinary ones. State dicts hold whole weights under ordinary names at any time. A
    training resumed from a checkpoint goes on with its dictionaries; under DDP those of rank zero are everybody's.

    Args:
        final_sparsity: the share of each hidden layer's weights that is predicted, in [0, 1). At least one weight of a unit
            is trained.
        exclude: patterns of names of weights to train whole, such as ``"encoder.*"``.

    Attributes:
        sparsity: the share of the weights of the predicted layers that is not trained; None before training.
        left_alone: why hidden layers were not predicted, by name.

    Raises:
        SparsityError: on arguments out of range; before training, if no layer can be predicted, or if the module cannot be
            called with the images of the training data.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[PredictWeights(0.95)], max_epochs=3)
    """

    def __init__(self, final_sparsity: float = 0.95, *, exclude: Sequence[str] | None = None) -> None:
        super().__init__()
        self.final_sparsity = check_share("final_sparsity", final_sparsity, one_allowed=False)
        self.exclude = check_patterns("exclude", exclude)
        self.sparsity: float | None = None
        self.left_alone: dict[str, str] = {}
        self._dictionaries: dict[str, tuple[Tensor, Tensor]] = {}  # by layer: coordinates and dictionary
        self._done: ReferenceType[LightningModule] | None = None
        self._hooks: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the dictionaries, unless this module has been trained with them, and let the layers be predicted."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or _predicted(pl_module):
            return
        if self._done is None or self._done() is not pl_module:
            self._begin(trainer, pl_module)
        else:
            for name, found in self._dictionaries.items():
                self._predict(pl_module.get_submodule(name), *found)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        images = _first_inputs(loader_to_come(trainer))
        try:
            with untouched(pl_module), torch.no_grad():
                layers = hidden_layers(pl_module, images)
        except NotImplementedError as error:
            raise SparsityError(
                f"PredictWeights cannot call {type(pl_module).__name__} with images ({error}): let its forward() take them"
            ) from error
        self.left_alone = reasons_to_stay(pl_module, list(layers))
        unwanted = matching("exclude", self.exclude or (), names_of(pl_module))
        layers = {n: layer for n, layer in layers.items() if n not in self.left_alone and f"{n}.weight" not in unwanted}
        if not layers:
            said = "; ".join(f"{name!r}: {why}" for name, why in self.left_alone.items())
            raise SparsityError(
                f"PredictWeights can predict no hidden layer of {type(pl_module).__name__} "
                f"({said or 'it calls no Linear or Conv2d layer before its output layer'}): leave it out"
            )
        self._dictionaries, total, trained = {}, 0, 0
        for name, layer in layers.items():
            with untouched(pl_module), torch.no_grad():
                inputs = inputs_of(pl_module, {name: layer}, images)[name]
            outputs, size = layer.weight.flatten(1).shape
            (covariance,) = inputs.covariance
            coordinates = chosen_coordinates(covariance, max(1, round((1 - self.final_sparsity) * size)))
            self._dictionaries[name] = coordinates, dictionary(covariance, coordinates).to(layer.weight.dtype)
            self._predict(layer, *self._dictionaries[name])
            total, trained = total + outputs * size, trained + outputs * len(coordinates)
        self.sparsity = 1.0 - trained / total
        self._done = ref(pl_module)

    def _predict(self, layer: Any, coordinates: Tensor, of_layer: Tensor) -> None:
        layer.weight.grad = None
        predicted = Predicted(coordinates, of_layer, layer.weight.shape).to(layer.weight.device)
        parametrize.register_parametrization(layer, "weight", predicted, unsafe=True)  # unsafe: V has another shape
        self._hooks += [
            layer.register_state_dict_post_hook(_save_whole),
            layer.register_load_state_dict_pre_hook(_load_whole),
        ]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the layers ordinary ones, of the weights that were predicted last."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for layer in _predicted(pl_module):
            parametrize.remove_parametrizations(layer, "weight")
            layer.weight.grad = None
            bias = layer.bias
            del layer.bias  # and back, so that it comes after the weight as before
            layer.register_parameter("bias", bias)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The same for a fit without a step."""
        self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The dictionaries, and how many weights they stand for."""
        return {
            "final_sparsity": self.final_sparsity,
            "sparsity": self.sparsity,
            "dictionaries": dict(self._dictionaries),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from a checkpoint.

        Raises:
            SparsityError: if they are of another sparsity.
        """
        with restoring("PredictWeights"):
            asked, sparsity = state_dict["final_sparsity"], state_dict["sparsity"]
            found = {name: tuple(pair) for name, pair in state_dict["dictionaries"].items()}
        if asked != self.final_sparsity:
            raise SparsityError(
                f"the checkpoint's PredictWeights had final_sparsity={asked}, and this one {self.final_sparsity}: write "
                f"PredictWeights({asked})"
            )
        self.sparsity, self._dictionaries = sparsity, found

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the dictionaries of a checkpoint, whose weights were loaded before."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        state = checkpoint.get("callbacks", {}).get(self.kind)
        if not state:
            raise SparsityError(
                "the checkpoint is of a training without PredictWeights, whose weights cannot be predicted: load it with "
                "model.load_state_dict() before trainer.fit(), or leave PredictWeights out"
            )
        self.load_state_dict(state)
        for name, found in self._dictionaries.items():
            layer: Any = pl_module.get_submodule(name)
            predicted = _prediction(layer)
            predicted.coordinates.copy_(found[0])
            predicted.dictionary.copy_(found[1])
            with torch.no_grad():
                kept = predicted.right_inverse(checkpoint["state_dict"][f"{name}.weight"])
                layer.parametrizations.weight.original.copy_(kept)

    def __getstate__(self) -> dict[str, Any]:
        """A copy knows no module."""
        return {**vars(self), "_done": None, "_hooks": []}


def _first_inputs(loader: Any) -> Tensor:
    """What the first batches of a training hold first, read without an effect on the loader or any random state."""
    parts: list[Tensor] = []
    with read_apart(loader) as batches:
        for batch in batches:
            inputs = first_tensor(batch)
            if inputs is None:
                raise SparsityError(
                    f"a batch of train_dataloaders is a {type(batch).__name__} without a tensor, and PredictWeights needs "
                    "what the module's forward() takes: let it come first in a batch"
                )
            parts.append(inputs)
            if sum(map(len, parts)) >= IMAGES:
                break
    if not parts:
        raise SparsityError("train_dataloaders hold no batch: give a loader with at least one")
    return torch.cat(parts)[:IMAGES]


class Predicted(nn.Module):
    """A weight computed from its values at a few coordinates.

    Example:
        >>> predicted = Predicted(torch.tensor([1]), torch.tensor([[0.5, 1.0]]), (3, 2))
        >>> predicted(torch.ones(3, 1)).tolist()
        [[0.5, 1.0], [0.5, 1.0], [0.5, 1.0]]
    """

    coordinates: Tensor
    dictionary: Tensor

    def __init__(self, coordinates: Tensor, of_layer: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("coordinates", coordinates.clone(), persistent=False)
        self.register_buffer("dictionary", of_layer.clone(), persistent=False)

    def forward(self, kept: Tensor) -> Tensor:
        """From (outputs, coordinates) to the shape of the weight."""
        return (kept @ self.dictionary).view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight's values at the coordinates."""
        return weight.flatten(1)[:, self.coordinates]


def _prediction(layer: Any) -> Any:
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    first = layer.parametrizations.weight[0]
    return first if isinstance(first, Predicted) else None


def _predicted(module: nn.Module) -> list[Any]:
    return [layer for layer in module.modules() if _prediction(layer) is not None]


_KEPT = "parametrizations.weight.original"


def _save_whole(layer: Any, state: dict[str, Any], prefix: str, metadata: object) -> None:
    """Put the whole weight into a state dict."""
    kept = state.pop(prefix + _KEPT)
    predicted = _prediction(layer)
    weight = predicted(kept.detach())
    weight.flatten(1)[:, predicted.coordinates] = kept.detach()  # to the bit, in whatever precision products are
    state[prefix + "weight"] = weight


def _load_whole(layer: Any, state: dict[str, Any], prefix: str, *rest: object) -> None:
    """Take the coordinates from the whole weight in a state dict."""
    if prefix + "weight" in state:
        state[prefix + _KEPT] = _prediction(layer).right_inverse(state.pop(prefix + "weight"))
