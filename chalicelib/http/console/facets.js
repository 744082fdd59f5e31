// The fleet at a glance: how many by status, party and region. Each bar is a chart and a filter.

const SHOWN = 8;                            // values of a facet before "more"
/** @type {Set<string>} */
const unfolded = new Set();

/** A bar of the looks of so many machines, as wide as its share of the widest.
 * @param {Map<string, number>} parts @param {number} widest */
function bar(parts, widest) {
  let at = 0;
  const pieces = LOOK_ORDER.filter((name) => parts.get(name)).map((name) => {
    const width = ((parts.get(name) ?? 0) / widest) * 100;
    const piece = h("rect", { x: at, y: 0, width, height: 4, class: `fill ${name}` });
    at += width;
    return piece;
  });
  return h("svg", { class: "bar-chart", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, ...pieces);
}

const total = (/** @type {Map<string, number>} */ parts) => [...parts.values()].reduce((sum, n) => sum + n, 0);

/**
 * @param {Record<string, Map<string, Map<string, number>>>} counts @param {Chip[]} chips
 * @param {{toggle: (chip: Chip) => void, redraw: () => void}} acts
 */
function facets(counts, chips, acts) {
  const always = ["status", "party", "region"]; // of the others one value says nothing
  return FACETS.filter((facet) => always.includes(facet) || counts[facet].size > 1 || chips.some(({ key }) => key === facet))
    .map((facet) => facetGroup(facet, counts[facet], chips, acts));
}

/** @param {string} facet @param {Map<string, Map<string, number>>} values @param {Chip[]} chips
 * @param {{toggle: (chip: Chip) => void, redraw: () => void}} acts */
function facetGroup(facet, values, chips, acts) {
  const chosen = chips.filter(({ key, not }) => key === facet && !not);
  for (const { value } of chosen) if (![...values.keys()].some((one) => same(one, value)) && !value.includes("*")) values.set(value, new Map());
  const rows = [...values].map(([value, parts]) => ({ value, parts, n: total(parts) }))
    .sort((a, b) => b.n - a.n || natural.compare(a.value, b.value));
  const widest = Math.max(1, ...rows.map(({ n }) => n));
  const shown = unfolded.has(facet) ? rows : rows.slice(0, SHOWN);
  const rest = rows.length - SHOWN;
  const unfold = () => { if (!unfolded.delete(facet)) unfolded.add(facet); acts.redraw(); };
  return h("section", { class: "facet", "data-facet": facet }, h("h3", {}, t(facet), " ", h("span", { class: "soft" }, number(rows.length))),
    h("ul", { class: "plain" }, ...shown.map(({ value, parts, n }) => {
      const on = chosen.some((chip) => same(chip.value, value));
      return h("li", {}, h("button", { type: "button", class: "value", "aria-pressed": String(on), "data-value": value,
        onclick: () => acts.toggle({ key: facet, value, not: false }) },
      facet === "status" ? statusSaid(value) : h("span", { class: "label" }, bdi(escaped(value))),
      h("span", { class: "n" }, number(n)), bar(parts, widest)));
    })),
    rest > 0 && h("button", { type: "button", class: "button quiet", "data-fold": facet, onclick: unfold }, unfolded.has(facet) ? t("fewer") : t("more", { n: rest })));
}

const same = (/** @type {string} */ a, /** @type {string} */ b) => a.toLowerCase() === b.toLowerCase();

/** The line above all: how many, and how they are. @param {Answer} answer @param {Machine[]} left @param {() => void} showSources */
function summary(answer, left, showSources) {
  /** @type {Map<string, number>} */
  const statuses = new Map(), looks = new Map();
  for (const { row } of left) {
    statuses.set(row.status, (statuses.get(row.status) ?? 0) + 1);
    looks.set(look(row.status), (looks.get(look(row.status)) ?? 0) + 1);
  }
  const many = left.length !== answer.machines.length;
  const clouds = new Set(left.map(({ row }) => row.party)).size;
  const regions = new Set(left.map(({ row }) => `${row.party}/${row.region}`)).size;
  const fresh = answer.sources.filter((one) => one.state === "ok").length;
  const legend = [...statuses].sort((a, b) => LOOK_ORDER.indexOf(look(a[0])) - LOOK_ORDER.indexOf(look(b[0])) || b[1] - a[1]);
  return [h("div", { class: "numbers" },
    h("p", { class: "number" }, h("strong", {}, number(left.length)), " ",
      many ? t("ofServers", { n: answer.machines.length }) : t("servers", { n: left.length }).replace(/^\S+ /, "")),
    h("p", { class: "soft" }, t("clouds", { n: clouds }), " · ", t("regions", { n: regions }), " · ",
      h("button", { type: "button", class: `plainlink ${fresh === answer.sources.length ? "" : "warn"}`, id: "sources", onclick: showSources },
        t("sourcesSummary", { ok: fresh, total: answer.sources.length })))),
  h("div", { class: "strip" }, bar(looks, Math.max(1, left.length)),
    h("p", { class: "legend small" }, ...legend.map(([status, n]) => h("span", {}, statusSaid(status), " ", h("span", { class: "n" }, number(n))))))];
}
