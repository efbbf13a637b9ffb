"""Parameters follow the fixture."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Evals

LOADERS = """
    def load(**kwargs): return kwargs
    def train(**kwargs): return kwargs
    def tune(**kwargs): return kwargs
"""


@pytest.fixture
def evals_with_loaders(evals: Evals) -> Evals:
    evals.pytester.makepyfile(loaders=LOADERS)
    evals.pytester.syspathinsert()
    return evals


def params(evals: Evals) -> dict[str, dict[str, str]]:
    """Each run's parameters, without the functions' names."""
    return {
        name: {k: v for k, v in run.data.params.items() if not k.endswith("._func")}
        for name, run in evals.runs().items()
    }


def test_a_cached_fixture_belongs_to_every_test_that_uses_it(
    evals_with_loaders: Evals, each_way: Sequence[str]
) -> None:
    evals_with_loaders.write("""
        import loaders, pytest
        @pytest.fixture(scope="session")
        def data(track_call): return track_call(loaders.load, split="test")
        @pytest.fixture(scope="module")
        def model(track_call, data): return track_call(loaders.train, C=1.0)
        @pytest.fixture(scope="class")
        def tuned(track_call, model): yield track_call(loaders.tune, steps=3)
        @pytest.mark.evaluation
        class TestIt:
            def test_direct(self, data): pass
            def test_through_another(self, model): pass
            def test_chain(self, tuned): pass
            def test_again(self, tuned): pass
            def test_none(self): pass
    """)
    evals_with_loaders.run(*each_way).assert_outcomes(passed=5)
    data, model, tuned = {"load.split": "test"}, {"train.C": "1.0"}, {"tune.steps": "3"}
    assert params(evals_with_loaders) == {
        "test_direct": data,
        "test_through_another": {**data, **model},
        "test_chain": {**data, **model, **tuned},
        "test_again": {**data, **model, **tuned},
        "test_none": {},
    }


def test_a_parametrized_fixture_gives_each_test_its_own_value(evals_with_loaders: Evals) -> None:
    evals_with_loaders.write("""
        import loaders, pytest
        @pytest.fixture(scope="session", params=["small", "large"])
        def model(request, track_call): return track_call(loaders.load, size=request.param)
        @pytest.fixture(scope="session")
        def wrapped(model, track_call): return track_call(loaders.train, lr=1)
        @pytest.mark.evaluation
        def test_a(model): pass
        @pytest.mark.evaluation
        def test_b(wrapped): pass
        @pytest.mark.evaluation
        @pytest.mark.parametrize("model", ["given"], indirect=True)
        def test_c(model): pass
    """)
    evals_with_loaders.run().assert_outcomes(passed=5)
    found = params(evals_with_loaders)
    for size in ("small", "large"):
        assert found[f"test_a[{size}]"] == {"model": size, "load.size": size}
        assert found[f"test_b[{size}]"] == {"model": size, "load.size": size, "train.lr": "1"}
    assert found["test_c[given]"] == {"model": "given", "load.size": "given"}


def test_an_override_in_a_nearer_conftest_is_the_one_that_counts(evals_with_loaders: Evals) -> None:
    evals_with_loaders.pytester.makepyfile(
        conftest="""
            import loaders, pytest
            @pytest.fixture(scope="session")
            def data(track_call): return track_call(loaders.load, which="far")
            """,
        test_far="import pytest\n@pytest.mark.evaluation\ndef test_far(data): pass",
    )
    near = evals_with_loaders.pytester.mkpydir("near")
    (near / "conftest.py").write_text(
        "import loaders, pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def data(track_call): return track_call(loaders.train, which='near')\n"
    )
    (near / "test_near.py").write_text(
        "import pytest\n@pytest.mark.evaluation\ndef test_near(data): pass\n"
    )
    over = evals_with_loaders.pytester.mkpydir("over")
    (over / "conftest.py").write_text(
        "import loaders, pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def data(track_call, data): return track_call(loaders.tune, which='over')\n"
    )
    (over / "test_over.py").write_text(
        "import pytest\n@pytest.mark.evaluation\ndef test_over(data): pass\n"
    )
    same = evals_with_loaders.pytester.mkpydir("same")
    (same / "test_same.py").write_text(
        "import loaders, pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def data(track_call, data): return track_call(loaders.load, which='same')\n"
        "@pytest.mark.evaluation\n"
        "def test_same(data): pass\n"
    )
    evals_with_loaders.run().assert_outcomes(passed=4)
    assert params(evals_with_loaders) == {
        "test_far": {"load.which": "far"},
        "test_near": {"train.which": "near"},
        "test_over": {"load.which": "far", "tune.which": "over"},
        "test_same": {"data.load.which": "far", "data.2.load.which": "same"},
    }


def test_dynamic_requests_count_cached_or_not(evals_with_loaders: Evals) -> None:
    evals_with_loaders.write("""
        import loaders, pytest
        @pytest.fixture(scope="session")
        def data(track_call): return track_call(loaders.load, split="test")
        @pytest.fixture(scope="session")
        def model(request, track_call):
            request.getfixturevalue("data")
            return track_call(loaders.train, C=1.0)
        @pytest.fixture
        def late(request): return request.getfixturevalue("data")
        @pytest.mark.evaluation
        def test_in_the_body(request): request.getfixturevalue("data")
        @pytest.mark.evaluation
        def test_fresh_fixture_asks(model): pass
        @pytest.mark.evaluation
        def test_cached_fixture_asked(model): pass
        @pytest.mark.evaluation
        def test_function_fixture_asks_for_cached(late): pass
        @pytest.mark.evaluation
        @pytest.mark.usefixtures("model")
        def test_usefixtures(): pass
    """)
    evals_with_loaders.run().assert_outcomes(passed=5)
    data, model = {"load.split": "test"}, {"train.C": "1.0"}
    assert params(evals_with_loaders) == {
        "test_in_the_body": data,
        "test_fresh_fixture_asks": {**data, **model},
        "test_cached_fixture_asked": {**data, **model},
        "test_function_fixture_asks_for_cached": data,
        "test_usefixtures": {**data, **model},
    }


def test_autouse_class_and_async_fixtures(evals_with_loaders: Evals) -> None:
    evals_with_loaders.write("""
        import loaders, pytest, pytest_asyncio
        from pytest_armory import track_call
        @pytest.fixture(scope="module", autouse=True)
        def seed(): track_call(loaders.load, seed=3)
        @pytest_asyncio.fixture
        async def remote(): return track_call(loaders.train, url="x")
        @pytest_asyncio.fixture
        async def streaming():
            yield track_call(loaders.tune, k=1)
        class TestIt:
            @pytest.fixture
            def own(self): return track_call(loaders.tune, here=1)
            @pytest.mark.evaluation
            def test_own(self, own): pass
        @pytest.mark.evaluation
        @pytest.mark.asyncio
        async def test_async(remote, streaming): pass
    """)
    evals_with_loaders.run().assert_outcomes(passed=2)
    assert params(evals_with_loaders) == {
        "test_own": {"load.seed": "3", "tune.here": "1"},
        "test_async": {"load.seed": "3", "train.url": "x", "tune.k": "1"},
    }


def test_a_failed_fixture_keeps_what_it_recorded(evals_with_loaders: Evals) -> None:
    evals_with_loaders.write("""
        import loaders, pytest
        @pytest.fixture(scope="session")
        def data(track_call):
            track_call(loaders.load, path="/missing")
            raise OSError("no such file")
        @pytest.mark.evaluation
        def test_a(data): pass
        @pytest.mark.evaluation
        def test_b(data): pass
    """)
    evals_with_loaders.run().assert_outcomes(errors=2)
    found = params(evals_with_loaders)
    assert found == {"test_a": {"load.path": "/missing"}, "test_b": {"load.path": "/missing"}}


def test_one_loader_in_two_fixtures_is_told_apart_by_their_names(
    evals_with_loaders: Evals,
) -> None:
    evals_with_loaders.write("""
        import loaders, pytest
        from pytest_armory import track_call as call
        @pytest.fixture(scope="session")
        def train(track_call): return track_call(loaders.load, split="a")
        @pytest.fixture(scope="session")
        def held_out(track_call): return track_call(loaders.load, split="b")
        @pytest.fixture(scope="session")
        def same(track_call): return track_call(loaders.load, split="a")
        @pytest.mark.evaluation
        def test_both(train, held_out): pass
        @pytest.mark.evaluation
        def test_same(train, same): pass
        @pytest.mark.evaluation
        def test_own(train): call(loaders.load, split="c")
    """)
    evals_with_loaders.run().assert_outcomes(passed=3)
    assert params(evals_with_loaders) == {
        "test_both": {"train.load.split": "a", "held_out.load.split": "b"},
        "test_same": {"load.split": "a"},
        "test_own": {"train.load.split": "a", "test.load.split": "c"},
    }


def test_one_loader_in_two_fixtures_told_apart_by_prefix(evals_with_loaders: Evals) -> None:
    evals_with_loaders.write("""
        import loaders, pytest
        from pytest_armory import track_params
        @pytest.fixture
        def train(): return track_params(loaders.load, prefix="train")(split="a")
        @pytest.fixture
        def test(): return track_params(loaders.load, prefix="test")(split="b")
        @pytest.mark.evaluation
        def test_a(train, test): pass
    """)
    evals_with_loaders.run().assert_outcomes(passed=1)
    assert params(evals_with_loaders) == {"test_a": {"train.split": "a", "test.split": "b"}}


def test_what_a_fixture_logs_through_mlflow_lands_in_the_run_that_set_it_up(
    evals_with_loaders: Evals,
) -> None:
    evals_with_loaders.write("""
        import mlflow, pytest
        @pytest.fixture
        def data():
            mlflow.log_metric("in_setup", 1)
            yield
            mlflow.log_metric("in_teardown", 1)
        @pytest.mark.evaluation
        def test_a(data): pass
    """)
    evals_with_loaders.run().assert_outcomes(passed=1)
    assert evals_with_loaders.run_of("test_a").data.metrics.keys() >= {"in_setup", "in_teardown"}
