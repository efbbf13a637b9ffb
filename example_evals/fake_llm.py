"""A server with OpenAI's chat API on this machine, for evaluations that need no network and no key.

It adds numbers, and is as unreliable as others: some answers are wrong, some only every other
time, some calls are refused, each takes a while. All of it depends on the question and on how often
it was asked, so that each session measures the same.
"""

import json
import re
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import ClassVar
from zlib import crc32


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar = Counter()
    lock: ClassVar = Lock()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["messages"][-1]["content"]
        chance = crc32(prompt.encode()) % 100
        with self.lock:
            self.asked[prompt] += 1
            times = self.asked[prompt]
        time.sleep(0.002 + chance / 10_000)
        if prompt.startswith("Is "):
            self.answer(request, prompt, judged(prompt))
        elif chance < 7:
            self.send(429, {"error": {"message": "too many requests", "type": "rate_limit"}})
        else:
            is_wrong = chance < 12 or (chance < 20 and times % 2)
            self.answer(request, prompt, added(prompt, off=is_wrong))

    def answer(self, request, prompt, text):
        tokens_in, tokens_out = len(prompt.split()), len(text.split())
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        self.send(
            200,
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{**choice, "finish_reason": "stop"}],
                "usage": {
                    "prompt_tokens": tokens_in,
                    "completion_tokens": tokens_out,
                    "total_tokens": tokens_in + tokens_out,
                },
            },
        )

    def send(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def added(question, *, off):
    first, second = map(int, re.findall(r"\d+", question))
    return f"The answer is {first + second + bool(off)}."


def judged(prompt):
    first, second, answer = map(int, re.findall(r"\d+", prompt))
    return "yes" if first + second == answer else "no"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # of more calls at once than its 5, a busy machine refuses some


@contextmanager
def serving():
    """The base URL of a server that runs meanwhile, on a free port."""
    server = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with serving() as url:
        print(f"{url}, until Ctrl-C")
        while True:
            time.sleep(3600)
