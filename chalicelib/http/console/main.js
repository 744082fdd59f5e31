// The console itself: what it knows, what is asked for when, and what is drawn of it.

const REFRESH_SECONDS = 60;                 // between two questions while the page is seen and not paused
const MAX_AGE = 300;                        // of a snapshot that is accepted; Refresh asks the clouds themselves
const LONG_READ = 20;                       // times as long as a list took to read, the next one is waited for at least

/** @type {{token: string, issued: boolean, inParts: boolean, rows: number, took: number, tenant: string, keep: boolean, me: Me | null, chooses: string, answer: Answer | null, problem: Problem | null, changes: Changes | null,
 *          changesProblem: Problem | null, paused: boolean, began: number, busy: boolean, asked: number, view: View}} */
// chooses: the token whose tenant is to be chosen; issued: the token, for a password; inParts: the list is too long for one
// answer; rows: read so far; took: ms that the last list took to read
const now = { token: "", issued: false, inParts: false, rows: 0, took: 0, tenant: "", keep: false, me: null, chooses: "", answer: null, problem: null, changes: null, changesProblem: null,
  paused: false, began: 0, busy: false, asked: 0, view: readLink("").view };
/** @type {{left: Machine[], counts: ReturnType<typeof filtered>["counts"], groups: Map<string, Totals>}} */
let drawn = { left: [], counts: {}, groups: new Map() };
/** @type {{machines: Machine[] | null, sort: string, sorted: Machine[]}} */
let inOrder = { machines: null, sort: "", sorted: [] };
let asking = new AbortController(), askingChanges = new AbortController();

// ---------------------------------------------------------------- asking

/** Ask for the fleet. What an older question answers later is dropped. @param {number} maxAge */
async function refresh(maxAge) {
  asking.abort();
  const mine = asking = new AbortController();
  now.busy = true;
  now.began = now.asked = Date.now();
  now.rows = 0;
  if (!now.answer) now.problem = null;
  draw();
  try {
    const { body, at, list, parts, same } = await getFleet(now.tenant, now.token, maxAge, mine.signal, {}, () => tell(t("readAgain")),
      { list: now.answer?.list, parts: now.inParts, progress: (count) => { now.rows = count; } });
    if (mine !== asking) return;
    const answer = same && now.answer ? renewed(now.answer, body, at) : await readSlices(body, at, several(), list, () => mine === asking);
    if (mine !== asking) return;
    now.answer = answer;
    now.inParts = parts;
    now.problem = null;
    tell(t("servers", { n: now.answer.machines.length }));
  } catch (error) {
    if (mine !== asking || mine.signal.aborted) return;
    failed(/** @type {Problem} */ (error));
  }
  now.busy = false;
  now.took = Date.now() - now.began;
  now.asked = Date.now();
  draw();
  if (now.view.show === "changes" && now.answer) refreshChanges();
}

/** @param {Problem} found */
function failed(found) {
  if (!found.kind) throw found;             // no Problem: our own fault, for the browser's log
  if (found.kind === "unauthorized") return signOut(t("tokenRefused"));
  if (found.kind === "forbidden" || found.kind === "missing") {
    now.answer = null;                      // what was shown may not be seen any more
    refreshMe();
  }
  now.problem = found;
  if (found.retryAfter) setTimeout(() => { if (now.problem === found) refresh(MAX_AGE); }, found.retryAfter * 1000);
  tell(problemTexts(found, tenantSaid()).title);
}

async function refreshChanges() {
  askingChanges.abort();
  const mine = askingChanges = new AbortController();
  const since = Math.floor(present() / 1000 - PERIODS[now.view.since]) * 1000;
  now.changesProblem = null;
  if (now.changes && Math.abs(now.changes.since - since) > 120_000) now.changes = null;     // of another period
  draw();
  try {
    const changes = await getChanges(now.tenant, now.token, since, several(), mine.signal);
    if (mine !== askingChanges) return;
    now.changes = changes;
  } catch (error) {
    if (mine !== askingChanges || mine.signal.aborted) return;
    if (/** @type {Problem} */ (error).kind === "unauthorized") return signOut(t("tokenRefused"));
    now.changesProblem = /** @type {Problem} */ (error);
  }
  draw();
}

