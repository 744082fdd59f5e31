// The table: one page of it at a time, whatever the fleet's size.

const SIZES = [25, 50, 100, 200], PAGE = 50;                    // rows; laying out more of them takes longer than all the rest

/**
 * The machines group by group, the groups by name and what is not known last; within one, in the order as before.
 * @param {Machine[]} machines @param {string} by @returns {{value: string, machines: Machine[]}[]}
 */
function grouped(machines, by) {
  /** @type {Map<string, Machine[]>} */
  const found = new Map();
  for (const one of machines) {
    const value = propertyOf(one.row, by), those = found.get(value);
    if (those) those.push(one);
    else found.set(value, [one]);
  }
  const name = (/** @type {string} */ value) => (by === "party" ? partyTitle(value) : by === "region" ? regionName(value) : value);
  return [...found].map(([value, those]) => ({ value, machines: those }))
    .sort((a, b) => Number(a.value === "?") - Number(b.value === "?") || natural.compare(name(a.value), name(b.value)));
}

/**
 * @param {Machine[]} machines  of this page @param {View} view @param {Answer} answer @param {string} tenant
 * @param {Map<string, Totals>} groups  of all pages, by value; empty: no groups @param {Source[]} failing
 * @param {{sort: (column: string) => void, href: (key: string) => string, toggleAll: (chips: Chip[]) => void}} acts
 */
function table(machines, view, answer, tenant, groups, failing, acts) {
  const heads = view.columns.map((column) => headCell(column, view, acts.sort));
  const row = (/** @type {Machine} */ one, /** @type {number} */ at) => h("tr", { role: "row", "data-key": one.key, class: [one.source?.state === "stale" && "old", one.key === view.server && "chosen"].filter(Boolean).join(" ") || false },
    ...view.columns.map((column) => h("td", { role: "cell", class: `c-${column}`, "data-label": t(column) },
      tableCell(one, column, answer, acts.href, at === 0))));
  const bodies = [];
  if (!groups.size) bodies.push(h("tbody", { role: "rowgroup" }, ...machines.map(row)));
  else machines.forEach((one, at) => {
    const value = propertyOf(one.row, view.group), last = bodies.at(-1);
    const body = last?.dataset.group === value ? last : h("tbody", { role: "rowgroup", "data-group": value }, groupHead(value, view, groups.get(value), failing, acts));
    if (body !== last) bodies.push(body);
    body.append(row(one, at));
  });
  return h("div", { class: "scroll" },
    h("table", { role: "table" }, h("caption", { class: "unseen" }, t("caption", { tenant })),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)), ...bodies));
}

/** @param {string} value @param {View} view @param {Totals | undefined} totals @param {Source[]} failing @param {{toggleAll: (chips: Chip[]) => void}} acts */
function groupHead(value, view, totals, failing, acts) {
  const low = couldAdd(failing, view.group, value) ? failing : [], servers = totals?.servers ?? 0;
  const sums = totals ? [" · ", ...sumSaid(totals.cpu, number(totals.cpu.known), low, servers), ` ${t("cpuTotal")} · `, ...sumSaid(totals.mem, size(totals.mem.known), low, servers), ` ${t("memTotal")}`] : [];
  return h("tr", { role: "row", class: "group" }, h("th", { role: "rowheader", scope: "rowgroup", colspan: view.columns.length },
    h("button", { type: "button", class: "plain-number", "data-focus": `group ${value}`, onclick: () => acts.toggleAll([chipOf(view.group, value)]) }, valueLabel(view.group, value)), " ",
    h("span", { class: "soft" }, low.length ? t("atLeast", { count: t("servers", { n: servers }) }) : t("servers", { n: servers }), ...sums)));
}

/** @param {string} column @param {View} view @param {(column: string) => void} sort */
function headCell(column, view, sort) {
  const on = view.sort === column;
  return h("th", { role: "columnheader", scope: "col", class: `c-${column}`, "aria-sort": on ? (view.down ? "descending" : "ascending") : false },
    h("button", { type: "button", class: "head", onclick: () => sort(column) }, t(column),
      h("span", { class: "arrow", "aria-hidden": "true" }, on ? (view.down ? "▾" : "▴") : "")));
}

/** @param {Machine} one @param {string} column @param {Answer} answer @param {(key: string) => string} href @param {boolean} first */
function tableCell(one, column, answer, href, first) {
  const value = one.row[COLUMNS[column]];
  if (column === "server") {
    const name = value ? bdi(escaped(value)) : h("em", {}, t("unnamed"));
    return h("span", { class: "named" }, h("a", { href: href(one.key), class: "open", tabindex: first ? 0 : -1 }, name), ending(one),
      one.source?.state === "stale" && h("span", { class: "mark", title: t("staleRow", { time: relative(asOf(one.source, answer)) }) }, picture("stale", 14),
        h("span", { class: "unseen" }, t("staleRow", { time: relative(asOf(one.source, answer)) }))));
  }
  if (column === "status") return statusSaid(value);
  if (column === "tags") return h("span", { class: "tags" }, ...Object.entries(value ?? {}).slice(0, 3).map(tagSaid));
  if (TIMES.includes(column)) return timeSaid(value, answer.offset);
  if (value === null || value === undefined || value === "") return unknownSaid();
  if (column === "party" || column === "region") return called(column, value, one.row.party);
  if (column === "id") return copyable(value);
  if (column === "page") return linked(value, t("openPage"));
  if (ADDRESSES.includes(column)) {
    const [primary, ...others] = value.split(",");
    return h("span", {}, copyable(primary), others.length > 0 && h("span", { class: "soft", title: others.join("\n") }, ` +${others.length}`));
  }
  return bdi(escaped(String(value)));
}

const statusSaid = (/** @type {string} */ status) =>
  h("span", { class: `status ${look(status)}` }, h("span", { class: "dot", "aria-hidden": "true" }), status);

/** That the server ends soon, or has ended by what its cloud says. */
const ending = (/** @type {Machine} */ one) => endsSoon(one) && h("span", { class: `ends ${(one.ends ?? 0) - present() < 7 * DAY ? "bad" : "busy"}`, title: one.row.expires_at },
  t((one.ends ?? 0) < present() ? "hasEnded" : "endsIn", { time: relative(one.ends ?? 0) }));

const tagSaid = (/** @type {[string, any]} */ [name, value]) =>
  h("span", { class: "tag" }, bdi(escaped(name)), value !== "" && h("span", { class: "soft" }, "="), bdi(escaped(String(value))));

/** A value with its button. Not in the order of tabs: there are hundreds; the details have them for the keyboard. */
const copyable = (/** @type {string} */ text) => h("span", { class: "copyable" }, bdi(escaped(text)), copyButton(text, -1));

/** The one button that copies: it is seen while its value is pointed at or the button has the focus. @param {string} text @param {number} [tabindex] */
const copyButton = (text, tabindex = 0) => h("button", { type: "button", class: "copy", tabindex, "data-copy": text, "aria-label": t("copy", { text: escaped(text).slice(0, 80) }), title: t("copyLine") },
  h("svg", { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true" }, h("path", { class: "line", d: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3" })));
