"""Requests to a control plane, real or embedded, by the official client's authentication and transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))

    @property
    def version(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def fields(self) -> list[str]:
        """The fields that an Invalid answer names, each once.

        ``<nil>`` is none: so the real server says that it left the CEL rules aside, since the object was bad anyway.
        """
        named = [cause["field"] for cause in self.body["details"]["causes"]]
        return [field for field in dict.fromkeys(named) if field != "<nil>"]


class Access:
    """A control plane, and a namespace of the test's own in it."""

    def __init__(self, api_client: Any, namespace: str) -> None:
        self.client = api_client
        self.namespace = namespace
        self.core = f"/api/v1/namespaces/{namespace}"
        self.pools = f"/apis/metallb.io/v1beta1/namespaces/{namespace}/ipaddresspools"
        self.node_pools = f"/apis/berthlb.io/v1alpha1/namespaces/{namespace}/nodeippools"

    def ask(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> Answer:
        response = self._send(method, path, body, content_type, query)
        said = response.read()
        is_object = "json" in (response.getheader("Content-Type") or "")
        return Answer(response.status, json.loads(said or b"null") if is_object else said.decode())

    def get(self, path: str, **query: str) -> Answer:
        return self.ask("GET", path, **query)

    def create(self, path: str, body: Any, **query: str) -> Answer:
        return self.ask("POST", path, body, **query)

    def made(self, path: str, body: Any) -> Any:
        """Create what must be creatable; the object as stored."""
        answer = self.ask("POST", path, body)
        assert answer.status == 201, answer.body
        return answer.body

    def merge(self, path: str, patch: Any) -> Answer:
        return self.ask("PATCH", path, patch, MERGE_PATCH)

    def delete(self, path: str, options: Any = None) -> Answer:
        return self.ask("DELETE", path, options)

    def names(self, path: str, **query: str) -> list[str]:
        answer = self.get(path, **query)
        assert answer.status == 200, answer.body
        return [item["metadata"]["name"] for item in answer.body["items"]]

    def watch(self, path: str, **query: str) -> Iterator[Any]:
        """A watch's events until the server ends it (``timeoutSeconds``)."""
        response = self._send("GET", path, None, "application/json", {"watch": "true", **query}).response
        assert response.status == 200, response.read()
        rest = b""
        try:
            for chunk in response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines)
        finally:
            response.close()

    def _send(self, method: str, path: str, body: Any, content_type: str, query: dict[str, str]) -> Any:
        request = self.client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Content-Type": content_type, "Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        return self.client.call_api(*request, _request_timeout=30)
