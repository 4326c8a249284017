"""Fits that Prefect's result store remembers for library users."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from surrogate_core import Dataset, GPSurrogate
from surrogate_core.surrogates.files import surrogate_files
from tasks import fit_surrogate
from tasks.records import cache_stats

X = np.random.default_rng(0).uniform(-1, 1, (12, 2))
DATA = Dataset(X, np.sin(3 * X[:, 0]) + X[:, 1])
SPEC = GPSurrogate(n_starts=1)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[GPSurrogate]:
    """The specs that were really fitted."""
    made: list[GPSurrogate] = []
    fit = GPSurrogate.fit

    def counted(self: GPSurrogate, *arguments: Any) -> Any:
        made.append(self)
        return fit(self, *arguments)

    monkeypatch.setattr(GPSurrogate, "fit", counted)
    return made


def test_the_same_fit_is_made_once_and_another_one_again(tmp_path: Path, fits: list[GPSurrogate]) -> None:
    first, again = (fit_surrogate(DATA, SPEC, folder=tmp_path) for _ in range(2))
    assert fits == [SPEC]
    assert surrogate_files(first) == surrogate_files(again)
    assert fit_surrogate(DATA.take(np.arange(12)), SPEC, jax.random.key(0), folder=tmp_path).spec == first.spec
    assert fits == [SPEC], "the content counts"
    fit_surrogate(DATA.take(np.arange(11)), SPEC, folder=tmp_path)
    fit_surrogate(DATA, GPSurrogate(n_starts=2), folder=tmp_path)
    fit_surrogate(DATA, SPEC, jax.random.key(1), folder=tmp_path)
    assert len(fits) == 4


def test_a_damaged_record_is_fitted_again(tmp_path: Path, fits: list[GPSurrogate]) -> None:
    fit_surrogate(DATA, SPEC, folder=tmp_path)
    (record,) = tmp_path.iterdir()
    content = record.read_bytes()
    record.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    fit_surrogate(DATA, SPEC, folder=tmp_path)
    assert len(fits) == 2


IN_ANOTHER_PROCESS = """
import numpy as np
from surrogate_core import Dataset, GPSurrogate
from tasks import fit_surrogate

X = np.random.default_rng(0).uniform(-1, 1, (12, 2))
data = Dataset(X, np.sin(3 * X[:, 0]) + X[:, 1])
GPSurrogate.fit = None
print(float(fit_surrogate(data, GPSurrogate(n_starts=1)).predict(X[0])).hex())
"""


def test_a_new_process_is_served_from_the_projects_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fitted = fit_surrogate(DATA, SPEC)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path).stdout
    assert float.fromhex(told) == fitted.predict(X[0])
    assert cache_stats(tmp_path / ".surrogate")["stages"] == {"fit_surrogate": 1}
