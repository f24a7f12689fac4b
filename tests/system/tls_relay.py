"""A relay between two processes, on Unix sockets, that sees what anybody on the way sees: connections and TLS records."""

import socket
import struct
import threading

from harness import check, wait_until
from relay import Relay

ALERT, APPLICATION_DATA = 21, 23  # TLS 1.3 hides the end of its handshake in APPLICATION_DATA, too


class Passage:
    """One connection: the (type, bytes) of every record, upwards (to the server) and downwards."""

    def __init__(self):
        self.up, self.down, self.open = [], [], 2

    def sealed(self, direction):
        """The sizes of the encrypted records, as they are on the wire."""
        return [size for kind, size in getattr(self, direction) if kind == APPLICATION_DATA]


class _Records:
    """Cuts a stream into records: type, version, u16 length, bytes."""

    def __init__(self, out):
        self.out, self.rest = out, b""

    def add(self, data):
        self.rest += data
        while len(self.rest) >= 5:
            kind, _, length = struct.unpack(">BHH", self.rest[:5])
            if len(self.rest) < 5 + length:
                return
            self.out.append((kind, length))
            self.rest = self.rest[5 + length :]


class TlsRelay(Relay):
    def __init__(self, listen, upstream):
        self.passages = []
        self._pairs = []
        super().__init__(listen, upstream)

    def cut_all(self):
        for pair in self._pairs:
            self._shut(pair)

    def taken(self):
        """What has passed since the last call; waits until all of it has ended."""
        wait_until(lambda: not any(p.open for p in self.passages), 30, "the relay's connections end")
        passages, self.passages, self._pairs = self.passages, [], []
        return passages

    def _begin(self, near, far):
        passage = Passage()
        self.passages.append(passage)
        self._pairs.append((near, far))
        for source, sink, records in ((near, far, passage.up), (far, near, passage.down)):
            threading.Thread(target=self._pump, args=(passage, source, sink, records), daemon=True).start()

    def _pump(self, passage, source, sink, out):
        records = _Records(out)
        try:
            while data := source.recv(1 << 16):
                records.add(data)
                sink.sendall(data)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        passage.open -= 1


def check_no_more_than(got, truth, what):
    """The records of `got` are those with which `truth` began: sizes and number, so nothing else was sent."""
    check(len(got) <= len(truth) and got == truth[: len(got)], f"{what} are {got}, where the truth got {truth}")
