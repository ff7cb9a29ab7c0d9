"""Sockets as lcq.sockets makes them, under what libzmq does not survive with other options."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A peer comes back under its name while its old connection still stands; that one says another word, and breaks.
COMES_BACK = """
import zmq
from lcq.sockets import make_socket

context = zmq.Context()
router = make_socket(context, zmq.ROUTER)
if router.heartbeat_ivl:
    router.heartbeat_ivl = 50  # what it would do in a while, it does at once
port = router.bind_to_random_port("tcp://127.0.0.1")


def come():
    peer = make_socket(context, zmq.DEALER, identity=b"node-1/boot")
    peer.connect(f"tcp://127.0.0.1:{port}")
    return peer


def hears(peer, word):
    while not peer.poll(10, zmq.POLLOUT):
        pass
    peer.send(word)
    assert router.recv_multipart() == [b"node-1/boot", word]


old = come()
hears(old, b"1")
new = come()
hears(new, b"2")
old.send(b"nobody hears this")
old.close(linger=1000)
for n in range(20):
    hears(new, b"%d" % n)
    router.poll(50)
print("alive")
"""

# A peer says more than anybody looks at, asks whether we are there, and is gone: its question is found afterwards.
ASKS_AND_BREAKS = """
import socket
import struct

import zmq
from lcq.sockets import make_socket

PEER = b"PUSH" if zmq.KIND == zmq.PULL else b"DEALER"
context = zmq.Context()
asked = make_socket(context, zmq.KIND, high_water=4)
watch = asked.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
port = asked.bind_to_random_port("tcp://127.0.0.1")
peer = socket.create_connection(("127.0.0.1", port))
peer.sendall(b"\\xff" + bytes(8) + b"\\x7f\\x03\\x01" + b"NULL".ljust(20, b"\\0") + bytes(32))
ready = b"\\x05READY\\x0bSocket-Type" + struct.pack(">I", len(PEER)) + PEER
peer.sendall(b"\\x04" + bytes([len(ready)]) + ready)
watch.recv_multipart()
ping = b"\\x04PING" + bytes(2)
peer.sendall(b"\\x00\\x01a" * 20 + b"\\x04" + bytes([len(ping)]) + ping)
asked.poll(60_000)
peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
peer.close()
watch.poll(300)  # that it is gone is told at once, or never, where the pipe is full
for _ in range(20):
    assert asked.poll(60_000)
    asked.recv_multipart()
asked.poll(300)
print("alive")
"""


@pytest.mark.parametrize("kind", ["PULL", "ROUTER"])
def test_a_question_behind_more_than_anybody_has_read_ends_nobody_though_its_connection_has_broken(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKS_AND_BREAKS.replace("KIND", kind)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_peer_that_comes_back_under_its_name_and_lets_its_old_connection_break_ends_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", COMES_BACK], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


# Thousands of strangers come and go, and nobody reads what libzmq tells of them; then the watch is closed.
UNREAD = """
import asyncio
import socket

import zmq
from lcq.sockets import HandshakeWatch, make_socket

async def main():
    context = zmq.Context()
    router = make_socket(context, zmq.ROUTER)
    watch = HandshakeWatch(router, lambda *told: None)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    for _ in range(2600):
        stranger = socket.create_connection(("127.0.0.1", port))
        stranger.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
        stranger.close()
    dealer = make_socket(context, zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send(b"hello")
    assert await asyncio.to_thread(router.poll, 60_000), "nobody is let in any more"
    watch.close()
    print("alive")

asyncio.run(main())
"""


def test_what_is_told_of_handshakes_and_not_read_holds_up_neither_others_nor_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", UNREAD], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


CLOSED_AT_ONCE = """
import asyncio

import zmq
from lcq.sockets import HandshakeWatch, make_socket

async def main():
    context = zmq.Context()
    for _ in range(300):
        dealer = make_socket(context, zmq.DEALER)
        watch = HandshakeWatch(dealer, lambda *told: None)
        dealer.connect("tcp://127.0.0.1:9")
        watch.close()
        dealer.close(0)
    print("alive")

asyncio.run(main())
"""


def test_a_watch_that_is_closed_at_once_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_AT_ONCE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
