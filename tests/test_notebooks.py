"""The notebooks run from nothing, say what they claim, and are committed with what a run of theirs prints."""

import functools
import re

import nbformat
import pytest

from tests import notebooks

NAMES = [
    "1-add-to-your-trainer", "2-audit-preference-data", "3-read-the-curves", "4-compare-recipes", "5-other-trainers",
]  # fmt: skip
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")
ABSOLUTE = re.compile(r"(?<![\w.:/])(?:/[\w.-]+){2,}|\b[A-Z]:\\")
LARGEST = 300 * 1024  # bytes of a file, so that GitHub shows it at once


def committed(name):
    return nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)


@functools.cache
def ran(name):
    """Each runs once, for all tests."""
    return notebooks.execute(notebooks.FOLDER / f"{name}.ipynb")


def codes(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def told(notebook):
    return "\n".join(notebooks.printed(cell) for cell in codes(notebook))


def headlines(notebook):
    return [notebooks.printed(cell) for cell in codes(notebook) if "headline" in cell.metadata.get("tags", [])]


def errors(notebook):
    outputs = [output for cell in codes(notebook) for output in cell.outputs]
    return [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def paths(notebook):
    """Return what looks like a path of the machine in anything but a picture."""
    texts = [output.get("text", "") for cell in codes(notebook) for output in cell.outputs]
    texts += [
        text
        for cell in codes(notebook)
        for output in cell.outputs
        for kind, text in output.get("data", {}).items()
        if kind.startswith("text/plain")
    ]
    return [found for text in texts for found in ABSOLUTE.findall(text)]


def has_picture(cell):
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def numbers(text):
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_the_folder_holds_numbered_notebooks_alone():
    assert sorted(path.name for path in notebooks.FOLDER.iterdir() if path.name[0] != ".") == [
        f"{name}.ipynb" for name in NAMES
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_was_run_to_its_end(name):
    cells = codes(committed(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert has_picture(cells[-1])
    assert errors(committed(name)) == []
    assert paths(committed(name)) == []
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("text", ["in /tmp/a/b.ckpt", "'/home/me/x'", r"C:\data"])
def test_a_path_of_the_machine_is_seen(text):
    assert ABSOLUTE.search(text)


@pytest.mark.parametrize("text", ["lis/ais", "checkpoints/last.ckpt", "https://pypi.org/project/x", "w1 / w2"])
def test_other_slashes_are_none(text):
    assert not ABSOLUTE.search(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_nothing_and_ends_with_a_picture(name):
    assert has_picture(codes(ran(name))[-1])
    assert errors(ran(name)) == []
    assert paths(ran(name)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_is_committed(name):
    before, now = headlines(committed(name)), headlines(ran(name))
    assert len(before) == len(now) >= 2
    for old, new in zip(before, now, strict=True):
        assert NUMBER.sub("#", new) == NUMBER.sub("#", old)
        # Another processor rounds otherwise, and a training carries that on.
        assert numbers(new) == pytest.approx(numbers(old), rel=0.25, abs=0.003)


@pytest.mark.slow
def test_1_a_resumed_run_goes_on_and_stops_by_itself():
    text = told(ran(NAMES[0]))
    first, second = (
        re.findall(r"^ *(\d+)\*? +([+-][.\d]+) ", part, flags=re.MULTILINE) for part in text.split("record.jsonl")
    )
    assert len(first) == 5
    assert second[:5] == first
    assert 100 < int(second[-1][0]) < 600
    step, ais = re.search(r"best step (\d+): AIS (\S+)", text).groups()
    assert (step, ais) in second
    assert float(ais) == max(float(value) for _, value in second)
    assert f"best-step={step}.ckpt" in text
    assert f"the stored vectors score {ais}" in text
    assert re.search(r"stopped: \w+", text)


@pytest.mark.slow
def test_2_shuffled_pairs_are_worthless_and_a_naive_leak_finds_a_gain_in_coin_flips():
    text = told(ran(NAMES[1]))
    verdicts = dict(re.findall(r"^(\w+): ([a-z-]+)$", text, flags=re.MULTILINE))
    assert verdicts["shuffled"] == "data-bound"
    assert {verdicts[name] for name in ("pairs", "ids", "session")} == {"worth-aligning"}
    assert verdicts["item_truth"] == "ceiling-not-binding"
    honest, naive = (
        [float(end) for end in ends]
        for ends in re.findall(r"\[(\S+), (\S+)\]", re.search(r"coin flips.*", text).group())
    )
    assert honest[0] <= 0 <= honest[1]
    assert naive[0] > 0
    assert "holds_no_evaluation_events=True" in text
    gains = [float(gain) for gain in re.findall(r"test events find (\S+)", text)]
    assert len(gains) == 5
    assert gains == sorted(gains, reverse=True)


@pytest.mark.slow
def test_3_the_six_shapes_get_their_verdicts():
    last = headlines(ran(NAMES[2]))[-1]
    assert dict(re.split(r"  +", line.rstrip()) for line in last.strip().splitlines()) == {
        "dip, then rise": "improving",
        "plateau": "plateau",
        "ceiling": "at-ceiling",
        "data-bound": "data-bound",
        "overfit": "past-its-best",
        "collapse": "collapsed",
    }


@pytest.mark.slow
def test_4_controls_are_at_the_bottom_and_a_tie_is_marked():
    text = told(ran(NAMES[3]))
    places = re.findall(r"^(\d) ([= ]) (\w+) +(\S+) \[(\S+), (\S+)\]", text, flags=re.MULTILINE)
    assert [place[2] for place in places][:2] == ["next_item", "infonce"]
    assert {place[2] for place in places[-2:]} == {"shuffled", "raw"}
    assert [place[1] for place in places] == [" ", "=", " ", " ", " "]
    assert float(places[0][4]) > 0
    assert all(float(low) <= 0 for *_, low, _ in places[-2:])
    assert "next_item and infonce cannot be told apart; the others are behind" in text


@pytest.mark.slow
def test_5_all_three_trainings_gain_and_mark_few_lines_as_new():
    curves = [re.findall(r"^ *(\d+) ([+-]\S+) ", text, flags=re.MULTILINE) for text in headlines(ran(NAMES[4]))]
    assert [[step for step, _ in curve] for curve in curves] == [["0", "20", "40", "60"]] * 3
    assert all(float(curve[-1][1]) > float(curve[0][1]) for curve in curves)
    assert sum(cell.source.count("# new") for cell in codes(ran(NAMES[4]))) <= 25
