"""Nova's databases with servers in many states: seed_nova.py FOLDER, run in .tools/openstack.

Reads [[project, user, how many], …] as JSON from standard input, writes FOLDER/seeded.json: by project the volumes, and
the servers as twocloud must list them. The first server of each kind is made with Nova's own objects (Instance with its
flavor and info cache, BlockDeviceMapping, InstanceMapping, InstanceFault); the others are copies of its rows with other
names, ids, addresses and times: a thousand of them take a second.
"""

import json
import sqlite3
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nova import monkey_patch

monkey_patch.patch(backend="threading")
from nova import config, context, objects  # noqa: E402
from nova.db import migration  # noqa: E402
from nova.network import model  # noqa: E402

# vm_state, task_state, power_state (1 running, 3 paused, 4 shut down, 7 suspended) -> Nova's status, twocloud's
KINDS = [
    ("active", None, 1, "ACTIVE", "ACTIVE"), ("stopped", None, 4, "SHUTOFF", "SHUTOFF"),
    ("error", None, 0, "ERROR", "ERROR"), ("building", "spawning", 0, "BUILD", "BUILD"),
    ("suspended", None, 7, "SUSPENDED", "SUSPENDED"), ("active", "powering-off", 1, "ACTIVE", "STOPPING"),
    ("stopped", "powering-on", 4, "SHUTOFF", "STARTING"), ("active", "rebooting", 1, "REBOOT", "REBOOT"),
    ("active", "rebooting_hard", 1, "HARD_REBOOT", "HARD_REBOOT"), ("paused", None, 3, "PAUSED", "PAUSED"),
    ("rescued", None, 1, "RESCUE", "RESCUE"), ("active", "migrating", 1, "MIGRATING", "MIGRATING"),
    ("active", "resize_prep", 1, "RESIZE", "RESIZE"), ("resized", None, 1, "VERIFY_RESIZE", "VERIFY_RESIZE"),
    ("resized", "resize_reverting", 1, "REVERT_RESIZE", "RESIZE"), ("active", "rebuilding", 1, "REBUILD", "REBUILD"),
    ("active", "updating_password", 1, "PASSWORD", "ACTIVE"), ("shelved", None, 4, "SHELVED", "SHELVED"),
    ("shelved_offloaded", None, 4, "SHELVED_OFFLOADED", "SHELVED_OFFLOADED"),
    ("active", "deleting", 1, "ACTIVE", "DELETED"), ("soft-delete", None, 4, "SOFT_DELETED", None),      # not listed
]
FLAVORS = [("m1.small", 1, 2048, 20, 0), ("m1.large", 4, 8192, 80, 5), ("m1.tiny", 1, 512, 1, 0),
           ("m1.own", 2, 4096, 30, 3)]
ON_VOLUME = "m1.own"                        # its servers boot from a volume
COPIED = {"instances": "uuid", **dict.fromkeys(
    ("instance_extra", "instance_info_caches", "block_device_mapping", "instance_faults", "instance_metadata",
     "instance_system_metadata"), "instance_uuid")}
START = datetime(2026, 1, 1, tzinfo=UTC)


def make_databases(folder: Path, admin: Any) -> Any:
    """The API's database, those of cell0 (which every Nova has) and of cell1, and cell1's mapping."""
    migration.db_sync(database="api")
    cells = [objects.CellMapping(admin, uuid=key, name=name, transport_url=bus,
                                 database_connection=f"sqlite:///{folder}/nova_{name}.db")
             for key, name, bus in ((objects.CellMapping.CELL0_UUID, "cell0", "none:///"),
                                    (str(uuid.uuid4()), "cell1", "fake://"))]
    for cell in cells:
        cell.create()
        with context.target_cell(admin, cell) as ctxt:
            migration.db_sync(context=ctxt)
    return cells[1]


