"""Answers that many ask for: each is read once, and given to all until it is too old."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

import trio

Answer = TypeVar("Answer")


class SharedAnswers:
    """The last answer to each question. Who asks while it is being read waits for that."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._locks: dict[Hashable, trio.Lock] = {}

    async def get(self, question: Hashable, fresh_for: float, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer, no older than `fresh_for` seconds; what `read` raises is raised, and nothing is kept."""
        async with self._locks.setdefault(question, trio.Lock()):
            read_at, answer = self._answers.get(question, (-fresh_for, None))
            if trio.current_time() - read_at >= fresh_for:
                answer = await read()
                self._answers[question] = trio.current_time(), answer
        found: Answer = answer
        return found
