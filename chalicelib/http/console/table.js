// The table: one page of it at a time, whatever the fleet's size.

const PAGE = 50;                            // rows: laying out more of them takes longer than all the rest

/**
 * @param {Machine[]} machines  of this page @param {View} view @param {Answer} answer @param {string} tenant
 * @param {{sort: (column: string) => void, href: (key: string) => string}} acts
 */
function table(machines, view, answer, tenant, acts) {
  const heads = view.columns.map((column) => headCell(column, view, acts.sort));
  const rows = machines.map((one, at) => h("tr", { role: "row", "data-key": one.key, class: one.source?.state === "stale" ? "old" : false },
    ...view.columns.map((column) => h("td", { role: "cell", class: `c-${column}`, "data-label": t(column) },
      tableCell(one, column, answer, acts.href, at === 0)))));
  return h("div", { class: "scroll" },
    h("table", { role: "table" }, h("caption", { class: "unseen" }, t("caption", { tenant })),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)),
      h("tbody", { role: "rowgroup" }, ...rows)));
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
    return h("span", { class: "named" }, h("a", { href: href(one.key), class: "open", tabindex: first ? 0 : -1 }, name),
      one.source?.state === "stale" && h("span", { class: "mark", title: t("staleRow", { time: relative(asOf(one.source, answer)) }) }, picture("stale", 14),
        h("span", { class: "unseen" }, t("staleRow", { time: relative(asOf(one.source, answer)) }))));
  }
  if (column === "status") return statusSaid(value);
  if (column === "tags") return h("span", { class: "tags" }, ...Object.entries(value ?? {}).slice(0, 3).map(tagSaid));
  if (TIMES.includes(column)) return timeSaid(value, answer.offset);
  if (value === null || value === undefined || value === "") return unknownSaid();
  if (column === "id") return copyable(value);
  if (ADDRESSES.includes(column)) {
    const [primary, ...others] = value.split(",");
    return h("span", {}, copyable(primary), others.length > 0 && h("span", { class: "soft", title: others.join("\n") }, ` +${others.length}`));
  }
  return bdi(escaped(String(value)));
}

const statusSaid = (/** @type {string} */ status) =>
  h("span", { class: `status ${look(status)}` }, h("span", { class: "dot", "aria-hidden": "true" }), status);

const tagSaid = (/** @type {[string, any]} */ [name, value]) =>
  h("span", { class: "tag" }, bdi(escaped(name)), value !== "" && h("span", { class: "soft" }, "="), bdi(escaped(String(value))));

/** A value that a click copies. Not in the order of tabs: there are hundreds; the details have them for the keyboard. */
const copyable = (/** @type {string} */ text) =>
  h("button", { type: "button", class: "copy", tabindex: -1, "data-copy": text, title: t("copy", { text: escaped(text) }) }, bdi(escaped(text)));
