"""A man in the middle of CVM and cloud, on Unix sockets: counts, records, cuts and forges frames (doc/wire.md)."""

import hashlib
import struct
import threading

from relay import Relay

HELLO, HELLO_REPLY, FETCH, CHUNK, MULTIPLY, PRODUCT = 1, 2, 3, 4, 5, 6
MANIFEST, SKELETON, SCALES, WEIGHTS, HINTS = range(5)  # stream kinds
CHUNK_HEADER = 1 + 4 + 8  # kind, matrix, offset
CALL_HEADER = 8 + 4 + 4  # call, group, rows
RESIDUE_BYTES = 6
Q = 2**48 - 16383


def frame(kind, body):
    return struct.pack("<IB", len(body) + 1, kind) + bytes(body)


def call_of(body):
    """(call, group, rows) of Multiply and Product."""
    return struct.unpack_from("<QII", body)


def with_call(body, call):
    return struct.pack("<Q", call) + bytes(body[8:])


def stream_of(body):
    """(kind, matrix, offset) of Fetch and Chunk."""
    return struct.unpack_from("<BIQ", body)


class Cut(Exception):
    """Raised by a hook: these bytes still go out, then both connections are closed."""

    def __init__(self, last_bytes=b""):
        super().__init__()
        self.last_bytes = last_bytes


class Proxy(Relay):
    """Hooks run in the proxy's threads. hook(type, body) returns None to pass the frame on as it is, or the bytes that go
    out in its place (several frames, none, or no frame at all), or raises Cut.
    """

    def __init__(self, listen, upstream):
        self.on_request = self.on_reply = None
        self.record = None  # a list: ("->" or "<-", type, group or None, rows or None, bytes of the frame)
        self.requests = {}  # with watch_requests: call -> set of digests of its Multiply frames
        self.watch_requests = False
        self.received = 0  # bytes from the CVM
        self.error = None  # of a hook, which is a bug of the test
        self._open = set()
        self._lock = threading.Lock()
        super().__init__(listen, upstream)

    def cut_all(self):
        with self._lock:
            pairs = list(self._open)
        for pair in pairs:
            self._cut(pair)

    def _begin(self, near, far):
        pair = near, far
        with self._lock:
            self._open.add(pair)
        for source, sink, is_request in ((near, far, True), (far, near, False)):
            threading.Thread(target=self._pump, args=(pair, source, sink, is_request), daemon=True).start()

    def _cut(self, pair):
        self._shut(pair)
        with self._lock:
            self._open.discard(pair)

    def _read(self, source, size, is_request):
        data = bytearray(size)
        view, have = memoryview(data), 0
        while have < size:
            n = source.recv_into(view[have:])
            if n == 0:
                raise ConnectionError
            have += n
            if is_request:
                self.received += n
        return data

    def _pump(self, pair, source, sink, is_request):
        try:
            while True:
                head = self._read(source, 5, is_request)
                length, kind = struct.unpack("<IB", head)
                body = self._read(source, length - 1, is_request)
                self._note(is_request, kind, body)
                hook = self.on_request if is_request else self.on_reply
                out = hook(kind, body) if hook else None
                if out is None:
                    sink.sendall(head)
                    sink.sendall(body)
                elif out:
                    sink.sendall(out)
        except Cut as cut:
            try:
                sink.sendall(cut.last_bytes)
            except OSError:
                pass
        except OSError:
            pass
        except Exception as e:
            self.error = e
        self._cut(pair)

    def _note(self, is_request, kind, body):
        if self.watch_requests and kind == MULTIPLY:
            self.requests.setdefault(call_of(body)[0], []).append(hashlib.sha256(body).digest())
        if self.record is not None:
            _, group, rows = call_of(body) if kind in (MULTIPLY, PRODUCT) else (None, None, None)
            self.record.append(("->" if is_request else "<-", kind, group, rows, len(body) + 5))
