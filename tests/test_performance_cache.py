"""Predictions that are remembered are those that were made, by this model, at this point."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from hypothesis import given
from hypothesis import strategies as st

from surrogate_core import Dataset, GPSurrogate, MultiStartOptimizer, RandomForestSurrogate, SurrogateOptimizer
from surrogate_core.performance import SurrogateCache, VectorizedSurrogate, enable_caching, performance_monitor
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.files import surrogate_files

POLICIES = ("lru", "lfu", "ttl")


def bowl(shift: float = 0.3) -> Dataset:
    X = 2 * sample("sobol", 24, 2, seed=1) - 1
    return Dataset(X, ((X - shift) ** 2).sum(axis=1))


@pytest.fixture(scope="module")
def fitted() -> FittedSurrogate:
    return GPSurrogate(n_starts=2).fit(bowl())


class Own:
    """A surrogate of somebody's own, which counts the points that it predicts."""

    def __init__(self) -> None:
        self.shift, self.n = 0.0, 0

    def fit(self, dataset: Dataset) -> None:
        self.shift = float(dataset.X[dataset.best_index][0])

    def predict(self, X: Any) -> np.ndarray:
        X = np.asarray(X)
        self.n += 1 if X.ndim == 1 else len(X)
        return np.asarray(((X - self.shift) ** 2).sum(axis=-1))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_value_is_known_by_point_operation_type_shape_and_model(policy: Any) -> None:
    cache = SurrogateCache(100, policy)
    x = np.array([0.25, 0.5])
    cache.set(x, "predict", 1.0)
    assert cache.get([0.25, 0.5], "predict") == 1.0
    others = [np.nextafter(x, 1), x.astype(np.float32), x[None], x[::-1]]
    assert [cache.get(other, "predict") for other in others] == [None] * 4
    assert cache.get(x, "gradient") is None
    cache.model = "another"
    assert cache.get(x, "predict") is None


@pytest.mark.parametrize("policy", POLICIES)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=80), size=st.integers(1, 6))
def test_what_is_told_is_what_was_set_last_and_there_are_never_too_many(
    policy: Any, steps: list[tuple[bool, int]], size: int
) -> None:
    cache, known = SurrogateCache(size, policy), {}
    for number, (is_set, point) in enumerate(steps):
        if is_set:
            cache.set([point], "predict", number + 0.5)
            known[point] = number + 0.5
            assert cache.get([point], "predict") == known[point]
        else:
            assert cache.get([point], "predict") in (None, known.get(point))
        assert len(cache) <= size
    told = cache.statistics
    assert told["size"] == len(cache) == min(len(known), told["size"])
    assert told["hits"] + told["misses"] == len(steps)


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=80), size=st.integers(1, 6))
def test_lru_forgets_what_was_not_asked_for_longest(steps: list[tuple[bool, int]], size: int) -> None:
    cache, expected = SurrogateCache(size, "lru"), OrderedDict[int, float]()
    for is_set, point in steps:
        if is_set:
            cache.set([point], "predict", float(point))
            expected[point] = float(point)
        else:
            assert cache.get([point], "predict") == expected.get(point)
        if point in expected:
            expected.move_to_end(point)
        if len(expected) > size:
            expected.popitem(last=False)
    assert [cache.get([point], "predict") for point in range(10)] == [expected.get(point) for point in range(10)]


def asked(policy: Any, points: list[int], size: int = 8) -> SurrogateCache:
    cache = SurrogateCache(size, policy)
    for point in points:
        if cache.get([point], "predict") is None:
            cache.set([point], "predict", float(point))
    return cache


def test_lfu_keeps_what_is_asked_for_often_where_lru_loses_it_to_a_scan() -> None:
    scan = [0, 1, 2] * 20 + list(range(100, 200)) + [0, 1, 2]
    assert asked("lfu", scan).statistics["hits"] == 3 * 19 + 3
    assert asked("lru", scan).statistics["hits"] == 3 * 19


def test_what_was_asked_for_often_long_ago_goes_in_the_end() -> None:
    once, then = [0, 1, 2] * 50, [10 + i % 8 for i in range(800)]
    cache = asked("lfu", once + then)
    assert [cache.get([point], "predict") for point in (0, 1, 2)] == [None] * 3
    assert cache.get([10], "predict") is not None


def test_ttl_forgets_what_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("surrogate_core.performance.cache.time", SimpleNamespace(monotonic=lambda: now[0]))
    cache = SurrogateCache(10, "ttl", ttl=5.0)
    cache.set([1], "predict", 1.0)
    now[0] = 104.0
    cache.set([2], "predict", 2.0)
    assert cache.get([1], "predict") == 1.0
    now[0] = 105.0
    assert cache.get([1], "predict") is None
    assert cache.get([2], "predict") == 2.0
    now[0] = 200.0
    cache.set([3], "predict", 3.0)
    assert len(cache) == 1


