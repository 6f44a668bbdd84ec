from .best_checkpoint import BestSnapshot as BestSnapshot
from .module import AlignmentModule as AlignmentModule
from .run import Monitoring as Monitoring, Run as Run, align as align
