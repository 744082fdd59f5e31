// What appeared, changed and vanished, from the lists that the API kept.

const PERIODS = { hour: 3600, day: 86_400, week: 604_800 };

/** @typedef {{answer: Answer, vanished: Machine[], since: number}} Changes */

/** @param {any} body @param {number} at @param {number} since @param {boolean} several @returns {Changes} */
function readChanges(body, at, since, several) {
  const answer = read(body, at, several);
  const vanished = body.vanished.map((/** @type {any} */ one) => ({
    ...machine({ status: "", zone: "", instance_type: "", project_id: "", lan_ip_set: "", wan_ip_set: "", lan_ipv6_set: "",
      wan_ipv6_set: "", tags: {}, ...one }, new Map(), several), vanishedAt: one.vanished_at }));
  return { answer, vanished, since };
}

/** @param {Changes} changes @param {Chip[]} chips @param {(key: string) => string} href */
function changesSaid(changes, chips, href) {
  const { answer, since } = changes, { offset } = answer;
  const isNew = (/** @type {Machine} */ { row }) => row.create_at && offset !== null && asUtc(row.create_at) - offset >= since;
  const left = filtered(answer.machines, chips).left, gone = filtered(changes.vanished, chips).left;
  const lists = /** @type {[string, Machine[], string, string][]} */ ([["appeared", left.filter(isNew), "created", "up"],
    ["changed", left.filter((one) => !isNew(one)), "updated", "busy"], ["vanished", gone, "vanishedAt", "gone"]]);
  if (!left.length && !gone.length) return [instead("empty", t("changesNone"), h("p", {}, t("changesNoneText", { time: clock(since) })))];
  return [h("p", { class: "soft small" }, t("changesText")), ...lists.map(([kind, machines, column, look]) => h("section", { class: "change", "data-change": kind },
    h("h3", { class: `status ${look}` }, h("span", { class: "dot", "aria-hidden": "true" }), t(kind), " ", h("span", { class: "n soft" }, number(machines.length))),
    machines.length > 0 && h("ul", { class: "plain" }, ...machines.slice(0, PAGE).map((one) => h("li", {},
      kind === "vanished" ? bdi(escaped(one.row.instance_name || one.row.instance_id)) : h("a", { href: href(one.key) }, bdi(escaped(one.row.instance_name || one.row.instance_id))),
      h("span", { class: "soft" }, bdi(escaped(sourceName(one.row, answer.several)))),
      kind === "vanished" ? h("span", { class: "soft" }, bdi(escaped(one.row.instance_id))) : statusSaid(one.row.status),
      timeSaid(kind === "vanished" ? one.vanishedAt ?? null : one.row[COLUMNS[column]], offset)))),
    machines.length > PAGE && h("p", { class: "soft" }, t("more", { n: machines.length - PAGE }))))];
}
