"""Shards behind a real HTTP server on this machine, which can be told to fail."""

import base64
import errno
import fcntl
import http.server
import importlib.util
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
import torch

from datamodules.errors import UserError
from datamodules.files import sha256_of
from datamodules.image_shards import ImageShards
from datamodules.local_copies import open_lock
from datamodules.preprocessing import Preprocessing
from datamodules.remote import LocalCopies, RemoteError, RemoteFolder, is_url
from datamodules.shards import read_shard_clips, write_shards
from datamodules.splits import load_split
from datamodules.teacher_images import TeacherImages


class _Unreliable(http.server.SimpleHTTPRequestHandler):
    failures: ClassVar[list[int]] = []  # status codes of the next answers; 0 cuts the body short
    asked: ClassVar[list[str]] = []
    wanted: ClassVar[str | None] = None  # the header Authorization without which it says 401

    def do_GET(self):
        type(self).asked.append(self.path)
        if self.wanted not in (None, self.headers.get("Authorization")):
            self.send_error(401)
            return
        if type(self).failures:
            status = type(self).failures.pop(0)
            if status:
                self.send_error(status)
                return
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b"half of it")
            self.close_connection = True
            return
        super().do_GET()

    def do_HEAD(self):
        if self.wanted not in (None, self.headers.get("Authorization")):
            self.send_error(401)
            return
        if type(self).failures:
            self.send_error(type(self).failures.pop(0) or 502)
            return
        super().do_HEAD()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and the URL under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    _Unreliable.failures, _Unreliable.asked = [], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Unreliable, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def write(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def remote(url, tmp_path, limit=10**9, attempts=4):
    return RemoteFolder(url, tmp_path / "local", limit_bytes=limit, attempts=attempts, first_wait_s=0.01)


def hold(here, name, source):
    """The copy of a shard whose size and hash are those of the file `source`."""
    return here.hold(name, size=source.stat().st_size, sha256=sha256_of(source))


def test_a_file_is_copied_once_and_is_the_same(served, tmp_path):
    folder, url = served
    path = write(folder, "train/a.tar", 3_000_000)
    here = remote(url, tmp_path)
    copy = hold(here, "train/a.tar", path).path
    assert copy.read_bytes() == path.read_bytes()
    asked = len(_Unreliable.asked)
    assert hold(here, "train/a.tar", path).path == copy
    assert len(_Unreliable.asked) == asked


def test_what_is_published_anew_under_the_same_url_is_not_the_old_copy(served, tmp_path):
    folder, url = served
    here = remote(url, tmp_path)
    old = hold(here, "train/a.tar", write(folder, "train/a.tar", 5000))
    first = old.path.read_bytes()
    old.close()
    path = write(folder, "train/a.tar", 5000)  # of the size of before
    for _ in range(2):
        held = hold(here, "train/a.tar", path)
        assert held.path.read_bytes() == path.read_bytes() != first
        held.close()
    assert len([one for one in _Unreliable.asked if one.endswith("a.tar")]) == 2
    assert here.fetch("train/a.tar", sha256=sha256_of(path)).read_bytes() == path.read_bytes()


def test_what_a_killed_download_left_is_cleared_away(served, tmp_path):
    folder, url = served
    path = write(folder, "train/a.tar", 5000)
    here = remote(url, tmp_path)
    left = here.folder / "train" / ".a.tar.partial-99999"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    hold(here, "train/a.tar", path).close()
    assert not left.exists()


def test_a_server_that_fails_for_a_while_is_asked_again(served, tmp_path, caplog):
    folder, url = served
    path = write(folder, "train/a.tar", 5000)
    _Unreliable.failures = [503, 503, 0, 0]
    copy = hold(remote(url, tmp_path), "train/a.tar", path).path
    assert copy.read_bytes() == path.read_bytes()
    assert "attempt 2" in caplog.text
    assert not list(copy.parent.glob("*partial*"))


@pytest.mark.parametrize("status", [403, 404])
def test_an_answer_that_will_not_change_is_taken_at_once(status, served, tmp_path):
    folder, url = served
    path = write(folder, "train/a.tar", 5000)
    _Unreliable.failures = [status] * 9
    with pytest.raises(RemoteError, match="cannot be read"):
        hold(remote(url, tmp_path), "train/a.tar", path)
    assert len(_Unreliable.failures) >= 6


def test_a_server_that_keeps_failing_is_named_with_the_number_of_attempts(served, tmp_path):
    folder, url = served
    path = write(folder, "train/a.tar", 5000)
    _Unreliable.failures = [500] * 50
    with pytest.raises(RemoteError, match=r"train/a.tar: could not be read in 3 attempts, at last because of .*500"):
        hold(remote(url, tmp_path, attempts=3), "train/a.tar", path)
    assert not list((tmp_path / "local").rglob("a.tar"))


def test_waits_double(monkeypatch, tmp_path):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    folder = RemoteFolder("http://127.0.0.1:9", tmp_path, limit_bytes=1, attempts=5, first_wait_s=1)
    with pytest.raises(RemoteError, match="in 5 attempts"):
        folder.fetch("train/a.tar")  # nobody listens at the port
    assert len(waits) == 4
    assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(waits))


