// The list in the API's own formats, byte for byte as the API would write these rows (tests/http/test_console.py holds both
// together), and the commands that give the same from a shell.

const FORMATS = {
  csv: { type: "text/csv;charset=utf-8", name: "servers.csv", write: asCsv },
  json: { type: "application/json", name: "servers.json", write: asJson },
  ndjson: { type: "application/x-ndjson", name: "servers.ndjson", write: asNdjson },
  prometheus: { type: "application/json", name: "targets.json", write: asPrometheus },
  ansible: { type: "application/json", name: "inventory.json", write: asAnsible },
};

/** @typedef {{rows: Row[], answer: Answer, port: string, address: "lan" | "wan"}} Chosen */

// ---------------------------------------------------------------- rows

const FIELDS = ["instance_name", "instance_id", "cpu_num", "mem_size", "disk_size", "lan_ip_set", "wan_ip_set", "status",
  "create_at", "update_at", "party", "tenant_id", "region", "zone", "project_id", "instance_type", "party_status",
  "lan_ipv6_set", "wan_ipv6_set", "tags", "seen_at", "account", "image_id", "image_name", "os", "vpc_id",
  "subnet_id", "security_group_set", "key_name", "charge_type", "expires_at", "host_id", "console_url"];
// where a formula may begin, as formats/lines.py has it
const SIGNS = String.raw`=+\-@\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20`;
const BREAKS = String.raw`,;|\t\n\x0b\f\r\x1c-\x1e\x85\u2028\u2029`;
const PASSED = String.raw`"\x00-\x08\x0e-\x1b\x1f\x20\x7f-\x84\x86-\xa0\xad\u034f\u061c\u1680\u180e\u2000-\u200f\u202a-\u202f`
  + String.raw`\u205f-\u206f\u3000\ufeff`;
const FORMULA = new RegExp(`((?:^|[${BREAKS}])[${PASSED}]*)([${SIGNS}])`, "gu");

function asCsv(/** @type {Chosen} */ { rows }) {
  const lines = rows.map((row) => FIELDS.map((name) => quoted(cell(row[name], name))).join(","));
  return [FIELDS.join(","), ...lines].map((line) => `${line}\r\n`).join("");
}

/** A browser keeps an object's keys that are numbers before the others; the API writes tags by name. */
const tagsOf = (/** @type {Record<string, string>} */ tags) =>
  Object.entries(tags).sort(([left], [right]) => byCodePoint(left, right));

const jsonOf = (/** @type {unknown} */ value) => JSON.stringify(value);

/** An object as JSON, of names and values that are JSON already. */
const objectOf = (/** @type {string[][]} */ entries) =>
  `{${entries.map(([name, value]) => `${jsonOf(name)}:${value}`).join(",")}}`;

const tagsJson = (/** @type {Record<string, string>} */ tags) =>
  objectOf(tagsOf(tags).map(([name, value]) => [name, jsonOf(value)]));

const rowJson = (/** @type {Row} */ row) =>
  objectOf(Object.entries(row).map(([name, value]) => [name, name === "tags" ? tagsJson(value) : jsonOf(value)]));

function cell(/** @type {unknown} */ value, /** @type {string} */ name) {
  if (value === null || value === undefined) return "";
  if (name === "tags") return inCell(tagsJson(/** @type {Record<string, string>} */ (value)));
  if (typeof value !== "string") return String(value);
  return (/^[\t\r\n]/.test(value) ? "'" : "") + value.replace(FORMULA, "$1'$2");
}

const inCell = (/** @type {string} */ json) => json.replace(FORMULA, (_, before, sign) =>
  `${before}\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`);

const quoted = (/** @type {string} */ text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function asNdjson(/** @type {Chosen} */ { rows }) {
  return rows.map((row) => `${rowJson(row)}\n`).join("");
}

function asJson(/** @type {Chosen} */ { rows, answer }) {
  const parts = { code: 200, msg: answer.msg, vm_servers: rows, complete: answer.complete, sources: answer.sources };
  return objectOf(Object.entries(parts).map(([name, value]) =>
    [name, name === "vm_servers" ? `[${rows.map(rowJson).join(",")}]` : jsonOf(value)]));
}

// ---------------------------------------------------------------- Prometheus

function asPrometheus(/** @type {Chosen} */ { rows, port, address }) {
  const targets = rows.flatMap((row) => {
    const host = hostOf(row, address);
    return host ? [{ targets: [port ? `${host}:${port}` : host], labels: labels(row) }] : [];
  });
  return JSON.stringify(targets);
}

/** @param {Row} row @param {"lan" | "wan"} address */
function hostOf(row, address) {
  const ipv6 = row[`${address}_ipv6_set`].split(",")[0];
  return row[`${address}_ip_set`].split(",")[0] || (ipv6 ? `[${ipv6}]` : "");
}

function labels(/** @type {Row} */ row) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const name of FIELDS) {
    const value = row[name];
    if (!["tags", "seen_at"].includes(name) && value !== null && value !== "") found[`__meta_twocloud_${name}`] = String(value);
  }
  for (const [name, value] of tagNames(row.tags)) if (value) found[`__meta_twocloud_tag_${name}`] = value;
  return found;
}

