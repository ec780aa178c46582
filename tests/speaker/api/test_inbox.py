"""Calls from other threads: in order, counted, and the loop wakes up for them."""

from __future__ import annotations

import select
import threading

from speaker.api.inbox import Inbox


def readable(inbox: Inbox) -> bool:
    return bool(select.select([inbox], [], [], 0.0)[0])


def test_calls_are_made_in_order_and_one_that_makes_another_is_followed_by_it() -> None:
    inbox, made = Inbox(), list[int]()
    assert not readable(inbox)
    inbox.put(lambda: inbox.put(lambda: made.append(3)))
    inbox.put(lambda: made.append(1))
    inbox.put(lambda: made.append(2))
    assert readable(inbox)
    inbox.awake()
    assert not readable(inbox)
    inbox.take_all()
    assert made == [1, 2, 3]
    assert inbox.taken == 4
    assert readable(inbox), "for the call that came meanwhile, which costs one more look"
    inbox.awake()
    inbox.take_all()
    assert inbox.taken == 4


def test_many_threads_lose_nothing() -> None:
    inbox, made = Inbox(), list[int]()

    def put_many() -> None:
        for _ in range(200):
            inbox.put(lambda: made.append(1))

    threads = [threading.Thread(target=put_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readable(inbox)
    inbox.awake()
    inbox.take_all()
    assert len(made) == inbox.taken == 800


def test_waking_makes_no_call() -> None:
    inbox = Inbox()
    inbox.wake()
    assert readable(inbox)
    inbox.awake()
    inbox.take_all()
    assert inbox.taken == 0
