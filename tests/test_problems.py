"""Black boxes: the coating obeys the laws of optics, and a function named in a settings file is found or told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import ROUNDING

from surrogate_core import Float, SearchSpace
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.problems.black_box import BlackBox, identity
from surrogate_core.problems.optics import LAYERS, WAVELENGTHS, mean_reflectance, quarter_wave, reflectance, spectra
from surrogate_core.sampling import sample

BEST = {"sio2_outer": 115.5, "tio2_outer": 15.4, "sio2_inner": 51.8, "tio2_inner": 10.8}
KNOWN_OPTIMUM = 0.0117
SPACE = SearchSpace({name: Float(5, 150) for name in LAYERS})
thickness = st.floats(0, 500)


def sellmeier(b: list[float], c: list[float]) -> np.ndarray:
    l2 = (WAVELENGTHS / 1000) ** 2
    return np.sqrt(1 + sum(bi * l2 / (l2 - ci) for bi, ci in zip(b, c, strict=True)))


# Typed in again from the sources that the module names.
GLASS = sellmeier([1.03961212, 0.231792344, 1.01046945], [0.00600069867, 0.0200179144, 103.560653])
SIO2 = sellmeier([0.6961663, 0.4079426, 0.8974794], [0.0684043**2, 0.1162414**2, 9.896161**2])
TIO2 = np.sqrt(5.913 + 0.2441 / ((WAVELENGTHS / 1000) ** 2 - 0.0803))


def fresnel(n1: Any, n2: Any, angle: float, polarization: str) -> Any:
    """Amplitude reflected where light that began in air at an angle goes from n1 to n2 (Born & Wolf, section 1.5.2)."""
    cos1, cos2 = np.sqrt(1 - (np.sin(angle) / n1) ** 2), np.sqrt(1 - (np.sin(angle) / n2) ** 2)
    if polarization == "s":
        return (n1 * cos1 - n2 * cos2) / (n1 * cos1 + n2 * cos2)
    return (n2 * cos1 - n1 * cos2) / (n2 * cos1 + n1 * cos2)


def one_layer(n: np.ndarray, thickness: float, angle: float, polarization: str) -> np.ndarray:
    """Reflectance of glass under one layer (Born & Wolf, section 1.6.4)."""
    top, bottom = fresnel(1.0, n, angle, polarization), fresnel(n, GLASS, angle, polarization)
    phase = np.exp(2j * (2 * np.pi / WAVELENGTHS) * np.sqrt(n**2 - np.sin(angle) ** 2) * thickness)
    return np.abs((top + bottom * phase) / (1 + top * bottom * phase)) ** 2


def test_the_indices_are_those_of_the_data_sheets() -> None:
    at = np.argmin(np.abs(WAVELENGTHS - 590))
    assert GLASS[at] == pytest.approx(1.5167, abs=1e-3)
    assert SIO2[at] == pytest.approx(1.4584, abs=1e-3)
    assert TIO2[at] == pytest.approx(2.61, abs=2e-2)


def test_bare_glass_reflects_as_fresnel_says() -> None:
    normal = fresnel(1.0, GLASS, 0.0, "s") ** 2
    oblique = [fresnel(1.0, GLASS, np.pi / 4, polarization) ** 2 for polarization in "sp"]
    assert reflectance([]) == pytest.approx(0.5 * normal + 0.25 * sum(oblique), rel=ROUNDING)
    assert normal == pytest.approx(((GLASS - 1) / (GLASS + 1)) ** 2)


@pytest.mark.parametrize("nm", [0.0, 20.0, 94.0, 333.3])
@pytest.mark.parametrize(("n", "before"), [(SIO2, []), (TIO2, [0.0])], ids=["sio2", "tio2"])
def test_one_layer_reflects_as_the_closed_form_says(n: np.ndarray, before: list[float], nm: float) -> None:
    normal = one_layer(n, nm, 0.0, "s")
    oblique = [one_layer(n, nm, np.pi / 4, polarization) for polarization in "sp"]
    assert reflectance([*before, nm]) == pytest.approx(0.5 * normal + 0.25 * sum(oblique), rel=1e-9)


def test_the_textbook_coatings_reflect_what_they_are_known_for() -> None:
    assert reflectance([]).mean() == pytest.approx(0.048, abs=0.0005)
    assert reflectance([quarter_wave()]).mean() == pytest.approx(0.034, abs=0.0005)
    assert quarter_wave() == pytest.approx(550 / (4 * 1.46), abs=0.1)
    at_550 = reflectance([quarter_wave()])[np.argmin(np.abs(WAVELENGTHS - 550))]
    assert at_550 < reflectance([])[30] / 1.3


def test_the_known_optimum_is_one() -> None:
    best = mean_reflectance(**BEST)
    assert best == pytest.approx(0.0118, abs=0.0001)
    assert best > KNOWN_OPTIMUM
    for layer in LAYERS:
        for off in (-3.0, 3.0):
            assert mean_reflectance(**{**BEST, layer: BEST[layer] + off}) > best


def test_no_sample_beats_the_known_optimum() -> None:
    values = [mean_reflectance(**SPACE.params(x)) for x in SPACE.decode(sample("sobol", 128, 4, seed=0))]
    assert min(values) > KNOWN_OPTIMUM


@settings(max_examples=15)
@given(st.lists(thickness, max_size=5))
def test_no_energy_is_made(thicknesses: list[float]) -> None:
    spectrum = reflectance(thicknesses)
    assert spectrum.shape == WAVELENGTHS.shape
    assert ((spectrum >= 0) & (spectrum <= 1)).all()


@settings(max_examples=5)
@given(st.tuples(thickness, thickness, thickness, thickness))
def test_a_layer_of_no_thickness_is_none(thicknesses: tuple[float, ...]) -> None:
    a, b, c, d = thicknesses
    assert reflectance([a, b, 0.0, 0.0, c, d]) == pytest.approx(reflectance([a, b, c, d]), rel=1e-9, abs=ROUNDING)


def test_the_mean_is_over_the_spectrum_in_the_order_of_the_layers() -> None:
    assert mean_reflectance(**BEST) == reflectance([BEST[layer] for layer in LAYERS]).mean()
    assert mean_reflectance(*BEST.values()) == mean_reflectance(**BEST)
    assert type(mean_reflectance(**BEST)) is float


def test_a_negative_thickness_is_refused() -> None:
    with pytest.raises(ValueError, match=r"thicknesses: expected nm >= 0, got \[10.0, -1.0\]"):
        reflectance([10.0, -1.0])


@pytest.mark.parametrize("n", [0, 1, 2, 4, 7])
def test_each_design_has_a_line_beside_the_two_references(n: int) -> None:
    designs = {f"design {i}": {**BEST, "sio2_outer": 100.0 + i} for i in range(n)}
    axes = spectra(designs).axes[0]
    assert len(axes.lines) == n + 2
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    for name, label in zip(designs, labels[2:], strict=True):
        assert label.startswith(f"{name}: mean")
    assert len({line.get_color() for line in axes.lines}) == n + 2
    for line, params in zip(axes.lines[2:], designs.values(), strict=True):
        assert line.get_ydata() == pytest.approx(100 * reflectance(list(params.values())))


# Black boxes by name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of its own, whose modules are forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_function_is_called_with_the_parameters_as_keywords(here: Path) -> None:
    (here / "my_black_box.py").write_text("def f(x, n):\n    return x * n\n")
    assert BlackBox("my_black_box:f")({"n": 3, "x": 0.5}) == 1.5
    assert BlackBox("surrogate_core.problems.optics:mean_reflectance").resolve() is mean_reflectance


def test_a_module_in_the_working_folder_shadows_nothing(here: Path) -> None:
    (here / "statistics.py").write_text("mean = None\n")
    assert BlackBox("statistics:mean").resolve()([1, 3]) == 2
    assert sys.path[-1] == str(here)
    assert sys.path.count(str(here)) == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "expected package.module:name, got ''"),
        ("module", "expected package.module:name, got 'module'"),
        ("module:", "expected package.module:name, got 'module:'"),
        (":f", "expected package.module:name, got ':f'"),
        ("no_such_module:f", "expected an importable function, got 'no_such_module:f' .*no_such_module"),
        ("no_such.module:f", "expected an importable function"),
        ("math:no_such_name", "expected an importable function, got 'math:no_such_name' .*no_such_name"),
        ("math:sqrt:x", "expected an importable function"),
        ("math:pi", "expected a function, got 'math:pi', a float"),
        (".math:sqrt", "got '.math:sqrt'"),
        ("..:sqrt", "got '..:sqrt'"),
        ("wrong_syntax:f", r"expected an importable function, got 'wrong_syntax:f' \(.*line 1"),
        ("needs_more:f", "expected an importable function, got 'needs_more:f' .*not_installed"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(target: str, message: str, here: Path) -> None:
    (here / "wrong_syntax.py").write_text("def f(:\n")
    (here / "needs_more.py").write_text("import not_installed\n")
    with pytest.raises(ValueError, match=message):
        BlackBox(target).resolve()


def test_a_module_that_raises_anything_is_told(here: Path) -> None:
    (here / "raises.py").write_text("class Odd(Exception): pass\nraise Odd('no licence')\n")
    with pytest.raises(ValueError, match=r"expected an importable function, got 'raises:f' \(no licence\)"):
        BlackBox("raises:f").resolve()


def test_the_import_is_no_part_of_a_calls_time_limit(here: Path) -> None:
    (here / "slow_import.py").write_text("import time\ntime.sleep(1.5)\ndef f(x): return x\n")
    with Evaluator(BlackBox("slow_import:f"), ExecutorSpec("processes", n_workers=1), timeout=1.0) as evaluator:
        (found,) = evaluator.evaluate(["a"], [{"x": 2.0}])
    assert (found.value, found.status) == (2.0, "ok")


def test_the_coating_can_be_evaluated_without_jax() -> None:
    """Workers import it, many at a time."""
    program = "import sys, surrogate_core.problems.optics as o; o.reflectance([]); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_identity_is_that_of_content_and_version(tmp_path: Path) -> None:
    one, other = tmp_path / "box.py", tmp_path / "copy" / "box.py"
    other.parent.mkdir()
    for path in (one, other):
        path.write_text("def f(x):\n    return x\n")
    first = identity([one], 1)
    assert identity([one], 1) == first
    assert identity([other], 1) == first  # wherever it lies
    assert identity([one], 2) != first
    assert identity([one], "1") != first
    one.write_text("def f(x):\n    return x \n")
    assert identity([one], 1) != first
    one.write_bytes(other.read_bytes())
    assert identity([one], 1) == first


def test_the_identity_of_a_folder_is_that_of_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "simulator"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.py").write_text("A = 1\n")
    (folder / "deep" / "b.py").write_text("B = 1\n")
    (folder / "mesh.json").write_text("{}")
    seen = [identity([folder], 1)]
    for change in (
        lambda: (folder / "deep" / "b.py").write_text("B = 2\n"),
        lambda: (folder / "a.py").rename(folder / "c.py"),
        lambda: (folder / "new.py").write_text(""),
        lambda: (folder / "mesh.json").write_text("[]"),  # what it reads is part of what it is, and DVC's dependency
    ):
        change()
        seen.append(identity([folder], 1))
    assert len(set(seen)) == len(seen)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled")
    assert identity([folder], 1) == seen[-1]


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        identity([tmp_path / "nowhere.py"], 1)
