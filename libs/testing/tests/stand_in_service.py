"""A process with the manners of a service (migrate, ready line, SIGTERM), for tests of what starts services."""

import json
import os
import signal
import socket
import sys
import threading

if __name__ == "__main__":
    if sys.argv[1:] == ["migrate"]:
        print("migrating", os.environ["TIERFLOW_DATABASE_URL"])
        sys.exit(int(os.environ.get("STAND_IN_MIGRATE_CODE", "0")))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    if "STAND_IN_BROKEN" in os.environ:
        print("cannot read the configuration")
        sys.exit(3)
    with socket.create_server(("127.0.0.1", int(os.environ["TIERFLOW_PORT"]))):
        print("not JSON", flush=True)
        known = {name: value for name, value in os.environ.items() if name.startswith("TIERFLOW_")}
        print(json.dumps({"event": "ready", "environment": known}), flush=True)
        ended.wait()
        print(json.dumps({"event": "drained"}), flush=True)
