from .trackio_logger import TrackioLogger as TrackioLogger
from .wandb_offline import OFFLINE_READERS as OFFLINE_READERS, read_offline as read_offline
from .workspace import build_workspace as build_workspace
