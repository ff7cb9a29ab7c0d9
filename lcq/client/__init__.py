"""What a program uses to talk to a cluster: AsyncClient, and Client for code without an event loop."""

from lcq.client.addresses import find_schedulers, listens, looks_around
from lcq.client.asynchronous import AsyncClient
from lcq.client.blocking import Client
from lcq.client.connection import login_name

__all__ = ["AsyncClient", "Client", "find_schedulers", "listens", "login_name", "looks_around"]
