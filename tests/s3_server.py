"""A stand-in for S3 with an empty bucket `bucket`, for tests: `python -m tests.s3_server` prints its address and serves until it is ended.

It ends with the process that started it.
"""

from __future__ import annotations

import logging
import threading
import urllib.request

from moto.server import ThreadedMotoServer

from tests.hub_server import end_with_parent


def main() -> None:
    end_with_parent()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=60).close()
    print(address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
