from __future__ import annotations

import pytest

from lis_lightning.align.data.folders import build_once, is_intact


def _builder(text="whole"):
    def build(folder):
        build.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)

    build.calls = 0
    return build


def test_builds_once(tmp_path):
    build = _builder()
    folder = build_once(tmp_path / "x" / "made", build)
    assert build_once(folder, build) == folder
    assert build.calls == 1
    assert (folder / "sub" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("damage", ["changed", "removed", "added", "no manifest", "broken manifest"])
def test_damage_is_found_and_repaired(tmp_path, damage):
    build = _builder()
    folder = build_once(tmp_path / "made", build)
    if damage == "changed":
        (folder / "sub" / "a.txt").write_text("wHole")
    elif damage == "removed":
        (folder / "sub" / "a.txt").unlink()
    elif damage == "added":
        (folder / "b.txt").write_text("")
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text("{")
    assert not is_intact(folder)
    build_once(folder, build)
    assert build.calls == 2
    assert is_intact(folder)
    assert [path.name for path in folder.iterdir() if path.name == "b.txt"] == []


def test_interrupted_build_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "made", build)
    assert list(tmp_path.iterdir()) == []


def test_faster_process_wins(tmp_path):
    def build(folder):
        (folder / "a.txt").write_text("slow")
        build_once(tmp_path / "made", lambda other: (other / "a.txt").write_text("fast"))

    assert (build_once(tmp_path / "made", build) / "a.txt").read_text() == "fast"


def test_failing_disk_is_not_hidden(tmp_path):
    def build(folder):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once(tmp_path / "made", build)
