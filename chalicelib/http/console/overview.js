// What do we have? Totals, and a matrix of one property against the status. A number that may be too low says so.

const SHOWN_ROWS = 5;                       // of the matrix before "more"
// what the matrix, and the table's groups, can be made of; and `tag:KEY`, the values of one tag
const PROPERTIES = ["party", "region", "account", "tenant", "type", "charge", "zone", "project", "status"];
let wholeMatrix = false;

const isProperty = (/** @type {string} */ by) => PROPERTIES.includes(by) || /^tag:./.test(by);
const propertyName = (/** @type {string} */ by) => (by.startsWith("tag:") ? `${t("tag")} ${escaped(by.slice(4))}` : t(by));

/** @param {Row} row @param {string} by */
const propertyOf = (row, by) => (by.startsWith("tag:") ? row.tags?.[by.slice(4)] ?? "?" : facetValue(row, by));

/** The chip that leaves one value. @param {string} by @param {string} value @returns {Chip} */
function chipOf(by, value) {
  if (!by.startsWith("tag:")) return { key: by, value, not: false };
  const tag = by.slice(4);
  return value === "?" ? { key: "tag", value: tag, not: true } : { key: "tag", value: `${tag}=${value}`, not: false };
}

/** A value as people read it. @param {string} by @param {string} value */
function valueLabel(by, value) {
  if (value === "?") return h("span", { class: "label soft", "data-code": value }, t(by.startsWith("tag") ? "untagged" : "unknown"));
  return by === "status" ? statusSaid(value) : called(by, value);
}

// ---------------------------------------------------------------- totals

/**
 * @typedef {{known: number, unknown: number}} Sum  of those that state it, and how many do not
 * @typedef {{servers: number, cpu: Sum, mem: Sum, disk: Sum}} Totals
 */

/** @param {Machine[]} machines @returns {Totals} */
function totalsOf(machines) {
  const sum = (/** @type {string} */ field) => {
    let known = 0, unknown = 0;
    for (const { row } of machines) if (row[field] === null || row[field] === undefined) unknown += 1; else known += row[field];
    return { known, unknown };
  };
  return { servers: machines.length, cpu: sum("cpu_num"), mem: sum("mem_size"), disk: sum("disk_size") };
}

/** GB as people count them. */
const size = (/** @type {number} */ gb) => (gb < 10_000 ? `${number(gb)} GB` : `${number(Math.round(gb / 102.4) / 10)} TB`);

/** A sum that leaves out what is not known is a lower bound, and says of how many servers.
 * @param {Sum} sum @param {string} text @param {Source[]} failing @param {number} servers */
function sumSaid({ known, unknown }, text, failing, servers) {
  const low = unknown > 0 || failing.length > 0;
  const shown = low && unknown === servers ? "?" : low ? t("atLeast", { count: text }) : text;
  const why = [unknown && t("notStated", { n: unknown }), failing.length && t("partialTitle", { n: failing.length })].filter(Boolean).join(" ");
  return [h("strong", { title: why }, shown), low && h("span", { class: "unseen" }, ` (${why})`)];
}

/**
 * The line above all: how much of what, and how sure that is.
 * @param {Answer} answer @param {Machine[]} left @param {Chip[]} chips
 * @param {{showSources: () => void, toggle: (chip: Chip) => void}} acts
 */
