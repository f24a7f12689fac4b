"""A cloud that lies.

Whatever the lie: the CVM ends with code 6, no token comes out, the client sees the same, and not one further byte goes to
the cloud."""

import struct
import threading

from harness import case, check, check_equal, patient
from processes import Cvm, is_alive, tokens_of
from proxy import (
    CALL_HEADER,
    CHUNK,
    CHUNK_HEADER,
    HELLO_REPLY,
    HINTS,
    MANIFEST,
    PRODUCT,
    Q,
    RESIDUE_BYTES,
    SCALES,
    SKELETON,
    WEIGHTS,
    call_of,
    frame,
    stream_of,
    with_call,
)
from stage import PROMPT, tiny, tiny_cloud

SESSION_ENDED = 6


def residues(body):
    """[rows][bytes of a row] of a Product."""
    rows = call_of(body)[2]
    data = bytes(body[CALL_HEADER:])
    width = len(data) // rows
    return [data[r * width : (r + 1) * width] for r in range(rows)]


def product(body, data, call=None):
    number, group, rows = call_of(body)
    return frame(PRODUCT, struct.pack("<QII", number if call is None else call, group, rows) + data)


def flip_bit(body, past):
    data = bytearray(body[CALL_HEADER:])
    data[(len(data) // 2) // RESIDUE_BYTES * RESIDUE_BYTES] ^= 1
    return product(body, data)


def swap_rows(body, past):
    rows = residues(body)
    if len(rows) < 2:
        return None
    rows[0], rows[1] = rows[1], rows[0]
    return product(body, b"".join(rows))


def replay(body, past):
    """The right products of an earlier call of the same group and size, under the number of this one."""
    key = call_of(body)[1:]
    if key not in past:
        past[key] = bytes(body)
        return None
    return frame(PRODUCT, with_call(past[key], call_of(body)[0]))


def replay_as_it_was(body, past):
    if not past:
        past["first"] = bytes(body)
        return None
    return frame(PRODUCT, past["first"])


def zeros(body, past):
    return product(body, bytes(len(body) - CALL_HEADER))


def not_reduced(body, past):
    data = bytearray(body[CALL_HEADER:])
    value = int.from_bytes(data[:RESIDUE_BYTES], "little")
    data[:RESIDUE_BYTES] = (value + Q if value + Q < 2**48 else Q).to_bytes(RESIDUE_BYTES, "little")
    return product(body, data)


def one_residue_less(body, past):
    return product(body, body[CALL_HEADER:-RESIDUE_BYTES])


def length_of_nothing(body, past):
    return struct.pack("<I", 0) + bytes(body)


def length_over_the_limit(body, past):
    return struct.pack("<IB", 0xFFFFFFFF, PRODUCT) + bytes(body)


def unknown_type(body, past):
    return frame(99, body)


def another_known_type(body, past):
    return frame(HELLO_REPLY, body)


def twice(body, past):
    """The right reply, and the same again where the next call's belongs."""
    return frame(PRODUCT, body) * 2


LIES = [
    flip_bit,
    swap_rows,
    replay,
    replay_as_it_was,
    zeros,
    not_reduced,
    one_residue_less,
    length_of_nothing,
    length_over_the_limit,
    unknown_type,
    another_known_type,
    twice,
]


def lie_in_an_answer(context, lie, stream):
    """What the client saw."""
    with tiny(context) as (cloud, proxy, cvm):
        past, told, family = {}, [], cvm.family()

        def on_reply(kind, body):
            if kind != PRODUCT or told:
                return None
            out = lie(body, past)
            if out is not None:
                told.append(proxy.received)
            return out

        proxy.on_reply = on_reply
        if stream:
            events = list(cvm.client.stream(PROMPT, 400))
            tokens = tokens_of(events)
            check("data [DONE]" not in [" ".join(e) for e in events], "the stream ended as if nothing had happened")
            seen = [e for e in events if not (e[0] == "data" and '"choices"' in e[1])]
            check(any('"error"' in text for _, text in events), f"no error event: {events[-2:]}")
            check(len(tokens) < 400, "all tokens came out")
        else:
            answer = cvm.client.complete(PROMPT, 400)
            seen = answer.status, answer.body
            check(answer.status >= 500, f"{lie.__name__}: status {answer.status}: {answer.body[:200]!r}")
            check(b"text" not in answer.body, f"{lie.__name__}: a part of an answer came out")
        check(told, "the lie was never told")
        check_equal(cvm.wait(patient(10)), SESSION_ENDED, f"{lie.__name__}: the exit code")
        # `twice` is noticed by the call after, whose request is out by then.
        check(
            lie is twice or proxy.received == told[0],
            f"{lie.__name__}: {proxy.received - told[0]} more bytes went to the cloud",
        )
        check(not any(is_alive(pid) for pid in family.values()), "a child outlived talaria-cvm")
        check(cloud.running(), "the cloud ended, too")
        return seen


@case("a lying cloud: every kind of wrong product ends the session, and the client cannot tell which it was")
def lies_in_products(context):
    seen = {}
    for lie in LIES:
        seen.setdefault(repr(lie_in_an_answer(context, lie, stream=False)), []).append(lie.__name__)
    check(len(seen) == 1, f"clients saw different things: {seen}")
    return f"{len(LIES)} lies, all seen as {next(iter(seen))}"


@case("a lying cloud in the middle of a stream: no further token, an error event, no [DONE]")
def lie_in_a_stream(context):
    def late(body, past):
        past["calls"] = past.get("calls", 0) + 1
        return flip_bit(body, past) if past["calls"] > 100 else None

    return repr(lie_in_an_answer(context, late, stream=True))


def change_chunk(wanted):
    """A lie about one byte of a stream of the store."""

    def lie(kind, body):
        if kind != CHUNK or stream_of(body)[0] != wanted:
            return None
        changed = bytearray(body)
        changed[(CHUNK_HEADER + len(changed)) // 2] ^= 4
        return frame(CHUNK, changed)

    return lie


def another_offset(kind, body):
    if kind != CHUNK or stream_of(body)[0] != WEIGHTS:
        return None
    stream, matrix, offset = stream_of(body)
    return frame(CHUNK, struct.pack("<BIQ", stream, matrix, offset + 1) + bytes(body[CHUNK_HEADER:]))


def short_chunk(kind, body):
    return frame(CHUNK, body[:-1]) if kind == CHUNK and stream_of(body)[0] == HINTS else None


def another_identity(kind, body):
    if kind != HELLO_REPLY:
        return None
    changed = bytearray(body)
    changed[10] ^= 1
    return frame(HELLO_REPLY, changed)


SET_UP_LIES = {
    "manifest": change_chunk(MANIFEST),
    "skeleton": change_chunk(SKELETON),
    "scales": change_chunk(SCALES),
    "weights": change_chunk(WEIGHTS),
    "hints": change_chunk(HINTS),
    "offset": another_offset,
    "short chunk": short_chunk,
    "identity": another_identity,
}


@case("a lying cloud during set-up: one wrong byte anywhere, and the set-up ends with code 6 before a prompt is taken")
def lies_in_set_up(context):
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        for name, lie in SET_UP_LIES.items():
            told = threading.Event()

            def on_reply(kind, body):
                if told.is_set():
                    return None
                out = lie(kind, body)
                if out is not None:
                    told.set()
                return out

            proxy.on_reply = on_reply
            cvm = Cvm(context, folder, proxy.endpoint, identity)
            try:
                check_equal(cvm.wait(patient(20)), SESSION_ENDED, f"wrong {name}: the exit code")
                check(told.is_set(), f"wrong {name}: the lie was never told")
                check("ready" not in cvm.out.read_text(), f"wrong {name}: it was ready")
            finally:
                cvm.end()
    return f"{len(SET_UP_LIES)} lies"