def test_what_is_missing_is_not_asked_for_again(served, tmp_path):
    _, url = served
    with pytest.raises(RemoteError, match=r"nothing.tar: cannot be read \(\w+"):
        remote(url, tmp_path).fetch("train/nothing.tar")
    assert len(_Unreliable.asked) <= 2


def test_another_content_is_refused_however_often_it_comes(served, tmp_path):
    folder, url = served
    path = write(folder, "train/a.tar", 5000)
    with pytest.raises(RemoteError, match="5000 bytes instead of 6000"):
        remote(url, tmp_path).hold("train/a.tar", size=6000, sha256=sha256_of(path))
    with pytest.raises(RemoteError, match=f"instead of {'0' * 64}"):
        remote(url, tmp_path).hold("train/a.tar", size=5000, sha256="0" * 64)


def test_what_was_used_least_recently_and_is_not_held_makes_room(tmp_path):
    files = {name: write(tmp_path / "source", f"train/{name}.tar", 1000) for name in "abcd"}
    here = remote(f"file://{tmp_path / 'source'}", tmp_path, limit=3000)

    def use(name):
        return hold(here, f"train/{name}.tar", files[name])

    def names():
        return "".join(sorted(path.stem for path in here.folder.rglob("*.tar")))

    for age, name in ((400, "a"), (300, "b"), (200, "c")):
        copy = use(name)
        os.utime(copy.path, (time.time() - age, time.time() - age))
        copy.close()
    first = use("a")
    fourth = use("d")
    assert names() == "acd"
    second = use("b")
    assert names() == "abd"
    third = use("c")
    assert names() == "abcd", "all others are held"
    for copy in (first, second, third, fourth):
        copy.close()
    os.utime(third.path, (0, 0))
    files["e"] = write(tmp_path / "source", "train/e.tar", 3000)
    use("e").close()
    assert names() == "e"


def test_a_copy_that_two_hold_stays_until_both_let_go(tmp_path):
    files = {name: write(tmp_path / "source", f"train/{name}.tar", 1000) for name in "abc"}
    here = remote(f"file://{tmp_path / 'source'}", tmp_path, limit=1000)
    one, two = (hold(here, "train/a.tar", files["a"]) for _ in range(2))
    one.close()
    hold(here, "train/b.tar", files["b"]).close()
    assert two.path.read_bytes() == files["a"].read_bytes()
    two.close()
    hold(here, "train/c.tar", files["c"]).close()
    assert [path.stem for path in here.folder.rglob("*.tar")] == ["c"]


def test_downloads_at_the_same_time_make_room_for_each_other(tmp_path, monkeypatch):
    """Each of them counts what the others will need, or four would fill a folder that has room for four twice over."""
    files = {name: write(tmp_path / "source", f"train/{name}.tar", 1000) for name in "abcdefgh"}
    here = remote(f"file://{tmp_path / 'source'}", tmp_path, limit=4000)
    for name in "abcd":
        hold(here, f"train/{name}.tar", files[name]).close()
    together, copy_file = threading.Barrier(4), RemoteFolder._copy

    def copy(self, *rest):
        together.wait(timeout=30)
        copy_file(self, *rest)

    monkeypatch.setattr(RemoteFolder, "_copy", copy)
    threads = [threading.Thread(target=hold, args=(here, f"train/{name}.tar", files[name])) for name in "efgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(sorted(path.stem for path in here.folder.rglob("*.tar"))) == "efgh"
    assert not list(here.copies.root.rglob("*.room"))


def test_room_that_a_killed_process_was_promised_is_free_again(tmp_path):
    files = {name: write(tmp_path / "source", f"train/{name}.tar", 1000) for name in "ab"}
    here = remote(f"file://{tmp_path / 'source'}", tmp_path, limit=2000)
    hold(here, "train/a.tar", files["a"]).close()
    left = here.folder / "train" / ".z.tar.room"
    left.write_text("1000")
    hold(here, "train/b.tar", files["b"]).close()
    assert "".join(sorted(path.stem for path in here.folder.rglob("*.tar"))) == "ab"
    assert not left.exists()


def test_a_full_disk_is_said_at_once_and_not_blamed_on_the_network(tmp_path, monkeypatch):
    file = write(tmp_path / "source", "train/a.tar", 1000)
    asked = []

    def full(self, *rest):
        asked.append(rest)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RemoteFolder, "_copy", full)
    with pytest.raises(RemoteError, match=r"does not fit into .*local .*No space left.* Free some of that disk"):
        hold(remote(f"file://{tmp_path / 'source'}", tmp_path), "train/a.tar", file)
    assert len(asked) == 1


def test_credentials_of_netrc_are_sent(served, tmp_path, monkeypatch):
    """As the message about credentials in a URL says."""
    folder, url = served
    path = write(folder, "train/a.tar", 1000)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login farm password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr(_Unreliable, "wanted", "Basic " + base64.b64encode(b"farm:secret").decode())
    hold(remote(url, tmp_path), "train/a.tar", path).close()
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(RemoteError, match="401"):
        remote(url, tmp_path).fetch("train/a.tar", fresh=True)


