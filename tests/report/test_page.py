import json
import math
import re
from dataclasses import replace

import pytest

from lis_lightning.errors import ConfigError
from lis_lightning.report import find_runs, recorded_run, write_report
from lis_lightning.report.figures import colours, differences
from lis_lightning.report.page import render_report
from lis_lightning.report.terminal import render_text
from lis_lightning.results.movers import Catalogue
from lis_lightning.results.selection import simultaneous_band


@pytest.fixture(scope="module")
def page(one_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return write_report(find_runs([one_run]), path, title="a <b>run", references={"known truth": 0.0123})


def figure(text, name):
    found = re.search(rf'<script type="application/json" id="data-{name}">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def test_the_page_is_one_small_file_that_needs_no_network(page):
    text = page.read_text()
    assert page.stat().st_size < 5_000_000
    own = re.sub(r'<script type="text/plain" id="plotly-gz">.*?</script>', "", text, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', own)
    assert "@import" not in own


def test_what_is_text_stays_text(page):
    text = page.read_text()
    assert "a &lt;b&gt;run" in text
    assert "<b>run" not in text
    assert "&lt;/script&gt;&lt;script&gt;window.hacked" in text
    assert "<script>window.hacked" not in text


def test_the_curve_holds_band_ceiling_best_and_references(page, one_run):
    (run,) = find_runs([one_run])
    drawn = figure(page.read_text(), "curve")
    traces = {trace.get("name"): trace for trace in drawn["data"]}
    curve = traces["my-run"]
    assert curve["x"] == [one.step for one in run.results]
    assert curve["y"] == [one.ais for one in run.results]
    assert curve["marker"]["symbol"][run.judgement.best] == "star"
    assert traces["LIS of pairs (estimate)"]["y"][0] == run.best.ceilings["pairs"].value
    assert traces["known truth"]["y"] == [0.0123] * 2
    bands = [trace for trace in drawn["data"] if trace.get("fill") == "toself"]
    assert len(bands) == 3
    at_once = next(trace for trace in bands if trace["meta"].get("layer") == "simultaneous")
    band = simultaneous_band(run.results)
    assert at_once["y"][: len(band)] == [estimate.high for estimate in band]
    assert band[-1].high > run.results[-1].ais_high
    assert drawn["layout"]["xaxis"]["title"]["text"] == "optimizer step"
    assert "higher is better" in drawn["layout"]["yaxis"]["title"]["text"]


def test_every_axis_names_its_unit_and_each_picture_has_a_text(page):
    text = page.read_text()
    for name in re.findall(r'data-figure="([^"]+)"', text):
        layout = figure(text, name)["layout"]
        assert layout["xaxis"]["title"]["text"], name
    assert text.count('role="img" aria-label="') == len(re.findall(r'data-figure="', text))


def test_headroom_comes_first_and_lis_is_called_an_estimate(page, one_run):
    (run,) = find_runs([one_run])
    text, best = page.read_text(), run.best
    assert text.index("What would the data still add?") < text.index("Still improving?")
    assert text.index('id="headroom"') < text.index('id="curve"')
    headroom = f"{best.headroom:+.4f} [{best.headroom_low:+.4f}, {best.headroom_high:+.4f}]"
    assert f'aria-label="headroom {headroom}; AIS {best.ais:+.4f}' in text
    assert "LIS of pairs (an estimate of what this preference data carries): +" in text


def test_the_best_is_shown_corrected_beside_the_raw_value(page, one_run):
    (run,) = find_runs([one_run])
    corrected = run.corrected
    assert corrected.value != run.best.ais
    words = f"{corrected.value:+.4f} [{corrected.low:+.4f}, {corrected.high:+.4f}] corrected for being the best of"
    assert f"AIS {run.best.ais:+.4f}" in page.read_text()
    assert words in page.read_text()
    assert f"{corrected.value:+.4f}" in render_text([run]).splitlines()[3]


def test_movers_come_with_thumbnails_where_the_picture_can_be_read(page):
    text = page.read_text()
    assert "Items that moved" in text
    assert text.count("data:image/jpeg;base64") >= 5
    assert "Half of the gains come from" in text


def test_a_sweep_shows_leaderboard_and_paired_differences(runs):
    text = render_report(runs, "sweep", {})
    assert "good and weak cannot be told apart; the others are behind." in text
    board = text[text.index('<section id="leaderboard">') :]
    assert board.index("1 good") < board.index("weak") < board.index("control")
    gaps = figure(text, "differences")["data"]
    assert sum(len(trace["x"]) for trace in gaps) == 5
    leader = max(runs, key=lambda run: run.best.ais)
    behind = differences(runs)
    assert leader.name not in behind
    for run in runs:
        if run is not leader:
            assert behind[run.name] == run.best.compare(leader.best)


def test_seeds_of_a_recipe_share_a_colour_and_recipes_differ(runs):
    of = dict(zip([run.name for run in runs], colours(runs), strict=True))
    assert of["good seed 1"] == of["good seed 2"] != of["weak seed 1"] != of["control seed 1"]


def test_a_page_of_several_runs_has_the_given_title(runs):
    assert "<title>sweep</title>" in render_report(runs, "sweep", {})


def test_many_runs_start_with_the_best_four_shown(runs):
    text = render_report(runs, "sweep", {})
    boxes = re.findall(r'<input type="checkbox" data-run="\d+"( checked)?>', text)
    assert [bool(box) for box in boxes] == [True] * 4 + [False] * 2


def test_a_page_that_loads_itself_anew_says_so(runs):
    assert 'data-reload="5"' in render_report(runs[:1], "t", {}, 5)
    assert "data-reload=" not in render_report(runs[:1], "t", {}).partition("<script>")[0]


def test_a_run_of_one_snapshot_and_one_without_ceiling_have_a_page(write_run, scored, tmp_path):
    write_run(tmp_path / "run", num=1, items=False)
    (run,) = find_runs([tmp_path])
    assert f"<strong>{run.judgement.verdict}</strong>" in render_report([run], "t", {})
    bare = [replace(one, ceilings={}, companions={}, slices={}, headroom=math.nan) for one in scored(0)[:2]]
    assert "No preference data was scored" in render_report([recorded_run(None, bare)], "t", {})


def test_no_runs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="list of runs is empty"):
        write_report([], tmp_path / "report.html")


def test_items_that_clearly_moved_are_shown_and_the_others_counted(one_run, page):
    (run,) = find_runs([one_run])
    clear = [mover for mover in run.movers if mover.change.low > 0 or mover.change.high < 0]
    assert 0 < len(clear) < len(run.movers)
    text = page.read_text()
    section = text[text.index('<section id="movers">') : text.index('<section id="companions">')]
    assert f"Of {len(run.movers) - len(clear)} other items the interval holds 0." in section
    assert section.count('<span class="name">') == 10
    assert f"{len(clear) - 10} more items moved clearly." in section


def test_without_images_there_are_no_empty_thumbnails(write_run, tmp_path):
    path = write_run(tmp_path / "run")
    catalogue = Catalogue.read(Catalogue.beside(path))
    replace(catalogue, images=(None,) * len(catalogue.images)).write(Catalogue.beside(path))
    text = render_report(find_runs([tmp_path]), "t", {})
    assert '<ul class="movers bare">' in text
    assert 'class="noimage"' not in text


def test_unticked_runs_are_mentioned_and_no_path_is_absolute(runs, sweep_folder):
    text = render_report(runs, "sweep", {})
    assert "At first the best 4 of 6 runs are ticked" in text
    assert "are ticked" not in render_report(runs[:2], "t", {})
    assert "<td>good-1/record.jsonl</td>" in text
    assert str(sweep_folder) not in text
