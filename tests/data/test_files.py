"""Files as people have them, each with the right values."""

import gzip

import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.data.files import scan_files
from lis_lightning.data.tables import InputTable, read_table
from lis_lightning.errors import ConfigError, LogError

EVENTS = pl.DataFrame({"user_id": [7, 8, 7], "item_id": ["a", "b", "c"], "timestamp": [3, 4, 5], "label": [0, 1, 1]})


def in_gzip(path, content):
    path.write_bytes(gzip.compress(content))


WRITERS = {
    "log.parquet": lambda path, frame=EVENTS: frame.write_parquet(path),
    "log.feather": lambda path, frame=EVENTS: frame.write_ipc(path),
    "log.arrow": lambda path, frame=EVENTS: frame.write_ipc(path, compression="zstd"),
    "log.jsonl": lambda path, frame=EVENTS: frame.write_ndjson(path),
    "log.ndjson.gz": lambda path, frame=EVENTS: in_gzip(path, frame.write_ndjson().encode()),
    "log.csv": lambda path, frame=EVENTS: frame.write_csv(path),
    "log.csv.gz": lambda path, frame=EVENTS: in_gzip(path, frame.write_csv().encode()),
    "log.CSV.GZ": lambda path, frame=EVENTS: in_gzip(path, frame.write_csv().encode()),
    "log.csv.zst": lambda path, frame=EVENTS: frame.write_csv(path, compression="zstd"),
    "log.tsv": lambda path, frame=EVENTS: frame.write_csv(path, separator="\t"),
    "log.txt": lambda path, frame=EVENTS: frame.write_csv(path, separator="|"),
    "semicolons.csv": lambda path, frame=EVENTS: frame.write_csv(path, separator=";"),
    "tabs.csv": lambda path, frame=EVENTS: frame.write_csv(path, separator="\t"),
    "colons.dat": lambda path, frame=EVENTS: path.write_text(frame.write_csv().replace(",", "::")),
    "bom.csv": lambda path, frame=EVENTS: path.write_text("\ufeff" + frame.write_csv()),
    "utf16.csv": lambda path, frame=EVENTS: path.write_text(frame.write_csv(), encoding="utf-16"),
    "lines.csv": lambda path, frame=EVENTS: path.write_bytes(frame.write_csv().replace("\n", "\r\n").encode()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_has_the_same_values(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert read_table(tmp_path / name).equals(EVENTS)
    assert read_table(str(tmp_path / name), columns=["item_id", "label"]).equals(EVENTS["item_id", "label"])


def test_recbole_files_name_columns_without_their_types(tmp_path):
    header = "user_id:token\titem_id:token\ttimestamp:float\tlabel:float"
    body = EVENTS.write_csv(separator="\t", include_header=False)
    (tmp_path / "ml.inter").write_text(f"{header}\n{body}")
    assert read_table(tmp_path / "ml.inter").equals(EVENTS)


@pytest.mark.parametrize("separator", ["\t", ",", "::", ";"])
def test_files_without_a_header_take_the_names_given(tmp_path, separator):
    text = EVENTS.write_csv(include_header=False)
    (tmp_path / "u.data").write_text(text.replace(",", separator))
    table = InputTable(tmp_path / "u.data", names=EVENTS.columns)
    assert table.columns == EVENTS.columns
    assert table.read().equals(EVENTS)


def test_names_must_fit_the_file(tmp_path):
    EVENTS.write_csv(tmp_path / "log.csv", include_header=False)
    with pytest.raises(ConfigError, match="`columns` names 2 columns, but the files have 4"):
        InputTable(tmp_path / "log.csv", names=["a", "b"])
    EVENTS.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ConfigError, match=r"text files without a header; '.*log\.parquet' has names"):
        InputTable(tmp_path / "log.parquet", names=EVENTS.columns)
    with pytest.raises(ConfigError, match="text files without a header, got DataFrame"):
        InputTable(EVENTS, names=EVENTS.columns)


def write_parts(folder, ending):
    for part, rows in (("date=2026-01-31/shard=01", EVENTS[:2]), ("date=2026-02-01/shard=10", EVENTS[2:])):
        path = folder / part / f"part-0{ending}"
        path.parent.mkdir(parents=True)
        WRITERS[f"log{ending}"](path, rows)
    (folder / "_SUCCESS").touch()
    (folder / ".part.crc").touch()


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".csv.gz", ".jsonl", ".arrow"])
def test_the_keys_of_hive_folders_are_columns(tmp_path, ending):
    write_parts(tmp_path / "log", ending)
    table = read_table(tmp_path / "log")
    dates = pl.Series(["2026-01-31", "2026-01-31", "2026-02-01"]).str.to_date()
    assert table.equals(EVENTS.with_columns(date=dates, shard=pl.Series(["01", "01", "10"])))
    assert read_table(f"{tmp_path}/log/date=*/*/*{ending}").equals(table)
    assert read_table(tmp_path / "log", columns=["label"]).equals(EVENTS.select("label"))


