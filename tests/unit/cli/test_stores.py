"""What commands say of sessions and evaluations that a store does not have."""

from __future__ import annotations

from pytest_armory.cli.stores import no_such_session
from pytest_armory.cli.worst_samples import not_found
from pytest_armory.store import destination

LOCAL = destination.resolve("local")


def test_a_session_that_is_nearly_latest() -> None:
    said = no_such_session("latset", LOCAL)
    assert said.endswith("; did you mean latest? `pytest-armory sessions` lists them")
    assert "did you mean" not in no_such_session("nightly-42", LOCAL)


def test_the_latest_session_of_a_store_without_any() -> None:
    for name in ("", "latest"):
        assert no_such_session(name, LOCAL).startswith("no sessions at ")


def test_the_end_of_several_node_ids() -> None:
    text = not_found("a", "s", ["x.py::a", "y.py::a", "x.py::a"], True)
    assert text == (
        "'a' is the end of 2 node ids in the session 's': x.py::a, y.py::a; give one of them whole"
    )
    assert ", …; give" in not_found("a", "s", [f"{n}.py::a" for n in range(4)], True)
