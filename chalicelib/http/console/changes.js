// What appeared, changed (from what to what) and vanished, and when, from the lists that twocloud kept.

// seconds; a little less than the 30 days that the history is kept
const PERIODS = { hour: 3600, day: 86_400, week: 604_800, month: 2_588_400 };
const CHANGE_LOOKS = { appeared: "up", changed: "busy", vanished: "gone" };
const MOST_CHANGES = 20_000;                // the newest; more than that nobody reads
const LINES = 100;                          // of the list before "more"
const OF_VANISHED = ["", "name", "id", "tenant", "party", "account", "region"];        // chips that fit what is known of them
let linesShown = LINES;

/**
 * @typedef {{at: string, kind: "appeared" | "changed" | "vanished", tenant_id: string, party: string, account: string,
 *            region: string, instance_id: string, instance_name: string | null, fields?: Record<string, [any, any]>}} Event  of the API
 * @typedef {Machine & {event: Event, time: number, listed: boolean}} Change  listed: the server is in the list now
 * @typedef {{events: Event[], sources: (Source & {since: string | null})[], msg: string, at: number, since: number, older: number, several: boolean}} Changes
 *            older: how many older changes of the period were not read
 */

/** @param {string} tenant @param {string} token @param {number} since  milliseconds @param {boolean} several @param {AbortSignal} signal @returns {Promise<Changes>} */
async function getChanges(tenant, token, since, several, signal) {
  const ask = (/** @type {Record<string, string>} */ range) =>
    get(`changes?${new URLSearchParams({ tenant_id: tenant, since: instant(since), ...range })}`, "changes", token, signal);
  const made = (/** @type {any} */ body, /** @type {number} */ at, /** @type {Event[]} */ events, /** @type {number} */ older) =>
    ({ events, sources: body.sources, msg: body.msg, at, since, older, several });
  try {
    const { body, at } = await ask({});
    return made(body, at, body.changes, 0);
  } catch (error) {
    if (/** @type {Problem} */ (error).status !== 413) throw error;
  }
  const { total: all } = await ask({ t: "1" });
  const first = Math.max(1, all - MOST_CHANGES + 1), events = [];
  for (let f = first; ; f += PART) {
    const { body, at } = await ask({ f: String(f), t: String(f + PART - 1) });
    events.push(...body.changes);
    if (body.changes.length < PART) return made(body, at, events, first - 1);
  }
}

const instant = (/** @type {number} */ time) => new Date(time).toISOString().replace(".000", "");

/** @type {{changes: Changes | null, answer: Answer | null, all: Change[], index: Record<string, Index>}} */
const NOT_JOINED = { changes: null, answer: null, all: [], index: {} };
let joined = NOT_JOINED;

/** The changes, newest first, each with the fields that its server has now. @param {Changes} changes @param {Answer} answer */
function changesOf(changes, answer) {
  if (joined.changes === changes && joined.answer === answer) return joined.all;
  const servers = new Map(answer.machines.map((one) => [one.key, one]));
  const all = changes.events.map((event) => {
    const { at, kind, fields, ...known } = event;
    const key = `${sourceKey(known, changes.several)}/${known.instance_id}`, server = servers.get(key);
    const row = { ...server?.row, ...known, instance_name: known.instance_name ?? server?.row.instance_name ?? "" };
    const words = [row.instance_name, row.instance_id, row.tenant_id, row.party, row.account, row.region, kind, JSON.stringify(fields ?? "")];
    return { event, row, key, words: `${server?.words ?? ""}\n${words.join("\n").toLowerCase()}`, source: server?.source, time: Date.parse(at), listed: Boolean(server),
      from: "", at: 0, look: LOOK_ORDER.indexOf(CHANGE_LOOKS[kind]), ends: server?.ends ?? null };
  }).reverse();
  const index = newIndex();
  all.forEach((one, at) => { one.at = at; addToIndex(index, one.row, one.listed ? FACETS : OF_VANISHED); });
  joined = { changes, answer, all, index };
  return all;
}

