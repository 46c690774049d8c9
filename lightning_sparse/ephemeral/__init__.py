"""Sparsity that lasts for one example or one step: activations, and what else a pass leaves out.

The stub beside this file lists the public names; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