def test_hive_values_are_unquoted_and_may_be_null(tmp_path):
    for value in ("a%2Fb", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"surface={value}").mkdir()
        EVENTS.write_parquet(tmp_path / f"surface={value}" / "x.parquet")
    assert read_table(tmp_path)["surface"].to_list() == [None] * 3 + ["a/b"] * 3


def test_a_list_of_paths_is_one_table(tmp_path):
    EVENTS[:1].write_csv(tmp_path / "b.csv")
    EVENTS[1:].write_csv(tmp_path / "a.csv")
    assert read_table([tmp_path / "b.csv", str(tmp_path / "a.csv")]).equals(EVENTS)
    EVENTS.write_parquet(tmp_path / "c.parquet")
    with pytest.raises(LogError, match=r"must be files of one kind, got \['parquet', 'text'\]"):
        read_table(tmp_path)


def test_latin_1_text_is_read_and_no_two_ids_merge(tmp_path):
    named = EVENTS.with_columns(item_id=pl.Series(["\xe9tude", "\xe8tude", "etude"]))
    (tmp_path / "latin.csv").write_bytes(named.write_csv().encode("latin-1"))
    in_gzip(tmp_path / "latin.csv.gz", named.write_csv().encode("latin-1"))
    assert read_table(tmp_path / "latin.csv").equals(named)
    assert read_table(tmp_path / "latin.csv.gz").equals(named)


def test_urls_of_object_stores_go_to_polars(monkeypatch):
    asked = []

    def scan(paths, **options):
        asked.append((paths, options["hive_partitioning"]))
        return EVENTS.lazy()

    monkeypatch.setattr(pl, "scan_parquet", scan)
    assert read_table("s3://bucket/log/*.parquet").equals(EVENTS)
    assert read_table("gs://bucket/log").equals(EVENTS)
    assert asked == [(["s3://bucket/log/*.parquet"], True), ("gs://bucket/log/", True)]


def test_an_unknown_scheme_is_named():
    with pytest.raises(LogError, match=r"'hdfs://a/b.parquet' has the unknown scheme 'hdfs'; known are .*s3"):
        read_table("hdfs://a/b.parquet")


def test_local_urls_are_paths(tmp_path):
    EVENTS.write_parquet(tmp_path / "log.parquet")
    assert read_table(f"file://{tmp_path}/log.parquet").equals(EVENTS)


def test_what_cannot_be_found_says_so(tmp_path):
    with pytest.raises(LogError, match="matches no file"):
        read_table(f"{tmp_path}/*.parquet")
    with pytest.raises(LogError, match=r"folder '.*' of the interaction log holds no file that ends in \.parquet"):
        read_table(tmp_path)
    with pytest.raises(LogError, match=r"gone\.csv' does not exist"):
        read_table(tmp_path / "gone.csv")


def test_reasons_hold_no_advice_that_cannot_be_taken(tmp_path):
    (tmp_path / "ragged.csv").write_text("user_id,item_id\n1,2\n1,2,3\n")
    with pytest.raises(LogError, match=r"ragged\.csv' cannot be read: ") as failure:
        read_table(tmp_path / "ragged.csv")
    assert "truncate_ragged_lines" not in str(failure.value)
    assert "schema_overrides" not in str(failure.value)


def test_a_log_of_positives_needs_no_label_column(log):
    positives = log.filter(pl.col("label") == 1)
    bare = PreferenceSplit.from_log(positives.drop("label"), negatives=4)
    assert bare.hash == PreferenceSplit.from_log(positives, label=None, negatives=4).hash
    with pytest.raises(LogError, match="no column 'label'"):
        PreferenceSplit.from_log(positives.drop("label"))


def test_all_missing_columns_are_named_at_once():
    upper = EVENTS.rename({"user_id": "USER_ID", "item_id": "ItemId", "timestamp": "TIMESTAMP"})
    with pytest.raises(LogError, match=r"no columns 'user_id', 'item_id', 'timestamp'; .*'USER_ID' for 'user_id'"):
        PreferenceSplit.from_log(upper)
    with pytest.raises(LogError, match=r"no column 'item_id'; .*Did you mean 'ItemId'\?"):
        read_table(upper, columns=["item_id"])
    with pytest.raises(LogError, match=r"no column 'user_id'.*Did you mean 'USER_ID'\?"):
        read_table(upper, columns=["user_id"])


def test_files_with_columns_in_another_order_are_refused(tmp_path):
    EVENTS[:1].write_csv(tmp_path / "a.csv")
    EVENTS[1:].select(reversed(EVENTS.columns)).write_csv(tmp_path / "b.csv")
    with pytest.raises(LogError, match="cannot be read: schema names differ"):
        read_table(tmp_path)


def test_quoted_separators_do_not_count(tmp_path):
    (tmp_path / "log.csv").write_text('7,"a, b",3\n8,"c, d",4\n')
    table = InputTable(tmp_path / "log.csv", names=["user_id", "item_id", "timestamp"]).read()
    assert table.rows() == [(7, "a, b", 3), (8, "c, d", 4)]


def test_files_of_an_object_store_are_left_to_polars(tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    assert scan_files(tmp_path / "a.parquet", "log").parquet == (str(tmp_path / "a.parquet"),)
    assert scan_files("s3://bucket/a.parquet", "log").parquet == ()
