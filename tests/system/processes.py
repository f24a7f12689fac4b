"""The real programs as objects: talaria-cloud, talaria-cvm, and a client of the API."""

import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from harness import Failure, check, wait_until

SET_UP_SECONDS = 300
REQUEST_SECONDS = 120


def identity_of(store):
    return hashlib.sha256((pathlib.Path(store) / "manifest.json").read_bytes()).hexdigest()


class Process:
    """A program with its output in files. It dies with this one, whatever happens."""

    def __init__(self, command, out, err, **options):
        self.out, self.err = pathlib.Path(out), pathlib.Path(err)
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL"] + [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                **options,
            )
        self.pid = self.process.pid

    def running(self):
        return self.process.poll() is None

    def send(self, number):
        os.kill(self.pid, number)  # not reaped yet, so the number is still ours

    def wait(self, seconds=30):
        """The exit code; a signal's number negative."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.process.args[3]} still runs after {seconds} s") from None

    def end(self):
        if self.running():
            self.process.kill()
            self.process.wait()

    def errors(self):
        return self.err.read_text(errors="replace")


def can_connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(str(path))
            return True
        except OSError:
            return False


class Cloud(Process):
    def __init__(self, context, store, folder, socket_name="cloud.sock"):
        self.socket = folder / socket_name
        self.endpoint = f"unix:{self.socket}"
        super().__init__(
            [context.program("talaria-cloud"), "serve", store, "--listen", self.endpoint]
            # Plaintext, so that a proxy can read and change what passes; cases_attested.py has the attested channels.
            + ["--insecure-simulated-tee", "--insecure-plaintext"],
            folder / "cloud.out",
            folder / "cloud.err",
        )

    def await_listening(self):
        wait_until(lambda: can_connect(self.socket) or not self.running(), 60, "the cloud listens")
        check(self.running(), "the cloud ended: " + self.errors()[-500:])
        return self


def write_config(path, tables):
    lines = []
    for table, keys in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


class Answer:
    """A whole HTTP answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def text(self):
        """Of a completion; Failure if it is not one."""
        check(self.status == 200, f"status {self.status}: {self.body[:300]!r}")
        choice = self.json()["choices"][0]
        return choice["text"] if "text" in choice else choice["message"]["content"]


class _Connection(http.client.HTTPConnection):
    def __init__(self, address, timeout):
        super().__init__("localhost", timeout=timeout)
        self.address = address

    def connect(self):
        if self.address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self.address[len("unix:") :])
        else:
            host, port = self.address.rsplit(":", 1)
            self.sock = socket.create_connection((host, int(port)), self.timeout)


def _lines_of_chunks(file):
    """The lines of a body in chunked encoding as they arrive. EOFError if it is cut, which http.client does not tell."""
    rest = b""
    while True:
        head = file.readline()
        size = int(head, 16) if head.endswith(b"\n") else None
        data = b"" if size is None else file.read(size + 2)
        if size is None or len(data) < size + 2:
            raise EOFError("the body was cut")
        if size == 0:
            return
        *lines, rest = (rest + data[:size]).split(b"\n")
        yield from lines


class Client:
    def __init__(self, address):
        self.address = address

    def send(self, method, path, body=None, headers=None, timeout=REQUEST_SECONDS):
        """An open http.client connection whose request is on its way. `body` is JSON, or bytes as they are."""
        connection = _Connection(self.address, timeout)
        data = body if body is None or isinstance(body, (bytes, bytearray)) else json.dumps(body).encode()
        try:
            connection.request(
                method, path, data, {} if data is None else {"Content-Type": "application/json", **(headers or {})}
            )
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the body was out; the answer may be there
        return connection

    def ask(self, method, path, body=None, headers=None, timeout=REQUEST_SECONDS):
        connection = self.send(method, path, body, headers, timeout)
        try:
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        except (http.client.HTTPException, ConnectionError) as e:
            raise Failure(f"{method} {path}: no HTTP answer, but {e!r}") from e
        finally:
            connection.close()

    def complete(self, prompt, max_tokens=8, **fields):
        return self.ask("POST", "/v1/completions", completion(prompt, max_tokens, **fields))

    def stream(self, prompt, max_tokens=8, **fields):
        """Yields each event of a streamed completion; how the stream ended is the last: "end" or "cut"."""
        connection = self.send("POST", "/v1/completions", completion(prompt, max_tokens, stream=True, **fields))
        try:
            response = connection.getresponse()
            if response.status != 200:
                yield "status", response.status, response.read()
                return
            for line in _lines_of_chunks(response.fp):
                kind, _, rest = line.partition(b": ")
                if kind:
                    yield kind.decode(), rest.decode()
            yield "end", ""
        except (EOFError, ConnectionError) as e:
            yield "cut", repr(e)
        finally:
            connection.close()

    def ready(self):
        try:
            return self.ask("GET", "/readyz", timeout=10).status == 200
        except OSError:
            return False


def completion(prompt, max_tokens, **fields):
    """Greedy and repeatable. Nothing ends it before `max_tokens`."""
    return {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "seed": 1, "ignore_eos": True, **fields}


def tokens_of(events):
    """The texts of a stream's events so far."""
    texts = []
    for event in events:
        if event[0] == "data" and event[1] != "[DONE]":
            data = json.loads(event[1])
            if "choices" in data:
                texts.append(data["choices"][0].get("text") or "")
    return texts


class Cvm(Process):
    """talaria-cvm serve. `settings` are tables of its configuration that replace or extend the usual ones."""

    def __init__(
        self,
        context,
        folder,
        cloud_endpoint,
        identity,
        settings=None,
        arguments=("--insecure-simulated-tee",),
        environment=None,
        name="cvm",
    ):
        self.run_dir = folder / f"{name}.run"
        self.address = f"unix:{folder}/{name}.sock"
        tables = {
            "cloud": {"endpoint": cloud_endpoint, "plaintext": True},
            "model": {"identity": identity},
            "server": {"listen": self.address, "plaintext": True, "context": 2048},
            "engine": {"run_dir": str(self.run_dir)},
        }
        if context.plugin:
            tables["engine"]["plugin"] = str(context.plugin)
        for table, keys in (settings or {}).items():
            tables.setdefault(table, {}).update(keys)
        self.address = tables["server"]["listen"]
        self.client = Client(self.address)
        self.config = folder / f"{name}.toml"
        write_config(self.config, tables)
        super().__init__(
            [context.program("talaria-cvm"), "serve", "--config", self.config, *arguments],
            folder / f"{name}.out",
            folder / f"{name}.err",
            env=environment if environment is not None else {},
        )

    def await_ready(self):
        wait_until(lambda: self.client.ready() or not self.running(), SET_UP_SECONDS, "talaria-cvm gets ready", 0.05)
        check(self.running(), f"talaria-cvm ended with {self.process.returncode}: {self.errors()[-500:]}")
        return self

    def family(self):
        """{name of the command: process id} of the launcher and of llama-server."""
        out = {}
        for pid in descendants(self.pid):
            out[command_name(pid)] = pid
        return out


def command_name(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def descendants(pid):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    out, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        out += children
        todo += children
    return out


def is_alive(pid):
    """False for a zombie, too."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def await_gone(pids, seconds=10):
    wait_until(lambda: not any(is_alive(pid) for pid in pids), seconds, f"processes {list(pids)} end")


def stop_gently(process, seconds=30):
    if process.running():
        process.send(signal.SIGTERM)
        process.wait(seconds)


def timed(function):
    """(seconds, result)"""
    began = time.monotonic()
    result = function()
    return time.monotonic() - began, result
