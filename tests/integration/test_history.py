"""``pytest-armory history``: evaluations over the sessions of a store."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import Evals

from pytest_armory.cli.main import main

SUITE = """
    import pytest
    @pytest.mark.evaluation(at_least={{"accuracy": 0.85}})
    @pytest.mark.parametrize("name", ["it's", "100%"])
    def test_a(name, evaluation_run):
        evaluation_run.log_metrics({{"accuracy": {0}, "loss": {0} / 2}})
    @pytest.mark.evaluation
    def test_b(evaluation_run): evaluation_run.log_metrics({{"f1": {0}}})
"""


@pytest.fixture
def four_sessions(evals: Evals) -> None:
    """Sessions s0 to s3."""
    for i, accuracy in enumerate((0.8, 0.9, 0.95, 0.9)):
        evals.write(SUITE.format(accuracy))
        evals.run("--armory-session", f"s{i}")


@pytest.mark.usefixtures("four_sessions")
def test_history(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    evals: Evals,
) -> None:
    monkeypatch.setenv("COLUMNS", "140")

    def history(*args: str) -> list[str]:
        capsys.readouterr()
        assert main(["history", *args]) == 0
        return capsys.readouterr().out.splitlines()

    lines = history("test_it.py::test_a[it's]", "--sessions", "3")
    assert lines[:2] == ["test_it.py::test_a[it's]  accuracy", "▁█▁  0.9 to 0.95, 3 sessions"]
    assert [line.split()[0] for line in lines[3:]] == ["s3", "s2", "s1"]
    assert "kept" in lines[3]
    first = history("[100%]", "--metric", "loss", "--metric", "accuracy")
    assert first[0] == "test_it.py::test_a[100%]  loss"
    assert "missed" in first[-1]
    assert "failed" in first[-1]
    target = tmp_path / "new" / "all.csv"
    lines = history("test_it.py::*", "--csv", str(target))
    assert len(lines) == 3 * 7 + 2 + 1
    assert lines[-1] == f"the points are written to {target}"
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows[:4]] == ["0.8", "0.9", "0.95", "0.9"]
    assert {row["metric"] for row in rows} == {"accuracy", "f1"}
    assert {row["experiment"] for row in rows} == {evals.pytester.path.name}
    evals.run("--armory-experiment", "other", "-k", "test_b")  # another project's, perhaps
    lines = history("test_b", "--html", str(target))
    assert lines[-1] == f"the page is written to {target}"
    headings = [line for line in lines if line.startswith("test_it.py::test_b")]
    assert sorted(headings) == sorted(
        f"test_it.py::test_b  f1 (experiment {name})"
        for name in (evals.pytester.path.name, "other")
    )
    assert any("4 sessions" in line for line in lines)
    assert any("1 session" in line for line in lines)
    assert "f1 of test_b (experiment other)" in target.read_text("utf-8")
    assert main(["history", "nothing's like it"]) == 2
    assert "`pytest-armory report` lists those of a session" in capsys.readouterr().err
    assert main(["history", "test_", "--metric", "acuracy"]) == 2
    assert "that matches 'test_' has logged 'acuracy'" in capsys.readouterr().err
    lines = history("test_it.py::*", "--metric", "f1")
    assert not any(line.startswith("test_it.py::test_a") for line in lines)
    assert main(["history", "test_a", "--csv", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err
