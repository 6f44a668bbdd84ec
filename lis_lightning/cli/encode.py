"""The command ``lis-encode``: the vectors of all items from the checkpoint of a run.

Modules that load torch are imported inside the functions that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import uuid
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lis_lightning.cli.command import run_command
from lis_lightning.cli.extras import require_extra
from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.results.format import format_path

if TYPE_CHECKING:
    from lis_lightning.align.data.alignment_data import AlignmentData
    from lis_lightning.align.data.item_table import ItemTable
    from lis_lightning.align.models.item_encoder import ItemEncoder

# Options that the printed command leaves out if they have these values.
_DEFAULTS = {"item_id": "item_id", "text": "text", "on_bad_image": "raise"}
_TABLE_OPTIONS = ("item_id", "text", "image", "image_folder", "features", "on_bad_image")

_DESCRIPTION = """\
Encodes a table of items with the encoder that lis-align trained, or with a pretrained model as it is, and writes one
vector an item. The items may be others than those in training.

  lis-encode outputs/infonce/2026-11-24_10-00-00/checkpoints/best-step=200.ckpt items.parquet -o vectors.parquet
  lis-encode best.ckpt items.parquet -o vectors.parquet --image photo --image-folder images
  lis-encode best.ckpt items.parquet -o vectors.parquet --model /models/qwen --device cuda --batch-size 64
  lis-encode models/clip items.parquet -o clip.parquet --image photo      (a model before any training, or org/name)

A run of lis-align ends by printing this command for its best checkpoint. The output has the columns item_id and
embedding. Score it with:  lis-audit data=log data.log=events.parquet "embeddings={mine: vectors.parquet}"
Several files in one pass, such as those of models to choose from:  "embeddings={a: a.parquet, b: b.parquet}"

A checkpoint holds the trained weights only, for instance adapters and head. The base model is loaded from where it was
in training (a folder, or the Hugging Face hub at the same commit), or from --model.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``lis-encode``.

    Args:
        arguments: The command line without the program; None takes ``sys.argv``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    run_command("lis-encode", partial(_encode, words))


def encode_command(section: Mapping[str, Any], data: AlignmentData, checkpoint: Path, run_dir: Path) -> str:
    """Return the command that encodes the items of a run with its checkpoint.

    Args:
        section: Options of the run's data. If they name no table of items, one is written into the folder of the run.
        data: The data.
        checkpoint: The checkpoint.
        run_dir: Folder of the run.
    """
    items = cast("ItemTable", data.items)
    if isinstance(section.get("items"), str):
        table, options = section["items"], {name: section.get(name) for name in _TABLE_OPTIONS}
        options["text"] = options["text"] or ""  # without the option, the column "text" would be read
    else:
        table = str(run_dir / "items-to-encode.parquet")  # beside items.parquet, the titles that the report shows
        options = {**_write_items(items, Path(table)), "on_bad_image": section.get("on_bad_image")}
        if str(section.get("_target_")).endswith(".load_movielens"):
            options["features"] = _movielens_features(section)
    words = ["lis-encode", format_path(checkpoint), format_path(Path(table))]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        if values == [_DEFAULTS.get(name)]:
            continue
        for entry in values:
            words += [] if entry is None else [f"--{name.replace('_', '-')}", str(entry)]
    return shlex.join([*words, "-o", format_path(run_dir / "vectors.parquet")])


def _write_items(items: ItemTable, path: Path) -> dict[str, Any]:
    """Write a table of the texts and images of items; return the options that say how it is read."""
    import polars as pl

    from lis_lightning.align.data.item_table import image_files

    table = pl.DataFrame({"item_id": items.ids, "text": items.texts})
    images = [[file.resolve() for file in image_files(image)] for image in items.images]
    parents = [str(file.parent) for files in images for file in files]
    if not parents:
        table.write_parquet(path)
        return {}
    folder = os.path.commonpath(parents)
    names = [[os.path.relpath(file, folder) for file in files] for files in images]
    table.with_columns(image=pl.Series(names, dtype=pl.List(pl.String))).write_parquet(path)
    return {"image": "image", "image_folder": folder}


