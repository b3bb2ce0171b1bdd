"""Watch a job until it has ended, and print each document's result as it comes.

    export MILLSTREAM_URL=http://127.0.0.1:50108 WEBHOOK_API_SECRET=...
    python3 watch_job.py JOB_ID

Exits with 0 if every document succeeded, else with 1. Needs Python 3.11 and nothing else.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

URL = os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:50108")
HEADERS = {"Authorization": f"Bearer {os.environ['WEBHOOK_API_SECRET']}"}


def read(job_id: str, last_id: str) -> Iterator[tuple[str, str, dict]]:
    """Read the job's server-sent events: (id, event, data). `last_id` is the last one seen."""
    headers = {**HEADERS, "Last-Event-ID": last_id} if last_id else HEADERS
    request = Request(f"{URL}/api/jobs/{job_id}/events", headers=headers)
    with urlopen(request, timeout=60) as stream:  # a comment arrives every 15 s
        fields: dict[str, str] = {}
        for raw in stream:
            name, _, value = raw.decode().rstrip("\r\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:  # an empty line ends an event
                yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
                fields = {}


def watch(job_id: str) -> dict:
    """Follow the job across lost connections; return the job as it ended."""
    last_id = ""
    while True:
        try:
            for event_id, event, data in read(job_id, last_id):
                last_id = event_id or last_id
                if event == "result":
                    print(data["status"], data["url"], data["error"] or "")
                if event == "end":
                    return data
        except HTTPError:  # a wrong secret or an unknown job: reconnecting does not help
            raise
        except (OSError, HTTPException):
            pass
        time.sleep(1)


if __name__ == "__main__":
    job = watch(sys.argv[1])
    print(f"{job['status']}: {job['succeeded']} of {job['total']} documents")
    sys.exit(0 if job["status"] == "succeeded" else 1)
