"""One real API until its standard input ends: serve_openstack.py keystone|nova FOLDER PORT, run in .tools/openstack."""

import os
import sys
import threading

name, folder, port = sys.argv[1:]
sys.argv = [name]                           # the projects read it themselves
os.environ[f"OS_{name.upper()}_CONFIG_DIR"] = folder


def end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_standard_input, daemon=True).start()
if name == "keystone":
    from keystone.wsgi.api import application
else:
    from nova.wsgi.osapi_compute import application
from werkzeug.serving import run_simple  # noqa: E402

run_simple("127.0.0.1", int(port), application, threaded=True)