/**
 * Those that the filters let through. What a chip asks of a server that is gone may not be known: then it is left out, and counted.
 * @param {Change[]} all @param {Chip[]} chips
 */
function changesLeft(all, chips) {
  const whole = groups(chips), part = groups(chips.filter(({ key }) => OF_VANISHED.includes(key)));
  const undecided = beyondVanished(chips);
  const fits = (/** @type {Change} */ one) => (one.listed || !undecided ? whole : part).every((test) => test.fits(one));
  const passed = all.filter(fits);
  return { left: passed.filter((one) => one.listed || !undecided), hidden: passed.filter((one) => !one.listed && undecided).length };
}

/** Whether the chips ask for what is not known of a server that is gone. @param {Chip[]} chips */
const beyondVanished = (chips) => chips.some(({ key }) => !OF_VANISHED.includes(key));

/** How many changes each choice would leave, by their kinds. @param {Changes} changes @param {Answer} answer @param {View} view @param {Chip[]} chips */
const changeCounts = (changes, answer, view, chips) => filtered(changesOf(changes, answer).filter((one) =>
  (!view.kind || one.event.kind === view.kind) && (one.listed || !beyondVanished(chips))), chips, joined.index).counts;

/** The changes that are shown: those of the chosen kind. @param {Changes} changes @param {Answer} answer @param {View} view @param {Chip[]} chips */
const changesShown = (changes, answer, view, chips) =>
  changesLeft(changesOf(changes, answer), chips).left.filter(({ event }) => !view.kind || event.kind === view.kind);

/**
 * @param {Changes} changes @param {Answer} answer @param {View} view @param {Chip[]} chips
 * @param {{href: (key: string) => string, go: (change: Partial<View>) => void, redraw: () => void}} acts
 */
function changesSaid(changes, answer, view, chips, acts) {
  const { left, hidden } = changesLeft(changesOf(changes, answer), chips);
  const shown = left.filter(({ event }) => !view.kind || event.kind === view.kind);
  const first = changes.sources.filter(({ since }) => since && Date.parse(since) > changes.since).length;
  const choice = (/** @type {string} */ key, /** @type {boolean} */ on, /** @type {Partial<View>} */ change, /** @type {...any} */ ...text) =>
    h("button", { type: "button", class: "button", "aria-pressed": String(on), "data-focus": key, onclick: () => { linesShown = LINES; acts.go(change); } }, ...text);
  const kinds = h("div", { class: "periods", role: "group", "aria-label": t("kind") },
    choice("kind:", !view.kind, { kind: "" }, t("allKinds"), " ", h("span", { class: "n" }, number(left.length))),
    ...Object.keys(CHANGE_LOOKS).map((kind) => choice(`kind:${kind}`, view.kind === kind, { kind }, kindSaid(kind), " ",
      h("span", { class: "n" }, number(left.filter(({ event }) => event.kind === kind).length)))),
    h("span", { class: "grow" }), choice("per:day", view.per === "day", { per: "day" }, t("byDay")), choice("per:source", view.per === "source", { per: "source" }, t("bySource")));
  const notes = [h("p", { class: "soft small" }, t("changesText"), first > 0 && ` ${t("firstLists", { n: first })}`,
    changes.older > 0 && ` ${t("olderChanges", { n: changes.events.length, count: changes.older })}`),
  hidden > 0 && h("p", { class: "warn small", "data-hidden": hidden }, t("changesHidden", { n: hidden }))].filter(Boolean);
  const body = shown.length ? [timeline(shown, changes, view, acts), ...changeGroups(shown, changes, view, acts)]
    : [instead("empty", t("changesNone"), h("p", {}, t(left.length || chips.length ? "changesNoneFit" : "changesNoneText", { time: clock(changes.since), n: changes.events.length })))];
  return [...changesUnknown(changes, chips), kinds, ...notes, ...body];
}

