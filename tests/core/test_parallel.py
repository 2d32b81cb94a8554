"""Work on several threads comes back in order, works ahead no further than asked, and loses no error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stf_depth.parallel import delayed, mapped_ahead, thread_pool


@pytest.mark.parametrize("ahead", [0, 1, 5, 50])
def test_results_come_in_the_order_of_the_items(ahead: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    with ThreadPoolExecutor(4) as pool:
        assert list(mapped_ahead(slow_first, range(20), pool, ahead=ahead)) == [item * item for item in range(20)]


def test_items_are_taken_no_further_ahead_than_asked() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    with thread_pool() as pool:
        results = mapped_ahead(abs, items(), pool, ahead=3)
        assert [next(results), next(results)] == [0, 1]
        assert len(taken) == 2 + 3


def test_an_error_is_raised_in_its_place() -> None:
    with thread_pool() as pool:
        results = mapped_ahead(lambda item: 1 // item, [2, 1, 0, 1], pool, ahead=2)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_an_item_waits_for_the_one_behind_it() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(5):
            taken.append(item)
            yield item

    seen = [(item, len(taken)) for item in delayed(items(), 2)]
    assert seen == [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5)]
