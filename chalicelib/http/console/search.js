// The search: text -> chips -> a test of each machine, and the counts of what is left.

/** @typedef {{key: string, value: string, not: boolean}} Chip  key "" is a word that may stand anywhere */

// what may stand before the colon -> field of the row
const KEYS = {
  status: "status", party: "party", region: "region", zone: "zone", type: "instance_type", project: "project_id",
  name: "instance_name", id: "instance_id", ip: "", tag: "tags", cpu: "cpu_num", mem: "mem_size", disk: "disk_size",
  word: "party_status", tenant: "tenant_id", account: "account", os: "os", image: "image_name", vpc: "vpc_id",
  charge: "charge_type", expires: "", list: "",
};
const FACETS = ["status", "tenant", "party", "account", "region", "type", "charge", "zone", "project", "tag"];

/** @returns {Chip[]} */
function parse(/** @type {string} */ text) {
  const chips = [];
  for (const [, minus, key, quoted, bare] of text.matchAll(/(-?)(?:([a-z]+):)?(?:"((?:[^"\\]|\\.)*)"|(\S+))/g)) {
    const known = key !== undefined && Object.hasOwn(KEYS, key);
    const value = quoted?.replace(/\\(["\\])/g, "$1") ?? bare;
    if (known) chips.push({ key, value, not: minus === "-" });
    else chips.push({ key: "", value: `${key === undefined ? "" : `${key}:`}${value}`, not: minus === "-" });
  }
  return chips;
}

const written = (/** @type {Chip} */ { key, value, not }) =>
  `${not ? "-" : ""}${key ? `${key}:` : ""}${/[\s"]/.test(value) || (!key && /^-|:/.test(value)) ? `"${value.replace(/["\\]/g, "\\$&")}"` : value}`;

/** @param {Chip[]} chips @param {Chip} chip */
const has = (chips, chip) => chips.some((one) => written(one) === written(chip));

// ---------------------------------------------------------------- one chip's test

/** @returns {(one: Machine) => boolean} */
function test(/** @type {Chip} */ chip) {
  const { key, value, not } = chip;
  const is = not ? meaning(key, value) : null;
  return is ? (one) => !is(one) : meaning(key, value);
}

/** @param {string} key @param {string} value @returns {(one: Machine) => boolean} */
function meaning(key, value) {
  const low = value.toLowerCase();
  if (key === "") {
    const clouds = new Set([...parties].filter(([, { title }]) => title.toLowerCase().includes(low)).map(([party]) => party));
    const regions = new Set([...parties].flatMap(([party, { names }]) => Object.keys(names.zh).filter((code) => `${names.en[code]}\n${names.zh[code]}`.toLowerCase().includes(low)).map((code) => `${party}/${code}`)));
    const whole = /^\d+(\.\d+){3}$/.test(low) && new RegExp(`(?<![\\d.])${low.replaceAll(".", "\\.")}(?!\\d|\\.\\d)`);     // an address, and not 10.0.0.70 for 10.0.0.7
    return (one) => (whole ? whole.test(one.words) : one.words.includes(low)) || clouds.has(one.row.party) || (regions.size > 0 && regions.has(`${one.row.party}/${one.row.region}`));
  }
  if (key === "ip") return addressTest(low);
  if (key === "tag") return tagTest(low);
  if (key === "expires") return endTest(low);
  if (key === "list") return (one) => (one.source?.state ?? "ok") === low;
  if (key === "account" && !low.includes("*")) return ({ row }) => `${row.account}:`.toLowerCase().startsWith(`${low}:`);
  const field = KEYS[key];
  if (value === "?") return ({ row }) => row[field] === null || row[field] === "" || row[field] === "UNKNOWN";
  if (["cpu", "mem", "disk"].includes(key)) return numberTest(field, value);
  if (low.includes("*")) {
    const like = wildcard(low);
    return ({ row }) => like.test(String(row[field] ?? "").toLowerCase());
  }
  if (key === "name" || key === "id") return ({ row }) => String(row[field]).toLowerCase().includes(low);
  return ({ row }) => String(row[field] ?? "").toLowerCase() === low;
}

const wildcard = (/** @type {string} */ text) =>
  new RegExp(`^${text.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`, "su");

/** @param {string} field @param {string} value */
function numberTest(field, value) {
  const [, sign, digits] = value.match(/^(>=|<=|>|<)?(\d+)$/) ?? [];
  const limit = digits === undefined ? NaN : Number(digits);
  const compare = { ">": (/** @type {number} */ n) => n > limit, "<": (/** @type {number} */ n) => n < limit,
    ">=": (/** @type {number} */ n) => n >= limit, "<=": (/** @type {number} */ n) => n <= limit };
  const is = compare[sign] ?? ((/** @type {number} */ n) => n === limit);
  return (/** @type {Machine} */ { row }) => row[field] !== null && is(row[field]);
}

/** `role`, `role=web`, `role=w*` */
function tagTest(/** @type {string} */ low) {
  const [name, ...rest] = low.split("=");
  const like = rest.length ? wildcard(rest.join("=")) : null;
  if (low === "?") return (/** @type {Machine} */ { row }) => !Object.keys(row.tags ?? {}).length;
  return (/** @type {Machine} */ { row }) => Object.entries(row.tags ?? {}).some(([tag, value]) => tag.toLowerCase() === low
    || (tag.toLowerCase() === name && (!like || like.test(String(value).toLowerCase()))));
}

/** `30d`: ends within thirty days, or has ended; `?`: no end is known. */
function endTest(/** @type {string} */ low) {
  if (low === "?") return (/** @type {Machine} */ { ends }) => ends === null;
  const [, days] = low.match(/^<?=?(\d+)d?$/) ?? [];
  const until = present() + (days === undefined ? NaN : Number(days)) * DAY;
  return (/** @type {Machine} */ { ends }) => ends !== null && ends <= until;
}

