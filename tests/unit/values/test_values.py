"""`values`: real NumPy, torch, torchmetrics, scikit-learn and pandas objects, and hostile ones."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock, Mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_armory import values
from pytest_armory.values import (
    PARAM_LIMIT,
    REDACTED,
    clip,
    describe,
    is_secret_key,
    legal_key,
    metric_values,
    param_strings,
    redact_argv,
    redact_text,
)


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    password: str = "hunter2"


@dataclasses.dataclass
class Empty:
    pass


class Point(NamedTuple):
    x: Any
    y: Any


class ReprRaises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class ReprIsNoString:
    def __repr__(self) -> str:
        return 3  # type: ignore[return-value]


class GiantRepr:
    def __repr__(self) -> str:
        return "x" * 10_000_000


class EverythingRaises:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class AnswersEverything:
    def __getattr__(self, name: str) -> Any:
        return AnswersEverything()


class SaysItIsADict:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return dict


class ClassRaises:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


class ShapeRaises:
    dtype = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("no shape")


class NamelessMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class NamelessKind(metaclass=NamelessMeta):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class EndlessMapping(collections.abc.Mapping):  # type: ignore[type-arg]
    """Every member is another of its kind, and the iterator does not stop at its length."""

    def __getitem__(self, key: Any) -> Any:
        return EndlessMapping()

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield "a"

    def __len__(self) -> int:
        return 1


class BrokenMapping(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("no items")


class TolistIsItself:
    shape = (2,)
    dtype = "float32"

    def tolist(self) -> Any:
        return self


def recursive_list() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def recursive_dict() -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    mapping["self"] = mapping
    return mapping


def recursive_array() -> Any:
    array = np.array(None, dtype=object)
    array[()] = array
    return array


HOSTILE: list[Callable[[], Any]] = [
    ReprRaises,
    ReprIsNoString,
    GiantRepr,
    EverythingRaises,
    AnswersEverything,
    SaysItIsADict,
    ClassRaises,
    ShapeRaises,
    lambda: NamelessKind(),  # not the class: pytest itself does not survive it
    EndlessMapping,
    lambda: BrokenMapping(a=1),
    TolistIsItself,
    recursive_list,
    recursive_dict,
    recursive_array,
    MagicMock,
    lambda: MagicMock(spec=dict),
    lambda: MagicMock(spec=np.ndarray),
    lambda: MagicMock(spec=float),
    lambda: Mock(shape=(2, 3), dtype="float32"),
    lambda: Mock(shape=(), dtype="float32"),
    lambda: 10**10_000,
    lambda: (number for number in ()),
    lambda: torch.zeros(2, device="meta"),
    lambda: torch.tensor(1.0, device="meta"),
]
hostile = pytest.mark.parametrize("make", HOSTILE)


# --- describe ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (3, "3"),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        ("as it is", "as it is"),
        ("", ""),
        (b"ab", "b'ab'"),
        (b"a" * 1000, "bytes(1,000 bytes)"),
        (Color.RED, "Color.RED"),
        (Level.HIGH, "Level.HIGH"),
        (PurePosixPath("/data/x"), "/data/x"),
        (Decimal("1.10"), "1.10"),
        (Fraction(1, 3), "1/3"),
        (date(2024, 1, 2), "2024-01-02"),
        (range(3), "range(0, 3)"),
        (np.float32(0.5), "0.5"),
        (np.float64(0.1), "0.1"),
        (np.int64(3), "3"),
        (np.bool_(True), "True"),
        (np.str_("a"), "a"),
        (np.array(3), "3"),
        (np.longdouble(0.5), "0.5"),
        (np.datetime64("2020-01-01", "ns"), "2020-01-01T00:00:00.000000000"),
        (torch.tensor(1.5, requires_grad=True), "1.5"),
        (torch.tensor(True), "True"),
        (np.zeros((1797, 64)), "numpy.ndarray(shape=(1797, 64), dtype=float64)"),
        (torch.zeros(3, 2), "torch.Tensor(shape=(3, 2), dtype=float32, device=cpu)"),
        (torch.zeros(0, device="meta"), "torch.Tensor(shape=(0,), dtype=float32, device=meta)"),
        (torch.zeros(3).shape, "(3,)"),
        (torch.float32, "torch.float32"),
        (
            pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}),
            "pandas.DataFrame(shape=(3, 2), columns=['a', 'b'])",
        ),
        (pd.Series([1, 2]), "pandas.Series(shape=(2,), dtype=int64)"),
        (pd.Series({"device": 1}), "pandas.Series(shape=(1,), dtype=int64)"),
        (pd.Timestamp("2020-01-01"), "2020-01-01 00:00:00"),
        (len, "len"),
        (int, "int"),
        (json.dumps, "json.dumps"),
        (json.JSONEncoder, "json.encoder.JSONEncoder"),
        (json.JSONEncoder().encode, "json.encoder.JSONEncoder.encode"),
        (json, "json"),
        (functools.lru_cache(json.dumps), "json.dumps"),
        (functools.partial(json.dumps, 1, indent=2), "partial(json.dumps, 1, indent=2)"),
        (functools.partial(len, token="x"), f"partial(len, token={REDACTED})"),
        (lambda: 0, f"{__name__}.<lambda>"),
        (Config, f"{__name__}.Config"),
        ([1, "a", None], "[1, 'a', None]"),
        ([], "[]"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, 2), "(1, 2)"),
        ({"b", "a"}, "{'a', 'b'}"),
        (set(), "set()"),
        (frozenset([1]), "frozenset({1})"),
        (collections.deque([1]), "[1]"),
        ({}, "{}"),
        ({"a": [1], 2: "b"}, "{'a': [1], 2: 'b'}"),
        ([{"role": "user", "api_key": "k"}], f"[{{'role': 'user', 'api_key': {REDACTED}}}]"),
        (Config(), f"Config(lr=0.1, password={REDACTED})"),
        (Point(1, "a"), "Point(x=1, y='a')"),
        (Empty(), "Empty()"),
        ([len, np.zeros(2)], "[len, numpy.ndarray(shape=(2,), dtype=float64)]"),
        (SimpleNamespace(a=1), "namespace(a=1)"),
        (object(), "<object>"),
        ([object()], "[<object>]"),
        (MagicMock(), "<unittest.mock.MagicMock>"),
        (GiantRepr(), f"<{__name__}.GiantRepr>"),
        (ReprRaises(), f"<{__name__}.ReprRaises>"),
        ([1, ReprRaises()], f"[1, <{__name__}.ReprRaises>]"),
        (ShapeRaises(), f"<{__name__}.ShapeRaises>"),
    ],
)
def test_describe(value: object, text: str) -> None:
    assert describe(value) == text


def test_describe_says_how_many_members_it_leaves_out() -> None:
    assert describe(list(range(1000))).endswith("98, 99, … 900 more]")
    assert describe(set(range(1000))) == "{… 1,000 more}"
    assert describe({n: n for n in range(1000)}).endswith("99: 99, … 900 more}")
    assert describe([[[[1]]]]) == "[[[[… 1 more]]]]"


def test_describe_gives_a_long_string_whole_but_not_inside_a_list() -> None:
    text = "x" * 1_000_000
    assert describe(text) == text
    assert len(describe([text] * 3)) < 100_000


@hostile
def test_describe_survives(make: Callable[[], Any]) -> None:
    begin = time.perf_counter()
    for value in (make(), [make()], {"a": make()}, Config(make())):
        assert type(describe(value)) is str
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, pytest.fail.Exception])
def test_only_an_interrupt_passes(raised: type[BaseException]) -> None:
    class Raises:
        shape = (1,)

        def __repr__(self) -> str:
            raise raised

        def tolist(self) -> Any:
            raise raised

    bare = object.__new__(type("Bare", (), {"__repr__": Raises.__repr__}))
    if raised is not KeyboardInterrupt:
        assert describe(bare).endswith(".Bare>")
        assert metric_values(Raises()).refused
        return
    with pytest.raises(raised):
        describe(bare)
    with pytest.raises(raised):
        metric_values(Raises())


# --- param_strings -----------------------------------------------------------------------------


def test_params_are_flattened_in_order() -> None:
    params = {
        "eps": 0.1,
        "model": {"layers": [64, 64], "act": torch.relu, "extra": {}},
        "config": Config(),
        "point": Point(1, {"z": None}),
        3: Color.RED,
        ("a", 1): "tuple key",
    }
    assert param_strings(params, prefix="load") == {  # type: ignore[arg-type]
        "load.eps": "0.1",
        "load.model.layers": "[64, 64]",
        "load.model.act": describe(torch.relu),
        "load.model.extra": "{}",
        "load.config.lr": "0.1",
        "load.config.password": REDACTED,
        "load.point.x": "1",
        "load.point.y.z": "None",
        "load.3": "Color.RED",
        "load.a.1": "tuple key",
    }


def test_no_params_are_none() -> None:
    assert param_strings({}) == {}
    assert param_strings({}, prefix="load") == {}


@pytest.mark.parametrize(
    ("params", "strings"),
    [
        ({"password": "x", "n": 1}, {"password": REDACTED, "n": "1"}),
        ({"db": {"password": "x"}}, {"db.password": REDACTED}),
        ({"credentials": {"user": "u", "pin": 1}}, {"credentials": REDACTED}),
        ({"headers": {"X-Api-Key": "x"}}, {"headers.X-Api-Key": REDACTED}),
        ({"token": None, "use_auth_token": True}, {"token": "None", "use_auth_token": "True"}),
        ({"uri": "http://u:p@host/x"}, {"uri": f"http://{REDACTED}@host/x"}),
        ({"opts": ["--token=abc"]}, {"opts": f"['--token={REDACTED}']"}),
        (
            {"ns": SimpleNamespace(api_key="x", a=1)},
            {"ns": f"namespace(api_key='{REDACTED}', a=1)"},
        ),
        ({"eos_token": "</s>", "max_tokens": 5}, {"eos_token": "</s>", "max_tokens": "5"}),
    ],
)
def test_secret_params_are_redacted(params: dict[str, object], strings: dict[str, str]) -> None:
    assert param_strings(params) == strings


def test_a_loader_whose_own_name_says_token_hides_nothing() -> None:
    assert param_strings({"eps": 1, "api_key": "x"}, prefix="get_token") == {
        "get_token.eps": "1",
        "get_token.api_key": REDACTED,
    }


def test_params_that_databases_refuse_are_made_visible() -> None:
    assert param_strings({"a": "x\udc80\x00é"}) == {"a": "x\\udc80\\x00é"}


def test_params_are_not_cut() -> None:
    assert param_strings({"text": "x" * 1_000_000})["text"] == "x" * 1_000_000


def test_no_param_is_lost_when_keys_become_the_same() -> None:
    params = {"a?": 1, "a!": 2, "a_": 3, "x" * 300: 4, "x" * 301: 5}
    strings = param_strings(params)
    assert list(strings.values()) == ["1", "2", "3", "4", "5"]
    assert list(strings)[:3] == ["a_", "a_-2", "a_-3"]


def test_cycles_and_depth_are_told() -> None:
    assert param_strings(recursive_dict()) == {"self": "<cycle>"}
    assert param_strings({"a": recursive_dict()}) == {"a.self": "<cycle>"}
    doubled: dict[str, Any] = {"a": 1}
    for _ in range(60):
        doubled = {"a": doubled, "b": doubled}
    begin = time.perf_counter()
    assert "<nested too deep>" in param_strings(doubled).values()
    assert time.perf_counter() - begin < 2


@hostile
def test_params_survive(make: Callable[[], Any]) -> None:
    strings = param_strings({"a": make(), "b": [make()], "c": {"d": make()}, "e": 1}, prefix="p")
    assert {key.split(".")[1] for key in strings} == set("abce")
    assert all(type(text) is str for text in strings.values())
    assert strings["p.e"] == "1"


def test_params_that_cannot_be_read_say_so() -> None:
    assert param_strings(BrokenMapping(a=1), prefix="p") == {"p": f"<{__name__}.BrokenMapping>"}
    assert list(param_strings(EndlessMapping()).values()) == ["<nested too deep>"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("accuracy", "accuracy"),
        ("report/macro avg/f1-score", "report/macro avg/f1-score"),
        ("test_x[0.1-a]", "test_x_0.1-a_"),
        ("recall@5", "recall_5"),
        ("größe", "größe"),
        ("", "_"),
        (".", "_"),
        ("..", "__"),
        ("...", "__."),
        ("..a", "__a"),
        ("a/..b", "a/..b"),
        ("/a", "_/a"),
        ("a//b", "a/_/b"),
        ("a/", "a/_"),
        ("./a/../b", "_/a/__/b"),
        ("a\n", "a_"),
        ("a\udc80\x00", "a__"),
    ],
)
def test_legal_key(name: str, key: str) -> None:
    assert legal_key(name) == key


def test_long_keys_are_cut_and_stay_distinct() -> None:
    keys = {legal_key("x" * 300 + tail) for tail in ("a", "b", "/", "?", "!")}
    assert len(keys) == 5
    assert {len(key) for key in keys} == {250}


def test_clip() -> None:
    text = "x" * 12_000
    assert clip(text, 12_000) is text
    cut = clip(text, PARAM_LIMIT)
    assert len(cut) <= PARAM_LIMIT
    assert cut.endswith(" characters more]")
    missing = int(cut.partition("[")[2].split()[0].replace(",", ""))
    assert cut.count("x") + missing == len(text) + "characters".count("x")
    assert [clip("abc", limit) for limit in (0, 1, 2, 3)] == ["", "…", "…", "abc"]


# --- secrets -----------------------------------------------------------------------------------


SECRET_KEYS = """
password db.password db_password DB_PASSWORD user_pwd passwd passphrase password1 token hf_token
api_token access_token accessToken GITHUB_TOKEN refresh_token csrf_token access_tokens api_key
apiKey APIKey apikey OPENAI_API_KEY X-Api-Key api.key api_keys secret client_secret clientSecret
aws_secret_access_key access_key private_key credential credentials creds auth http_auth
authorization Proxy-Authorization bearer --password api_key_v2 OPENAI_API_KEY_PROD password_confirm
token_value secret_value db_pass passcode credentials_json license_key csrf
"""


@pytest.mark.parametrize("key", SECRET_KEYS.split())
def test_secret_key(key: str) -> None:
    assert is_secret_key(key)


OTHER_KEYS = """
max_tokens num_tokens max_new_tokens n_tokens tokens stop_tokens special_tokens tokenizer
tokenizer_name token_count token_type token_ids pad_token_id eos_token bos_token pad_token
mask_token image_token max_token price_per_token tokens_per_second first_token_latency author
pass forward_pass num_pass best_value eos_token_value
authors authority key keys sort_key rng_key public_key keyword secretary num_secrets
password_length bypass compass n_passes private access api
"""


@pytest.mark.parametrize("key", OTHER_KEYS.split())
def test_no_secret_key(key: str) -> None:
    assert not is_secret_key(key)


LETTERS = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\n\nMIIabc+/=\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("http://user:pass@host:5000/x", "http://[]@host:5000/x"),
        ("at http://user:pass@host, or", "at http://[]@host, or"),
        ("postgresql+psycopg2://u:p@ss@db:5432/ml", "postgresql+psycopg2://[]@db:5432/ml"),
        ("postgresql://u:p/a?s#s@db/ml", "postgresql://[]@db/ml"),
        ("https://ghp@github.com/x", "https://[]@github.com/x"),
        (f"ghp_{LETTERS} x", "[] x"),
        (f"github_pat_{LETTERS}", "[]"),
        (f"glpat-{LETTERS[:20]}", "[]"),
        (f"hf_{LETTERS[:34]}", "[]"),
        (f"sk-{LETTERS}", "[]"),
        (f"sk-proj-a_b-{LETTERS}-z", "[]"),
        ("AKIAIOSFODNN7EXAMPLE", "[]"),
        ("xoxb-1234567890-abc", "[]"),
        ("(eyJhbGciOi.eyJzdWIiOi.SflKxwRJSM)", "([])"),
        (f"a\n{PEM}\nb", "a\n[]\nb"),
        (PEM[:50], "[]"),
        ("Bearer xyz", "Bearer []"),
        ("Basic dXNlcjpwYXNz", "Basic []"),
        ("Authorization: Basic xyz", "Authorization: []"),
        ("'Authorization': 'Bearer xyz', 'a': 1", "'Authorization': '[]', 'a': 1"),
        ("X-Api-Key: abc", "X-Api-Key: []"),
        ("f(x, token=abc)", "f(x, token=[])"),
        ("f(auth=('u', 'p'), n=1)", "f(auth=[], n=1)"),
        ("password=a&n=1", "password=[]&n=1"),
        ("password=a)b c", "password=[] c"),
        ('password="a b" c', 'password="[]" c'),
        ('password="cut', 'password="[]"'),
        ('{"api_key": "a\\"b", "n": 1}', '{"api_key": "[]", "n": 1}'),
        ('{\\"api_key\\": \\"a\\", \\"n\\": 1}', '{\\"api_key\\": \\"[]\\", \\"n\\": 1}'),
        ("Server=x;Pwd=abc;Uid=u", "Server=x;Pwd=[];Uid=u"),
        ("MLFLOW_TRACKING_TOKEN=abc pytest", "MLFLOW_TRACKING_TOKEN=[] pytest"),
        ("assert token == 'x'", "assert token == '[]'"),
        ("https://blob/a?sv=1&sig=abc%3D&se=1", "https://blob/a?sv=1&sig=[]&se=1"),
        ("url=token=abc", "url=token=[]"),
        (f"sk_live_{LETTERS[:24]} hvs.{LETTERS[:24]}", "[] []"),
        (f"SG.{LETTERS[:22]}.{LETTERS[:22]}", "[]"),
        (
            f"https://hooks.slack.com/services/T0/B0/{LETTERS}",
            "https://hooks.slack.com/services/[]",
        ),
        ("https://s3/a?X-Amz-Signature=ab12&x=1", "https://s3/a?X-Amz-Signature=[]&x=1"),
        ("prog --password S3 --epochs 3", "prog --password [] --epochs 3"),
    ],
)
def test_redact_text(text: str, redacted: str) -> None:
    assert redact_text(text) == redacted.replace("[]", REDACTED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an ordinary sentence: nothing = nothing",
        "http://localhost:5000/@me",
        "https://medium.com/@user and a@b.c",
        "https://host/path?email=a@b.c",
        "sk-learn-logistic-regression-v2",
        "Basic Iterative Method",
        "bearer of news; Bearer token missing",
        "def f(token: int, secret: str) -> None",
        "test_token.py::test_auth::x",
        "max_tokens=10 eos_token=</s>",
        "token=None use_auth_token=True f(token=) password=",
        "eyJust.text",
        "prog --max-tokens 5 --auth --epochs 3",
    ],
)
def test_redact_text_leaves(text: str) -> None:
    assert redact_text(text) == text


def test_redact_argv() -> None:
    argv = ["pytest", "--password", "x", "--token=y z", "-o", "password=x", "FOO_TOKEN=x"]
    argv += ["--armory-tracking-uri", "http://u:p@host", "-k", "token and x", "--auth", "-v"]
    argv += ["--header=Authorization: Bearer abc", "a b", "x\udc80", "--max_tokens=5"]
    assert redact_argv(argv) == (
        "pytest --password '[redacted]' '--token=[redacted]' -o 'password=[redacted]'"
        " 'FOO_TOKEN=[redacted]' --armory-tracking-uri 'http://[redacted]@host' -k 'token and x'"
        " --auth -v '--header=Authorization: [redacted]' 'a b' 'x\\udc80' --max_tokens=5"
    )


REPEATED = r"""
a a- a. A - ) = \ ://a:b ://a:b@ -----BEGIN_PRIVATE_KEY----- sk- sk-a_ eyJaaaaa. eyJ- ghp_ pypi- a=
token= token=" token='\' token=\\ token=( Bearer_ Basic_ password: "password":"x",
"""


@pytest.mark.parametrize("unit", REPEATED.split())
def test_redaction_takes_linear_time(unit: str) -> None:
    text = unit.replace("_", " ") * (50_000 // len(unit))
    begin = time.perf_counter()
    redact_text(text)
    redact_text(f"token={text}")
    is_secret_key(text)
    assert time.perf_counter() - begin < 1


SECRETIVE = st.lists(
    st.sampled_from(
        [
            *("://", "@", ":", "/", "?", "#", " ", "=", '"', "'", "\\", "(", ")", "[", "]", "{"),
            *("token", "password", "Authorization", "Bearer ", "Basic ", "a", "5", "&sig=", "-"),
            *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", REDACTED, "sk-"),
            *(LETTERS, "ghp_", "eyJabcdef.", "dXNlcjpwYXNz", "\n", ",", "X-Api-Key: "),
        ]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(SECRETIVE | st.text())
def test_redaction_is_idempotent(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


# --- metric_values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (0.5, 0.5),
        (Level.HIGH, 3.0),
        (Fraction(1, 4), 0.25),
        (Decimal("0.5"), 0.5),
        (float("inf"), math.inf),
        (-math.inf, -math.inf),
        (np.float64(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(3), 3.0),
        (torch.tensor(True), 1.0),
    ],
)
def test_numbers(value: object, number: float) -> None:
    for results, key in ((value, "value"), ({"a": value}, "a"), ({"a": {"b": value}}, "a/b")):
        found = metric_values(results)
        assert found.numbers == {key: number}
        assert type(found.numbers[key]) is float
        assert (found.arrays, found.refused) == ({}, {})


@pytest.mark.parametrize(
    "nan", [math.nan, np.float32("nan"), torch.tensor(math.nan), Decimal("NaN")]
)
def test_nan_is_a_number(nan: object) -> None:
    assert math.isnan(metric_values({"a": nan}).numbers["a"])


class OnAnotherDevice:
    """What torch does to whoever forgets `.detach().cpu()`."""

    dtype = "float32"

    def __init__(self, inner: Any, ready: int = 0) -> None:
        self.inner, self.ready, self.shape = inner, ready, np.shape(inner)

    def detach(self) -> OnAnotherDevice:
        return OnAnotherDevice(self.inner, self.ready + 1)

    cpu = detach

    def tolist(self) -> Any:
        if self.ready < 2:
            raise TypeError("can't convert cuda:0 device type tensor")
        return self.inner

    item = tolist


@pytest.mark.parametrize(
    ("value", "array"),
    [
        ([1, 2.5, True, None], [1, 2.5, True, None]),
        ([], []),
        ((1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ([math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"]),
        (["cat", "d\udc80g"], ["cat", "d\\udc80g"]),
        ([Fraction(1, 2), Level.HIGH, date(2024, 1, 2)], [0.5, 3, "2024-01-02"]),
        (np.array([1.0, np.nan]), [1.0, "NaN"]),
        (np.array([1.0]), [1.0]),
        (np.zeros((2, 0)), [[], []]),
        (np.array(["2020-01-01"], dtype="M8[D]"), ["2020-01-01"]),
        (np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), [[1, 2.0]]),
        (np.array([None, {"a": np.float32(1)}], dtype=object), [None, {"a": 1.0}]),
        (np.zeros((1,) * 60), functools.reduce(lambda inner, _: [inner], range(60), 0.0)),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        (torch.tensor([1.0], requires_grad=True), [1.0]),
        ([torch.tensor(1.0), np.float32(2), 3], [1.0, 2.0, 3]),
        ([torch.tensor([1.0]), np.array([2])], [[1.0], [2]]),
        (OnAnotherDevice([1.0, 2.0]), [1.0, 2.0]),
        (pd.Series([1.0, None]), [1.0, "NaN"]),
        (pd.array([1, None], dtype="Int64"), [1, None]),
        (pd.DataFrame({"a": [1, 2], "b": [0.5, math.nan]}), {"a": [1, 2], "b": [0.5, "NaN"]}),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {"a": [1], "a-2": [2]}),
        (pd.DataFrame({("a", "b"): pd.to_datetime(["2020"])}), {"a/b": ["2020-01-01"]}),
    ],
)
def test_arrays(value: object, array: object) -> None:
    for results, key in ((value, "value"), ({"a": value}, "a")):
        found = metric_values(results)
        assert found.arrays == {key: array}
        assert (found.numbers, found.refused) == ({}, {})
        json.dumps(found.arrays, allow_nan=False)


def test_a_scalar_on_another_device() -> None:
    assert metric_values({"a": OnAnotherDevice(0.5)}).numbers == {"a": 0.5}


def test_a_large_array() -> None:
    found = metric_values(
        {"a": np.random.default_rng(0).random((500, 500))}, convert=lambda _: None
    )
    assert np.shape(found.arrays["a"]) == (500, 500)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "None"),
        ("0.5", "a string: '0.5'"),
        ("x" * 100, "a string: 'xxx"),
        ("http://u:p@h", f"a string: 'http://{REDACTED}@h'"),
        (np.str_("n/a"), "a string: 'n/a'"),
        (b"x", "<bytes>"),
        (1j, "a complex number"),
        (np.complex64(1), "a complex number"),
        ([1j], "a complex number"),
        (10**400, "too large for a float"),
        (Decimal("sNaN"), "<decimal.Decimal>: "),
        (np.timedelta64(5, "ns"), "<numpy.timedelta64>"),
        (pd.Timestamp("2020"), "<pandas.Timestamp>"),
        (pd.NA, "<pandas.NAType>"),
        ({1, 2}, "<set>"),
        (object(), "<object>"),
        ([object()], "<object>"),
        (len, "<builtin_function_or_method>"),
        (MagicMock(), "<unittest.mock.MagicMock>"),
        (MagicMock(spec=dict), "<unittest.mock.MagicMock>"),
        (Mock(shape=(2,), tolist=lambda: [Mock()]), "<unittest.mock.Mock>"),
        (torch.zeros(2, device="meta"), "<torch.Tensor>: NotImplementedError("),
        (recursive_list(), "<nested too deep>"),
        (BrokenMapping(a=1), f"<{__name__}.BrokenMapping>"),
    ],
)
def test_what_is_refused(value: object, reason: str) -> None:
    for results, key in ((value, "value"), ({"a": value}, "a")):
        found = metric_values(results)
        assert (found.numbers, found.arrays) == ({}, {})
        assert list(found.refused) == [key]
        assert found.refused[key].startswith(reason)
        assert len(found.refused[key]) <= 200


def test_mappings_are_joined_in_order() -> None:
    results = {
        "b": 1,
        "a": {"x": 2, 3: {0.5: 4}},
        "config": Point(5, {"z": [6]}),
        "data": Empty(),
        "none": {},
        "s": pd.Series({"mean": 7.0, ("p", 95): 8}),
        "recall@5": 9,
        "recall#5": 10,
        "": 11,
    }
    found = metric_values(results)
    assert list(found.numbers.items()) == [
        ("b", 1.0),
        ("a/x", 2.0),
        ("a/3/0.5", 4.0),
        ("config/x", 5.0),
        ("s/mean", 7.0),
        ("s/p/95", 8.0),
        ("recall_5", 9.0),
        ("recall_5-2", 10.0),
        ("value", 11.0),
    ]
    assert found.arrays == {"config/y/z": [6]}
    assert found.refused == {}


@pytest.mark.parametrize(
    ("results", "numbers"),
    [
        ({}, {}),
        ([{"loss": 1}], {"loss": 1.0}),
        (({"loss": 1},), {"loss": 1.0}),
        ([{"loss": 1}, {"loss": 2}], {"0/loss": 1.0, "1/loss": 2.0}),
        ({"test": [{"loss": 1}]}, {"test/loss": 1.0}),
        ([0.5, {"acc": 1}], {"0": 0.5, "1/acc": 1.0}),
        (pd.Series({"a": 1, "b": 2}), {"a": 1.0, "b": 2.0}),
        (pd.Series([1, 2], index=[0.5, 0.5]), {"0.5": 1.0, "0.5-2": 2.0}),
        (pd.DataFrame({"a": [1, 3]}).mean(), {"a": 2.0}),
        (collections.Counter("aab"), {"a": 2.0, "b": 1.0}),
        (collections.OrderedDict(item=1), {"item": 1.0}),
    ],
)
def test_shapes_of_results(results: object, numbers: dict[str, float]) -> None:
    assert metric_values(results) == values.MetricValues(numbers, {}, {})


def test_cycles_are_refused() -> None:
    assert metric_values(recursive_dict()).refused == {"self": "<cycle>"}
    cycle: list[Any] = [{"a": 1}]
    cycle[0]["b"] = cycle
    assert metric_values(cycle).refused == {"b": "<cycle>"}


def test_what_holds_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_armory.values.results._ARRAY_VALUES", 10_000)
    doubled: list[Any] = [1.0]
    for _ in range(60):
        doubled = [doubled, doubled]
    found = metric_values({"a": doubled, "b": np.zeros((200, 200)), "c": 1})
    assert found.refused["a"] == "more than 10,000 values in one result"
    assert found.refused["b"] == "an array of shape (200, 200): too large"
    assert found.numbers == {"c": 1.0}


def test_torchmetrics_collection() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    torchmetrics = pytest.importorskip("torchmetrics")
    collection = torchmetrics.MetricCollection(
        {
            "accuracy": classification.MulticlassAccuracy(num_classes=3),
            "recall": classification.MulticlassRecall(num_classes=3, average=None),
        }
    )
    collection.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
    found = metric_values(collection.compute())
    assert found.numbers == {"accuracy": pytest.approx(2 / 3)}
    assert found.arrays == {"recall": [1.0, 1.0, 0.0]}


def test_sklearn_classification_report() -> None:
    from sklearn.metrics import classification_report, confusion_matrix

    report = classification_report([0, 1, 1], [0, 1, 0], output_dict=True)
    found = metric_values({"report": report, "confusion": confusion_matrix([0, 1, 1], [0, 1, 0])})
    assert found.numbers["report/macro avg/f1-score"] == report["macro avg"]["f1-score"]
    assert found.numbers["report/1/support"] == 2.0
    assert found.arrays == {"confusion": [[1, 0], [1, 1]]}


# --- convert -----------------------------------------------------------------------------------


class Foreign:
    def __init__(self, score: Any) -> None:
        self.score = score


def convert_foreign(value: object) -> object:
    return value.score if isinstance(value, Foreign) else None


def test_convert_at_every_depth() -> None:
    results = {
        "number": Foreign(1),
        "mapping": Foreign({"a": Foreign(2)}),
        "array": Foreign(np.array([1, 2])),
        "list": [Foreign(3), Foreign(4)],
        "nested": [[Foreign(5)]],
        "rows": [Foreign({"a": 6}), Foreign({"a": 7})],
        "twice": Foreign(Foreign(8)),
        "string": Foreign("n/a"),
    }
    found = metric_values(results, convert=convert_foreign)
    assert found.numbers == {
        "number": 1.0,
        "mapping/a": 2.0,
        "rows/0/a": 6.0,
        "rows/1/a": 7.0,
        "twice": 8.0,
    }
    assert found.arrays == {"array": [1, 2], "list": [3, 4], "nested": [[5]]}
    assert found.refused == {"string": "a string: 'n/a'"}
    assert metric_values(Foreign(1), convert=convert_foreign).numbers == {"value": 1.0}


def test_convert_is_asked_only_about_what_is_foreign() -> None:
    asked: list[object] = []
    results = {"a": 1, "b": [1.0, "x"], "c": None, "d": np.float32(1), "e": Decimal(1), "f": "x"}
    metric_values(results, convert=asked.append)
    assert asked == []
    frame = pd.DataFrame({"a": [1]})
    metric_values({"frame": frame, "config": Config()}, convert=asked.append)
    assert asked[0] is frame
    assert any(isinstance(value, Config) for value in asked)


@pytest.mark.parametrize(
    "convert",
    [lambda value: value, lambda _: Foreign(1), lambda value: {"again": value}, lambda v: [v, v]],
)
def test_convert_that_always_answers_ends(convert: Callable[[object], object]) -> None:
    found = metric_values({"a": Foreign(1), "b": [Foreign(1)], "c": 1}, convert=convert)
    assert found.numbers == {"c": 1.0}
    assert found.refused


def test_convert_that_raises_is_the_reason() -> None:
    def convert(_: object) -> object:
        raise ValueError("token=abc")

    reason = f"<{__name__}.Foreign>: ValueError('token={REDACTED}')"
    found = metric_values({"a": Foreign(1), "b": [Foreign(1)], "c": 1}, convert=convert)
    assert found.refused == {"a": reason, "b": reason}
    assert found.numbers == {"c": 1.0}


# --- anything at all ---------------------------------------------------------------------------


@hostile
@pytest.mark.parametrize("convert", [None, lambda _: None])
def test_metrics_survive(make: Callable[[], Any], convert: Any) -> None:
    begin = time.perf_counter()
    for results in (make(), {"a": make(), "ok": 1}, [make()], [{"a": make()}, {"ok": 1}]):
        check(metric_values(results, convert=convert))
    assert metric_values({"a": make(), "ok": 1}, convert=convert).numbers["ok"] == 1.0
    assert time.perf_counter() - begin < 2


def check(found: values.MetricValues) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert all(type(number) is float for number in found.numbers.values())
    json.dumps(found.arrays, allow_nan=False, ensure_ascii=False).encode()
    assert all(type(reason) is str for reason in found.refused.values())
    keys = [*found.numbers, *found.arrays, *found.refused]
    assert len(keys) == len(set(keys))
    for key in keys:
        _validate_metric_name(key)
        assert len(key) <= 250


ANY_TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["..", "/", "a//b", "\udc80"])
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), ANY_TEXT),
    *(st.binary(max_size=5), st.decimals(), st.fractions(), st.dates(), st.timedeltas()),
    st.floats(width=32).map(np.float32),
    st.floats().map(torch.tensor),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.sampled_from([*HOSTILE[:9], len, Color.RED, np.datetime64("NaT"), pd.NaT, pd.NA]),
)
KEYS = ANY_TEXT | st.integers() | st.none() | st.tuples(ANY_TEXT, st.integers())
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Config, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(JUNK)
def test_any_result(results: object) -> None:
    check(metric_values(results))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JUNK, max_size=4), ANY_TEXT)
def test_any_params(params: Mapping[Any, object], prefix: str) -> None:
    from mlflow.utils.validation import _validate_param_name

    for key, text in param_strings(params, prefix=prefix).items():
        _validate_param_name(key)
        assert len(key) <= 250
        assert "\x00" not in text
        text.encode()


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("./ab_?\n\udc80") | st.characters(), max_size=400))
def test_any_key(name: str) -> None:
    key = legal_key(name)
    assert 0 < len(key) <= 250
    assert legal_key(key) == key


@given(st.text(max_size=200), st.integers(0, 100))
def test_any_clip(text: str, limit: int) -> None:
    assert len(clip(text, limit)) <= limit