function summary(answer, left, chips, acts) {
  const totals = totalsOf(left), failing = missing(answer, chips), low = failing.length > 0;
  const several = left.length !== answer.machines.length;
  const clouds = new Set(left.map(({ row }) => row.party)).size;
  const regions = new Set(left.map(({ row }) => `${row.party}/${row.region}`)).size;
  const fresh = answer.sources.filter((one) => one.state === "ok").length;
  const ending = left.filter(endsSoon).length, soon = { key: "expires", value: `${SOON}d`, not: false };
  const servers = several ? t("ofServers", { n: answer.machines.length }) : t("servers", { n: left.length }).replace(/^\S+ /, "");
  const sums = /** @type {[string, Sum, (n: number) => string][]} */ ([["cpuTotal", totals.cpu, number], ["memTotal", totals.mem, size], ["diskTotal", totals.disk, size]]);
  return [h("p", { class: "number" }, h("strong", {}, counted(left.length, low)), " ", servers),
    ...sums.map(([key, sum, write]) => h("p", { class: "number", "data-total": key }, ...sumSaid(sum, write(sum.known), failing, left.length), " ", t(key))),
    h("p", { class: "soft rest" }, t("clouds", { n: clouds }), " · ", t("regions", { n: regions }), " · ",
      h("button", { type: "button", class: `plainlink ${fresh === answer.sources.length ? "" : "warn"}`, id: "sources", onclick: acts.showSources },
        t("sourcesSummary", { ok: fresh, total: answer.sources.length })),
      (left.some(({ ends }) => ends !== null) || has(chips, soon)) && h("button", { type: "button", class: `chip ${ending ? "warn" : ""}`, id: "ending", "aria-pressed": String(has(chips, soon)), onclick: () => acts.toggle(soon) },
        t("endSoon", { n: ending, count: counted(ending, low), days: SOON }))),
    low && h("p", { class: "warn small", id: "lower-bounds" }, t("lowerBounds", { n: failing.length }))].filter(Boolean);
}

const endsSoon = (/** @type {Machine} */ { ends }) => ends !== null && ends - present() <= SOON * DAY;

// ---------------------------------------------------------------- the matrix

/** How many servers of each value and status, and the vCPUs of each value. @param {Answer} answer @param {Machine[]} left @param {string} by */
function matrixOf(answer, left, by) {
  const { values: statuses, codes: ofStatus } = answer.index.status, width = statuses.length;
  const entry = answer.index[by] ?? { values: [], numbers: new Map(), codes: [] };
  const code = (/** @type {Machine} */ one) => (by.startsWith("tag:") ? numberOf(entry, propertyOf(one.row, by)) : /** @type {number} */ (entry.codes[one.at]));
  const pairs = left.map((one) => code(one) * width + /** @type {number} */ (ofStatus[one.at]));
  const counts = new Int32Array(entry.values.length * width);
  for (const pair of pairs) counts[pair] += 1;
  const cpus = new Map(entry.values.map((value) => [value, { known: 0, unknown: 0 }]));
  left.forEach(({ row: { cpu_num: cpu } }, at) => {
    const sum = /** @type {Sum} */ (cpus.get(entry.values[Math.floor(pairs[at] / width)]));
    if (cpu === null || cpu === undefined) sum.unknown += 1; else sum.known += cpu;
  });
  return { counts: namedCounts(entry.values, counts, statuses), cpus };
}

/** The most first, and before them those of which nothing is known: they must not be the ones behind "more".
 * @param {{value: string, n: number, low: boolean}} a @param {{value: string, n: number, low: boolean}} b */
const byCount = (a, b) => Number(b.low && !b.n) - Number(a.low && !a.n) || b.n - a.n || natural.compare(a.value, b.value);

/**
 * @param {Answer} answer @param {Machine[]} left @param {string} by @param {Chip[]} chips
 * @param {{toggleAll: (chips: Chip[]) => void, show: (by: string) => void, redraw: () => void}} acts
 */
