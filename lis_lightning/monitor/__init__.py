"""Inside a training: when to take a snapshot, encode undisturbed, score, judge, and stop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
