"""Preference data: built-in kinds, tables of pairs, embeddings, callables; one file a kind."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