/** The tags under legal names, none lost: a legal name stays, another that meets it gets a number. */
function tagNames(/** @type {Record<string, string>} */ tags) {
  const legal = tagsOf(tags).filter(([name]) => word(name) === name);
  const found = new Map(legal);
  for (const name of Object.keys(tags).filter((name) => word(name) !== name).sort(byCodePoint)) {
    found.set(unique(word(name), found), tags[name]);
  }
  return found;
}

const word = (/** @type {string} */ text) => text.replace(/[^A-Za-z0-9_]/gu, (sign) => {
  const code = sign.codePointAt(0) ?? 0;
  return code < 128 ? "_" : `u${code.toString(16).padStart(4, "0")}`;
});

/** @param {string} name @param {{has: (name: string) => boolean}} taken */
function unique(name, taken) {
  let found = name;
  for (let number = 2; taken.has(found); number += 1) found = `${name}_${number}`;
  return found;
}

/** As Python sorts: JavaScript's own order is by halves of signs beyond the first 65,536. */
function byCodePoint(/** @type {string} */ a, /** @type {string} */ b) {
  const left = [...a], right = [...b];
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    const difference = (left[at].codePointAt(0) ?? 0) - (right[at].codePointAt(0) ?? 0);
    if (difference) return difference;
  }
  return left.length - right.length;
}

// ---------------------------------------------------------------- Ansible

const LEGAL_HOST = /^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,252}$/u;
const ADDRESS = /^[0-9A-Fa-f.:]+$/;
const NOT_PLAIN = /[^A-Za-z0-9 _.,:/@+=\u{80}-\u{10ffff}-]/u;
const EACH_NOT_PLAIN = new RegExp(NOT_PLAIN, "gu");
const TAKEN_HOST = /^((tenant|party|account|region|zone|status|project|tag)_.*|all|ungrouped|localhost(\..*)?|127\.0\.0\.1)$/i;

function asAnsible(/** @type {Chosen} */ { rows }) {
  const hosts = hostNames(rows);
  /** @type {Map<string, string[]>} */
  const members = new Map();
  const tenants = new Set(rows.map((row) => row.tenant_id)).size > 1;
  const variables = rows.map((row, at) => {
    for (const group of groupsOf(row, tenants)) {
      const those = members.get(group);
      if (those) those.push(hosts[at]);
      else members.set(group, [hosts[at]]);
    }
    return `${jsonOf(hosts[at])}:${variablesOf(row)}`;
  });
  const names = [...members.keys()].sort(byCodePoint);
  const lists = names.map((name) => `,${JSON.stringify(name)}:${JSON.stringify({ hosts: members.get(name) })}`);
  return `{"_meta":{"hostvars":{${variables.join(",")}}},"all":${JSON.stringify({ children: names })}${lists.join("")}}`;
}

/** A name for each, none given twice: its own if that is legal and nobody else's, else its id. Ids go first. */
function hostNames(/** @type {Row[]} */ rows) {
  const names = tally(rows.map((row) => row.instance_name)), ids = tally(rows.map((row) => row.instance_id));
  /** @type {Set<string>} */
  const taken = new Set();
  /** @type {string[]} */
  const given = Array(rows.length);
  const give = (/** @type {number} */ at, /** @type {string} */ name) => { taken.add(given[at] = unique(name, taken)); };
  const byId = (/** @type {Row} */ row) => (ids.get(row.instance_id) === 1 && isLegalHost(row.instance_id) ? row.instance_id
    : `${row.party}.${namedAccount(row)}${namedAccount(row) && "."}${row.region}.${row.instance_id}`.replace(/[^\p{L}\p{N}_.-]/gu, "_"));
  const named = (/** @type {Row} */ row) =>
    names.get(row.instance_name) === 1 && isLegalHost(row.instance_name) && !ids.has(row.instance_name);
  rows.forEach((row, at) => { if (!named(row)) give(at, byId(row)); });
  rows.forEach((row, at) => { if (named(row)) give(at, taken.has(row.instance_name) ? byId(row) : row.instance_name); });
  return given;
}

const isLegalHost = (/** @type {string} */ name) => LEGAL_HOST.test(name) && !TAKEN_HOST.test(name);