/** An address, the beginning of one with `*`, or an IPv4 network with `/`. */
function addressTest(/** @type {string} */ low) {
  const all = (/** @type {Row} */ row) => [row.lan_ip_set, row.wan_ip_set, row.lan_ipv6_set, row.wan_ipv6_set]
    .filter(Boolean).join(",").toLowerCase().split(",").filter(Boolean);
  const [, net, bits] = low.match(/^(\d+\.\d+\.\d+\.\d+)\/(\d+)$/) ?? [];
  if (net && Number(bits) <= 32) {
    const size = 2 ** (32 - Number(bits)), place = Math.floor(asNumber(net) / size);
    return (/** @type {Machine} */ { row }) =>
      all(row).some((one) => !one.includes(":") && Math.floor(asNumber(one) / size) === place);
  }
  if (low === "?") return (/** @type {Machine} */ { row }) => all(row).length === 0;
  const like = wildcard(low);
  return (/** @type {Machine} */ { row }) => all(row).some((one) => like.test(one));
}

const asNumber = (/** @type {string} */ address) => address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);

// ---------------------------------------------------------------- all of them

/**
 * Chips of one key are alternatives, those of different keys, words and those with a hyphen must all hold.
 * @param {Chip[]} chips @returns {{key: string, fits: (one: Machine) => boolean}[]}
 */
function groups(chips) {
  const found = [];
  for (const key of new Set(chips.filter(({ key, not }) => key && !not).map((chip) => chip.key))) {
    const tests = chips.filter((chip) => chip.key === key && !chip.not).map(test);
    found.push({ key, fits: (/** @type {Machine} */ one) => tests.some((fits) => fits(one)) });
  }
  return [...found, ...chips.filter(({ key, not }) => !key || not).map((chip) => ({ key: "", fits: test(chip) }))];
}

/**
 * What is left, in the same order, and for each facet how many of each value and status would be left with this value
 * chosen: the facet's own chips do not count in its counts.
 * @param {Machine[]} machines @param {Chip[]} chips @param {Record<string, Index>} [index]  of the machines' answer
 */
function filtered(machines, chips, index = {}) {
  const tests = groups(chips), facets = Object.keys(index), looks = LOOK_ORDER.length;
  const tallies = facets.map((facet) => ({ facet, codes: index[facet].codes, counts: new Int32Array(index[facet].values.length * looks) }));
  const left = [];
  for (const one of machines) {
    let failed = "", misses = 0;
    for (const { key, fits } of tests) {
      if (!fits(one)) {
        failed = key;
        misses += key && FACETS.includes(key) ? 1 : 2;
        if (misses > 1) break;
      }
    }
    if (misses > 1) continue;
    if (misses === 0) left.push(one);
    for (const { facet, codes, counts } of tallies) {
      if (misses && failed !== facet) continue;
      const code = codes[one.at];
      if (typeof code === "number") counts[code * looks + one.look] += 1;
      else for (const each of code) counts[each * looks + one.look] += 1;
    }
  }
  /** @type {Record<string, Map<string, Map<string, number>>>} */
  const counts = Object.fromEntries(tallies.map(({ facet, counts: all }) => [facet, namedCounts(index[facet].values, all, LOOK_ORDER)]));
  return { left, counts };
}

/** Only what is there. @param {string[]} values @param {Int32Array} counts @param {string[]} parts */
function namedCounts(values, counts, parts) {
  /** @type {Map<string, Map<string, number>>} */
  const found = new Map();
  values.forEach((value, row) => {
    const of = new Map(parts.map((part, at) => [part, counts[row * parts.length + at]]));
    for (const [part, n] of of) if (!n) of.delete(part);
    if (of.size) found.set(value, of);
  });
  return found;
}

// ---------------------------------------------------------------- what a source that failed could hold

const PLACES = { tenant: "tenant_id", party: "party", account: "account", region: "region" };

/** The sources that gave nothing and could hold more of what is shown. @param {Answer | null} answer @param {Chip[]} chips */
const missing = (answer, chips) => (answer ? sourcesWithin(answer, chips).filter((one) => one.state === "failed") : []);

/** Whether one of them could add to this value of a facet. @param {Source[]} sources @param {string} facet @param {string} value */
const couldAdd = (sources, facet, value) => sources.some((one) => !Object.hasOwn(PLACES, facet) || one[PLACES[facet]] === value
  || (facet === "region" && one.region === "all"));

/** A count that may be too low says so. @param {number} n @param {boolean} low */
const counted = (n, low) => (low ? (n ? t("atLeast", { count: number(n) }) : "?") : number(n));

/**
 * Add the parties, accounts and regions that the token opens of these tenants, those without servers too.
 * @param {Record<string, Map<string, Map<string, number>>>} counts @param {Me | null} me @param {string} tenant
 */
function offer(counts, me, tenant) {
  const those = me?.accounts.filter((one) => tenant === "all" || tenant.split(",").includes(one.tenant_id)).slice(0, 1000) ?? [];
  const doors = new Set(those.map((one) => `${one.tenant_id}/${one.party}/${one.discovered_by}`));
  for (const { tenant_id: owner, party, account, regions } of those) {
    const values = { tenant: [owner], party: [party], region: regions ?? [], account: doors.has(`${owner}/${party}/${account}`) ? [] : [account] };
    for (const [facet, all] of Object.entries(values)) for (const value of all) if (!counts[facet].has(value)) counts[facet].set(value, new Map());
  }
}
