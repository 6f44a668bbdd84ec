import numpy as np
import pytest

from lis_lightning.errors import ConfigError
from lis_lightning.report import write_curve
from lis_lightning.result import Ceiling, LISResult


def results():
    influence = np.array([0.001, -0.001, 0.0005, -0.0005])
    limit = Ceiling(value=0.02, low=0.018, high=0.022, influence=influence)
    return [
        LISResult(
            ais=ais, ais_low=ais - 0.001, ais_high=ais + 0.001, ais_geometry=ais / 2, auc_base=0.7, auc=0.7 + ais,
            step=step, ceilings={"pairs": limit}, influence=influence * (1 + step / 1000), companions={"rankme": 9.0},
        )
        for step, ais in ((0, 0.001), (50, 0.008), (100, 0.012))
    ]  # fmt: skip


def test_the_page_holds_curve_band_ceiling_and_references(tmp_path):
    page = write_curve(results(), tmp_path / "new/curve.html", title="a run", references={"known truth": 0.015})
    text = page.read_text()
    for expected in ("AIS, 95 %", "ceiling pairs", "known truth", "optimizer step", "AUC gain over the base"):
        assert expected in text
    assert page.stat().st_size < 5_500_000


def test_the_page_needs_no_network(tmp_path):
    text = write_curve(results(), tmp_path / "curve.html", title="a run").read_text()
    assert '<script src="http' not in text
    assert '<link rel="stylesheet" href="http' not in text


def test_titles_are_escaped(tmp_path):
    text = write_curve(results(), tmp_path / "curve.html", title="<script>alert(1)</script>").read_text()
    assert "<script>alert(1)</script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ConfigError, match="list of results is empty"):
        write_curve([], tmp_path / "curve.html", title="")
    assert not (tmp_path / "curve.html").exists()