// ---------------------------------------------------------------- the view and the address

const href = (/** @type {Partial<View>} */ change) => writeLink({ ...now.view, ...change }, { lang: chosenLanguage }) || "#";
let chosenLanguage = "";

/** Show something else. Each step can be taken back, but for letters that are typed. @param {Partial<View>} change @param {boolean} [step] */
function go(change, step = true) {
  now.view = { ...now.view, page: 0, ...change };
  const there = `${location.pathname}${location.search}${href({})}`;
  if (step) history.pushState(null, "", there);
  else history.replaceState(null, "", there);
  draw();
}

/** The address was changed: Back, a link, by hand. */
function came() {
  const { view, lang } = readLink(location.hash);
  const before = now.view;
  now.view = view;
  if (lang && lang in TEXTS && lang !== language) speak(lang);
  $("search").value = view.text;
  if (view.show === "changes" && now.token && (before.show !== "changes" || before.since !== view.since)) refreshChanges();
  draw();
}

const filters = () => [...now.view.chips, ...parse(now.view.text).filter(({ key, not }) => !key && !not)];

const toggle = (/** @type {Chip} */ chip) => toggleAll([chip]);

/** Add the chips, or take them away if all of them are there. */
function toggleAll(/** @type {Chip[]} */ chips) {
  const equal = (/** @type {Chip} */ one, /** @type {Chip} */ other) => one.key === other.key && one.not === other.not && same(one.value, other.value);
  const rest = now.view.chips.filter((one) => !chips.some((chip) => equal(one, chip)));
  const added = chips.filter((chip) => !now.view.chips.some((one) => equal(one, chip)));
  go({ chips: added.length ? [...now.view.chips, ...added] : rest });
}

/** What was typed so far: words filter at once, key:value becomes a chip when it is whole. */
function typed(/** @type {boolean} */ whole) {
  const text = $("search").value, found = parse(text);
  const ended = whole || /\s$/.test(text);
  const keyed = ended ? found.filter((chip) => (chip.key || chip.not) && (whole || chip.value)) : [];
  if (!keyed.length) return go({ text }, false);
  const rest = found.filter((chip) => !keyed.includes(chip)).map(written).join(" ");
  $("search").value = rest;
  go({ text: rest, chips: [...now.view.chips, ...keyed.filter((chip) => !has(now.view.chips, chip))] });
}

function clear() {
  $("search").value = "";
  go({ chips: [], text: "" });
}

const sortBy = (/** @type {string} */ column) =>
  go(now.view.sort !== column ? { sort: column, down: false } : now.view.down ? { sort: "", down: false } : { down: true });

// ---------------------------------------------------------------- drawing

function machinesInOrder() {
  const { answer, view } = now, sort = `${view.down ? "-" : ""}${view.sort}`;
  const machines = answer?.machines ?? [];
  if (inOrder.machines !== machines || inOrder.sort !== sort) inOrder = { machines, sort, sorted: view.sort ? sorted(machines, view.sort, view.down) : machines };
  return inOrder.sorted;
}

function draw() {
  const open = Boolean(now.token);
  $("signin").hidden = open;
  $("fleet").hidden = !open;
  for (const id of ["refresh", "pause", "signout", "tenant"]) $(id).hidden = !open;
  $("signin-problem").hidden = !$("signin-problem").textContent;
  $("signin-form").hidden = Boolean(now.chooses);
  $("choose-form").hidden = !now.chooses;
  $("choose-problem").hidden = !$("choose-problem").textContent;
  if (now.chooses) offerTenants($("choose-tenant"), "");
  if (open) offerTenants($("tenant"), now.tenant);
  $("pause").firstElementChild.textContent = t(now.paused ? "resume" : "pause");
  $("pause").title = t(now.paused ? "resumeHint" : "pauseHint");
  $("pause").setAttribute("aria-pressed", String(now.paused));
  const named = filters().map(written).join(" ");               // a bookmark of this view is called by it
  document.title = open ? `${named && `${named} · `}${tenantSaid()} · twocloud` : "twocloud";
  drawAge();
  if (open) drawFleet();
  else for (const id of ["notices", "summary", "matrix", "facets", "place", "chips", "changes-tools", "suggestions"]) $(id).replaceChildren();
}

