"""Say a network in fewer bits: down-sizing, factorisation, sparsification, quantisation, sharing and coding.

The stub beside this file lists the public names; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
