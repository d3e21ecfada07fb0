from __future__ import annotations

import threading

from llf_widgets.monitor.snapshot import Poller


def test_ends_by_itself_when_nothing_more_comes():
    looks = []
    poller = Poller(lambda: looks.append(1), lambda _: None, "test")
    poller.start()
    assert poller.join(60)
    assert (len(looks), poller.is_alive) == (1, False)


def test_an_error_becomes_a_sentence_and_the_next_look_is_made(capfd):
    said, results = [], iter([ZeroDivisionError("boom"), None])

    def poll():
        result = next(results)
        if result is not None:
            raise result

    poller = Poller(poll, said.append, "test")
    poller.start()
    assert poller.join(60)
    assert said[0].startswith("This view could not read the run (ZeroDivisionError: boom). The run is not affected")
    assert said[-1] == ""
    assert capfd.readouterr() == ("", "")  # it would be printed into whichever cell is running


def test_stops_when_even_the_complaint_fails():
    def broken(_):
        raise RuntimeError("the widget is closed")

    poller = Poller(lambda: 1 / 0, broken, "test")
    poller.start()
    assert poller.join(60)


def test_a_start_during_the_last_look_is_not_lost():
    inside, go_on, looks = threading.Event(), threading.Event(), []

    def poll():
        looks.append(1)
        inside.set()
        go_on.wait(60)

    poller = Poller(poll, lambda _: None, "test")
    poller.start()
    assert inside.wait(60)
    poller.start()
    go_on.set()
    assert poller.join(60)
    assert len(looks) == 2


def test_stop_ends_it_without_waiting_for_the_rest(monkeypatch):
    monkeypatch.setattr("llf_widgets.monitor.snapshot.MAX_INTERVAL", 1000.0)
    seen = threading.Event()

    def poll():
        seen.set()
        return 1000.0

    poller = Poller(poll, lambda _: None, "test")
    poller.start()
    assert seen.wait(60)
    poller.stop()
    assert poller.join(60)
