// The fleet at a glance: how many by status, party and region. Each bar is a chart and a filter.

const SHOWN = 8;                            // values of a facet before "more"
const MOST_SHOWN = 200;                     // after it; the rest is found by typing
/** @type {Set<string>} */
const unfolded = new Set();
/** @type {Map<string, boolean>} */
const opened = new Map();                   // what the reader opened or closed

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
 * @param {Record<string, Map<string, Map<string, number>>>} counts @param {Chip[]} chips @param {Source[]} failing  that could hold more
 * @param {{toggle: (chip: Chip) => void, redraw: () => void}} acts
 */
function facets(counts, chips, failing, acts) {
  const always = ["status", "party", "region"]; // of the others one value says nothing
  return FACETS.filter((facet) => always.includes(facet) || counts[facet].size > 1 || chips.some(({ key }) => key === facet))
    .map((facet) => facetGroup(facet, counts[facet], chips, failing, acts));
}

/** @param {string} facet @param {Map<string, Map<string, number>>} values @param {Chip[]} chips @param {Source[]} failing
 * @param {{toggle: (chip: Chip) => void, redraw: () => void}} acts */
function facetGroup(facet, values, chips, failing, acts) {
  const chosen = chips.filter(({ key, not }) => key === facet && !not);
  for (const { value } of chosen) if (![...values.keys()].some((one) => same(one, value)) && !value.includes("*")) values.set(value, new Map());
  if (chosen.length && !opened.has(facet)) opened.set(facet, true);
  const open = opened.get(facet) ?? ["status", "tenant", "party", "account", "region"].includes(facet);
  const turn = (/** @type {MouseEvent} */ event) => { event.preventDefault(); opened.set(facet, !open); acts.redraw(); };
  return h("details", { class: "facet", "data-facet": facet, open },
    h("summary", { "data-focus": `facet ${facet}`, onclick: turn }, h("h3", {}, t(facet), " ", h("span", { class: "soft" }, number(values.size)))),
    ...(open ? facetValues(facet, values, chosen, failing, acts) : []));
}

/** @param {string} facet @param {Map<string, Map<string, number>>} values @param {Chip[]} chosen @param {Source[]} failing
 * @param {{toggle: (chip: Chip) => void, redraw: () => void}} acts */
function facetValues(facet, values, chosen, failing, acts) {
  const rows = [...values].map(([value, parts]) => ({ value, parts, n: total(parts), low: couldAdd(failing, facet, value) })).sort(byCount);
  let widest = 1;
  for (const { n } of rows) widest = Math.max(widest, n);
  const shown = rows.slice(0, unfolded.has(facet) ? MOST_SHOWN : SHOWN);
  for (const row of rows.slice(shown.length)) if (chosen.some((chip) => same(chip.value, row.value))) shown.push(row);
  const rest = rows.length - SHOWN;
  const unfold = () => { if (!unfolded.delete(facet)) unfolded.add(facet); acts.redraw(); };
  return [h("ul", { class: "plain" }, ...shown.map(({ value, parts, n, low }) => {
    const on = chosen.some((chip) => same(chip.value, value));
    return h("li", {}, h("button", { type: "button", class: "value", "aria-pressed": String(on), "data-value": value,
      onclick: () => acts.toggle({ key: facet, value, not: false }) },
    valueLabel(facet, value), h("span", { class: "n" }, counted(n, low)), bar(parts, widest)));
  })),
  unfolded.has(facet) && rows.length > shown.length && h("p", { class: "soft small" }, t("typeTheRest", { n: rows.length - shown.length })),
  rest > 0 && h("button", { type: "button", class: "button quiet", "data-fold": facet, "data-focus": `fold ${facet}`, onclick: unfold }, unfolded.has(facet) ? t("fewer") : t("more", { n: rest }))].filter(Boolean);
}

const same = (/** @type {string} */ a, /** @type {string} */ b) => a.toLowerCase() === b.toLowerCase();
