"""What has to hold around the pipeline before its first stage: proxies, folders, and the data set's folder.

Each check refuses before anything is written, and says what to do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, MutableMapping
from pathlib import Path

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OWN = (".dvc", ".git", ".cache", "mlruns", "models", "reports")  # beside the outputs


def bypass_proxy(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keeps traffic with this machine from the environment's proxy: adds its names to no_proxy and NO_PROXY.

    Nothing changes where no proxy is set: on some systems the mere presence of no_proxy hides their own proxy settings.

    Args:
        environment: where the variables are; children inherit that of this process.
    """
    proxies = {name for name in environment if name.lower().endswith("_proxy") and name.lower() != "no_proxy"}
    if not any(environment[name] for name in proxies):
        return
    given = ",".join(environment.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = dict.fromkeys(host.strip() for host in given.split(",") if host.strip())
    if "*" not in hosts:
        hosts |= dict.fromkeys(_LOOPBACK)
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(hosts)


def check_folder(folder: Path) -> None:
    """Makes sure that a folder of the repository can be written to; one that is not there yet can be made.

    Raises:
        FileExistsError: a file has its name, or it is a link to nothing.
        PermissionError: it is not writable.
    """
    if folder.is_symlink() and not folder.exists():
        raise FileExistsError(f"{folder} is a link to {os.readlink(folder)}, which is not there; remove the link")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder to write to; move the file away")
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        name = "the working folder" if folder == Path() else f"the folder {folder}"
        raise PermissionError(f"{name} is not writable, and a run writes there; change its rights or its owner")


def check_outputs(outputs: Iterable[str]) -> None:
    """Makes sure that DVC can write and file the outputs of all stages, before the first stage works for nothing.

    Args:
        outputs: paths of dvc.yaml, relative to the working folder.

    Raises:
        FileExistsError: a folder above an output is a file, or a link to nothing.
        FileNotFoundError: DVC's own folder is missing, as in a copy without hidden files.
        PermissionError: such a folder is not writable.
        ValueError: such a folder is a link that leads out of the repository.
    """
    if not Path(".dvc").is_dir():
        raise FileNotFoundError(
            "no folder .dvc here; run in the repository root, or copy the project again with its hidden files"
        )
    root = Path.cwd().resolve()
    above = {parent for output in outputs if not Path(output).is_absolute() for parent in Path(output).parents}
    for folder in sorted(above | {Path(), Path(".dvc"), Path(".cache")}):
        check_folder(folder)
        if folder in above and not folder.resolve().is_relative_to(root):
            raise ValueError(
                f"{folder} leads to {folder.resolve()}, outside of {root}, and DVC files no outputs there; replace the "
                "link by a folder. To spare this disk, move the whole checkout, or DVC's cache: dvc cache dir FOLDER"
            )


def check_source(source: str, outputs: Iterable[str]) -> None:
    """Makes sure that a folder can be the pipeline's data set: DVC finds it, sees every change, and never writes to it.

    Links to files are followed. So is a source that is a link itself: it stays a link, and what it leads to is hashed.

    Args:
        source: the folder, as it is or will be in params.yaml.
        outputs: paths of dvc.yaml, relative to the working folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is blank or an address, contains or lies in what the pipeline or DVC writes, or DVC would not
            see all that is below it.
    """
    if not source.strip() or "\0" in source:
        raise ValueError(f"prepare.source is {source!r}, expected a folder in BEIR layout; name one in params.yaml")
    if "://" in source:
        raise ValueError(f"prepare.source is {source}, an address; expected a folder: download the data and name it")
    folder = Path(source)
    place = folder.resolve()
    for own in [*outputs, *_OWN]:
        written = Path(own).resolve()
        if place.is_relative_to(written) or written.is_relative_to(place):
            how = "is" if place == written else "lies in" if place.is_relative_to(written) else "contains"
            raise ValueError(
                f"the data set {source} {how} {own}, which the pipeline or DVC writes; move the data to a folder of "
                "their own, such as data/mine, and name that"
            )
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "is not there"
        home = "; `~` is not expanded in params.yaml" if source.startswith("~") else ""
        name = f"name it once as DATA={source}" if source.startswith("irds:") else "name another"
        raise FileNotFoundError(f"the data set {source} {kind}, expected a folder in BEIR layout{home}; {name}")
    _check_below(folder)


def _check_below(folder: Path) -> None:
    """Refuses what DVC does not see or cannot read below a data set."""
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in sorted(folders + files)):
            if path.is_symlink() and not path.exists():
                raise ValueError(f"{path} is a link to {os.readlink(path)}, which is not there; repair or remove it")
            if path.is_symlink() and path.is_dir():
                raise ValueError(
                    f"{path} is a link to a folder, which DVC does not follow: a change behind it would go unseen; "
                    "put a copy of that folder in its place"
                )
            if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
                raise ValueError(f"{path} is not a file or folder, and DVC cannot read it; move it elsewhere")
