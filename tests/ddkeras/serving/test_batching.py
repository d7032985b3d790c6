"""Dynamic batching: sizes, delays, failures and the limit of the queue."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from ddkeras.serving.batching import Batcher, QueueFullError


def batched(requests: list[list[bytes]], **sizes) -> tuple[list[list[bytes]], list]:
    """The batches that concurrent requests are scored in, and their results: the last byte of each image."""
    batches = []

    def compute(images: list[bytes]) -> list[int]:
        batches.append(images)
        time.sleep(0.02)
        if b"boom" in images:
            raise MemoryError("boom")
        return [image[-1] for image in images]

    async def submit_all():
        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(compute, pool, **{"max_batch": 4, "max_delay": 0.05, "max_queue": 100} | sizes)
            return await asyncio.gather(*(batcher.submit(images) for images in requests), return_exceptions=True)

    return batches, asyncio.run(submit_all())


def test_concurrent_requests_share_batches_of_limited_size():
    requests = [[bytes([index])] for index in range(30)]
    batches, answers = batched(requests)
    assert answers == [[index] for index in range(30)]
    assert max(map(len, batches)) == 4
    assert len(batches) <= 9


def test_a_request_may_be_split_over_batches():
    batches, answers = batched([[bytes([index]) for index in range(10)], [b"\xff"]])
    assert answers == [list(range(10)), [255]]
    assert sorted(map(len, batches)) == [3, 4, 4]


def test_a_single_image_waits_no_longer_than_the_delay():
    begun = time.monotonic()
    batches, answers = batched([[b"a"]], max_delay=0.1)
    assert (batches, answers) == ([[b"a"]], [[97]])
    assert 0.1 < time.monotonic() - begun < 0.6


def test_images_of_a_request_that_is_cancelled_are_dropped():
    batches = []

    def compute(images: list[bytes]) -> list[int]:
        batches.append(images)
        time.sleep(0.1)
        return [0] * len(images)

    async def cancel_one():
        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(compute, pool, max_batch=2, max_delay=0, max_queue=100)
            first, second = (asyncio.create_task(batcher.submit([name] * 4)) for name in (b"a", b"b"))
            await asyncio.sleep(0.05)
            first.cancel()
            assert await second == [0] * 4
            assert batcher.queued == 0

    asyncio.run(cancel_one())
    assert batches == [[b"a", b"a"], [b"b", b"b"], [b"b", b"b"]]


def test_a_failed_batch_fails_only_its_own_requests():
    _, answers = batched([[b"boom"], [b"b"], [b"c"]], max_batch=1)
    assert isinstance(answers[0], MemoryError)
    assert answers[1:] == [[98], [99]]


def test_a_full_queue_rejects_but_an_empty_one_never_does():
    _, answers = batched([[b"a"] * 9, [b"b"]], max_queue=5)
    assert answers[0] == [97] * 9
    assert isinstance(answers[1], QueueFullError)
    assert batched([[]])[1] == [[]]
