import csv
import itertools
import json

import numpy as np
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.functional.intervals import Estimate
from lis_lightning.functional.multiple_comparisons import Comparison
from lis_lightning.report.audit_page import write_audit
from lis_lightning.report.audit_report import ranking_in_words, render, write_numbers
from lis_lightning.scoring.auditing import audit


@pytest.fixture(scope="module")
def found(log, split, latents):
    """Two tasks, two periods, two representations."""
    table = log.with_columns(other=1 - log["label"])
    rolling = PreferenceSplit.from_log(table, label=["label", "other"], windows="rolling", num_periods=2)
    noise = np.random.default_rng(0).standard_normal((rolling.num_items, 8))
    return audit(rolling, embeddings={"<b>noise": noise, "latents": latents[split.item_rows(rolling.item_ids)]})


def test_the_text_shows_each_task_then_time_and_concludes(found):
    text = render(found)
    gain = found.parts[0].results["latents"]
    for expected in (
        "Estimates of what preference data carries, over a base AUC", "(label, test window from",
        "(other, test window from",
        f"{gain.ais:+.4f} [{gain.ais_low:+.4f}, {gain.ais_high:+.4f}]", "unseen items", "representations: latents >",
        "LIS of pairs (an estimate of what this preference data carries)", "Change over time (label)",
        "newest less oldest",
    ):  # fmt: skip
        assert expected in text
    assert "nan" not in text
    assert text.count("Gains of representations") == 2


def test_csv_and_json_hold_the_same_numbers(found, tmp_path):
    table, document = write_numbers(found, tmp_path / "new")
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    content = json.loads(document.read_text(), parse_constant=pytest.fail)
    assert len(rows) == len(content["numbers"]) == len(found.rows())
    for row, number in zip(rows, content["numbers"], strict=True):
        assert row["name"] == number["name"]
        assert (float(row["value"]) if row["value"] else None) == number["value"]
    assert [(part["task"], part["period"]) for part in content["parts"]] == [("label", 0), ("other", 0), ("label", 1)]
    assert content["parts"][0]["findings"][0]["name"] == "pairs"
    assert content["parts"][0]["split"]["users"] == 150


def test_the_page_is_whole_and_needs_no_network(found, tmp_path):
    page = write_audit(found, tmp_path / "new/audit.html", title="an <audit>")
    text = page.read_text()
    assert page.stat().st_size < 5_500_000, "plotly is in it once"
    assert '<script src="http' not in text
    for expected in (
        "an &lt;audit&gt;",
        "LIS without the future",
        "headroom: what the data would still add",
        "random vectors",
        "Change over time",
    ):
        assert expected in text
    assert "<td>&lt;b&gt;noise</td>" in text
    assert "<td><b>noise" not in text


def comparisons(order, significant):
    no_difference = Estimate(value=0.0, se=0.0, low=0.0, high=0.0)
    return [
        Comparison(
            better=better, worse=worse, difference=no_difference, p=0.01 if better + worse in significant else 0.5
        )
        for better, worse in itertools.combinations(order, 2)
    ]


@pytest.mark.parametrize(
    ("significant", "expected"),
    [
        ({"ab", "ac", "bc"}, "a > b > c"),
        (set(), "a ~ b ~ c: these cannot be told apart"),
        ({"ac", "bc"}, "a ~ b > c; ~: cannot be told apart"),
        ({"ac"}, "a ~ b ~ c; a is above c; ~: cannot be told apart"),
    ],
)
def test_the_ranking_in_words(significant, expected):
    assert ranking_in_words(comparisons("abc", significant)) == expected


def test_no_comparisons_have_no_ranking():
    assert ranking_in_words(()) == ""
