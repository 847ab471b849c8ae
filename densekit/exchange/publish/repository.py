"""A model's repository on the hub: whether it can take what is published, and the upload."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from densekit.errors import DataError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OWN_FILES = (".gitattributes",)
"""What the hub itself puts into a new repository."""


def check_name(name: str) -> None:
    """Raise UsageError for anything but ORG/NAME as the hub admits it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
        if name.count("/") != 1:
            raise HFValidationError("an organisation or user and a name are needed")
    except HFValidationError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(f"--to {name} is not ORG/NAME of a repository: {reason}") from None


@dataclass(frozen=True, kw_only=True)
class Target:
    """A repository that takes files: a new one, or an empty one."""

    name: str
    endpoint: str
    new: bool
    """Whether it does not exist yet, as far as the token can see."""

    @property
    def page(self) -> str:
        """What a person opens."""
        return f"{self.endpoint}/{self.name}"

    def upload(self, folder: Path, *, message: str, private: bool) -> str:
        """Make the repository where there is none, and upload everything in `folder`; returns the
        address of the commit. Raises DataError where the hub refuses or does not answer; a second
        try sends only what is missing.
        """
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        api = _api(self.endpoint)
        try:
            if self.new:
                api.create_repo(self.name, private=private)
            done = api.upload_folder(repo_id=self.name, folder_path=folder, commit_message=message)
            return str(done.commit_url)
        except HfHubHTTPError as error:
            raise self.refused(error) from None
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.page}: the hub refuses the card: {reason}") from None
        except (httpx2.HTTPError, OSError, RuntimeError) as error:
            raise DataError(
                f"{self.page}: the upload broke off: {_first_line(error)}; run the same command "
                f"again: {folder} is kept, and what arrived is not sent twice"
            ) from None

    def refused(self, error: Exception) -> DataError:
        """What to do about an answer of the hub that is no success."""
        code = getattr(getattr(error, "response", None), "status_code", 0)
        if code in (401, 403):
            return DataError(
                f"{self.page}: HTTP {code}: the token may not write there: open {self.endpoint}"
                "/settings/tokens, make a token with write access to this organisation, set "
                "HF_TOKEN to it, and run the same command again"
            )
        return DataError(f"{self.page}: HTTP {code}: {_first_line(error)}")


def open_target(name: str) -> Target:
    """The repository, asked for before anything is exported. Raises DataError: no token, no
    answer, or files in it.
    """
    import httpx2
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    target = Target(name=name, endpoint=endpoint, new=False)
    if constants.is_offline_mode():
        raise DataError("HF_HUB_OFFLINE is set: unset it to publish, or prepare with --dry-run")
    if get_token() is None:
        raise DataError(
            f"no token: open {endpoint}/settings/tokens, make one with write access, set HF_TOKEN "
            "to it (or `hf auth login`), and run the same command again; --dry-run needs none"
        )
    try:
        siblings = _api(endpoint).model_info(name, timeout=60).siblings or ()
    except RepositoryNotFoundError:
        return replace(target, new=True)
    except HfHubHTTPError as error:
        raise target.refused(error) from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise DataError(
            f"{target.page}: no answer: {_first_line(error)}; check the network (HF_ENDPOINT, "
            "proxies)"
        ) from None
    files = sorted(each.rfilename for each in siblings if each.rfilename not in OWN_FILES)
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        raise DataError(
            f"{target.page} is not empty: it holds {', '.join(files[:3])}{more}; nothing published "
            "is overwritten; choose a new name, or empty the repository yourself"
        )
    return target


def _api(endpoint: str) -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
