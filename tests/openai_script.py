#!/usr/bin/env python3
"""The OpenAI client library against any server of its API: chat, streaming, tools, JSON schema, cancelling.

usage: openai_script.py BASE_URL [--socket PATH] [--bias JSON]

BASE_URL is for example http://127.0.0.1:8080/v1, the address of `talaria proxy`; PATH is a Unix socket where the server
is, whatever the URL's host; JSON is the logit_bias of all requests. Prints JSON. `exact` is what two servers with the same arithmetic must agree on to the bit (greedy texts, counts); `form` is
what every server of the API must agree on: fields, order of events, reasons. Stock llama-server computes with other
kernels than Talaria's exact integers, so its texts may differ after some tokens: compare `form` with it, and `exact` with a
Talaria that does not mask. Tools need a model whose chat template knows them and marks a call with <tool_call>; with
another one llama.cpp ignores them. Needs the packages of tests/requirements.txt; tests/openai_test.py runs it.
"""

import argparse
import json

import httpx2
import openai

QUESTION = [{"role": "user", "content": "Name three colours."}]
GREEDY = {"temperature": 0, "seed": 1}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALL = {"id": "call0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
# An earlier call with its result, the next question, and the beginning of its answer: "required" alone lets a model talk
# for as long as it likes before it calls, and small ones never come to it.
CONVERSATION = [
    {"role": "user", "content": "What is the weather in Rome?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call0", "content": "sunny"},
    {"role": "user", "content": "What is the weather in Paris?"},
    {"role": "assistant", "content": "<tool_call>\n"},
]
TOOLS = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 512}
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green", "blue"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}


def chat(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=16, **GREEDY)
    choice = answer.choices[0]
    exact = {"text": choice.message.content, "usage": [answer.usage.prompt_tokens, answer.usage.completion_tokens]}
    form = {"object": answer.object, "role": choice.message.role, "finish": choice.finish_reason}
    return exact, {**form, "prompt_tokens": answer.usage.prompt_tokens}


def streaming(client, model):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    events = list(client.chat.completions.create(model=model, messages=QUESTION, max_tokens=16, **GREEDY, **options))
    texts = [event.choices[0].delta.content or "" for event in events if event.choices]
    ends = [event.choices[0].finish_reason for event in events if event.choices]
    form = {"object": events[0].object, "role": events[0].choices[0].delta.role, "finish": ends[-1]}
    form.update({"earlier_finishes": any(ends[:-1]), "prompt_tokens": events[-1].usage.prompt_tokens})
    return {"text": "".join(texts), "events": len(events)}, form


def tools(client, model):
    answer = client.chat.completions.create(model=model, messages=CONVERSATION, **TOOLS, **GREEDY)
    choice = answer.choices[0]
    calls = choice.message.tool_calls or []
    form = {"finish": choice.finish_reason, "calls": [[call.type, call.function.name] for call in calls]}
    form["arguments"] = [sorted(json.loads(call.function.arguments)) for call in calls]
    form["fits"] = [json.loads(call.function.arguments)["city"] in ("Paris", "Rome") for call in calls]
    return {"arguments": [call.function.arguments for call in calls], "tokens": answer.usage.completion_tokens}, form


def tools_streamed(client, model):
    stream = client.chat.completions.create(model=model, messages=CONVERSATION, stream=True, **TOOLS, **GREEDY)
    choices = [event.choices[0] for event in stream if event.choices]
    calls = [call for choice in choices for call in choice.delta.tool_calls or []]
    name = "".join(call.function.name or "" for call in calls)
    arguments = "".join(call.function.arguments or "" for call in calls)
    form = {"finish": choices[-1].finish_reason, "name": name, "keys": sorted(json.loads(arguments))}
    return {"arguments": arguments, "deltas": len(calls)}, form


def json_schema(client, model):
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, response_format=wanted, max_tokens=256, **GREEDY
    )
    value = json.loads(answer.choices[0].message.content)
    fits = value["colour"] in ("red", "green", "blue") and isinstance(value["sure"], bool)
    return {"value": value}, {"keys": sorted(value), "fits": fits, "finish": answer.choices[0].finish_reason}


def cancelling(client, model):
    """Leaves a long answer after three events; the server must be there for the next."""
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=1000, stream=True, extra_body={"ignore_eos": True}, **GREEDY
    )
    seen = [next(iter(stream)) for _ in range(3)]
    stream.close()
    exact, form = chat(client, model)
    return exact, {"seen": len(seen), **form}


def refusals(client, model):
    """What the library makes of errors."""
    try:
        client.chat.completions.create(model=model, messages=[], max_tokens=1)
        raised = "nothing"
    except openai.APIStatusError as e:
        raised = type(e).__name__
    return {}, {"no messages": raised}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url")
    parser.add_argument("--socket")
    parser.add_argument("--bias", type=json.loads, default={})
    arguments = parser.parse_args()
    GREEDY["logit_bias"] = arguments.bias
    there = openai.DefaultHttpxClient(transport=httpx2.HTTPTransport(uds=arguments.socket))
    client = openai.OpenAI(
        base_url=arguments.base_url, api_key="unused", max_retries=0, timeout=300, http_client=there
    )
    models = client.models.list().data
    out = {"exact": {}, "form": {"models": len(models)}}
    for part in (chat, streaming, tools, tools_streamed, json_schema, cancelling, refusals):
        exact, form = part(client, models[0].id)
        out["exact"][part.__name__], out["form"][part.__name__] = exact, form
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