def test_points_may_be_rounded() -> None:
    cache = SurrogateCache(10, decimals=3)
    cache.set([-0.0001, 0.5004], "predict", 1.0)
    assert cache.get([0.0001, 0.4996], "predict") == 1.0
    assert cache.get([0.001, 0.5], "predict") is None


def test_what_is_remembered_cannot_be_changed_from_outside() -> None:
    cache, value = SurrogateCache(), np.ones(2)
    cache.set([0.0], "gradient", value)
    value[0] = 9.0
    told = cache.get([0.0], "gradient")
    assert told.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        told[0] = 9.0


@pytest.mark.parametrize("policy", POLICIES)
def test_threads_may_share_it(policy: Any) -> None:
    cache, wrong = SurrogateCache(50, policy), []

    def work(seed: int) -> None:
        for point in np.random.default_rng(seed).integers(0, 100, 3000):
            value = cache.get([point], "predict")
            if value is None:
                cache.set([point], "predict", float(point))
            elif value != point:
                wrong.append(point)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(cache) == 50
    assert cache.statistics["hits"] + cache.statistics["misses"] == 4 * 3000


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"max_size": 0}, "max_size: expected an integer >= 1, got 0"),
        ({"policy": "fifo"}, "policy: expected one of 'lru', 'lfu', 'ttl', got 'fifo'"),
        ({"ttl": 0.0}, "ttl: expected a number of seconds > 0, got 0.0"),
        ({"decimals": 1.5}, "decimals: expected None or an integer, got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        SurrogateCache(**how)


def test_a_cached_surrogate_predicts_as_the_one_that_it_was_made_of_and_asks_it_once(fitted: FittedSurrogate) -> None:
    cached, X = enable_caching(fitted, max_size=50), sample("sobol", 9, 2, seed=3)
    for points in (X[0], X, X[::-1], X[[2, 2, 2]], X[:0]):
        for told in ("predict", "uncertainty", "gradient"):
            once, again = getattr(cached, told)(points), getattr(cached, told)(points)
            assert once == pytest.approx(getattr(fitted, told)(points), rel=1e-9, abs=1e-12)
            assert np.shape(once) == np.shape(getattr(fitted, told)(points))
            assert np.array_equal(once, again)
    own = Own()
    remembering = enable_caching(own)
    remembering.predict(X)
    remembering.predict(X[[1, 1]])
    remembering.predict(X[3])
    assert own.n == len(X)


def test_a_monitor_is_told_of_hits_and_misses(fitted: FittedSurrogate) -> None:
    cached, X = enable_caching(fitted), sample("sobol", 4, 2, seed=3)
    with performance_monitor("it") as profiler:
        cached.predict(X[0])
        cached.predict(X)
    assert profiler.get_performance_summary()["counters"] == {"cache_misses": 4, "cache_hits": 1}


def test_a_refitted_model_never_answers_from_the_old_one(fitted: FittedSurrogate) -> None:
    cache, x = SurrogateCache(), np.array([0.9, 0.9])
    old = enable_caching(fitted, cache=cache)
    new = enable_caching(GPSurrogate(n_starts=2).fit(bowl(-0.5)), cache=cache)
    assert old.predict(x) < 0.5 * new.predict(x)
    again = enable_caching(GPSurrogate(n_starts=2).fit(bowl()), cache=cache)
    before = cache.statistics["hits"]
    assert again.predict(x) == old.predict(x)
    assert cache.statistics["hits"] == before + 2  # the same model answers for itself
    own = enable_caching(Own())
    assert own.predict(x) == pytest.approx(1.62)
    own.fit(bowl(0.9))
    assert own.predict(x) < 0.1
    assert own.shift != 0.0  # what is not remembered is the wrapped one's


def test_within_a_transformation_it_is_the_plain_surrogate(fitted: FittedSurrogate) -> None:
    x = jnp.array([0.1, 0.2])
    expected = fitted.gradient(np.array([0.1, 0.2]))
    for surrogate in (fitted, enable_caching(fitted), VectorizedSurrogate(fitted, 16)):
        assert jax.grad(surrogate.predict)(x) == pytest.approx(expected, rel=1e-4)
        assert jax.jit(surrogate.predict)(x) == pytest.approx(fitted.predict([0.1, 0.2]), rel=1e-5)
        rows = jnp.stack([x, 2 * x])
        assert jax.jit(surrogate.predict)(rows) == pytest.approx(fitted.predict(np.array(rows)), rel=1e-5)
        assert jax.vmap(jax.grad(surrogate.predict))(rows) == pytest.approx(fitted.gradient(np.array(rows)), rel=1e-4)
        assert jax.jit(surrogate.gradient)(rows) == pytest.approx(fitted.gradient(np.array(rows)), rel=1e-4)
        with jax.enable_x64(True):
            assert jax.grad(surrogate.uncertainty)(jnp.array([0.1, 0.2])).dtype == np.float64
        leaves = jax.tree.map(lambda leaf: leaf, surrogate)
        assert type(leaves) is FittedSurrogate


def test_optimizers_and_files_take_it(fitted: FittedSurrogate) -> None:
    search = MultiStartOptimizer(n_starts=4)
    for surrogate in (enable_caching(fitted), VectorizedSurrogate(fitted, 64)):
        assert (search.optimize(surrogate).x == search.optimize(fitted).x).all()
        assert surrogate_files(surrogate) == surrogate_files(fitted)
    for surrogate_type in ("gaussian_process", "test_performance_cache:Own"):
        workflow = SurrogateOptimizer(surrogate_type).fit_surrogate(bowl())
        workflow.surrogate = enable_caching(workflow.surrogate, cache_type="lfu", max_size=100)
        assert workflow.is_fitted
        assert workflow.predict(np.array([0.5, 0.5])) == workflow.predict(np.array([0.5, 0.5]))
        assert workflow.surrogate.cache.statistics["hits"] == 1
        assert np.abs(workflow.optimize(np.zeros(2), bounds=[(-0.8, 0.8)] * 2).x).max() <= 0.8


def compass(predict: Any, x: np.ndarray, step: float = 0.4) -> tuple[np.ndarray, int]:
    """Pattern search: a step along each axis, both ways, then half the step."""
    best, n = predict(x), 1
    while step > 1e-3:
        for direction in np.concatenate([np.eye(len(x)), -np.eye(len(x))]):
            n += 1
            if (value := predict(x + step * direction)) < best:
                best, x = value, x + step * direction
                break
        else:
            step /= 2
    return x, n


def test_neighbours_are_predicted_before_they_are_asked_for_and_change_nothing() -> None:
    plain, ahead = Own(), Own()
    one, other = enable_caching(plain), enable_caching(ahead, neighbours=True)
    ended = [compass(surrogate.predict, np.array([0.83, -0.71])) for surrogate in (one, other)]
    assert (ended[0][0] == ended[1][0]).all()
    assert ended[0][1] == ended[1][1]
    rates = [surrogate.cache.statistics["hit_rate"] for surrogate in (one, other)]
    assert rates[1] > rates[0] + 0.2


def test_in_another_process_a_cache_begins_empty() -> None:
    cached = enable_caching(Own(), "lfu", 7, decimals=2)
    cached.predict(np.ones(2))
    copy = pickle.loads(pickle.dumps(cached))
    assert len(cached.cache) == 1
    assert len(copy.cache) == 0
    assert (copy.cache.policy, copy.cache.max_size, copy.cache.decimals) == ("lfu", 7, 2)
    assert copy.predict(np.ones(2)) == cached.predict(np.ones(2))


def test_only_what_predicts_is_wrapped(fitted: FittedSurrogate) -> None:
    with pytest.raises(ValueError, match=r"^surrogate: expected one that predicts, got GPSurrogate; fit it first$"):
        enable_caching(GPSurrogate())
    with pytest.raises(ValueError, match=r"^surrogate: expected a fitted surrogate, got Own$"):
        VectorizedSurrogate(Own())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^batch_size: expected an integer >= 1, got 0$"):
        VectorizedSurrogate(fitted, 0)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
def test_any_number_of_points_is_predicted_in_batches(fitted: FittedSurrogate, n: int, tmp_path: Any) -> None:
    batched, X = VectorizedSurrogate(fitted, 16), sample("sobol", n, 2, seed=4)
    on_disk = np.memmap(tmp_path / "points", dtype=float, mode="w+", shape=X.shape)
    on_disk[:] = X
    for told in ("predict", "uncertainty", "gradient"):
        expected = getattr(fitted, told)(X)
        for points in (X, on_disk, X.tolist()):
            assert getattr(batched, told)(points) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        for parts in (iter(X), iter(np.array_split(X, 3))):
            made = list(getattr(batched, told)(parts))
            assert [len(part) for part in made] == [len(X[i : i + 16]) for i in range(0, n, 16)]
            assert np.concatenate(made) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert batched.predict(X[0]) == pytest.approx(fitted.predict(X[0]))
    assert list(batched.predict(iter(()))) == []


def test_an_iterator_is_read_as_far_as_it_is_asked_for(fitted: FittedSurrogate) -> None:
    read: list[int] = []

    def points() -> Any:
        for i in range(1000):
            read.append(i)
            yield np.array([i / 1000, 0.5])

    predictions = VectorizedSurrogate(fitted, 10).predict(points())
    next(predictions)
    assert len(read) == 10


def test_one_program_does_for_any_number_of_points() -> None:
    batched = VectorizedSurrogate(RandomForestSurrogate(n_estimators=5).fit(bowl()), 24)
    batched.predict(np.zeros((3, 2)))
    with compilations() as compiled:
        for n in (1, 23, 24, 25, 500):
            batched.predict(np.zeros((n, 2)))
        assert not compiled
        jax.jit(lambda x: x + 1.25)(np.ones(7))
        assert compiled  # the listener hears what is compiled
