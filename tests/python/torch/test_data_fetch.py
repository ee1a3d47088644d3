"""Where data sets come from: folders, archives, the cache, and a server that is not always kind."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_files import FILES, pack, shrink, write
from leancore.torch.train.data import DataError, DataSet, catalogue, load_data

for package in ("pooch", "filelock", "rich"):
    pytest.importorskip(package)

ARCHIVED = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary", "stl10": "stl10_binary"}
ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz", "stl10": "stl10_binary.tar.gz"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shrink(monkeypatch)
    monkeypatch.setenv("LEANCORE_DATA", str(tmp_path / "cache"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache"


class Server:
    """Serves `files`; the first answers can be cut short, and requests are written down as (path, Range)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.ranges = True  # whether Range is honoured
        self.patience = 0.0  # seconds before an answer
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                wanted = self.headers["Range"]
                server.requests.append((self.path, wanted))
                time.sleep(server.patience)
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                start = 0
                if wanted and server.ranges:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(content):
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{len(content)}")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                cut = server.cuts.pop(0) if server.cuts else None
                self.wfile.write(content[start : None if cut is None else start + cut])
                self.close_connection = cut is not None

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def make_archive(name: str, folder: Path) -> Path:
    """A stand-in for the official archive of a data set, in `folder`."""
    files = write(name, folder.parent / f"{name}-files")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ARCHIVES[name]
    with tarfile.open(path, "w:gz") as tar:
        tar.add(files, ARCHIVED[name])
    return path


def expect(monkeypatch: pytest.MonkeyPatch, name: str, contents: list[bytes], address: str = "http://nowhere") -> None:
    """Have a data set expect these contents of its remotes, with their own hashes, at this address."""
    source, read = catalogue._READERS[name]
    remotes = tuple(
        replace(remote, url=f"{address}/{remote.name}", md5=hashlib.md5(content).hexdigest())
        for remote, content in zip(source.remotes, contents, strict=True)
    )
    monkeypatch.setitem(catalogue._READERS, name, (replace(source, remotes=remotes), read))


def serve(monkeypatch: pytest.MonkeyPatch, server: Server, name: str, tmp_path: Path) -> str:
    """Have a data set come from the server, as its stand-in; the path of its last file there."""
    if name in ARCHIVES:
        paths = [make_archive(name, tmp_path / "served")]
    else:
        files = write(name, tmp_path / f"{name}-files")
        paths = [pack(files / file) for file in FILES[name]]
    contents = [path.read_bytes() for path in paths]
    server.files = {f"/{path.name}": content for path, content in zip(paths, contents, strict=True)}
    expect(monkeypatch, name, contents, server.address)
    return f"/{paths[-1].name}"


def same(a: DataSet, b: DataSet) -> bool:
    return all(
        bool((x.images == y.images).all() and (x.labels == y.labels).all())
        for x, y in ((a.train, b.train), (a.test, b.test))
    )


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


# Folders


@pytest.mark.parametrize("name", list(FILES))
def test_a_folder_may_be_the_one_around_the_files(tmp_path: Path, name: str, cache: Path) -> None:
    direct = load_data(name, write(name, tmp_path / "direct"))
    for folder in catalogue._READERS[name][0].folders:
        write(name, tmp_path / "around" / folder)
        assert same(load_data(name, str(tmp_path / "around")), direct)
    assert not cache.exists()


