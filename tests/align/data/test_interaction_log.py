from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from lis_lightning.align.data import load_log
from lis_lightning.align.data.alignment_data import cut_split
from lis_lightning.data.tables import InputTable
from lis_lightning.errors import ConfigError, ItemError, LisWarning, LogError


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 9), (9, 9, 200)).save(path)
    return path


EVENTS = pl.DataFrame({"who": ["u", "v", "u"], "sku": [30, 10, 30], "at": [3, 4, 5], "liked": [0, 1, 1]})
ITEMS = pl.DataFrame({"sku": [10, 20, 30], "text": ["ten", "twenty", "thirty"], "vector": [[1.0], [2.0], [0.0]]})
LONG_LOG = pl.DataFrame(
    {"who": ["u", "v"] * 20, "sku": [10, 20, 30, 10] * 10, "at": range(40), "liked": [0, 1, 1, 0, 0] * 8}
)
NAMES = {"user": "who", "item": "sku", "time": "at", "label": "liked", "item_id": "sku"}


def test_any_log_is_read_by_the_names_of_its_columns():
    data = load_log(EVENTS, ITEMS, features="vector", **NAMES)
    assert data.name == "log"
    assert data.log is EVENTS
    roles = {"user": "who", "item": "sku", "time": "at", "label": {"liked": "liked"}, "columns": None}
    assert data.columns == roles
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
    assert InputTable(data.log).read().equals(EVENTS)
    assert data.items.ids.tolist() == [10, 20, 30]


def test_items_of_the_log_without_a_row_are_counted_and_named():
    log = LONG_LOG.with_columns(sku=pl.Series([10, 1, 2, 3, 4, 5, 6, 1] * 5))
    with pytest.raises(ItemError, match=r"6 of 7 item ids have no row .* of 3 items: 1, 2, 3, 4, 5 and 1 more"):
        cut_split(load_log(log, ITEMS, **NAMES), {"unseen_items": 0})


def test_ids_of_another_type_are_named_as_the_cause():
    text_ids = LONG_LOG.with_columns(pl.col("sku").cast(pl.String))
    with pytest.raises(ItemError, match=r"likely cause: .* integers \(10\) and the others strings \('10'\)"):
        cut_split(load_log(text_ids, ITEMS, **NAMES), {})


def test_a_saved_split_takes_the_place_of_the_log(tmp_path):
    split = cut_split(load_log(LONG_LOG, **NAMES), {"unseen_items": 0, "history": 3})
    split.save(tmp_path / "split")
    data = load_log(tmp_path / "split", ITEMS, item_id="sku")
    assert cut_split(data, {"history": 50}).hash == split.hash
    with pytest.raises(ItemError, match=r"have no row .* of 1 items"):
        cut_split(load_log(tmp_path / "split", ITEMS[1:2], item_id="sku"), {})


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


def test_items_have_several_images_by_a_list_by_columns_or_by_folders(tmp_path):
    one, two, three = (_picture(tmp_path / "pics" / f"{number}.png") for number in (1, 2, 3))
    frames = tuple(_picture(tmp_path / "clips" / "20" / name) for name in ("a.png", "b.png"))
    listed = ITEMS.with_columns(
        front=pl.Series(["1.png", None, "3.png"]), more=pl.Series([["2.png", None], [], None], dtype=pl.List(pl.String))
    )
    options = {"image_folder": tmp_path / "pics", **NAMES}
    assert load_log(EVENTS, listed, image=["front", "more"], **options).items.images == ((one, two), None, three)
    assert load_log(EVENTS, listed, image="more", **options).items.images == (two, None, None)
    items = load_log(EVENTS, ITEMS, image_folder=tmp_path / "clips", **NAMES).items
    assert items.images == (None, frames, None)
    assert items.catalogue()["image"].to_list() == [None, str(frames[0]), None]


def test_several_text_columns_are_joined_with_their_names():
    items = ITEMS.with_columns(brand=pl.Series(["Acme", None, " "]), year=pl.Series([1999, 2001, None]))
    data = load_log(EVENTS, items, text=["text", "brand", "year"], **NAMES)
    assert data.items.texts == ("text: ten\nbrand: Acme\nyear: 1999", "text: twenty\nyear: 2001", "text: thirty")


def test_a_folder_without_an_image_of_any_item_is_refused(tmp_path):
    _picture(tmp_path / "pics" / "poster-10.png")
    with pytest.raises(ItemError, match=r"holds no image named by an item id, such as 10\.jpg"):
        load_log(EVENTS, ITEMS, image_folder=tmp_path / "pics", **NAMES)


def test_images_need_a_folder():
    with pytest.raises(ConfigError, match="named in column 'text', but not where they are; set image_folder"):
        load_log(EVENTS, ITEMS, image="text", **NAMES)


def test_image_column_of_another_type_is_refused(tmp_path):
    with pytest.raises(
        ItemError, match=r"Column 'sku' of the item table must hold image paths, or lists of them, got Int64"
    ):
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


def test_ids_with_leading_zeros_match_those_of_the_items(tmp_path):
    (tmp_path / "log.csv").write_text("who,sku,at,liked\nu,1040,3,0\nv,01040,4,1\n")
    (tmp_path / "items.csv").write_text("sku,text\n1040,plain\n01040,zero\n")
    data = load_log(tmp_path / "log.csv", tmp_path / "items.csv", **NAMES)
    assert data.items.ids.tolist() == ["1040", "01040"]
    assert InputTable(data.log).read(ids=["sku"])["sku"].to_list() == ["1040", "01040"]


def test_a_log_without_a_header_takes_names_a_format_and_a_text_label(tmp_path):
    (tmp_path / "UserBehavior.csv").write_text("1,30,pv,01/02/26\n2,10,buy,01/03/26\n")
    data = load_log(
        tmp_path / "UserBehavior.csv",
        columns=["who", "sku", "event", "at"],
        **(NAMES | {"label": ["event", "buy"], "time": ["at", "%m/%d/%y"]}),
    )
    assert data.columns["columns"] == ["who", "sku", "event", "at"]
    assert data.columns["label"] == {"event": ("event", "buy")}
    assert data.columns["time"] == ("at", "%m/%d/%y")
