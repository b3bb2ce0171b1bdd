"""Send Markdown files to millstream as Firecrawl sends a crawl: a signed webhook for each page.

    export MILLSTREAM_URL=http://127.0.0.1:50108 WEBHOOK_SECRET=...
    python3 send_crawl.py https://docs.example.com guide.md install.md

Prints one job id for each page. Needs Python 3.11 and nothing else.
"""

import hashlib
import hmac
import json
import os
import sys
import uuid
from pathlib import Path
from urllib.request import Request, urlopen

URL = os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:50108")
SECRET = os.environ["WEBHOOK_SECRET"].encode()


def send(event: dict) -> dict:
    """Post one webhook. The signature covers the exact bytes of the body."""
    body = json.dumps(event).encode()
    signature = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Firecrawl-Signature": signature}
    request = Request(f"{URL}/api/webhook/firecrawl", body, headers)
    with urlopen(request, timeout=30) as response:  # 202: the page is stored and will be indexed
        return json.load(response)


def event(crawl_id: str, kind: str, data: list) -> dict:
    # Firecrawl repeats a webhook that was not answered. millstream knows a repeat by its webhookId.
    return {
        "success": True,
        "type": kind,
        "id": crawl_id,
        "webhookId": str(uuid.uuid4()),
        "data": data,
    }


def main(site: str, files: list[str]) -> None:
    crawl_id = str(uuid.uuid4())
    for name in files:
        path = Path(name)
        metadata = {"url": f"{site}/{path.stem}", "title": path.stem, "statusCode": 200}
        page = {"markdown": path.read_text(encoding="utf-8"), "metadata": metadata}
        print(send(event(crawl_id, "crawl.page", [page]))["job_id"])
    send(event(crawl_id, "crawl.completed", []))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
