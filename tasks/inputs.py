"""What a run starts from, digested before it is used: an edit made while the run works is found, and never mixed in."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import surrogate_core
import tasks


@dataclass(frozen=True)
class Inputs:
    """Digests of the sources that a process runs and of the files that say what it does."""

    code: str
    pipeline: str

    @classmethod
    def now(cls, root: Path) -> "Inputs":
        """Of what is on disk; to be called before the sources are imported and params.yaml is read."""
        files = [root / name for name in ("params.yaml", "dvc.yaml")]
        content = b"\0".join(path.read_bytes() if path.is_file() else b"" for path in files)
        return cls(code_digest(root), hashlib.sha256(content).hexdigest())


def code_digest(root: Path) -> str:
    """Digest of the sources of `surrogate_core` and `tasks`, and of the libraries' versions."""
    digest = hashlib.sha256()
    for package in (surrogate_core, tasks):
        folder = Path(next(iter(package.__path__)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0" + path.read_bytes())
    lock = root / "requirements.lock"
    if lock.is_file():
        digest.update(lock.read_bytes())
    else:  # a workspace beside an installed package: what numerics came with it
        libraries = ("jax", "jaxlib", "numpy", "optax", "optuna", "scikit-learn", "scipy")
        digest.update(repr([(name, version(name)) for name in libraries]).encode())
    return digest.hexdigest()
