"""The scheduler's HTTP: the same commands as the control socket, for whom speaks that.

Nothing here decides anything about tasks: every request becomes one of ``lcq.wire`` and is answered by the desk.
FastAPI is imported when the first connection comes (``door``): a scheduler that nobody asks over HTTP never loads it.
"""