function drawFleet() {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const refocus = remembered(focused);
  const { answer, view } = now;
  const chips = filters(), failing = missing(answer, chips);
  const { left, counts } = filtered(machinesInOrder(), chips, answer?.index);
  const groups = view.group && view.show === "fleet" ? grouped(left, view.group) : [];
  const ofChanges = view.show === "changes" && answer ? { counts: now.changes && changeCounts(now.changes, answer, view, chips) } : null;
  drawn = { left: groups.length ? groups.flatMap(({ machines }) => machines) : left, counts: ofChanges?.counts ?? counts,
    groups: new Map(groups.map(({ value, machines }) => [value, totalsOf(machines)])) };
  if (answer) offer(drawn.counts, now.me, now.tenant);
  const sources = () => answer && sourcesSheet(answer);
  $("notices").replaceChildren(...bars(answer, now.problem, tenantSaid(), chips, again, sources));
  $("summary").replaceChildren(...(answer?.machines.length ? summary(answer, drawn.left, chips, { showSources: () => sources(), toggle }) : []));
  $("matrix-fold").hidden = !answer?.machines.length || view.show !== "fleet";
  $("matrix").replaceChildren(...(answer && $("matrix-fold").open && !$("matrix-fold").hidden
    ? matrix(answer, drawn.left, view.by, view.chips, { toggleAll, redraw: draw, show: (by) => go({ by, page: view.page }) }) : []));
  $("facets-fold").hidden = !answer?.machines.length;
  $("facets").replaceChildren(...(answer && $("facets-fold").open && (!ofChanges || ofChanges.counts)
    ? facets(drawn.counts, view.chips, ofChanges && now.changes ? notFresh(now.changes, chips) : failing, { toggle, redraw: draw }) : []));
  drawChips();
  for (const show of ["fleet", "changes"]) $(`view-${show}`).setAttribute("aria-pressed", String(view.show === show));
  for (const id of ["share", "choose-columns", "addresses"]) $(id).disabled = !answer;
  drawPlace();
  drawDrawer();
  refocus();
}

function drawPlace() {
  const { answer, view } = now;
  $("changes-tools").hidden = view.show !== "changes" || !answer;
  $("pager").hidden = true;
  if (view.show === "changes" && answer) return drawChanges();
  const empty = placeholder({ ...now, tenant: tenantSaid(), left: drawn.left.length, chips: filters(), again, clear, showSources: () => answer && sourcesSheet(answer) });
  if (empty || !answer) return $("place").replaceChildren(empty);
  const pages = Math.ceil(drawn.left.length / view.size), page = Math.min(view.page, pages - 1);
  const shown = drawn.left.slice(page * view.size, (page + 1) * view.size);
  const columns = answer.several && view.columns === USUAL_COLUMNS ? ["server", "tenantColumn", ...USUAL_COLUMNS.slice(1, -1)] : view.columns;
  $("place").replaceChildren(table(shown, { ...view, columns }, answer, tenantSaid(), drawn.groups, missing(answer, filters()), { sort: sortBy, href: (key) => href({ server: key }), toggleAll }));
  fit();
  $("pager").hidden = false;
  $("page-size").value = String(view.size);
  const none = h("option", { value: "", selected: !view.group }, t("noGroups"));
  $("group-choice").replaceChildren(propertyChoice("group", t("group"), view.group, answer, (group) => go({ group }), [none]));
  $("page-before").disabled = page === 0;
  $("page-after").disabled = page >= pages - 1;
  $("page-text").textContent = t("range", { from: page * view.size + 1, to: page * view.size + shown.length, total: counted(drawn.left.length, missing(answer, filters()).length > 0) });
}

/** A table that is too wide scrolls in its frame, and gives up the heads that stay in sight. */
function fit() {
  const frame = document.querySelector("#place .scroll");
  if (!frame) return;
  frame.classList.remove("wide");
  if (frame.scrollWidth > frame.clientWidth) frame.classList.add("wide");
}

