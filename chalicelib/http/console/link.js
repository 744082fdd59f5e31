// What the page's address holds: the view, behind the `#`, which is sent to no server. Never the token; the tenant only
// in a link that somebody asked for.

/**
 * @typedef {{chips: Chip[], text: string, sort: string, down: boolean, columns: string[], server: string,
 *            show: "fleet" | "changes", since: "hour" | "day" | "week", page: number}} View
 */

/** @returns {{view: View, tenant: string, lang: string}} */
function readLink(/** @type {string} */ hash) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const chips = parse(said.get("q") ?? "");
  const sort = (said.get("sort") ?? "").replace(/^-/, "");
  const columns = (said.get("columns") ?? "").split(",").filter((column) => Object.hasOwn(COLUMNS, column));
  const since = said.get("since") ?? "";
  return {
    view: {
      chips: chips.filter(({ key, not }) => key || not),
      text: chips.filter(({ key, not }) => !key && !not).map(written).join(" "),
      sort: Object.hasOwn(COLUMNS, sort) ? sort : "", down: (said.get("sort") ?? "").startsWith("-"),
      columns: columns.length ? columns : USUAL_COLUMNS,
      server: said.get("server") ?? "",
      show: said.get("show") === "changes" ? "changes" : "fleet",
      since: since === "day" || since === "week" ? since : "hour",
      page: Math.max(0, (Number(said.get("page")) || 1) - 1),
    },
    tenant: said.get("tenant") ?? "", lang: said.get("lang") ?? "",
  };
}

/** Only what differs from the usual is written. */
function writeLink(/** @type {View} */ view, /** @type {Record<string, string>} */ more = {}) {
  const said = new URLSearchParams();
  const query = [...view.chips.map(written), view.text.trim()].filter(Boolean).join(" ");
  if (query) said.set("q", query);
  if (view.sort) said.set("sort", `${view.down ? "-" : ""}${view.sort}`);
  if (view.columns.join() !== USUAL_COLUMNS.join()) said.set("columns", view.columns.join(","));
  if (view.show === "changes") said.set("show", "changes");
  if (view.show === "changes" && view.since !== "hour") said.set("since", view.since);
  if (view.page) said.set("page", String(view.page + 1));
  if (view.server) said.set("server", view.server);
  for (const [name, value] of Object.entries(more)) if (value) said.set(name, value);
  const text = said.toString().replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%2C", ",");
  return text ? `#${text}` : "";
}
