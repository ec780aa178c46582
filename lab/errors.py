"""What a lab refuses or fails at, in words for the person or test that drives it."""

from __future__ import annotations


class LabError(Exception):
    """It cannot be done; the message is one line that says why, and what to do where something can be done."""


class UnusableError(LabError):
    """This machine cannot run a lab as it is: a program is missing, or namespaces are refused."""


class FailedError(LabError):
    """The lab is not as it was asked to be: what was asked for was possible, and did not come about."""
