"""Make a sparse network small and fast in truth: fewer units, sparse kernels, fewer bytes, other runtimes.

The stub beside this file lists the public names; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
