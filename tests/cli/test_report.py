import threading
import time

import pytest

from lis_lightning.cli.report import main
from lis_lightning.report.terminal import render_text, sparkline
from lis_lightning.results.record import Record


def test_a_run_gets_a_page_beside_its_record_and_a_summary(one_run, tmp_path, capsys):
    main([str(one_run), "--out", str(tmp_path / "new/page.html"), "--title", "Mine"])
    said = capsys.readouterr().out
    for expected in (
        "my-run",
        "Still improving?",
        "What would the data still add?",
        "Stop or go on?",
        "bottleneck?",
        "page: ",
    ):
        assert expected in said
    assert "<title>Mine</title>" in (tmp_path / "new/page.html").read_text()


def test_the_page_lies_in_the_first_folder_unless_told_otherwise(write_run, tmp_path):
    write_run(tmp_path / "run", num=2)
    main([str(tmp_path / "run" / "record.jsonl")])
    assert (tmp_path / "run" / "report.html").is_file()


def test_text_alone_writes_no_page(write_run, tmp_path, capsys):
    write_run(tmp_path / "run", num=2)
    main([str(tmp_path), "--text"])
    assert "page:" not in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.html"))


def test_a_sweep_in_a_terminal_ends_with_the_leaderboard(runs):
    text = render_text(runs)
    assert "good and weak cannot be told apart; the others are behind." in text  # two seeds each say little
    assert "▁" in text
    assert max(map(len, text.splitlines())) <= 142


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "ConfigError: nowhere does not exist"),
        (["{run}", "--watch", "-1"], "--watch takes seconds above 0, got -1"),
        (["{run}", "--watch", "nan"], "--watch takes seconds above 0, got nan"),
        (["{run}", "--watch", "inf"], "--watch takes seconds above 0, got inf"),
        (
            ["{run}", "--out", "{run}"],
            "ConfigError: --out names the page, but {run} is a folder; give {run}/report.html",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(one_run, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main([argument.format(run=one_run) for argument in arguments])
    assert ended.value.code == 1
    assert said.format(run=one_run) in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for expected in ("lis-report DIR --text", "--watch", "workspace --entity", "record.jsonl"):
        assert expected in said


def test_watching_follows_a_run_to_its_end(write_run, scored, tmp_path, capsys):
    record = Record.open(write_run(tmp_path / "run", num=2, ended=False))
    seen = []

    def train():
        page = tmp_path / "run" / "report.html"
        while not page.is_file():
            time.sleep(0.02)
        seen.append(page.read_text())
        record.append(scored(0)[2])
        record.status("end", best_step=50, verdict="improving", cut_short_by=None)

    thread = threading.Thread(target=train)
    thread.start()
    main([str(tmp_path / "run"), "--watch", "0.05"])
    thread.join()
    last = (tmp_path / "run" / "report.html").read_text()
    assert 'data-reload="0.05"' in seen[0]
    assert "data-reload=" not in last.partition("<script>")[0]
    assert "step 50" in last


def test_a_sparkline_leaves_a_gap_where_there_is_no_value():
    assert sparkline([0.0, float("nan"), 1.0], 0, 1) == "▁ █"
    assert sparkline([0.0, 0.0], 0, 0) == "▁▁"
