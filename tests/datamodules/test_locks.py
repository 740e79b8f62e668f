import errno
import fcntl

import pytest

from datamodules.locks import held


def test_one_holds_it_at_a_time(tmp_path):
    with held(tmp_path / "new" / ".lock", wait=False) as mine:
        assert mine
        with held(tmp_path / "new" / ".lock", wait=False) as other:
            assert not other
    with held(tmp_path / "new" / ".lock", wait=True) as mine:
        assert mine


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_and_used(number, tmp_path, monkeypatch, caplog):
    def flock(file, how):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(tmp_path / ".lock", wait=False) as mine:
        assert mine
    assert f"{tmp_path}: this file system has no locks" in caplog.text
    number = errno.EIO
    with pytest.raises(OSError, match="no locks here"), held(tmp_path / ".lock", wait=False):
        pytest.fail("another error is one")
