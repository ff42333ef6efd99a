"""Weights from the Hugging Face hub: the revision pinned and told, the licence shown before anything is downloaded."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from .errors import WeightsError
from .opening import best

_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetched(name: str, revision: str | None = None, file: str | None = None) -> tuple[Path, str]:
    """One file of weights of a repository `owner/name`, downloaded or from the cache, and the commit it is of.

    A branch or tag (default: the main branch) is resolved to its commit first, so that what is reported can be loaded
    again. The licence, and whether conditions have to be accepted, goes to standard error before the download.
    With HF_HUB_OFFLINE=1 only the cache is looked at. Errors: `WeightsError`.
    """
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return _cached(hub, name, revision, file)
    try:
        info = hub.HfApi().model_info(name, revision=revision)
        commit = str(info.sha)
        chosen = best([sibling.rfilename for sibling in info.siblings or []], name, file)
        print(licence(name, info, commit), file=sys.stderr)
        if chosen.endswith(".index.json"):
            folder = hub.snapshot_download(name, revision=commit, allow_patterns=["*.safetensors", chosen])
            return Path(folder) / chosen, commit
        return Path(hub.hf_hub_download(name, chosen, revision=commit)), commit
    except WeightsError:
        raise
    except Exception as error:  # the library's and the network's, of many kinds
        raise WeightsError(f"{name}: not fetched from the hub: {_said(error)}") from None


def _cached(hub: Any, name: str, revision: str | None, file: str | None) -> tuple[Path, str]:
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:
        at = f" at {revision}" if revision else ""
        raise WeightsError(f"{name}{at}: not in the cache, and HF_HUB_OFFLINE is set: {_said(error)}") from None
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    commit = folder.name
    if not _COMMIT.fullmatch(commit):
        raise WeightsError(f"{name}: the cache at {folder} doesn't say which commit it is of")
    return folder / best(names, name, file), commit


def licence(name: str, info: Any, commit: str) -> str:
    """What a repository says of its licence and conditions, in one line."""
    card = getattr(info, "card_data", None)
    said = {key: getattr(card, key, None) for key in ("license", "license_name", "license_link")}
    kinds = ", ".join(str(value) for value in said.values() if value) or "none stated"
    gated = getattr(info, "gated", False)
    conditions = (
        f"; gated ({gated}): its conditions have to be accepted on its page before it can be had" if gated else ""
    )
    return f"{name} at {commit}: licence {kinds}{conditions}"


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}" if lines else type(error).__name__