/** The sources of which later changes, or all, are not known. @param {Changes} changes @param {Chip[]} chips */
const notFresh = (changes, chips) => sourcesWithin(/** @type {any} */ (changes), chips).filter(({ state }) => state !== "ok");

/** Of which sources later changes, or all, are not known. @param {Changes} changes @param {Chip[]} chips */
function changesUnknown(changes, chips) {
  const within = notFresh(changes, chips);
  return [["failed", "partial", "neverListed"], ["stale", "stale", "knownUntil"]].flatMap(([state, kind, title]) => {
    const those = within.filter((one) => one.state === state);
    return those.length ? [notice(kind, t(title, { n: those.length }), failures(those, /** @type {any} */ (changes)))] : [];
  });
}

const kindSaid = (/** @type {string} */ kind) =>
  h("span", { class: `status ${CHANGE_LOOKS[kind]}` }, h("span", { class: "dot", "aria-hidden": "true" }), t(kind));

// ---------------------------------------------------------------- when

/** The spans of the timeline: days of the reader's own zone, of a day hours, of an hour twelfths.
 * @param {Changes} changes @param {View} view @returns {number[]}  where each begins */
function spans(changes, view) {
  const starts = [], at = new Date(changes.since), minutes = { hour: 5, day: 60 }[view.since];
  if (minutes) at.setMinutes(Math.floor(at.getMinutes() / minutes) * minutes, 0, 0);
  else at.setHours(0, 0, 0, 0);
  while (at.getTime() <= changes.at) {
    starts.push(at.getTime());
    if (minutes) at.setTime(at.getTime() + minutes * 60_000);
    else at.setDate(at.getDate() + 1);      // not always 24 hours
  }
  return starts;
}

/** A column for each span, as high as its share of the highest; it leads to the newest change in it.
 * @param {Change[]} shown @param {Changes} changes @param {View} view @param {{redraw: () => void}} acts */
function timeline(shown, changes, view, acts) {
  const starts = spans(changes, view), columns = starts.map(() => /** @type {Change[]} */ ([]));
  for (const one of shown) columns[Math.max(0, starts.findLastIndex((start) => start <= one.time))].push(one);
  const highest = Math.max(...columns.map((those) => those.length));
  const days = !["hour", "day"].includes(view.since);
  const label = (/** @type {number} */ time) => (days ? FORMATTERS[language].date : FORMATTERS[language].minute).format(time);
  return h("figure", { class: "timeline" }, h("figcaption", { class: "unseen" }, t("timeline")),
    h("div", { class: "spans" }, ...columns.map((those, at) => {
      const counts = Object.keys(CHANGE_LOOKS).map((kind) => /** @type {const} */ ([kind, those.filter(({ event }) => event.kind === kind).length])).filter(([, n]) => n);
      const text = `${label(starts[at])}: ${counts.map(([kind, n]) => `${t(kind)} ${number(n)}`).join(", ") || t("none")}`;
      let top = 40;
      const pieces = counts.map(([kind, n]) => {
        const height = (n / highest) * 40;
        top -= height;
        return h("rect", { x: 0, y: top, width: 10, height, class: `fill ${CHANGE_LOOKS[kind]}` });
      });
      return h("button", { type: "button", class: "span", title: text, "aria-label": text, disabled: !those.length, "data-focus": `span:${at}`,
        onclick: () => showChange(shown.indexOf(those[0]), acts.redraw) },
      h("svg", { viewBox: "0 0 10 40", preserveAspectRatio: "none", "aria-hidden": "true" }, h("rect", { x: 0, y: 39.4, width: 10, height: 0.6, class: "fill gone" }), ...pieces));
    })),
    h("div", { class: "ends soft small", "aria-hidden": "true" }, h("span", {}, label(starts[0])), h("span", {}, label(starts[starts.length - 1]))));
}

