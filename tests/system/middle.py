"""A server, or a client, of somebody in the middle: his own certificate, and the TLS version of his choice."""

import socket
import ssl
import threading

# Public, and good for nothing.
PEM = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtFAKyqZ8Ig5Z2QRr
rVKChmtc0ghv2zdcUMg14IKaQGOhRANCAARCZ8zHqajzByk+x4BdxnzoNz2n7QQv
avtDm4o/RsPObKYkYrcj0cDmnPiKFszTPGsx1WrjKzR7gotB1vUl+8jV
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUTIL5dAUnuS0OCvdiIZYSWPr0CdgwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbWlkZGxlMCAXDTI2MTEyOTA2MTMyMFoYDzIxMjYxMTA1MDYx
MzIwWjARMQ8wDQYDVQQDDAZtaWRkbGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARCZ8zHqajzByk+x4BdxnzoNz2n7QQvavtDm4o/RsPObKYkYrcj0cDmnPiKFszT
PGsx1WrjKzR7gotB1vUl+8jVo1MwUTAdBgNVHQ4EFgQUy/qbEs31usB1u8jaFbpB
HotjPFkwHwYDVR0jBBgwFoAUy/qbEs31usB1u8jaFbpBHotjPFkwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAi3YGKG5Ht3XDzwU9D5iYyFLK06UE
jUgIJmkxuLW7q+oCIAOQA8n1wSFcgj7I+37bhS/o6jofG2pmiOBBI8mKh7lr
-----END CERTIFICATE-----
"""


def _context(kind, version, folder):
    pem = folder / "middle.pem"
    pem.write_text(PEM)
    context = ssl.SSLContext(kind)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(pem)
    return context


class Middle:
    """Serves TLS of one version, and notes the plaintext that it was sent."""

    def __init__(self, path, version, folder):
        self.got, self.handshakes = b"", 0
        self._context = _context(ssl.PROTOCOL_TLS_SERVER, version, folder)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._listener.close()

    def _serve(self):
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with self._context.wrap_socket(plain, server_side=True) as tls:
                    self.handshakes += 1
                    self.got += tls.recv(1 << 14)  # whoever waits for an answer need not wait long
            except OSError:  # ssl.SSLError is one
                plain.close()


def connect(path, version, folder):
    """A client's TLS connection, with a certificate of his own. OSError (ssl.SSLError is one)."""
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(10)
    plain.connect(str(path))
    return _context(ssl.PROTOCOL_TLS_CLIENT, version, folder).wrap_socket(plain)


def knock(path, version, folder):
    """What a server answers a client of that version with: "TLSv1.3", or the error."""
    try:
        with connect(path, version, folder) as tls:
            return tls.version()
    except OSError as e:
        return getattr(e, "reason", None) or repr(e)
