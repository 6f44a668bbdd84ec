"""The GPU script runs small on a CPU, so that it works where a GPU is at hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from tests._helpers import module_environment, run_module


@pytest.mark.slow  # a process that imports transformers and trains a dozen times
@pytest.mark.parametrize("section", ["score", "identity", "vlm"])
def test_the_script_runs_small_on_a_cpu(section, tmp_path):
    done = run_module("gpu", "--device", "cpu", "--tiny", "--only", section, "--json", tmp_path / "rows.json")
    assert "failed sections: none" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["section"] for row in rows} == {section}
    assert all(row["met"] is not False for row in rows)


@pytest.mark.slow
def test_a_section_that_fails_is_reported_and_the_next_runs(tmp_path):
    code = (
        "import runpy, sys, tests.gpu.identity as identity, tests.gpu.score as score\n"
        "def fails(device, *, tiny): raise RuntimeError('no device')\n"
        "score.rows = fails\n"
        f"sys.argv = ['gpu', '--device', 'cpu', '--tiny', '--json', {str(tmp_path / 'rows.json')!r},"
        " '--only', 'score', '--only', 'identity']\n"
        "runpy.run_module('tests.gpu', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=module_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "RuntimeError: no device" in done.stdout
    assert "failed sections: score" in done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert any(row["section"] == "identity" and not math.isnan(row["value"]) for row in rows)
