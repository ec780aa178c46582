"""Certificates, keys, tokens and kubeconfigs of the real control plane, made anew for every lab.

openssl makes the certificate authority, the API server's certificate and the key that signs ServiceAccount tokens.
People and Kubernetes' own components have a bearer token each, of the user that Kubernetes' default roles are bound to.
Our daemons have their ServiceAccounts' tokens and the authority in files, as pods have them; a file that is written
anew is read anew.
"""

from __future__ import annotations

import base64
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import msgspec

from lab.control.messages import Spec
from lab.controlplane import audit
from lab.errors import UnusableError
from lab.layout import API_PORT, Layout, url_host

AUTHORITY = "ca.crt"
AUTHORITY_KEY = "ca.key"
OPENSSL_CONFIG = "openssl.cnf"
API_SERVER_CERTIFICATE = "apiserver.crt"
API_SERVER_KEY = "apiserver.key"
SERVICE_ACCOUNT_KEY = "service-account.key"
SERVICE_ACCOUNT_PUBLIC_KEY = "service-account.pub"
TOKENS = "tokens.csv"
AUDIT_POLICY = "audit.yaml"
VALID_DAYS = "3650"
OPENSSL_S = 20.0

ADMIN = "admin"
USERS = {  # and the groups that they are in
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-proxy": "",
}

CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""
DAEMONS = ("berthlb-controller", "berthlb-speaker")
"""Our daemons' ServiceAccounts, and the names of their kubeconfigs."""
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
NEW_CERTIFICATE = ("req", "-x509", "-config", OPENSSL_CONFIG, "-days", VALID_DAYS, *NEW_KEY)


def credentials_directory(spec: Spec) -> Path:
    return Path(spec.directory, "credentials")


def kubeconfig_of(spec: Spec, component: str) -> Path:
    """The kubeconfig of a component that runs on the lab's hosts."""
    return credentials_directory(spec) / f"{component}.kubeconfig"


def token_file_of(spec: Spec, account: str) -> Path:
    """Where a daemon finds the token of its ServiceAccount."""
    return credentials_directory(spec) / f"{account}.token"


def make_credentials(spec: Spec) -> None:
    """Write everything: the credentials' directory, and the lab's two kubeconfigs. Raises ``UnusableError``."""
    directory = credentials_directory(spec)
    directory.mkdir(mode=0o700)
    _make_certificates(directory, spec.layout)
    tokens = {user: secrets.token_urlsafe(32) for user in USERS}
    lines = [f'{tokens[user]},{user},{user},"{groups}"\n' for user, groups in USERS.items()]
    (directory / TOKENS).touch(mode=0o600)
    (directory / TOKENS).write_text("".join(lines))
    audit.write_policy(directory / AUDIT_POLICY, DAEMONS)
    authority = {"certificate-authority-data": base64.b64encode((directory / AUTHORITY).read_bytes()).decode()}
    outside = f"https://127.0.0.1:{spec.api_port}"
    inside = f"https://{url_host(spec.layout.control_plane.address)}:{API_PORT}"
    for path, server, user in (
        (Path(spec.directory, "kubeconfig"), outside, ADMIN),
        (Path(spec.directory, "kubeconfig-inside"), inside, ADMIN),
        (kubeconfig_of(spec, "kube-controller-manager"), inside, "system:kube-controller-manager"),
        (kubeconfig_of(spec, "kube-proxy"), inside, "system:kube-proxy"),
    ):
        write_kubeconfig(path, spec.name, {"server": server, **authority}, {"token": tokens[user]})
    for account in DAEMONS:
        cluster = {"server": inside, "certificate-authority": str(directory / AUTHORITY)}
        user_entry = {"tokenFile": str(token_file_of(spec, account))}
        write_kubeconfig(kubeconfig_of(spec, account), spec.name, cluster, user_entry)


def write_kubeconfig(path: Path, name: str, cluster: Mapping[str, str], user: Mapping[str, str]) -> None:
    """Write a kubeconfig of one cluster and one user, as JSON, which is YAML. The user may be empty."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))


def _make_certificates(directory: Path, layout: Layout) -> None:
    host = layout.control_plane
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", host.name]
    services = (str(ip_network(each.services)[1]) for each in layout.networks.values())  # the Service "kubernetes"
    addresses = ["127.0.0.1", "::1", *host.addresses.values(), *services]
    alternatives = [*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)]
    (directory / OPENSSL_CONFIG).write_text(CONFIG.format(names=", ".join(alternatives)))
    authority = ("-keyout", AUTHORITY_KEY, "-out", AUTHORITY)
    _openssl(directory, *NEW_CERTIFICATE, "-extensions", "authority", "-subj", "/CN=berthlb-lab", *authority)
    make_api_server_certificate(directory)
    _openssl(directory, "genpkey", "-algorithm", "RSA", "-out", SERVICE_ACCOUNT_KEY)
    _openssl(directory, "pkey", "-in", SERVICE_ACCOUNT_KEY, "-pubout", "-out", SERVICE_ACCOUNT_PUBLIC_KEY)


def make_api_server_certificate(directory: Path) -> None:
    """A new key and certificate for the API server, signed by the lab's authority. A server that runs reads them anew
    within a minute, as Kubernetes' programs do."""
    signed = ("-CA", AUTHORITY, "-CAkey", AUTHORITY_KEY, "-keyout", API_SERVER_KEY, "-out", API_SERVER_CERTIFICATE)
    _openssl(directory, *NEW_CERTIFICATE, "-extensions", "server", "-subj", "/CN=kube-apiserver", *signed)


def _openssl(directory: Path, *arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise UnusableError("openssl is missing: install the package openssl (apt-get install openssl)")
    done = subprocess.run(
        [program, *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=OPENSSL_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UnusableError(f"openssl {arguments[0]} failed: {said[0]}")