/** Bring a line into sight, and the cursor to it. @param {number} index @param {() => void} redraw */
function showChange(index, redraw) {
  if (index >= linesShown) {
    linesShown = index + LINES;
    redraw();
  }
  const line = /** @type {HTMLElement | null} */ (document.querySelector(`[data-line="${index}"]`));
  line?.scrollIntoView({ block: "center" });
  line?.focus({ preventScroll: true });
}

// ---------------------------------------------------------------- what

/** @param {Change[]} shown @param {Changes} changes @param {View} view @param {{href: (key: string) => string, redraw: () => void}} acts */
function changeGroups(shown, changes, view, acts) {
  const bySource = view.per === "source", { date, full, time } = FORMATTERS[language];
  const found = byKey(shown, (one) => (bySource ? sourceName(one.row, changes.several) : new Date(one.time).toDateString()));
  const order = bySource ? [...found].sort((a, b) => b[1].length - a[1].length || natural.compare(a[0], b[0])) : [...found];
  const sections = [], place = new Map(shown.map((one, at) => [one, at]));
  let room = linesShown;
  for (const [, those] of order) {
    if (room <= 0) break;
    sections.push(h("section", { class: "change" }, h("h3", {}, bySource ? sourceNamed(those[0].row, changes.several) : full.format(those[0].time), " ", h("span", { class: "n soft" }, number(those.length))),
      h("ol", { class: "plain" }, ...those.slice(0, room).map((one) => h("li", { "data-change": one.event.kind, "data-line": place.get(one), tabindex: -1 },
        h("time", { datetime: one.event.at, title: clock(one.time), class: "soft n" }, bySource ? `${date.format(one.time)} ${time.format(one.time)}` : time.format(one.time)),
        kindSaid(one.event.kind), serverSaid(one, acts.href),
        h("span", { class: "soft where" }, bySource ? bdi(escaped(one.row.instance_id)) : sourceNamed(one.row, changes.several)),
        one.event.fields && h("ul", { class: "plain diffs" }, ...Object.entries(one.event.fields).flatMap(([name, pair]) => differences(name, pair))))))));
    room -= those.length;
  }
  const more = () => { linesShown += 5 * LINES; acts.redraw(); };
  return [...sections, shown.length > linesShown && h("button", { type: "button", class: "button", "data-focus": "more", onclick: more }, t("more", { n: shown.length - linesShown }))].filter(Boolean);
}

/** @param {Change} one @param {(key: string) => string} href */
function serverSaid(one, href) {
  const text = escaped(one.row.instance_name || one.row.instance_id);
  return one.listed ? h("a", { class: "open", href: href(one.key), "data-focus": `${one.event.at}${one.key}` }, bdi(text))
    : h("span", { class: "open", title: one.row.instance_id }, bdi(text));
}

/** A field, from what to what. Of tags, those that differ. @param {string} name @param {[any, any]} pair */
function differences(name, [before, after]) {
  const column = Object.keys(COLUMNS).find((one) => COLUMNS[one] === name);
  if (before === null && after === null) return [h("li", {}, h("span", { class: "soft" }, column ? t(column) : name), " ", t("notRecorded"))];
  if (name !== "tags") return [difference(column ? t(column) : name, valueSaid(name, before), valueSaid(name, after))];
  const keys = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])].filter((key) => before?.[key] !== after?.[key]);
  return keys.map((key) => difference(`${t("tags")}: ${escaped(key)}`, ...[before, after].map((tags) => (tags && key in tags ? bdi(escaped(tags[key]) || '""') : t("none")))));
}

/** @param {string} name @param {...any} values */
const difference = (name, ...values) => h("li", {}, h("span", { class: "soft" }, bdi(name)), " ", h("span", { class: "was" }, values[0]),
  h("span", { "aria-hidden": "true" }, " → "), h("span", { class: "unseen" }, ` ${t("becomes")} `), h("span", {}, values[1]));

