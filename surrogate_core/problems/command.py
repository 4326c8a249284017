"""A black box that is a program: parameters as JSON on its standard input, its result as JSON on standard output."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

MOST_OUTPUT = 1_000_000
"""Bytes of standard output beyond which a program is stopped; of standard error so many of the last are kept."""

_LINGER = 1.0  # seconds for more output after a program's end: what it leaves behind may hold the pipes for ever


class CommandFailed(RuntimeError):
    """A program gave no result; the message ends with what it said on standard error."""


@dataclass(frozen=True)
class Command:
    """A program and its arguments, run without a shell.

    Args:
        words: the program, found in `root` where it has a slash, else on the PATH; then its arguments.
        root: where it runs; it is told by SURROGATE_ROOT.
        folders: below which each evaluation gets a working folder of its own, which stays, instead of `root`.
    """

    words: tuple[str, ...]
    root: str
    folders: str | None = None

    def __call__(self, params: Mapping[str, Any]) -> Any:
        asked = orjson.dumps(dict(params))
        folder = self.root
        if self.folders is not None:
            Path(self.folders).mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(dir=self.folders, prefix=hashlib.sha256(asked).hexdigest()[:12] + "-")
            Path(folder, "parameters.json").write_bytes(asked)
        status, out, said = self._run(asked, folder)
        last = _end(" ".join(said.decode(errors="replace").split()))
        if len(out) > MOST_OUTPUT:
            raise CommandFailed(f"expected one JSON value on standard output, got over {MOST_OUTPUT} bytes; {last}")
        if status:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise CommandFailed(f"{how}: {last or 'nothing on standard error'}")
        try:
            return orjson.loads(out)
        except ValueError as error:
            text = out.decode(errors="replace").strip()
            got = repr(text[:60]) + "..." * (len(text) > 60) if text else "nothing"
            told = f"; {last}" if last else ""
            raise CommandFailed(f"expected one JSON value on standard output, got {got}{told}") from error

    def check(self) -> None:
        """Finds out whether the program can be started.

        Raises:
            ValueError: it is not there, or not executable.
        """
        self._program()

    def _program(self) -> str:
        word = self.words[0]
        if "/" not in word:
            found = shutil.which(word) or (sys.executable if word in ("python", "python3") else None)
            if found is None:
                raise ValueError(f"expected a program on the PATH, got {word!r}; ./{word} is one in this folder")
            return found
        path = Path(self.root, word)
        if not path.is_file():
            raise ValueError(f"expected a program, got {word!r}, which is not there")
        if not os.access(path, os.X_OK):
            raise ValueError(
                f"expected a program, got {word!r}, which is not executable; chmod +x it, or name its interpreter first"
            )
        return str(path.absolute())

    def _run(self, asked: bytes, folder: str) -> tuple[int, bytes, bytes]:
        environment = {**os.environ, "SURROGATE_ROOT": self.root}
        words = [self._program(), *(self._placed(word, folder) for word in self.words[1:])]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, env=environment)
        except OSError as error:
            raise CommandFailed(f"{self.words[0]} cannot be started: {error.strerror}; has it a line #!...?") from error
        assert process.stdin is not None
        out, said = bytearray(), bytearray()
        listeners = [
            threading.Thread(target=listen, args=(process, kept), daemon=True)
            for listen, kept in ((_keep_first, out), (_keep_last, said))
        ]
        try:
            for listener in listeners:
                listener.start()
            with suppress(BrokenPipeError), process.stdin:  # it need not read
                process.stdin.write(asked)
            process.wait()
        finally:
            process.kill()  # after Ctrl-C; where it has ended, nothing happens
            process.wait()
        deadline = time.monotonic() + _LINGER
        for listener in listeners:
            listener.join(max(0.0, deadline - time.monotonic()))
        return process.returncode, bytes(out), bytes(said)

    def _placed(self, word: str, folder: str) -> str:
        """An argument that names a file of the root, as it is named from the folder where the program runs."""
        inside = folder != self.root and not os.path.isabs(word) and os.path.isfile(Path(self.root, word))
        return str(Path(self.root, word).absolute()) if inside else word


def _end(text: str, most: int = 200) -> str:
    """The end of a text, after dots where the rest is left out."""
    return text if len(text) <= most else "..." + text[-most:]


def _keep_first(process: "subprocess.Popen[bytes]", out: bytearray) -> None:
    """Gathers standard output, and stops a program that says too much."""
    assert process.stdout is not None
    with process.stdout as stream:
        while len(out) <= MOST_OUTPUT and (chunk := os.read(stream.fileno(), 65536)):
            out += chunk
    if len(out) > MOST_OUTPUT:
        process.kill()


def _keep_last(process: "subprocess.Popen[bytes]", said: bytearray) -> None:
    """Gathers the end of standard error."""
    assert process.stderr is not None
    with process.stderr as stream:
        while chunk := os.read(stream.fileno(), 65536):
            said[:] = (said + chunk)[-2000:]
