"""Who we are and where the API is: a kubeconfig or a pod's service account, read by the official client.

The official package is imported in parts. Its ``__init__`` modules import every API group's plumbing, websockets, OAuth
and pydantic: 0.60 CPU seconds and 42 MiB. What a daemon in a pod needs of it (configuration, TLS, transport, the
service account) takes 0.13 s and 24 MiB, most of that urllib3 and ssl. Reading a kubeconfig needs OAuth and pydantic
again (0.55 s, 38 MiB), so that module is imported only when there is a kubeconfig to read. (kubernetes 37.0.2, Python
3.11.)

What the official package keeps, it keeps for the whole process: its modules, and the files into which it puts
certificates. So of several threads one at a time is in it.
"""

from __future__ import annotations

import importlib.util
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cluster.api.errors import ClientConfigError, Unauthorized
from cluster.times import LONG_AGO

REFRESH_S = 10.0
"""Seconds for which a token is sent without asking whether there is a newer one."""


_OFFICIAL = threading.RLock()
"""Held by who imports parts of the official package, or lets it read credentials."""


@contextmanager
def bare_packages(*names: str) -> Iterator[None]:
    """While this lasts, the named packages can be imported from, but their ``__init__`` does not run.

    Afterwards the packages are forgotten, not what was imported from them: an ``import kubernetes`` elsewhere runs the
    real ``__init__`` and finds the same modules. That import must not be in another thread meanwhile.
    """
    with _OFFICIAL:
        added = [name for name in names if name not in sys.modules]
        for name in added:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise ModuleNotFoundError(f"the package {name} is not installed", name=name)
            sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            yield
        finally:
            for name in added:
                del sys.modules[name]


with bare_packages("kubernetes", "kubernetes.config"):
    from kubernetes.client.configuration import Configuration
    from kubernetes.config import incluster_config
    from kubernetes.config.config_exception import ConfigException


def load(kubeconfig: Path | None) -> Any:
    """The official client's ``Configuration`` for a kubeconfig, or with None for the pod that we run in.

    Tokens that expire are refreshed by the official client's hook, asked every ten seconds: a service account's file is
    read again every minute, an exec plugin is run again. A kubeconfig's token file it would read once; here it is read
    again too. From any thread. Raises ``ClientConfigError``.
    """
    configuration = Configuration(host="")
    if kubeconfig is None:
        try:
            incluster_config.load_incluster_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise ClientConfigError(f"not in a cluster, and no --kubeconfig given: {error}") from error
        source = "the pod's service account"
    else:
        _load_kubeconfig(kubeconfig, configuration)
        source = str(kubeconfig)
    _check_certificates(configuration, source)
    return configuration


class Authorization:
    """The Authorization header of a ``Configuration``, which is asked for it every ``REFRESH_S`` seconds, and after a
    failure each time: it refreshes its token first, and for that the official hooks go through the whole environment,
    a third of a request's CPU."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self._header: str | None = None
        self._asked_at = LONG_AGO

    def header(self) -> str | None:
        """What to send now; None where a certificate says who we are. From any thread.

        Raises ``Unauthorized`` when a token file that was there at the start cannot be read any more.
        """
        if self._is_due():
            with _OFFICIAL:
                if self._is_due():  # else another thread has just asked
                    self._ask()
        return self._header

    def _is_due(self) -> bool:
        return time.monotonic() >= self._asked_at + REFRESH_S

    def _ask(self) -> None:
        now = time.monotonic()
        try:
            token: str | None = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        except (ConfigException, OSError) as error:
            raise Unauthorized(0, "NoCredentials", f"the token cannot be refreshed: {error}") from error
        self._header = token.strip() if token else None
        self._asked_at = now


def _load_kubeconfig(path: Path, configuration: Any) -> None:
    """Fill in ``configuration``. Whatever is wrong becomes one line; the official loader's own exceptions vary."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ClientConfigError(f"kubeconfig {path}: {reason}") from error
    except yaml.YAMLError as error:
        raise ClientConfigError(f"kubeconfig {path}: not YAML{_place(error)}") from None  # its text quotes the file
    if not isinstance(document, dict):
        raise ClientConfigError(f"kubeconfig {path}: expected a mapping with clusters, contexts and users")

    with bare_packages("kubernetes", "kubernetes.config"):
        from kubernetes.config.kube_config import load_kube_config  # noqa: PLC0415 -- see the module's docstring
    try:
        with _OFFICIAL:
            load_kube_config(config_file=str(path), client_configuration=configuration, persist_config=False)
        user = _current_user(document)
        runs_plugin = "exec" in user
    except (ConfigException, OSError) as error:
        said = re.sub(r"\{.*\}", "{…}", str(error), flags=re.DOTALL)  # it quotes whole entries, tokens included
        raise ClientConfigError(f"kubeconfig {path}: {said}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # how the loader meets a wrong shape
        raise ClientConfigError(f"kubeconfig {path}: not the shape of a kubeconfig: {error!r}") from error

    if user.get("tokenFile"):
        configuration.refresh_api_key_hook = _token_file(path.parent / user["tokenFile"])
    if not configuration.host:
        raise ClientConfigError(f"kubeconfig {path}: the cluster of the current context has no server")
    if runs_plugin and not configuration.api_key and not configuration.cert_file:
        raise ClientConfigError(f"kubeconfig {path}: the exec plugin gave no credentials (its error is in the log)")


def _token_file(path: Path) -> Callable[[Any], None]:
    """A hook that puts the token of a file into a ``Configuration``; whoever gave us the file renews it."""

    def read(configuration: Any) -> None:
        token = path.read_text().strip()
        if not token:
            raise ConfigException(f"{path} is empty")
        configuration.api_key["BearerToken"] = f"Bearer {token}"

    return read


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f": {getattr(error, 'problem', '')}, line {mark.line + 1}" if mark else ""


def _current_user(document: dict[str, Any]) -> dict[str, Any]:
    """The user entry of the current context, empty if it names none."""
    contexts = {entry["name"]: entry["context"] for entry in document["contexts"]}
    users = {entry["name"]: entry["user"] for entry in document.get("users") or ()}
    return users.get(contexts[document["current-context"]].get("user")) or {}


def _check_certificates(configuration: Any, source: str) -> None:
    """Find an unreadable certificate now, in one line; the transport would find it at every request."""
    if not configuration.host.startswith("https"):
        return
    try:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    except (OSError, ssl.SSLError) as error:
        raise ClientConfigError(f"{source}: the cluster's certificate authority cannot be read: {error}") from error
    if configuration.cert_file:
        try:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ClientConfigError(f"{source}: the client's certificate or key cannot be read: {error}") from error
