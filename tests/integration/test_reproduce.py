"""What a session stores so that one of its evaluations can be run again."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from conftest import Evals, artifacts_of, text_of

from pytest_armory import provenance

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b")


@pytest.fixture
def dirty(evals: Evals) -> Evals:
    """Two evaluations in a checkout that differs from its commit."""
    evals.write("def test_a(): pass")
    for args in (("init", "-q"), ("add", "test_it.py"), ("commit", "-qm", "one")):
        evals.pytester.run(*GIT, *args)
    evals.write("""
        import pytest

        @pytest.mark.evaluation
        @pytest.mark.parametrize("word", ["it's", "b"])
        def test_a(word): pass
    """)
    provenance.git_tags.cache_clear()
    return evals


def test_the_command_and_the_patch_are_stored(dirty: Evals, each_way: Sequence[str]) -> None:
    result = dirty.run(*each_way, "-o", "console_output_style=count", "test_it.py")
    result.assert_outcomes(passed=2)
    (session,) = dirty.sessions()
    files = artifacts_of(session)
    assert set(files) == {"uncommitted.patch", "environment.txt", "summary.md"}
    assert text_of(session, "environment.txt").startswith("python: ")
    for run in dirty.runs().values():
        commit = run.data.tags["mlflow.source.git.commit"][:12]
        nodeid = "test_it.py::test_a[b]"
        if run.info.run_name != "test_a[b]":
            nodeid = "test_it.py::test_a[it'\"'\"'s]"
        command = run.data.tags["armory.reproduce"]
        assert command.startswith(
            f"git checkout {commit} && git apply uncommitted.patch && pytest "
        )
        assert f"pytest '{nodeid}' --armory-track" in command
        assert "-o console_output_style=count" in command
        assert "no:xdist" in command or "-n" not in command
        assert set(artifacts_of(run)) == set()
    dirty.pytester.run(*GIT, "checkout", "-q", "test_it.py")
    (dirty.pytester.path / "uncommitted.patch").write_bytes(files["uncommitted.patch"].read_bytes())
    dirty.pytester.run(*GIT, "apply", "uncommitted.patch")
    assert '@pytest.mark.parametrize("word"' in (dirty.pytester.path / "test_it.py").read_text()


def test_the_patch_is_left_out_on_request(dirty: Evals) -> None:
    dirty.run("-o", "armory_patch=false").assert_outcomes(passed=2)
    (session,) = dirty.sessions()
    assert set(artifacts_of(session)) == {"environment.txt", "summary.md"}
    assert "git apply" not in dirty.run_of("test_a[b]").data.tags["armory.reproduce"]


def test_jobs_of_one_session_say_each_what_they_run_on(dirty: Evals) -> None:
    for _ in range(2):
        dirty.run("--armory-session", "both").assert_outcomes(passed=2)
    (session,) = dirty.sessions()
    kinds = sorted(name.partition("-")[0].partition(".")[0] for name in artifacts_of(session))
    assert kinds == ["environment", "environment", "summary", "uncommitted", "uncommitted"]


def test_a_session_without_evaluations_looks_at_nothing(
    dirty: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty.write("def test_plain(): pass")
    monkeypatch.setattr("pytest_armory.session.reproduce.environment_text", os.abort)
    dirty.run().assert_outcomes(passed=1)
    assert dirty.sessions() == []
