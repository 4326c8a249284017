"""Settings: every mistake is one line that names the field and the cure, and the digest follows what can matter."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from surrogate_core import Float, GPSurrogate, Integer, MultiStartOptimizer
from surrogate_core.execution import ExecutorSpec
from surrogate_core.surrogates.files import SURROGATES
from tasks.errors import BadInput
from tasks.keys import STAGES
from tasks.settings import Settings, load_settings, parse_settings

ROOT = Path(__file__).parent.parent
PARAMS = ROOT / "params.yaml"
X = "problem.space.x"  # stands for a variable that the tests add
ADD = f"{X}={{type: float, low: 0, high: 1}}"
KERNELS = "'matern52', 'matern32', 'matern12', 'rbf', 'matern' or 'auto'"


def test_the_projects_own_settings_are_read() -> None:
    settings = load_settings(PARAMS)
    assert isinstance(settings.fit.spec, GPSurrogate)
    assert isinstance(settings.optimize.multi_start, MultiStartOptimizer)
    assert settings.optimize.multi_start.n_starts == settings.optimize.n_starts
    assert isinstance(settings.execution.spec, ExecutorSpec)
    assert settings.problem.search_space.names == tuple(settings.problem.space)
    settings.problem.black_box(ROOT, ROOT).check()
    assert callable(settings.report.figure_maker)
    assert settings.gates == {"on_fail": "warn", "min_r2": 0.5, "min_coverage_95": 0.8}
    assert settings.gates.bounds == {"min_r2": 0.5, "min_coverage_95": 0.8}


@pytest.mark.parametrize(
    ("overrides", "get", "value"),
    [
        (["collect.seed=7"], lambda s: s.collect.seed, 7),
        (["collect.seed=7", "collect.seed=8"], lambda s: s.collect.seed, 8),
        (["problem.timeout=null"], lambda s: s.problem.timeout, None),
        (["problem.timeout=1e-1"], lambda s: s.problem.timeout, 0.1),
        (["problem.timeout=5"], lambda s: s.problem.timeout, 5),
        (["problem.version=a=b"], lambda s: s.problem.version, "a=b"),
        (["problem.direction=maximize"], lambda s: s.problem.sign, -1.0),
        (["problem.direction=minimize"], lambda s: s.problem.sign, 1.0),
        ([ADD, f"{X}.high=2"], lambda s: s.problem.search_space.variables[-1], Float(0, 2)),
        (
            [f"{X}={{type: integer, low: 1, high: 8, log: true}}"],
            lambda s: s.problem.search_space.variables[-1],
            Integer(1, 8, log=True),
        ),
        (["fit.surrogate={kind: gaussian_process, kernel: rbf}"], lambda s: s.fit.spec, GPSurrogate(kernel="rbf")),
        (["fit.surrogate.length_scale=1"], lambda s: s.fit.spec.length_scale, 1),
        (["fit.surrogate.length_scale=[1, 2]"], lambda s: s.fit.spec.length_scale, (1, 2)),
        (["tune.space={length_scale: [null, 0.5]}"], lambda s: s.tune.space, {"length_scale": [None, 0.5]}),
        (["gates={}"], lambda s: dict(s.gates), {"on_fail": "warn"}),
        (["gates={max_rmse: 3, min_r2: null}"], lambda s: s.gates.bounds, {"max_rmse": 3}),
        (["gates={on_fail: stop, min_gradient_cosine: 0.9}"], lambda s: s.gates.on_fail, "stop"),
        (["execution.executor=serial", "problem.timeout=null"], lambda s: s.execution.n_threads, 1),
        (["execution.executor=threads", "problem.timeout=null"], lambda s: s.execution.spec.kind, "threads"),
        (["execution.n_workers=3"], lambda s: s.execution.spec.n_workers, 3),
    ],
    ids=lambda value: "get" if callable(value) else str(value),  # the same in every worker
)
def test_an_override_is_yaml_at_a_dotted_path(overrides: list[str], get: Any, value: Any) -> None:
    found = get(load_settings(PARAMS, overrides))
    assert found == value
    assert type(found) is type(value) or isinstance(value, int)


GRID = "tune.space.gaussian_process"
MISTAKES = [
    # A key that is not known, at any depth, with the nearest that is
    ("colect.seed=1", "colect: unknown key; did you mean collect?"),
    ("zzz=1", "zzz: unknown key; expected one of problem, collect, fit, validate, gates, optimize, tune, execution"),
    ("problem.fucntion=a:b", "problem.fucntion: unknown key; did you mean function?"),
    ("problem.spce.x.low=1", "problem.spce: unknown key; did you mean space?"),
    ("collect.n_sample=3", "collect.n_sample: unknown key; did you mean n_samples?"),
    ("fit.surogate={}", "fit.surogate: unknown key; did you mean surrogate?"),
    ("fit.surrogate.kernl=rbf", "fit.surrogate.kernl: unknown key; did you mean kernel?"),
    ("validate.fold=3", "validate.fold: unknown key; did you mean folds?"),
    ("gates.on_fial=warn", "gates.on_fial: unknown key; did you mean on_fail?"),
    ("gates.max_rmes=3", "gates.max_rmes: unknown key; did you mean max_rmse?"),
    ("gates.gradient_cosine=1", "gates.gradient_cosine: unknown key; did you mean min_gradient_cosine?"),
    (
        "gates.zzz=3",
        "gates.zzz: unknown key; expected on_fail, trust, or min_ or max_ and one of r2, rmse, mae, nlpd, crps",
    ),
    ("gates={1: 2}", "gates.1: unknown key; expected on_fail, trust, or min_ or max_ and one of r2"),
    ("gates=3", "gates: expected a mapping, got 3"),
    ("gates.trust=sure", "gates.trust: expected 'supported' or 'doubtful', got 'sure'"),
    ("optimize.goal=least", "optimize.goal: expected 'auto', 'mean', 'cautious', 'exploring'"),
    ("optimize.kappa=2", "optimize.kappa: expected null, as the goal mean has none, got 2"),
    ("optimize.kappa=-1", "optimize.kappa: expected a number >= 0, got -1"),
    ("optimize.round=3", "optimize.round: unknown key; did you mean rounds?"),
    (
        "optimize.optimizer.kind=newton",
        "optimize.optimizer.kind: expected one of gradient_descent, lbfgs, trust_region",
    ),
    ("optimize.optimizer={kind: lbfgs, n_pair: 3}", "optimize.optimizer.n_pair: unknown key; did you mean n_pairs?"),
    ("optimize.optimizer.patience=0", "optimize.optimizer.patience: expected an integer >= 1 or none, got 0"),
    ("tune.trials=3", "tune.trials: unknown key; did you mean n_trials?"),
    (f"{GRID}.kernels=[rbf]", f"{GRID}.kernels: unknown key; did you mean kernel?"),
    (f"{GRID}.kind=[gaussian_process]", f"{GRID}.kind: unknown key; expected one of transform, kernel, prior"),
    ("tune.space={random_forest: null, kernel: [rbf]}", "tune.space.kernel: unknown key; expected one of gaussian"),
    ("tune.space={random_forest: [max_depth]}", "tune.space.random_forest: expected a mapping, got ['max_depth']"),
    ("tune.space={random_forest: {depth: [2]}}", "tune.space.random_forest.depth: unknown key"),
    (
        "tune.space={random_forest: {max_depth: [2, 99]}}",
        "tune.space.random_forest.max_depth: expected an integer from 1 to 12, got 99",
    ),
    ("execution.worker=3", "execution.worker: unknown key; did you mean n_workers?"),
    (f"{X}={{type: float, low: 0, hihg: 1}}", f"{X}.hihg: unknown key; did you mean high?"),
    (f"{X}={{type: integer, low: 0, high: 1, stpe: 1}}", f"{X}.stpe: unknown key; did you mean step?"),
    ("problem.int=3", "problem.int: unknown key; expected one of function"),  # a name that types have too
    (f"{X}={{type: float, low: 0, high: 1, int: 3}}", f"{X}.int: unknown key; expected one of low, high, log, step"),
    ("collect={n_samples: 64, 1: 2}", "collect.1: unknown key; expected one of n_samples"),
    (f"{X}={{type: float, low: 0, high: 1, 3: 4}}", f"{X}.3: "),
    ("problem.space={1: {type: float}}", "problem.space.1.low: expected a value, got none"),
    ("tune.space={1: [2]}", "tune.space.1: "),
    (
        "tune.space={gaussian_proces: {kernel: [rbf]}}",
        "tune.space.gaussian_proces: unknown key; did you mean gaussian_process?",
    ),
    ("fit.surrogate={kind: gaussian_process, 1: 2}", "fit.surrogate.1: "),
    # A value that is missing
    ("problem={}", "problem: expected one of function, command, data, name, got none"),
    (f"{X}={{type: float, low: 0}}", f"{X}.high: expected a value, got none"),
    ("collect.seed=", "collect.seed: expected an integer, got nothing"),
    # A value of a wrong type
    ("problem=3", "problem: expected a mapping, got 3"),
    ("collect=null", "collect: expected a mapping, got nothing"),
    ("collect=[1]", "collect: expected a mapping, got [1]"),
    ("problem.function=5", "problem.function: expected text, got 5"),
    ("problem.source=3", "problem.source: expected text, got 3"),
    ("problem.constraints=x <= 1", "problem.constraints: expected a list, got 'x <= 1'"),
    ("problem.constraints=[x <= 1]", "problem.constraints[0]: expected numeric variables of the space, got 'x'"),
    ("problem.constraints=[sio2_outer <]", "problem.constraints[0]: expected an expression such as 'x + 2 * y <= 3'"),
    ("problem.shift=3", "problem.shift: expected only with problem.name, got it with problem.function"),
    ("problem.own_folder=true", "problem.own_folder: expected only with problem.command"),
    ("problem.columns={output: y}", "problem.columns: expected only with problem.data"),
    ("problem.name=bore", "problem.name: unknown problem; did you mean borehole?"),
    ("problem.name=zzz", "problem.name: unknown problem; expected one of sphere, rosenbrock"),
    ("problem.name=3", "problem.name: expected text, got 3"),
    ("problem.command=./run --json", "problem.command: expected a list, got './run --json'"),
    ("problem.command=[]", "problem.space: expected the variables with their bounds, got none"),
    ("problem.data=my.csv", "problem.columns.output: expected the name of the column to optimize, got none"),
    ("report.figure=[a]", "report.figure: expected text, got ['a']"),
    ("problem.version=1.5", "problem.version: expected an integer, got 1.5"),
    ("problem.version=true", "problem.version: expected an integer, got True"),
    ("problem.retries=1.5", "problem.retries: expected an integer, got 1.5"),
    ("problem.timeout=soon", "problem.timeout: expected a number, got 'soon'"),
    ("problem.timeout=true", "problem.timeout: expected a number, got True"),
    ("problem.space=5", "problem.space: expected a mapping, got 5"),
    (f"{X}=5", f"{X}: expected a mapping, got 5"),
    (f"{X}=[0, 1]", f"{X}: expected a mapping, got [0, 1]"),
    (f"{X}={{type: float, low: a, high: 1}}", f"{X}.low: expected a number, got 'a'"),
    (f"{X}={{type: float, low: true, high: 2}}", f"{X}.low: expected a number, got True"),
    (f"{X}={{type: integer, low: 1.5, high: 3}}", f"{X}.low: expected an integer, got 1.5"),
    (f"{X}={{type: float, low: 0, high: 1, log: 1}}", f"{X}.log: expected true or false, got 1"),
    (f"{X}={{type: float, low: 0, high: 1, step: x}}", f"{X}.step: expected a number, got 'x'"),
    ("collect.n_samples=64.0", "collect.n_samples: expected an integer, got 64.0"),
    ("collect.n_samples=1e2", "collect.n_samples: expected an integer, got 100.0"),
    ("collect.n_samples=true", "collect.n_samples: expected an integer, got True"),
    ("collect.n_samples='64'", "collect.n_samples: expected an integer, got '64'"),
    ("fit.surrogate=rbf", "fit.surrogate: expected a mapping, got 'rbf'"),
    ("fit.surrogate.n_starts=2.0", "fit.surrogate.n_starts: expected an integer, got 2.0"),
    ("gates.min_r2=high", "gates.min_r2: expected a number, got 'high'"),
    ("tune.space=[kernel]", "tune.space: expected a mapping, got ['kernel']"),
    (f"{GRID}.kernel=rbf", f"{GRID}.kernel: expected a list, or a range such as {{type: int, ...}}, got 'rbf'"),
    (f"{GRID}.kernel=null", f"{GRID}.kernel: expected a list, or a range such as {{type: int, ...}}, got nothing"),
    (f"{GRID}.n_starts={{type: integer, low: 1}}", f"{GRID}.n_starts.type: expected one of fixed, grid, float, int"),
    (f"{GRID}.n_starts={{type: int, low: 0, high: 8}}", f"{GRID}.n_starts: expected an integer >= 1, got 0"),
    (f"{GRID}.n_starts={{type: int, low: 9, high: 8}}", f"{GRID}.n_starts.low: expected at most high = 8, got 9"),
    ("tune.sampler=tp", "tune.sampler: expected one of tpe, gp, cmaes, qmc, random, grid, got 'tp'"),
    ("tune.sampler={n_ei_candidates: 3}", "tune.sampler.kind: expected a name, got nothing"),
    ("tune.sampler={kind: tpe, sigma0: 3}", "tune.sampler.sigma0: expected some of "),
    (
        "tune.pruner=half",
        "tune.pruner: expected one of none, median, successive_halving, hyperband, wilcoxon, got 'half'",
    ),
    ("tune={pruner: median, asynchronous: true}", "tune.pruner: expected none with asynchronous, got median"),
    ("tune.strategy=all", "tune.strategy: expected 'optuna', 'grid' or 'random', got 'all'"),
    (
        "tune.storage=study.db",
        "tune.storage: expected the URL of a database such as sqlite:///study.db, got 'study.db'",
    ),
    ("tune.storage={url: 'sqlite:///x', nam: a}", "tune.storage.nam: unknown key; did you mean name?"),
    ("tune.direction=maximize", "tune.direction: expected minimize but for an objective of your own, got maximize"),
    ("tune.steps=3", "tune.steps: expected 1 but for an objective of your own, got 3"),
    ("execution.n_workers=2.5", "execution.n_workers: expected an integer, got 2.5"),
    # A value out of its range
    ("problem.timeout=.nan", "problem.timeout: expected a finite number, got nan"),
    ("problem.timeout=0", "problem.timeout: expected a number > 0, got 0"),
    ("problem.retries=-1", "problem.retries: expected an integer >= 0, got -1"),
    ("problem.direction=up", "problem.direction: expected 'minimize' or 'maximize', got 'up'"),
    ("problem.space={}", "problem.space: expected at least one variable, got none"),
    (f"{X}={{type: float, low: .nan, high: 1}}", f"{X}.low: expected a finite number, got nan"),
    (f"{X}={{type: float, low: 0, high: .inf}}", f"{X}.high: expected a finite number, got inf"),
    (
        f"{X}={{type: float, low: 1, high: 1}}",
        f"{X}.low: expected a finite number below high, got low 1",
    ),
    (
        f"{X}={{type: float, low: 2, high: 1}}",
        f"{X}.low: expected a finite number below high, got low 2",
    ),
    (f"{X}={{type: float, low: 0, high: 1, log: true}}", f"{X}.low: expected a number above 0 with log: true, got 0"),
    (f"{X}={{type: float, low: 0, high: 1, step: 2}}", f"{X}.step: expected a number in (0, 1], got 2"),
    (f"{X}={{type: integer, low: 3, high: 1}}", f"{X}.low: expected a finite number below high, got low 3"),
    (f"{X}={{type: integer, low: 1, high: 3, step: 0}}", f"{X}.step: expected an integer >= 1"),
    (
        "problem.space.objective={type: float, low: 0, high: 1}",
        "problem.space: expected names other than",
    ),
    ("collect.n_samples=1", "collect.n_samples: expected an integer >= 2, got 1"),
    ("collect.n_samples=9", "collect.n_samples: expected an integer >= 2 * validate.folds = 10, got 9"),
    ("validate.folds=1000", "collect.n_samples: expected an integer >= 2 * validate.folds = 2000, got 64"),
    ("validate.folds=1", "validate.folds: expected an integer >= 2, got 1"),
    ("collect.seed=-1", "collect.seed: expected an integer >= 0, got -1"),
    ("collect.seed=2147483648", "collect.seed: expected an integer < 2147483648, got 2147483648"),
    ("gates.min_coverage_95=1.5", "gates.min_coverage_95: expected a number <= 1, got 1.5"),
    ("gates.min_coverage_95=.nan", "gates.min_coverage_95: expected a finite number, got nan"),
    ("gates.min_r2=.nan", "gates.min_r2: expected a finite number, got nan"),
    ("gates.on_fail=ignore", "gates.on_fail: expected 'warn' or 'stop', got 'ignore'"),
    ("validate.gradient_evaluations=-1", "validate.gradient_evaluations: expected an integer >= 0, got -1"),
    ("validate.recalibrate=1", "validate.recalibrate: expected true or false, got 1"),
    ("optimize.rounds=0", "optimize.rounds: expected an integer >= 1, got 0"),
    ("optimize.n_starts=513", "optimize.n_starts: expected an integer <= 512, got 513"),
    ("optimize.evaluations_per_round=0", "optimize.evaluations_per_round: expected an integer >= 1, got 0"),
    ("execution.n_workers=0", "execution.n_workers: expected an integer >= 1, got 0"),
    ("execution.cache_mb=0", "execution.cache_mb: expected a number > 0, got 0"),
    # Whole numbers beyond what a digest and a file can hold
    ("problem.version=99999999999999999999", "problem.version: expected"),
    ("fit.surrogate.max_iterations=99999999999999999999", "fit.surrogate.max_iterations: expected"),
    ("tune.space={n_starts: [99999999999999999999]}", "tune.space.n_starts: expected"),
    # A kind that is not known
    (
        "collect.sampling=halton",
        "collect.sampling: expected 'sobol', 'latin_hypercube', 'random' or 'grid', got 'halton'",
    ),
    ("fit.surrogate.kind=oracle", "fit.surrogate.kind: expected one of gaussian_process"),
    ("fit.surrogate.kind=null", "fit.surrogate.kind: expected one of gaussian_process"),
    ("fit.surrogate.kind=[1]", "fit.surrogate.kind: expected one of gaussian_process"),
    ("fit.surrogate={kernel: rbf}", "fit.surrogate.kind: expected one of gaussian_process"),
    ("fit.surrogate.kernel=matern53", f"fit.surrogate.kernel: expected {KERNELS}, got 'matern53'"),
    ("fit.surrogate.prior=falt", "fit.surrogate.prior: expected 'dimension_scaled' or 'flat', got 'falt'"),
    ("fit.surrogate.transform=sqrt", "fit.surrogate.transform: expected 'standardize', 'log', 'yeo_johnson' or 'auto'"),
    ("fit.surrogate.fixed=noise_level", "fit.surrogate.fixed: expected a list, got 'noise_level'"),
    ("fit.surrogate.fixed=[noise]", "fit.surrogate.fixed: expected 'length_scale' or 'noise_level', got 'noise'"),
    ("fit.surrogate.length_scale=[a]", "fit.surrogate.length_scale: expected a number, got ['a']"),
    ("fit.surrogate.n_starts=0", "fit.surrogate.n_starts: expected an integer >= 1, got 0"),
    (
        "fit.surrogate.length_scale=20000",
        "fit.surrogate.length_scale: expected a number from 0.005 to 10000, got 20000",
    ),
    ("fit.surrogate.length_scale=.nan", "fit.surrogate.length_scale: expected a finite number, got nan"),
    (f"{X}={{low: 0, high: 1}}", f"{X}.type: expected one of float, integer"),
    (f"{X}={{type: categorical, choices: abc}}", f"{X}.choices: expected a list, got 'abc'"),
    ("problem.constraints=[nowhere]", "problem.constraints[0]: expected numeric variables of the space, got 'nowhere'"),
    (f"{X}={{type: colour, low: 0, high: 1}}", f"{X}.type: expected one of float, integer, categorical, got 'colour'"),
    (
        f"{X}={{type: [float], low: 0, high: 1}}",
        f"{X}.type: expected one of float, integer, categorical, got ['float']",
    ),
    (
        "execution.executor=slurm",
        "execution.executor: expected 'serial', 'threads', 'processes', 'dask' or 'auto', got 'slurm'",
    ),
    (
        "execution.address=tcp://127.0.0.1:8786",
        "execution.address: expected one with executor 'dask' alone, got one with 'processes'",
    ),
    # What to tune
    ("tune.space={}", "tune.space: expected at least one field of fit.surrogate with its values, got none"),
    (f"{GRID}.kernel=[]", f"{GRID}.kernel: expected a list of at least one value, got []"),
    (f"{GRID}.kernel=[rbf, rbf]", f"{GRID}.kernel: expected distinct values, got 'rbf' twice"),
    (f"{GRID}.kernel=[rbf, rbg]", f"{GRID}.kernel: expected {KERNELS}, got 'rbg'"),
    (f"{GRID}.kernel=[[rbf]]", f"{GRID}.kernel: expected {KERNELS}, got ['rbf']"),
    (f"{GRID}.n_starts=[4, 0]", f"{GRID}.n_starts: expected an integer >= 1, got 0"),
    (f"{GRID}.n_starts=[4, 4.0]", f"{GRID}.n_starts: expected an integer, got 4.0"),
    (f"{GRID}.n_starts=[2020-01-01]", f"{GRID}.n_starts[0]: expected a text, a finite number of 64 bits, true"),
    (f"{GRID}.n_starts=[!!set {{a}}]", f"{GRID}.n_starts: expected"),
    ("tune.n_trials=0", "tune.n_trials: expected an integer >= 1, got 0"),
    ("tune.batch=0", "tune.batch: expected an integer >= 1, got 0"),
    ("tune.evaluations=0", "tune.evaluations: expected an integer >= 1, got 0"),
    # An override that is none
    ("collect.seed", "-S: expected section.key=value, got 'collect.seed'"),
    ("=1", "-S: expected section.key=value, got '=1'"),
    ("", "-S: expected section.key=value, got ''"),
    (".seed=1", "-S: expected section.key=value, got '.seed=1'"),
    ("collect..seed=1", "-S: expected section.key=value, got 'collect..seed=1'"),
    ("collect.seed.x=1", "collect.seed.x: expected seed to be a section, got 0"),
    ("collect.seed=[1", "-S collect.seed: expected a YAML value, got '[1'"),
    ("collect.seed={a: 1, a: 2}", "-S collect.seed: expected a YAML value"),
    ("collect.seed=!!python/object:os.system {}", "-S collect.seed: expected a YAML value"),
    ("collect.seed=*a", "-S collect.seed: expected a YAML value"),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_is_one_line_that_names_the_field(override: str, message: str) -> None:
    # A problem.timeout that no other executor could keep, and as many samples as the messages say.
    with pytest.raises(BadInput) as raised:
        load_settings(PARAMS, ["problem.timeout=60", "collect.n_samples=64", override])
    assert message in str(raised.value)
    assert str(raised.value).startswith(message.split(": ")[0])
    assert "\n" not in str(raised.value)
    assert raised.value.exit_status == 2


@pytest.mark.parametrize("executor", ["threads", "serial"])
def test_an_executor_that_cannot_stop_a_call_is_refused_beside_a_timeout(executor: str) -> None:
    stopping = ["problem.timeout=5", f"execution.executor={executor}"]
    with pytest.raises(BadInput, match=r"execution.executor: expected 'processes'.*or set problem.timeout to null"):
        load_settings(PARAMS, stopping)
    assert load_settings(PARAMS, ["problem.timeout=null", stopping[1]]).execution.executor == executor
    assert load_settings(PARAMS, ["problem.timeout=5", "execution.executor=auto"]).execution.executor == "auto"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected sections such as problem: and collect:, got nothing"),
        (b"# nothing yet\n", "expected sections such as problem: and collect:, got nothing"),
        (b"[]", "expected sections such as problem: and collect:, got []"),
        (b"- problem\n- collect\n", "expected sections such as problem: and collect:, got ['problem', 'collect']"),
        (b"problem", "expected sections such as problem: and collect:, got 'problem'"),
        (
            b"problem:\n\tfunction: a:b\n",
            "expected YAML, got found character '\\t' that cannot start any token in line 2",
        ),
        (b"\tproblem: {}\n", "expected YAML, got found character '\\t' that cannot start any token in line 1"),
        (b"problem: {}\nproblem: {}\n", "expected YAML, got found duplicate key"),
        (b"problem: {\n", "expected YAML, got "),
        (b"a: 1\n---\nb: 1\n", "expected YAML, got "),
        (b"problem: *there\n", "expected YAML, got found undefined alias 'there' in line 1"),
        (b"problem: !!python/object:os.system {}\n", "expected YAML, got "),
        (b"problem: \xff\xfe\n", "expected YAML, got "),
        (b"problem: a\x00b\n", "expected YAML, got "),
        (b"a: &a [*a]\n", "expected sections of plain values, got one that is nested too deeply"),
        (b"problem: " + b"[" * 3000, "expected sections of plain values, got one that is nested too deeply"),
    ],
    ids=repr,
)
def test_a_file_that_holds_no_sections_is_told_by_its_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as raised:
        load_settings(path)
    assert str(raised.value).startswith(f"{path}: {message}")
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.yaml: expected a readable settings file, got No such file"):
        load_settings(tmp_path / "nowhere.yaml")
    with pytest.raises(BadInput, match=f"{tmp_path}: expected a readable settings file, got Is a directory"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("space", "designs"),
    [
        (
            "{kernel: [rbf], n_starts: [2, 4]}",
            [{"kind": "gaussian_process", "kernel": "rbf", "n_starts": n} for n in (2, 4)],
        ),
        (
            "{random_forest: {max_depth: [4]}, neural_network: {}}",
            [{"kind": "random_forest", "max_depth": 4}, {"kind": "neural_network"}],
        ),
        (
            "{gaussian_process: {n_starts: {type: int, low: 2, high: 4, step: 2}, prior: {type: fixed, value: flat}}}",
            [{"kind": "gaussian_process", "n_starts": n, "prior": "flat"} for n in (2, 4)],
        ),
    ],
)
def test_a_tuned_space_is_of_the_champions_kind_or_of_several(space: str, designs: list[dict[str, Any]]) -> None:
    assert list(load_settings(PARAMS, [f"tune.space={space}"]).tune_space.expand()) == designs


def test_without_a_space_all_kinds_are_tuned_each_by_its_own_fields() -> None:
    designs = list(load_settings(PARAMS, ["tune.space=null"]).tune_space.expand())
    kinds = [kind for kind in SURROGATES if kind != "auto"]
    assert list(dict.fromkeys(design["kind"] for design in designs)) == kinds
    for kind in kinds:
        of_kind = [design for design in designs if design["kind"] == kind]
        assert all(set(design) == {"kind", *SURROGATES[kind].searched} for design in of_kind)
        assert len(of_kind) == math.prod(len(values) for values in SURROGATES[kind].searched.values())
    one = list(load_settings(PARAMS, ["tune.space={random_forest: null}"]).tune_space.expand())
    assert one == [design for design in designs if design["kind"] == "random_forest"]


def test_the_champion_is_tried_first_where_the_space_has_it() -> None:
    settings = load_settings(PARAMS)
    own = settings.tune.own_design(settings.fit.spec)
    assert own == {
        "kind": "gaussian_process",
        **{name: getattr(settings.fit.spec, name) for name in list(own or {})[1:]},
    }
    for space in ("{random_forest: null}", "{gaussian_process: {n_starts: [3]}}"):
        other = load_settings(PARAMS, [f"tune.space={space}"])
        assert other.tune.own_design(other.fit.spec) is None


def test_the_environment_gives_the_seed_of_tuning_where_the_file_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURROGATE_RANDOM_SEED", "7")
    assert load_settings(PARAMS).tune.seed == 0
    assert load_settings(PARAMS, ["tune.seed=null"]).tune.seed == 7
    monkeypatch.setenv("SURROGATE_RANDOM_SEED", "x")
    with pytest.raises(BadInput, match=r"^SURROGATE_RANDOM_SEED: expected an integer from 0 to 2147483647, got 'x'"):
        load_settings(PARAMS, ["tune.seed=null"])


def test_a_trial_run_is_short_and_its_settings_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_settings(PARAMS)
    monkeypatch.setenv("SURROGATE_FAST", "1")
    short = load_settings(PARAMS)
    assert (short.collect.n_samples, short.validate.folds, short.optimize.rounds) == (16, 3, 2)
    assert (short.tune.n_trials, short.tune.evaluations, short.validate.learning_curve) == (4, 2, False)
    assert short.digest != whole.digest
    assert load_settings(PARAMS, ["tune.n_trials=2"]).tune.n_trials == 2
    monkeypatch.setenv("SURROGATE_FAST", "0")
    assert load_settings(PARAMS) == whole


words = st.text(st.characters(categories=["L", "N", "P"]), max_size=5)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.integers() | st.none(), inner, max_size=3),
    max_leaves=4,
)
OWN: dict[str, Any] = YAML(typ="safe", pure=True).load(PARAMS.read_text())


def paths(section: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    deeper = [paths(value, (*at, key)) for key, value in section.items()] if isinstance(section, dict) else []
    return [at, *(path for found in deeper for path in found)] if at else [path for found in deeper for path in found]


@given(st.sampled_from(paths(OWN)), plain)
def test_whatever_is_written_anywhere_is_taken_or_told_in_one_line(path: tuple[str, ...], value: Any) -> None:
    content = YAML(typ="safe", pure=True).load(PARAMS.read_text())
    section = content
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    try:
        told = parse_settings(content).digest
    except BadInput as error:
        told = str(error)
    assert len(told.splitlines()) == 1


# The digest


def leaves(section: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(section, dict):
        return {at: section}
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= leaves(value, f"{at}.{key}" if at else key)
    return found


OTHER: dict[str, str] = {
    "problem.function": "a:b",
    "problem.source": "a.py",
    "problem.version": "another",
    "problem.direction": "maximize",
    "problem.timeout": "59",
    "collect.sampling": "random",
    "fit.surrogate.kernel": "matern12",
    "fit.surrogate.prior": "flat",
    "fit.surrogate.transform": "log",
    "validate.recalibrate": "false",
    "validate.learning_curve": "false",
    "gates.on_fail": "stop",
    "gates.trust": "supported",
    "gates.min_r2": "0.25",
    "gates.min_coverage_95": "0.25",
    "optimize.optimizer.kind": "trust_region",
    "optimize.goal": "cautious",
    "optimize.kappa": "2",
    "tune.space.gaussian_process.kernel": "[rbf]",
    "tune.space.gaussian_process.prior": "[flat]",
    "tune.space.gaussian_process.transform": "[log]",
    "tune.space.gaussian_process.n_starts": "[4]",
    "tune.strategy": "random",
    "tune.sampler": "qmc",
    "tune.pruner": "median",
    "tune.asynchronous": "true",
    "tune.patience": "5",
    "tune.time_budget": "60",
    "tune.allow_resume": "false",
    "tune.guard": "tried.db",
    "tune.storage": "sqlite:///study.db",
    "execution.executor": "threads",
    "execution.n_workers": "7",
    "fit.memory_budget_mb": "2000",
    "execution.address": "tcp://127.0.0.1:8786",
    "report.figure": "null",
}


@pytest.mark.parametrize("path", [path for path in leaves(OWN) if path != "fit.surrogate.kind" and ".type" not in path])
def test_the_digest_changes_with_everything_but_how_it_is_executed_and_shown(path: str) -> None:
    value = OTHER[path] if path in OTHER else str(leaves(OWN)[path] + 1)
    needed = {
        "execution.executor": ["problem.timeout=null"],
        "execution.address": ["execution.executor=dask"],
        "optimize.kappa": ["optimize.goal=cautious"],
    }
    base = needed.get(path, [])
    before = load_settings(PARAMS, base)
    after = load_settings(PARAMS, [*base, f"{path}={value}"])
    assert asdict(after) != asdict(before)
    assert (after.digest == before.digest) == path.startswith(("execution.", "report."))


def test_a_gate_that_is_switched_off_is_none() -> None:
    digests = {load_settings(PARAMS, [f"gates={given}"]).digest for given in ("{}", "{on_fail: warn, max_mae: null}")}
    assert len(digests) == 1
    assert load_settings(PARAMS, ["gates.max_mae=1"]).digest not in digests


def test_the_digest_does_not_depend_on_the_file_or_its_order(tmp_path: Path) -> None:
    shuffled = tmp_path / "other.yaml"
    shuffled.write_bytes(orjson.dumps(dict(reversed(OWN.items()))))  # JSON is YAML
    assert load_settings(shuffled).digest == load_settings(PARAMS).digest


@pytest.mark.parametrize("path", ["problem.space", "tune.space.gaussian_process"])
def test_the_order_within_a_space_counts_for_it_is_that_of_the_design(path: str) -> None:
    """Columns of a Sobol sequence go to variables in their order, and the sampler of specs draws in it."""
    turned = orjson.loads(orjson.dumps(OWN))
    *outer, last = path.split(".")
    within = turned
    for name in outer:
        within = within[name]
    within[last] = dict(reversed(within[last].items()))
    assert parse_settings(turned).digest != parse_settings(OWN).digest


def test_a_subset_is_what_stands_at_the_paths() -> None:
    settings: Settings = load_settings(PARAMS, ["gates.min_r2=0.25"])
    found = settings.subset(["collect", "gates.min_r2", "fit.surrogate.kernel"])
    assert found == {
        "collect": asdict(settings.collect),
        "gates.min_r2": 0.25,
        "fit.surrogate.kernel": settings.fit.surrogate["kernel"],
    }


# dvc.yaml

DVC = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
CODE = ["surrogate_core", "tasks", "requirements.lock"]


def test_dvc_has_the_stages_in_their_order() -> None:
    assert list(DVC) == list(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_the_same_for_dvc_and_for_the_cache(name: str) -> None:
    stage, theirs = STAGES[name], DVC[name]
    black_box = ["${problem.source}"] if stage.calls_black_box else []
    assert sorted(theirs["deps"]) == sorted([*CODE, *black_box, *stage.deps])
    assert theirs["params"] == list(stage.params)
    metrics = [path for entry in theirs.get("metrics", []) for path in entry]
    assert sorted([*theirs.get("outs", []), *metrics]) == sorted(stage.outs)
    assert all(options == {"cache": True} for entry in theirs.get("metrics", []) for options in entry.values())
    assert theirs["cmd"].endswith(f"-m flows {name}")
    assert '"$DVC_ROOT/.venv/bin/python"' in theirs["cmd"]
    assert set(theirs) <= {"desc", "cmd", "deps", "params", "outs", "metrics"}


def test_a_file_is_written_by_one_stage_and_read_by_later_ones() -> None:
    written: list[str] = []
    for stage in STAGES.values():
        assert set(stage.deps) <= set(written)
        assert not set(stage.outs) & set(written)
        written.extend(stage.outs)


def test_every_parameter_that_a_stage_reads_is_in_the_settings() -> None:
    settings = load_settings(PARAMS)
    for stage in STAGES.values():
        assert set(settings.subset(stage.params)) == set(stage.params)
        assert not any(path.startswith("execution") for path in stage.params)
