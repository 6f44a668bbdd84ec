"""The command ``lis-cut``: cut an interaction log of any size into a preference split, and save it.

Modules that load torch are imported inside the functions that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lis_lightning.cli.config_check import check_config
from lis_lightning.cli.config_values import lists_as_tuples
from lis_lightning.cli.hydra_command import run_hydra_command
from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError


def main() -> None:
    """Run ``lis-cut``."""
    run_hydra_command("lis-cut", _cut)


@hydra.main(version_base="1.3", config_path=str(resource_dir("conf")), config_name="cut")
def _cut(config: DictConfig) -> None:
    """Cut one log."""
    cut_config(config)


def cut_config(config: DictConfig) -> Path:
    """Cut the log that a configuration names, print the split, and save it.

    Args:
        config: As composed from ``conf/cut.yaml``.

    Returns:
        The folder of the split.

    Raises:
        LisError: If the log cannot be read or cut, or the folder holds other files.
    """
    from lis_lightning.align.training.console import rank_zero_print
    from lis_lightning.align.training.run import prepare_split
    from lis_lightning.data.split_folder import checked_target

    check_config(config, "cut")
    if OmegaConf.is_missing(config, "out") or not config.out:
        raise ConfigError("`out` is missing: name the folder of the split, as in out=splits/today.")
    began = time.perf_counter()
    folder = Path(config.out).expanduser()
    checked_target(folder)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    split = prepare_split(instantiate(config.data), lists_as_tuples(plain["lis"]["split"])).split
    split.save(folder)
    rank_zero_print(
        f"\nsaved: {folder} (hash {split.hash})\ntook {time.perf_counter() - began:.0f} s\n"
        f"next: lis-audit data=log data.log={folder}, or lis-align data=log data.log={folder} data.items=..."
    )
    return folder
