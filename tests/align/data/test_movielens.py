from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from lis_lightning.align.data import load_movielens
from lis_lightning.errors import ConfigError, ItemError, LisWarning, LogError, ShapeError

FLAGS = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"


def _picture(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (6, 9), (9, 9, 200)).save(path)
    return path


def _ml100k(folder: Path) -> Path:
    (folder / "u.data").write_bytes(b"196\t2\t3\t881250949\n186\t1\t4\t891717742\n196\t1\t5\t881250950\n")
    (folder / "u.item").write_bytes(
        f"1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|{FLAGS}\n"
        f"2|Misérables, Les\x85 (1995)|01-Jan-1995|||1|{FLAGS[2:]}\n".encode("latin-1")
    )
    return folder


def _ml1m(folder: Path) -> Path:
    (folder / "ratings.dat").write_bytes(b"1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n")
    (folder / "movies.dat").write_bytes(
        "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
        "1193::Misérables: Les (1995)::Drama\n".encode("latin-1")
    )
    return folder


def _posters(folder: Path) -> Path:
    events = {"user_id": [1, 1, 2], "item_id": [7, 9, 7], "rating": [4, 2, 5], "timestamp": [881250949, 881250950, 3]}
    pl.DataFrame(events).write_parquet(folder / "interactions.parquet")
    items = {"item_id": [9, 7], "title": ["Nine", "Seven"], "text": ["Nine.", "Seven."], "has_image": [False, True]}
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    _picture(folder / "images" / "7.jpg")
    np.save(folder / "words.npy", np.array([[3, 4], [0, 0]], dtype=np.float16))
    np.save(folder / "pixels.npy", np.array([[2], [5]], dtype=np.float16))
    return folder


def test_ml100k_as_grouplens_gives_it(tmp_path):
    data = load_movielens(_ml100k(tmp_path))
    assert data.log.rows() == [(196, 2, 3, 881250949), (186, 1, 4, 891717742), (196, 1, 5, 881250950)]
    assert data.columns == {"user": "user_id", "item": "item_id", "time": "timestamp", "label": ("rating", 4)}
    assert data.items.ids.tolist() == [1, 2]
    assert data.items.titles == ("Toy Story (1995)", "Misérables, Les\x85 (1995)")
    assert data.items.texts[0] == "Toy Story (1995). Animation, Children's, Comedy."
    assert data.items.texts[1] == "Misérables, Les\x85 (1995). unknown, Animation, Children's, Comedy."
    assert data.items.images == (None, None)
    assert data.items.features is None
    assert data.truth is None


def test_ml1m_as_grouplens_gives_it(tmp_path):
    data = load_movielens(_ml1m(tmp_path), threshold=5)
    assert data.log.rows()[1] == (1, 661, 3, 978302109)
    assert data.columns["label"] == ("rating", 5)
    assert data.items.texts[0] == "James and the Giant Peach (1996). Animation, Children's, Musical."
    assert data.items.titles[1] == "Misérables: Les (1995)"


def test_posters_layout_has_images_and_features(tmp_path):
    data = load_movielens(_posters(tmp_path), features=("words", "pixels"))
    assert data.items.ids.tolist() == [9, 7]
    assert data.items.images == (None, tmp_path / "images" / "7.jpg")
    np.testing.assert_allclose(data.items.features, [[0.6, 0.8, 1], [0, 0, 1]], rtol=1e-3)
    assert load_movielens(tmp_path, features=None).items.features is None


def test_grouplens_folder_with_features_beside_it_uses_them(tmp_path):
    np.save(_ml100k(tmp_path) / "mine.npy", np.eye(2))
    assert load_movielens(tmp_path, features=["mine"]).items.features.shape == (2, 2)
    with pytest.raises(ConfigError, match=r"no item features 'other' in .*; it has mine\."):
        load_movielens(tmp_path, features=["mine", "other"])


def test_missing_or_wrong_features_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no item features 'text_minilm' in .*; it has pixels, words\."):
        load_movielens(_posters(tmp_path))
    np.save(tmp_path / "long.npy", np.zeros((3, 2)))
    with pytest.raises(ShapeError, match=r"shape \(3, 2\), expected \(2, dim\)"):
        load_movielens(tmp_path, features=["long"])


def test_missing_poster_is_reported_or_blanked(tmp_path):
    (_posters(tmp_path) / "images" / "7.jpg").unlink()
    with pytest.raises(ItemError, match=r"1 of 1 item images .*: 7 \(.*7\.jpg: missing\).*on_bad_image=blank"):
        load_movielens(tmp_path, features=None)
    with pytest.warns(LisWarning, match="1 of 1 item images"):
        assert load_movielens(tmp_path, features=None, on_bad_image="blank").items.images == (None, None)
    assert load_movielens(tmp_path, content=False).items.ids.tolist() == [9, 7], "an audit looks at no image"


def test_rated_movie_without_a_row_is_named(tmp_path):
    with (_ml1m(tmp_path) / "ratings.dat").open("a") as file:
        file.write("3::42::1::978300000\n")
    with pytest.raises(ItemError, match=r"1 of 3 item ids have no row .* of 2 items: 42\."):
        load_movielens(tmp_path)


def test_without_a_folder_it_says_where_to_get_one(tmp_path, monkeypatch):
    monkeypatch.delenv("LIS_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"grouplens\.org/datasets/movielens.*data\.folder=.*LIS_DATA"):
        load_movielens()
    monkeypatch.setenv("LIS_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"folder .*ml100k_mm does not exist"):
        load_movielens()
    (tmp_path / "ml100k_mm").mkdir()
    _ml100k(tmp_path / "ml100k_mm")
    assert load_movielens().log.height == 3


def test_folder_that_is_no_movielens_says_what_it_holds(tmp_path):
    with pytest.raises(ConfigError, match=r"expected interactions\.parquet and .*, or u\.data .* nothing\."):
        load_movielens(tmp_path)
    (tmp_path / "ratings.csv").touch()
    with pytest.raises(ConfigError, match=r"it holds ratings\.csv\. Other layouts are read by data=log"):
        load_movielens(tmp_path)


@pytest.mark.parametrize(
    ("make", "name", "content", "error", "message"),
    [
        (
            _ml100k,
            "u.item",
            "1|Toy Story|1\n",
            ItemError,
            r"u\.item, line 1: expected .* 23 more fields .* 3 fields",
        ),
        (_ml1m, "movies.dat", "1::A::B\n2,C,D\n", ItemError, r"movies\.dat, line 2: .* 1 fields starting with '2,C,D'"),
        (_ml100k, "u.data", "a\tb\tc\td\n", LogError, r"u\.data is not a MovieLens rating file"),
        (_ml1m, "ratings.dat", "", LogError, r"ratings\.dat has no ratings"),
    ],
)
def test_files_of_another_form_are_named_with_the_line(tmp_path, make, name, content, error, message):
    (make(tmp_path) / name).write_text(content)
    with pytest.raises(error, match=message):
        load_movielens(tmp_path)


@pytest.mark.skipif("LIS_DATA" not in os.environ, reason="LIS_DATA does not name a folder with ml100k_mm/")
def test_real_movielens_with_posters():
    data = load_movielens()
    assert data.log.height == 100_000
    assert data.items.features.shape == (1682, 384 + 1280)
    assert sum(path is not None for path in data.items.images) == 1663
    length = np.linalg.norm(data.items.features[:, 384:], axis=1)
    assert (length == 0).sum() == 19
    np.testing.assert_allclose(length[length > 0], 1, atol=1e-5)