function tally(/** @type {string[]} */ names) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const name of names) found.set(name, (found.get(name) ?? 0) + 1);
  return found;
}

/** The account's name, "" if it is the default one. */
const namedAccount = (/** @type {Row} */ row) => (row.account === "default" ? "" : row.account);

function groupsOf(/** @type {Row} */ row, /** @type {boolean} */ tenants) {
  const kinds = { tenant: tenants ? row.tenant_id : "", party: row.party, account: namedAccount(row), region: row.region, zone: row.zone, status: row.status, project: row.project_id };
  const names = Object.entries(kinds).filter(([, value]) => value).map(([kind, value]) => `${kind}_${word(value)}`);
  const tags = Object.entries(row.tags).map(([name, value]) => `tag_${word(name)}${value ? `_${word(value)}` : ""}`);
  return new Set([...names, ...tags]);
}

function variablesOf(/** @type {Row} */ row) {
  const host = (row.wan_ip_set || row.lan_ip_set || row.wan_ipv6_set || row.lan_ipv6_set).split(",")[0];
  const fields = FIELDS.filter((name) => name !== "tags").map((name) => [`twocloud_${name}`, jsonOf(marked(row[name]))]);
  const tags = plainKeys(row.tags).map(([name, value]) => [name, jsonOf(marked(value))]);
  const address = ADDRESS.test(host) ? [["ansible_host", jsonOf(host)]] : [];
  return objectOf([...address, ...fields, ["twocloud_tags", objectOf(tags)]]);
}

/** Mark a text for Ansible as one that is never a template: a cloud's words must not run where a playbook is run. */
const marked = (/** @type {unknown} */ value) =>
  (typeof value === "string" && NOT_PLAIN.test(value) ? { __ansible_unsafe: value } : value);

/** The tags under names that no Ansible obeys. No tag is lost: a name in use gets a number. */
function plainKeys(/** @type {Record<string, string>} */ tags) {
  const taken = new Set(Object.keys(tags));
  return tagsOf(tags).map(([name, value]) => {
    const plain = name.replace(EACH_NOT_PLAIN, "_").replace(/^__ansible/, "___ansible");
    if (plain === name) return [name, value];
    const free = unique(plain, taken);
    taken.add(free);
    return [free, value];
  });
}

// ---------------------------------------------------------------- commands

/**
 * What of the chips the API can be asked for, as parameters, and the chips that it cannot.
 * @param {string} tenant @param {Chip[]} chips
 * @returns {{asked: Record<string, string>, rest: Chip[]}}
 */
function asParameters(tenant, chips) {
  const plain = (/** @type {string} */ key) => chips.filter((chip) => chip.key === key && !chip.not && !/[*?]/.test(chip.value));
  const all = (/** @type {string} */ key) => chips.filter((chip) => chip.key === key);
  /** @type {Record<string, string>} */
  const asked = { party: "all", tenant_id: tenant, region: "all", on_error: "partial" };
  const used = new Set();
  for (const [key, name] of [["party", "party"], ["region", "region"], ["account", "account"], ["tenant", "tenant_id"]]) {
    if (plain(key).length && plain(key).length === all(key).length) {
      asked[name] = plain(key).map(({ value }) => value).join(",");
      plain(key).forEach((chip) => used.add(chip));
    }
  }
  for (const key of ["status", "name", "ip"]) {
    if (plain(key).length === 1 && all(key).length === 1 && !plain(key)[0].value.includes("/")) {
      asked[key] = key === "status" ? plain(key)[0].value.toUpperCase() : plain(key)[0].value;
      used.add(plain(key)[0]);
    }
  }
  const one = [asked.tenant_id, asked.party, asked.region].every((value) => value !== "all" && !value.includes(","));
  if (one) delete asked.on_error;           // of one source nothing is partial
  if (one) asked.view = "full";
  return { asked, rest: chips.filter((chip) => !used.has(chip)) };
}

const shellQuoted = (/** @type {string} */ text) =>
  (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** @param {string} base @param {Record<string, string>} asked @param {string} [what] */
function asCurl(base, asked, what = "servers") {
  const query = Object.entries(asked).map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
  return `curl -sf -u "$TWOCLOUD_TOKEN:" ${shellQuoted(`${base}${what}?${query}`)}`;
}

/** @param {string} base @param {Record<string, string>} asked @param {string} [what] */
function asCommand(base, asked, what = "servers") {
  const names = { tenant_id: "tenant", on_error: "on-error" };
  const options = Object.entries(asked).map(([name, value]) => `--${names[name] ?? name} ${shellQuoted(value)}`);
  return `twocloud ${what} --url ${shellQuoted(base.replace(/\/twocloud\/$/, ""))} ${options.join(" ")}`;
}
