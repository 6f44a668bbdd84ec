"""What an offline W&B run has left on disk, read by W&B's own reader."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path


def quiet_home(patch, home):
    """Keep W&B's own folders out of the user's home, and any key of theirs out of the test."""
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
        patch.setenv(name, str(home))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        patch.delenv(name, raising=False)
    patch.setenv("NETRC", str(Path(home) / "netrc"))
    patch.setenv("WANDB_SILENT", "true")


def inspect(file, *options):
    """Return the records of a run's file, or with "--summary" what it comes to."""
    tool = shutil.which("wandb", path=Path(sys.executable).parent)
    done = subprocess.run([tool, "leet", "inspect", "--json", *options, file], capture_output=True, check=True)
    text = done.stdout.decode()
    return json.loads(text) if options else [json.loads(line) for line in text.splitlines()]


class Run:
    """The one run under a folder."""

    def __init__(self, folder):
        (self.file,) = Path(folder).rglob("*.wandb")
        self.records = inspect(self.file)
        said = inspect(self.file, "--summary")
        self.summary, self.config = said["summary"], said["config"]

    def of(self, kind):
        """Return the records of a kind."""
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def history(self):
        """Return all logged rows."""
        return [row["item"] for row in self.of("history")]

    def rows(self, key):
        """Return the logged rows that hold a number or a file under a key."""
        return [row for row in self.history if key in row or f"{key}._type" in row]

    def media(self, key):
        """Return the files that were logged under a key, as JSON."""
        paths = [row[f"{key}.path"] for row in self.rows(key)]
        return [json.loads((self.file.parent / "files" / path).read_text()) for path in paths]

    def table(self, key):
        """Return the last table of a key as a dict a row."""
        table = self.media(key)[-1]
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
