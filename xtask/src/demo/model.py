"""A stand-in for an LLM server: streams OpenAI chat completions with a known timing, and keeps the true numbers.

Asked by a line on its standard input, it prints those numbers as one line of key=value words. It ends when that input
ends, so it never outlives the demo.
"""

import asyncio
import json
import os
import sys
import threading
import time

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

NAME, PORT = sys.argv[1], int(sys.argv[2])
FIRST_TOKEN, BETWEEN_TOKENS, TOKENS = float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])

app = FastAPI()
truth = {
    "requests": 0,
    "in_flight": 0,
    "aborted": 0,
    "first_token_sum": 0.0,
    "first_token_count": 0,
    "between_sum": 0.0,
    "between_count": 0,
}


def event(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"object": "chat.completion.chunk", "model": NAME, "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n"


def events():
    """As vLLM sends them, and whether each has output: the role, the tokens, the reason, and a closing mark."""
    yield event({"role": "assistant", "content": ""}), False
    for number in range(TOKENS):
        yield event({"content": f" token{number}"}), True
    yield event({}, finish="stop"), False
    yield "data: [DONE]\n\n", False


async def stream(began):
    ended, previous = False, None
    try:
        for chunk, output in events():
            if output:
                await asyncio.sleep(BETWEEN_TOKENS if previous else FIRST_TOKEN)
            now = time.perf_counter()
            if not output:
                pass
            elif previous:
                truth["between_sum"] += now - previous
                truth["between_count"] += 1
            else:
                truth["first_token_sum"] += now - began
                truth["first_token_count"] += 1
            previous = now if output else previous
            yield chunk
        ended = True
    finally:
        # A client that goes away ends this generator early, by cancellation or by collection.
        truth["requests" if ended else "aborted"] += 1
        truth["in_flight"] -= 1


@app.post("/v1/chat/completions")
async def chat(request: Request):
    began = time.perf_counter()
    truth["in_flight"] += 1
    body = await request.json()
    if body.get("stream"):
        return StreamingResponse(stream(began), media_type="text/event-stream")
    await asyncio.sleep(FIRST_TOKEN + TOKENS * BETWEEN_TOKENS)
    truth["requests"] += 1
    truth["in_flight"] -= 1
    message = {"role": "assistant", "content": "token " * TOKENS}
    return {"object": "chat.completion", "model": NAME, "choices": [{"index": 0, "message": message}]}


@app.get("/v1/models")
async def models():
    return {"object": "list", "data": [{"id": NAME, "object": "model"}]}


@app.get("/health")
async def health():
    return {}


def answer():
    for _ in sys.stdin:
        print(*(f"{key}={value}" for key, value in truth.items()), flush=True)
    os._exit(0)


threading.Thread(target=answer, daemon=True).start()
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
