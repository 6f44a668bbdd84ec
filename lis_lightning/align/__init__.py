"""What a fine-tuning run needs: data, a generated world, encoders, objectives, training."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
