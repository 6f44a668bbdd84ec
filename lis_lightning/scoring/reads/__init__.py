"""Readings of a representation: what a ranker is given in place of the vectors; each kind has its own file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
