"""The page of a session: what is on it, escaped, with no need of network or script."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pages import HOSTILE, NOW, details
from summaries import summary

from pytest_armory.gates.noise import noise_band
from pytest_armory.records import EvaluationRecord, Outcome, Verdict
from pytest_armory.report.curves import curves
from pytest_armory.report.details import Changed, Entry
from pytest_armory.report.page import error_line, session_page, trends_page, web_link


@pytest.fixture(scope="module")
def page() -> str:
    """A session with everything on it."""
    return session_page(details())


class Reader(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_parts_of_a_page(page: str) -> None:
    text = Reader(page).text
    for expected in (
        "12 evaluations: 10 passed, 2 failed", "1f3a9c0d22b7", "20261127-042156-1f3a9c",
        "fell 2.6 % below the baseline's 0.9649", "worse: of 797 samples 24 got worse",
        "accuracy over eps", "attack=square", "20 sessions: unclear", "and 3 more",
        "metrics/confusion.json", "roc.svg", "train.C", "PGD on logistic regression",
        "git checkout 1f3a9c0d22b7 && pytest", "pytest --armory-track -n auto evals",
        "1043  7 -> 9  target 7", "python: CPython 3.12.3", "2026-11-18", "the CI job",
    ):  # fmt: skip
        assert expected in text
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[0] == "Gates"
    assert text.index("missed") < text.index("unclear")


def test_nothing_is_fetched_and_no_script_is_there(page: str) -> None:
    elements = Reader(page).elements
    assert {tag for tag, _ in elements} & {"script", "link", "iframe", "object"} == set()
    sources = [value or "" for _, attrs in elements for name, value in attrs.items()
               if name in ("src", "srcset", "data", "action", "xlink:href")]  # fmt: skip
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "default-src 'none'" in page
    assert "url(http" not in page
    assert "@import" not in page


def test_ids_are_of_one_chart_each(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', page)
    assert set(used) <= set(ids)


def test_hostile_texts_are_texts() -> None:
    found = Reader(session_page(details(12, hostile=True)))
    assert not any(tag in ("script", "img", "svg") and any("onerror" in n or "onload" in n
                   for n in attrs) for tag, attrs in found.elements)  # fmt: skip
    assert "script" not in {tag for tag, _ in found.elements}
    links = [attrs.get("href") or "" for tag, attrs in found.elements if tag == "a"]
    assert all(link.startswith("https://mlflow.example.org/") for link in links)
    assert HOSTILE[0] in found.text
    assert "{{ 7 * 7 }}" in found.text
    assert "\x1b" not in found.text
    assert "\u202e" not in found.text


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip


def title_in_chromium(folder: Path, page: str, *options: str) -> str:
    """The title of a page once a browser has shown it."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *options,
               f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    (found,) = re.findall(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[:1]
    return str(found)


def without_policy(page: str) -> str:
    """A page in which scripts would run."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert bare != page
    return bare


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_hostile_page_runs_nothing_in_a_browser(tmp_path: Path) -> None:
    """Without the page's own policy, so that escaping is what is tested."""
    owned = "<title>x</title><script>document.title='owned'</script>"
    assert title_in_chromium(tmp_path, owned) == "owned"  # it would be seen
    page = without_policy(session_page(details(12, hostile=True)))
    assert "12 evaluations" in title_in_chromium(tmp_path, page)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_evaluations_take_the_width_of_a_narrow_window(tmp_path: Path) -> None:
    page = without_policy(session_page(details(3)))
    measure = """<script>
        const width = selector => document.querySelector(selector).getBoundingClientRect().width;
        const row = width('.evaluations tbody tr'), heading = width('h2');
        document.title = [row, heading, document.documentElement.scrollWidth <= innerWidth];
    </script></body>"""
    narrow = page.replace("</body>", measure)
    row, heading, fits = title_in_chromium(tmp_path, narrow, "--window-size=500,900").split(",")
    assert float(row) == float(heading) < 500
    assert fits == "true"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_page_of_trends_fits_a_narrow_window(tmp_path: Path) -> None:
    long = replace(details().trends[0], nodeid=f"evals/test_digits.py::test_{'x' * 200}")
    page = without_policy(trends_page([long], "x.db"))
    measure = """<script>
        const cells = [...document.querySelectorAll('.sessions td')];
        const ends = cells.map(cell => cell.getBoundingClientRect().right);
        const lines = cells[0].getBoundingClientRect().height / parseFloat(
            getComputedStyle(cells[0]).lineHeight);
        document.title = [document.documentElement.scrollWidth, innerWidth, Math.max(...ends),
                          Math.round(lines)];
    </script></body>"""
    narrow = page.replace("</body>", measure)
    title = title_in_chromium(tmp_path, narrow, "--window-size=500,900")
    scroll, inner, end, lines = map(float, title.split(","))
    assert scroll <= inner
    assert end <= inner  # the verdict is in sight
    assert lines == 1


def test_a_thousand_evaluations() -> None:
    page = session_page(details(1000))
    assert len(page) < 2_000_000
    assert page.count("<details") == 1003


def test_a_gate_has_its_evidence_and_the_bounds_of_an_unclear_change() -> None:
    text = 'fell 2 % below the baseline\'s 0.5; "-1%" allows 0.495'
    worse, unclear = (
        Verdict("f1", "baseline -1%", state, 0.49, 0.495, 0.5, text, verdict=verdict,
                low=-0.041, high=0.0123, evidence="of 9 samples")
        for state, verdict in (("failed", "worse"), ("passed", "unclear"))
    )  # fmt: skip
    entries = [Entry(EvaluationRecord(f"t.py::t{i}", outcome=Outcome.PASSED, verdicts=(v,)))
               for i, v in enumerate((worse, unclear))]  # fmt: skip
    shown = replace(details(0), entries=entries,
                    summary=summary([entry.record for entry in entries]))  # fmt: skip
    page = session_page(shown)
    assert '<p class="quiet">worse: of 9 samples</p>' in page
    assert '<p class="quiet">of 9 samples; the change is -0.041 to 0.012</p>' in page


def test_a_parameter_that_changed_in_the_same_way_stands_once() -> None:
    changes = [Changed(f"t.py::t{i}", "C", "1", "2" if i < 3 else "3") for i in range(4)]
    page = session_page(replace(details(0), changed=changes))
    assert "<td>t.py::t0 and 2 more</td><td>C</td><td>1</td><td><b>2</b>" in page
    assert "<td>t.py::t3</td><td>C</td><td>1</td><td><b>3</b>" in page


def test_the_end_has_the_commands_of_what_failed() -> None:
    end = Reader(session_page(details(12))).text.partition("To run it again")[2]
    assert "[pgd-0.1]' --armory-track" in end
    assert "[square-0.05]' --armory-track" in end
    assert end.count("git checkout") == 2
    assert "Each evaluation that did not pass:" in end
    passed = [entry for entry in details(12).entries if entry.record.outcome is Outcome.PASSED]
    good = Reader(session_page(replace(details(12), entries=passed))).text
    assert good.partition("To run it again")[2].count("git checkout") == 1
    assert "One evaluation:" in good
    entry = next(e for e in details(12).entries if e.record.outcome is Outcome.FAILED)
    many = Reader(session_page(replace(details(12), entries=[entry] * 7))).text
    assert "The first 5 of 7 evaluations that did not pass:" in many


def test_a_session_with_nothing_to_draw() -> None:
    empty = replace(details(0), trends=[], changed=[], pictures=[], matrices=[], more_trends=0,
                    environment="", command="", job="", began=0)  # fmt: skip
    text = Reader(session_page(empty)).text
    assert "Trends" not in text
    assert "0 evaluations" in text


def test_what_the_summary_says_of_a_session_is_on_its_page() -> None:
    given = details(1)
    used = EvaluationRecord(
        "t.py::test_a",
        outcome=Outcome.PASSED,
        metrics={"tokens/total": 7.0, "traces/without_tokens": 0.0},
        changed=("accuracy",),
    )
    said = replace(given.summary, records=[used], waiting=1, lost=2, resumed=3)
    text = Reader(session_page(replace(given, summary=said))).text
    assert f"waiting for {said.where}: 1 evaluation, recorded locally" in text
    assert "not stored: 2 evaluations" in text
    assert "resumed: 3 evaluations passed before in this session" in text
    assert "used: 7 tokens, cost unknown" in text
    assert "the data changed: accuracy is of other samples or targets" in text


def test_trends_alone() -> None:
    page = trends_page(details().trends[:2], "sqlite:///x.db")
    text = Reader(page).text
    assert text.count("accuracy of evals/test_digits.py::test_robust_0") == 2
    assert "sqlite:///x.db" in text
    assert "session 19" in text


def test_what_a_page_leaves_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_armory.report.page.TABLES", 2)
    monkeypatch.setattr("pytest_armory.report.page.CURVES", 1)
    (first, *_) = details().trends
    text = Reader(trends_page([first] * 5, "x.db")).text
    assert text.count("of evals/test_digits.py::test_robust_0") == 2
    assert "and 3 more trends" in text
    assert "more trend" not in Reader(trends_page([first] * 2, "x.db")).text
    rows = [
        entry(f"t.py::t{test}[{model}{x}]", x, eps=str(x), model=str(model))
        for test in range(3) for model in range(8) for x in (0.0, 0.1, 0.2)
    ]  # fmt: skip
    text = Reader(session_page(replace(details(0), entries=rows))).text
    assert text.count("… 2 more, not drawn") == 1
    assert "and 2 more charts" in text
    few = Reader(session_page(replace(details(0), entries=rows[:18]))).text
    assert "model=5" in few
    assert "not drawn" not in few
    assert "more chart" not in few


def test_one_session_has_no_trend() -> None:
    given = details()
    alone = [replace(trend, points=trend.points[-1:]) for trend in given.trends]
    assert "<h2>Trends" not in session_page(replace(given, trends=alone))
    assert "<h2>Trends" in session_page(given)
    assert "<h2>Trends" in trends_page(alone, "x.db")


def test_a_row_of_a_test_that_failed_has_its_gated_metric_first() -> None:
    kept = Verdict("z", "baseline -2%", "passed", 1.5, 1.4, 1.5)
    metrics = {"a": 1.0, "b": 1.0, "c": 1.0, "z": 1.5}
    good = EvaluationRecord("t.py::t[1]", outcome=Outcome.PASSED, metrics=metrics, verdicts=(kept,))
    bad = replace(good, nodeid="t.py::t[2]", outcome=Outcome.FAILED, verdicts=())
    page = session_page(replace(details(0), entries=[Entry(good), Entry(bad)]))
    text = " ".join(Reader(page).text.split())
    assert text.count("z 1.5") == 2
    assert "z1.5" not in text


def test_a_trend_without_a_number_has_no_chart() -> None:
    (first, *_) = details().trends
    points = [replace(point, value=math.nan) for point in first.points]
    page = trends_page([first, replace(first, points=points, nodeid="t.py::test_nan")], "x.db")
    assert page.count("<figure") == 1


@pytest.mark.parametrize(
    ("url", "is_link"),
    [("https://h/#/a", True), ("http://h", True), ("javascript:alert(1)", False), (None, False),
     (" https://h", False), ("https://h/\"onclick='x'", False), ("data:text/html,x", False)],
)  # fmt: skip
def test_what_may_be_a_link(url: str | None, is_link: bool) -> None:
    assert bool(web_link(url)) is is_link


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("call:\n    def test():\n>  f()\nE  OSError: no\n\nt.py:1: OSError", "OSError: no"),
        ("call:\nE  KeyError: 1\n\nDuring\nE  OSError: 2\nE  more", "OSError: 2"),
        ("setup:\n\nfile t.py, line 1\nexpected", "file t.py, line 1"),
        ("call:\nEverything is wrong", "Everything is wrong"),
        ("", ""),
    ],
)
def test_the_line_that_says_the_error(report: str, expected: str) -> None:
    assert error_line(report) == expected


