import hashlib
import json
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from datamodules.files import (
    atomic_directory,
    atomic_path,
    await_recovered,
    recover_directories,
    sha256_of,
    write_json,
    write_json_lines,
)


def test_a_file_appears_when_the_block_ends_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # the same file system, so that the rename is atomic
        assert temporary.name.startswith(".")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("in_a_folder", [False, True])
def test_weights_can_be_read_by_whoever_can_read_other_files(tmp_path, in_a_folder):
    """On a cluster a group shares models; safetensors makes files for their owner alone."""
    (tmp_path / "other.txt").write_text("as any file")
    if in_a_folder:
        with atomic_directory(tmp_path / "model", replace=True) as folder:
            save_file({"weight": np.zeros(2, np.float32)}, folder / "model.safetensors")
            (folder / "linked.txt").symlink_to(tmp_path / "other.txt")
    else:
        with atomic_path(tmp_path / "model/model.safetensors") as temporary:
            save_file({"weight": np.zeros(2, np.float32)}, temporary)
    mode = (tmp_path / "other.txt").stat().st_mode
    assert (tmp_path / "model/model.safetensors").stat().st_mode == mode


def test_processes_of_equal_number_on_two_hosts_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    with atomic_path(path) as ours:
        ours.write_text("ours")
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "another-host")
            with atomic_path(path) as theirs:
                theirs.write_text("theirs")
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def write_folder(path, text="new", *, replace):
    with atomic_directory(path, replace=replace) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "a.txt").write_text(text)
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_appears_when_the_block_ends_and_those_above_it_are_made(tmp_path, replace):
    path = tmp_path / "a" / "b"
    write_folder(path, replace=replace)
    assert (path / "a.txt").read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_takes_the_place_of_an_empty_one(tmp_path, replace):
    path = tmp_path / "a"
    path.mkdir()
    write_folder(path, replace=replace)
    assert (path / "a.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_the_old_one_and_what_a_killed_writer_left(tmp_path):
    path, left = tmp_path / "a", tmp_path / ".a.partial"
    for folder in (path, left):
        folder.mkdir()
        (folder / "old.txt").write_text("old")
    write_folder(path, replace=True)
    assert [file.name for file in path.iterdir()] == ["a.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_to_be_replaced_stays_and_the_new_one_goes(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with pytest.raises(OSError, match="not empty"):
        write_folder(path, replace=False)
    assert [file.name for file in path.iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("replace", [False, True])
def test_after_an_error_the_old_folder_is_there_and_nothing_else(tmp_path, replace):
    path = tmp_path / "a"
    write_folder(path, "old", replace=True)

    def fail():
        with atomic_directory(path, replace=replace) as temporary:
            (temporary / "a.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("replace", [False, True])
def test_every_file_of_a_folder_is_synced_before_it_has_its_name(tmp_path, monkeypatch, replace):
    path, synced = tmp_path / "a", []
    sync = os.fsync

    def note(descriptor):
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with atomic_directory(path, replace=replace) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "b.txt").write_text("b")
        (temporary / "a.txt").write_text("a")
    assert {("a.txt", False), ("b.txt", False), ("sub", False), (temporary.name, False)} <= set(synced)
    assert synced[-1] == (tmp_path.name, True)


def test_json_is_readable_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Überferkel", "values": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Überferkel" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"name": "Überferkel", "values": [1, 2]}


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == 1


def test_json_lines_are_one_record_each(tmp_path):
    write_json_lines(tmp_path / "a.jsonl", [{"a": 1}, [2, "x\ny"]])
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [{"a": 1}, [2, "x\ny"]]


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_a_folder_that_a_kill_left_aside_is_waited_for_until_another_process_has_put_it_back(tmp_path):
    aside = tmp_path / ".last.ckpt.old"
    aside.mkdir()
    began = time.monotonic()
    await_recovered(tmp_path, patience_s=0.3)
    assert time.monotonic() - began >= 0.3  # nobody came
    other = threading.Timer(0.5, recover_directories, (tmp_path,))
    other.start()
    await_recovered(tmp_path, patience_s=60)
    other.join()
    assert (tmp_path / "last.ckpt").is_dir()
    aside.mkdir()  # beside the whole one: what a kill right after the exchange leaves is nobody's concern
    await_recovered(tmp_path, patience_s=60)
