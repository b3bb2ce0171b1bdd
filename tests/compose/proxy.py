"""What the service `proxy` answers to other hosts: TLS, the API and the page, and nothing else."""

import ssl
from collections.abc import Iterator, Mapping

import httpx

_EXPECTED = {
    "/": 200,
    "/static/page.css": 200,
    "/api/stats": 200,
    "/health": 404,
    "/readyz": 404,
    "/metrics": 404,
    "/openapi.json": 404,
}


def wrong_answers(ports: Mapping[str, int], secret: str) -> list[str]:
    """Each answer that differs from what compose.yaml promises."""
    # Caddy signs the certificate of `localhost` itself.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # Caddy is healthy a moment before it listens.
    transport = httpx.HTTPTransport(verify=context, trust_env=False, retries=5)
    with httpx.Client(transport=transport, timeout=30.0) as client:
        return list(_wrong(client, ports, {"Authorization": f"Bearer {secret}"}))


def _wrong(
    client: httpx.Client, ports: Mapping[str, int], headers: Mapping[str, str]
) -> Iterator[str]:
    base = f"https://localhost:{ports['PROXY_HTTPS_PORT']}"
    for path, status in _EXPECTED.items():
        answer = client.get(base + path, headers=headers)
        if answer.status_code != status:
            yield f"{path}: {answer.status_code} instead of {status}"
    if (status := client.get(f"{base}/api/stats").status_code) != 401:
        yield f"/api/stats without the secret: {status} instead of 401"
    plain = client.get(f"http://localhost:{ports['PROXY_HTTP_PORT']}/api/stats")
    if not plain.headers.get("location", "").startswith("https://"):
        yield f"without TLS: {plain.status_code} instead of a redirect"
