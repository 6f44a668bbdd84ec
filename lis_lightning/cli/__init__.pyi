from .resources import resource_dir as resource_dir
from .sweep import SweepReport as SweepReport