def test_a_failure_is_folded_and_missed_gates_stand_once() -> None:
    page = session_page(details(12))
    folded = "<details><summary>ValueError: refused</summary><pre>call:\n&gt; assert 0\nE  Value"
    assert f'<tr class="failure"><td colspan="4">{folded}' in page
    gate = replace(details(12).entries[2], failure="call:\n1 gate missed: accuracy 0.9")
    assert "gate missed" not in session_page(replace(details(0), entries=[gate]))


def entry(nodeid: str, accuracy: float | None, **params: str) -> Entry:
    """An evaluation with one metric."""
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return Entry(EvaluationRecord(nodeid, outcome=Outcome.PASSED, metrics=metrics), params)


CURVES = [
    ([(f"t[{x}]", x, {"eps": str(x)}) for x in (0.0, 0.1, 0.2)], {"eps": [""]}),
    ([(f"t[{x}]", x, {"eps": str(x), "PGD.eps": str(x)}) for x in (0.0, 0.1, 0.2)],
     {"eps": [""]}),
    ([(f"t[{m}{x}]", x, {"eps": str(x), "model": m}) for m in "ab" for x in (0.0, 0.1, 0.2)],
     {"eps": ["model=a", "model=b"]}),
    ([(f"t[{m}{x}]", x, {"eps": str(x), "model": f"a.b.{m}", "load.kind": m}) for m in "ab"
      for x in (0.0, 0.1, 0.2)], {"eps": ["model=a", "model=b"]}),
    ([(f"t[{x}]", x, {"eps": str(x)}) for x in (0.0, 0.1)], {}),
    ([(f"t[{m}]", 0.5, {"model": m}) for m in "abc"], {}),
    ([(f"t[{x}]", None, {"eps": str(x)}) for x in (0.0, 0.1, 0.2)], {}),
    ([(f"{x}.py::t", x, {"eps": str(x)}) for x in (0.0, 0.1, 0.2)], {}),
    ([(f"t[{i}]", 0.5, {"eps": "0.1", "seed": str(i)}) for i in range(3)], {"seed": [""]}),
    ([(f"t[{x}]", 0.5, {"eps": x}) for x in ("nan", "inf", "1")], {}),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), CURVES)
