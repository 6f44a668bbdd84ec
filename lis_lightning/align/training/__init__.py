"""A fine-tuning run: the LightningModule, its callbacks, and the function that runs it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
