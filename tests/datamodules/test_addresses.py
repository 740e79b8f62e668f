import pytest

from datamodules.addresses import is_live, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://u:p@host:554/a/b?x=y", "rtsp://host:554/a/b"),
        ("rtsp://u:p@ss@host/a", "rtsp://host/a"),
        ("http://host/a@b", "http://host/a@b"),
        ("rtsp://host/user=admin_password=a_b_channel=1/x", "rtsp://host/user=admin_password=.../x"),
        ("rtsp://host/login&PWD=1&ch=2", "rtsp://host/login&PWD=...&ch=2"),
        ("rtsp://admin:ge/heim@host/pen?x=y", "rtsp://host/pen"),
        ("rtsp://admin:g@e/heim@host/pen", "rtsp://host/pen"),
        ("rtsp://ad/min:ge#heim@host/pen", "rtsp://..."),
        ("rtsp://admin:ge?heim@host/pen", "rtsp://..."),
        ("http://host:80/a?key=1&mail=u@secret", "http://..."),
        ("http://host:80/a?pwd=1@secret", "http://host:80/a"),
        ("http://host/a?mail=u@secret", "http://host/a"),
        ("rtsp://host:554/user=a_password=1@2_channel=1", "rtsp://host:554/user=a_password=..."),
        ("rtsp://user@host/a", "rtsp://host/a"),
        ("rtsp://host:554/0/admin:SECRET/main", "rtsp://host:554/0/.../main"),
        ("rtsp://[fe80::1]:554/main:", "rtsp://[fe80::1]:554/main:"),
        ("http://host/login=admin/pw=SECRET/x", "http://host/login=admin/pw=.../x"),
        ("http://host/Token=SECRET/key=SECRET&x=1", "http://host/Token=.../key=...&x=1"),
        ("rtsp://host/p#token=SECRET", "rtsp://host/p"),
        ("rtsp://host/p#SECRET", "rtsp://host/p"),
        ("rtsp://host/admin%3ASECRET/x", "rtsp://host/.../x"),
        ("/data/10:00/a:b.mp4", "/data/10:00/a:b.mp4"),
        ("admin:pw@10.0.0.7/pen", "10.0.0.7/pen"),
        ("admin:p/w@10.0.0.7/pen", "10.0.0.7/pen"),
        ("/data/10:00@barn/?.mp4", "/data/10:00@barn/?.mp4"),
        ("/dev/video0", "/dev/video0"),
        ("rtmp://host/app/SECRET", "rtmp://host/app/..."),
        ("rtmps://u:p@host:1936/app/barn/SECRET/?x=y", "rtmps://host:1936/app/barn/..."),
        ("--video=RTMP://host/SECRET", "--video=RTMP://host/..."),
        ("rtmp://host", "rtmp://host"),
    ],
)
def test_an_address_is_shown_without_secrets(address, shown):
    assert without_secrets(address) == shown


def test_devices_and_streams_are_live_and_files_are_not(tmp_path):
    assert is_live("/dev/null")  # a character device, as cameras are
    assert is_live("RTSP://host/a")
    assert not is_live(str(tmp_path))
    assert not is_live("pipe:0")
    assert not is_live("c:/clips/a.mp4")