def test_where_there_is_a_curve(
    rows: list[tuple[str, float | None, dict[str, str]]], expected: dict[str, list[str]]
) -> None:
    found = curves([entry(nodeid, accuracy, **params) for nodeid, accuracy, params in rows])
    assert {c.parameter: list(c.series) for c in found} == expected


def test_a_curve_is_of_the_gated_metric_though_the_first_test_failed() -> None:
    rows = [entry(f"t[{x}]", x, eps=str(x)) for x in (0.0, 0.1, 0.2)]
    gate = Verdict("z", "baseline -2%", "passed", 1.5, 1.4, 1.5)
    gated = [
        replace(one, record=replace(one.record, metrics={"a": 1.0, "z": 1.5}, verdicts=verdicts))
        for one, verdicts in zip(rows, [(), (gate,), (gate,)], strict=True)
    ]
    assert [curve.metric for curve in curves(gated)] == ["z"]


def test_the_band_of_a_metric() -> None:
    values = [0.90, 0.91, 0.89, 0.92, 0.90]
    low, high = noise_band("accuracy", values) or (0, 0)
    assert low == pytest.approx(0.877373, abs=1e-6)
    assert high > 0.92
    assert noise_band("accuracy", values[:4]) is None
    assert noise_band("accuracy", [*values[:4], float("nan")]) is None
    times = noise_band("time/predict_seconds", [0.01, 0.5, 0.02, 0.9, 0.03])
    assert times is not None
    assert times[0] > 0


