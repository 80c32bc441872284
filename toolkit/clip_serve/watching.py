"""Noticing that model files have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from clip_serve.service import Service


async def watch(service: Service, seconds: float, reload: Callable[[], None]) -> None:
    """Look at the model files for ever, and ask for a reload once they have changed.

    Files that differ between two looks are still being written, and are left alone. What is wrong with a file is
    told once: another reload needs another change.

    Args:
        service: whose files they are.
        seconds: between two looks.
        reload: asked.
    """
    loop, last = asyncio.get_running_loop(), service.marks
    while True:
        await asyncio.sleep(seconds)
        found = await loop.run_in_executor(None, service.repository.marks)  # a network file system may take its time
        if found == last != service.marks:
            reload()
        last = found
