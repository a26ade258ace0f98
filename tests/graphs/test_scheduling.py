"""Tasks a few at a time: results in order and let go of, and nothing made that nobody needs."""

import threading
import time
import weakref

import pytest

from graphs.scheduling import scheduled


class Result:
    """Something that can be seen to be gone."""


def test_results_come_in_order_whatever_their_number():
    for number in range(6):
        with scheduled("threads", 2) as tasks:
            assert list(tasks.run(lambda i, j: i + j, ((i, 10) for i in range(number)))) == list(range(10, 10 + number))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_a_result_is_let_go_of_when_the_next_is_taken(scheduler):
    taken = []
    with scheduled(scheduler, 3) as tasks:
        for result in tasks.run(lambda _: Result(), ((i,) for i in range(9))):
            taken.append(weakref.ref(result))
            assert sum(each() is not None for each in taken[:-1]) <= 1
        assert len(taken) == 9


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_arguments_are_taken_a_batch_ahead_and_no_task_starts_after_an_error(error):
    asked, begun, gate = [], [], threading.Event()

    def arguments():
        for number in range(50):
            asked.append(number)
            yield (number,)

    def task(number):
        begun.append(number)
        if number >= 2:
            gate.wait(10)
        return number

    def use():
        with scheduled("threads", 2) as tasks:
            for _ in tasks.run(task, arguments()):
                while len(begun) < 4:
                    time.sleep(0.001)
                assert asked == [0, 1, 2, 3]
                threading.Timer(0.05, gate.set).start()
                raise error

    with pytest.raises(error):
        use()
    assert sorted(begun) == [0, 1, 2, 3]  # the error found two under way and waited for them


def test_a_task_that_fails_drops_those_behind_it():
    begun = []

    def task(number):
        begun.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"), scheduled("synchronous", 1) as tasks:
        list(tasks.run(task, ((number,) for number in range(9))))
    assert len(begun) <= 2
