"""Tasks that write garbage into their own worker's channel. Imports next to nothing, because every worker imports it."""

import gc
import mmap
import os
import random
import socket
import time

from parallelkit._worker import _channel
from parallelkit._worker._channel import HEADER, WORD, frame, rights

BAD = 7  # the item of the task that does harm


def ring():
    """The ring of this worker."""
    (found,) = [held for held in gc.get_objects() if isinstance(held, _channel.Ring)]
    assert isinstance(found.map, mmap.mmap)
    return found


def line():
    """The socket to the parent."""
    (found,) = [held for held in gc.get_objects() if isinstance(held, _channel.Inbox)]
    return found._socket


def hang():
    while True:
        time.sleep(1000)


# The ring

HEADER_END = 4096
COLUMNS = {
    "header": (0, HEADER_END),
    "starts": (HEADER_END, HEADER_END + 8 * _channel.SLOTS),
    "ends": (HEADER_END + 8 * _channel.SLOTS, HEADER_END + 16 * _channel.SLOTS),
    "words": (HEADER_END + 16 * _channel.SLOTS, HEADER_END + 24 * _channel.SLOTS),
    "kinds": (HEADER_END + 24 * _channel.SLOTS, HEADER_END + 25 * _channel.SLOTS),
    "everything": (0, _channel.SIZE),
}
PATTERNS = {
    "zeros": bytes,
    "ones": lambda size: b"\xff" * size,
    "noise": lambda size: random.Random(size).randbytes(size),
}


def overwrite(column, pattern):
    start, end = COLUMNS[column]
    ring().map[start:end] = PATTERNS[pattern](end - start)


def set_word(number, value):
    ring().head[number] = value


def start_in_the_future():
    """Set the start of every attempt, including the running one, to a time in the far future."""
    for slot in range(_channel.SLOTS):
        ring().starts[slot] = 1e300


def start_never():
    ours = ring()
    ours.starts[ours.head[_channel.HEAD] & _channel.MASK] = 0.0


def truncate_ring():
    """Shorten the ring's file to nothing: whoever then reads the mapping is killed by SIGBUS."""
    for name in os.listdir("/proc/self/fd"):
        if "parallelkit-ring" in os.path.realpath(f"/proc/self/fd/{name}"):
            try:
                os.ftruncate(int(name), 0)
            except PermissionError:
                pass


# The socket


def send(blob, fd=None):
    line().sendmsg([blob], rights(fd) if fd is not None else [])


def send_noise(size):
    line().sendall(random.Random(size).randbytes(size))


def send_frame(kind, body=b"", length=0):
    send(frame(kind, body, file_length=length))


def send_file(length, path=None):
    """Send a large result in a file of the wrong kind or the wrong length."""
    fd = os.open(path, os.O_RDONLY) if path else _channel.new_file("sabotage")
    send(frame(_channel.BIG_RESULT, WORD.pack(0), file_length=length), fd)


def send_block(number):
    """Send a complete block with this number."""
    fd = _channel.new_file("sabotage")
    os.write(fd, b"x" * 10)
    send(frame(_channel.BLOCK, WORD.pack(number), file_length=10), fd)


def send_pipe():
    send(frame(_channel.BIG_RESULT, WORD.pack(0), file_length=10), os.pipe()[0])


def send_hole():
    """Send a sparse file of one tebibyte that holds nothing."""
    fd = _channel.new_file("sabotage")
    os.ftruncate(fd, 1 << 40)
    send(frame(_channel.BIG_RESULT, WORD.pack(0), file_length=1 << 40), fd)


def send_and_shorten():
    """Send a complete file, and truncate it when the other end has mapped it."""
    fd = _channel.new_file("sabotage")
    os.write(fd, b"x" * (1 << 21))
    send(frame(_channel.BLOCK, WORD.pack(0), file_length=1 << 21), fd)
    time.sleep(0.1)
    try:
        os.ftruncate(fd, 0)
    except PermissionError:
        pass


def send_many_files():
    for slot in range(10_000):
        fd = _channel.new_file("sabotage")
        os.write(fd, b"x")
        send(frame(_channel.BIG_RESULT, WORD.pack(slot), file_length=1), fd)
        os.close(fd)


def send_many_descriptors():
    while True:
        line().sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\0\0\0\0" * 8)])


def send_half_a_frame():
    send(HEADER.pack(100, _channel.RECORD, 0) + b"x" * 10)


def send_endless_frame():
    """Announce a frame of the largest allowed length, and then never stop sending."""
    send(HEADER.pack(_channel.LONGEST, _channel.RECORD, 0))
    blob = bytes(1 << 20)
    while True:
        line().sendall(blob)


def flood(kind):
    """Send frames endlessly, faster than the parent can read them."""
    blob = frame(kind, WORD.pack(0) if kind != _channel.WAKE else b"") * 5000
    while True:
        line().sendall(blob)


def shut_down():
    line().shutdown(socket.SHUT_RDWR)
    hang()


def swallow():
    """Read what the parent sends to this worker, which will then wait in vain for the rest of it."""
    time.sleep(0.05)
    line().setblocking(False)
    try:
        while line().recv(1 << 16):
            pass
    except BlockingIOError:
        pass
    line().setblocking(True)


def do_all(deeds):
    """Do one deed after the other, and give the item back."""
    for deed in deeds:
        deed()
    return BAD
