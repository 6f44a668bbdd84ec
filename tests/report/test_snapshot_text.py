"""What a run says in a terminal."""

from __future__ import annotations

from dataclasses import replace

from lis_lightning.report import snapshot_text as terminal
from tests._helpers.small_results import RESULTS


def test_snapshot_table_marks_the_best():
    lines = terminal.snapshot_table(RESULTS, RESULTS[1]).splitlines()
    best = next(line for line in lines if "20*" in line)
    assert "+0.0060" in best
    assert "[+0.0050, +0.0070]" in best
    assert "30%" in best
    assert sum("*" in line for line in lines) == 1
    assert " - " in next(line for line in lines if "warming-up" in line)  # no ceiling, no share


def test_snapshot_line():
    assert terminal.snapshot_line(RESULTS[1]) == (
        "LIS step 20: AIS +0.0060 [+0.0050, +0.0070], realised 30%, improving (1.2 s to encode, 0.5 s to score)"
    )
    left = replace(RESULTS[1], headroom=0.004)
    assert "+0.0070], headroom +0.0040, realised 30%, " in terminal.snapshot_line(left)
    assert "realised" not in terminal.snapshot_line(RESULTS[0])


def test_summary_says_where_everything_is(tmp_path):
    text = terminal.summary(RESULTS, RESULTS[1], tmp_path / "record.jsonl", hint="Upload it.")
    assert "Best snapshot: step 20. Verdict: plateau, about plateau" in text
    page = f"as a page: lis-report {tmp_path}"
    assert text.endswith(f"Record: {tmp_path / 'record.jsonl'}; {page}\nUpload it.")


def test_summary_counts_what_failed():
    line = terminal.failed_line("text", 0, 3, "OSError: gone")
    assert terminal.summary([], None, None, line) == "text: 0 of 3 snapshots scored, last error OSError: gone"
    assert terminal.summary(RESULTS, RESULTS[1], None, line).endswith(f"plateau, about plateau\n{line}")