function drawChanges() {
  $("changes-tools").replaceChildren(h("span", { class: "soft" }, t("since")), ...Object.keys(PERIODS).map((period) =>
    h("button", { type: "button", class: "button", "data-period": period, "aria-pressed": String(now.view.since === period),
      onclick: () => { linesShown = LINES; go({ since: period }); refreshChanges(); } }, t(period))));
  const waiting = () => placeholder({ ...now, tenant: tenantSaid(), answer: null, problem: now.changesProblem, left: 0, chips: [], again: refreshChanges, clear, showSources: () => {} });
  $("place").replaceChildren(...(now.changes && now.answer ? changesSaid(now.changes, now.answer, now.view, filters(), { href: (key) => href({ server: key }), go, redraw: draw }) : [waiting()]));
}

function drawChips() {
  const { chips } = now.view;
  $("chips").replaceChildren(...chips.map((chip) => h("button", { type: "button", class: "chip", "aria-label": t("removeChip", { chip: written(chip) }),
    onclick: () => go({ chips: chips.filter((one) => one !== chip) }) }, h("span", { class: "soft" }, `${chip.not ? "−" : ""}${chip.key ? `${chip.key}:` : ""}`), bdi(escaped(chip.value)), h("span", { "aria-hidden": "true" }, " ✕"))));
  const values = FACETS.flatMap((facet) => [...(drawn.counts[facet]?.keys() ?? [])].slice(0, 100).map((value) => written({ key: facet, value, not: false })));
  $("suggestions").replaceChildren(...[...values, ...Object.keys(KEYS).map((key) => `${key}:`)].map((value) => h("option", { value })));
}

function drawDrawer() {
  const key = now.view.server, dialog = $("drawer");
  $("columns").classList.toggle("beside", Boolean(key && now.answer && ROOM.matches));
  if (!key || !now.answer) return dialog.open && dialog.close();
  const at = drawn.left.findIndex((one) => one.key === key);
  const one = drawn.left[at] ?? now.answer.machines.find((other) => other.key === key);
  if (!one) return drawerOfNothing();
  const beside = (/** @type {number} */ step) => (at >= 0 && drawn.left[at + step] ? href({ server: drawn.left[at + step].key }) : "");
  drawerOf(one, now.answer, { before: beside(-1), after: beside(1), link: shareLink({ server: key }) });
}

/** Where the cursor was, by what it was on: the element itself is made again. @param {HTMLElement | null} focused */
function remembered(focused) {
  const key = focused?.closest("tr")?.dataset.key, within = focused?.closest("#place, #facets, #chips, #matrix, #summary, #group-choice");
  const selector = !within || !focused ? "" : key && focused.classList.contains("open") ? `tr[data-key="${CSS.escape(key)}"] .open`
    : focused.dataset.focus ? `[data-focus="${CSS.escape(focused.dataset.focus)}"]`
    : focused.dataset.value ? `[data-facet="${/** @type {HTMLElement} */ (focused.closest("[data-facet]")).dataset.facet}"] [data-value="${CSS.escape(focused.dataset.value)}"]`
    : focused.classList.contains("head") ? `th.${focused.closest("th")?.className.split(" ")[0]} .head`
    : focused.id ? `#${focused.id}`
    : focused.dataset.period ? `[data-period="${focused.dataset.period}"]` : "";
  return () => { if (selector) /** @type {any} */ (document.querySelector(selector))?.focus({ preventScroll: true }); };
}

function drawAge() {
  const { answer } = now, ages = answer?.sources.map((one) => one.age).filter((age) => age !== null) ?? [];
  const oldest = answer ? answer.at - Math.max(0, ...ages) * 1000 : 0;
  $("asof").textContent = !now.token ? "" : now.busy ? t("refreshing") : !answer ? ""
    : `${t("asOf", { time: relative(oldest) })}${now.paused ? ` · ${t("paused")}` : ""}`;
  $("asof").title = answer ? clock(oldest) : "";
  const age = document.getElementById("drawer-age");
  if (age) age.textContent = t("asOf", { time: relative(Number(age.dataset.at)) });
  $("asof").ariaBusy = String(now.busy);
}

/** Said to those who listen instead of looking. */
const tell = (/** @type {string} */ text) => { $("live").textContent = text; };
const again = () => { refresh(0); refreshMe(); };
const shareLink = (/** @type {Partial<View>} */ change) => `${location.origin}${BASE}${writeLink({ ...now.view, ...change }, { tenant: now.tenant, lang: chosenLanguage })}`;

