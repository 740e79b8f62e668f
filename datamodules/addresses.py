"""Addresses of cameras and streams: what is one, and what of it may be shown."""

import re
from pathlib import Path

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp")


def is_live(address: str) -> bool:
    """Whether this is the address of a stream, or a video device."""
    return scheme_of(address) in SCHEMES or Path(address).is_char_device()


def scheme_of(address: str) -> str | None:
    """Return what stands before the first colon, in lower case, if that can be the name of a protocol."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]+(?=[:,])", address)
    return found[0].lower() if found else None


def without_secrets(address: str) -> str:
    """Return an address without user, password, query and fragment, as it may be shown and stored; others as they are.

    Some cameras want the password in the path: ``rtsp://10.0.0.7/user=admin_password=1234_channel=1``, or both in a
    part of it, ``rtsp://10.0.0.7/0/admin:1234/main``; of RTMP its last part is the key of the stream. A password may
    hold what it should not, ``rtsp://admin:a/b@10.0.0.7``, and an address may lack its protocol: rather too much is
    hidden than too little.
    """
    shown = re.sub(r"(?i)((?:pass[a-z]*|pwd|pw|token|key)=)[^/&]*", r"\1...", address)
    found = re.match(r"[^:/?#]+://", shown)
    scheme, rest = (found[0], shown[found.end() :]) if found else ("", shown)
    before, _, after = rest.rpartition("@")
    if re.match(r".*:" if scheme else r"[^/]*:", before):  # user:password; a path has its slash first
        if re.search(r"[?#]", before):
            return f"{scheme}..."  # of a password, or of a query? What follows the last @ could be secret
        rest = after
    elif scheme:
        rest = re.sub(r"^[^/?#]*@", "", rest)
    if not scheme:
        return rest
    place, *path = re.split(r"[?#]", rest)[0].split("/")
    if re.search(r"(?i)rtmp\w*://$", scheme):
        path = "/".join(path).rstrip("/").split("/")
        path[-1:] = ["..."] if path[-1] else []
    return scheme + "/".join([place, *(re.sub(r"(?i).+(:|%3a).+", "...", part) for part in path)])
