"""What work costs is measured: compilation apart from running, memory at its peak, workers included."""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from surrogate_core.performance.profiler import measured


def test_compilation_is_seen_once() -> None:
    function = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))
    x = np.ones(64)
    with measured() as first:
        function(x).block_until_ready()
    with measured() as second:
        function(x).block_until_ready()
    assert first.compile_s > 0
    assert second.compile_s == 0
    assert first.compile_s <= first.wall_s


def test_what_is_compiled_within_a_compilation_is_counted_once() -> None:
    inner = jax.jit(lambda x: jnp.linalg.solve(x @ x.T + 5 * jnp.eye(5), x))

    def outer(x: jax.Array) -> jax.Array:
        for _ in range(20):
            x = jax.jit(lambda z: inner(z) + 1)(x)  # traced while the outer one is
        return x

    with measured() as cost:
        jax.jit(outer)(np.ones((5, 5))).block_until_ready()
    assert 0 < cost.compile_s <= cost.wall_s


def test_the_peak_holds_an_allocation_that_was_freed() -> None:
    with measured() as nothing:
        time.sleep(0.2)
    with measured() as much:
        block = np.ones(25_000_000)  # 200 MB
        time.sleep(0.2)
        del block
    assert 180 < much.peak_mb - nothing.peak_mb < 260


def test_children_count_unless_they_are_servers_in_a_session_of_their_own() -> None:
    spin = [sys.executable, "-c", "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"]
    with measured() as worker:
        subprocess.run(spin, check=True)
    with measured() as server:
        subprocess.run(spin, check=True, start_new_session=True)
    assert worker.cpu_s > 0.3 > server.cpu_s


def test_a_body_that_fails_is_measured_too() -> None:
    try:
        with measured() as cost:
            time.sleep(0.01)
            raise KeyError
    except KeyError:
        pass
    assert cost.wall_s >= 0.01
