"""A thread that lasts as long as this process, for starting servers from trio.

The kernel stops a server when the thread that started it ends, and trio's worker threads end when they idle.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import trio

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starts servers")


async def in_lasting_thread(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """Call a function that starts a server, and wait for it."""
    return await trio.to_thread.run_sync(lambda: _thread.submit(function, *arguments, **keywords).result())
