import copy
import gc
import json
import pickle
import subprocess
import warnings
import weakref

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from matplotlib import pyplot
from torch import nn
from torchmetrics import MeanMetric, MetricCollection

from lis_lightning import LeakageImpactScore, PreferenceSplit
from lis_lightning.errors import ConfigError, NonFiniteError, ShapeError, SnapshotError
from lis_lightning.scoring import base_ranker as base, ceiling
from tests._helpers import module_command, module_environment

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture
def metric(split):
    return LeakageImpactScore(split)


@pytest.fixture(scope="module")
def rows(latents):
    return torch.from_numpy(latents).float()


def feed(metric, split, rows, batch=7, seed=0):
    order = np.random.default_rng(seed).permutation(split.num_items)
    for part in np.array_split(order, split.num_items // batch):
        metric.update(split.item_ids[part], rows[part])


def expected(split, rows, **options):
    return split.score(rows, placebo=False, **options).scalars(more=False)


def assert_same(got, want):
    assert set(got) == set(want)
    assert all(value.dtype == torch.float64 and value.ndim == 0 for value in got.values())
    torch.testing.assert_close([got[name].item() for name in want], list(want.values()), rtol=0, atol=0, equal_nan=True)


# --- the class equals the function ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_class_equals_the_function_to_the_bit(metric, split, rows, dtype):
    feed(metric, split, rows.to(dtype))
    assert_same(metric.compute(), expected(split, rows.to(dtype)))


def test_options_reach_the_function(split, rows):
    options = {"ceilings": ("ids",), "aligned_to": "ids", "k": 2}
    metric = LeakageImpactScore(split, placebo=True, **options)
    feed(metric, split, rows)
    assert_same(metric.compute(), expected(split, rows, **options))
    result = metric.result()
    assert result.aligned_to == "ids"
    assert result.placebo is not None
    assert result.placebo.permuted == split.score(rows, **options).placebo.permuted


def test_batches_are_called_as_torchmetrics_own_tester_does(split, rows):
    """Script, clone, pickle, call on batches that hold all items, compare each and then all with the function."""
    metric = LeakageImpactScore(split)
    for constant in ("is_differentiable", "higher_is_better", "full_state_update"):
        with pytest.raises(RuntimeError, match=constant):
            setattr(metric, constant, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: TorchScript has no future
        torch.jit.script(metric)
    assert type(metric.clone()) is LeakageImpactScore
    metric = pickle.loads(pickle.dumps(metric))
    noise = torch.randn(3, *rows.shape, generator=torch.Generator().manual_seed(0))
    batches = [rows + 0.3 * part for part in noise]
    for batch in batches:
        assert_same(metric(split.item_ids, batch), expected(split, batch))
    assert isinstance(hash(metric), int)
    assert metric.state_dict() == {}
    assert_same(metric.compute(), expected(split, torch.stack(batches).double().mean(0).float()))
    assert not any(value.requires_grad for value in metric.compute().values())


def test_two_processes(tmp_path):
    command = module_command("_helpers.ddp_metric", tmp_path)
    processes = [
        subprocess.Popen(
            [*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=module_environment()
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert len(json.loads((tmp_path / "rank-1.json").read_text())) == 10


# --- what is added --------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from(FLOATS))
def test_neither_order_nor_batches_nor_repeats_matter(split, seed, batch, dtype):
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(split.num_items), rng.integers(0, split.num_items, 50)])
    values = torch.from_numpy(rng.standard_normal((order.size, 4))).to(dtype)
    one, other = LeakageImpactScore(split), LeakageImpactScore(split)
    one.update(split.item_ids[order], values)
    shuffled = rng.permutation(order.size)
    for part in np.array_split(shuffled, -(-order.size // batch)):
        other.update(torch.from_numpy(split.item_ids[order[part]]), values[part])
    exact = np.stack([values.double().numpy()[order == row].mean(0) for row in range(split.num_items)])
    if dtype == torch.float64:  # the one type whose sums round
        torch.testing.assert_close(one.embeddings(), other.embeddings(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(one.embeddings(), exact, rtol=1e-12, atol=1e-14)
    else:
        assert torch.equal(one.embeddings(), other.embeddings())
        np.testing.assert_array_equal(one.embeddings(), exact.astype(np.float32))


def test_equal_rows_average_exactly(metric, split, rows):
    for _ in range(3):  # a third is no float: sums in the type of what comes in would be off by a bit
        feed(metric, split, rows / 3)
    assert torch.equal(metric.embeddings(), rows / 3)


def test_items_outside_the_split_are_left_out(metric, split, rows):
    feed(metric, split, rows)
    metric.update([-1, int(split.item_ids[0]), -2], torch.stack([rows[1], rows[0], torch.full((4,), torch.nan)]))
    assert torch.equal(metric.embeddings(), rows)
    assert metric.count.sum() == split.num_items + 1


def test_gradients_do_not_pass(metric, split, rows):
    tracked = rows.clone().requires_grad_()
    with torch.enable_grad():
        metric.update(split.item_ids, tracked)
    assert not metric.sum.requires_grad


def test_forward_of_some_items_adds_them_and_scores_nothing(metric, split, rows):
    assert metric(split.item_ids[:5], rows[:5]) == {}
    assert metric(split.item_ids[5:], rows[5:]) == {}
    assert_same(metric.compute(), expected(split, rows))


def test_forward_of_all_items_scores_them_alone(metric, split, rows):
    metric(split.item_ids, -rows)
    assert_same(metric(item_ids=split.item_ids, embeddings=rows.flip(1)), expected(split, rows.flip(1)))
    assert torch.equal(metric.embeddings(), (rows.flip(1) - rows) / 2)
    assert metric.update_count == 2


def test_finite_numbers_whose_sum_is_not_are_welcome(metric, split):
    values = torch.full((split.num_items, 2), 3e38)
    metric.update(split.item_ids, values)
    assert torch.equal(metric.embeddings(), values)


# --- states ---------------------------------------------------------------------------------------------------------


def test_reset_clone_pickle_and_copy_keep_the_state(metric, split, rows):
    feed(metric, split, rows)
    for other in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(other.embeddings(), rows)
        assert other.split.hash == split.hash
        other.update(split.item_ids[:1], -rows[:1])
        assert torch.equal(metric.embeddings(), rows), "a copy shares its state"
    assert metric.clone().split is split
    metric.reset()
    assert metric.sum.numel() == 0, "the memory is given back"
    assert not metric.count.any()
    metric.update(split.item_ids, torch.zeros(split.num_items, 7))  # another width


def test_base_and_ceilings_are_computed_once_for_all_copies(split, rows, monkeypatch):
    monkeypatch.setenv("LIS_CACHE", "off")
    fresh = pickle.loads(pickle.dumps(split))  # of the same content, with nothing computed
    fresh.__dict__["hash"] = "only here"
    calls = []
    for module, name in ((base, "_prepare"), (ceiling, "_measure")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, f=original, n=name: (calls.append(n), f(*args))[1])
    metric = LeakageImpactScore(fresh, cache_dir="off")
    feed(metric, fresh, rows)
    value = metric.compute()
    assert sorted(calls) == ["_measure", "_measure", "_prepare"]
    calls.clear()
    copies = [metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), LeakageImpactScore(fresh)]
    feed(copies[-1], fresh, rows)
    for other in copies:
        other._computed = None
        assert_same(other.compute(), {name: number.item() for name, number in value.items()})
    assert calls == []


def test_compute_is_cached_until_something_is_added(metric, split, rows, monkeypatch):
    feed(metric, split, rows)
    first = metric.compute()
    assert metric.compute() is first
    metric.update(split.item_ids, rows.flip(1))
    second = metric.compute()
    assert second["ais"] != first["ais"]
    other = LeakageImpactScore(split)
    feed(other, split, -rows)
    metric.merge_state(other)
    assert metric.compute()["ais"] != second["ais"]


def test_states_are_saved_on_demand_and_load_into_a_fresh_metric(split, rows):
    module, fresh = nn.ModuleDict({"lis": LeakageImpactScore(split)}), nn.ModuleDict({"lis": LeakageImpactScore(split)})
    feed(module["lis"], split, rows.double())
    module["lis"].persistent(True)
    fresh["lis"].load_state_dict(copy.deepcopy(module["lis"]).state_dict())
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh["lis"].embeddings(), rows.double())
    assert_same(fresh["lis"].compute(), expected(split, rows.double()))
    fresh["lis"].reset()
    feed(fresh["lis"], split, rows)
    assert torch.equal(fresh["lis"].embeddings(), rows)


def test_loading_forgets_what_was_computed(metric, split, rows):
    feed(metric, split, rows)
    before = metric.compute()
    other = LeakageImpactScore(split)
    feed(other, split, rows.square())
    other.persistent(True)
    metric.load_state_dict(other.state_dict())
    assert metric.compute()["ais"] != before["ais"]


def test_states_of_another_split_are_refused(metric, split, log):
    other = LeakageImpactScore(PreferenceSplit.from_log(log.with_columns(log["item_id"] + 10_000)))
    other.persistent(True)
    for take in (lambda: metric.load_state_dict(other.state_dict()), lambda: metric.merge_state(other)):
        with pytest.raises(ShapeError, match=rf"the same {split.num_items} items.*{split.hash}.*another split"):
            take()


def test_merging_states_as_ranks_do(split, rows):
    whole, first, second, nothing = (LeakageImpactScore(split) for _ in range(4))
    feed(whole, split, rows)
    first.update(split.item_ids[:11], rows[:11])
    second.update(split.item_ids[11:], rows[11:])
    nothing.merge_state(first)
    nothing.merge_state(second)
    nothing.merge_state(LeakageImpactScore(split))
    assert torch.equal(nothing.embeddings(), whole.embeddings())
    assert_same(nothing.compute(), expected(split, rows))


@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.half(), lambda m: m.set_dtype(torch.float16), lambda m: m.to(torch.bfloat16), lambda m: m.float(),
        lambda m: nn.Sequential(m).half()[0], lambda m: nn.Sequential(m).to("cpu", torch.float16)[0],
    ],
    ids=["half", "set_dtype", "to", "float", "module.half", "module.to"],
)  # fmt: skip
def test_casting_leaves_the_sums_alone(metric, split, rows, cast):
    feed(metric, split, rows)
    value = metric.compute()["ais"]
    metric = cast(metric)
    assert metric.sum.dtype == torch.float64
    assert metric.count.dtype == torch.int64
    assert torch.equal(metric.embeddings(), rows)
    assert metric.compute()["ais"] == value


def test_moving_moves(metric, split, rows):
    feed(metric, split, rows)
    moved = metric.clone().to("meta")
    assert {state.device.type for state in moved.metric_state.values()} == {"meta"}
    assert moved.device.type == "meta"


@pytest.mark.gpu
def test_on_cuda(metric, split, rows):
    feed(metric, split, rows)
    on_cuda = LeakageImpactScore(split).to("cuda")
    on_cuda.update(torch.from_numpy(split.item_ids).cuda(), rows.cuda())
    on_cuda.update(split.item_ids, rows)  # states decide where
    assert torch.equal(on_cuda.embeddings().cpu(), rows)
    got, want = on_cuda.compute(), metric.compute()
    assert {value.device.type for value in got.values()} == {"cuda"}
    for name, value in want.items():
        torch.testing.assert_close(
            got[name].cpu(), value, rtol=0, atol=1e-3 if "rankme" not in name else 0.1, equal_nan=True
        )


# --- in a collection ------------------------------------------------------------------------------------------------


def test_metrics_of_other_splits_keep_their_own_states(split, log, rows):
    later = PreferenceSplit.from_log(log, seed=1)
    other_items = PreferenceSplit.from_log(log.with_columns(log["item_id"] + 10_000))
    collection = MetricCollection(
        {"one": LeakageImpactScore(split), "more": LeakageImpactScore(later), "none": LeakageImpactScore(other_items)},
        prefix="val/",
    )
    for _ in range(2):  # torchmetrics compares states after the first update, here all zeros, and shares from then on
        collection.reset()
        collection.update([-1], torch.zeros(1, 4))
        collection.update(item_ids=split.item_ids, embeddings=rows)
        collection.update(other_items.item_ids, -rows)
    assert torch.equal(collection["none"].embeddings(), -rows)
    assert torch.equal(collection["one"].embeddings(), rows)
    got = collection.compute()
    assert got["val/one_ais"] == expected(split, rows)["ais"]
    assert got["val/more_ais"] == expected(later, rows)["ais"]
    assert got["val/none_ais"] == expected(other_items, -rows)["ais"]


def test_metrics_of_one_split_share_their_states(split, rows):
    collection = MetricCollection({f"k{k}": LeakageImpactScore(split, k=k) for k in (2, 16)})
    assert collection(split.item_ids[:9], rows[:9]) == {}
    collection.update(split.item_ids, rows)
    assert len(collection.compute_groups) == 1
    got = collection.compute()
    for k in (2, 16):
        assert got[f"k{k}_ais"] == expected(split, rows, k=k)["ais"]


def test_beside_another_metric_with_a_prefix(split, rows):
    collection = MetricCollection({"lis": LeakageImpactScore(split)}, prefix="val/")
    clone = collection.clone(prefix="test/")
    clone.update(split.item_ids, rows)
    assert clone.compute()["test/ais"] == expected(split, rows)["ais"]
    assert collection["lis"].count.sum() == 0
    assert isinstance(collection["lis"] + MeanMetric(), nn.Module)  # metrics compose; what of dicts is theirs to say


# --- plot -----------------------------------------------------------------------------------------------------------


def test_plot_shows_ais_with_its_interval(metric, split, rows):
    matplotlib.use("Agg")
    feed(metric, split, rows)
    value = metric.compute()
    figure, axes = metric.plot()
    assert [line.get_label() for line in axes.lines] == ["ais", "ais_low", "ais_high"]
    assert [line.get_ydata()[0] for line in axes.lines] == [value[name] for name in ("ais", "ais_low", "ais_high")]
    _, axes = metric.plot([value, {}, value], ax=figure.add_subplot())
    assert [len(line.get_ydata()) for line in axes.lines] == [2, 2, 2]
    MetricCollection({"lis": metric}).plot(together=True)
    pyplot.close("all")


# --- bad input ------------------------------------------------------------------------------------------------------


def test_missing_items_are_named(metric, split):
    metric.update(split.item_ids[2:], torch.randn(split.num_items - 2, 4))
    first, second = split.item_ids[:2]
    with pytest.raises(SnapshotError, match=rf"2 of {split.num_items} items.*\[{first}, {second}\].*must cover"):
        metric.compute()


def test_computing_before_anything_was_added_says_so(metric, split):
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.raises(SnapshotError, match="`update` first"):
        metric.compute()


def test_bad_updates_are_refused(metric, split):
    with pytest.raises(ShapeError, match=r"\[2, dim\] for 2 item ids, got \[3, 4\]"):
        metric.update([1000, 1001], torch.zeros(3, 4))
    with pytest.raises(ShapeError, match=r"float type, got torch.int64"):
        metric.update([1000], torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ShapeError, match="width at least 1, as before, got 0"):
        metric.update(split.item_ids[:1], torch.zeros(1, 0))
    metric.update(split.item_ids[:1], torch.zeros(1, 4))
    with pytest.raises(ShapeError, match="width 4, as before, got 5"):
        metric.update(split.item_ids[:1], torch.zeros(1, 5))
    with pytest.raises(ShapeError, match="width 3, as before, got 4"):
        LeakageImpactScore(split, dim=3).update(split.item_ids[:1], torch.zeros(1, 4))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_numbers_that_are_not_finite_are_refused_by_item(metric, split, dtype):
    for bad_value in (torch.inf, torch.nan):
        bad = torch.zeros(3, 4, dtype=dtype)
        bad[1, 0], bad[2, 0] = bad_value, -torch.inf
        with pytest.raises(NonFiniteError, match=rf"1 of 2 items of this batch, first for \[{split.item_ids[1]}\]"):
            metric.update([*split.item_ids[:2], -1], bad)
    assert not metric.count.any()


def test_options_are_checked_before_anything_is_encoded(split):
    with pytest.raises(ConfigError, match=r"among the ceilings \['ids'\], got 'pairs'"):
        LeakageImpactScore(split, ceilings=("ids",))


def test_nothing_is_kept_alive(log):
    split = PreferenceSplit.from_log(log, seed=5)
    metric = LeakageImpactScore(split, ceilings=())
    metric.update(split.item_ids, torch.randn(split.num_items, 3))
    metric.compute()
    watched = weakref.ref(split)
    del split, metric
    gc.collect()
    assert watched() is None
