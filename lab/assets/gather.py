"""All programs together: each is looked for, and built where it is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.assets.build import Progress, build
from lab.assets.cache import cache_directory
from lab.assets.debian import unpack
from lab.assets.found import Found, PassedOver, Source, look_for, version_of
from lab.assets.pinned import CONTROL_PLANE, DebianPackage, PinnedRelease, Program
from lab.errors import UnusableError

MadeFrom = PinnedRelease | DebianPackage


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
    wanted: Sequence[MadeFrom] = CONTROL_PLANE,
) -> Assets:
    """Have every wanted program; ``progress`` is told what takes long. Raises ``UnusableError``: one cannot be had.

    The first time takes minutes (a build); afterwards as long as it takes those on ``PATH`` to say their version.
    """
    given = os.environ if environment is None else environment
    cache = cache_directory(given)
    programs, passed_over = _search(given, cache, wanted)
    for each in wanted:
        missing = [program for program in each.programs if program not in programs]
        if missing:
            directory, source = _make(each, cache, given, progress)
            programs |= _programs_in(directory, each, missing, source)
    return Assets(programs, tuple(passed_over))


def _make(each: MadeFrom, cache: Path, environment: Mapping[str, str], progress: Progress) -> tuple[Path, Source]:
    if isinstance(each, PinnedRelease):
        directory, made = build(each, cache, environment, progress)
        return directory, "built" if made else "cache"
    directory, made = unpack(each, cache, environment, progress)
    return directory, "fetched" if made else "cache"


def find(environment: Mapping[str, str] | None = None, *, wanted: Sequence[MadeFrom] = CONTROL_PLANE) -> Assets | None:
    """Every wanted program where nothing has to be made for it; None: ``gather`` would build or fetch."""
    given = os.environ if environment is None else environment
    programs, passed_over = _search(given, cache_directory(given), wanted)
    if any(program not in programs for each in wanted for program in each.programs):
        return None
    return Assets(programs, tuple(passed_over))


def _search(
    environment: Mapping[str, str], cache: Path, wanted: Sequence[MadeFrom]
) -> tuple[dict[Program, Found], list[PassedOver]]:
    """What there is, and what was passed over."""
    programs: dict[Program, Found] = {}
    passed_over: list[PassedOver] = []
    for each in wanted:
        for program in each.programs:
            for seen in look_for(program, environment):
                if isinstance(seen, Found):
                    programs[program] = seen
                else:
                    passed_over.append(seen)
        missing = [program for program in each.programs if program not in programs]
        directory = cache / each.cache_name
        if missing and directory.is_dir():
            programs |= _programs_in(directory, each, missing, "cache")
    return programs, passed_over


def _programs_in(directory: Path, each: MadeFrom, programs: Sequence[Program], source: Source) -> dict[Program, Found]:
    def version(program: Program, path: Path) -> str:
        try:
            return each.version if isinstance(each, PinnedRelease) else version_of(program, path)
        except ValueError as error:
            raise UnusableError(f"{path}: {error}; remove {directory}") from error

    paths = {program: directory / program for program in programs}
    return {program: Found(program, path, version(program, path), source) for program, path in paths.items()}
