"""Suites that use MLflow themselves: what they set up stands, and what they log goes where it did.

Each situation runs with tracking off and on, in one process and in two, and some over HTTP;
:mod:`mlflow_suites` says what is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow_suites import Group, Ours, Outcome, Situation, Suites, differences, evaluations_of

# ---------------------------------------------------------------- 1. tracing

TRACING = [
    Situation(
        "traced",
        """
        @mlflow.trace(name=f"{ME} outer")
        def outer(x): return inner(x) + 1
        @mlflow.trace(name="inner")
        def inner(x): return 2 * x
        def test_before():
            with mlflow.start_span(f"{ME} before outside"): pass
        @evaluation
        def test_a():
            assert outer(3) == 7
            mlflow.flush_trace_async_logging()
            trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
            assert [span.name for span in trace.data.spans] == [f"{ME} outer", "inner"]
        @evaluation
        def test_b():
            with mlflow.start_span(f"{ME} second") as span:
                span.set_inputs({"x": 1})
                mlflow.update_current_trace(tags={"kind": "mine"})
        def test_after():
            with mlflow.start_span(f"{ME} after outside"): pass
        """,
        {"test_a": Ours(traces=["traced outer"]), "test_b": Ours(traces=["traced second"])},
        http=True,
    ),
    Situation(
        "traced_failing",
        """
        @mlflow.trace(name=f"{ME} breaks")
        def breaks(x): raise ValueError(x)
        @evaluation
        def test_a(): breaks(1)
        @evaluation
        def test_b():
            with pytest.raises(ValueError, match="2"): breaks(2)
        """,
        {
            "test_a": Ours(traces=["traced_failing breaks"], status="FAILED"),
            "test_b": Ours(traces=["traced_failing breaks"]),
        },
        http=True,
    ),
    Situation(
        "traced_threads",
        """
        from concurrent.futures import ThreadPoolExecutor
        @mlflow.trace(name=f"{ME} work")
        def work(x): return x + 1
        @evaluation
        def test_a():
            with ThreadPoolExecutor(4) as pool:
                assert sum(pool.map(work, range(20))) == 210
        """,
        http=True,
    ),
    Situation(
        "traced_children_in_threads",
        """
        import contextvars
        from concurrent.futures import ThreadPoolExecutor
        @mlflow.trace(name="worker")
        def worker(x): return x
        @mlflow.trace(name=f"{ME} root")
        def root():
            with ThreadPoolExecutor(2) as pool:
                runs = [pool.submit(contextvars.copy_context().run, worker, x) for x in range(4)]
            return sum(run.result() for run in runs)
        @evaluation
        def test_a(): assert root() == 6
        """,
        {"test_a": Ours(traces=["traced_children_in_threads root"])},
    ),
    Situation(
        "traced_detached",
        """
        @pytest.fixture(scope="module")
        def span():
            span = mlflow.start_span_no_context(f"{ME} long", inputs={"x": 1})
            yield span
            span.end(outputs={"y": 2})
        @evaluation
        def test_a(span):
            mlflow.start_span_no_context("child a", parent_span=span).end()
        @evaluation
        def test_b(span):
            mlflow.start_span_no_context("child b", parent_span=span).end()
        """,
    ),
    Situation(
        "traced_beyond_the_test",
        """
        spans = []
        def begin(name): spans.append(mlflow.start_span_no_context(name, inputs={"x": 1}))
        def end(): spans.pop().end(outputs={"y": 2})
        @evaluation
        def test_a(): begin(f"{ME} in a")
        def test_b():
            mlflow.start_span_no_context("child", parent_span=spans[0]).end()
            end()
            begin(f"{ME} outside")
        @evaluation
        def test_c():
            mlflow.start_span_no_context("child", parent_span=spans[0]).end()
            end()
            begin(f"{ME} in c")
        @evaluation
        def test_d():
            end()
            begin(f"{ME} in d")
        @evaluation
        def test_e():
            mlflow.set_tracking_uri(OWN)
            end()
            begin("in a store of its own")
            mlflow.set_tracking_uri(None)
            end()
        """,
        {
            "test_a": Ours(traces=["traced_beyond_the_test in a"]),
            "test_c": Ours(traces=["traced_beyond_the_test in c"]),
            # Newer MLflow drops that of test_d with the store that test_e sets.
            "test_e": Ours(),
        },
        http=True,
    ),
    Situation(
        "traced_by_a_thread_beyond_the_test",
        """
        import threading
        go, begun = threading.Event(), threading.Event()
        def work():
            with mlflow.start_span(f"{ME} slow"):
                begun.set()
                go.wait(10)
        threads = [threading.Thread(target=work)]
        @evaluation
        def test_a():
            threads[0].start()
            assert begun.wait(10)
        def test_b():
            go.set()
            threads[0].join()
        """,
    ),
    Situation(
        "traced_async",
        """
        import asyncio
        @mlflow.trace(name=f"{ME} coroutine")
        async def work(x):
            await asyncio.sleep(0)
            return x
        @evaluation
        def test_a(): assert asyncio.run(work(1)) == 1
        """,
        {"test_a": Ours(traces=["traced_async coroutine"])},
    ),
    Situation(
        "traced_feedback",
        """
        @evaluation
        def test_a():
            with mlflow.start_span(f"{ME} judged") as span: pass
            mlflow.flush_trace_async_logging()
            mlflow.log_feedback(trace_id=span.trace_id, name="good", value=True)
            mlflow.set_trace_tag(span.trace_id, "seen", "yes")
            assert mlflow.get_trace(span.trace_id).info.tags["seen"] == "yes"
        """,
        {"test_a": Ours(traces=["traced_feedback judged"])},
        http=True,
    ),
    Situation(
        "disabled_in_module_fixture",
        """
        @pytest.fixture(scope="module", autouse=True)
        def silent():
            mlflow.tracing.disable()
            yield
            mlflow.tracing.enable()
        def trace():
            with mlflow.start_span(f"{ME} never"): pass
        @evaluation
        def test_a(): trace()
        @evaluation
        def test_b(): trace()
        def test_c(): trace()
        @evaluation
        def test_d(): trace()
        """,
        {"test_a": Ours(), "test_b": Ours(), "test_d": Ours()},
        http=True,
    ),
    Situation(
        "disabled_in_body",
        """
        @evaluation
        def test_a():
            mlflow.tracing.disable()
            with mlflow.start_span(f"{ME} never"): pass
        def test_b():
            with mlflow.start_span(f"{ME} never either outside"): pass
        @evaluation
        def test_c():
            with mlflow.start_span(f"{ME} nor this"): pass
            mlflow.tracing.enable()
            with mlflow.start_span(f"{ME} this"): pass
        def test_d():
            with mlflow.start_span(f"{ME} and this outside"): pass
        """,
        {"test_c": Ours(traces=["disabled_in_body this"])},
    ),
    Situation(
        "masked_in_module_fixture",
        """
        def mask(span):
            if "password" in (span.inputs or {}):
                span.set_inputs({**span.inputs, "password": "***"})
        @pytest.fixture(scope="module", autouse=True)
        def masked():
            with mlflow.tracing.configure(span_processors=[mask]): yield
        @mlflow.trace(name=f"{ME} login")
        def login(password): return 1
        @evaluation
        def test_a(): login("hunter2")
        @evaluation
        def test_b(): login("hunter2")
        def test_c(): login("hunter2")
        """,
        {
            "test_a": Ours(traces=["masked_in_module_fixture login"]),
            "test_b": Ours(traces=["masked_in_module_fixture login"]),
        },
        http=True,
    ),
    Situation(
        "destination_of_a_module",
        """
        from mlflow.entities.trace_location import MlflowExperimentLocation
        @pytest.fixture(scope="module", autouse=True)
        def destination():
            experiment = mlflow.create_experiment(f"{ME} place")
            mlflow.tracing.set_destination(MlflowExperimentLocation(experiment))
            yield
            mlflow.tracing.reset()
        def test_before():
            with mlflow.start_span(f"{ME} first"): pass
        @evaluation
        def test_a():
            with mlflow.start_span(f"{ME} a"): pass
        @evaluation
        def test_b():
            with mlflow.start_span(f"{ME} b"): pass
        """,
    ),
    Situation(
        "destination_in_body",
        """
        from mlflow.entities.trace_location import MlflowExperimentLocation
        @evaluation
        def test_a():
            experiment = mlflow.create_experiment(f"{ME} place")
            mlflow.tracing.set_destination(MlflowExperimentLocation(experiment))
            with mlflow.start_span(f"{ME} a"): pass
            mlflow.tracing.reset()
        """,
    ),
    Situation(
        "destination_of_one_thread",
        """
        import threading
        from mlflow.entities.trace_location import MlflowExperimentLocation
        def trace(name):
            with mlflow.start_span(f"{ME} {name}"): pass
        @evaluation
        def test_a():
            experiment = mlflow.create_experiment(f"{ME} place")
            location = MlflowExperimentLocation(experiment)
            mlflow.tracing.set_destination(location, context_local=True)
            trace("a")
            thread = threading.Thread(target=trace, args=("of another thread",))
            thread.start()
            thread.join()
        @evaluation
        def test_b():
            trace("b")
            mlflow.tracing.reset()
        """,
    ),
    Situation(
        "destination_in_environment",
        """
        @pytest.fixture(scope="module", autouse=True)
        def destination():
            experiment = mlflow.create_experiment(f"{ME} place")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_TRACING_DESTINATION", experiment)
                yield
        def test_before(): pass
        @evaluation
        def test_a():
            with mlflow.start_span(f"{ME} a"): pass
        @evaluation
        def test_b():
            with mlflow.start_span(f"{ME} b"): pass
        """,
    ),
    Situation(
        "uri_outside",
        """
        note(mlflow.get_tracking_uri())
        @pytest.fixture(scope="module")
        def wide():
            note(mlflow.get_tracking_uri())
            yield
            note(mlflow.get_tracking_uri())
        def settings():
            # How long MLflow waits for a server is the session's, by design.
            given = (name for name in os.environ if name.startswith("MLFLOW_"))
            return sorted(name for name in given if "_HTTP_REQUEST_" not in name)
        def test_before():
            note((mlflow.get_tracking_uri(), mlflow.get_registry_uri(), settings()))
        @evaluation
        def test_a(): mlflow.log_metric("a", 1)
        def test_between(wide):
            note((mlflow.get_tracking_uri(), mlflow.get_registry_uri(), settings()))
        @evaluation
        def test_b(wide): mlflow.log_metric("b", 1)
        def test_after(): note((mlflow.get_tracking_uri(), mlflow.get_registry_uri(), settings()))
        """,
        {"test_a": Ours(metrics={"a": 1}), "test_b": Ours(metrics={"b": 1})},
        http=True,
    ),
    Situation(
        "traces_of_two_stores",
        """
        def trace(name):
            with mlflow.start_span(name): pass
        @evaluation
        def test_a():
            trace(f"{ME} first")
            mlflow.set_tracking_uri(OWN)
            for n in range(10): trace(f"own {n}")
            mlflow.set_tracking_uri(None)
            trace(f"{ME} last")
        @evaluation
        def test_b(): trace(f"{ME} next")
        """,
        {
            "test_a": Ours(traces=["traces_of_two_stores first", "traces_of_two_stores last"]),
            "test_b": Ours(traces=["traces_of_two_stores next"]),
        },
        http=False,
    ),
]

# ---------------------------------------------------------------- 2. a store of one's own

OWN = [
    Situation(
        "own_body",
        """
        from pytest_armory import track_metrics, track_param
        @evaluation
        def test_a():
            track_metrics({"ours": 1})
            track_param("given", 3)
            mlflow.set_tracking_uri(OWN)
            try:
                with mlflow.start_run(run_name="plain", nested=True) as run:
                    mlflow.log_params({"p": 1})
                    mlflow.log_metric("m", 2)
                    mlflow.set_tag("t", "v")
                found = mlflow.search_runs(output_format="list")
                assert [one.info.run_name for one in found] == ["plain"]
                assert mlflow.last_active_run().info.run_id == run.info.run_id
                assert mlflow.get_run(run.info.run_id).data.params == {"p": "1"}
                track_metrics({"ours too": 2})
            finally:
                mlflow.set_tracking_uri(None)
        @evaluation
        def test_b(evaluation_run):
            note(mlflow.get_tracking_uri() == OWN)
            evaluation_run.log_metrics({"ours": 1})
        """,
        {
            "test_a": Ours(tracked={"ours": 1, "ours too": 2}, given={"given": "3"}),
            "test_b": Ours(tracked={"ours": 1}),
        },
        http=True,
    ),
    Situation(
        "own_no_active_run",
        """
        @pytest.fixture(autouse=True)
        def back():
            yield
            mlflow.set_tracking_uri(None)
        @evaluation
        def test_a():
            mlflow.set_tracking_uri(OWN)
            assert mlflow.active_run() is None
            mlflow.end_run()
            with mlflow.start_run(run_name="plain") as run:
                assert mlflow.active_run().info.run_id == run.info.run_id
                with pytest.raises(Exception, match="already active"): mlflow.start_run()
                with mlflow.start_run(run_name="inner", nested=True): mlflow.log_metric("m", 1)
            assert mlflow.active_run() is None
            mlflow.log_metric("unasked", 1)
            assert mlflow.active_run() is not None
            mlflow.end_run()
            assert mlflow.active_run() is None
        @evaluation
        def test_b(): mlflow.log_metric("b", 1)
        """,
        {"test_a": Ours(), "test_b": Ours(metrics={"b": 1})},
        http=True,
    ),
    Situation(
        "own_clean_up_fixture",
        """
        @pytest.fixture(autouse=True)
        def store():
            yield
            mlflow.set_tracking_uri(None)
        @pytest.fixture(autouse=True)
        def clean(store):
            yield
            while mlflow.active_run(): mlflow.end_run()
        @evaluation
        def test_a():
            mlflow.set_tracking_uri(OWN)
            mlflow.start_run(run_name="left open")
            mlflow.start_run(run_name="this too", nested=True)
            mlflow.log_metric("m", 1)
        @evaluation
        def test_b(): mlflow.set_tracking_uri(OWN)
        @evaluation
        def test_c():
            mlflow.set_tracking_uri(OWN)
            mlflow.log_metric("unasked", 1)
        """,
        {"test_a": Ours(), "test_b": Ours(), "test_c": Ours()},
        http=True,
    ),
    Situation(
        "clean_up_fixture",
        """
        @pytest.fixture(autouse=True)
        def clean():
            yield
            while mlflow.active_run(): mlflow.end_run()
        @evaluation
        def test_a(): mlflow.log_metric("m", 1)
        @evaluation
        def test_b():
            mlflow.start_run(run_name=f"{ME} left open")
            mlflow.log_metric("inner", 1)
        def test_c(): mlflow.start_run(run_name=f"{ME} outside")
        """,
        {"test_a": Ours(metrics={"m": 1}), "test_b": Ours()},
        http=True,
    ),
    Situation(
        "clean_before_and_after",
        """
        from pytest_armory import track_metrics
        @pytest.fixture(autouse=True)
        def clean():
            mlflow.end_run()
            yield
            mlflow.end_run()
        @evaluation
        def test_a():
            track_metrics({"ours": 1})
            with mlflow.start_run(run_name=f"{ME} a"): mlflow.log_metric("m", 1)
        @evaluation
        def test_b():
            track_metrics({"ours": 1})
            with mlflow.start_run(run_name=f"{ME} b"): mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours(tracked={"ours": 1}), "test_b": Ours(tracked={"ours": 1})},
        http=True,
    ),
    Situation(
        "own_fixture",
        """
        @pytest.fixture
        def store():
            mlflow.set_tracking_uri(OWN)
            yield mlflow.MlflowClient()
            mlflow.set_tracking_uri(None)
        @evaluation
        @pytest.mark.parametrize("n", [1, 2])
        def test_a(store, n):
            with mlflow.start_run(run_name=f"run {n}", tags={"n": str(n)}) as run:
                mlflow.log_param("n", n)
            assert store.get_run(run.info.run_id).data.params == {"n": str(n)}
        @evaluation
        def test_b(): mlflow.log_metric("b", 1)
        """,
        {
            "test_a[1]": Ours(given={"n": "1"}),
            "test_a[2]": Ours(given={"n": "2"}),
            "test_b": Ours(metrics={"b": 1}),
        },
        http=True,
    ),
    Situation(
        "own_fixture_saves_and_restores",
        """
        class TestOwn:
            @pytest.fixture(scope="class")
            def store(self):
                before = mlflow.get_tracking_uri()
                mlflow.set_tracking_uri(OWN)
                yield
                mlflow.set_tracking_uri(before)
            @evaluation
            def test_a(self, store):
                with mlflow.start_run(run_name="a"): mlflow.log_metric("m", 1)
            @evaluation
            def test_b(self, store):
                with mlflow.start_run(run_name="b"): mlflow.log_metric("m", 1)
        def test_outside():
            note(mlflow.get_tracking_uri())
            mlflow.set_tracking_uri(None)
            note(mlflow.get_tracking_uri())
        """,
    ),
    Situation(
        "own_module",
        """
        @pytest.fixture(scope="module", autouse=True)
        def store():
            mlflow.set_tracking_uri(OWN)
            yield
            mlflow.set_tracking_uri(None)
        @pytest.fixture(autouse=True)
        def clean():
            yield
            mlflow.end_run()
        @evaluation
        def test_a():
            assert mlflow.get_tracking_uri() == OWN
            mlflow.log_metric("a", 1)
            with mlflow.start_span("a"): pass
        def test_b():
            assert mlflow.get_tracking_uri() == OWN
            mlflow.log_metric("b", 1)
            with mlflow.start_span("b"): pass
        @evaluation
        def test_c():
            assert mlflow.get_tracking_uri() == OWN
            assert mlflow.active_run() is None
            mlflow.log_metric("c", 1)
            with mlflow.start_span("c"): pass
        """,
        {"test_a": Ours(), "test_c": Ours()},
        http=True,
    ),
    Situation(
        "own_class",
        """
        class TestOwn:
            @pytest.fixture(scope="class", autouse=True)
            def store(self):
                mlflow.set_tracking_uri(OWN)
                yield
                mlflow.set_tracking_uri(None)
            @evaluation
            def test_a(self):
                with mlflow.start_run(run_name="a"): mlflow.log_metric("m", 1)
            @evaluation
            def test_b(self):
                with mlflow.start_run(run_name="b"): mlflow.log_metric("m", 1)
        @evaluation
        def test_c(): mlflow.log_metric("c", 1)
        """,
        {"test_c": Ours(metrics={"c": 1})},
    ),
    Situation(
        "own_setup_class",
        """
        import unittest
        class TestOwn(unittest.TestCase):
            @classmethod
            def setUpClass(cls): mlflow.set_tracking_uri(OWN)
            @classmethod
            def tearDownClass(cls): mlflow.set_tracking_uri(None)
            def setUp(self): self.run_ = mlflow.start_run(run_name=self.id().rpartition(".")[2])
            def tearDown(self): mlflow.end_run()
            @evaluation
            def test_a(self):
                mlflow.log_metric("m", 1)
                self.assertEqual(mlflow.active_run().info.run_id, self.run_.info.run_id)
            @evaluation
            def test_b(self):
                mlflow.log_metric("m", 2)
                self.fail("no")
        """,
    ),
    Situation(
        "own_package",
        """
        @evaluation
        def test_a():
            with mlflow.start_run(run_name="a"): mlflow.log_metric("m", 1)
        @evaluation
        def test_b():
            with mlflow.start_run(run_name="b"): mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours(), "test_b": Ours()},
        """
        @pytest.fixture(scope="package", autouse=True)
        def store():
            mlflow.set_tracking_uri(OWN)
            yield
            mlflow.set_tracking_uri(None)
        """,
        package=True,
    ),
    Situation(
        "own_by_environment",
        """
        @evaluation
        def test_a(monkeypatch):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", OWN)
            assert mlflow.get_tracking_uri() == OWN
            assert mlflow.active_run() is None
            with mlflow.start_run(run_name="plain"): mlflow.log_metric("m", 1)
            with mlflow.start_span("span"): pass
            mlflow.flush_trace_async_logging()
        @evaluation
        def test_b(): mlflow.log_metric("b", 1)
        """,
        {"test_a": Ours(), "test_b": Ours(metrics={"b": 1})},
        http=True,
    ),
    Situation(
        "own_by_environment_of_a_module",
        """
        @pytest.fixture(scope="module", autouse=True)
        def store():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_URI", OWN)
                yield
        @evaluation
        def test_a():
            with mlflow.start_run(run_name="a"): mlflow.log_metric("m", 1)
        def test_b():
            with mlflow.start_run(run_name="b"): mlflow.log_metric("m", 1)
        @evaluation
        def test_c():
            with mlflow.start_run(run_name="c"): mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours(), "test_c": Ours()},
    ),
    Situation(
        "own_seen_by_children",
        """
        import subprocess, sys
        def child():
            code = "import os; print(*(f'{k}={v}' for k, v in sorted(os.environ.items()) " \\
                "if k.startswith('MLFLOW_') and '_HTTP_REQUEST_' not in k))"
            return subprocess.check_output([sys.executable, "-S", "-c", code], text=True).strip()
        @pytest.fixture
        def store():
            mlflow.set_tracking_uri(OWN)
            yield
            mlflow.set_tracking_uri(None)
        @evaluation
        def test_a(store): note(child())
        @evaluation
        def test_b(monkeypatch):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", OWN)
            note(child())
        @evaluation
        def test_c(): pass
        def test_d(): note(child())
        """,
        http=True,
    ),
    Situation(
        "own_in_threads",
        """
        from concurrent.futures import ThreadPoolExecutor
        @pytest.fixture
        def store():
            mlflow.set_tracking_uri(OWN)
            yield
            mlflow.set_tracking_uri(None)
        def work(n):
            with mlflow.start_run(run_name=f"run {n}"): mlflow.log_metric("n", n)
        @evaluation
        def test_a(store):
            with ThreadPoolExecutor(3) as pool: list(pool.map(work, range(6)))
        """,
        {"test_a": Ours()},
    ),
    Situation(
        "runs_in_threads",
        """
        from concurrent.futures import ThreadPoolExecutor
        def work(n):
            with mlflow.start_run(run_name=f"{ME} {n}"): mlflow.log_metric("n", n)
        @evaluation
        def test_a():
            with ThreadPoolExecutor(3) as pool: list(pool.map(work, range(6)))
        """,
        {"test_a": Ours()},
        http=True,
    ),
    Situation(
        "own_one_in_another",
        """
        @pytest.fixture
        def store():
            mlflow.set_tracking_uri(OWN)
            yield
            mlflow.set_tracking_uri(None)
        @evaluation
        def test_a(store):
            with mlflow.start_run(run_name="first"): mlflow.log_metric("m", 1)
            mlflow.set_tracking_uri(OTHER)
            with mlflow.start_run(run_name="second"): mlflow.log_metric("m", 2)
            with mlflow.start_span("second"): pass
            mlflow.set_tracking_uri(OWN)
            with mlflow.start_run(run_name="third"): mlflow.log_metric("m", 3)
            with mlflow.start_span("third"): pass
        """,
        {"test_a": Ours()},
    ),
    Situation(
        "own_open_run_across_stores",
        """
        @evaluation
        def test_a():
            run = mlflow.start_run(run_name=f"{ME} here")
            mlflow.end_run()
            mlflow.set_tracking_uri(OWN)
            try:
                with mlflow.start_run(run_name="there"): mlflow.log_metric("m", 1)
            finally:
                mlflow.set_tracking_uri(None)
            with mlflow.start_run(run.info.run_id): mlflow.log_metric("m", 2)
        """,
        {"test_a": Ours()},
    ),
    Situation(
        "own_failing",
        """
        @pytest.fixture
        def store():
            mlflow.set_tracking_uri(OWN)
            yield
            mlflow.end_run("FAILED")
            mlflow.set_tracking_uri(None)
        @evaluation
        def test_a(store):
            with mlflow.start_run(run_name="closed"): assert 0, "no"
        @evaluation
        def test_b(store):
            mlflow.start_run(run_name="open")
            assert 0, "no"
        """,
        {"test_a": Ours(status="FAILED"), "test_b": Ours(status="FAILED")},
    ),
    Situation(
        "own_asynchronous",
        """
        @pytest.fixture
        def store():
            mlflow.set_tracking_uri(OWN)
            yield
            mlflow.set_tracking_uri(None)
        @evaluation
        def test_a(store):
            with mlflow.start_run(run_name="late"):
                for n in range(20): mlflow.log_metric("n", n, step=n, synchronous=False)
                mlflow.log_params({"p": 1}, synchronous=False)
                mlflow.flush_async_logging()
        @evaluation
        def test_b(): mlflow.log_metric("n", 1, synchronous=False)
        """,
        {"test_a": Ours(), "test_b": Ours(metrics={"n": 1})},
    ),
    Situation(
        "same_uri_set_again",
        """
        @evaluation
        def test_a():
            mlflow.set_tracking_uri(mlflow.get_tracking_uri())
            mlflow.log_metric("m", 1)
        def test_b():
            note(mlflow.get_tracking_uri())
            mlflow.set_tracking_uri(None)
            note(mlflow.get_tracking_uri())
        """,
        {"test_a": Ours(metrics={"m": 1})},
    ),
    Situation(
        "own_client",
        """
        @evaluation
        def test_a():
            client = mlflow.MlflowClient(OWN)
            run = client.create_run(client.create_experiment("mine"), run_name="by client")
            client.log_param(run.info.run_id, "p", 1)
            client.set_terminated(run.info.run_id)
            mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours(metrics={"m": 1})},
        http=True,
    ),
    Situation(
        "own_registry",
        """
        @pytest.fixture(scope="module", autouse=True)
        def registry():
            mlflow.set_registry_uri(OWN)
            yield
            mlflow.set_registry_uri(None)
            os.environ.pop("MLFLOW_REGISTRY_URI", None)
        @evaluation
        def test_a():
            assert mlflow.get_registry_uri() == OWN
            mlflow.MlflowClient().create_registered_model("a")
            mlflow.log_metric("m", 1)
        @evaluation
        def test_b():
            assert mlflow.get_registry_uri() == OWN
            mlflow.MlflowClient().create_registered_model("b")
        """,
        {"test_a": Ours(metrics={"m": 1}), "test_b": Ours()},
        http=True,
    ),
    Situation(
        "own_registry_follows",
        """
        @evaluation
        def test_a():
            mlflow.set_tracking_uri(OWN)
            try:
                assert mlflow.get_registry_uri() == OWN
                mlflow.MlflowClient().create_registered_model("a")
            finally:
                mlflow.set_tracking_uri(None)
        @evaluation
        def test_b(monkeypatch):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", OWN)
            assert mlflow.get_registry_uri() == OWN
            mlflow.MlflowClient().create_registered_model("b")
        """,
    ),
    Situation(
        "experiment_by_name_in_environment",
        """
        @evaluation
        def test_a(monkeypatch):
            monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{ME} mine")
            mlflow.start_run(run_name=f"{ME} a")
            mlflow.log_metric("m", 1)
            mlflow.end_run()
        @pytest.fixture
        def named(monkeypatch): monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{ME} mine")
        @evaluation
        def test_b(named):
            with mlflow.start_run(run_name=f"{ME} b"): mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours(), "test_b": Ours()},
    ),
    Situation(
        "experiment_by_id_in_environment",
        """
        @evaluation
        def test_a(monkeypatch):
            experiment = mlflow.create_experiment(f"{ME} mine")
            monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
            with mlflow.start_run(run_name=f"{ME} a"): mlflow.log_metric("m", 1)
        """,
    ),
    Situation(
        "experiment_by_argument",
        """
        @evaluation
        def test_a():
            experiment = mlflow.create_experiment(f"{ME} mine")
            with mlflow.start_run(run_name=f"{ME} a", experiment_id=experiment):
                mlflow.log_metric("m", 1)
            found = mlflow.search_runs(experiment_names=[f"{ME} mine"], output_format="list")
            assert [run.info.run_name for run in found] == [f"{ME} a"]
        """,
    ),
    Situation(
        "own_experiment_in_environment",
        """
        @pytest.fixture
        def store(monkeypatch):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", OWN)
            monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
        @evaluation
        def test_a(store):
            with mlflow.start_run(run_name="a"): mlflow.log_metric("m", 1)
        @evaluation
        def test_b(store):
            with mlflow.start_run(run_name="b"): mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours(), "test_b": Ours()},
    ),
    Situation(
        "own_copied_database",
        """
        import shutil
        @pytest.fixture(autouse=True)
        def store(tmp_path):
            shutil.copy(HERE / "own.db", tmp_path / f"own-{ME}.db")
            mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/own-{ME}.db")
            yield
            mlflow.set_tracking_uri(None)
        @evaluation
        @pytest.mark.parametrize("n", [1, 2])
        def test_a(n):
            assert mlflow.search_runs(output_format="list") == []
            with mlflow.start_run(run_name="alone"): mlflow.log_metric("n", n)
            assert len(mlflow.search_runs(output_format="list")) == 1
        """,
        {"test_a[1]": Ours(given={"n": "1"}), "test_a[2]": Ours(given={"n": "2"})},
    ),
    Situation(
        "nested_runs",
        """
        @evaluation
        def test_a():
            mlflow.log_param("outer", 1)
            with mlflow.start_run(run_name=f"{ME} child", nested=True) as child:
                mlflow.log_metric("m", 1)
                with mlflow.start_run(run_name=f"{ME} grandchild", nested=True) as inner:
                    mlflow.log_metric("m", 2)
                assert inner.data.tags["mlflow.parentRunId"] == child.info.run_id
            mlflow.log_metric("last", 1)
        """,
        {"test_a": Ours(params={"outer": "1"}, metrics={"last": 1})},
        http=True,
    ),
    Situation(
        "opened_again_by_its_id",
        """
        def open_again():
            active = mlflow.active_run()
            if active: mlflow.start_run(run_id=active.info.run_id, nested=True)
            return active
        @pytest.fixture(autouse=True)
        def clean():
            yield
            while mlflow.active_run(): mlflow.end_run()
            mlflow.set_tracking_uri(None)
        @evaluation
        def test_a():
            if open_again(): mlflow.log_metric("a", 1)
            mlflow.set_tracking_uri(OWN)
            assert mlflow.active_run() is None
            with mlflow.start_run(run_name="a"): mlflow.log_metric("m", 1)
        @evaluation
        def test_b():
            before, active = mlflow.get_tracking_uri(), open_again()
            mlflow.set_tracking_uri(OWN)
            with mlflow.start_run(run_name="b"): mlflow.log_metric("m", 1)
            mlflow.set_tracking_uri(before)
            if active:
                mlflow.end_run()
                mlflow.log_metric("b", 1)
        @evaluation
        def test_c(): open_again()
        def test_d(): note(mlflow.active_run())
        """,
        {"test_a": Ours(metrics={"a": 1}), "test_b": Ours(metrics={"b": 1}), "test_c": Ours()},
        http=True,
    ),
    Situation(
        "children_by_parent_id",
        """
        @evaluation
        def test_a():
            with mlflow.start_run(run_name=f"{ME} parent") as parent: pass
            with mlflow.start_run(run_name=f"{ME} child", parent_run_id=parent.info.run_id) as run:
                mlflow.log_metric("m", 1)
            assert mlflow.get_parent_run(run.info.run_id).info.run_id == parent.info.run_id
        """,
        http=True,
    ),
]

# ---------------------------------------------------------------- 3. runs wider than a test

WIDE = [
    Situation(
        "wide_module",
        """
        @pytest.fixture(scope="module")
        def wide():
            with mlflow.start_run(run_name=f"{ME} wide") as run:
                mlflow.log_param("by_fixture", 1)
                yield run
                mlflow.log_metric("by_teardown", 1)
        @evaluation
        def test_a(wide): mlflow.log_metric("in_a", 1)
        def test_b(wide):
            assert mlflow.active_run().info.run_id == wide.info.run_id
            mlflow.log_metric("by_unmarked", 1)
        @evaluation
        def test_c(wide):
            mlflow.log_metric("in_c", 1)
            mlflow.log_param("p", 1)
            mlflow.set_tag("t", 1)
            assert mlflow.MlflowClient().get_run(wide.info.run_id).info.status == "RUNNING"
        """,
        {
            "test_a": Ours(metrics={"in_a": 1}),
            "test_c": Ours(metrics={"in_c": 1}, params={"p": "1"}, tags={"t": "1"}),
        },
        moved=["in_a", "in_c", "p", "t"],
        http=True,
    ),
    Situation(
        "wide_opened_by_an_unmarked_test",
        """
        @pytest.fixture(scope="module")
        def wide():
            with mlflow.start_run(run_name=f"{ME} outside") as run:
                yield run
                mlflow.log_metric("by_teardown", 1)
        def test_a(wide): mlflow.log_metric("by_unmarked", 1)
        @evaluation
        def test_b(wide): mlflow.log_metric("in_b", 1)
        def test_c(wide): mlflow.log_metric("by_unmarked", 2)
        @evaluation
        def test_d(wide): mlflow.log_metric("in_d", 1)
        """,
        {"test_b": Ours(metrics={"in_b": 1}), "test_d": Ours(metrics={"in_d": 1})},
        moved=["in_b", "in_d"],
        http=True,
    ),
    Situation(
        "wide_class",
        """
        class TestWide:
            @pytest.fixture(scope="class", autouse=True)
            def wide(self):
                with mlflow.start_run(run_name=f"{ME} wide"):
                    yield
                    mlflow.log_metric("by_teardown", 1)
            @evaluation
            def test_a(self): mlflow.log_metric("in_a", 1)
            def test_b(self): mlflow.log_metric("by_unmarked", 1)
            @evaluation
            def test_c(self): mlflow.log_metric("in_c", 1)
        @evaluation
        def test_d(): mlflow.log_metric("in_d", 1)
        """,
        {"test_d": Ours(metrics={"in_d": 1})},
        moved=["in_a", "in_c"],
    ),
    Situation(
        "wide_package",
        """
        @evaluation
        def test_a(wide): mlflow.log_metric("in_a", 1)
        def test_b(wide): mlflow.log_metric("by_unmarked", 1)
        @evaluation
        def test_c(wide): mlflow.log_metric("in_c", 1)
        """,
        {"test_a": Ours(metrics={"in_a": 1}), "test_c": Ours(metrics={"in_c": 1})},
        """
        @pytest.fixture(scope="package")
        def wide():
            with mlflow.start_run(run_name=f"{ME} wide"):
                yield
                mlflow.log_metric("by_teardown", 1)
        """,
        package=True,
        moved=["in_a", "in_c"],
    ),
    Situation(
        "wide_parametrized",
        """
        @pytest.fixture(scope="module", params=["x", "y"])
        def wide(request):
            with mlflow.start_run(run_name=f"{ME} {request.param} wide"):
                yield request.param
                mlflow.log_metric("by_teardown", 1)
        @evaluation
        def test_a(wide): mlflow.log_metric("in_a", 1)
        @evaluation
        def test_b(wide): mlflow.log_metric("in_b", 1)
        """,
        {
            "test_a[x]": Ours(metrics={"in_a": 1}, given={"wide": "x"}),
            "test_b[y]": Ours(metrics={"in_b": 1}, given={"wide": "y"}),
        },
        moved=["in_a", "in_b"],
    ),
    Situation(
        "wide_in_own_store",
        """
        @pytest.fixture(scope="module")
        def wide():
            mlflow.set_tracking_uri(OWN)
            with mlflow.start_run(run_name="wide"):
                yield
                mlflow.log_metric("by_teardown", 1)
            mlflow.set_tracking_uri(None)
        @evaluation
        def test_a(wide): mlflow.log_metric("in_a", 1)
        def test_b(wide): mlflow.log_metric("by_unmarked", 1)
        @evaluation
        def test_c(wide):
            with pytest.raises(Exception, match="already active"): mlflow.start_run()
            with mlflow.start_run(run_name="child", nested=True): mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours(), "test_c": Ours()},
    ),
    Situation(
        "wide_start_run_twice",
        """
        @pytest.fixture(scope="module")
        def wide():
            with mlflow.start_run(run_name=f"{ME} wide"): yield
        @evaluation
        def test_a(wide):
            with pytest.raises(Exception, match="already active"): mlflow.start_run()
        @evaluation
        def test_b(wide):
            with mlflow.start_run(run_name=f"{ME} child", nested=True): mlflow.log_metric("m", 1)
        @evaluation
        def test_c(wide): mlflow.start_run()
        """,
    ),
    Situation(
        "wide_start_and_end",
        """
        @pytest.fixture(scope="module", autouse=True)
        def wide():
            mlflow.start_run(run_name=f"{ME} wide")
            yield
            mlflow.log_metric("by_teardown", 1)
            mlflow.end_run("KILLED")
        @evaluation
        def test_a(): mlflow.log_metric("in_a", 1)
        @evaluation
        def test_b(): mlflow.log_metric("in_b", 1)
        """,
        {"test_a": Ours(metrics={"in_a": 1}), "test_b": Ours(metrics={"in_b": 1})},
        moved=["in_a", "in_b"],
        http=True,
    ),
    Situation(
        "wide_two_deep",
        """
        @pytest.fixture(scope="module")
        def outer():
            with mlflow.start_run(run_name=f"{ME} outer wide"):
                yield
                mlflow.log_metric("outer", 1)
        class TestDeep:
            @pytest.fixture(scope="class")
            def inner(self, outer):
                with mlflow.start_run(run_name=f"{ME} inner wide", nested=True):
                    yield
                    mlflow.log_metric("inner", 1)
            @evaluation
            def test_a(self, inner): mlflow.log_metric("in_a", 1)
            @evaluation
            def test_b(self, inner): mlflow.log_metric("in_b", 1)
        @evaluation
        def test_c(outer): mlflow.log_metric("in_c", 1)
        """,
        {"test_c": Ours(metrics={"in_c": 1})},
        moved=["in_a", "in_b", "in_c"],
    ),
    Situation(
        "wide_by_teardown",
        """
        @pytest.fixture(scope="module")
        def report():
            yield
            with mlflow.start_run(run_name=f"{ME} wide"): mlflow.log_metric("m", 1)
        @evaluation
        def test_a(report): pass
        @evaluation
        def test_b(report): mlflow.start_run(run_name=f"{ME} left"); mlflow.end_run()
        """,
        {"test_a": Ours(), "test_b": Ours()},
    ),
    Situation(
        "wide_setup_module",
        """
        def setup_module(): mlflow.start_run(run_name=f"{ME} wide")
        def teardown_module():
            mlflow.log_metric("by_teardown", 1)
            mlflow.end_run()
        @evaluation
        def test_a(): mlflow.log_metric("in_a", 1)
        @evaluation
        def test_b(): mlflow.log_metric("in_b", 1)
        """,
        {"test_a": Ours(metrics={"in_a": 1}), "test_b": Ours(metrics={"in_b": 1})},
        moved=["in_a", "in_b"],
    ),
    Situation(
        "run_of_a_function_fixture",
        """
        @pytest.fixture
        def run():
            with mlflow.start_run(run_name=f"{ME} one") as run: yield run
        @evaluation
        def test_a(run):
            assert mlflow.active_run().info.run_id == run.info.run_id
            mlflow.log_metric("m", 1)
        """,
        {"test_a": Ours()},
        http=True,
    ),
    Situation(
        "wide_failing_teardown",
        """
        @pytest.fixture(scope="module")
        def wide():
            with mlflow.start_run(run_name=f"{ME} wide"):
                yield
                raise RuntimeError("teardown")
        @evaluation
        def test_a(wide): mlflow.log_metric("in_a", 1)
        """,
        {"test_a": Ours(metrics={"in_a": 1}, status="FAILED")},
        moved=["in_a"],
    ),
    Situation(
        "wide_traced",
        """
        @pytest.fixture(scope="module")
        def wide():
            with mlflow.start_run(run_name=f"{ME} wide"):
                with mlflow.start_span(f"{ME} of the fixture"): pass
                yield
        @evaluation
        def test_a(wide):
            with mlflow.start_span(f"{ME} of the test"): pass
        """,
        {"test_a": Ours(traces=["wide_traced of the test"])},
    ),
]

