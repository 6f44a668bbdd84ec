"""Item encoders: heads over precomputed features, and pretrained text, image and multimodal models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
