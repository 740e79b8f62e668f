import pytest
import torch

from datamodules.files import partial_directory, recover_directories, replace_directory
from pl_distill.checkpoint_io import WholeCheckpointIO


def write(folder, text):
    folder.mkdir()
    (folder / "part").write_text(text)
    return folder


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": torch.tensor(1)}, path)
    with pytest.raises(Exception, match="pickle"):
        WholeCheckpointIO().save_checkpoint({"step": lambda: None}, path)
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_directory_takes_the_place_of_a_directory_or_a_file(tmp_path):
    path = tmp_path / "last.ckpt"
    for number, text in enumerate(("one", "two", "three")):
        if number == 2:
            (path / "part").unlink()
            path.rmdir()
            path.write_text("a checkpoint of one process")
        write(partial_directory(path), text)
        replace_directory(path)
        assert (path / "part").read_text() == text
        assert [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_a_kill_left_aside_is_put_back_only_where_it_is_missing(tmp_path):
    write(tmp_path / ".last.ckpt.old", "old")
    recover_directories(tmp_path)
    assert (tmp_path / "last.ckpt" / "part").read_text() == "old"
    write(tmp_path / ".last.ckpt.old", "older")
    recover_directories(tmp_path)
    assert (tmp_path / "last.ckpt" / "part").read_text() == "old"
    recover_directories(tmp_path / "nowhere")
