"""What a program with the `openai` package does with a key of a job. The endpoint and the key are in the environment."""

import openai

client = openai.OpenAI(max_retries=0)
messages = [{"role": "user", "content": "three small words"}]

answer = client.chat.completions.create(model="fast", messages=messages)
assert answer.choices[0].message.content == "three small words", answer
assert answer.usage.total_tokens == 6, answer

# An answer that is given back, as conversations do.
history = messages + [answer.choices[0].message.model_dump()] + messages
answer = client.chat.completions.create(model="tier-fast/small", messages=history, temperature=0, user="me", n=1)
assert answer.choices[0].finish_reason == "stop", answer

stream = client.chat.completions.create(model="fast", messages=messages, stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "three small words "

stream = client.chat.completions.create(
    model="fast", messages=messages, stream=True, stream_options={"include_usage": True}
)
assert list(stream)[-1].usage.total_tokens == 6

assert [model.id for model in client.models.list()] == ["tier-fast/small"]
assert client.models.retrieve("tier-fast/small").id == "tier-fast/small"


def refused(error, code, **request):
    try:
        client.chat.completions.create(**{"model": "fast", "messages": messages, **request})
    except error as refusal:
        assert refusal.code == code, refusal
    else:
        raise AssertionError(f"{request} was not refused")


refused(openai.PermissionDeniedError, "permission_denied", model="tier-slow/large")
refused(openai.BadRequestError, "invalid_request", n=2)
refused(openai.BadRequestError, "invalid_request", extra_body={"web_search_options": {}})
client = client.with_options(api_key="lhk_wrong")
refused(openai.AuthenticationError, "invalid_api_key")
print("all is well")