function openExport() {
  if (!now.answer) return;
  if (now.view.show === "changes" && now.changes) return changesSheet(changesShown(now.changes, now.answer, now.view, filters()), now.changes,
    { tenant: now.tenant, chips: filters(), kind: now.view.kind, link: shareLink({}) });
  exportSheet({ rows: drawn.left.map(({ row }) => row), answer: now.answer, tenant: now.tenant, chips: filters(), link: shareLink({}), whole: !missing(now.answer, filters()).length });
}

function openAddresses() {
  if (now.answer) addressesSheet(drawn.left.map(({ row }) => row), missing(now.answer, filters()), "lan", copy);
}

function speak(/** @type {string} */ lang) {
  language = lang === "zh" ? "zh" : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const one of document.querySelectorAll("[data-t]")) one.textContent = t(/** @type {HTMLElement} */ (one).dataset.t ?? "");
  for (const one of document.querySelectorAll("[data-label]")) if (!one.closest("td, #place")) one.setAttribute("aria-label", t(/** @type {HTMLElement} */ (one).dataset.label ?? ""));
  $("search").placeholder = t("searchHint");
  $("language").textContent = t("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
}

/** @param {string} text @param {string} [words]  what was copied; else the text itself is shown */
async function copy(text, words) {
  try {
    await navigator.clipboard.writeText(text);
    toast(words ?? t("copied", { text: escaped(text).slice(0, 60) }));
  } catch {
    toast(t("notCopied"));
  }
}

let toastTimer = 0;
function toast(/** @type {string} */ text) {
  const place = document.querySelector("dialog:modal") ?? document.body;      // what is beneath an open dialog is not seen
  place.append($("toast"));
  $("toast").textContent = text;
  tell(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").textContent = ""; }, 2500);
}

// ---------------------------------------------------------------- keys, clicks and the clock

function pressed(/** @type {KeyboardEvent} */ event) {
  const at = /** @type {HTMLElement} */ (event.target), writing = at.matches("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog:modal") || !now.token) return;
  if (at.id === "search" && event.key === "Enter") typed(true);
  else if (at.id === "search" && event.key === "Backspace" && !at.value && now.view.chips.length) go({ chips: now.view.chips.slice(0, -1) });
  else if (at.id === "search" && event.key === "Escape") { clear(); at.blur(); }
  else if (at.id === "search" && event.key === "ArrowDown" && !$("search").value) { event.preventDefault(); moveTo(0); }
  else if (writing) return;
  else if (event.key === "Escape" && now.view.server) closeDrawer();
  else if (event.key === "/") { event.preventDefault(); $("search").focus(); $("search").select(); }
  else if (event.key === "?") keysSheet();
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") moveRow(event);
  else if (event.key === "ArrowRight" && !$("pager").hidden && !$("page-after").disabled) turn(1);
  else if (event.key === "ArrowLeft" && !$("pager").hidden && !$("page-before").disabled) turn(-1);
}

const links = () => /** @type {HTMLElement[]} */ ([...document.querySelectorAll("#place .open")]);

function moveTo(/** @type {number} */ index) {
  const all = links(), to = all[Math.max(0, Math.min(index, all.length - 1))];
  for (const one of all) one.tabIndex = one === to ? 0 : -1;
  to?.focus();
  const key = to?.closest("tr")?.dataset.key;
  if (key && now.view.server && ROOM.matches) go({ server: key, page: now.view.page }, false);     // the details follow
}

/** From the table, or from nowhere: a focused button keeps its own arrows. */
function moveRow(/** @type {KeyboardEvent} */ event) {
  const at = links().indexOf(/** @type {HTMLElement} */ (document.activeElement));
  if (at < 0 && document.activeElement !== document.body) return;
  event.preventDefault();
  moveTo(at < 0 ? 0 : at + (event.key === "ArrowDown" ? 1 : -1));
}

function turn(/** @type {number} */ step) {
  go({ page: now.view.page + step });
  tell($("page-text").textContent);
  if ($("place").getBoundingClientRect().top < 0) $("place").scrollIntoView({ block: "start" });
}

