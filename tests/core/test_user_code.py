"""Stopping the threads that run user code: what is raised there, and what never is."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from core.bench import until
from kitaru_nb.core import interrupts
from kitaru_nb.core.interrupts import UserCode
from kitaru_nb.errors import Paused


def test_an_exception_arrives_in_user_code_only() -> None:
    user_code = UserCode()
    inside, outside, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        user_code.enter()
        user_code.leave()
        outside.set()
        inside.wait(60)
        seen.append("the runtime's own code is not cut off")
        try:
            user_code.enter()
            seen.append("entered")
            while True:
                pass
        except Paused:
            seen.append("paused")
        finally:
            user_code.leave()

    thread = threading.Thread(target=work)
    thread.start()
    outside.wait(60)
    user_code.stop()
    inside.set()
    until(lambda: "entered" in seen)
    user_code.stop()
    thread.join(60)
    assert seen == ["the runtime's own code is not cut off", "entered", "paused"]


def test_what_was_sent_and_did_not_arrive_is_taken_back_on_leaving() -> None:
    user_code = UserCode()
    seen: list[str] = []
    blocked, sent = threading.Lock(), threading.Event()
    blocked.acquire()

    def work() -> None:
        user_code.enter()
        try:
            sent.set()
            blocked.acquire()  # inside C: the exception waits until this returns
            user_code.leave()
            seen.append("left")
        except Paused:
            user_code.leave()
            seen.append("paused")
        for _ in range(1000):
            pass
        seen.append("unharmed")

    thread = threading.Thread(target=work)
    thread.start()
    sent.wait(60)
    user_code.stop()
    blocked.release()
    thread.join(60)
    assert seen[-1] == "unharmed"


def test_nothing_is_left_pending_after_a_thread_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception was sent while the thread was on its way out: what arrived too late must not hit other code."""
    sent: list[Any] = []
    monkeypatch.setattr(interrupts, "_raise_in", lambda thread, error: sent.append((thread, error)))
    user_code = UserCode()
    user_code.enter()
    me = threading.get_ident()
    stopper = threading.Thread(target=user_code.stop)
    stopper.start()
    stopper.join()
    assert sent == [(me, Paused)]
    assert user_code.leave() is True
    assert sent == [(me, Paused), (me, None)]
    assert user_code.leave() is False


def test_a_thread_that_was_told_to_end_does_so_when_it_comes_back_to_user_code() -> None:
    user_code = UserCode()
    over = threading.Event()
    user_code.end(threading.get_ident(), over)
    with pytest.raises(SystemExit):
        user_code.enter()
    user_code.ended(over)
    user_code.end(threading.get_ident(), over)  # too late: the id may be that of another thread now
    user_code.enter()
    assert user_code.leave()
