"""A map whose results nobody wants any more."""

from threading import Event, Timer

from efficientnet_finetuning.data.threads import map_in_threads


def test_giving_up_does_not_wait_for_items_in_flight():
    go_on = Event()
    timer = Timer(10, go_on.set)
    timer.start()
    results = map_in_threads(lambda item: item < 8 or go_on.wait(), range(1000))
    assert next(results)
    results.close()
    assert not go_on.is_set(), "closing waited for an item"
    go_on.set()
    timer.cancel()
