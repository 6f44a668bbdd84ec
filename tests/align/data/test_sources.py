from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from lis_lightning.align.data import load_log, load_movielens
from lis_lightning.align.world import load_world
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, ItemError, LisWarning, LogError, ShapeError

WORLD = {"num_users": 80, "num_items": 15, "num_events": 2000, "image_size": 16}
FLAGS = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return load_world(tmp_path_factory.mktemp("worlds"), **WORLD)


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


def test_world_has_images_texts_and_the_truth(world):
    assert world.name == "world"
    assert world.log.height == world.truth.click_probability.size == 2000
    assert all(path.is_file() for path in world.items.images)
    assert world.items is world.truth.items


def test_columns_are_what_a_split_takes(world):
    split = PreferenceSplit.from_log(world.log, **world.columns)
    assert split.item_ids.size <= 15
    assert len(world.items.select(split.item_ids)) == split.item_ids.size


def test_world_without_content_is_the_same_world_and_writes_nothing(tmp_path, world):
    bare = load_world(tmp_path, content=False, **WORLD)
    assert bare.log.equals(world.log)
    np.testing.assert_array_equal(bare.truth.content_latents, world.truth.content_latents)
    assert bare.truth.bayes_auc() == world.truth.bayes_auc()
    np.testing.assert_array_equal(bare.items.ids, world.items.ids)
    assert bare.items.images == (None,) * 15
    assert not list(tmp_path.iterdir())


def test_damaged_world_image_is_drawn_again(tmp_path):
    path = load_world(tmp_path, **WORLD).items.images[3]
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert load_world(tmp_path, **WORLD).items.images[3].read_bytes() == whole


def test_unknown_world_parameter_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no parameter 'users'"):
        load_world(tmp_path, users=5)


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
        (_ml1m, "movies.dat", "1::A::B\n2,C,D\n", ItemError, r"movies\.dat, line 2: .* got '2,C,D'"),
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


EVENTS = pl.DataFrame({"who": ["u", "v", "u"], "sku": [30, 10, 30], "at": [3, 4, 5], "liked": [0, 1, 1]})
ITEMS = pl.DataFrame({"sku": [10, 20, 30], "text": ["ten", "twenty", "thirty"], "vector": [[1.0], [2.0], [0.0]]})
NAMES = {"user": "who", "item": "sku", "time": "at", "label": "liked", "item_id": "sku"}


def test_any_log_is_read_by_the_names_of_its_columns():
    data = load_log(EVENTS, ITEMS, features="vector", **NAMES)
    assert data.name == "log"
    assert data.log.equals(EVENTS)
    assert data.columns == {"user": "who", "item": "sku", "time": "at", "label": {"liked": "liked"}}
    assert data.items.ids.tolist() == [10, 20, 30]
    assert data.items.texts == data.items.titles == ("ten", "twenty", "thirty")
    assert data.items.images == (None, None, None)
    np.testing.assert_array_equal(data.items.features, [[1], [1], [0]])


def test_a_log_without_items_is_enough_for_an_audit(tmp_path):
    assert load_log(EVENTS, **NAMES).items is None
    bare = load_log(EVENTS, ITEMS.drop("text"), content=False, image="gone", features=tmp_path / "gone.npy", **NAMES)
    assert bare.items.ids.tolist() == [10, 20, 30]
    assert bare.items.texts == ("", "", "")


@pytest.mark.parametrize("kind", ["parquet", "csv", "glob", "pandas", "pyarrow"])
def test_log_and_items_come_in_any_form(tmp_path, kind):
    EVENTS.write_parquet(tmp_path / "events.parquet")
    EVENTS.write_csv(tmp_path / "events.csv")
    items = ITEMS.drop("vector")
    items.write_parquet(tmp_path / "items.parquet")
    items.write_csv(tmp_path / "items.csv")
    given = {
        "parquet": (tmp_path / "events.parquet", tmp_path / "items.parquet"),
        "csv": (str(tmp_path / "events.csv"), str(tmp_path / "items.csv")),
        "glob": (str(tmp_path / "event*.parquet"), str(tmp_path / "item*.parquet")),
        "pandas": (EVENTS.to_pandas(), items.to_pandas()),
        "pyarrow": (EVENTS.to_arrow(), items.to_arrow()),
    }[kind]
    data = load_log(*given, **NAMES)
    assert data.log.equals(EVENTS)
    assert data.items.ids.tolist() == [10, 20, 30]


def test_items_of_the_log_without_a_row_are_counted_and_named():
    log = pl.DataFrame({"sku": [10, 1, 2, 3, 4, 5, 6, 1]})
    with pytest.raises(ItemError, match=r"6 of 7 item ids have no row .* of 3 items: 1, 2, 3, 4, 5 and 1 more"):
        load_log(log, ITEMS, **NAMES)


def test_ids_of_another_type_are_named_as_the_cause():
    text_ids = EVENTS.with_columns(pl.col("sku").cast(pl.String))
    with pytest.raises(ItemError, match=r"likely cause: .* integers \(10\) and the others strings \('10'\)"):
        load_log(text_ids, ITEMS, **NAMES)


