// The dialogs: one server's details, beside the table where there is room, and the sheets for sources, columns, exports
// and keys.

/** @param {string} title @param {HTMLDialogElement} dialog */
const dialogHead = (title, dialog, ...between) => h("header", {}, h("h2", { id: `${dialog.id}-title` }, title), ...between,
  h("button", { type: "button", class: "button quiet", "aria-label": t("close"), onclick: () => dialog.close() }, "✕"));

/** Opens it with this in it, or puts it into the one that is open. @param {HTMLDialogElement} dialog @param {...any} children */
function fill(dialog, ...children) {
  if (dialog.contains($("toast"))) document.body.append($("toast"));
  dialog.replaceChildren(...children.filter(Boolean));
  if (dialog.id === "drawer" && ROOM.matches) dialog.setAttribute("open", "");     // beside the table, and the focus stays
  else if (!dialog.open) dialog.showModal();
}

let drawerShows = "";
const ROOM = matchMedia("(min-width: 1001px)");                 // for the details beside the table; console.css has it too

/**
 * @param {Machine} one @param {Answer} answer
 * @param {{link: string, before: string, after: string}} links
 */
function drawerOf(one, answer, links) {
  const dialog = $("drawer"), { row, source } = one;
  const made = JSON.stringify([language, one.key, row, source?.state, source?.msg, links, ROOM.matches, parties.size]);
  const seen = source ? asOf(source, answer) : answer.at, age = document.getElementById("drawer-age");
  if (age) age.dataset.at = String(seen);
  if (dialog.open && drawerShows === made) return;              // what is being read stays in place
  drawerShows = made;
  const fields = Object.keys(COLUMNS).filter((column) => !["tags", "server", "page"].includes(column));
  fill(dialog,
    dialogHead("", dialog), h("div", { class: "about" }, statusSaid(row.status), h("span", { class: "soft", id: "drawer-age", "data-at": seen, title: clock(seen) }, t("asOf", { time: relative(seen) })), ending(one), row.console_url && linked(row.console_url, t("openPage")), row.party_status && h("span", { class: "soft" }, `${t("partyStatus")}: `, h("code", {}, bdi(escaped(row.party_status))))),
    source && source.state !== "ok" && notice(source.state === "stale" ? "stale" : "partial", t("staleTitle", { n: 1 }), h("p", {}, ...sourceSaid(source, answer))),
    h("dl", { class: "fields" }, ...fields.flatMap((column) => fieldSaid(column, row, answer))),
    h("h3", {}, t("tags")), tagsSaid(row.tags),
    h("details", {}, h("summary", {}, t("raw")), h("pre", { tabindex: 0 }, escaped(JSON.stringify(row, null, 1)).replaceAll("\\u{a}", "\n"))),
    h("footer", {}, links.before && h("a", { class: "button", href: links.before, "data-step": "before" }, `‹ ${t("before")}`),
      links.after && h("a", { class: "button", href: links.after, "data-step": "after" }, `${t("after")} ›`),
      h("span", { class: "grow" }), h("button", { type: "button", class: "button", "data-copy": links.link }, t("linkToServer"))));
  $("drawer-title").append(row.instance_name ? bdi(row.instance_name) : t("unnamed"));
  const spelled = escaped(row.instance_name);
  if (spelled !== row.instance_name) $("drawer-title").after(h("p", { class: "spelled small" }, `${t("spelled")}: `, h("code", {}, spelled)));
}

/** @param {string} column @param {Row} row @param {Answer} answer */
function fieldSaid(column, row, answer) {
  const value = row[COLUMNS[column]];
  const empty = value === null || value === undefined || value === "";
  const shown = TIMES.includes(column) && !empty ? [h("span", {}, value), " · ", timeSaid(value, answer.offset)]
    : column === "party" || (column === "region" && regionName(value, row.party) !== value) ? [bdi(column === "party" ? partyTitle(value) : regionName(value, row.party)), " ", h("code", {}, bdi(escaped(value)))]
    : [empty ? (ADDRESSES.includes(column) || (column === "firewall" && value === "") ? t("none") : t("unknown")) : h("code", {}, bdi(escaped(String(value))))];
  return [h("dt", {}, t(column)), h("dd", { class: empty ? "soft" : false }, h("span", {}, ...shown), !empty && typeof value === "string" && copyButton(value))];
}

/** @param {Record<string, string>} tags */
function tagsSaid(tags) {
  const pairs = Object.entries(tags ?? {});
  if (!pairs.length) return h("p", { class: "soft" }, t("none"));
  return h("dl", { class: "fields" }, ...pairs.flatMap(([name, value]) =>
    [h("dt", {}, bdi(escaped(name))), h("dd", {}, h("span", {}, linked(value)), value !== "" && copyButton(value))]));
}

function drawerOfNothing() {
  const dialog = $("drawer");
  drawerShows = "";
  fill(dialog, dialogHead(t("gone"), dialog), h("p", {}, t("goneText")));
}

// ---------------------------------------------------------------- sheets

