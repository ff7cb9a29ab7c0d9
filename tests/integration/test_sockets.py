"""Sockets as lcq.sockets makes them, under what libzmq does not survive with other options."""

from __future__ import annotations

import subprocess
import sys

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


def test_a_peer_that_comes_back_under_its_name_and_lets_its_old_connection_break_ends_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", COMES_BACK], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
