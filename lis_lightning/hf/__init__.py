"""Monitors for Hugging Face: transformers' Trainer, and the evaluator of sentence-transformers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
