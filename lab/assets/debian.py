"""Unpacking a Debian package's programs into the cache.

``apt-get`` fetches the package and compares it with its signed list. It is not installed: a package of a server would
also start that server, and installing takes root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.assets.build import Progress
from lab.assets.cache import make_once
from lab.assets.pinned import DebianPackage
from lab.errors import UnusableError


def unpack(
    package: DebianPackage, cache: Path, environment: Mapping[str, str], progress: Progress
) -> tuple[Path, bool]:
    """The directory of a package's programs, and whether it had to be fetched. Raises ``UnusableError``."""

    def make(directory: Path, lock: int) -> None:
        progress(f"fetching Debian's package {package.name}")
        whole = directory / "whole"
        whole.mkdir()
        try:
            fetch = ["apt-get", "download", "--quiet", "--quiet", package.name]
            try:
                _run(fetch, whole, environment, lock)
            except subprocess.CalledProcessError:  # the lists may be old, or not there at all
                _run(["apt-get", "update", "--quiet", "--quiet"], whole, environment, lock)
                _run(fetch, whole, environment, lock)
            (archive,) = whole.glob("*.deb")
            _run(["dpkg-deb", "--extract", str(archive), str(whole)], whole, environment, lock)
            for program in package.programs:
                shutil.move(whole / "usr/bin" / program, directory / program)
        except (OSError, ValueError) as error:
            raise UnusableError(f"{_names(package)}: not on PATH, and {error}") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise UnusableError(f"{_names(package)}: not on PATH, and {error.cmd[0]} failed: {said[0]}") from error
        shutil.rmtree(whole)

    return make_once(cache, package.cache_name, make, progress)


def _names(package: DebianPackage) -> str:
    return " and ".join(package.programs)


def _run(argv: list[str], directory: Path, environment: Mapping[str, str], lock: int) -> None:
    program = shutil.which(argv[0], path=environment.get("PATH", os.defpath))
    if program is None:
        raise FileNotFoundError(f"there is no {argv[0]} to fetch Debian's package with")
    subprocess.run(
        [program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=directory,
        env=dict(environment),
        pass_fds=(lock,),
        check=True,
    )
