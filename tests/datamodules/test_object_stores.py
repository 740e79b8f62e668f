"""Shards in an S3 and in a Google Cloud Storage: servers of these interfaces on this machine, read by s3fs and gcsfs.

They need packages that only users of buckets have, see docs/data-at-scale.md; without them they are skipped.
"""

import socket

import fsspec
import pytest
import torch

from datamodules.image_shards import ImageShards
from datamodules.preprocessing import Preprocessing
from datamodules.remote import LocalCopies, RemoteError, RemoteFolder
from datamodules.shards import read_shard_clips, write_shards
from datamodules.splits import load_split
from datamodules.teacher_images import TeacherImages

for package in ("s3fs", "gcsfs", "flask_cors"):
    pytest.importorskip(package)
moto = pytest.importorskip("moto.server")
gcp = pytest.importorskip("gcp_storage_emulator.server")

BUCKET = "pigs"


@pytest.fixture(scope="module")
def s3():
    """An S3 with one bucket, and credentials where its users keep them."""
    with pytest.MonkeyPatch.context() as environment:
        server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "somebody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(BUCKET)
        yield server
        server.stop()


@pytest.fixture(scope="module")
def gs():
    """A Google Cloud Storage with one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as environment:
        server = gcp.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
        server.start()
        environment.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        environment.setenv("FSSPEC_GS_TOKEN", "anon")
        environment.setenv(
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
        )  # asks over gRPC, which the server does not speak
        yield server
        server.stop()


@pytest.fixture(params=["s3", "gs"])
def stored(request, clips, tmp_path):
    """A folder of image shards, the URL of the same in a bucket, and room for no copy but those that are held."""
    request.getfixturevalue(request.param)
    folder = tmp_path / "pen"
    write_shards(clips, load_split("pen"), folder, samples_per_shard=4)
    place = f"{BUCKET}/{tmp_path.name}"
    system = fsspec.filesystem(request.param, skip_instance_cache=True)
    for path in folder.rglob("*.*"):
        system.pipe_file(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return folder, f"{request.param}://{place}", LocalCopies(str(tmp_path / "local"), limit_gib=1e-9, attempts=2)


def test_shards_in_a_bucket_are_those_of_the_folder(stored, number_of):
    folder, url, copies = stored
    here, there = read_shard_clips(folder, "train"), read_shard_clips(ImageShards(url, copies), "train")
    assert [clip.name for clip in there] == [clip.name for clip in here]
    assert [number_of(image) for image in there[0].source] == list(range(here[0].num_frames))
    shards = [(shard, 1) for shard in ImageShards(folder).manifest.splits["train"]]
    ours, theirs = (
        TeacherImages(images, shards, Preprocessing(32), batch_size=2)[0]
        for images in (ImageShards(url, copies), ImageShards(folder))
    )
    assert torch.equal(ours["image"], theirs["image"])


def test_what_a_bucket_does_not_have_is_named_at_once(stored, tmp_path):
    _, url, _ = stored
    folder = RemoteFolder(url, tmp_path / "other", limit_bytes=10**9, attempts=3, first_wait_s=100.0)
    with pytest.raises(RemoteError, match=rf"{url}/missing.tar: cannot be read .*Check URL and rights"):
        folder.fetch("missing.tar")


def test_a_store_that_is_not_there_is_asked_again(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()  # or the one that knows the other address is used again
    folder = RemoteFolder(f"s3://{BUCKET}/pen", tmp_path / "other", limit_bytes=10**9, attempts=2, first_wait_s=0.01)
    with pytest.raises(RemoteError, match="could not be read in 2 attempts"):
        folder.fetch("a.tar")
