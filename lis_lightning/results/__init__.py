"""What scores say, over a run and across runs: results, the stop rule, the record, the leaderboard."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
