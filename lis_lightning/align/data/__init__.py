"""Items, events and pairs that a fine-tuning run learns from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
