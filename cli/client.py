"""The HTTP API as the commands use it."""

import os
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

DEFAULT_URL = "http://127.0.0.1:50108"

# A command asks few questions, some of them minutes apart.
_NOTHING_STAYS_OPEN = httpx.Limits(max_keepalive_connections=0)
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class ApiError(Exception):
    """The API refused a request; `status` is None if it could not be reached."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ApiClient:
    """One ingest service. Every method raises ApiError."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False, limits=_NOTHING_STAYS_OPEN
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "ApiClient":
        """MILLSTREAM_URL and WEBHOOK_API_SECRET say where and who."""
        return cls(environ.get("MILLSTREAM_URL", DEFAULT_URL), environ.get("WEBHOOK_API_SECRET", ""))

    def close(self) -> None:
        """End it; a command leaves that to the end of its process."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._send("GET", path, params=_given(params))

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        return self._send("POST", path, content=msgspec.json.encode(body), params=_given(params))

    def post_lines(self, path: str, lines: bytes, **params: Any) -> Any:
        """Post NDJSON."""
        headers = {"Content-Type": "application/x-ndjson"}
        return self._send("POST", path, content=lines, params=_given(params), headers=headers)

    def post_raw(self, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """Post a JSON body as it is, for example a signed one."""
        return self._send("POST", path, content=body, headers={"Content-Type": "application/json", **headers})

    def delete(self, path: str, **params: Any) -> Any:
        return self._send("DELETE", path, params=_given(params))

    def _send(self, method: str, path: str, **options: Any) -> Any:
        options.setdefault("headers", {"Content-Type": "application/json"})
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ApiError(f"{self._url} does not answer ({error}): is `millstream up` running?") from error
        if response.is_error:
            raise ApiError(_problem(response), response.status_code)
        return response.json()


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _problem(response: httpx.Response) -> str:
    try:
        problem = response.json()
        text = f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        text = response.text or response.reason_phrase
    if response.status_code == 401:
        text += " (set WEBHOOK_API_SECRET, for example with `set -a; . .millstream/stack.env`)"
    return text
