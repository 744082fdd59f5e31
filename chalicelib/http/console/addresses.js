// The addresses of what is shown, in the forms that people paste. Host names are legal ones, whatever the clouds call
// the servers, so that a name cannot add a line or an option.

const ADDRESS_FORMS = {
  plain: (/** @type {Host[]} */ hosts) => hosts.map(({ address }) => `${address}\n`).join(""),
  comma: (/** @type {Host[]} */ hosts) => hosts.map(({ address }) => address).join(","),
  ssh: (/** @type {Host[]} */ hosts, /** @type {string} */ note) => note + hosts.map(({ name, address }) => `Host ${name}\n  HostName ${address}\n`).join(""),
  ansible: (/** @type {Host[]} */ hosts, /** @type {string} */ note) => note + hosts.map(({ name, address }) => `${name} ansible_host=${address}\n`).join(""),
};

/** @typedef {{name: string, address: string}} Host */

/** The first address of each that has one. @param {Row[]} rows @param {"lan" | "wan"} kind @returns {Host[]} */
function hostsOf(rows, kind) {
  const names = hostNames(rows);
  return rows.flatMap((row, at) => {
    const address = (row[`${kind}_ip_set`] || row[`${kind}_ipv6_set`]).split(",")[0];
    return ADDRESS.test(address) ? [{ name: names[at], address }] : [];
  });
}

/** @param {Row[]} rows @param {Source[]} failing  that could hold more of these @param {"lan" | "wan"} kind @param {(text: string, words: string) => void} copy */
function addressesSheet(rows, failing, kind, copy) {
  const dialog = $("sheet"), hosts = hostsOf(rows, kind);
  const note = failing.length ? `# incomplete: ${failing.map((one) => `${one.party} ${one.region}`).slice(0, 10).join(", ").replace(/[^\w ,.:-]/g, "_")} gave nothing\n` : "";
  const choice = /** @type {HTMLSelectElement} */ (h("select", { id: "address-kind", onchange: () => addressesSheet(rows, failing, /** @type {any} */ (choice.value), copy) },
    ...["lan", "wan"].map((value) => h("option", { value, selected: value === kind }, t(value)))));
  const without = rows.length - hosts.length;
  fill(dialog, dialogHead(t("addressesTitle"), dialog),
    h("div", { class: "row" }, h("label", { for: "address-kind" }, t("addressField")), choice, h("span", { class: "soft", id: "address-count" },
      t("addressesOf", { n: hosts.length, total: rows.length }), without > 0 && ` ${t("withoutAddress", { n: without })}`)),
    failing.length > 0 && h("p", { class: "warn" }, t("partialTitle", { n: failing.length }), ". ", t("partialText")),
    h("div", { class: "row" }, ...Object.keys(ADDRESS_FORMS).map((form) => h("button", { type: "button", class: "button", "data-form": form, disabled: !hosts.length,
      onclick: () => copy(ADDRESS_FORMS[form](hosts, note), t("addressesCopied", { n: hosts.length })) }, t(`form_${form}`)))),
    h("pre", { tabindex: 0 }, ADDRESS_FORMS.ssh(hosts.slice(0, 3), note), hosts.length > 3 && "…"));
}
