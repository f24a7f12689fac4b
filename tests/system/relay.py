"""A relay between two processes on Unix sockets, for somebody in the middle: accepts, connects on, and can cut."""

import os
import socket
import threading


class Relay:
    """A subclass's _begin(near, far) takes each pair of connections, in the thread that accepts."""

    def __init__(self, listen, upstream):
        self.path, self.upstream = str(listen), str(upstream)  # `upstream` may change between connections
        self.endpoint = f"unix:{self.path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()
        self.cut_all()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self.upstream)
            except OSError:
                near.close()
                continue
            self._begin(near, far)

    @staticmethod
    def _shut(pair):
        for s in pair:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
