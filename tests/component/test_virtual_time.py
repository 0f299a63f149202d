"""The clock of the component tests beside threads that are slow."""

import threading

import trio

from tests.helpers import virtual_time


def test_a_slow_thread_does_not_end_a_long_wait() -> None:
    """Which is the only timer there is: nothing else has time pass in small steps."""

    async def main() -> float:
        start_s = trio.current_time()
        with trio.move_on_after(1000):
            await trio.to_thread.run_sync(threading.Event().wait, 5 * virtual_time.PATIENCE_S)
        return trio.current_time() - start_s

    assert virtual_time.run(main) < 1000


def test_a_thread_that_waits_for_time_to_pass_has_it_pass() -> None:
    passed = threading.Event()

    async def later() -> None:
        await trio.sleep(20)
        passed.set()

    async def main() -> bool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            return await trio.to_thread.run_sync(passed.wait, 10)

    assert virtual_time.run(main)


def test_without_threads_it_jumps_as_far_as_there_is_nothing_to_do() -> None:
    async def main() -> float:
        start_s = trio.current_time()
        await trio.sleep(86_400)
        return trio.current_time() - start_s

    assert virtual_time.run(main) >= 86_400
