"""Scoring of item representations on a split: base ranker, probe, cross-fit, ceiling, metric and audit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
