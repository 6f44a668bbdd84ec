import faiss
import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from lis_lightning.align.data import read_vectors
from lis_lightning.errors import ConfigError, ItemError, LisWarning, NonFiniteError, ShapeError

IDS = np.array([30, 10, 20])
MATRIX = np.array([[3.0, 0.5], [1.0, 0.25], [2.0, 0.75]], dtype=np.float32)
WANTED = np.array([10, 30])
EXPECTED = MATRIX[[1, 0]]


def table(ids=IDS):
    return pl.DataFrame({"item_id": ids, "vector": MATRIX.tolist()})


@pytest.fixture
def files(tmp_path):
    """The same vectors in each kind of file."""
    table().write_parquet(tmp_path / "list.parquet")
    pl.DataFrame({"item_id": IDS, "a": MATRIX[:, 0], "b": MATRIX[:, 1]}).write_parquet(tmp_path / "wide.parquet")
    pl.DataFrame({"item_id": IDS, "a": MATRIX[:, 0], "b": MATRIX[:, 1]}).write_csv(tmp_path / "wide.csv")
    named = {"item_ids": torch.from_numpy(IDS), "embeddings": torch.from_numpy(MATRIX).bfloat16()}
    save_file(named, tmp_path / "named.safetensors")
    save_file({"x": torch.from_numpy(MATRIX)}, tmp_path / "bare.safetensors")
    np.save(tmp_path / "bare.npy", MATRIX)
    np.save(tmp_path / "ids.npy", IDS)
    torch.save(torch.from_numpy(MATRIX), tmp_path / "bare.pt")
    torch.save({"item_ids": IDS.tolist(), "embeddings": torch.from_numpy(MATRIX)}, tmp_path / "named.pt")
    index = faiss.IndexFlatIP(2)
    index.add(MATRIX)
    faiss.write_index(index, str(tmp_path / "bare.faiss"))
    with_ids = faiss.IndexIDMap(faiss.IndexFlatL2(2))
    with_ids.add_with_ids(MATRIX, IDS)
    faiss.write_index(with_ids, str(tmp_path / "named.index"))
    return tmp_path


@pytest.mark.parametrize(
    "name", ["list.parquet", "wide.parquet", "wide.csv", "named.safetensors", "named.pt", "named.index"]
)
def test_files_with_ids_are_put_in_order(files, name):
    np.testing.assert_array_equal(read_vectors(files / name, WANTED), EXPECTED)


@pytest.mark.parametrize("name", ["bare.npy", "bare.safetensors", "bare.pt", "bare.faiss"])
@pytest.mark.parametrize("ids", ["ids.npy", "list.parquet", IDS])
def test_files_without_ids_take_those_given(files, name, ids):
    given = ids if isinstance(ids, np.ndarray) else files / ids
    np.testing.assert_array_equal(read_vectors(files / name, WANTED, ids=given), EXPECTED)


def test_double_precision_stays(files):
    precise = MATRIX.astype(np.float64) + 1e-12
    save_file({"item_ids": torch.from_numpy(IDS), "embeddings": torch.from_numpy(precise)}, files / "d.safetensors")
    np.testing.assert_array_equal(read_vectors(files / "d.safetensors", IDS), precise)


def test_string_ids(files):
    table(["c", "a", "b"]).write_parquet(files / "text.parquet")
    np.testing.assert_array_equal(read_vectors(files / "text.parquet", np.array(["a", "c"])), EXPECTED)


def test_rows_without_ids_are_never_guessed(files):
    with pytest.raises(ConfigError, match=r"bare\.npy: its rows have no ids\. Set row_ids=FILE .* set data\.items"):
        read_vectors(files / "bare.npy", WANTED)
    with pytest.raises(ShapeError, match=r"bare\.npy: there are 3 rows for 2 ids"):
        read_vectors(files / "bare.npy", WANTED, ids=WANTED)


def test_missing_and_repeated_items_are_named(files):
    with pytest.raises(ItemError, match=r"list\.parquet: 7 of 9 item ids .* 3 items: 1, 2, 3, 4, 5 and 2 more\."):
        read_vectors(files / "list.parquet", np.array([1, 2, 3, 4, 5, 6, 7, 10, 20]))
    with pytest.raises(ItemError, match=r"ids are integers \(30\) and the others strings \('a'\)"):
        read_vectors(files / "list.parquet", np.array(["a"]))
    table([10, 20, 10]).write_parquet(files / "twice.parquet")
    with pytest.raises(ItemError, match=r"twice\.parquet: item ids occur more than once: 10\."):
        read_vectors(files / "twice.parquet", WANTED)


