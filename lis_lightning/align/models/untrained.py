"""The encoder of a pretrained model as it is, before any training: its own vectors, without a head."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lis_lightning.align.models.checkpoints import DESCRIPTION
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.models.loading import encoder_kind
from lis_lightning.align.models.pretrained import PretrainedEncoder


def is_pretrained_model(path: str | Path) -> bool:
    """Return whether a path is the folder of a model of transformers, or has the form of a name on the hub.

    Args:
        path: A checkpoint of `lis-align`, a folder, or a name on the hub.

    Example:
        >>> is_pretrained_model("org/model"), is_pretrained_model("runs/best.ckpt")
        (True, False)
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return not (folder / DESCRIPTION).is_file()
    return not folder.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(?<!\.ckpt)", str(path)) is not None


def untrained_encoder(model: str | Path, **options: Any) -> PretrainedEncoder:
    """Return the encoder of a pretrained model, of the kind that reads what the model takes, without a head.

    Args:
        model: A folder written by `save_pretrained`, or a name on the hub.
        options: Further arguments of the encoder, such as ``trust_remote_code=True``.

    Raises:
        ConfigError: If there is no such model, or no kind of encoder can read it.

    Example:
        >>> import tempfile
        >>> from lis_lightning.align.models import VisionEncoder
        >>> folder = VisionEncoder.make_tiny(Path(tempfile.mkdtemp()), texts=())
        >>> encoder = untrained_encoder(folder)
        >>> type(encoder).__name__, encoder.output_dim
        ('VisionEncoder', 64)
    """
    kind = encoder_kind(model, trust_remote_code=options.get("trust_remote_code", False))
    with quiet_transformers():
        encoder = kind(model=str(model), output_dim=None, **options)
    return encoder.eval()
