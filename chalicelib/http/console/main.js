// The console itself: what it knows, what is asked for when, and what is drawn of it.

const REFRESH_SECONDS = 60;                 // between two questions while the page is seen and not paused
const MAX_AGE = 300;                        // of a snapshot that is accepted; Refresh asks the clouds themselves
const KEPT = "twocloud";                    // in sessionStorage, only if the reader wants it

/** @type {{token: string, tenant: string, keep: boolean, me: Me | null, chooses: string, answer: Answer | null, problem: Problem | null, changes: Changes | null,
 *          changesProblem: Problem | null, paused: boolean, began: number, busy: boolean, asked: number, view: View}} */
// chooses: the token whose tenant is to be chosen
const now = { token: "", tenant: "", keep: false, me: null, chooses: "", answer: null, problem: null, changes: null, changesProblem: null,
  paused: false, began: 0, busy: false, asked: 0, view: readLink("").view };
/** @type {{left: Machine[], counts: ReturnType<typeof filtered>["counts"]}} */
let drawn = { left: [], counts: {} };
/** @type {{answer: Answer | null, sort: string, machines: Machine[]}} */
let inOrder = { answer: null, sort: "", machines: [] };
let asking = new AbortController(), askingChanges = new AbortController();

// ---------------------------------------------------------------- asking

