"""What goes through a pipe, on both of its ends: bytes in full, and messages. Standard library alone."""

import os
import struct

MAX_MESSAGE = 4 << 20


class MessageRefused(ValueError):
    """A message that is too long, or has not even a kind."""


def read_exactly(descriptor: int, count: int) -> bytes:
    """``count`` bytes; fewer at the end of the stream."""
    parts = []
    while count:
        part = os.read(descriptor, min(count, 1 << 20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """All of ``data``. Raises `BrokenPipeError` where nobody reads any more."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def send(descriptor: int, kind: bytes, data: bytes = b"") -> None:
    """One message: 4 bytes of length, one of kind, the data."""
    write_all(descriptor, struct.pack("=I", 1 + len(data)) + kind + data)


def receive(descriptor: int) -> tuple[bytes, bytes] | None:
    """(kind, data) of one message; None at the end of the stream. Raises `MessageRefused` for one that is too long."""
    head = read_exactly(descriptor, 4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("=I", head)
    if not 1 <= length <= MAX_MESSAGE:
        raise MessageRefused("message too long")
    data = read_exactly(descriptor, length)
    return None if len(data) < length else (data[:1], data[1:])
