"""How a coroutine waits for a thread."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

from recfs.client.waiting import abandoned


def test_what_a_thread_comes_to_after_it_was_given_up_is_no_error_of_the_loop() -> None:
    stopped, said = threading.Event(), list[dict[str, Any]]()

    def call() -> None:
        assert stopped.wait(60)
        raise ConnectionResetError("it was stopped")

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: said.append(context))
        before = set(threading.enumerate())
        asking = asyncio.create_task(abandoned(call, stopped.set))
        await asyncio.sleep(0)
        (thread,) = set(threading.enumerate()) - before
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        await asyncio.to_thread(thread.join)
        del asking, thread
        for _ in range(3):  # the thread tells the loop, the loop the future, the future who listens
            await asyncio.sleep(0)
        gc.collect()  # a future that goes tells the loop of an exception that nobody has asked for

    asyncio.run(story())
    assert said == []
