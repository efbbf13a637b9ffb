"""Parameters: flat strings with legal keys, of any value."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import attrs
import pydantic
import pytest
import torch
from hostile import (
    JUNK,
    KEYS,
    BrokenMapping,
    Color,
    Config,
    EndlessMapping,
    Point,
    hostile,
    recursive_dict,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_armory.values import (
    REDACTED,
    Descriptions,
    array_files,
    describe,
    legal_key,
    legal_keys,
    metric_values,
    param_strings,
    redact_text,
)
from pytest_armory.values import params as params_module
from pytest_armory.values.params import VALUE_LIMIT


def test_params_are_flattened_in_order() -> None:
    params = {
        "eps": 0.1,
        "model": {"layers": [64, 64], "act": torch.relu, "extra": {}},
        "config": Config(),
        "point": Point(1, {"z": None}),
        3: Color.RED,
        ("a", 1): "tuple key",
    }
    assert param_strings(params) == {  # type: ignore[arg-type]
        "eps": "0.1",
        "model.layers": "[64, 64]",
        "model.act": describe(torch.relu),
        "model.extra": "{}",
        "config.lr": "0.1",
        "config.password": REDACTED,
        "point.x": "1",
        "point.y.z": "None",
        "3": "Color.RED",
        "a.1": "tuple key",
    }


@pytest.mark.parametrize("value", ["text", {"inner": "text"}], ids=["flat", "nested"])
def test_what_has_many_members_is_data(value: object) -> None:
    """Each as a parameter of its own would take minutes to store."""
    many = {f"password{i}": value for i in range(200_000)}
    begin = time.process_time()
    (key, text), *others = param_strings({"data": many, **dict.fromkeys("abc", 0)}).items()
    assert time.process_time() - begin < 10
    assert (key, len(others), "text" in text) == ("data", 3, False)
    assert text.startswith("{'password0': [redacted], ")
    assert len(param_strings({str(i): i for i in range(2000)})) == 2000


def test_no_params_are_none() -> None:
    assert param_strings({}) == {}


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
    assert param_strings({"get_token.eps": 1, "get_token.api_key": "x"}) == {
        "get_token.eps": "1",
        "get_token.api_key": REDACTED,
    }


def test_params_that_databases_refuse_are_made_visible() -> None:
    assert param_strings({"a": "x\udc80\x00é"}) == {"a": "x\\udc80\\x00é"}


def test_params_are_not_cut() -> None:
    assert param_strings({"text": "x" * 1_000_000})["text"] == "x" * 1_000_000


@pytest.mark.parametrize("place", [VALUE_LIMIT - 20, VALUE_LIMIT + 9_990, 0])
def test_values_without_end_are_cut_before_they_are_searched_for_secrets(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """And no part of a secret is left at the cut."""
    searched: list[int] = []

    def redact(text: str) -> str:
        searched.append(len(text))
        return redact_text(text)

    monkeypatch.setattr(params_module, "redact_text", redact)
    secret = "ghp_" + "a1B2" * 9
    text = " " * place + secret + " word" * 6_000_000
    stored = param_strings({"text": text, "again": [text]})["text"]
    assert max(searched) <= VALUE_LIMIT + 10_000
    assert len(stored) <= VALUE_LIMIT
    assert "ghp_" not in stored
    left_out = len(text) - len(stored)
    said = int(stored.rpartition("[")[2].partition(" ")[0].replace(",", ""))
    assert abs(said - left_out) < 60  # about as many as the sentence itself has


def test_a_value_is_described_once() -> None:
    class Counted:
        count = 0

        def __repr__(self) -> str:
            Counted.count += 1
            return "Counted()"

    value, known = Counted(), Descriptions()
    assert param_strings({"a": value, "b": {"c": value}}, known=known) == {
        "a": "Counted()",
        "b.c": "Counted()",
    }
    param_strings({"d": value}, known=Descriptions(known))
    param_strings({"a": value, "e": Counted()}, known=known)
    assert Counted.count == 2


def test_no_param_is_lost_when_keys_become_the_same() -> None:
    params = {"a?": 1, "a!": 2, "a_": 3, "x" * 300: 4, "x" * 301: 5}
    strings = param_strings(params)
    assert list(strings.values()) == ["1", "2", "3", "4", "5"]
    assert list(strings)[:3] == ["a_", "a_-2", "a_-3"]


def test_cycles_and_depth_are_reported() -> None:
    assert param_strings(recursive_dict()) == {"self": "<cycle>"}
    assert param_strings({"a": recursive_dict()}) == {"a.self": "<cycle>"}
    doubled: dict[str, Any] = {"a": 1}
    for _ in range(60):
        doubled = {"a": doubled, "b": doubled}
    begin = time.process_time()
    assert "<nested too deep>" in param_strings(doubled).values()
    assert time.process_time() - begin < 2


@hostile
def test_params_survive(make: Callable[[], Any]) -> None:
    strings = param_strings({"a": make(), "b": [make()], "c": {"d": make()}, "e": 1})
    assert {key.split(".")[0] for key in strings} == set("abce")
    assert all(type(text) is str for text in strings.values())
    assert strings["e"] == "1"


def test_params_that_cannot_be_read_say_so() -> None:
    assert param_strings(BrokenMapping(a=1)) == {"_": "<hostile.BrokenMapping>"}
    assert list(param_strings(EndlessMapping()).values()) == ["<nested too deep>"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("accuracy", "accuracy"),
        ("report/macro avg/f1-score", "report/macro avg/f1-score"),
        ("test_x[0.1-a]", "test_x_0.1-a_"),
        ("recall@5", "recall_at_5"),
        ("pass^8", "pass_hat_8"),
        ("a*b", "a_b"),
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


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a+b", "a*b"], ["a_plus_sign_b", "a_asterisk_b"]),
        (["a+b", "a_b"], ["a_plus_sign_b", "a_b"]),
        (["pass@8", "pass^8", "pass_at_8"], ["pass_at_8-2", "pass_hat_8", "pass_at_8"]),
        (["x/a#@1", "x/a$@1"], ["x/a_number_sign__at_1", "x/a_dollar_sign__at_1"]),
        (["\x07", "\ud800"], ["_u0007_", "_ud800_"]),
        (["a", "a"], ["a", "a-2"]),
    ],
)
def test_keys_of_one_result_are_distinct(names: list[str], keys: list[str]) -> None:
    assert legal_keys(names) == keys
    assert legal_keys(names[::-1]) == (keys if len(set(names)) == 1 else keys[::-1])


def test_files_of_arrays_are_distinct() -> None:
    files = {"a_b": "metrics/a_b.json", "a b": "metrics/a_b-2.json", "a:b": "metrics/a_b-3.json"}
    for names in (list(files), list(files)[::-1]):
        assert array_files(names) == files


def test_long_keys_are_cut_and_stay_distinct() -> None:
    keys = {legal_key("x" * 300 + tail) for tail in ("a", "b", "/", "?", "!")}
    assert len(keys) == 5
    assert {len(key) for key in keys} == {250}


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JUNK, max_size=4))
def test_any_params(params: Mapping[Any, object]) -> None:
    from mlflow.utils.validation import _validate_param_name

    for key, text in param_strings(params).items():
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


class Optimizer(pydantic.BaseModel):
    lr: float
    api_key: str = "0123"


class Training(pydantic.BaseModel, extra="allow"):
    optimizer: Optimizer
    epochs: int = 3


@attrs.define
class Schedule:
    steps: int
    inner: Any = None


@attrs.frozen
class Named:
    _hidden: int


MODELS = [
    (Optimizer(lr=0.1), {"lr": "0.1", "api_key": "[redacted]"}),
    (
        Training(optimizer=Optimizer(lr=1), more="x"),
        {"optimizer.lr": "1.0", "optimizer.api_key": "[redacted]", "epochs": "3", "more": "x"},
    ),
    (
        Schedule(1, Optimizer(lr=2)),
        {"steps": "1", "inner.lr": "2.0", "inner.api_key": "[redacted]"},
    ),
    (
        Schedule(1, {"a": Schedule(2)}),
        {"steps": "1", "inner.a.steps": "2", "inner.a.inner": "None"},
    ),
    (Named(1), {"_hidden": "1"}),
]


@pytest.mark.parametrize(("model", "expected"), MODELS)
def test_models_are_flattened_as_dataclasses_are(model: Any, expected: dict[str, str]) -> None:
    flat = {f"m.{key}": value for key, value in expected.items()}
    assert param_strings({"m": model}) == flat


def test_so_are_results() -> None:
    results = {"a": Training(optimizer=Optimizer(lr=1)), "b": Schedule(2, Schedule(3))}
    numbers = metric_values(results).numbers
    assert numbers == {"a/optimizer/lr": 1, "a/epochs": 3, "b/steps": 2, "b/inner/steps": 3}


class Counted(pydantic.BaseModel):
    right: int
    all: int

    @pydantic.computed_field  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def share(self) -> float:
        return self.right / self.all


def test_a_computed_field_of_a_model_is_a_member_and_one_that_raises_hides_no_other() -> None:
    models = {"a": Counted(right=1, all=2), "b": Counted(right=0, all=0)}
    values = metric_values(models)
    assert values.numbers == {"a/right": 1, "a/all": 2, "a/share": 0.5, "b/right": 0, "b/all": 0}
    assert values.refused == {"b/share": "<ZeroDivisionError>"}
    assert param_strings({"m": models["b"], "l": [models["b"]]}) == {
        "m.right": "0",
        "m.all": "0",
        "m.share": "<ZeroDivisionError>",
        "l": "[Counted(right=0, all=0, share=<ZeroDivisionError>)]",
    }


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 supports no Python 3.14")
def test_models_of_pydantic_1_are_flattened_too() -> None:
    from pydantic import v1

    inner = v1.create_model("Inner", api_key=(str, "0123"), lr=(float, 0.1))
    kind = v1.create_model("Outer", n=1, inner=(inner, inner()), __config__=Extra)
    model = kind(more=2)
    flat = {"m.n": "1", "m.inner.api_key": "[redacted]", "m.inner.lr": "0.1", "m.more": "2"}
    assert param_strings({"m": model}) == flat
    assert metric_values(model).numbers == {"n": 1, "inner/lr": 0.1, "more": 2}


class Extra:
    """The settings of a model of pydantic 1."""

    extra = "allow"


def test_classes_are_not_their_instances() -> None:
    assert param_strings({"m": Optimizer, "s": Schedule}) == {
        "m": "test_values_params.Optimizer", "s": "test_values_params.Schedule",
    }  # fmt: skip