# ---------------------------------------------------------------- the table

MASK = """
    def mask(span):
        if "password" in (span.inputs or {}):
            span.set_inputs({**span.inputs, "password": "***"})
    mlflow.tracing.configure(span_processors=[mask])
"""

LOGIN = """
    @mlflow.trace(name=f"{ME} login")
    def login(password): return 1
    @evaluation
    def test_a(): login("hunter2")
    @evaluation
    def test_b(): login("hunter2")
    def test_c(): login("hunter2")
"""

MEASURED = """
                import time
                def is_measured(run):
                    metrics = mlflow.MlflowClient().get_run(run.info.run_id).data.metrics
                    return any(name.startswith("system/") for name in metrics)
                def until_measured():
                    end = time.monotonic() + 300
                    while (run := mlflow.active_run()) and not is_measured(run):
                        assert time.monotonic() < end
                        time.sleep(0.05)
"""
"""Waits until MLflow has stored system metrics with the active run, if there is one."""

GROUPS = [
    Group(
        "plain",
        [*TRACING, *OWN, *WIDE],
        ways=("alone", "http"),
        apart=True,
    ),
    Group(
        "mixed",
        [
            Situation("masked", LOGIN, {"test_a": Ours(traces=["masked login"])}),
            Situation("masked_too", LOGIN, {"test_b": Ours(traces=["masked_too login"])}),
            Situation(
                "experiment_of_a_test",
                """
                @evaluation
                def test_a():
                    mlflow.set_experiment(f"{ME} mine")
                    with mlflow.start_run(run_name=f"{ME} a", nested=True): pass
                def test_b():
                    with mlflow.start_run(run_name=f"{ME} b"): pass
                    mlflow.set_experiment(f"{ME} next")
                @evaluation
                def test_c():
                    with mlflow.start_run(run_name=f"{ME} c", nested=True): pass
                    found = mlflow.search_runs(output_format="list")
                    assert f"{ME} c" in [run.info.run_name for run in found]
                """,
                # An experiment that was chosen in one store means nothing in another.
                moved=("experiment_of_a_test b", "experiment_of_a_test c"),
            ),
            Situation(
                "active_model",
                """
                from pytest_armory import track_metrics
                @evaluation
                def test_a():
                    mlflow.set_active_model(name=f"{ME} agent")
                    mlflow.log_metric("in_a", 1)
                    track_metrics({"tracked": 1})
                @evaluation
                def test_b():
                    mlflow.log_metric("in_b", 1)
                """,
                {
                    "test_a": Ours(metrics={"in_a": 1}, tracked={"tracked": 1}),
                    "test_b": Ours(metrics={"in_b": 1}),
                },
            ),
            Situation(
                "a_model_of_a_module",
                """
                @pytest.fixture(scope="module")
                def model():
                    made = mlflow.create_external_model(name=f"{ME} agent")
                    with mlflow.set_active_model(model_id=made.model_id): yield made.model_id
                @evaluation
                def test_a(model): assert mlflow.get_active_model_id() == model
                """,
            ),
            Situation(
                "a_model_put_back",
                "def test_a(): assert mlflow.get_active_model_id() is None",
            ),
            Situation(
                "system_by_call",
                MEASURED
                + """
                @pytest.fixture(scope="module", autouse=True)
                def on():
                    mlflow.config.enable_system_metrics_logging()
                    mlflow.config.set_system_metrics_sampling_interval(0.1)
                    mlflow.config.set_system_metrics_samples_before_logging(1)
                    yield
                    mlflow.config.disable_system_metrics_logging()
                @evaluation
                def test_a(): until_measured()
                @evaluation
                def test_b(): until_measured()
                """,
            ),
            Situation(
                "unactivated_mark",
                """
                from pytest_armory import track_metrics
                @pytest.mark.evaluation(activate=False)
                def test_a(evaluation_run):
                    assert mlflow.active_run() is None
                    note((mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")))
                    with mlflow.start_run(run_name=f"{ME} outside"): mlflow.log_metric("mine", 1)
                    track_metrics({"tracked": 1})
                    evaluation_run.log_metrics({"by run": 1})
                @evaluation
                def test_b(): mlflow.log_metric("b", 1)
                """,
                {
                    "test_a": Ours(tracked={"tracked": 1, "by run": 1}),
                    "test_b": Ours(metrics={"b": 1}),
                },
            ),
        ],
        MASK,
        ways=("alone", "n2"),
    ),
    Group(
        "session_run",
        [
            Situation(
                "session_run",
                """
                @evaluation
                def test_a(wide): mlflow.log_metric("in_a", 1)
                def test_b(wide): mlflow.log_metric("by_unmarked", 1)
                @evaluation
                def test_c(wide): mlflow.log_metric("in_c", 1)
                """,
                {"test_a": Ours(metrics={"in_a": 1}), "test_c": Ours(metrics={"in_c": 1})},
                moved=["in_a", "in_c"],
                http=True,
            ),
        ],
        """
        @pytest.fixture(scope="session")
        def wide():
            with mlflow.start_run(run_name="session_run wide"):
                yield
                mlflow.log_metric("by_teardown", 1)
        """,
        ways=("alone", "http"),
    ),
    Group(
        "test_hooks",
        [
            Situation(
                name,
                """
                @pytest.fixture
                def own():
                    yield
                    if mlflow.active_run(): mlflow.set_tag("of_fixture", 1)
                @evaluation
                def test_a(): mlflow.log_metric("in_a", 1)
                def test_b(): mlflow.log_metric("by_unmarked", 1)
                @evaluation
                def test_c(own):
                    with mlflow.start_run(run_name=f"{ME} child", nested=True):
                        mlflow.log_metric("m", 1)
                @evaluation
                def test_d(): assert 0, "no"
                """,
                {
                    "test_a": Ours(metrics={"in_a": 1}),
                    "test_c": Ours(tags={"of_fixture": "1"}),
                    "test_d": Ours(status="FAILED"),
                },
                conftest,
                moved=["in_a", "of_fixture"],
            )
            for name, conftest in (
                ("hooks_around_setup", ""),
                (
                    "hooks_of_a_folder",  # which pytest calls before ours
                    """
                    def pytest_runtest_setup(item):
                        mlflow.start_run(run_name=f"{ME} {item.name} outside")
                    def pytest_runtest_teardown(item):
                        mlflow.log_metric("by_hook", 1)
                        mlflow.end_run()
                    """,
                ),
                (
                    "hooks_around_call",
                    """
                    @pytest.hookimpl(wrapper=True)
                    def pytest_runtest_call(item):
                        with mlflow.start_run(run_name=f"{ME} {item.name} wide"):
                            try:
                                return (yield)
                            finally:
                                mlflow.log_metric("by_hook", 1)
                    """,
                ),
            )
        ],
        """
        def pytest_runtest_setup(item):
            if "around_setup" in item.nodeid:
                mlflow.start_run(run_name=f"hooks_around_setup {item.name} wide")
        def pytest_runtest_teardown(item):
            if "around_setup" in item.nodeid:
                mlflow.log_metric("by_hook", 1)
                mlflow.end_run()
        """,
        ways=("alone",),
    ),
    Group(
        "silent",
        [
            Situation(
                "silent",
                """
                def trace():
                    with mlflow.start_span(f"{ME} never"): pass
                @evaluation
                def test_a(): trace()
                def test_b(): trace()
                @evaluation
                def test_c(): trace()
                """,
                {"test_a": Ours(), "test_c": Ours()},
                http=True,
            ),
            Situation(
                "session_hooks",
                """
                @evaluation
                def test_a(): mlflow.log_metric("in_a", 1)
                def test_b(): mlflow.log_metric("by_unmarked", 1)
                @evaluation
                def test_c(): mlflow.log_metric("in_c", 1)
                """,
                {"test_a": Ours(metrics={"in_a": 1}), "test_c": Ours(metrics={"in_c": 1})},
                moved=["in_a", "in_c"],
            ),
        ],
        """
        @pytest.fixture(scope="session", autouse=True)
        def silent(): mlflow.tracing.disable()
        def pytest_sessionstart(): mlflow.start_run(run_name="session_hooks outside")
        def pytest_sessionfinish():
            mlflow.log_metric("by_hook", 1)
            mlflow.end_run()
        """,
        ways=("alone",),
    ),
    Group(
        "switches",
        [
            Situation(
                "switched",
                """
                import time
                @evaluation
                def test_a():
                    time.sleep(0.5)
                    with mlflow.start_span(f"{ME} unsampled"): pass
                @evaluation
                def test_b():
                    with mlflow.start_run(run_name=f"{ME} own"): time.sleep(0.5)
                """,
                {"test_a": Ours(tags={"team": "vision"}), "test_b": Ours(tags={"team": "vision"})},
            ),
            Situation(
                "system_by_environment",
                MEASURED
                + """
                @evaluation
                def test_a(): until_measured()
                @evaluation
                def test_b():
                    mlflow.disable_system_metrics_logging()
                    mlflow.enable_system_metrics_logging()
                    until_measured()
                """,
            ),
        ],
        environment={
            "MLFLOW_TRACE_SAMPLING_RATIO": "0",
            "MLFLOW_RUN_CONTEXT": '{"team": "vision"}',
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
            "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
        },
        ways=("alone", "n2"),
    ),
    Group(
        "opentelemetry",
        [
            Situation(
                "otel",
                """
                from opentelemetry import trace
                def seen():
                    exporter = next(
                        p.span_exporter
                        for p in trace.get_tracer_provider()._active_span_processor._span_processors
                        if type(p).__name__ == "SimpleSpanProcessor"
                    )
                    return [span.name for span in exporter.get_finished_spans()]
                def both():
                    with trace.get_tracer("mine").start_as_current_span(f"{ME} of otel"):
                        with mlflow.start_span("of mlflow"): pass
                    mlflow.flush_trace_async_logging()  # MLflow alone may lose one at its exit
                @evaluation
                def test_a(): both()
                @evaluation
                def test_b(): both()
                def test_c():
                    both()
                    note(seen())
                """,
            )
        ],
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        trace.set_tracer_provider(provider)
        """,
        {"MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false"},
        ways=("alone",),
    ),
    Group(
        "environment",
        [
            Situation(
                "around",
                """
                def test_before():
                    note((mlflow.get_tracking_uri(), mlflow.active_run()))
                    with mlflow.start_run(run_name=f"{ME} before outside"): pass
                @evaluation
                def test_a():
                    note(mlflow.get_tracking_uri())
                    mlflow.log_metric("a", 1)
                @evaluation
                def test_b():
                    mlflow.start_run(run_name=f"{ME} b", nested=True)
                    mlflow.log_metric("b", 1)
                    mlflow.end_run()
                def test_after():
                    mlflow.end_run()
                    note((mlflow.get_tracking_uri(), mlflow.active_run()))
                    with mlflow.start_run(run_name=f"{ME} after outside"): pass
                """,
                {"test_a": Ours(metrics={"a": 1}), "test_b": Ours()},
            ),
            Situation(
                "around_own",
                """
                @evaluation
                def test_a(monkeypatch):
                    monkeypatch.setenv("MLFLOW_TRACKING_URI", OWN)
                    with mlflow.start_run(run_name="a"): mlflow.log_metric("a", 1)
                @evaluation
                def test_b():
                    mlflow.set_tracking_uri(OWN)
                    with mlflow.start_run(run_name="b"): mlflow.log_metric("b", 1)
                    mlflow.set_tracking_uri(None)
                    note(os.environ.get("MLFLOW_TRACKING_URI"))
                    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{HERE.parent}/env.db"
                @evaluation
                def test_c(monkeypatch):
                    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
                    monkeypatch.setenv("MLFLOW_TRACKING_URI", OWN)
                    with mlflow.start_run(run_name="c"): mlflow.log_metric("c", 1)
                """,
                {"test_a": Ours(), "test_b": Ours(), "test_c": Ours()},
            ),
        ],
        environment={
            "MLFLOW_TRACKING_URI": "sqlite:///{root}/env.db",
            "MLFLOW_EXPERIMENT_NAME": "theirs",
        },
        ways=("alone", "n2"),
    ),
    Group(
        "imported",
        [
            Situation(
                "at_import",
                """
                note(mlflow.get_tracking_uri())
                def test_before():
                    note(mlflow.get_tracking_uri())
                    with mlflow.start_run(run_name=f"{ME} before outside"): pass
                    with mlflow.start_span(f"{ME} before outside"): pass
                @evaluation
                def test_a():
                    mlflow.log_metric("a", 1)
                    with mlflow.start_span(f"{ME} inside"): pass
                def test_after():
                    mlflow.end_run()
                    note(mlflow.get_tracking_uri())
                    with mlflow.start_run(run_name=f"{ME} after outside"): pass
                    with mlflow.start_span(f"{ME} after outside"): pass
                """,
                {"test_a": Ours(metrics={"a": 1}, traces=["at_import inside"])},
            ),
            Situation(
                "at_import_own",
                """
                @evaluation
                def test_b():
                    mlflow.set_tracking_uri(OWN)
                    mlflow.set_experiment("mine")
                    with mlflow.start_run(run_name="b"): mlflow.log_metric("b", 1)
                    mlflow.set_tracking_uri(f"sqlite:///{HERE.parent}/import.db")
                    mlflow.set_experiment("theirs")
                @evaluation
                def test_c():
                    with mlflow.start_run(run_name=f"{ME} c", nested=True): pass
                def test_after():
                    mlflow.end_run()
                    note(mlflow.get_tracking_uri())
                    with mlflow.start_run(run_name=f"{ME} after outside"): pass
                """,
                {"test_b": Ours()},
            ),
        ],
        """
        mlflow.set_tracking_uri(f"sqlite:///{HERE}/import.db")
        mlflow.set_experiment("theirs")
        """,
        ways=("alone", "n2"),
    ),
    Group(
        "session_store",
        [
            Situation(
                name,
                """
                @evaluation
                def test_a():
                    assert mlflow.get_tracking_uri().endswith("own-session.db")
                    with mlflow.start_run(run_name=f"{ME} a"): mlflow.log_metric("a", 1)
                    with mlflow.start_span(f"{ME} a"): pass
                def test_b():
                    with mlflow.start_run(run_name=f"{ME} b"): mlflow.log_metric("b", 1)
                @evaluation
                def test_c():
                    assert mlflow.active_run() is None
                    with mlflow.start_run(run_name=f"{ME} c"): mlflow.log_metric("c", 1)
                """,
                {"test_a": Ours(), "test_c": Ours()},
            )
            for name in ("session_store", "session_store_too")
        ],
        """
        import shutil
        @pytest.fixture(scope="session", autouse=True)
        def store(tmp_path_factory):
            path = tmp_path_factory.mktemp("store") / "own-session.db"
            shutil.copy(HERE / "mlflow.db", path)
            mlflow.set_tracking_uri(f"sqlite:///{path}")
            yield
            mlflow.set_tracking_uri(None)
        """,
        ways=("alone",),
    ),
    Group(
        "their_plugin",
        [
            Situation(
                "their_plugin",
                """
                @mlflow.test
                def test_a(): mlflow.log_metric("a", 1)
                @evaluation
                def test_b(): mlflow.log_metric("b", 1)
                @evaluation
                @mlflow.test
                def test_c(): mlflow.log_metric("c", 1)
                @mlflow.test
                def test_d(): mlflow.log_metric("d", 1)
                """,
                {"test_b": Ours(metrics={"b": 1})},
                moved=["b", "c"],
            ),
            Situation(
                "their_plugin_later",
                """
                @evaluation
                @mlflow.test
                def test_a():
                    with mlflow.start_span(f"{ME} a"): pass
                @mlflow.test
                def test_b(): mlflow.log_metric("b", 1)
                """,
            ),
        ],
        'pytest_plugins = ["mlflow.pytest.plugin"]',
        ways=("alone",),
        needs="test",
    ),
    Group(
        "slow",
        [
            Situation(
                "autologged",
                """
                from sklearn.linear_model import LogisticRegression
                def fit(): LogisticRegression(C=0.5).fit([[0.0], [1.0]], [0, 1])
                @pytest.fixture(scope="module", autouse=True)
                def autologging():
                    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
                    yield
                    mlflow.sklearn.autolog(disable=True)
                @evaluation
                def test_a(): fit()
                @evaluation
                def test_b():
                    mlflow.set_tracking_uri(OWN)
                    fit()
                    mlflow.set_tracking_uri(None)
                def test_c():
                    with mlflow.start_run(run_name=f"{ME} outside"): fit()
                """,
            ),
            Situation(
                "evaluated",
                """
                from mlflow.genai import scorer
                @scorer
                def exact(outputs, expectations): return outputs == expectations["answer"]
                DATA = [{"inputs": {"x": n}, "expectations": {"answer": n + 1}} for n in range(3)]
                @evaluation
                def test_a():
                    result = mlflow.genai.evaluate(
                        data=DATA, predict_fn=lambda x: x + 1, scorers=[exact]
                    )
                    assert result.metrics["exact/mean"] == 1
            """,
            ),
            Situation(
                "fresh_database",
                """
                @evaluation
                def test_a(tmp_path):
                    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/own-{ME}.db")
                    with mlflow.start_run(run_name="a"): mlflow.log_metric("a", 1)
                    assert len(mlflow.search_runs(output_format="list")) == 1
                    mlflow.set_tracking_uri(None)
                @evaluation
                def test_b(): mlflow.log_metric("b", 1)
                """,
                {"test_a": Ours(), "test_b": Ours(metrics={"b": 1})},
            ),
            Situation(
                "child_process",
                """
                import subprocess, sys
                CODE = "import mlflow as m; m.start_run(run_name='child'); m.log_metric('m', 1)"
                @evaluation
                def test_a():
                    mlflow.set_tracking_uri(OWN)
                    subprocess.run([sys.executable, "-c", CODE], check=True)
                    mlflow.set_tracking_uri(None)
                """,
                {"test_a": Ours()},
            ),
        ],
        ways=("alone",),
        preloaded=("mlflow.genai", "mlflow.sklearn.utils:_all_estimators"),
    ),
]

TABLE = [
    pytest.param(
        group, situation, way, id=f"{group.name}-{situation.name}-{way}", marks=group.marks
    )
    for group in GROUPS
    for way in group.ways
    for situation in group.situations
    if situation.http or not way.startswith("http")
]


@pytest.fixture(scope="module")
def suites(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    database_template: Path,
    fork_server: Callable[[], str],
) -> Suites:
    """Each session runs once for all the situations in it."""
    server: Callable[[], str] = lambda: request.getfixturevalue("mlflow_server")  # noqa: E731
    return Suites(tmp_path_factory.mktemp("suites"), database_template, fork_server, server)


@pytest.mark.parametrize(("group", "situation", "way"), TABLE)
@pytest.mark.usefixtures("clean_environment")
def test_what_is_the_users_is_as_without_us(
    suites: Suites, group: Group, situation: Situation, way: str
) -> None:
    off, on = suites.untracked(group), suites.run(group, way)
    found = differences(off.of(situation), on.of(situation))
    assert not found, "\n".join([*found, *messages(situation, on)])


OURS = [param for param in TABLE if param.values[1].ours]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("group", "situation", "way"), OURS)
@pytest.mark.usefixtures("clean_environment")
def test_what_is_ours_is_in_our_runs(
    suites: Suites, group: Group, situation: Situation, way: str
) -> None:
    on = suites.run(group, way)
    found = differences(situation.expected(way), evaluations_of(on, situation))
    assert not found, "\n".join([*found, *messages(situation, on)])


SESSIONS = [
    pytest.param(group, way, id=f"{group.name}-{way}", marks=group.marks)
    for group in GROUPS
    for way in group.ways
]


@pytest.mark.parametrize(("group", "way"), SESSIONS)
@pytest.mark.usefixtures("clean_environment")
def test_the_session_ends_as_without_us(suites: Suites, group: Group, way: str) -> None:
    off, on = suites.untracked(group), suites.run(group, way)
    reported = ("warning:", "not stored:", "INTERNALERROR", "Failed to ")
    assert [line for line in on.lines if any(word in line for word in reported)] == []
    assert (on.status, sorted(on.running)) == (off.status_of(group, way), sorted(off.running))
    if way == "inactive":
        assert on.unnamed == off.unnamed


@pytest.mark.parametrize("name", ["system_by_environment", "system_by_call"])
@pytest.mark.usefixtures("clean_environment")
def test_system_metrics_are_the_evaluations_own(suites: Suites, name: str) -> None:
    (group,) = [g for g in GROUPS if name in [s.name for s in g.situations]]
    ours = suites.run(group, "alone").ours
    found = [run for nodeid, run in ours.items() if nodeid.startswith(f"{name}/")]
    assert len(found) == 2
    for run in found:
        assert any(name.startswith("system/") for name in run["metrics"])


@pytest.mark.usefixtures("clean_environment")
def test_an_active_model_is_that_of_its_test(suites: Suites) -> None:
    (group,) = [g for g in GROUPS if g.name == "mixed"]
    models = [one for one in suites.run(group, "alone").around if one["kind"] == "model"]
    metrics = {model["name"]: model["metrics"] for model in models}
    assert metrics == {"active_model agent": ["in_a"], "a_model_of_a_module agent": []}


def messages(situation: Situation, on: Outcome) -> list[str]:
    """What the situation's tests failed with."""
    prefix = f"{situation.name}/"
    return [f"{k}: {v}" for k, v in on.messages.items() if k.startswith(prefix)]