def test_a_home_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write("cifar10", tmp_path / "images")
    assert len(load_data("cifar10", "~/images").train) == 50


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_data("cifar10", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: no such folder"):
        load_data("cifar10", tmp_path / "file")
    text = f"{tmp_path}: holds no train.bin, test.bin, no folder cifar-100-binary with them and no cifar-100-binary.tar"
    with pytest.raises(DataError, match=re.escape(text)):
        load_data("cifar100", tmp_path)
    with pytest.raises(DataError, match=r"no folder fashion-mnist or data/fashion with them$"):
        load_data("fashion_mnist", tmp_path)


def test_a_folder_is_not_filled_from_the_network(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, server, "cifar10", tmp_path)
    with pytest.raises(DataError, match=r"holds no data_batch_1\.bin"):
        load_data("cifar10", tmp_path / "served" / "..")
    assert server.requests == []


# Archives in a folder


@pytest.mark.parametrize("name", list(ARCHIVES))
def test_an_archive_is_unpacked_into_the_cache_once(
    tmp_path: Path, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(name, tmp_path / "mine")
    expect(monkeypatch, name, [archive.read_bytes()])
    loaded = load_data(name, archive.parent)
    assert same(loaded, load_data(name, tmp_path / f"{name}-files"))
    assert listing(archive.parent) == {archive.name}
    unpacked = {f"{name}/{ARCHIVED[name]}/{file}" for file in FILES[name]}
    assert listing(cache) == unpacked
    times = {file: (cache / file).stat().st_mtime_ns for file in unpacked}
    assert same(load_data(name, archive.parent), loaded)
    assert same(load_data(name, download=False), loaded)
    assert times == {file: (cache / file).stat().st_mtime_ns for file in unpacked}


def test_an_archive_of_other_contents_is_refused(tmp_path: Path, cache: Path) -> None:
    archive = make_archive("cifar10", tmp_path / "mine")
    found = hashlib.md5(archive.read_bytes()).hexdigest()
    text = f"{archive}: its MD5 is {found}, that of the official file c32a1d4ab5d03f1284b67883e8d87530"
    with pytest.raises(DataError, match=re.escape(text)):
        load_data("cifar10", archive.parent)
    assert not cache.exists()


def forge(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_only_the_expected_members_are_written(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the hash were right: nothing outside of the folder, nothing by another name, no link."""
    files = write("cifar10", tmp_path / "files")
    link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
    hostile = [
        (tarfile.TarInfo("../escaped"), b"x"),
        (tarfile.TarInfo(str(tmp_path / "escaped")), b"x"),
        (tarfile.TarInfo("cifar-10-batches-bin/../../escaped"), b"x"),
        (tarfile.TarInfo("cifar-10-batches-bin/extra.bin"), b"x"),
        (tarfile.TarInfo("test_batch.bin"), b"x"),
        (link, b""),
    ]
    proper = [
        (tarfile.TarInfo(f"cifar-10-batches-bin/{file}"), (files / file).read_bytes()) for file in FILES["cifar10"]
    ]
    (tmp_path / "mine").mkdir()
    archive = tmp_path / "mine" / ARCHIVES["cifar10"]
    forge(archive, hostile + proper)
    expect(monkeypatch, "cifar10", [archive.read_bytes()])
    assert same(load_data("cifar10", archive.parent), load_data("cifar10", files))
    assert listing(cache) == {f"cifar10/cifar-10-batches-bin/{file}" for file in FILES["cifar10"]}
    assert not list(tmp_path.rglob("escaped"))


def test_an_archive_without_a_member_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    archive = tmp_path / "mine" / ARCHIVES["cifar100"]
    forge(archive, [(tarfile.TarInfo("cifar-100-binary/train.bin"), b"x")])
    expect(monkeypatch, "cifar100", [archive.read_bytes()])
    with pytest.raises(DataError, match=r"cifar-100-binary\.tar\.gz: holds no cifar-100-binary/test\.bin"):
        load_data("cifar100", archive.parent)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_a_truncated_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: float) -> None:
    """With the hash of what is there, to get past that check."""
    archive = make_archive("cifar100", tmp_path / "mine")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    expect(monkeypatch, "cifar100", [archive.read_bytes()])
    with pytest.raises(DataError, match=r"cifar-100-binary\.tar\.gz: damaged: "):
        load_data("cifar100", archive.parent)


# Downloads


@pytest.mark.parametrize("name", list(FILES))
def test_what_is_not_in_the_cache_is_downloaded_once(
    tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    serve(monkeypatch, server, name, tmp_path)
    with pytest.raises(DataError, match=f"cache/{name}/.*: not there, and nothing may be downloaded"):
        load_data(name, download=False)
    loaded = load_data(name)
    assert [path for path, _ in server.requests] == list(server.files)
    assert same(load_data(name), loaded)
    assert same(load_data(name, download=False), loaded)
    assert len(server.requests) == len(server.files)
    if name in ARCHIVES:
        assert same(loaded, load_data(name, tmp_path / f"{name}-files"))
        assert same(load_data(name, cache / name), loaded)  # the archive is kept and is no different from one's own
    assert not [file for file in listing(cache) if file.endswith((".part", ".tmp"))]


def test_the_cache_is_completed(tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file removed from it is unpacked again from the archive, and that is downloaded if it is gone or changed."""
    serve(monkeypatch, server, "stl10", tmp_path)
    loaded = load_data("stl10")
    for remove, requests in (("train_y.bin", 1), (ARCHIVES["stl10"], 1), ("test_X.bin", 2)):
        next(cache.rglob(remove)).unlink()
        assert same(load_data("stl10"), loaded)
        assert len(server.requests) == requests
    next(cache.rglob("test_X.bin")).unlink()
    (cache / "stl10" / ARCHIVES["stl10"]).write_bytes(b"changed")
    assert same(load_data("stl10"), loaded)
    assert len(server.requests) == 3


def test_a_wrong_hash_is_refused_and_forgotten(
    tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = serve(monkeypatch, server, "cifar10", tmp_path)
    right = server.files[path]
    server.files[path] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(DataError, match=rf"{server.address}{path}: cannot be downloaded: MD5 hash .* does not match"):
        load_data("cifar10")
    assert listing(cache) == set()
    server.files[path] = right
    assert len(load_data("cifar10").train) == 50
    assert [wanted for _, wanted in server.requests] == [None, None]  # not a continuation of what was wrong


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    serve(monkeypatch, server, "cifar10", tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")  # what rich takes standard error for
    load_data("cifar10")
    out, shown = capsys.readouterr()
    assert out == ""
    size = len(next(iter(server.files.values()))) / 1000
    assert ((f"{size:.1f}/{size:.1f} kB" in shown) and ("cifar-10-binary.tar.gz" in shown)) == terminal


def test_a_transfer_cut_short_is_continued_at_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = serve(monkeypatch, server, "cifar10", tmp_path)
    server.cuts = [70_000, 70_000]
    assert len(load_data("cifar10").train) == 50
    # Whole pieces of 64 KiB are kept, at the least.
    assert server.requests[0] == (path, None)
    starts = [int(str(wanted).removeprefix("bytes=").removesuffix("-")) for _, wanted in server.requests[1:]]
    assert len(starts) == 2
    assert 65_536 <= starts[0] <= 70_000
    assert starts[0] + 65_536 <= starts[1] <= starts[0] + 70_000


def test_a_transfer_given_up_is_continued_by_the_next_call(
    tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = serve(monkeypatch, server, "cifar10", tmp_path)
    server.cuts = [70_000, 0]
    with pytest.raises(DataError, match=r"cannot be downloaded: .*cifar-10-binary\.tar\.gz\.part is kept and will be"):
        load_data("cifar10")
    assert len(server.requests) == 2
    assert listing(cache) == {"cifar10/cifar-10-binary.tar.gz.part"}
    kept = (cache / "cifar10" / "cifar-10-binary.tar.gz.part").stat().st_size
    assert len(load_data("cifar10").train) == 50
    assert server.requests[2:] == [(path, f"bytes={kept}-")]


def test_a_server_that_cannot_continue_begins_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, server, "cifar10", tmp_path)
    server.cuts, server.ranges = [70_000], False
    assert len(load_data("cifar10").train) == 50
    assert len(server.requests) == 2


@pytest.mark.parametrize("extra", [0, 100])
def test_a_part_that_is_everything_or_too_much(
    tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    """Left by a process that ended before it could rename it; or belonging to a longer file of other times."""
    path = serve(monkeypatch, server, "cifar10", tmp_path)
    (cache / "cifar10").mkdir(parents=True)
    (cache / "cifar10" / f"{path[1:]}.part").write_bytes(server.files[path] + bytes(extra))
    assert len(load_data("cifar10").train) == 50
    assert len(server.requests) == (2 if extra else 1)


def test_a_missing_page_is_named(tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = serve(monkeypatch, server, "fashion_mnist", tmp_path)
    del server.files[path]
    with pytest.raises(DataError, match=rf"{server.address}{path}: cannot be downloaded: 404 .*--data-folder"):
        load_data("fashion_mnist")
    assert len(listing(cache)) == 3  # the other files are there and are not asked for again
    serve(monkeypatch, server, "fashion_mnist", tmp_path)
    server.requests.clear()
    load_data("fashion_mnist")
    assert [asked for asked, _ in server.requests] == [path]


def test_without_a_network_an_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        expect(monkeypatch, "cifar10", [b""], address)
        with pytest.raises(DataError) as caught:
            load_data("cifar10")
    text = str(caught.value)
    assert text.startswith(f"{address}/cifar-10-binary.tar.gz: cannot be downloaded: ")
    assert "download it by other means into a folder and name that (--data-folder)" in text
    assert "is kept" not in text
    assert "\n" not in text


def test_those_that_start_together_download_once(
    tmp_path: Path, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads here; the lock is one on a file, which processes share alike. The server gives each time to ask."""
    serve(monkeypatch, server, "cifar100", tmp_path)
    server.patience = 0.5
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda _: load_data("cifar100"), range(3)))
    assert all(same(data, loaded[0]) for data in loaded)
    assert len(server.requests) == 1
    assert not [file for file in listing(cache) if file.endswith((".part", ".tmp"))]


def test_the_cache_lies_where_it_is_said_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from leancore.torch.train.data.fetch import cache_folder

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LEANCORE_DATA", "~/elsewhere")
    assert cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("LEANCORE_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / ".cache" / "leancore"
