"""``python -m controller``."""

from __future__ import annotations

from typing import NoReturn

from cluster.daemon.starting import begin


def main() -> NoReturn:
    begin()

    from controller.daemon.start import run  # noqa: PLC0415  # takes a fifth of a second of CPU to import

    run()


if __name__ == "__main__":
    main()
