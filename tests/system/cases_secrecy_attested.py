"""The canary over the attested chain: users' TLS, talaria proxy, the CVM's front; and every process of it killed in the middle.

The level of Talaria's own programs is fixed, and llama-server's log is off (cases_secrecy.py turns it on in spite of that), so
all that is ever logged is in the files that are searched.
"""

import contextlib
import os
import pathlib
import resource
import signal
import subprocess

from cases_attested import attested
from cases_secrecy import CANARY, check_nowhere, provocations
from harness import case, check, check_equal, wait_until
from processes import await_gone, is_alive, tokens_of

PLACES = [place for place in ("/tmp", "/dev/shm", "/run", "/var/crash") if os.path.isdir(place)]


@contextlib.contextmanager
def cores_allowed(folder):
    """Whoever is started here may dump core, into `folder`; True where the kernel really writes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    before = os.getcwd()
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    os.chdir(folder)
    try:
        control = subprocess.Popen(["sleep", "60"])
        control.send_signal(signal.SIGSEGV)
        control.wait()
        written = cores_in(folder)
        for path in written:
            path.unlink()
        yield bool(written)
    finally:
        os.chdir(before)
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def cores_in(*folders):
    return [path for folder in folders for path in pathlib.Path(folder).glob("core*") if path.is_file()]


def in_memory(pid, text):
    """Whether a process has `text` in memory that it may write; None where that is not ours to read."""
    try:
        with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                span, access = line.split()[:2]
                if "w" not in access:
                    continue
                begin, end = (int(number, 16) for number in span.split("-"))
                try:
                    memory.seek(begin)
                    if text in memory.read(end - begin):
                        return True
                except (OSError, OverflowError, ValueError):
                    continue  # not mapped in, or secret memory
        return False
    except OSError:
        return None


def check_places(before):
    for place, names in before.items():
        for name in set(os.listdir(place)) - names:
            path = pathlib.Path(place) / name
            if path.is_file() and os.access(path, os.R_OK):
                check(CANARY.encode() not in path.read_bytes(), f"it is in {path}")


@case("attested chain: a canary in right and in wrong requests is in no log, file, command line or environment")
def canary_through_the_proxy(context):
    before = {place: set(os.listdir(place)) for place in PLACES}
    with attested(context) as scene:
        policy = scene.policy("good")
        cloud = scene.cloud(policy)
        cvm = scene.await_ready(scene.cvm())
        issue = ("issue", "--key", scene.folder / "tenant.pem", "--user", "ada", "--requests-per-minute=10000")
        scene.token.write_text(scene.run("talaria", "tenant", *issue))
        proxy, client = scene.proxy(policy, "--token-file", scene.token)
        forced = {"grammar": f'root ::= "{CANARY}"', "ignore_eos": False}
        check_equal(client.complete(f"Repeat this: {CANARY}", 40, **forced).text(), CANARY, "the answer")
        check_equal("".join(tokens_of(client.stream(CANARY, 40, **forced))), CANARY, "the streamed answer")
        statuses = {}
        for method, path, body, headers in provocations(CANARY):
            status = client.ask(method, path, body, headers).status
            statuses[status] = statuses.get(status, 0) + 1
        last = client.complete(CANARY, 2)
        check(last.status == 200, f"the chain does not work any more: {last.status} {last.body[:200]!r}")
        check(in_memory(cloud.pid, CANARY.encode()) is not True, "it is in the cloud's memory")
        check_nowhere(cvm, cloud, scene.folder)
        for name in ("cmdline", "environ"):
            check(CANARY.encode() not in pathlib.Path(f"/proc/{proxy.pid}/{name}").read_bytes(), f"the proxy's {name}")
        check_places(before)
    return f"{sum(statuses.values()) + 3} requests, statuses {dict(sorted(statuses.items()))}"


@case("attested chain: each process of CVM and cloud, killed by SIGSEGV with the canary under way, leaves it nowhere")
def killed_with_the_canary(context):
    before = {place: set(os.listdir(place)) for place in PLACES}
    notes = []
    for victim in ("llama-server", "talaria-launch", "talaria-cvm", "talaria-cloud"):
        with attested(context) as scene, cores_allowed(scene.folder) as cores:
            policy = scene.policy("good")
            cloud = scene.cloud(policy)
            cvm = scene.await_ready(scene.cvm())
            _, client = scene.proxy(policy, "--token-file", scene.token, "--wait", "1")
            family = {"talaria-cvm": cvm.pid, **cvm.family()}
            folders = {str(scene.folder)} | {os.path.realpath(f"/proc/{pid}/cwd") for pid in (*family.values(), cloud.pid)}
            for name, pid in family.items():
                limit = pathlib.Path(f"/proc/{pid}/limits").read_text()
                line = next(line for line in limit.splitlines() if line.startswith("Max core file size"))
                check_equal(line.split()[4:6], ["0", "0"], f"the core limits of {name}")
            stream = client.stream(f"{CANARY} ", 2000)
            first = next(stream)
            check_equal(first[0], "data", "the first event of the stream")
            if victim == "llama-server":
                there = in_memory(family[victim], CANARY.encode())
                check(there is not False, "the canary is not in llama-server's memory: this case would show nothing")
            check(in_memory(cloud.pid, CANARY.encode()) is not True, "it is in the cloud's memory")
            pid = cloud.pid if victim == "talaria-cloud" else family[victim]
            os.kill(pid, signal.SIGSEGV)
            events = list(stream)
            check(("data", "[DONE]") not in events, f"{victim} died, and the stream ended as if nothing had happened")
            wait_until(lambda: not is_alive(pid), 30, f"{victim} is gone")  # noqa: B023
            if victim != "talaria-cloud":
                cvm.wait(30)
                await_gone(family.values())
            dumped = cores_in(*folders)
            check(victim == "talaria-cloud" or not dumped, f"{victim} has left {dumped}")
            if victim == "talaria-cloud" and cores:
                check(dumped, "the cloud has left no core, and nothing says that it should not")
            for path in dumped:  # the cloud may: it has nothing to hide
                check(CANARY.encode() not in path.read_bytes(), f"it is in the core of {victim}")
                path.unlink()
            check_nowhere(cvm, cloud, scene.folder)
            notes.append(f"{victim}: {len(dumped)} cores")
            if not cores:
                notes.append("(this kernel writes none)")
    check_places(before)
    return ", ".join(notes)
