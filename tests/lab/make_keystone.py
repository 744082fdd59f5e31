"""Keystone's database and its admin: make_keystone.py FOLDER URL PASSWORD, run in .tools/openstack."""

import sys

from keystone.cmd import cli
from keystone.conf import CONF

folder, url, password = sys.argv[1:]
config = ["keystone-manage", "--config-file", f"{folder}/keystone.conf"]
cli.main([*config, "db_sync"])
CONF.clear()
cli.main([*config, "bootstrap", "--bootstrap-username", "admin", "--bootstrap-password", password,
          "--bootstrap-project-name", "admin", "--bootstrap-role-name", "admin", "--bootstrap-service-name", "keystone",
          "--bootstrap-region-id", "RegionOne", "--bootstrap-public-url", f"{url}/v3/", "--bootstrap-internal-url",
          f"{url}/v3/"])
