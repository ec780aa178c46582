"""Which build this is: what an image is told when it is made, and what a checkout knows of itself."""

from __future__ import annotations

import os
from typing import NamedTuple

VERSION = "0.1.0"
"""Of this source. An image may be told a longer one, such as a release candidate's."""


class Build(NamedTuple):
    version: str
    commit: str
    """The source's, as Git names it; ``unknown`` outside an image."""


def this_build() -> Build:
    return Build(os.environ.get("BERTHLB_VERSION") or VERSION, os.environ.get("BERTHLB_COMMIT") or "unknown")
