"""All programs together: looked for, and built where that is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.assets.build import build
from lab.assets.cache import cache_directory
from lab.assets.found import Found, PassedOver, Source, look_for
from lab.assets.pinned import RELEASES, Program, Release


@dataclass(frozen=True)
class Assets:
    """Every program, and what was passed over on the way."""

    programs: Mapping[Program, Found]
    passed_over: tuple[PassedOver, ...]

    def path(self, program: Program) -> Path:
        return self.programs[program].path


def gather(
    progress: Callable[[str], None] = lambda _: None,
    *,
    environment: Mapping[str, str] | None = None,
    releases: Sequence[Release] = RELEASES,
) -> Assets:
    """Have every program; ``progress`` is told what takes long. Raises ``UnusableError`` where one cannot be had.

    The first time takes minutes (a build); afterwards as long as it takes those on ``PATH`` to say their version.
    """
    given = os.environ if environment is None else environment
    cache = cache_directory(given)
    programs, passed_over = _search(given, cache, releases)
    for release in releases:
        missing = [program for program in release.packages if program not in programs]
        if missing:
            directory, built = build(release, cache, given, progress)
            programs |= _programs_in(directory, release, missing, "built" if built else "cache")
    return Assets(programs, tuple(passed_over))


def find(environment: Mapping[str, str] | None = None) -> Assets | None:
    """Every program where nothing has to be built for it; None: ``gather`` would build."""
    given = os.environ if environment is None else environment
    programs, passed_over = _search(given, cache_directory(given), RELEASES)
    if any(program not in programs for release in RELEASES for program in release.packages):
        return None
    return Assets(programs, tuple(passed_over))


def _search(
    environment: Mapping[str, str], cache: Path, releases: Sequence[Release]
) -> tuple[dict[Program, Found], list[PassedOver]]:
    """What there is, and what was passed over."""
    programs: dict[Program, Found] = {}
    passed_over: list[PassedOver] = []
    for release in releases:
        for program in release.packages:
            for each in look_for(program, environment):
                if isinstance(each, Found):
                    programs[program] = each
                else:
                    passed_over.append(each)
        missing = [program for program in release.packages if program not in programs]
        directory = cache / release.cache_name
        if missing and directory.is_dir():
            programs |= _programs_in(directory, release, missing, "cache")
    return programs, passed_over


def _programs_in(
    directory: Path, release: Release, programs: Sequence[Program], source: Source
) -> dict[Program, Found]:
    return {program: Found(program, directory / program, release.version, source) for program in programs}
