"""A small random language model as a GGUF file: a llama with two layers whose set-up takes a second.

Its answers mean nothing, but every process, byte and check on the way is the same as with a real model. The tokens are
the bytes, so that any text can be spelled, plus fillers up to a vocabulary that is worth offloading.
"""

import array
import random
import struct

EMBEDDING, FEED_FORWARD, HEADS, LAYERS, VOCABULARY, CONTEXT = 128, 256, 4, 2, 320, 4096
FIRST_BYTE_TOKEN = 3  # <unk>, <s>, </s>, then the 256 bytes

# Knows tools, in a form that llama.cpp reads off it.
CHAT_TEMPLATE = """\
{%- if tools %}{{- 'Tools:\\n' }}{%- for tool in tools %}{{- tool | tojson }}{{- '\\n' }}{%- endfor %}{%- endif %}
{%- for message in messages %}
    {{- '<' + message.role + '>\\n' }}
    {%- if message.content %}{{- message.content }}{%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<end>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<assistant>\\n' }}{%- endif %}"""

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5  # GGUF value types
TENSOR_F32 = 0
ALIGNMENT = 32


def _string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind, value):
    if kind == STRING:
        return _string(value)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def _key(name, kind, value, element=None):
    out = _string(name) + struct.pack("<I", kind)
    if kind != ARRAY:
        return out + _value(kind, value)
    return out + struct.pack("<IQ", element, len(value)) + b"".join(_value(element, v) for v in value)


def _keys():
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    types = [2, 3, 3] + [6] * 256  # unknown, control, byte
    for i in range(VOCABULARY - len(tokens)):
        tokens.append(f"filler{i}")
        types.append(1)
    return [
        _key("general.architecture", STRING, "llama"),
        _key("general.name", STRING, "tiny"),
        _key("llama.block_count", U32, LAYERS),
        _key("llama.context_length", U32, CONTEXT),
        _key("llama.embedding_length", U32, EMBEDDING),
        _key("llama.feed_forward_length", U32, FEED_FORWARD),
        _key("llama.attention.head_count", U32, HEADS),
        _key("llama.attention.head_count_kv", U32, HEADS),
        _key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        _key("llama.rope.dimension_count", U32, EMBEDDING // HEADS),
        _key("llama.vocab_size", U32, VOCABULARY),
        _key("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
        _key("tokenizer.ggml.model", STRING, "llama"),
        _key("tokenizer.ggml.add_space_prefix", BOOL, False),  # the beginning of an answer stays what it is
        _key("tokenizer.ggml.tokens", ARRAY, tokens, STRING),
        _key("tokenizer.ggml.scores", ARRAY, [0.0] * VOCABULARY, F32),
        _key("tokenizer.ggml.token_type", ARRAY, types, I32),
        _key("tokenizer.ggml.bos_token_id", U32, 1),
        _key("tokenizer.ggml.eos_token_id", U32, 2),
    ]


def _tensors():
    """(name, shape) with the width first, as GGUF has it."""
    yield "token_embd.weight", (EMBEDDING, VOCABULARY)
    yield "output_norm.weight", (EMBEDDING,)
    yield "output.weight", (EMBEDDING, VOCABULARY)
    for i in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{i}.{name}.weight", (EMBEDDING,)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{i}.{name}.weight", (EMBEDDING, EMBEDDING)
        for name in ("ffn_gate", "ffn_up"):
            yield f"blk.{i}.{name}.weight", (EMBEDDING, FEED_FORWARD)
        yield f"blk.{i}.ffn_down.weight", (FEED_FORWARD, EMBEDDING)


def write(path, seed=1):
    source = random.Random(seed)
    infos, data = [], bytearray()
    for name, shape in _tensors():
        count = 1
        for n in shape:
            count *= n
        infos.append(
            _string(name)
            + struct.pack("<I", len(shape))
            + struct.pack(f"<{len(shape)}Q", *shape)
            + struct.pack("<IQ", TENSOR_F32, len(data))
        )
        if len(shape) == 1:
            values = array.array("f", [1.0]) * count
        else:
            bound = (3.0 / shape[0]) ** 0.5  # variance 1 / width
            values = array.array("f", (source.uniform(-bound, bound) for _ in range(count)))
        data += values.tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    keys = _keys()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    with open(path, "wb") as out:
        out.write(head + bytes(-len(head) % ALIGNMENT) + data)
