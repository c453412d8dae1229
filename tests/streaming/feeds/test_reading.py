"""What the connections' readers stand on."""

import asyncio

from streaming.feeds.reading import cancel


def test_who_waits_for_the_end_of_a_task_can_be_cancelled() -> None:
    async def run() -> None:
        ending, over = asyncio.Event(), asyncio.Event()

        async def slow_to_end() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await over.wait()

        async def worker() -> None:
            task = asyncio.create_task(slow_to_end())
            await asyncio.sleep(0)
            await cancel(task)
            await asyncio.Event().wait()

        working = asyncio.create_task(worker())
        await ending.wait()
        working.cancel()
        over.set()
        done, _ = await asyncio.wait({working}, timeout=5)
        assert done
        assert working.cancelled()

    asyncio.run(run())
