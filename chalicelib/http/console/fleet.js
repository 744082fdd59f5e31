// The API's rows as the table needs them: what is sorted, searched and shown, worked out once for each answer.

/**
 * @typedef {Record<string, any>} Row  a row of the API's full view
 * @typedef {{tenant_id: string, party: string, account: string, region: string, state: string, count: number | null, age: number | null, error: string, msg: string}} Source
 * @typedef {{row: Row, key: string, words: string, source: Source | undefined, vanishedAt?: string}} Machine
 * @typedef {{machines: Machine[], sources: Source[], complete: boolean, msg: string, at: number, offset: number | null, several: boolean}} Answer
 */

// column -> field of the row, in the order in which they are offered
const COLUMNS = {
  server: "instance_name", status: "status", party: "party", region: "region", zone: "zone", id: "instance_id",
  type: "instance_type", cpu: "cpu_num", mem: "mem_size", disk: "disk_size", lan: "lan_ip_set", wan: "wan_ip_set",
  lan6: "lan_ipv6_set", wan6: "wan_ipv6_set", created: "create_at", updated: "update_at", tags: "tags",
  project: "project_id", partyStatus: "party_status", tenantColumn: "tenant_id", account: "account", seen: "seen_at",
};
const USUAL_COLUMNS = ["server", "status", "party", "region", "type", "cpu", "mem", "lan", "wan", "created"];
const NUMBERS = ["cpu", "mem", "disk"], TIMES = ["created", "updated", "seen"], ADDRESSES = ["lan", "wan", "lan6", "wan6"];

// how a status looks: a shape and a colour beside its word
const LOOKS = {
  ACTIVE: "up", SHUTOFF: "off", SUSPENDED: "off", PAUSED: "off", SHELVED: "off", SHELVED_OFFLOADED: "off",
  DELETED: "gone", SOFT_DELETED: "gone", ERROR: "bad", RESCUE: "bad", UNKNOWN: "odd",
};
const LOOK_ORDER = ["up", "busy", "off", "bad", "odd", "gone"];
const look = (/** @type {string} */ status) => LOOKS[status] ?? "busy";

/** @param {any} body @param {number} at  when the server answered, in milliseconds @param {boolean} several  tenants */
function read(body, at, several) {
  const sources = body.sources ?? [];
  const bySource = new Map(sources.map((/** @type {Source} */ one) => [sourceKey(one, several), one]));
  return { machines: body.vm_servers.map((/** @type {Row} */ row) => machine(row, bySource, several)), sources, at, several,
    complete: body.complete !== false, msg: body.msg, offset: zoneOffset(body.vm_servers, bySource, at, several) };
}

/** A source's key, without the tenant where one alone is shown, and without the usual account. */
const sourceKey = (/** @type {Row | Source} */ one, /** @type {boolean} */ several) =>
  `${several ? `${one.tenant_id}:` : ""}${one.party}${one.account && one.account !== "default" ? `@${one.account}` : ""}/${one.region}`;

/** A source in words. A party that could not name its regions has none. */
const sourceName = (/** @type {Row | Source} */ one, /** @type {boolean} */ several) => [several && one.tenant_id, one.party, one.account === "default" ? "" : one.account,
  one.region === "all" ? "" : one.region].filter(Boolean).join(" ");

/** @param {Row} row @param {Map<string, Source>} bySource @param {boolean} several @returns {Machine} */
function machine(row, bySource, several) {
  const tags = Object.entries(row.tags ?? {}).map(([name, value]) => `${name}=${value}`);
  const words = [row.instance_name, row.instance_id, row.status, row.party, row.region, row.zone, row.instance_type,
    row.project_id, row.lan_ip_set, row.wan_ip_set, row.lan_ipv6_set, row.wan_ipv6_set, ...tags].join("\n").toLowerCase();
  return { row, key: `${sourceKey(row, several)}/${row.instance_id}`, words,
    source: bySource.get(sourceKey(row, several)) };
}

/**
 * The API writes times in the deployment's zone and does not name it. When a list was read is stated twice, as a time
 * there and as an age: the difference is the zone's. Milliseconds; null if no row tells.
 * @param {Row[]} rows @param {Map<string, Source>} bySource @param {number} at @param {boolean} several
 */
function zoneOffset(rows, bySource, at, several) {
  for (const row of rows) {
    const age = bySource.get(sourceKey(row, several))?.age;
    if (!row.seen_at || age === null || age === undefined) continue;
    const quarter = 15 * 60_000;            // no zone is finer
    const offset = Math.round((asUtc(row.seen_at) - (at - age * 1000)) / quarter) * quarter;
    return Math.abs(offset) <= 14 * 3_600_000 ? offset : null;
  }
  return null;
}

const asUtc = (/** @type {string} */ time) => Date.parse(`${time.replace(" ", "T")}Z`);

// ---------------------------------------------------------------- order

const natural = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** An address as a number of fixed length, so that 10.0.0.9 comes before 10.0.0.10. */
function addressKey(/** @type {string} */ addresses) {
  const first = addresses.split(",", 1)[0];
  if (!first) return null;
  if (first.includes(":")) return `6${wideAddress(first)}`;
  return `4${first.split(".").map((part) => part.padStart(3, "0")).join("")}`;
}

/** IPv6 with all its digits. */
function wideAddress(/** @type {string} */ text) {
  const [head, tail] = text.split("::").map((half) => (half ? half.split(":") : []));
  const missing = tail ? Math.max(0, 8 - head.length - tail.length) : 0;
  return [...head, ...Array(missing).fill("0"), ...(tail ?? [])].map((part) => part.padStart(4, "0")).join("");
}

/** @param {Machine} one @param {string} column @returns {string | number | null}  null: not known, always last */
function sortKey(one, column) {
  const value = one.row[COLUMNS[column]];
  if (value === null || value === undefined || value === "") return null;
  if (ADDRESSES.includes(column)) return addressKey(value);
  if (column === "status") return `${LOOK_ORDER.indexOf(look(value))}${value}`;
  if (column === "tags") return Object.entries(value).map((pair) => pair.join("=")).join(",") || null;
  return value;
}

/**
 * A new list in the order of a column. Those that are equal stay in the API's order.
 * @param {Machine[]} machines @param {string} column @param {boolean} down
 */
function sorted(machines, column, down) {
  const keyed = machines.map((one) => ({ one, key: sortKey(one, column) }));
  const plain = NUMBERS.includes(column) || TIMES.includes(column) || ADDRESSES.includes(column);
  const turn = down ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) return Number(a.key === null) - Number(b.key === null);
    if (plain) return a.key < b.key ? -turn : a.key > b.key ? turn : 0;
    return turn * natural.compare(String(a.key), String(b.key));
  });
  return keyed.map(({ one }) => one);
}
