"""Does a language model add numbers, what does a judge say of it, and what does it cost?

Ask another one by its address, as `OPENAI_BASE_URL` and `OPENAI_API_KEY` name it.
"""

import os
import re
from importlib.util import find_spec

import fake_llm
import pytest

from pytest_armory import Engine, Evaluation, track_usage

MODEL = "gpt-4o-mini"  # MLflow knows its price

pytestmark = [
    pytest.mark.evaluation(name="arithmetic", tags={"model": MODEL}),
    pytest.mark.skipif(
        find_spec("openai") is None, reason="pip install 'pytest-armory[llm]' installs openai"
    ),
]


@pytest.fixture(scope="session")
def llm_url():
    if "OPENAI_BASE_URL" in os.environ:
        yield os.environ["OPENAI_BASE_URL"]
    else:
        with fake_llm.serving() as url:
            yield url


def make_sums(*, count):
    pairs = [(7 * i % 90 + 5, 11 * i % 80 + 3) for i in range(count)]
    return [f"What is {a} + {b}?" for a, b in pairs], [str(a + b) for a, b in pairs]


@pytest.fixture(scope="session")
def sums(track_call):
    return track_call(make_sums, count=60)


@pytest.fixture
def traced(evaluation_run):
    """MLflow traces each call, with its tokens; untracked there is nowhere to send traces."""
    if evaluation_run.run_id is None:
        yield
        return
    import mlflow

    mlflow.openai.autolog()
    yield
    mlflow.openai.autolog(disable=True)


class Asking:
    """An async model, one question a call; what is no number is no answer."""

    def __init__(self, url):
        self.url = url
        self.client = None

    async def predict(self, question):
        from openai import AsyncOpenAI

        if self.client is None:  # in the event loop that it is used in
            # The engine counts failures; a client that retries would hide them.
            self.client = AsyncOpenAI(base_url=self.url, api_key=key(), max_retries=0)
        answer = await self.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question}], temperature=0
        )
        return re.findall(r"\d+", answer.choices[0].message.content)[-1]


def key():
    return os.environ.get("OPENAI_API_KEY", "none")


def judge(url):
    """A metric by sample: whether another call of a model finds the answer right."""
    from openai import OpenAI

    def judged(_, predictions, inputs):
        with OpenAI(base_url=url, api_key=key(), max_retries=2) as client:
            pairs = zip(inputs, predictions, strict=True)
            return [is_right(client, question, answer) for question, answer in pairs]

    return judged


def is_right(client, question, answer):
    asked = question.removeprefix("What is ").removesuffix("?")
    prompt = f"Is {asked} equal to {answer}? Say yes or no."
    verdict = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}]
    )
    return verdict.choices[0].message.content == "yes"


def exact(targets, predictions):
    return [target == prediction for target, prediction in zip(targets, predictions, strict=True)]


@pytest.mark.evaluation(
    description="Sixty sums, eight at a time, each of them twice",
    at_least={"exact": 0.8, "judged": 0.8},
    at_most={"cost": 0.01, "latency/p95": 30},
    repeats=2,
)
@pytest.mark.usefixtures("traced")
def test_sums(sums, llm_url):
    evaluation = Evaluation(
        name="sums",
        dataset=sums,
        batch_size=20,
        model=Asking(llm_url),
        concurrency=8,
        max_errors=0.1,
        sample_metrics={"exact": exact, "judged": judge(llm_url)},
    )
    results = Engine(evaluation).run()
    track_usage()

    assert results.metrics["errors"] < 6
