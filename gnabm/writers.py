"""Zarr's background writers, after a write that failed."""

from __future__ import annotations

import asyncio

from zarr.core.sync import sync


def settle() -> None:
    """Wait until writes that were under way when one failed have ended.

    They run on a thread of their own: cut off at exit each prints pages, and they would write again into a folder
    that is being removed.
    """

    async def rest() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    sync(rest())
