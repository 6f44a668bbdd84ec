"""Put the score into a project of Hydra and Lightning laid out as lightning-hydra-template: write one, and run it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lis_lightning.align.world import simulate_world

# What is yours already, in the layout of https://github.com/ashleve/lightning-hydra-template.
YOURS = {
    "configs/train.yaml": """\
defaults:
  - _self_
  - data: clicks
  - model: tower
  - callbacks: default
  - trainer: default
seed: 0
hydra:
  run:
    dir: logs/train/runs/${now:%Y-%m-%d_%H-%M-%S-%f}
""",
    "configs/callbacks/default.yaml": """\
last:
  _target_: pytorch_lightning.callbacks.ModelCheckpoint
  dirpath: ${hydra:runtime.output_dir}/checkpoints
  save_last: true
""",
    "configs/data/clicks.yaml": """\
_target_: src.data.Clicks
batch_size: 64
items: {_target_: src.data.items, path: data/items.npy}
split: {_target_: lis_lightning.PreferenceSplit.from_log, log: data/events.parquet, label: clicked}
""",
    "configs/model/tower.yaml": """\
{_target_: src.model.Tower, features: 12, dim: 16, lr: 0.01}
""",
    "configs/trainer/default.yaml": """\
_target_: pytorch_lightning.Trainer
default_root_dir: ${hydra:runtime.output_dir}
max_steps: 60
accelerator: cpu
logger: {_target_: pytorch_lightning.loggers.CSVLogger, save_dir: logs}
""",
    "src/data.py": '''\
import numpy as np
import polars
import pytorch_lightning as pl
import torch

def items(path):
    """Dicts of one item each, with its id: what the model reads, and what is scored."""
    return [{"item_id": row + 1, "x": torch.from_numpy(x)} for row, x in enumerate(np.load(path))]

class Clicks(pl.LightningDataModule):
    """Items that one user clicked one after the other, of `split.alignment`: no event that is scored is trained on."""

    def __init__(self, split, items, batch_size):
        super().__init__()
        after = polars.col("item_id").shift(-1).over("user_id")
        pairs = split.alignment.filter(label=1).sort("timestamp").select("item_id", after=after).drop_nulls()
        x = {one["item_id"]: one["x"] for one in items}
        self.pairs, self.batch_size = [(x[a], x[b]) for a, b in pairs.rows()], batch_size

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.pairs, self.batch_size, shuffle=True, drop_last=True)
''',
    "src/model.py": """\
import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy, normalize

class Tower(pl.LightningModule):
    def __init__(self, features, dim, lr):
        super().__init__()
        self.net, self.lr = torch.nn.Linear(features, dim), lr

    def encode_items(self, batch):
        return self.net(batch["x"])

    def training_step(self, batch, batch_idx):
        first, second = (normalize(self.net(x)) for x in batch)
        return cross_entropy(first @ second.T / 0.1, torch.arange(len(first)))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.lr)
""",
    "src/train.py": """\
import hydra
import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig

def instantiate_callbacks(config):
    return [instantiate(one) for one in config.values() if isinstance(one, DictConfig) and "_target_" in one]

@hydra.main(version_base="1.3", config_path="../configs", config_name="train.yaml")
def main(config):
    pl.seed_everything(config.seed, workers=True)
    data, model = instantiate(config.data), instantiate(config.model)
    trainer = instantiate(config.trainer, callbacks=instantiate_callbacks(config.callbacks))
    trainer.fit(model, data)

if __name__ == "__main__":
    main()
""",
}
# What you add: a file that fills in ours, and the words by which it is found.
ADDED = """\
defaults: [lis, _self_]
lis_monitor:
  split: ${data.split}
  items: ${data.items}
  every_n_steps: 20
"""


def searchpath() -> str:
    """Return where Hydra finds our options: in the installed package, or beside the recipes of a checkout."""
    installed = find_spec("lis_lightning.conf") is not None
    return "pkg://lis_lightning.conf" if installed else f"file://{Path(__file__).resolve().parents[2] / 'conf'}"


def write(folder: Path) -> None:
    """Write a project with a small generated log, and add the score to it."""
    train = YOURS["configs/train.yaml"].replace("callbacks: default", "callbacks: [default, lis_mine]")
    train = train.replace("hydra:\n", f"hydra:\n  searchpath: ['{searchpath()}']\n")
    for name, text in {**YOURS, "configs/train.yaml": train, "configs/callbacks/lis_mine.yaml": ADDED}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "data").mkdir(exist_ok=True)
    log, truth = simulate_world(num_users=150, num_items=80, num_events=8000)
    log.write_parquet(folder / "data" / "events.parquet")
    noise = np.random.default_rng(0).standard_normal(truth["content_latents"].shape)
    np.save(folder / "data" / "items.npy", np.hstack([truth["content_latents"], 2 * noise]).astype(np.float32))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("project"), help="folder of the project")
    parser.add_argument("overrides", nargs="*", help="for its src/train.py, as in trainer.max_steps=200")
    args = parser.parse_args()
    write(args.out)
    subprocess.run([sys.executable, "-m", "src.train", *args.overrides], cwd=args.out, check=True)  # noqa: S603  # ours