/** @param {string} name @param {any} value */
function valueSaid(name, value) {
  if (name === "status" && value) return statusSaid(value);
  if (value === "") return t("none");
  return value === null || value === undefined ? unknownSaid() : bdi(escaped(typeof value === "object" ? jsonOf(value) : String(value)));
}

// ---------------------------------------------------------------- elsewhere

const CHANGE_FIELDS = ["at", "kind", "tenant_id", "party", "account", "region", "instance_id", "instance_name", "fields"];
const CHANGE_FORMATS = {                    // as the API writes them
  csv: { type: "text/csv;charset=utf-8", name: "changes.csv", write: (/** @type {Event[]} */ events) => [CHANGE_FIELDS, ...events.map((event) =>
    CHANGE_FIELDS.map((name) => quoted(name === "fields" ? (event.fields ? inCell(fieldsJson(event.fields)) : "") : cell(event[name], name))))]
    .map((line) => `${line.join(",")}\r\n`).join("") },
  json: { type: "application/json", name: "changes.json", write: (/** @type {Event[]} */ events, /** @type {Changes} */ { msg, sources }) =>
    objectOf([["code", "200"], ["msg", jsonOf(msg)], ["changes", `[${events.map(eventJson).join(",")}]`], ["sources", jsonOf(sources)]]) },
  ndjson: { type: "application/x-ndjson", name: "changes.ndjson", write: (/** @type {Event[]} */ events) => events.map((event) => `${eventJson(event)}\n`).join("") },
};

const eventJson = (/** @type {Event} */ event) => objectOf(Object.entries(event).map(([name, value]) => [name, name === "fields" ? fieldsJson(value) : jsonOf(value)]));

const fieldsJson = (/** @type {Record<string, [any, any]>} */ fields) => objectOf(Object.entries(fields).map(([name, pair]) =>
  [name, `[${pair.map((value) => (name === "tags" && value ? tagsJson(value) : jsonOf(value))).join(",")}]`]));

/** @param {Change[]} shown @param {Changes} changes @param {{tenant: string, chips: Chip[], kind: string, link: string}} what */
function changesSheet(shown, changes, { tenant, chips, kind, link }) {
  const dialog = $("sheet"), events = shown.map(({ event }) => event).reverse();
  const buttons = Object.entries(CHANGE_FORMATS).map(([format, { type, name, write }]) => h("button", { type: "button", class: "button", "data-format": format,
    onclick: () => saveText(name, type, write(events, changes)) }, format));
  const { asked } = asParameters(tenant, chips), own = ["tenant_id", "party", "account", "region"];
  const query = Object.fromEntries(Object.entries({ ...asked, since: instant(changes.since), kind }).filter(([name, value]) => value && [...own, "since", "kind"].includes(name)));
  const rest = chips.filter(({ key, value, not }) => not || !own.includes(key === "tenant" ? "tenant_id" : key) || /[*?]/.test(value));
  const base = `${location.origin}${BASE}`;
  fill(dialog, dialogHead(t("exportChanges"), dialog),
    h("h3", {}, t("download"), " ", h("span", { class: "soft" }, t("downloadChanges", { n: events.length }))), h("div", { class: "row" }, ...buttons),
    h("h3", {}, t("asCommand")), ...[asCurl(base, query, "changes"), asCommand(base, query, "changes")].map((line) => h("div", { class: "command" }, h("pre", { tabindex: 0 }, line), copyButton(line))),
    rest.length > 0 && h("p", { class: "soft small" }, t("notInCommand", { chips: "" }), ...rest.map((chip) => h("code", {}, bdi(escaped(written(chip))), " "))),
    h("h3", {}, t("linkTitle")), h("div", { class: "command" }, h("pre", { tabindex: 0 }, link), copyButton(link)));
}
