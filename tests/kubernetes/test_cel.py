"""The CEL rules of ``crds/``, and the schemas around them, on a real API server, which alone judges them:
``cel_cases.yaml``, case by case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config

from tests.kubernetes.access import Access
from tests.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]
CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("cel_cases.yaml").read_text())
KINDS = {
    "IPAddressPool": ("metallb.io/v1beta1", "ipaddresspools"),
    "L2Advertisement": ("metallb.io/v1beta1", "l2advertisements"),
    "NodeIPPool": ("berthlb.io/v1alpha1", "nodeippools"),
}
"""Version and plural."""


@pytest.fixture(scope="module")
def access(control_plane: ControlPlane) -> Iterator[Access]:
    with config.new_client_from_config(str(control_plane.kubeconfig())) as api_client:
        access = Access(api_client, "cel-cases")
        access.made("/api/v1/namespaces", {"metadata": {"name": access.namespace}})
        yield access


def cases(*keys: str) -> list[Any]:
    of = [*CASES["rules"], *CASES["schema"]]
    found = [(each["kind"], case) for each in of for key in keys for case in each.get(key, ())]
    return [pytest.param(kind, case, id=json.dumps(case)[:80]) for kind, case in found]


def example(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": KINDS[kind][0], "kind": kind, "metadata": {"name": "example"}, "spec": spec}


def path(access: Access, kind: str) -> str:
    version, plural = KINDS[kind]
    return f"/apis/{version}/namespaces/{access.namespace}/{plural}"


@pytest.mark.parametrize(("kind", "spec"), cases("accepts", "accepts_but_controller_refuses"))
def test_server_takes_it(access: Access, kind: str, spec: dict[str, Any]) -> None:
    answer = access.create(path(access, kind), example(kind, spec), dryRun="All", fieldValidation="Strict")
    assert answer.status == 201, answer.body["message"]


@pytest.mark.parametrize(("kind", "case"), cases("refuses"))
def test_server_refuses_it_and_says_why(access: Access, kind: str, case: dict[str, Any]) -> None:
    answer = access.create(path(access, kind), example(kind, case["spec"]), dryRun="All", fieldValidation="Strict")
    assert answer.status in {400, 422}  # 400: a field that no schema knows
    assert case["says"] in answer.body["message"]


def test_a_person_sees_the_field_the_value_and_the_reason(control_plane: ControlPlane) -> None:
    body = json.dumps(example("IPAddressPool", {"addresses": ["192.0.2.5"]}))
    done = control_plane.try_kubectl("apply", "--dry-run=server", "-f", "-", stdin=body)
    assert done.returncode == 1
    assert done.stderr == (
        'The IPAddressPool "example" is invalid: spec.addresses[0]: Invalid value: "192.0.2.5": '
        "'192.0.2.5' is a single address: use 192.0.2.5/32\n"
    )