/** @param {Answer} answer */
function sourcesSheet(answer) {
  const dialog = $("sheet"), order = ["failed", "stale", "ok"];
  const rows = [...answer.sources].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
  const heads = ["source", "state", "count", "age", "error"].map((key) => h("th", { scope: "col" }, t(key)));
  fill(dialog, dialogHead(t("sourcesTitle"), dialog), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("sourcesTitle") }, h("table", { class: "sources" },
    h("caption", { class: "unseen" }, t("sourcesTitle")), h("thead", {}, h("tr", {}, ...heads)),
    h("tbody", {}, ...rows.map((one) => h("tr", { class: one.state },
      h("th", { scope: "row" }, sourceNamed(one, answer.several)),
      h("td", {}, h("span", { class: `status ${{ ok: "up", stale: "busy", failed: "bad" }[one.state]}` }, h("span", { class: "dot", "aria-hidden": "true" }), t(one.state))),
      h("td", { class: "n" }, one.count === null ? unknownSaid() : number(one.count)),
      h("td", {}, one.age === null ? unknownSaid() : h("time", { title: clock(asOf(one, answer)) }, relative(asOf(one, answer)))),
      h("td", {}, one.error && t(WHY[one.error] ?? "whyOther"), " ", one.error && h("code", {}, one.error), " ", h("span", { class: "soft small", lang: "en" }, bdi(escaped(one.msg))))))))));
}

/** @param {string[]} chosen @param {(columns: string[]) => void} choose */
function columnsSheet(chosen, choose) {
  const dialog = $("sheet");
  const boxes = Object.keys(COLUMNS).map((column) => {
    const box = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox", value: column }));
    box.checked = chosen.includes(column);
    box.disabled = column === "server";     // it opens the details
    box.addEventListener("change", () => choose(Object.keys(COLUMNS).filter((one) =>
      one === "server" || /** @type {HTMLInputElement} */ (dialog.querySelector(`input[value="${one}"]`)).checked)));
    return h("label", { class: "check" }, box, " ", t(column));
  });
  fill(dialog, dialogHead(t("columnsTitle"), dialog), h("p", { class: "soft" }, t("columnsText")), h("div", { class: "boxes" }, ...boxes),
    h("footer", {}, h("button", { type: "button", class: "button", onclick: () => { choose(USUAL_COLUMNS); columnsSheet(USUAL_COLUMNS, choose); } }, t("usual"))));
}

/**
 * @param {{rows: Row[], answer: Answer, tenant: string, chips: Chip[], link: string, whole: boolean}} what
 *        whole: no source that could hold more of these has failed
 */
function exportSheet({ rows, answer, tenant, chips, link, whole }) {
  const dialog = $("sheet");
  const port = /** @type {HTMLInputElement} */ (h("input", { id: "port", type: "number", min: 1, max: 65_535 }));
  const address = /** @type {HTMLSelectElement} */ (h("select", { id: "address" }, h("option", { value: "lan" }, t("lan")), h("option", { value: "wan" }, t("wan"))));
  const buttons = Object.keys(FORMATS).map((format) => h("button", { type: "button", class: "button", "data-format": format,
    disabled: !whole && format !== "json", onclick: () => (format !== "prometheus" || port.reportValidity()) && save(format, { rows, answer, port: port.value, address: /** @type {any} */ (address.value) }) }, format));
  const { asked, rest } = asParameters(tenant, chips);
  const commands = [asCurl(`${location.origin}${BASE}`, asked), asCommand(`${location.origin}${BASE}`, asked)];
  fill(dialog, dialogHead(t("exportTitle"), dialog),
    h("h3", {}, t("download"), " ", h("span", { class: "soft" }, t("downloadText", { n: rows.length }))),
    h("div", { class: "row" }, ...buttons), !whole && h("p", { class: "warn small" }, t("notWhole")),
    h("div", { class: "row small" }, h("span", { class: "soft" }, "prometheus:"), h("label", { for: "port" }, t("portField")), port, h("label", { for: "address" }, t("addressField")), address),
    h("h3", {}, t("asCommand")), ...commands.map((line) => h("div", { class: "command" }, h("pre", { tabindex: 0 }, line), copyButton(line))),
    rest.length > 0 && h("p", { class: "soft small" }, t("notInCommand", { chips: "" }), ...rest.map((chip) => h("code", {}, bdi(escaped(written(chip))), " "))),
    h("h3", {}, t("linkTitle")), h("div", { class: "command" }, h("pre", { tabindex: 0 }, link), copyButton(link)), h("p", { class: "soft small" }, t("linkText")));
}

/** @param {string} format @param {Chosen} chosen */
function save(format, chosen) {
  const { type, name, write } = FORMATS[format];
  saveText(name, type, write(chosen));
}

/** @param {string} name @param {string} type @param {string} text */
function saveText(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).dispatchEvent(new MouseEvent("click"));
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function keysSheet() {
  const dialog = $("sheet");
  const keys = { "/": "keySearch", "↑ ↓ ← →": "keyRows", Enter: "keyOpen", Esc: "keyClose", "?": "keyHelp" };
  fill(dialog, dialogHead(t("keysTitle"), dialog),
    h("dl", { class: "keys" }, ...Object.entries(keys).flatMap(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, t(text))])),
    h("p", {}, t("searchHelp")), h("p", {}, ...Object.keys(KEYS).map((key) => h("code", {}, `${key}: `))),
    h("p", {}, h("a", { href: `${BASE}docs` }, t("reference"))));
}
