// What must be shown beside the list, or in its place: each state of it looks different.

const SHAPES = {                            // a picture for each kind, drawn in 24 × 24
  unauthorized: "M7 11V8a5 5 0 0 1 10 0v3M5.5 11h13v9h-13z",
  forbidden: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M5.8 5.8l12.4 12.4",
  missing: "M4 7h16v12H4zM4 7l3-3h10l3 3M9 12h6",
  throttled: "M12 4a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17M12 8v5l3 2",
  offline: "M3 9a14 14 0 0 1 18 0M6.5 12.8a9 9 0 0 1 11 0M12 18h.01M4 4l16 16",
  failed: "M12 3 22 20H2zM12 9v5M12 17h.01", invalid: "M12 3 22 20H2zM12 9v5M12 17h.01",
  partial: "M12 3a9 9 0 1 0 9 9h-9z", stale: "M12 4a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17M12 8v5l3 2",
  empty: "M4 5h16v5H4zM4 14h16v5H4zM7 7.5h.01M7 16.5h.01", noMatch: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5 20 20M8 10.5h5",
  loading: "M12 3v4M12 17v4M3 12h4M17 12h4M5.6 5.6l2.9 2.9M15.5 15.5l2.9 2.9M5.6 18.4l2.9-2.9M15.5 8.5l2.9-2.9",
};

