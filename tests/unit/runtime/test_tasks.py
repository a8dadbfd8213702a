"""Tasks that nobody awaits, and waits with a limit."""

import asyncio

from watcher.runtime.tasks import start_task, stop_task, wait_at_most


async def test_only_the_error_of_a_task_is_passed_on_and_not_its_end_or_its_cancellation() -> None:
    failed, errors = ValueError(), list[BaseException]()

    async def fail() -> None:
        raise failed

    await asyncio.wait([start_task(fail(), fatal=errors.append), start_task(asyncio.sleep(0), fatal=errors.append)])
    await stop_task(start_task(asyncio.sleep(1000), fatal=errors.append))
    assert errors == [failed]


async def test_a_stopped_task_has_ended_and_no_task_is_stopped_at_once() -> None:
    task = asyncio.create_task(asyncio.sleep(1000))
    await stop_task(task)
    await stop_task(None)
    assert task.cancelled()


async def test_a_wait_gives_the_result_and_ends_without_one_after_its_time() -> None:
    asked = asyncio.Event()
    assert await wait_at_most(1000, asyncio.sleep(0, "done")) == "done"
    assert await wait_at_most(0, asked.wait()) is None
