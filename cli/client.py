"""The HTTP API as the commands use it."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cli.failures import ApiError
from cli.patience import Patience

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:50108"

_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 5.0
_JSON = {"Content-Type": "application/json"}


class ApiClient:
    """One ingest service. Every method raises ApiError."""

    def __init__(self, url: str, secret: str, patience: Patience | None = None) -> None:
        """`patience` repeats requests that are safe to repeat. Without it each is sent once."""
        import httpx

        self.url = url
        self._patience = patience
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {secret}"} if secret else {},
            timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            trust_env=False,
            # Requests may be minutes apart: a connection that stays open would go stale.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, *, patience: Patience | None = None
    ) -> "ApiClient":
        """The service at MILLSTREAM_URL, with the secret in WEBHOOK_API_SECRET."""
        url = environ.get("MILLSTREAM_URL") or DEFAULT_URL
        return cls(url, environ.get("WEBHOOK_API_SECRET", ""), patience)

    def close(self) -> None:
        """Close the connection pool. Commands leave that to the end of their process."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._repeat(lambda: self._send("GET", path, params=_given(params)))

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        content = msgspec.json.encode(body)
        return self._send("POST", path, content=content, params=_given(params))

    def post_lines(self, path: str, lines: bytes, *, idempotency_key: str, **params: Any) -> Any:
        """Post NDJSON. Requests with the same key are one delivery, so a repeat is safe."""
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": idempotency_key}
        return self._repeat(
            lambda: self._send("POST", path, content=lines, params=_given(params), headers=headers)
        )

    def post_raw(self, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """Post a JSON body byte for byte, for example a signed one."""
        return self._send("POST", path, content=body, headers={**_JSON, **headers})

    def delete(self, path: str, **params: Any) -> Any:
        return self._send("DELETE", path, params=_given(params))

    def _repeat(self, send: Callable[[], Any]) -> Any:
        return send() if self._patience is None else self._patience.repeat(send)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        import httpx

        options.setdefault("headers", _JSON)
        try:
            response = self._http.request(method, path, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ApiError(_unreachable(self.url, error), was_connected=False) from error
        except httpx.HTTPError as error:
            message = f"Ingest at {self.url} closed the connection or did not answer: {error}"
            raise ApiError(message) from error
        if response.is_error:
            raise ApiError(_problem(response), response.status_code)
        return response.json()


def _unreachable(url: str, error: Exception) -> str:
    return (
        f"Cannot connect to ingest at {url}: {error}\n"
        "Start it with `millstream up`, or set MILLSTREAM_URL to its address."
    )


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _problem(response: "httpx.Response") -> str:
    try:
        problem = response.json()
        text = f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        text = response.text or response.reason_phrase
    if response.status_code == 401:
        text += (
            "\nSet WEBHOOK_API_SECRET to the API secret of ingest, "
            "for example with `set -a; . .millstream/stack.env; set +a`."
        )
    return text
