"""Which families of models work: a tiny one of each, of the real classes, through everything that a run does.

    python recipes/models/models.py              # prints the table
    python recipes/models/models.py BERT Swin    # of some families
    python recipes/models/models.py --write      # puts the table into README.md

It needs a checkout: the models are those of the tests.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from lis_lightning.align.data import AlignmentData
from lis_lightning.align.models import DualEncoder, PretrainedEncoder, TextEncoder, VisionEncoder, VisionLanguageEncoder
from lis_lightning.align.world import load_world

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
import references  # noqa: E402
from checks import CHECKS  # noqa: E402
from family import Family  # noqa: E402

from tests.align.models import multimodal_zoo, zoo  # noqa: E402

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
WORLD = {"num_users": 120, "num_items": 60, "num_events": 4000}


Make = Callable[..., Path] | None
"""Writes a model into a folder, given a tokenizer if it reads texts; None for the model that `model=tiny` makes."""


def sentence_transformers(folder: Path, tokenizer: Any) -> Path:
    """A folder of sentence-transformers: a BERT, its pooling and a dense layer."""
    return zoo.sentence_bert(folder, TextEncoder.make_tiny(folder.parent, ["a text"]), pooling="mean", dense=True)


FAMILIES: dict[str, tuple[type[PretrainedEncoder], references.Reference, Make]] = {
    "BERT": (TextEncoder, references.texts, None),
    "RoBERTa": (TextEncoder, references.texts, zoo.roberta),
    "MPNet": (TextEncoder, references.texts, zoo.mpnet),
    "ModernBERT": (TextEncoder, references.texts, zoo.modernbert),
    "sentence-transformers": (TextEncoder, references.sentences, sentence_transformers),
    "T5": (TextEncoder, references.texts, zoo.t5),
    "Qwen2": (TextEncoder, references.texts, zoo.qwen),
    "Qwen3": (TextEncoder, references.texts, zoo.qwen3),
    "ViT": (VisionEncoder, references.patches(1), None),
    "BEiT": (VisionEncoder, references.patches(1), zoo.beit),
    "DINOv2, registers": (VisionEncoder, references.patches(5), zoo.dinov2),
    "DINOv3": (VisionEncoder, references.patches(5), zoo.dinov3),
    "SigLIP, vision": (VisionEncoder, references.patches(0), zoo.siglip_vision),
    "SigLIP2, vision": (VisionEncoder, references.patches(0), zoo.siglip2_vision),
    "Swin": (VisionEncoder, references.patches(0), zoo.swin),
    "ConvNeXt": (VisionEncoder, references.patches(0), zoo.convnext),
    "ResNet": (VisionEncoder, references.patches(0), zoo.resnet),
    "CLIP": (DualEncoder, references.two_towers, None),
    "SigLIP": (DualEncoder, references.two_towers, zoo.siglip),
    "ALIGN": (DualEncoder, references.two_towers, zoo.align),
    "LLaVA": (VisionLanguageEncoder, references.multimodal, None),
    "LLaVA-Interleave": (VisionLanguageEncoder, references.multimodal, zoo.llava_interleave),
    "Idefics3": (VisionLanguageEncoder, references.multimodal, zoo.idefics),
    "GIT": (VisionLanguageEncoder, references.multimodal, zoo.git),
}
FAMILIES |= {
    name: (VisionLanguageEncoder, references.multimodal, make) for name, make in multimodal_zoo.FAMILIES.items()
}


def build(name: str, data: AlignmentData, scratch: Path) -> Family:
    """Write the model of a family into a folder."""
    kind, reference, make = FAMILIES[name]
    folder = scratch / name
    folder.mkdir()
    if make is None:
        model = kind.make_tiny(folder, data.items.texts)
    elif kind.reads_texts:
        tiny = VisionLanguageEncoder.make_tiny(scratch, data.items.texts)
        model = make(folder / "model", copy.deepcopy(transformers.AutoProcessor.from_pretrained(tiny).tokenizer))
    else:
        model = make(folder / "model")
    return Family(kind, model, data, folder, scratch, reference)


def check(name: str, data: AlignmentData, scratch: Path, notes: list[str]) -> list[str]:
    """Return the row of a family; what went wrong is added to the notes."""
    family, cells = None, []
    for column, checked in CHECKS.items():
        try:
            family = family or build(name, data, scratch)
            cells.append(checked(family))
        except Exception as error:
            message = " ".join(str(error).split()).replace(str(scratch), "")
            notes.append(f"{name}, {column}: {type(error).__name__}: {message[:300]}")
            cells.append(f"**no** ({len(notes)})")
        if column == "loads" and cells[0].startswith("**"):
            return [name, *cells]
    return [name, *cells]


def table(names: list[str]) -> str:
    """Check families, and return the table as Markdown."""
    lines = [f"| {' | '.join(('family', *CHECKS))} |", "| --- " * (1 + len(CHECKS)) + "|"]
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        data = load_world(folder, **WORLD)
        for name in names:
            began = time.perf_counter()
            row = check(name, data, Path(folder), notes)
            lines.append(f"| {' | '.join(row + [''] * (len(CHECKS) + 1 - len(row)))} |")
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help=f"of {', '.join(FAMILIES)}; default: all")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    if unknown := set(options.families) - FAMILIES.keys():
        parser.error(f"unknown families {sorted(unknown)}; there are {', '.join(FAMILIES)}")
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # models this small are slower on several
    made = table(options.families or list(FAMILIES))
    print(made)
    if options.write:
        before, _, after = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after.partition(END)[2]}")


if __name__ == "__main__":
    main()
