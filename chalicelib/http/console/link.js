// What the page's address holds: the view, behind the `#`, which is sent to no server. Never the token; the tenant only
// in a link that somebody asked for.

/**
 * @typedef {{chips: Chip[], text: string, sort: string, down: boolean, columns: string[], server: string,
 *            show: "fleet" | "changes", since: string, kind: string, per: "day" | "source", page: number, size: number,
 *            by: string, group: string}} View  by: the matrix's rows, group: the table's groups; both a property, "": none
 */

/** @returns {{view: View, tenant: string, lang: string}} */
function readLink(/** @type {string} */ hash) {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""));
  const chips = parse(parameters.get("q") ?? "");
  const sort = (parameters.get("sort") ?? "").replace(/^-/, "");
  const columns = (parameters.get("columns") ?? "").split(",").filter((column) => Object.hasOwn(COLUMNS, column));
  const since = parameters.get("since") ?? "", kind = parameters.get("kind") ?? "", by = parameters.get("by") ?? "", group = parameters.get("group") ?? "";
  return {
    view: {
      chips: chips.filter(({ key, not }) => key || not),
      text: chips.filter(({ key, not }) => !key && !not).map(written).join(" "),
      sort: Object.hasOwn(COLUMNS, sort) ? sort : "", down: (parameters.get("sort") ?? "").startsWith("-"),
      columns: columns.length ? columns : USUAL_COLUMNS,
      server: parameters.get("server") ?? "",
      show: parameters.get("show") === "changes" ? "changes" : "fleet",
      since: Object.hasOwn(PERIODS, since) ? since : "day",
      kind: Object.hasOwn(CHANGE_LOOKS, kind) ? kind : "", per: parameters.get("per") === "source" ? "source" : "day",
      page: Math.max(0, (Number(parameters.get("page")) || 1) - 1),
      size: SIZES.find((one) => one === Number(parameters.get("size"))) ?? PAGE,
      by: isProperty(by) ? by : "party", group: isProperty(group) ? group : "",
    },
    tenant: parameters.get("tenant") ?? "", lang: parameters.get("lang") ?? "",
  };
}

/** Only what differs from the usual is written. */
function writeLink(/** @type {View} */ view, /** @type {Record<string, string>} */ more = {}) {
  const parameters = new URLSearchParams();
  const query = [...view.chips.map(written), view.text.trim()].filter(Boolean).join(" ");
  if (query) parameters.set("q", query);
  if (view.sort) parameters.set("sort", `${view.down ? "-" : ""}${view.sort}`);
  if (view.columns.join() !== USUAL_COLUMNS.join()) parameters.set("columns", view.columns.join(","));
  if (view.show === "changes") parameters.set("show", "changes");
  if (view.show === "changes" && view.since !== "day") parameters.set("since", view.since);
  if (view.show === "changes" && view.kind) parameters.set("kind", view.kind);
  if (view.show === "changes" && view.per !== "day") parameters.set("per", view.per);
  if (view.by !== "party") parameters.set("by", view.by);
  if (view.group) parameters.set("group", view.group);
  if (view.size !== PAGE) parameters.set("size", String(view.size));
  if (view.page) parameters.set("page", String(view.page + 1));
  if (view.server) parameters.set("server", view.server);
  for (const [name, value] of Object.entries(more)) if (value) parameters.set(name, value);
  const text = parameters.toString().replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%2C", ",");
  return text ? `#${text}` : "";
}
