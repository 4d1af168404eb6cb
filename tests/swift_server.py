"""OpenStack Swift with s3api as one process on loopback: `python -m tests.swift_server FOLDER`.

Account, container and object servers and the proxy are Swift's own, each with its port; what would
be memcached is a dictionary. Says the proxy's port on standard output, serves until its standard
input ends.
"""

# ruff: noqa: E402  # Swift has modules patched before others are imported
from swift.common.utils import monkey_patch

monkey_patch()

import os
import pwd
import sys
from pathlib import Path
from typing import Any, Final

import eventlet
from eventlet import tpool, wsgi
from swift.common import utils as swift_utils

NAMES: Final = ("account", "container", "object")

_PROXY: Final = """
[DEFAULT]
swift_dir = {folder}
user = {user}
log_level = ERROR
[pipeline:main]
pipeline = memory s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:memory]
paste.filter_factory = tests.swift_server:memory
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
max_bucket_listing = 10
check_bucket_owner = false
min_segment_size = 1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
rate_limit_after_segment = 10000
"""

_SERVER: Final = """
[DEFAULT]
devices = {folder}/devices
swift_dir = {folder}
mount_check = false
disable_fallocate = true
user = {user}
log_level = ERROR
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""


class Memory:
    """As much of a memcache client as Swift asks for."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def get(self, key: str, **_: Any) -> Any:
        return self._kept.get(key)

    def set(self, key: str, value: Any, **_: Any) -> None:
        self._kept[key] = value

    def incr(self, key: str, delta: int = 1, **_: Any) -> int:
        self._kept[key] = int(self._kept.get(key, 0)) + delta
        return int(self._kept[key])

    def delete(self, key: str, **_: Any) -> None:
        self._kept.pop(key, None)


def memory(_settings: Any, **_: Any) -> Any:
    """The filter that has each request find that client."""
    kept = Memory()

    def wrap(app: Any) -> Any:
        def handle(environment: dict[str, Any], start_response: Any) -> Any:
            environment["swift.cache"] = kept
            return app(environment, start_response)

        return handle

    return wrap


def main(folder: Path) -> None:
    """Make the configuration and the rings, then serve."""
    user = pwd.getpwuid(os.getuid()).pw_name
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = of-a-test\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    swift_utils.SWIFT_CONF_FILE = str(folder / "swift.conf")
    swift_utils.validate_hash_conf()
    # Both read that file when they are imported.
    from swift.common.ring import RingBuilder  # noqa: PLC0415
    from swift.common.wsgi import loadapp  # noqa: PLC0415

    listeners = {name: eventlet.listen(("127.0.0.1", 0)) for name in (*NAMES, "proxy")}
    (folder / "devices" / "disk").mkdir(parents=True)
    for name in NAMES:
        builder = RingBuilder(2, 1, 0)
        port = listeners[name].getsockname()[1]
        builder.add_dev(
            {
                "region": 1,
                "zone": 1,
                "weight": 1,
                "ip": "127.0.0.1",
                "port": port,
                "device": "disk",
            }
        )
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{name}.ring.gz"))
    for name, listener in listeners.items():
        path = folder / f"{name}-server.conf"
        text = _PROXY if name == "proxy" else _SERVER
        path.write_text(text.format(folder=folder, user=user, name=name))
        app = loadapp(str(path))
        eventlet.spawn(wsgi.server, listener, app, log_output=False)
    print(listeners["proxy"].getsockname()[1], flush=True)
    tpool.execute(sys.stdin.read)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