def make_server(admin: Any, cell: Any, flavor: Any, number: int) -> str:
    vm_state, task_state, power_state, _, _ = KINDS[number % len(KINDS)]
    key, on_volume = str(uuid.uuid4()), flavor.name == ON_VOLUME
    image = "" if on_volume else str(uuid.uuid4())
    objects.InstanceMapping(admin, instance_uuid=key, project_id=admin.project_id, user_id=admin.user_id,
                            cell_mapping=cell, queued_for_delete=False).create()
    with context.target_cell(admin, cell) as ctxt:
        server = objects.Instance(
            ctxt, uuid=key, user_id=admin.user_id, project_id=admin.project_id, display_name="NAME", hostname="name",
            vm_state=vm_state, task_state=task_state, power_state=power_state, memory_mb=flavor.memory_mb,
            vcpus=flavor.vcpus, root_gb=flavor.root_gb, ephemeral_gb=flavor.ephemeral_gb, instance_type_id=flavor.id,
            image_ref=image, metadata={"role": "web"} if number % 3 == 0 else {}, system_metadata={},
            availability_zone="nova", launched_at=START, config_drive="", reservation_id="r-1", locked=False,
            deleted=False)
        server.flavor, server.old_flavor, server.new_flavor = flavor, None, None
        server.create()
        if vm_state != "building":
            server.info_cache.network_info = model.NetworkInfo([interface(number)])
            server.info_cache.save()
        for index, size in enumerate([40 if on_volume else None, *([100] if number % 5 == 1 else [])]):
            objects.BlockDeviceMapping(
                ctxt, instance_uuid=key, boot_index=index, source_type="volume" if size else "image",
                destination_type="volume" if size else "local", volume_id=str(uuid.uuid4()) if size else None,
                volume_size=size, image_id=None if size else image, delete_on_termination=True, device_type="disk",
                device_name=f"/dev/vd{'ab'[index]}", attachment_id=None, tag=None, no_device=False).create()
        if vm_state == "error":
            objects.InstanceFault(ctxt, instance_uuid=key, code=500, message="No valid host", details="",
                                  host="h").create()
        if vm_state != "building":
            server.display_description = "seeded"               # a server never saved again has no time of a change
            server.save()
    return key


def interface(number: int) -> Any:
    floating = [model.IP(address="FLOATING", type="floating", version=4)] if number % 2 == 0 else []
    subnets = [model.Subnet(cidr="10.0.0.0/8", version=4,
                            ips=[model.FixedIP(address="FIXED", version=4, floating_ips=floating)])]
    if number % 7 == 0:
        subnets.append(model.Subnet(cidr="fd00::/64", version=6, ips=[model.FixedIP(address="SIXTH", version=6)]))
    network = model.Network(id=str(uuid.uuid4()), bridge="br", label="private", subnets=subnets)
    return model.VIF(id=str(uuid.uuid4()), address="fa:16:3e:00:00:01", type="ovs", devname="tap", network=network)


