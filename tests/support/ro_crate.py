"""What the validator of RO-Crates finds in folders, run as a program of its own beside its packages
(`make ro-crate`): `python -m tests.support.ro_crate CONTEXT FOLDER...`

It asks the web for the JSON-LD context; here the file that rocrate ships answers from its cache.
"""

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

CONTEXT = "https://w3id.org/ro/crate/1.3/context"


def remember(cache: Path, url: str, data: bytes) -> None:
    """Put an answer of the web into the validator's cache."""
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter
    from requests_cache import CachedSession
    from urllib3 import HTTPResponse

    class Shipped(HTTPAdapter):
        """Answers every request with `data`."""

        def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
            raw = HTTPResponse(
                body=io.BytesIO(data),
                headers={"content-type": "application/ld+json"},
                status=200,
                preload_content=False,
            )
            return self.build_response(request, raw)

    with CachedSession(cache_name=str(cache), backend="sqlite", expire_after=-1) as session:
        session.mount("https://", Shipped())
        session.get(url).raise_for_status()


def issues(folder: Path, cache: Path) -> list[list[str]]:
    """Severity, check and message of everything required or recommended that a folder lacks."""
    from rocrate_validator.models import Severity, ValidationSettings
    from rocrate_validator.services import validate

    result = validate(
        ValidationSettings(
            rocrate_uri=str(folder),
            profile_identifier="ro-crate-1.3",
            requirement_severity=Severity.RECOMMENDED,
            offline=True,
            cache_path=cache,
        )
    )
    return sorted(
        [issue.severity.name, issue.check.name, str(issue.message)] for issue in result.get_issues()
    )


def main() -> None:
    """Print the issues of each folder as JSON."""
    context, *folders = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        remember(cache, CONTEXT, context.read_bytes())
        print(json.dumps([issues(folder, cache) for folder in folders]))


if __name__ == "__main__":
    main()
