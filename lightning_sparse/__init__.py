"""Sparse training for PyTorch Lightning, and what sparsity does to a network.

Public names are listed in the stub beside this file. Each is imported when it is first used, so that this import is fast.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