def test_narrow_integers_match_wide_ones():
    narrow = EVENTS.with_columns(pl.col("sku").cast(pl.UInt8))
    assert load_log(narrow, ITEMS, **NAMES).items.ids.dtype == np.int64


def test_missing_columns_name_the_table_and_the_nearest():
    with pytest.raises(LogError, match=r"interaction log has no column 'skuu'.*Did you mean 'sku'"):
        load_log(EVENTS, ITEMS, **(NAMES | {"item": "skuu"}))
    with pytest.raises(ItemError, match=r"item table has no column 'item_id'; it has \['sku', 'text', 'vector'\]"):
        load_log(EVENTS, ITEMS, **(NAMES | {"item_id": "item_id"}))
    with pytest.raises(ItemError, match=r"item table has no column 'txt'.*Did you mean 'text'"):
        load_log(EVENTS, ITEMS, text="txt", **NAMES)
    with pytest.raises(ItemError, match=r"item table has no column 'picture'"):
        load_log(EVENTS, ITEMS, image="picture", image_folder=".", **NAMES)


def test_repeated_item_ids_are_named():
    with pytest.raises(ItemError, match="1 item ids occur more than once in the item table: 20"):
        load_log(EVENTS, pl.concat([ITEMS, ITEMS[1:2]]), **NAMES)


def test_images_are_found_by_column_or_by_id(tmp_path):
    one, three = _picture(tmp_path / "pics" / "10.png"), _picture(tmp_path / "pics" / "30.JPG")
    by_id = load_log(EVENTS, ITEMS, image_folder=tmp_path / "pics", **NAMES)
    assert by_id.items.images == (one, None, three)
    named = ITEMS.with_columns(picture=pl.Series(["10.png", None, "30.JPG"]))
    by_name = load_log(EVENTS, named, image="picture", image_folder=tmp_path / "pics", **NAMES)
    assert by_name.items.images == (one, None, three)
    named.with_columns(picture="pics/" + pl.col("picture")).write_parquet(tmp_path / "items.parquet")
    beside = load_log(EVENTS, tmp_path / "items.parquet", image="picture", **NAMES)
    assert beside.items.images == (one, None, three)


def test_a_folder_without_an_image_of_any_item_is_refused(tmp_path):
    _picture(tmp_path / "pics" / "poster-10.png")
    with pytest.raises(ItemError, match=r"holds no image named by an item id, such as 10\.jpg"):
        load_log(EVENTS, ITEMS, image_folder=tmp_path / "pics", **NAMES)


def test_images_need_a_folder():
    with pytest.raises(ConfigError, match="named in column 'text', but not where they are; set image_folder"):
        load_log(EVENTS, ITEMS, image="text", **NAMES)


def test_image_column_of_another_type_is_refused(tmp_path):
    with pytest.raises(ItemError, match=r"Column 'sku' of the item table must hold image paths, got Int64"):
        load_log(EVENTS, ITEMS, image="sku", image_folder=tmp_path, **NAMES)


@pytest.mark.parametrize("on_bad_image", ["raise", "blank"])
def test_an_image_outside_the_folder_is_an_error_whatever_the_choice(tmp_path, on_bad_image):
    _picture(tmp_path / "secret.png")
    (tmp_path / "pics").mkdir()
    named = ITEMS.with_columns(picture=pl.lit("../secret.png"))
    with pytest.raises(ItemError, match=r"3 image paths leave the image folder .*: 10 \(\.\./secret\.png\); 20"):
        load_log(EVENTS, named, image="picture", image_folder=tmp_path / "pics", on_bad_image=on_bad_image, **NAMES)


def test_bad_images_are_an_error_or_blank(tmp_path):
    _picture(tmp_path / "pics" / "10.png")
    (tmp_path / "pics" / "30.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ItemError, match=r"1 of 2 item images cannot be used.*30 \("):
        load_log(EVENTS, ITEMS, image_folder=tmp_path / "pics", **NAMES)
    with pytest.warns(LisWarning, match="1 of 2 item images"):
        data = load_log(EVENTS, ITEMS, image_folder=tmp_path / "pics", on_bad_image="blank", **NAMES)
    assert data.items.images == (tmp_path / "pics" / "10.png", None, None)


def test_several_features_stand_side_by_side(tmp_path):
    np.save(tmp_path / "more.npy", np.array([[0.0, 2.0]] * 3))
    data = load_log(EVENTS, ITEMS, features=["vector", tmp_path / "more.npy"], **NAMES)
    np.testing.assert_array_equal(data.items.features, [[1, 0, 1], [1, 0, 1], [0, 0, 1]])


def test_positive_only_logs_keep_their_missing_label():
    assert load_log(EVENTS, ITEMS, **(NAMES | {"label": None})).columns["label"] == {"positive": None}


def test_label_threshold_may_come_as_a_list_from_a_configuration():
    assert load_log(EVENTS, ITEMS, **(NAMES | {"label": ["liked", 1]})).columns["label"] == {"liked": ("liked", 1)}
    with pytest.raises(ConfigError, match=r"label must be a column, .* got 1"):
        load_log(EVENTS, ITEMS, **(NAMES | {"label": ["liked", 1, 2]}))
