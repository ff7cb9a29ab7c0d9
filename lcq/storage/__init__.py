"""Bytes: where images, masks and results are, and how they come and go. It blocks: asyncio calls it in threads."""
