"""Preference data: built-in kinds, tables of pairs, embeddings and callables; each kind has its own file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
