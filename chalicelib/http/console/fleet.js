// The API's rows as the table needs them: what is sorted, searched and shown, worked out once for each answer.

/**
 * @typedef {Record<string, any>} Row  a row of the API's full view
 * @typedef {{tenant_id: string, party: string, account: string, region: string, state: string, count: number | null, age: number | null, error: string, msg: string}} Source
 * @typedef {{row: Row, key: string, from: string, words: string, source: Source | undefined, at: number, look: number, ends: number | null, vanishedAt?: string}} Machine
 *          from: its source's key; at: its place in the answer; look: its place in LOOK_ORDER; ends: when it expires, in ms
 * @typedef {{values: string[], numbers: Map<string, number>, codes: (number | number[])[]}} Index
 *          the values of a facet, and for each machine in the answer's order the number of its value; of tags, of each key
 * @typedef {{machines: Machine[], index: Record<string, Index>, sources: Source[], complete: boolean, msg: string, at: number, offset: number | null, several: boolean, list: string}} Answer
 */

// column -> field of the row, in the order in which they are offered
const COLUMNS = {
  server: "instance_name", status: "status", party: "party", region: "region", zone: "zone", id: "instance_id",
  type: "instance_type", cpu: "cpu_num", mem: "mem_size", disk: "disk_size", lan: "lan_ip_set", wan: "wan_ip_set",
  lan6: "lan_ipv6_set", wan6: "wan_ipv6_set", created: "create_at", updated: "update_at", expires: "expires_at", tags: "tags",
  project: "project_id", partyStatus: "party_status", tenantColumn: "tenant_id", account: "account", os: "os",
  image: "image_name", imageId: "image_id", vpc: "vpc_id", subnet: "subnet_id", firewall: "security_group_set",
  loginKey: "key_name", charge: "charge_type", host: "host_id", page: "console_url", seen: "seen_at",
};
const USUAL_COLUMNS = ["server", "status", "party", "region", "type", "cpu", "mem", "lan", "wan", "created"];
const NUMBERS = ["cpu", "mem", "disk"], TIMES = ["created", "updated", "expires", "seen"], ADDRESSES = ["lan", "wan", "lan6", "wan6"];
const SLICE = 5000;                         // machines between two chances for the page to answer
const DAY = 86_400_000, SOON = 30;          // days before its end in which a server is marked

// how a status looks: a shape and a colour beside its word
const LOOKS = {
  ACTIVE: "up", SHUTOFF: "off", SUSPENDED: "off", PAUSED: "off", SHELVED: "off", SHELVED_OFFLOADED: "off",
  DELETED: "gone", SOFT_DELETED: "gone", ERROR: "bad", RESCUE: "bad", UNKNOWN: "odd",
};
const LOOK_ORDER = ["up", "busy", "off", "bad", "odd", "gone"];
const look = (/** @type {string} */ status) => LOOKS[status] ?? "busy";

// ---------------------------------------------------------------- names for people

/** @type {Map<string, {title: string, regions: Record<string, string[]>, names: {en: Record<string, string>, zh: Record<string, string>}}>} */
let parties = new Map();                    // by code; empty until the API has listed them

const partyTitle = (/** @type {string} */ party) => parties.get(party)?.title ?? party;

/** A region's name. Clouds may mean different places by one code: without the cloud, that one has none. @param {string} region @param {string} [party] */
function regionName(region, party) {
  const names = new Set([...parties].flatMap(([code, { names }]) => (!party || code === party ? names[language][region] ?? [] : [])));
  return names.size === 1 ? [...names][0] : region;
}

/** A cloud's or region's code under the name that people use, the code beneath the pointer. @param {string} facet @param {string} value @param {string} [party] */
function called(facet, value, party) {
  const name = facet === "party" ? partyTitle(value) : facet === "region" ? regionName(value, party) : value;
  const others = facet === "region" ? [...parties.values()].flatMap(({ regions, names }) => [...(regions[value] ?? []), ...(name === value ? names[language][value] ?? [] : [])].flat()) : [];
  return h("span", { class: "label", title: [...new Set([value, ...others, name])].map(escaped).join(", "), "data-code": value }, bdi(escaped(name)));
}

// ---------------------------------------------------------------- an answer

/** @param {any} body @param {number} at  when the server answered, in milliseconds @param {boolean} several  tenants @returns {Answer} */
function read(body, at, several) {
  const answer = started(body, at, several, "");
  addRows(answer, body.vm_servers, sourcesOf(answer));
  return answer;
}

/** The same in slices, between which the page answers. `going`: whether the answer is still wanted.
 * @param {any} body @param {number} at @param {boolean} several @param {string} list @param {() => boolean} going */
async function readSlices(body, at, several, list, going) {
  const answer = started(body, at, several, list), bySource = sourcesOf(answer);
  for (let first = 0; first < body.vm_servers.length && going(); first += SLICE) {
    if (first) await new Promise((done) => { setTimeout(done); });
    addRows(answer, body.vm_servers.slice(first, first + SLICE), bySource);
  }
  return answer;
}

/** The machines of an answer whose list has not changed, with what is known of their sources now.
 * @param {Answer} answer @param {any} body @param {number} at @returns {Answer} */
