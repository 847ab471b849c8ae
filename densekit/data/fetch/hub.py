"""Repositories of the hub: their files at one commit with sizes and hashes, what of them a model
needs, and what the hub's own cache already holds.
"""

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from densekit.data.fetch.remote import Digest, Remote
from densekit.data.fetch.transfer import Patience, access_error
from densekit.errors import DataError, UsageError
from densekit.files.disks import disk
from densekit.files.weight_files import INDEX, SINGLE

RepositoryKind = Literal["model", "dataset"]
SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "LICENSE*", "USE_POLICY*", "NOTICE*")
"""Beside the weights: configuration, tokenizer, terms. No Python: none of it is ever run."""
NEWEST = "main"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One file of a repository at a commit."""

    name: str
    size: int | None
    digest: Digest | None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit."""

    repository: str
    kind: RepositoryKind
    commit: str
    files: tuple[HubFile, ...]
    page: str
    snapshot: Path | None = None
    """Its folder in the hub's cache, where HF_HUB_OFFLINE lets nothing else be asked."""

    @property
    def safetensors(self) -> bool:
        """Whether its weights need no conversion."""
        return any(file.name.endswith(".safetensors") for file in model_files(self.files))


class HubClient:
    """The hub, or a mirror that HF_ENDPOINT names, with HF_TOKEN."""

    def __init__(self, endpoint: str | None = None, patience: Patience | None = None) -> None:
        _check_endpoint(endpoint or os.environ.get("HF_ENDPOINT"))
        from huggingface_hub import constants, get_token

        if (token := get_token()) and not (token.isascii() and token.isprintable()):
            raise UsageError(
                "HF_TOKEN (or the file that `hf auth login` left) holds a character that no token "
                "has: copy it again"
            )
        endpoint = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        self.endpoint = endpoint.rstrip("/")
        self._silent = False
        """Whether the last attempts met no hub at all."""
        self._patience = patience or Patience()
        self._listings: dict[tuple[str, str, str], Listing] = {}

    def page(self, repository: str, kind: RepositoryKind) -> str:
        """What a person opens about a repository."""
        return f"{self.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repository}"

    def listing(self, repository: str, kind: RepositoryKind, revision: str | None) -> Listing:
        """The files at a commit (None: the newest).

        Raises DataError: no such repository or revision, no access, no answer (after one attempt
        where the hub did not answer before).
        """
        from huggingface_hub import constants

        revision, page = revision or NEWEST, self.page(repository, kind)
        key = (repository, kind, revision)
        if key not in self._listings:
            look = self._offline if constants.is_offline_mode() else self._online
            self._listings[key] = look(repository, kind, revision, page)
        return self._listings[key]

    def _online(self, repository: str, kind: RepositoryKind, revision: str, page: str) -> Listing:
        info = self._ask(repository, kind, revision, page)
        if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
            raise DataError(f"{page}: the answer names no commit; is HF_ENDPOINT a hub?")
        files = [
            HubFile(name=sibling.rfilename, size=sibling.size, digest=_digest(sibling))
            for sibling in info.siblings or ()
        ]
        for file in files:
            parts = PurePosixPath(file.name).parts
            if file.name.startswith("/") or ".." in parts or "\\" in file.name:
                raise DataError(f"{page}: a file is called {file.name!r}: nothing of it is fetched")
        return Listing(
            repository=repository, kind=kind, commit=info.sha, files=tuple(files), page=page
        )

    def _ask(self, repository: str, kind: RepositoryKind, revision: str, page: str) -> Any:
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        failures = 0
        while True:
            try:
                info = HfApi(endpoint=self.endpoint).repo_info(
                    repository, repo_type=kind, revision=revision, files_metadata=True, timeout=60
                )
                self._silent = False
                return info
            except GatedRepoError as error:
                raise access_error(repository, page, error.response.status_code) from None
            except RevisionNotFoundError:
                raise DataError(
                    f"{page} has no revision {revision}: `densekit pin {repository}` pins the "
                    "newest one"
                ) from None
            except RepositoryNotFoundError as error:
                if (code := error.response.status_code) in (401, 403):
                    what = f"{repository} (or there is no such repository)"
                    raise access_error(what, page, code) from None
                raise DataError(f"{page}: there is no such repository; check its name") from None
            except HfHubHTTPError as error:
                code = error.response.status_code
                if code in (401, 403):
                    raise access_error(repository, page, code) from None
                reason, silent = f"HTTP {code}", False
                if code < 500 and code not in (408, 429):
                    raise DataError(f"{page}: {reason}: {_first_line(error)}") from None
            except (httpx2.HTTPError, OSError, ValueError) as error:
                reason, silent = _first_line(error), True
            failures += 1
            # Every repository is on the same host: the second one is not waited for as long.
            if failures >= (1 if self._silent else self._patience.first_attempts):
                self._silent = silent
                times = f", {failures} times in a row" if failures > 1 else ""
                raise DataError(
                    f"{page}: no list of files: {reason}{times}; check the network (HF_ENDPOINT, "
                    "proxies); HF_HUB_OFFLINE=1 takes what the hub's cache holds"
                )
            time.sleep(self._patience.wait(failures, None))

    def _offline(self, repository: str, kind: RepositoryKind, revision: str, page: str) -> Listing:
        """What the hub's cache has."""
        from huggingface_hub import snapshot_download

        try:
            snapshot = Path(
                snapshot_download(
                    repository, repo_type=kind, revision=revision, local_files_only=True
                )
            )
        except (OSError, ValueError):
            raise DataError(
                f"{repository}: HF_HUB_OFFLINE is set, and the hub's cache (HF_HOME) does not hold "
                f"revision {revision}; bring the folder with --from DIR"
            ) from None
        files = [
            HubFile(
                name=path.relative_to(snapshot).as_posix(), size=path.stat().st_size, digest=None
            )
            for path in sorted(snapshot.rglob("*"))
            if path.is_file()
        ]
        return Listing(
            repository=repository,
            kind=kind,
            commit=snapshot.name,
            files=tuple(files),
            page=page,
            snapshot=snapshot,
        )

    def remote(self, listing: Listing, file: HubFile) -> Remote:
        """Where a file is."""
        from huggingface_hub import get_token, hf_hub_url

        token = get_token()
        url = hf_hub_url(
            listing.repository,
            file.name,
            repo_type=listing.kind,
            revision=listing.commit,
            endpoint=self.endpoint,
        )
        return Remote(
            url=url,
            page=listing.page,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            size=file.size,
            digest=file.digest,
        )

    def cached(self, listing: Listing, file: HubFile) -> Path | None:
        """The file in the hub's cache, links resolved; None where it is not there whole."""
        path = self.in_cache(listing, file)
        if path is None or listing.snapshot:
            return path
        return path if self.remote(listing, file).is_whole(path) else None

    def in_cache(self, listing: Listing, file: HubFile) -> Path | None:
        """The same without reading it."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            listing.repository, file.name, revision=listing.commit, repo_type=listing.kind
        )
        return Path(found).resolve() if isinstance(found, str) else None


def place(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link where the disk allows it, else a copy;
    never a symbolic link, which a container could not follow.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.placing")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def copied_bytes(source: Path, target: Path) -> int:
    """Bytes that `place` writes for a file, or for each file of a folder; 0 where it can link."""
    if disk(source) == disk(target):
        return 0
    files = source.rglob("*") if source.is_dir() else [source]
    return sum(path.stat().st_size for path in files if path.is_file())


def model_files(files: Sequence[HubFile]) -> tuple[HubFile, ...]:
    """What a model needs of its repository: weights in one form (safetensors where there are any),
    configuration and tokenizer.
    """
    top = [file for file in files if "/" not in file.name]
    names = {file.name for file in top}

    def matching(*patterns: str) -> set[str]:
        return {name for name in names if any(fnmatchcase(name, one) for one in patterns)}

    if {INDEX, SINGLE} & names:
        weights = matching("model*.safetensors")
        weights -= {SINGLE} if INDEX in names and len(weights) > 1 else set()
    else:
        weights = matching("*.safetensors") or matching("pytorch_model*.bin") or matching("*.bin")
    unused = matching("*.index.json", "training_args*")
    if any(name.endswith(".safetensors") for name in weights):
        unused -= {INDEX}
    else:
        unused -= matching("*.bin.index.json")
    wanted = weights | (matching(*SMALL) - unused)
    return tuple(file for file in top if file.name in wanted)


def _check_endpoint(endpoint: str | None) -> None:
    """Raise UsageError for what is no address; huggingface_hub cannot even be imported with it."""
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"HF_ENDPOINT is {endpoint}, which is no address: write https://HOST, as of a mirror"
        )


def _digest(sibling: Any) -> Digest | None:
    if sibling.lfs is not None:
        return Digest(kind="sha256", value=sibling.lfs.sha256)
    if sibling.blob_id:
        return Digest(kind="git", value=sibling.blob_id)
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