class Rows:
    """The rows of one server of each kind, written again under other ids."""

    def __init__(self, folder: Path, kinds: list[str]) -> None:
        self.cell = sqlite3.connect(folder / "nova_cell1.db")
        self.api = sqlite3.connect(folder / "nova_api.db")
        self.kinds = [{table: self._take(self.cell, table, column, key) for table, column in COPIED.items()}
                      for key in kinds]
        self.mappings = [self._take(self.api, "instance_mappings", "instance_uuid", key) for key in kinds]

    @staticmethod
    def _take(database: sqlite3.Connection, table: str, column: str, key: str) -> list[dict[str, Any]]:
        cursor = database.execute(f"select * from {table} where {column} = ?", [key])
        names = [described[0] for described in cursor.description]
        rows = [{name: value for name, value in zip(names, row, strict=True) if name != "id"} for row in cursor]
        database.execute(f"delete from {table} where {column} = ?", [key])
        return rows

    @staticmethod
    def _put(database: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
        database.execute(f"insert into {table} ({', '.join(row)}) values ({', '.join('?' * len(row))})",
                         list(row.values()))

    def write(self, kind: int, key: str, owner: dict[str, str], server: dict[str, Any],
              texts: dict[str, str]) -> list[str]:
        """The ids of its volumes."""
        volumes: list[str] = []
        for table, rows in self.kinds[kind].items():
            for row in rows:
                row = {**row, COPIED[table]: key}
                if table == "instances":
                    row |= {**owner, **server}
                if table == "instance_info_caches" and row["network_info"]:
                    for old, new in texts.items():
                        row["network_info"] = row["network_info"].replace(old, new)
                if table == "block_device_mapping":
                    row["uuid"] = str(uuid.uuid4())
                    if row["volume_id"]:
                        row["volume_id"] = str(uuid.uuid4())
                        volumes.append(row["volume_id"])
                self._put(self.cell, table, row)
        for row in self.mappings[kind]:
            self._put(self.api, "instance_mappings", {**row, "instance_uuid": key, **owner})
        return volumes

    def close(self) -> None:
        for database in (self.cell, self.api):
            database.commit()
            database.close()


def main(folder: Path) -> None:
    config.parse_args(["seed", "--config-file", f"{folder}/nova.conf"])
    objects.register_all()
    admin = context.get_admin_context()
    cell = make_databases(folder, admin)
    sizes: list[tuple[str, str, int]] = json.load(sys.stdin)
    admin.project_id, admin.user_id, _ = sizes[0]
    flavors = [objects.Flavor(admin, name=name, flavorid=name, vcpus=vcpus, memory_mb=ram, root_gb=disk, swap=0,
                              ephemeral_gb=ephemeral, rxtx_factor=1.0, is_public=True, disabled=False, extra_specs={})
               for name, vcpus, ram, disk, ephemeral in FLAVORS]
    for flavor in flavors:
        flavor.create()
    kinds = len(KINDS) * len(FLAVORS)       # all states with all flavors: 21 and 4 have no common divisor
    made = [make_server(admin, cell, flavors[number % len(flavors)], number) for number in range(kinds)]
    out: dict[str, dict[str, list[Any]]] = {"volumes": {}, "expected": {}}
    with closing(Rows(folder, made)) as rows:
        for project, user, size in sizes:
            volumes, expected = out["volumes"].setdefault(project, []), out["expected"].setdefault(project, [])
            for number in range(size):
                kind, key = number % kinds, str(uuid.uuid4())
                _, vcpus, ram, disk, ephemeral = flavor = FLAVORS[kind % len(FLAVORS)]
                _, _, _, word, status = KINDS[kind % len(KINDS)]
                created = START + timedelta(seconds=number // 7)                # seven in one second
                changed = None if word == "BUILD" else created + timedelta(days=1)
                addresses = {"FIXED": f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 2}",
                             "FLOATING": f"203.0.113.{number % 250 + 2}", "SIXTH": f"fd00::{number + 1:x}"}
                instance = rows.write(kind, key, {"project_id": project, "user_id": user}, {
                    "display_name": f"vm-{number} ü", "hostname": f"vm-{number}", "reservation_id": f"r-{number}",
                    "created_at": f"{created:%Y-%m-%d %H:%M:%S.000000}",
                    "updated_at": changed and f"{changed:%Y-%m-%d %H:%M:%S.000000}"}, addresses)
                sizes_of = [*([40] if flavor[0] == ON_VOLUME else []), *([100] if kind % 5 == 1 else [])]
                volumes += [{"id": volume, "size": gib, "status": "in-use", "created_at": "2026-01-01T00:00:00.000000",
                             "attachments": [{"server_id": key, "volume_id": volume}]}
                            for volume, gib in zip(instance, sizes_of, strict=True)]
                shown = word != "BUILD"
                if status:
                    expected.append({
                        "id": key, "name": f"vm-{number} ü", "cpu": vcpus, "memory_mib": ram,
                        "disk_gib": sum(sizes_of) + ephemeral + (0 if flavor[0] == ON_VOLUME else disk),
                        "lan_ipv4": [addresses["FIXED"]] if shown else [], "lan_ipv6": [
                            addresses["SIXTH"]] if shown and kind % 7 == 0 else [], "wan_ipv6": [],
                        "wan_ipv4": [addresses["FLOATING"]] if shown and kind % 2 == 0 else [],
                        "status": status, "party_status": word, "created_at": f"{created:%Y-%m-%dT%H:%M:%SZ}",
                        "updated_at": changed and f"{changed:%Y-%m-%dT%H:%M:%SZ}", "zone": "nova",
                        "project_id": project,
                        "instance_type": flavor[0], "tags": {"role": "web"} if kind % 3 == 0 else {}})
    for expected in out["expected"].values():
        expected.sort(key=lambda server: (server["created_at"], server["id"]))              # as Nova breaks ties
    (folder / "seeded.json").write_text(json.dumps(out))


main(Path(sys.argv[1]))
