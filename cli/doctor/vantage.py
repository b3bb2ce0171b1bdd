"""What the doctor concludes about servers that it cannot reach, given what ingest reports of them.

Outside the containers, names and ports of the servers may not exist. Ingest can be reached there,
and knows its servers.
"""

import re
from collections.abc import Mapping

from cli.doctor.finding import Finding, Findings, fail, ok, warn
from local.servers import URL_VARIABLES

VARIABLES = {**URL_VARIABLES, "ingest": "MILLSTREAM_URL"}

_NAMES_A_SETTING = re.compile(r"(.*) \(check (\w+)\)", re.DOTALL)


class Vantage:
    """Ingest's report about its servers, and the list of servers that only ingest can reach."""

    def __init__(self, ingest_url: str, services: Mapping[str, str] | None) -> None:
        """`services` are those of the health report; None if ingest does not answer."""
        self.ingest_answers = services is not None
        self._health_url = f"{ingest_url.rstrip('/')}/health"
        self._services = services or {}
        self._hidden: list[str] = []

    def unreachable(self, service: str, where: str, reason: str) -> Finding:
        """Judge a server that does not answer at `where`, an address without credentials."""
        if self._services.get(service) == "healthy":
            self._hidden.append(service)
            return ok(
                f"{service}.reachable",
                f"healthy according to ingest ({self._health_url}); not examined, because {where} "
                f"does not answer from here ({reason})",
            )
        return unreachable(service, where, reason)

    def hides(self, service: str) -> bool:
        """Whether only ingest can reach a server that was judged before."""
        return service in self._hidden

    def findings(self) -> Findings:
        """A warning that names the servers which were not examined."""
        if not self._hidden:
            return []
        variables = ", ".join(VARIABLES[service] for service in self._hidden)
        return [
            warn(
                "doctor.reach",
                f"not examined, because only ingest can reach them: {', '.join(self._hidden)}",
                "run the doctor where the services run, for example `docker compose exec ingest "
                f"millstream doctor`, or set {variables} to addresses that work here",
            )
        ]


def unreachable(service: str, where: str, reason: str, instead: str | None = None) -> Finding:
    """A server that does not answer as expected. `reason` may end with `(check SETTING)`.

    `instead` replaces the advice to correct the setting of its URL.
    """
    runbook = "lost-redis" if service == "redis" else None
    if named := _NAMES_A_SETTING.fullmatch(reason):
        reason, remedy = named[1], f"correct {named[2]}"
    else:
        remedy = f"start it, or {instead or f'correct {VARIABLES[service]}'}"
    found = f"{service} does not answer as expected at {where}: {reason}"
    return fail(f"{service}.reachable", found, remedy, runbook)