function clicked(/** @type {MouseEvent} */ event) {
  const at = /** @type {HTMLElement} */ (event.target), copied = /** @type {HTMLElement | null} */ (at.closest("[data-copy]"));
  if (copied) return copy(copied.dataset.copy ?? "");
  const row = at.closest("#place tbody tr");
  if (row && !at.closest("a, button") && !String(getSelection())) /** @type {HTMLElement} */ (row.querySelector(".open")).click();
}

/** Each second: the ages, the countdowns, and whether it is time to ask again. */
function ticked() {
  if (!now.token || document.hidden) return;
  drawAge();
  for (const one of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-until]"))) {
    one.textContent = t("seconds", { n: Math.max(0, Math.ceil((Number(one.dataset.until) - Date.now()) / 1000)) });
  }
  for (const one of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-since]"))) {
    one.textContent = t("loadingText", { n: Math.floor((Date.now() - Number(one.dataset.since)) / 1000) }) + (now.rows ? ` · ${t("rowsRead", { n: now.rows })}` : "");
  }
  const waits = now.problem && !now.answer; // a fault that is all there is to see waits for the reader, or Retry-After
  const busyReading = document.querySelector("dialog:modal"), pause = Math.max(REFRESH_SECONDS * 1000, LONG_READ * now.took);
  if (!now.paused && !now.busy && !waits && !busyReading && Date.now() - now.asked > pause) refresh(MAX_AGE);
}

function start() {
  const { lang, tenant } = readLink(location.hash);
  chosenLanguage = lang in TEXTS ? lang : "";
  speak(chosenLanguage || (navigator.language.startsWith("zh") ? "zh" : "en"));
  for (const id of ["facets-fold", "matrix-fold"]) {
    $(id).open = !matchMedia("(max-width: 900px)").matches;
    $(id).addEventListener("toggle", () => { if (now.token) draw(); });
  }
  $("page-size").replaceChildren(...SIZES.map((one) => h("option", { value: one }, number(one))));
  $("page-size").addEventListener("change", () => go({ size: Number($("page-size").value) }));
  ROOM.addEventListener("change", () => { $("drawer").close(); draw(); });
  const on = (/** @type {string} */ id, /** @type {() => void} */ act) => $(id).addEventListener("click", act);
  on("refresh", again);
  on("pause", () => { now.paused = !now.paused; draw(); });
  on("signout", () => signOut(t("signedOut")));
  on("language", () => { chosenLanguage = language === "en" ? "zh" : "en"; speak(chosenLanguage); go({ page: now.view.page }, false); });
  on("share", openExport);
  on("addresses", openAddresses);
  on("choose-columns", () => columnsSheet(now.view.columns, (columns) => go({ columns, page: now.view.page }, false)));
  on("keys", keysSheet);
  on("page-before", () => turn(-1));
  on("page-after", () => turn(1));
  on("view-fleet", () => go({ show: "fleet" }));
  on("view-changes", () => { go({ show: "changes" }); if (now.answer) refreshChanges(); });
  on("brand", () => { if (now.token) setTimeout(clear); });
  on("choose-other", () => signOut(""));
  $("signin-form").addEventListener("submit", tokenSubmitted);
  $("password-form").addEventListener("submit", passwordSubmitted);
  $("choose-form").addEventListener("submit", chooserSubmitted);
  $("tenant").addEventListener("change", tenantChosen);
  $("search").addEventListener("input", () => typed(false));
  $("drawer").addEventListener("close", () => { if (now.view.server && !$("drawer").open) closeDrawer(); });
  for (const id of ["drawer", "sheet"]) $(id).addEventListener("click", (/** @type {MouseEvent} */ event) => { if (event.target === $(id)) $(id).close(); });
  addEventListener("keydown", pressed);
  addEventListener("click", clicked);
  addEventListener("popstate", came);
  addEventListener("hashchange", came);
  addEventListener("resize", fit);
  setInterval(ticked, 1000);
  const found = kept();
  if (found) {
    now.issued = found.issued;
    signIn(found.token, tenant || found.tenant, true);
    refreshMe();
  }
  came();
  if (!now.token) $("token").focus();
}

function closeDrawer() {
  const key = now.view.server;
  go({ server: "", page: now.view.page });
  /** @type {any} */ (document.querySelector(`tr[data-key="${CSS.escape(key)}"] .open`))?.focus();
}

start();
