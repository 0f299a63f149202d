"""Blocking calls from coroutines, on asyncio (with the standard library alone) and on trio (by anyio).

A call that was begun is waited for, whatever cancels its caller: what it made can be taken away again then.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from recfs.client.errors import ExtraMissing

T = TypeVar("T")


def on_asyncio() -> bool:
    """Whether the running task is one of asyncio."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _anyio() -> Any:
    """anyio; ExtraMissing without it."""
    try:
        import anyio
        import anyio.lowlevel
        import anyio.to_thread
    except ImportError as error:
        raise ExtraMissing("another event loop than asyncio takes anyio: pip install 'recfs[client]'") from error
    return anyio


def _shield() -> contextlib.AbstractContextManager[Any]:
    """On asyncio: keep anyio, where it is in use, from cancelling what would only go on waiting."""
    try:
        import anyio
    except ImportError:
        return contextlib.nullcontext()
    shield: contextlib.AbstractContextManager[Any] = anyio.CancelScope(shield=True)
    return shield


async def in_thread(call: Callable[[], T]) -> T:
    """Run *call* in a thread and wait for its end. A cancellation meanwhile is raised when it has ended."""
    if not on_asyncio():
        anyio = _anyio()
        with anyio.CancelScope(shield=True):
            result: T = await anyio.to_thread.run_sync(call)
        return result
    future = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled: asyncio.CancelledError | None = None
    with _shield():
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        future.exception()  # which nobody will ask for any more
        raise cancelled
    return future.result()


async def abandoned(call: Callable[[], T], stop: Callable[[], object]) -> T:
    """Run *call* in a thread; a cancellation calls *stop*, which ends it, and is raised at once.

    The thread is its own: what waits for long takes no place of the loop's threads, which are few.
    """
    if on_asyncio():
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        threading.Thread(target=_run, args=(call, future), daemon=True).start()
        waited = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waited)
        except asyncio.CancelledError:
            waited.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody will ask for it
            stop()
            raise
    anyio = _anyio()
    try:
        limiter = anyio.CapacityLimiter(1)
        result: T = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
    except BaseException:
        stop()
        raise
    return result


def _run(call: Callable[[], T], future: concurrent.futures.Future[T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)


async def checkpoint() -> None:
    """Let others have their turn; raise what cancels the caller."""
    await (asyncio.sleep(0) if on_asyncio() else _anyio().lowlevel.checkpoint())


async def sleep(seconds: float) -> None:
    """Sleep in either event loop."""
    await (asyncio.sleep(seconds) if on_asyncio() else _anyio().sleep(seconds))


__all__ = ["abandoned", "checkpoint", "in_thread", "on_asyncio", "sleep"]
