"""A kind that was defined a moment ago: what the real API server answers until it serves it."""

from __future__ import annotations

import json
import uuid

import pytest

from cluster.api.client import ApiClient, connect
from cluster.api.errors import ApiError, Initializing, NotFound
from cluster.objects import Object
from cluster.resources import Resource
from tests.kubernetes.control_plane import ControlPlane
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]

MOST = 20


def define(control_plane: ControlPlane, name: str) -> Resource[Object]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}s.test.example"},
        "spec": {
            "group": "test.example",
            "scope": "Namespaced",
            "names": {"plural": f"{name}s", "singular": name, "kind": name.capitalize()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    control_plane.kubectl("create", "-f", "-", stdin=json.dumps(body))
    return Resource("test.example", "v1", f"{name}s", name.capitalize(), True, Object)


def refusals_until_served(client: ApiClient, resource: Resource[Object]) -> list[ApiError]:
    refusals: list[ApiError] = []

    def served() -> bool:
        try:
            with client.watch(resource, namespace="default", initial_events=True, timeout_s=5) as stream:
                assert next(iter(stream)).type == "BOOKMARK"
        except ApiError as error:
            refusals.append(error)
            return False
        return True

    wait_until(served, 30.0, "never served", every=0.0)
    return refusals


def test_a_server_that_begins_to_serve_a_kind_is_known_by_its_words(control_plane: ControlPlane) -> None:
    """It asks for a second, and takes some ten milliseconds; most times one of its answers falls into these."""
    client = connect(control_plane.kubeconfig(), user_agent="test")
    seen: set[type[ApiError]] = set()
    names = (f"thing{uuid.uuid4().hex[:8]}" for _ in range(MOST))
    while Initializing not in seen:
        seen |= {type(each) for each in refusals_until_served(client, define(control_plane, next(names)))}
    assert seen <= {Initializing, NotFound}
    client.close()
