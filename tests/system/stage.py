"""Ready-made scenes: a cloud, a proxy and a CVM, for one case or shared by many."""

import contextlib
import re

from harness import check, check_equal
from processes import Cloud, Cvm, identity_of
from proxy import Proxy

PROMPT = "The quick brown fox jumps over the lazy dog"


@contextlib.contextmanager
def tiny_cloud(context):
    """(folder, cloud, proxy, identity) with the tiny model."""
    folder = context.folder()
    cloud = Cloud(context, context.tiny[1], folder).await_listening()
    proxy = Proxy(folder / "proxy.sock", cloud.socket)
    try:
        yield folder, cloud, proxy, identity_of(context.tiny[1])
    finally:
        proxy.close()
        cloud.end()


@contextlib.contextmanager
def tiny(context, settings=None, **options):
    """(cloud, proxy, cvm), ready."""
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        cvm = Cvm(context, folder, proxy.endpoint, identity, settings, **options)
        try:
            yield cloud, proxy, cvm.await_ready()
            check(proxy.error is None, f"the proxy's hook failed: {proxy.error!r}")
        finally:
            cvm.end()


def one_batch(context):
    """Bytes of one batch of every group, as talaria-cvm itself says when it is given less."""
    if "one batch" not in context.shared:
        with tiny_cloud(context) as (folder, cloud, proxy, identity):
            cvm = Cvm(
                context,
                folder,
                proxy.endpoint,
                identity,
                {"masks": {"pool_bytes": 1}},
                arguments=("--check-config", "--insecure-simulated-tee"),
            )
            check_equal(cvm.wait(), 4, "the exit code of --check-config with a pool of one byte")
            context.shared["one batch"] = int(re.search(r"one batch of every group takes (\d+)", cvm.errors())[1])
    return context.shared["one batch"]


class Real:
    """The demo model behind a proxy, started at first use and shared; the last case that uses it ends it."""

    def __init__(self, context):
        self.context, self.folder, self.identity = context, context.folder(), identity_of(context.store)
        self.cloud = Cloud(context, context.store, self.folder).await_listening()
        self.proxy = Proxy(self.folder / "proxy.sock", self.cloud.socket)
        # What the environment says must reach neither the CVM nor its child.
        environment = {"LLAMA_ARG_N_PREDICT": "1", "TALARIA_LISTEN": "127.0.0.1:1", "GGML_BACKEND_PATH": "/nowhere"}
        self.cvm = Cvm(context, self.folder, self.proxy.endpoint, self.identity, environment=environment)
        context.at_end.append(self.close)
        self.cvm.await_ready()

    def restart_cloud(self):
        self.cloud.end()
        self.cloud = Cloud(self.context, self.context.store, self.folder)

    def close(self):
        self.cvm.end()
        self.cloud.end()
        self.proxy.close()


def real(context):
    if "real" not in context.shared:
        context.shared["real"] = None
        context.shared["real"] = Real(context)
    check(
        context.shared["real"] is not None and context.shared["real"].cvm.running(),
        "the CVM with the demo model does not run",
    )
    return context.shared["real"]