def _movielens_features(section: Mapping[str, Any]) -> list[str]:
    """Return the files of the features of MovieLens, whose rows are in the order of the items."""
    from lis_lightning.align.data.movielens import movielens_folder

    folder = movielens_folder(section.get("folder"))
    files = [folder / f"{name}.npy" for name in section.get("features") or []]
    return [str(file) for file in files if file.is_file()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lis-encode", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint", help=".ckpt file of lis-align, folder of save_pretrained (of an encoder or a model), or org/model"
    )
    parser.add_argument("items", help="table with one row per item: parquet, CSV, JSON lines, Arrow")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="parquet file to write")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    table = parser.add_argument_group("columns of the table")
    table.add_argument("--item-id", default=_DEFAULTS["item_id"], metavar="COLUMN", help="ids (default: item_id)")
    table.add_argument(
        "--text",
        action="append",
        metavar="COLUMN",
        help="texts, if the encoder reads them (default: text; '' for none)",
    )
    table.add_argument("--image", action="append", metavar="COLUMN", help="paths of images within the image folder")
    table.add_argument("--image-folder", metavar="FOLDER", help="of the images (default: that of the table)")
    table.add_argument(
        "--features", action="append", metavar="NAME", help="column or .npy file of features; repeat for several"
    )
    table.add_argument(
        "--on-bad-image",
        choices=("raise", "blank"),
        default=_DEFAULTS["on_bad_image"],
        help="blank: go on without images that cannot be used",
    )
    model = parser.add_argument_group("computation")
    model.add_argument("--model", metavar="NAME", help="folder or hub id of the base model, if it has moved")
    model.add_argument("--trust-remote-code", action="store_true", help="run code of the model's repository")
    model.add_argument("--batch-size", type=int, default=32, metavar="N", help="items at a time (default: 32)")
    model.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if there is one)")
    return parser


def _encode(words: Sequence[str]) -> None:
    options = _parser().parse_args(words)
    require_extra("align", "lis-encode")
    _check_output(options.output, options.force)
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size must be 1 or more, but got {options.batch_size}.")
    from lis_lightning.data.tables import InputTable, require_columns

    # Before the model is loaded, which may take minutes.
    require_columns(InputTable(options.items, "item table").columns, [options.item_id], "item table")
    changes: dict[str, Any] = {"trust_remote_code": True} if options.trust_remote_code else {}
    if options.model is not None:
        changes["model"] = options.model
    encoder = _encoder(options.checkpoint, changes)
    _check_images(options, encoder)
    items = _items(options, reads_texts=getattr(encoder, "reads_texts", False))
    vectors = encoder.encode(items, batch_size=options.batch_size, device=_device(options.device))
    _write(options.output, items, vectors)
    print(  # noqa: T201
        f"{len(items):,} items, {vectors.shape[1]} dimensions: {options.output}\n"
        f'score them: lis-audit data=log data.log=EVENTS "embeddings={{mine: {options.output}}}"'
    )


def _encoder(checkpoint: str, changes: dict[str, Any]) -> ItemEncoder:
    """Return the encoder of a checkpoint, or that of a pretrained model as it is."""
    from lis_lightning.align.models.item_encoder import ItemEncoder
    from lis_lightning.align.models.untrained import is_pretrained_model, untrained_encoder

    if not is_pretrained_model(checkpoint):
        return ItemEncoder.from_checkpoint(checkpoint, **changes)
    if "model" in changes:
        raise ConfigError(
            f"--model names the base model of a checkpoint; {checkpoint} is a model itself. Leave it out."
        )
    return untrained_encoder(checkpoint, **changes)


def _check_output(path: Path, force: bool) -> None:
    if path.suffix != ".parquet":
        raise ConfigError(f"--output must end in .parquet, but got {path}.")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; give another --output, or --force to overwrite it.")


def _check_images(options: argparse.Namespace, encoder: ItemEncoder) -> None:
    """Raise, or warn if there are texts, for an encoder that reads images if the command names none."""
    reads_texts, reads_images = getattr(encoder, "reads_texts", False), getattr(encoder, "reads_images", False)
    if not reads_images or options.image or options.image_folder:
        return
    advice = "name their column with --image, or their folder with --image-folder"
    if not reads_texts:
        raise ConfigError(f"{type(encoder).__name__} reads images: {advice}.")
    warnings.warn(f"The items are encoded without images; {advice}.", LisWarning, stacklevel=2)


def _items(options: argparse.Namespace, *, reads_texts: bool) -> ItemTable:
    """Read the items as `lis-align` does."""
    from lis_lightning.align.data.interaction_log import load_items

    return load_items(
        options.items, item_id=options.item_id, text=_columns(options.text or ["text"]) if reads_texts else None,
        image=_columns(options.image or []), image_folder=options.image_folder, features=options.features,
        on_bad_image=options.on_bad_image,
    )  # fmt: skip


def _columns(names: Sequence[str]) -> Any:
    """Return columns as `load_log` takes them: one by its name, none as None."""
    chosen = [name for name in names if name]
    return chosen if len(chosen) > 1 else next(iter(chosen), None)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _write(path: Path, items: ItemTable, vectors: Any) -> None:
    """Write to another name first, so that an interrupted command leaves no partial file."""
    import polars as pl

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}.parquet")
    try:
        pl.DataFrame({"item_id": items.ids, "embedding": vectors}).write_parquet(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
