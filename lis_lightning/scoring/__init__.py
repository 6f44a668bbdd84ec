"""A split and item representations become a result: base ranker, probe, cross-fit, ceiling, metric, audit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