def test_a_session_without_a_page_imports_no_library_for_it() -> None:
    code = "import sys, pytest_armory.cli.main, pytest_armory.plugin.ending; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "jinja2"} & set(done.stdout.split())
    assert NOW


def test_every_metric_of_an_evaluation_is_on_its_line() -> None:
    metrics = {"a": 1.0, "b": 0.5, "b/ci_low": 0.4, "b/ci_high": 0.6, "c": 3.0, "d": 4.0,
               "time/predict_seconds": 5.0}  # fmt: skip
    record = EvaluationRecord("t.py::t", outcome=Outcome.PASSED, metrics=metrics, baseline={"d": 6})
    page = session_page(replace(details(0), entries=[Entry(record)]))
    text = " ".join(Reader(page).text.split())
    for expected in ("a 1", "b 0.5 ±0.1", "d4 ↓2", "time/predict_seconds5"):
        assert expected in text
    assert "ci_low" not in text
    many = replace(record, metrics={f"m{i}": float(i) for i in range(60)})
    page = session_page(replace(details(0), entries=[Entry(many)]))
    assert page.count("<dt>m") == 40
    assert "17 more metrics" in page


def test_a_text_of_several_lines_has_them() -> None:
    record = EvaluationRecord("t.py::test_a", outcome=Outcome.PASSED)
    text = "first\n\n- <b>\x1b[31m"
    described = Entry(record, {"prompt": text}, description=text)
    page = session_page(replace(details(0), entries=[described]))
    assert '<p class="lines">first\n\n- &lt;b&gt;\\x1b[31m</p>' in page
    assert '<dd class="lines">first\n\n- &lt;b&gt;\\x1b[31m</dd>' in page


@pytest.mark.parametrize(
    ("outcome", "colour"),
    [(Outcome.PASSED, "good"), (Outcome.SKIPPED, "warn"), (Outcome.XFAILED, "warn"),
     (Outcome.FAILED, "bad"), (Outcome.CRASHED, "bad")],
)  # fmt: skip
def test_only_what_passed_is_green(outcome: Outcome, colour: str) -> None:
    entry = Entry(EvaluationRecord("t.py::test_a", outcome=outcome))
    page = session_page(replace(details(0), entries=[entry]))
    assert f'<td class="{colour}">{outcome.value}</td>' in page


def test_an_evaluation_under_way_is_not_shown_as_failed() -> None:
    entry = Entry(EvaluationRecord("t.py::test_a"))
    page = session_page(replace(details(), summary=summary([entry.record]), entries=[entry]))
    assert '<td class="quiet">running</td>' in page