function matrix(answer, left, by, chips, acts) {
  const { counts, cpus } = matrixOf(answer, left, by), failing = missing(answer, chips);
  const place = PLACES[by];
  if (place) for (const one of failing) if (!counts.has(one[place]) && one[place] !== "all") counts.set(one[place], new Map());
  const rows = [...counts].map(([value, parts]) => ({ value, parts, n: total(parts), low: couldAdd(failing, by, value) })).sort(byCount);
  const sums = new Map();
  for (const { parts } of rows) for (const [status, n] of parts) sums.set(status, (sums.get(status) ?? 0) + n);
  const statuses = [...sums.keys()].sort((a, b) => LOOK_ORDER.indexOf(look(a)) - LOOK_ORDER.indexOf(look(b)) || sums.get(b) - sums.get(a));
  const cell = (/** @type {number} */ n, /** @type {boolean} */ low, /** @type {string} */ label, /** @type {Chip[]} */ those) => h("td", { class: "n" }, !n && !low ? h("span", { class: "soft", "aria-hidden": "true" }, "·")
    : h("button", { type: "button", class: "plain-number", "data-focus": JSON.stringify(those), "aria-label": `${label}: ${counted(n, low)}`, onclick: () => acts.toggleAll(those) }, counted(n, low)));
  const vcpus = (/** @type {Sum} */ sum, /** @type {boolean} */ low, /** @type {number} */ n) => h("td", { class: "n" }, ...sumSaid(sum, number(sum.known), low ? failing : [], n));
  const line = (/** @type {{value: string, parts: Map<string, number>, n: number, low: boolean}} */ { value, parts, n, low }) => h("tr", { "data-row": value },
    h("th", { scope: "row" }, h("button", { type: "button", class: "plain-number", "data-focus": `row ${value}`, "aria-pressed": String(has(chips, chipOf(by, value))), onclick: () => acts.toggleAll([chipOf(by, value)]) }, valueLabel(by, value))),
    cell(n, low, value, [chipOf(by, value)]), vcpus(cpus.get(value) ?? { known: 0, unknown: 0 }, low, n),
    ...(by === "status" ? [] : statuses.map((status) => cell(parts.get(status) ?? 0, low && Boolean(parts.get(status)), `${value} ${status}`, [chipOf(by, value), chipOf("status", status)]))));
  const shown = wholeMatrix ? rows.slice(0, 200) : rows.slice(0, SHOWN_ROWS), rest = rows.length - shown.length;
  const heads = by === "status" ? [] : statuses.map((status) => h("th", { scope: "col", class: "n" }, statusSaid(status)));
  return [h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": t("matrixTitle", { by: propertyName(by) }) }, h("table", {}, h("caption", { class: "unseen" }, t("matrixTitle", { by: propertyName(by) })),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, propertyChoice("by", t("matrixBy"), by, answer, acts.show, [])), h("th", { scope: "col", class: "n" }, t("sum")), h("th", { scope: "col", class: "n" }, t("cpu")), ...heads)),
    h("tbody", {}, ...shown.map(line)),
    rows.length > 1 && h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, `${t("sum")} (${number(rows.length)})`), h("td", { class: "n" }, h("strong", {}, counted(left.length, failing.length > 0))), vcpus(totalsOf(left).cpu, true, left.length),
      ...(by === "status" ? [] : statuses.map((status) => cell(sums.get(status), failing.length > 0, status, [chipOf("status", status)]))))))),
  rows.length > SHOWN_ROWS && h("button", { type: "button", class: "button quiet", "data-focus": "whole matrix", onclick: () => { wholeMatrix = !wholeMatrix; acts.redraw(); } },
    wholeMatrix ? t("fewer") : t("more", { n: rest }))].filter(Boolean);
}

/** @param {string} id @param {string} label @param {string} chosen @param {Answer} answer @param {(by: string) => void} choose @param {Node[]} before */
function propertyChoice(id, label, chosen, answer, choose, before) {
  const tags = answer.index.tag.values.filter((key) => key !== "?").sort(natural.compare).slice(0, 200);
  const option = (/** @type {string} */ value) => h("option", { value, selected: value === chosen }, propertyName(value));
  const box = /** @type {HTMLSelectElement} */ (h("select", { id, "aria-label": label, "data-focus": id, onchange: () => choose(box.value) }, ...before,
    ...PROPERTIES.filter((one) => one !== "tenant" || answer.several).map(option),
    tags.length > 0 && h("optgroup", { label: t("tags") }, ...tags.map((key) => option(`tag:${key}`)))));
  return box;
}
