"""Where the files of a data set are: in a folder that the user names, or in the cache, downloaded once.

pooch keeps the cache and checks the hashes; the transfer is ours because pooch's does not resume.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leancore.torch.train.data.sets import DataError

_SECONDS = 30  # without an answer or a byte, until a transfer is given up


@dataclass(frozen=True)
class Remote:
    """A file on the network, and its MD5 as its authors publish it."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """The files that make up a data set.

    The remotes are one archive, which holds `files` in the first of `folders`, or the files themselves, gzipped.
    """

    name: str
    folders: tuple[str, ...]  # that may hold the files in a folder that a user names
    files: tuple[str, ...]
    remotes: tuple[Remote, ...]

    @property
    def archive(self) -> Remote | None:
        return self.remotes[0] if self.remotes[0].name.endswith(".tar.gz") else None


def cache_folder() -> Path:
    """LEANCORE_DATA, or leancore in the user's folder for caches."""
    import pooch  # type: ignore[import-untyped]

    return Path(os.environ.get("LEANCORE_DATA") or pooch.os_cache("leancore")).expanduser()


def find_file(folder: Path, name: str) -> Path:
    """A file of a source in its folder: as it is, or gzipped under its name with .gz."""
    plain, packed = folder / name, folder / f"{name}.gz"
    return packed if packed.exists() and not plain.exists() else plain


def locate(source: Source, folder: str | Path | None, *, download: bool) -> Path:
    """The folder with the files of a data set.

    A folder that the user names has the files, or a folder of their usual name has them there, or it holds the
    official archive, which is unpacked into the cache. Without one the files come from the cache, and into the cache
    from the network if `download` allows it. Raises DataError, which says what to do.
    """
    if folder is None:
        return _from_cache(source, download=download)
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    for candidate in (root, *(root / name for name in source.folders)):
        if any(find_file(candidate, name).exists() for name in source.files):
            return candidate
    archive = source.archive
    if archive and (root / archive.name).exists():
        return _unpack(source, archive, root / archive.name)
    raise DataError(
        f"{root}: holds no {', '.join(source.files)}, no folder {' or '.join(source.folders)} with them"
        + (f" and no {archive.name}" if archive else "")
    )


def _from_cache(source: Source, *, download: bool) -> Path:
    folder = cache_folder() / source.name / source.folders[0]
    if _complete(source, folder):
        return folder
    if not download:
        raise DataError(f"{folder}: not there, and nothing may be downloaded")
    if source.archive:
        return _unpack(source, source.archive, _download(source.archive, folder.parent))
    for remote in source.remotes:
        _download(remote, folder)
    return folder


def _complete(source: Source, folder: Path) -> bool:
    return all(find_file(folder, name).exists() for name in source.files)


# Archives


def _unpack(source: Source, archive: Remote, path: Path) -> Path:
    """Unpack the files of the source into the cache, once. Only their names are looked for, and no other is written."""
    import pooch

    folder = cache_folder() / source.name / source.folders[0]
    found = pooch.file_hash(path, alg="md5")
    if found != archive.md5:
        raise DataError(f"{path}: its MD5 is {found}, that of the official file {archive.md5}")
    with _lock(folder.parent):
        if not _complete(source, folder):
            folder.mkdir(exist_ok=True)
            _unpack_members(path, {f"{source.folders[0]}/{name}": folder / name for name in source.files})
    return folder


def _unpack_members(archive: Path, members: dict[str, Path]) -> None:
    """Write the members that are wanted, each whole or not at all."""
    missing = dict(members)
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                target = missing.get(member.name)
                if target is None or not member.isreg():
                    continue
                content = tar.extractfile(member)
                assert content is not None
                temporary = target.with_name(f"{target.name}.tmp")
                with temporary.open("wb") as file:
                    shutil.copyfileobj(content, file, 2**20)
                temporary.replace(target)
                del missing[member.name]
                if not missing:
                    return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: damaged: {error}") from error
    raise DataError(f"{archive}: holds no {', '.join(missing)}")


# Downloads


def _download(remote: Remote, folder: Path) -> Path:
    """The file in the folder, downloaded if it is not there with the right MD5. A transfer cut short is continued."""
    import pooch
    import requests

    part = folder / f"{remote.name}.part"
    with _lock(folder):
        try:
            path = pooch.retrieve(
                remote.url, f"md5:{remote.md5}", fname=remote.name, path=folder, downloader=_Transfer(part)
            )
        except (requests.RequestException, ValueError) as error:
            kept = f" {part} is kept and will be continued." if part.exists() else ""
            raise DataError(
                f"{remote.url}: cannot be downloaded: {error}.{kept} Try again, or download it by other means into a "
                "folder and name that (--data-folder)"
            ) from error
    return Path(path)


def _lock(folder: Path) -> AbstractContextManager[object]:
    """Held by one process at a time: those of a run that need the same files wait for the first."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


class _Transfer:
    """A downloader for pooch, which keeps what has arrived in `part` until it is everything."""

    def __init__(self, part: Path) -> None:
        self._part = part

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        import requests

        while True:
            before = self._size()
            try:
                self._continue(url)
                break
            except requests.RequestException:
                if self._size() <= before:  # an attempt that brought nothing is the last one
                    raise
        self._part.replace(output_file)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _continue(self, url: str) -> None:
        import requests
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        have = self._size()
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as answer:
            if answer.status_code == 416:  # nothing lies beyond what is there: it is everything, or another file's
                if answer.headers.get("Content-Range") != f"bytes */{have}":
                    self._part.unlink()
                    self._continue(url)
                return
            answer.raise_for_status()
            continued = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            length = answer.headers.get("Content-Length")
            have = have if continued else 0
            total = have + int(length) if length else None
            console = Console(stderr=True)
            columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
            with (
                Progress(*columns, console=console, disable=not console.is_terminal) as progress,
                self._part.open("ab" if continued else "wb") as file,
            ):
                task = progress.add_task(url.rpartition("/")[2], total=total, completed=have)
                for chunk in answer.iter_content(2**16):
                    file.write(chunk)
                    progress.advance(task, len(chunk))
        if total is not None and self._size() != total:
            raise requests.ConnectionError(f"the transfer ended after {self._size():,} of {total:,} bytes")