def test_processes_that_ask_at_once_share_one_download(served, tmp_path):
    folder, url = served
    path = write(folder, "train/a.tar", 200_000)
    here = remote(url, tmp_path)
    threads = [threading.Thread(target=hold, args=(here, "train/a.tar", path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in _Unreliable.asked if one.endswith("a.tar")]) <= 2


@pytest.fixture
def pen(served, clips, tmp_path):
    """Image shards that are served, their URL, and room for no copy but those that are held."""
    folder, url = served
    write_shards(clips, load_split("pen"), folder / "pen", samples_per_shard=4)
    return folder / "pen", f"{url}/pen", LocalCopies(str(tmp_path / "local"), limit_gib=1e-9, attempts=2)


def test_clips_behind_a_url_are_those_of_the_folder(pen, number_of, tmp_path):
    folder, url, copies = pen
    here, there = read_shard_clips(folder, "train"), read_shard_clips(ImageShards(url, copies), "train")
    assert [clip.name for clip in there] == [clip.name for clip in here]
    for ours, theirs in zip(there, here, strict=True):
        assert ours.annotations.keys() == theirs.annotations.keys()
        for _ in range(2):  # its first shard has made room for its last by then
            assert [number_of(image) for image in ours.source] == list(range(theirs.num_frames))
            assert len(list((tmp_path / "local").rglob("*.tar"))) == 1


def test_a_shard_that_is_gone_ends_a_clip_by_name(pen):
    folder, url, copies = pen
    clip = read_shard_clips(ImageShards(url, copies), "train")[0]
    (folder / "train" / "train-000000.tar").unlink()
    with pytest.raises(RemoteError, match=r"train/train-000000.tar: cannot be read"):
        next(iter(clip.source))


def test_a_teachers_pictures_behind_a_url_are_those_of_the_folder(pen, tmp_path):
    folder, url, copies = pen
    shards = [(shard, 1) for shard in ImageShards(folder).manifest.splits["train"]]
    assert len(shards) > 1
    here, there = (
        TeacherImages(images, shards, Preprocessing(32), batch_size=2)
        for images in (ImageShards(folder), ImageShards(url, copies))
    )
    for number in range(len(here)):
        ours, theirs = there[number], here[number]
        assert (ours["key"], ours["shard"]) == (theirs["key"], theirs["shard"])
        assert torch.equal(ours["image"], theirs["image"])
        assert len(list((tmp_path / "local").rglob("*.tar"))) == 1


def test_an_object_store_of_fsspec_is_read_too(tmp_path):
    with fsspec.open("memory://bucket/pen/train/a.tar", "wb") as file:
        file.write(b"x" * 100)
    assert remote("memory://bucket/pen", tmp_path).fetch("train/a.tar").read_bytes() == b"x" * 100


@pytest.mark.parametrize("url", ["pipe:cat secret", "simplecache::http://host/x", "ftp://host/x", "pipe://x"])
def test_other_kinds_of_urls_are_refused(url, tmp_path):
    assert is_url(url)
    with pytest.raises(RemoteError, match="expected https://, http://, s3://, gs://"):
        remote(url, tmp_path)


@pytest.mark.parametrize("url", ["https://me:secret@host/x", "https://host/x?signature=secret"])
def test_credentials_are_refused_and_not_repeated(url, tmp_path):
    with pytest.raises(RemoteError, match="credentials") as caught:
        remote(url, tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("place", ["shards", "/data/shards", "./a:b", "../x"])
def test_paths_are_no_urls(place):
    assert not is_url(place)
    assert LocalCopies().remote(place) is None


@pytest.mark.parametrize("file", ["../x.tar", "/etc/passwd", "train/../../x", "", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(file, tmp_path):
    with pytest.raises(RemoteError, match="names the file"):
        remote("https://host/x", tmp_path).fetch(file)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(UserError, match="limit_gib 0"):
        LocalCopies(limit_gib=0)


def test_a_package_that_is_missing_is_named(tmp_path):
    if importlib.util.find_spec("s3fs") is not None:
        pytest.skip("s3fs is installed")
    with pytest.raises(RemoteError, match="pip install s3fs"):
        remote("s3://bucket/pen", tmp_path).fetch("manifest.json")


def test_a_lock_can_be_shared_and_taken_alone_also_where_the_system_locks_byte_ranges(tmp_path):
    """NFS makes byte ranges of flock: to share takes a file that is open for reading, to have it alone for writing."""
    with open_lock(tmp_path / "a.tar") as lock:
        assert fcntl.fcntl(lock, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_shared_lock_is_let_go_before_one_waits_to_have_it_alone(served, tmp_path, monkeypatch):
    folder, url = served
    path = write(folder, "train/a.tar", 5000)
    asked = []
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (asked.append((file.name, how)), flock(file, how))[1])
    hold(remote(url, tmp_path), "train/a.tar", path).close()
    of_copy = [how for name, how in asked if name.endswith(".a.tar.lock")]
    assert of_copy == [fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_EX, fcntl.LOCK_SH]