function renewed(answer, body, at) {
  const next = { ...answer, sources: body.sources ?? [], complete: body.complete !== false, msg: body.msg, at };
  const bySource = sourcesOf(next);
  for (const one of next.machines) one.source = bySource.get(one.from);
  return next;
}

/** @param {any} body @param {number} at @param {boolean} several @param {string} list @returns {Answer} */
function started(body, at, several, list) {
  const answer = { machines: [], index: newIndex(), sources: body.sources ?? [], at, several, list, complete: body.complete !== false,
    msg: body.msg, offset: /** @type {number | null} */ (null) };
  answer.offset = zoneOffset(body.vm_servers, sourcesOf(answer), at, several);
  return answer;
}

const sourcesOf = (/** @type {Answer} */ { sources, several }) => new Map(sources.map((one) => [sourceKey(one, several), one]));

/** @param {Answer} answer @param {Row[]} rows @param {Map<string, Source>} bySource */
function addRows(answer, rows, bySource) {
  for (const row of rows) {
    const one = machine(row, bySource, answer.several);
    one.at = answer.machines.length;
    if (row.expires_at) one.ends = asUtc(row.expires_at) - (answer.offset ?? 0);
    answer.machines.push(one);
    addToIndex(answer.index, row, FACETS);
  }
}

/** @returns {Record<string, Index>} */
const newIndex = () => Object.fromEntries(FACETS.map((facet) => [facet, { values: [], numbers: new Map(), codes: [] }]));

/** @param {Record<string, Index>} index @param {Row} row @param {string[]} known  the facets of which its value is known */
function addToIndex(index, row, known) {
  for (const facet of FACETS) {
    const entry = index[facet];
    if (!known.includes(facet)) entry.codes.push([]);
    else if (facet === "tag") entry.codes.push(tagKeys(row).map((key) => numberOf(entry, key)));
    else entry.codes.push(numberOf(entry, facetValue(row, facet)));
  }
}

/** The value of a facet; "?" is what is not known, as in a chip. @param {Row} row @param {string} facet @returns {string} */
const facetValue = (row, facet) => row[KEYS[facet]] || "?";

const tagKeys = (/** @type {Row} */ { tags }) => { const keys = Object.keys(tags ?? {}); return keys.length ? keys : ["?"]; };

/** @param {Index} entry @param {string} value */
function numberOf(entry, value) {
  let found = entry.numbers.get(value);
  if (found === undefined) entry.numbers.set(value, found = entry.values.push(value) - 1);
  return found;
}

/** A source's key, without the tenant where one alone is shown, and without the usual account. */
const sourceKey = (/** @type {Row | Source} */ one, /** @type {boolean} */ several) =>
  `${several ? `${one.tenant_id}:` : ""}${one.party}${one.account && one.account !== "default" ? `@${one.account}` : ""}/${one.region}`;

/** A source by its codes. A party that could not name its regions has none. */
const sourceName = (/** @type {Row | Source} */ one, /** @type {boolean} */ several) => [several && one.tenant_id, one.party, one.account === "default" ? "" : one.account,
  one.region === "all" ? "" : one.region].filter(Boolean).join(" ");

/** A source in words, with its codes beneath the pointer. @param {Row | Source} one @param {boolean} several @param {string} [more] */
const sourceNamed = (one, several, more = "") => h("bdi", { title: sourceName(one, several) }, escaped(sourceName({ ...one, party: partyTitle(one.party) }, several)), more);

/** @param {Row} row @param {Map<string, Source>} bySource @param {boolean} several @returns {Machine} */
function machine(row, bySource, several) {
  const tags = Object.entries(row.tags ?? {}).map(([name, value]) => `${name}=${value}`), from = sourceKey(row, several);
  const words = [row.instance_name, row.instance_id, row.status, row.party, row.region, row.zone, row.instance_type,
    row.project_id, row.account, row.lan_ip_set, row.wan_ip_set, row.lan_ipv6_set, row.wan_ipv6_set, ...tags].join("\n").toLowerCase();
  return { row, key: `${from}/${row.instance_id}`, from, words, source: bySource.get(from), at: 0, look: LOOK_ORDER.indexOf(look(row.status)), ends: null };
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

/** A text whose plain order is the natural one, web-9 before web-10. A collator takes seconds for a hundred thousand. */
const naturalKey = (/** @type {string} */ text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(16, "0"));

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
  if (column === "status") return `${one.look}${value}`;
  if (column === "party") return naturalKey(partyTitle(value));
  if (column === "region") return naturalKey(regionName(value, one.row.party));
  if (column === "tags") return naturalKey(Object.entries(value).map((pair) => pair.join("=")).join(",")) || null;
  return typeof value === "string" ? naturalKey(value) : value;
}

/**
 * A new list in the order of a column. Those that are equal stay in the API's order.
 * @param {Machine[]} machines @param {string} column @param {boolean} down
 */
function sorted(machines, column, down) {
  const keyed = machines.map((one) => ({ one, key: /** @type {any} */ (sortKey(one, column)) }));
  const turn = down ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) return Number(a.key === null) - Number(b.key === null);
    return a.key < b.key ? -turn : a.key > b.key ? turn : 0;
  });
  return keyed.map(({ one }) => one);
}