/** Ask for the fleet. What an older question answers later is dropped. @param {number} maxAge */
async function refresh(maxAge) {
  asking.abort();
  const mine = asking = new AbortController();
  now.busy = true;
  now.began = now.asked = Date.now();
  if (!now.answer) now.problem = null;
  draw();
  try {
    const { body, at } = await getFleet(now.tenant, now.token, maxAge, mine.signal, {}, () => tell(t("readAgain")));
    if (mine !== asking) return;
    now.answer = read(body, at, several());
    now.problem = null;
    tell(t("servers", { n: now.answer.machines.length }));
  } catch (error) {
    if (mine !== asking || mine.signal.aborted) return;
    failed(/** @type {Problem} */ (error));
  }
  now.busy = false;
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

// ---------------------------------------------------------------- signing in and out

const several = () => now.tenant === "all" || now.tenant.includes(",");
const tenantSaid = (tenant = now.tenant) =>
  tenant === "all" ? t("allTenants", { count: now.me?.tenants.length ?? "…" }) : t("oneTenant", { tenant });
const opened = (/** @type {string} */ tenant) => tenant === "all" || tenant.split(",").every((one) => now.me?.tenants.includes(one));

/** Ask what the token opens, again: its tenants may have changed. */
async function refreshMe() {
  const { token } = now;
  try {
    const me = await getMe(token, new AbortController().signal);
    if (token !== now.token) return;
    now.me = me;
    draw();
  } catch (error) {
    if (!(/** @type {Problem} */ (error).kind)) throw error;    // else the list says what failed
  }
}

/** A token that is accepted opens its one tenant, or the one of the link; else the reader chooses. @param {string} token @param {Me} me */
function accepted(token, me) {
  const wanted = readLink(location.hash).tenant;
  now.me = me;
  $("signin-problem").textContent = me.tenants.length ? "" : t("noTenants");
  if (!me.tenants.length) return draw();
  if (wanted ? opened(wanted) : me.tenants.length === 1) return signIn(token, wanted || me.tenants[0], $("keep").checked);
  now.chooses = token;
  $("token").value = "";
  $("choose-problem").textContent = wanted ? t("notAmong", { tenant: tenantSaid(wanted) }) : "";
  draw();
  $("choose-tenant").focus();
}

/** @param {HTMLSelectElement} select @param {string} chosen */
function offerTenants(select, chosen) {
  const tenants = now.me?.tenants ?? [], all = tenants.length > 1 ? ["all", ...tenants] : tenants;
  const offered = !chosen || all.includes(chosen) ? all : [chosen, ...all];
  const made = JSON.stringify([language, offered]);
  if (select.dataset.made !== made) {       // an open list stays open
    select.replaceChildren(...offered.map((value) => h("option", { value }, tenantSaid(value))));
    select.dataset.made = made;
  }
  if (chosen) select.value = chosen;
}

/** @param {string} token @param {string} tenant @param {boolean} keep */
function signIn(token, tenant, keep) {
  askingChanges.abort();
  Object.assign(now, { token, tenant, keep, chooses: "", answer: null, problem: null, changes: null });
  if (keep) sessionStorage.setItem(KEPT, JSON.stringify({ token, tenant }));
  $("token").value = "";
  scrollTo(0, 0);
  refresh(MAX_AGE);
}

/** Forget the token and all that it showed. @param {string} why */
function signOut(why) {
  asking.abort();
  askingChanges.abort();
  sessionStorage.removeItem(KEPT);
  Object.assign(now, { token: "", me: null, chooses: "", answer: null, problem: null, changes: null, busy: false });
  inOrder = { answer: null, sort: "", machines: [] };
  drawn = { left: [], counts: {} };
  for (const id of ["drawer", "sheet"]) { $(id).close(); $(id).replaceChildren(); }
  $("signin-problem").textContent = why;
  draw();
  tell(why);
  $("token").focus();
}

function kept() {
  try {
    const { token, tenant } = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
    return token && tenant ? { token, tenant } : null;
  } catch {
    return null;
  }
}

async function submitted(/** @type {Event} */ event) {
  event.preventDefault();
  const token = $("token").value.trim(), problem = $("signin-problem"), go = $("signin-go");
  problem.textContent = "";
  go.disabled = true;
  try {
    if (!/^tc_[0-9A-Za-z]{36}$/.test(token)) problem.textContent = t("tokenForm");
    else accepted(token, await getMe(token, new AbortController().signal));
  } catch (error) {
    const found = /** @type {Problem} */ (error);
    if (!found.kind) throw error;
    if (found.kind === "unauthorized") signOut(t("tokenRefused"));
    else problem.textContent = `${problemTexts(found, "").title}. ${found.msg}`;
  } finally {
    go.disabled = false;
  }
  problem.hidden = !problem.textContent;
  if (problem.textContent) $("token").focus();
}

/** Show another tenant with the same token. */
function tenantChosen() {
  const tenant = $("tenant").value;         // drawing shows the present one again
  go({ server: "" });
  signIn(now.token, tenant, now.keep);
}

function chooserSubmitted(/** @type {Event} */ event) {
  event.preventDefault();
  signIn(now.chooses, $("choose-tenant").value, $("keep").checked);
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

function toggle(/** @type {Chip} */ chip) {
  const rest = now.view.chips.filter((one) => !(one.key === chip.key && !one.not && same(one.value, chip.value)));
  go({ chips: rest.length < now.view.chips.length ? rest : [...now.view.chips, chip] });
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
  if (inOrder.answer !== answer || inOrder.sort !== sort) {
    inOrder = { answer, sort, machines: !answer ? [] : view.sort ? sorted(answer.machines, view.sort, view.down) : answer.machines };
  }
  return inOrder.machines;
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
  document.title = open ? `${tenantSaid()} · twocloud` : "twocloud";
  drawAge();
  if (open) drawFleet();
  else for (const id of ["notices", "summary", "facets", "place", "chips", "changes-tools"]) $(id).replaceChildren();
}

function drawFleet() {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const refocus = remembered(focused);
  const { answer, view } = now;
  drawn = filtered(machinesInOrder(), filters());
  offer(drawn.counts, now.me, now.tenant);
  const sources = () => answer && sourcesSheet(answer);
  $("notices").replaceChildren(...bars(answer, now.problem, tenantSaid(), filters(), again, sources));
  $("summary").replaceChildren(...(answer?.machines.length ? summary(answer, drawn.left, sources) : []));
  $("facets-fold").hidden = !answer?.machines.length;
  $("facets").replaceChildren(...(answer ? facets(drawn.counts, view.chips, { toggle, redraw: draw }) : []));
  drawChips();
  for (const show of ["fleet", "changes"]) $(`view-${show}`).setAttribute("aria-pressed", String(view.show === show));
  for (const id of ["share", "choose-columns"]) $(id).disabled = !answer;
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
  const pages = Math.ceil(drawn.left.length / PAGE), page = Math.min(view.page, pages - 1);
  const shown = drawn.left.slice(page * PAGE, (page + 1) * PAGE);
  const columns = answer.several && view.columns === USUAL_COLUMNS ? ["server", "tenantColumn", ...USUAL_COLUMNS.slice(1)] : view.columns;
  $("place").replaceChildren(table(shown, { ...view, columns }, answer, tenantSaid(), { sort: sortBy, href: (key) => href({ server: key }) }));
  fit();
  $("pager").hidden = pages < 2;
  $("page-before").disabled = page === 0;
  $("page-after").disabled = page >= pages - 1;
  $("page-text").textContent = t("range", { from: page * PAGE + 1, to: page * PAGE + shown.length, total: drawn.left.length });
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
  const values = FACETS.flatMap((facet) => [...(drawn.counts[facet]?.keys() ?? [])].map((value) => written({ key: facet, value, not: false })));
  $("suggestions").replaceChildren(...[...values, ...Object.keys(KEYS).map((key) => `${key}:`)].map((value) => h("option", { value })));
}

function drawDrawer() {
  const key = now.view.server, dialog = $("drawer");
  if (!key || !now.answer) return dialog.open && dialog.close();
  const at = drawn.left.findIndex((one) => one.key === key);
  const one = drawn.left[at] ?? now.answer.machines.find((other) => other.key === key);
  if (!one) return drawerOfNothing();
  const beside = (/** @type {number} */ step) => (at >= 0 && drawn.left[at + step] ? href({ server: drawn.left[at + step].key }) : "");
  drawerOf(one, now.answer, { before: beside(-1), after: beside(1), link: shareLink({ server: key }) });
}

/** Where the cursor was, by what it was on: the element itself is made again. @param {HTMLElement | null} focused */
function remembered(focused) {
  const key = focused?.closest("tr")?.dataset.key, within = focused?.closest("#place, #facets, #chips");
  const selector = !within || !focused ? "" : key && focused.classList.contains("open") ? `tr[data-key="${CSS.escape(key)}"] .open`
    : focused.dataset.value ? `[data-facet="${focused.closest("section")?.dataset.facet}"] [data-value="${CSS.escape(focused.dataset.value)}"]`
    : focused.classList.contains("head") ? `th.${focused.closest("th")?.className.split(" ")[0]} .head`
    : focused.dataset.period ? `[data-period="${focused.dataset.period}"]` : "";
  return () => { if (selector) /** @type {any} */ (document.querySelector(selector))?.focus({ preventScroll: true }); };
}

function drawAge() {
  const { answer } = now, ages = answer?.sources.map((one) => one.age).filter((age) => age !== null) ?? [];
  const oldest = answer ? answer.at - Math.max(0, ...ages) * 1000 : 0;
  $("asof").textContent = !now.token ? "" : now.busy ? t("refreshing") : !answer ? ""
    : `${t("asOf", { time: relative(oldest) })}${now.paused ? ` · ${t("paused")}` : ""}`;
  $("asof").title = answer ? clock(oldest) : "";
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
  const hidden = sourcesWithin(now.answer, filters()).some((one) => one.state === "failed");
  exportSheet({ rows: drawn.left.map(({ row }) => row), answer: now.answer, tenant: now.tenant, chips: filters(), link: shareLink({}), whole: !hidden });
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

async function copy(/** @type {string} */ text) {
  try {
    await navigator.clipboard.writeText(text);
    toast(t("copied", { text: escaped(text).slice(0, 60) }));
  } catch {
    toast(t("notCopied"));
  }
}

let toastTimer = 0;
function toast(/** @type {string} */ text) {
  const place = document.querySelector("dialog[open]") ?? document.body;      // what is beneath an open dialog is not seen
  place.append($("toast"));
  $("toast").textContent = text;
  tell(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").textContent = ""; }, 2500);
}

// ---------------------------------------------------------------- keys, clicks and the clock

function pressed(/** @type {KeyboardEvent} */ event) {
  const at = /** @type {HTMLElement} */ (event.target), writing = at.matches("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || !now.token) return;
  if (at.id === "search" && event.key === "Enter") typed(true);
  else if (at.id === "search" && event.key === "Backspace" && !at.value && now.view.chips.length) go({ chips: now.view.chips.slice(0, -1) });
  else if (at.id === "search" && event.key === "Escape") { clear(); at.blur(); }
  else if (at.id === "search" && event.key === "ArrowDown" && !$("search").value) { event.preventDefault(); moveTo(0); }
  else if (writing) return;
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
  $("place").scrollIntoView({ block: "nearest" });
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
    one.textContent = t("loadingText", { n: Math.floor((Date.now() - Number(one.dataset.since)) / 1000) });
  }
  const waits = now.problem && !now.answer; // a fault that is all there is to see waits for the reader, or Retry-After
  const busyReading = document.querySelector("dialog[open]");
  if (!now.paused && !now.busy && !waits && !busyReading && Date.now() - now.asked > REFRESH_SECONDS * 1000) refresh(MAX_AGE);
}

function start() {
  const { lang, tenant } = readLink(location.hash);
  chosenLanguage = lang in TEXTS ? lang : "";
  speak(chosenLanguage || (navigator.language.startsWith("zh") ? "zh" : "en"));
  $("facets-fold").open = !matchMedia("(max-width: 900px)").matches;
  const on = (/** @type {string} */ id, /** @type {() => void} */ act) => $(id).addEventListener("click", act);
  on("refresh", again);
  on("pause", () => { now.paused = !now.paused; draw(); });
  on("signout", () => signOut(t("signedOut")));
  on("language", () => { chosenLanguage = language === "en" ? "zh" : "en"; speak(chosenLanguage); go({ page: now.view.page }, false); });
  on("share", openExport);
  on("choose-columns", () => columnsSheet(now.view.columns, (columns) => go({ columns, page: now.view.page }, false)));
  on("keys", keysSheet);
  on("page-before", () => turn(-1));
  on("page-after", () => turn(1));
  on("view-fleet", () => go({ show: "fleet" }));
  on("view-changes", () => { go({ show: "changes" }); if (now.answer) refreshChanges(); });
  on("brand", () => { if (now.token) setTimeout(clear); });
  on("choose-other", () => signOut(""));
  $("signin-form").addEventListener("submit", submitted);
  $("choose-form").addEventListener("submit", chooserSubmitted);
  $("tenant").addEventListener("change", tenantChosen);
  $("search").addEventListener("input", () => typed(false));
  $("drawer").addEventListener("close", () => { if (now.view.server) closeDrawer(); });
  for (const id of ["drawer", "sheet"]) $(id).addEventListener("click", (/** @type {MouseEvent} */ event) => { if (event.target === $(id)) $(id).close(); });
  addEventListener("keydown", pressed);
  addEventListener("click", clicked);
  addEventListener("popstate", came);
  addEventListener("hashchange", came);
  addEventListener("resize", fit);
  setInterval(ticked, 1000);
  const found = kept();
  if (found) {
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
