"""The Python packages `ollama` and `openai` against a running runtime.

    python runtime_clients.py BASE_URL MODEL

MODEL is the full name of the bundled model in the node's cache. Exits 0 when every call gave what
it must; an assertion tells what did not.
"""

import datetime
import json
import sys

import ollama
import openai
import pydantic

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
GREEDY = {"temperature": 0}


class Person(pydantic.BaseModel):
    """What the structured answers must look like."""

    name: str = pydantic.Field(min_length=1, max_length=8)
    age: int = pydantic.Field(ge=0, le=150)
    glad: bool


def fails(call, kind, status):
    """The error of a call that must fail."""
    try:
        call()
    except kind as error:
        assert error.status_code == status, error
        return error
    raise AssertionError(f"no {kind.__name__}")


def check_ollama_listing(client, model):
    assert model in [entry.model for entry in client.list().models]
    shown = client.show(model)
    assert shown.details.family == "llama" and shown.details.quantization_level == "Q8_0"
    assert "completion" in shown.capabilities
    assert shown.modelinfo["llama.context_length"] == 512
    assert "im_start" in shown.template


def check_ollama_answers(client, model):
    messages = [{"role": "user", "content": QUESTION}]
    whole = client.chat(model, messages, options=GREEDY)
    assert whole.message.content == ANSWER and whole.message.role == "assistant"
    assert (whole.prompt_eval_count, whole.eval_count) == (15, 8)
    assert whole.done and whole.done_reason == "stop" and whole.total_duration > 0

    chunks = list(client.chat(model, messages, options=GREEDY, stream=True))
    assert len(chunks) > 3 and chunks[-1].done and chunks[-1].eval_count == 8
    assert "".join(chunk.message.content for chunk in chunks) == ANSWER

    assert client.generate(model, QUESTION, options=GREEDY).response == ANSWER
    chunks = list(client.generate(model, QUESTION, options=GREEDY, stream=True))
    assert "".join(chunk.response for chunk in chunks) == ANSWER


def check_ollama_formats(client, model):
    messages = [{"role": "user", "content": "Who are you?"}]
    limits = {"temperature": 0, "num_predict": 200}
    answer = client.chat(model, messages, format=Person.model_json_schema(), options=limits)
    Person.model_validate_json(answer.message.content)
    # The model does not know when to end an object of its own; chance finds an end soon.
    for seed in range(20):
        limits = {"temperature": 1, "seed": seed, "num_predict": 300}
        answer = client.generate(model, "Who are you?", format="json", options=limits)
        assert answer.response.startswith("{")
        if answer.done_reason == "stop":
            assert isinstance(json.loads(answer.response), dict)
            return
    raise AssertionError("no answer came to its end")


def check_ollama_lifecycle(client, model):
    client.generate(model, keep_alive="10m")
    [loaded] = client.ps().models
    assert loaded.model == model and loaded.size > 0 and loaded.size_vram == 0
    now = datetime.datetime.now(datetime.timezone.utc)
    minutes = (loaded.expires_at - now).total_seconds() / 60
    assert 9 < minutes <= 10, loaded.expires_at
    client.generate(model, keep_alive=0)
    assert not client.ps().models


def check_ollama_errors(client, model):
    error = fails(lambda: client.show("absent"), ollama.ResponseError, 404)
    assert "absent" in error.error
    wrong = {"temperature": "hot"}
    fails(lambda: client.generate(model, "Hello", options=wrong), ollama.ResponseError, 400)


def check_openai_answers(client, model):
    assert model in [entry.id for entry in client.models.list()]
    assert client.models.retrieve(model).id == model

    messages = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model=model, messages=messages, temperature=0)
    assert whole.choices[0].message.content == ANSWER
    assert whole.choices[0].finish_reason == "stop"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (15, 8)

    with client.chat.completions.create(
        model=model,
        messages=messages,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].usage.completion_tokens == 8
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(pieces) > 3 and "".join(pieces) == ANSWER

    text = client.completions.create(model=model, prompt=QUESTION, temperature=0, max_tokens=50)
    assert text.choices[0].text == ANSWER
    stopped = client.completions.create(model=model, prompt=QUESTION, temperature=0, stop=[" is"])
    assert stopped.choices[0].text == "The capital of France"


def check_openai_formats(client, model):
    messages = [{"role": "user", "content": "Who are you?"}]
    parsed = client.chat.completions.parse(
        model=model, messages=messages, response_format=Person, max_tokens=200
    )
    assert isinstance(parsed.choices[0].message.parsed, Person)
    answer = client.chat.completions.create(
        model=model, messages=messages, response_format={"type": "json_object"}, max_tokens=60
    )
    assert answer.choices[0].message.content.startswith("{")


def check_openai_errors(client, model):
    messages = [{"role": "user", "content": QUESTION}]
    fails(
        lambda: client.chat.completions.create(model="absent", messages=messages),
        openai.NotFoundError,
        404,
    )
    fails(
        lambda: client.chat.completions.create(model=model, messages=messages, n=2),
        openai.BadRequestError,
        400,
    )


def main():
    base, model = sys.argv[1:]
    # No proxy of the environment may stand between the test and this machine.
    with ollama.Client(host=base, trust_env=False) as client:
        for check in (
            check_ollama_listing,
            check_ollama_answers,
            check_ollama_formats,
            check_ollama_lifecycle,
            check_ollama_errors,
        ):
            check(client, model)
    with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as client:
        for check in (check_openai_answers, check_openai_formats, check_openai_errors):
            check(client, model)
    print("ollama and openai agree with the runtime")


if __name__ == "__main__":
    main()
