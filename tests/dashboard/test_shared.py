"""Answers that many ask for."""

import pytest
import trio

from collector.dashboard.shared import SharedAnswers


async def test_many_who_ask_cost_one_answer(autojump_clock: object) -> None:
    """Prevents a database that is asked for the same chart by every open page, or a chart that stands still."""
    shared, read = SharedAnswers(), []

    async def answer() -> int:
        read.append(trio.current_time())
        await trio.sleep(1)
        return len(read)

    answers: list[int] = []

    async def ask(question: str) -> None:
        answers.append(await shared.get(question, 10, answer))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask, "candles")
    assert answers == [1] * 20
    await trio.sleep(8)
    await ask("candles")
    await ask("coverage")
    await trio.sleep(2)
    await ask("candles")
    assert answers[20:] == [1, 2, 3]


async def test_answer_that_failed_is_not_kept() -> None:
    """Prevents an outage that lasts for as long as an answer would have."""
    shared = SharedAnswers()

    async def fail() -> int:
        raise OSError

    async def answer() -> int:
        return 1

    with pytest.raises(OSError):  # noqa: PT011 - whichever
        await shared.get("question", 10, fail)
    assert await shared.get("question", 10, answer) == 1
