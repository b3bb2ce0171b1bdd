"""Search what is indexed and print the best passages.

    export MILLSTREAM_URL=http://127.0.0.1:50108 WEBHOOK_API_SECRET=...
    python3 search.py "how do I stream a response" [DOMAIN]

Needs Python 3.11 and nothing else.
"""

import json
import os
import sys
from urllib.request import Request, urlopen

URL = os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:50108")
HEADERS = {
    "Authorization": f"Bearer {os.environ['WEBHOOK_API_SECRET']}",
    "Content-Type": "application/json",
}


def search(query: str, **filters: str) -> dict:
    """Search by meaning and by keywords at once. Filters are domain, language, crawl_id, ..."""
    body = json.dumps({"query": query, "mode": "hybrid", "limit": 5, "filters": filters}).encode()
    with urlopen(Request(f"{URL}/api/search", body, HEADERS), timeout=30) as response:
        return json.load(response)


def main(query: str, domain: str = "") -> None:
    answer = search(query, domain=domain) if domain else search(query)
    if answer["degraded"]:
        print("(the embedding server or Postgres is unavailable: results may be incomplete)")
    for rank, hit in enumerate(answer["results"], start=1):
        print(f"{rank}. {hit['title']}  {hit['url']}")
        print(f"   {' '.join(hit['text'].split())[:200]}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
