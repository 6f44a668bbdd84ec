"""Blocks of a score run side by side, each on one thread, and no other thread's settings change."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from lis_lightning.functional.threads import block_threads, concurrently, map_blocks


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_thread(function):
    values = []
    thread = threading.Thread(target=lambda: values.append(function()))
    thread.start()
    thread.join()
    return values[0]


def test_every_block_runs_on_one_thread_and_they_overlap(two_threads):
    barrier = threading.Barrier(2, timeout=20)

    def block(number):
        barrier.wait()  # passes only if two blocks run at a time
        return number, torch.get_num_threads()

    with block_threads():
        assert list(map_blocks(block, range(4))) == [(number, 1) for number in range(4)]
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_threads_that_start_meanwhile_have_the_number_of_the_training(two_threads):
    with block_threads():
        list(map_blocks(abs, range(4)))
        assert in_thread(torch.get_num_threads) == 2
    assert in_thread(torch.get_num_threads) == 2


def test_a_background_thread_uses_one_thread_and_leaves_the_others(two_threads):
    entered, leave = threading.Event(), threading.Event()
    seen = []

    def work():
        with block_threads():
            seen.extend(map_blocks(lambda _: (threading.get_ident(), torch.get_num_threads()), range(2)))
            entered.set()
            leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    assert torch.get_num_threads() == 2
    assert in_thread(torch.get_num_threads) == 2
    leave.set()
    thread.join()
    assert seen == [(thread.ident, 1)] * 2


def test_the_first_exception_is_raised_and_the_settings_are_restored(two_threads):
    def block(number):
        if number == 1:
            raise ValueError("block 1")
        time.sleep(0.01)
        return number

    with pytest.raises(ValueError, match="block 1"), block_threads():
        list(map_blocks(block, range(100)))
    assert torch.get_num_threads() == 2


def test_without_the_context_blocks_run_in_order_in_this_thread():
    assert list(map_blocks(lambda number: (number, threading.get_ident()), range(2))) == [
        (number, threading.get_ident()) for number in range(2)
    ]
    assert concurrently(lambda: 1, lambda: 2) == [1, 2]


def test_a_block_within_a_block_runs_in_its_thread(two_threads):
    def outer(number):
        return list(map_blocks(lambda _: threading.get_ident(), range(2))) == [threading.get_ident()] * 2

    with block_threads():
        assert all(map_blocks(outer, range(3)))
        with block_threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