def test_only_the_vectors_of_wanted_items_must_be_finite(files):
    broken = MATRIX.copy()
    broken[0, 1] = np.nan
    np.save(files / "nan.npy", broken)
    assert read_vectors(files / "nan.npy", np.array([10, 20]), ids=IDS).shape == (2, 2)
    with pytest.raises(NonFiniteError, match=r"nan\.npy: .*1 of 2 items hold NaN or infinity: item ids 30\."):
        read_vectors(files / "nan.npy", WANTED, ids=IDS)


def test_files_that_are_no_matrix_say_what_they_are(files):
    with pytest.raises(ConfigError, match=r"gone\.npy: the file .*gone\.npy does not exist"):
        read_vectors(files / "gone.npy", WANTED)
    (files / "a.pkl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"a\.pkl: expected a file that ends in one of \.npy, \.safetensors"):
        read_vectors(files / "a.pkl", WANTED)
    np.save(files / "flat.npy", MATRIX[:, 0])
    with pytest.raises(ShapeError, match=r"expected a matrix \[num_items, dim\] of floats, got shape \[3\] of float32"):
        read_vectors(files / "flat.npy", WANTED, ids=IDS)
    np.save(files / "counts.npy", np.ones((3, 2), dtype=np.int64))
    with pytest.raises(ShapeError, match=r"got shape \[3, 2\] of int64"):
        read_vectors(files / "counts.npy", WANTED, ids=IDS)
    save_file({"a": torch.zeros(3, 2), "b": torch.zeros(3)}, files / "two.safetensors")
    with pytest.raises(ShapeError, match=r"expected the tensors item_ids and embeddings, .* got \['a', 'b'\]"):
        read_vectors(files / "two.safetensors", WANTED)
    (files / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(ItemError, match=r"cut\.parquet: The table of embeddings .* cannot be read"):
        read_vectors(files / "cut.parquet", WANTED)


def test_tables_need_an_id_and_nothing_but_vectors(files):
    with pytest.raises(ItemError, match=r"list\.parquet: The table of embeddings has no column 'sku'; it has"):
        read_vectors(files / "list.parquet", WANTED, id_column="sku")
    table().with_columns(title=pl.lit("x")).drop("vector").write_parquet(files / "title.parquet")
    with pytest.raises(ItemError, match=r"expected beside .item_id. one column of lists, .* got \{'title': String\}"):
        read_vectors(files / "title.parquet", WANTED)
    table().with_columns(title=pl.lit("x")).write_parquet(files / "titled.parquet")
    np.testing.assert_array_equal(read_vectors(files / "titled.parquet", WANTED), EXPECTED)
    table().with_columns(second=pl.col("vector")).write_parquet(files / "two.parquet")
    with pytest.raises(ItemError, match=r"one column of lists"):
        read_vectors(files / "two.parquet", WANTED)


@pytest.mark.parametrize("ids", [MATRIX, MATRIX[:, 0]])
def test_ids_must_be_a_list_of_ids(files, ids):
    np.save(files / "odd.npy", ids)
    with pytest.raises(ShapeError, match=r"expected a list of integer or string ids in odd\.npy, got shape"):
        read_vectors(files / "bare.npy", WANTED, ids=files / "odd.npy")


def test_compressed_text_and_arrow_hold_vectors_too(files):
    wide = pl.DataFrame({"item_id": IDS, "a": MATRIX[:, 0], "b": MATRIX[:, 1]})
    wide.write_csv(files / "wide.csv.zst", compression="zstd")
    wide.write_ipc(files / "wide.feather")
    for name in ("wide.csv.zst", "wide.feather"):
        np.testing.assert_array_equal(read_vectors(files / name, WANTED), EXPECTED)


def test_an_inverted_index_gives_its_vectors_by_row(files):
    quantizer = faiss.IndexFlatL2(2)
    index = faiss.IndexIVFFlat(quantizer, 2, 1)
    index.train(MATRIX)
    index.add(MATRIX)
    faiss.write_index(index, str(files / "inverted.faiss"))
    np.testing.assert_array_equal(read_vectors(files / "inverted.faiss", WANTED, ids=IDS), EXPECTED)


def test_a_compressed_index_is_named_as_an_approximation(files):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 4)).astype(np.float32)
    index = faiss.index_factory(4, "SQ4")
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(files / "small.faiss"))
    with pytest.warns(LisWarning, match=r"small\.faiss is a compressed index \(IndexScalarQuantizer\)"):
        close = read_vectors(files / "small.faiss", np.arange(300), ids=np.arange(300))
    assert 0 < np.abs(close - vectors).max() < 0.5


def test_a_file_of_objects_runs_no_code(files):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save(Code(), files / "code.pt")
    with pytest.raises(ShapeError, match=r"code\.pt are not a matrix of numbers: Weights only load failed"):
        read_vectors(files / "code.pt", WANTED, ids=IDS)
    (files / "text.faiss").write_text("no index")
    with pytest.raises(ShapeError, match=r"text\.faiss are not a matrix of numbers"):
        read_vectors(files / "text.faiss", WANTED, ids=IDS)