const picture = (/** @type {string} */ kind, size = 22) => h("svg", { viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true" },
  h("path", { d: SHAPES[kind], class: "line" }));

/** A bar. @param {string} kind @param {string} title @param {...any} children */
const notice = (kind, title, ...children) =>
  h("div", { class: `notice ${kind}`, "data-kind": kind }, picture(kind), h("div", { class: "message" }, h("strong", {}, title), ...children));

/**
 * A picture in the list's place.
 * @param {string} kind @param {string} title @param {...any} children
 */
const instead = (kind, title, ...children) =>
  h("div", { class: `instead ${kind}`, "data-kind": kind }, picture(kind, 56), h("h3", {}, title), ...children);

// an error word -> its text in the reader's language
const WHY = {
  party_denied: "whyDenied", party_malformed: "whyMalformed", party_error: "whyError", party_throttled: "whyThrottled",
  party_unavailable: "whyUnavailable", party_timeout: "whyTimeout", rate_limited: "whyLimited", invalid_parameter: "whyRegion",
  internal: "whyInternal", not_found: "whyNever",
};

/** @param {Problem} found @param {string} tenant */
function problemTexts(found, tenant) {
  const why = found.kind === "failed" && WHY[found.word];
  const texts = { unauthorized: ["forbiddenTitle", "tokenRefused"], forbidden: ["forbiddenTitle", "forbiddenText"],
    missing: ["missingTitle", "missingText"], throttled: ["throttledTitle", "throttledText"],
    offline: ["offlineTitle", "offlineText"], invalid: ["invalidTitle", "failedText"], failed: ["failedTitle", why || "failedText"] };
  const [title, text] = texts[found.kind];
  const time = h("span", { "data-until": String(Date.now() + found.retryAfter * 1000) }, t("seconds", { n: found.retryAfter }));
  const parts = t(text, { tenant, msg: found.msg }).split("{time}");
  return { title: t(title), text: parts.length > 1 ? [parts[0], time, parts[1]] : parts };
}

/** The error's word and the request's name, as whoever runs the service wants to hear them. */
const evidence = (/** @type {Problem} */ found) => h("p", { class: "soft small" },
  found.word && h("code", {}, found.word), found.word && " ", found.requestId && t("requestId", { id: found.requestId }));

/**
 * The bar above the list: that the last request failed, which sources gave nothing and which are old. Only of those that
 * could hold what the filters let through.
 * @param {Answer | null} answer @param {Problem | null} problem @param {string} tenant @param {Chip[]} chips
 * @param {() => void} again @param {() => void} showSources
 */
function bars(answer, problem, tenant, chips, again, showSources) {
  if (!answer) return [];
  const within = sourcesWithin(answer, chips), parts = [];
  if (problem) {
    const { title, text } = problemTexts(problem, tenant);
    parts.push(part(problem.kind, title, h("p", {}, ...text, " ", t("keptText", { time: clock(answer.at) })), evidence(problem),
      h("button", { type: "button", class: "button", onclick: again }, t("tryAgain"))));
  }
  for (const [state, kind, title] of [["failed", "partial", "partialTitle"], ["stale", "stale", "staleTitle"]]) {
    const those = within.filter((one) => one.state === state);
    if (!those.length || (state === "failed" && those.length === answer.sources.length)) continue;
    parts.push(part(kind, t(title, { n: those.length }), state === "failed" && h("span", {}, ` ${t(those.length > 1 ? "partialTextMany" : "partialText")}`),
      failures(those, answer)));
  }
  if (!parts.length) return [];
  const worst = parts[0].dataset.kind ?? "", ofSources = parts.length > Number(Boolean(problem));
  return [h("div", { class: `notice ${worst}` }, picture(worst), h("div", { class: "message" }, ...parts,
    ofSources && h("button", { type: "button", class: "button quiet", onclick: showSources }, t("showSources"))))];
}

/** @param {string} kind @param {string} title @param {...any} children */
const part = (kind, title, ...children) => h("div", { "data-kind": kind }, h("strong", {}, title), ...children);

/** The sources that could hold a server that the filters let through. Of one that failed before its regions were known,
 * any region. @param {Answer} answer @param {Chip[]} chips */
function sourcesWithin(answer, chips) {
  const tests = groups(chips.filter(({ key }) => ["tenant", "party", "account"].includes(key)));
  const regions = groups(chips.filter(({ key }) => key === "region"));
  return answer.sources.filter((one) => {
    const as = /** @type {any} */ ({ row: one, source: one });
    return tests.every(({ fits }) => fits(as)) && (one.region === "all" || regions.every(({ fits }) => fits(as)));
  });
}

/** Equal failures together: why, in the reader's language, at which sources, and from when their lists are.
 * @param {Source[]} sources @param {Answer} answer */
function failures(sources, answer) {
  const alike = byKey(sources, (one) => one.error);
  return h("ul", { class: "plain failures" }, ...[...alike].map(([word, those]) => {
    const oldest = Math.min(...those.map((one) => asOf(one, answer))), newest = Math.max(...those.map((one) => asOf(one, answer)));
    const names = sourceNames(those, answer.several), texts = [...new Set(those.map((one) => one.msg))].filter(Boolean);
    return h("li", {}, word && t(WHY[word] ?? "whyOther"), word && " ", word && h("code", {}, word), word && " ",
      ...names.slice(0, 4).flatMap((name, at) => [at > 0 && ", ", h("strong", {}, name)]),
      names.length > 4 && ` ${t("more", { n: names.length - 4 })}`,
      those[0].state === "stale" && h("span", { title: clock(oldest) }, " · ", t(relative(oldest) === relative(newest) ? "asOf" : "oldestAsOf", { time: relative(oldest) })),
      texts.length === 1 && h("p", { class: "soft small", lang: "en" }, bdi(escaped(texts[0]))));
  }));
}

/** Three regions or more of one account are named together. @param {Source[]} sources @param {boolean} several */
const sourceNames = (sources, several) => [...byKey(sources, (one) => sourceName({ ...one, region: "all" }, several)).values()].flatMap((those) =>
  (those.length < 3 ? those.map((one) => sourceNamed(one, several)) : [sourceNamed({ ...those[0], region: "all" }, several, ` (${t("regions", { n: those.length })})`)]));

/** @template T @param {T[]} all @param {(one: T) => string} key @returns {Map<string, T[]>} */
function byKey(all, key) {
  const found = new Map();
  for (const one of all) {
    const name = key(one), those = found.get(name);
    if (those) those.push(one);
    else found.set(name, [one]);
  }
  return found;
}

/** @param {Source} one @param {Answer} answer */
const sourceSaid = (one, answer) => [h("strong", {}, sourceNamed(one, answer.several)), " ",
  one.state === "stale" && h("span", { title: clock(asOf(one, answer)) }, t("asOf", { time: relative(asOf(one, answer)) })),
  one.state === "stale" && " · ", one.error && t(WHY[one.error] ?? "whyOther"), " ", one.error && h("code", {}, one.error), " ", h("span", { class: "soft small", lang: "en" }, bdi(escaped(one.msg)))];

/** When a source's list was taken, in milliseconds. @param {Source} one @param {Answer} answer */
const asOf = (one, answer) => answer.at - (one.age ?? 0) * 1000;

/** What stands in the list's place; null: the list does.
 * @param {{answer: Answer | null, problem: Problem | null, tenant: string, began: number, left: number, chips: Chip[], again: () => void, clear: () => void, showSources: () => void}} now */
function placeholder({ answer, problem, tenant, began, left, chips, again, clear, showSources }) {
  if (!answer && problem) {
    const { title, text } = problemTexts(problem, tenant);
    return instead(problem.kind, title, h("p", {}, ...text), evidence(problem),
      h("button", { type: "button", class: "button main", onclick: again }, t("tryAgain")));
  }
  if (!answer) {
    const seconds = h("p", { class: "soft", "data-since": String(began) }, t("loadingText", { n: 0 }));
    const bones = h("div", { class: "bones", "aria-hidden": "true" }, ...Array.from({ length: 8 }, () => h("span")));
    return h("div", { class: "loading", "data-kind": "loading" }, instead("loading", t("loadingTitle"), seconds), bones);
  }
  if (answer.sources.length && answer.sources.every((one) => one.state === "failed")) {
    return instead("offline", t("noneAnsweredTitle"), h("p", {}, t("noneAnsweredText")),
      failures(answer.sources, answer),
      h("p", {}, h("button", { type: "button", class: "button", onclick: showSources }, t("showSources")), " ",
        h("button", { type: "button", class: "button main", onclick: again }, t("tryAgain"))));
  }
  if (!answer.machines.length && answer.complete) return instead("empty", t("emptyTitle"), h("p", {}, t("emptyText", { tenant })));
  if (!answer.machines.length) return instead("partial", t("noneAnsweredTitle"), h("p", {}, t("noneAnsweredText")));
  if (left) return null;
  const silent = sourcesWithin(answer, chips).filter((one) => one.state === "failed");
  if (silent.length) {
    return instead("partial", t("notKnownTitle"), h("p", {}, t("notKnownText")), failures(silent, answer),
      h("button", { type: "button", class: "button", onclick: clear }, t("clear")));
  }
  return instead("noMatch", t("noMatchTitle"), h("p", {}, t("noMatchText", { n: answer.machines.length })),
    h("button", { type: "button", class: "button", onclick: clear }, t("clear")));
}

// ---------------------------------------------------------------- times

const STEPS = /** @type {[Intl.RelativeTimeFormatUnit, number][]} */ ([["year", 31_557_600], ["month", 2_629_800],
  ["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]]);

/** "3 minutes ago", by the server's clock. An hour and a half is 90 minutes: a unit comes from two of it. @param {number} at */
function relative(at) {
  const seconds = Math.round((at - present()) / 1000);
  const [unit, size] = STEPS.find(([, size]) => Math.abs(seconds) >= (size > 1 ? 2 * size : size)) ?? STEPS[5];
  return FORMATTERS[language].relative.format(Math.round(seconds / size), unit);
}

/** A moment in the reader's own zone. @param {number} at */
const clock = (at) => FORMATTERS[language].clock.format(at);

/** A time of a row: relative, with the API's own text and its zone beneath the pointer. @param {string | null} time @param {number | null} offset */
function timeSaid(time, offset) {
  if (!time) return unknownSaid();
  if (offset === null) return h("span", {}, time);
  const minutes = Math.abs(offset) / 60_000, digits = (/** @type {number} */ n) => String(Math.floor(n)).padStart(2, "0");
  const zone = offset ? `UTC${offset < 0 ? "−" : "+"}${digits(minutes / 60)}:${digits(minutes % 60)}` : "UTC";
  const at = asUtc(time) - offset;
  return h("time", { datetime: new Date(at).toISOString(), title: t("inZone", { time, zone }) }, relative(at));
}

const unknownSaid = () => h("span", { class: "unknown", title: t("unknown") }, "–", h("span", { class: "unseen" }, t("unknown")));
