// Signing in and out: by a token, or by a user and a password, for which the API issues one. The token is in memory, and
// in sessionStorage if the reader asked for that; the password is sent once.

const KEPT = "twocloud";                    // in sessionStorage

const several = () => now.tenant === "all" || now.tenant.includes(",");
const tenantSaid = (tenant = now.tenant) =>
  tenant === "all" ? t("allTenants", { count: now.me?.tenants.length ?? "…" }) : t("oneTenant", { tenant });
const opensAll = (/** @type {string} */ tenant) => tenant === "all" || tenant.split(",").every((one) => now.me?.tenants.includes(one));

/** Ask what the token opens, again: its tenants may have changed. And, once, what the clouds are called. */
async function refreshMe() {
  const { token } = now;
  try {
    const [me, names] = await Promise.all([getMe(token, new AbortController().signal), parties.size ? null : getParties(token)]);
    if (token !== now.token) return;
    now.me = me;
    if (names) parties = names;
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
  if (wanted ? opensAll(wanted) : me.tenants.length === 1) return signIn(token, wanted || me.tenants[0], $("keep").checked);
  now.chooses = token;
  forgetInputs();
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

function forgetInputs() {
  for (const id of ["token", "password"]) $(id).value = "";
}

/** @param {string} token @param {string} tenant @param {boolean} keep */
function signIn(token, tenant, keep) {
  askingChanges.abort();
  Object.assign(now, { token, tenant, keep, chooses: "", answer: null, problem: null, changes: null, inParts: false });
  if (keep) sessionStorage.setItem(KEPT, JSON.stringify({ token, tenant, issued: now.issued }));
  forgetInputs();
  scrollTo(0, 0);
  refresh(MAX_AGE);
  if (!parties.size) getParties(token).then((names) => { parties = names; if (now.token) draw(); }, () => {});   // else codes are shown
}

/** Forget the token and all that it showed. One that was issued for a password is revoked. @param {string} why */
function signOut(why) {
  asking.abort();
  askingChanges.abort();
  sessionStorage.removeItem(KEPT);
  const token = now.token || now.chooses;
  if (now.issued && token) revokeToken(token).catch(() => {});  // it is refused already, or ends by itself
  Object.assign(now, { token: "", me: null, chooses: "", issued: false, answer: null, problem: null, changes: null, busy: false, inParts: false });
  inOrder = { machines: null, sort: "", sorted: [] };
  joined = NOT_JOINED;
  drawn = { left: [], counts: {}, groups: new Map() };
  document.body.append($("toast"));
  for (const id of ["drawer", "sheet"]) { $(id).close(); $(id).replaceChildren(); }
  drawerShows = "";
  $("signin-problem").textContent = why;
  draw();
  tell(why);
  $("token").focus();
}

function kept() {
  try {
    const { token, tenant, issued } = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
    return token && tenant ? { token, tenant, issued: Boolean(issued) } : null;
  } catch {
    return null;
  }
}

/**
 * Sign in with what a form gives. @param {string} field  to correct, if it is refused
 * @param {string} refused  the text for a 401 @param {() => Promise<string>} tokenOf  throws a Problem
 */
async function enter(field, refused, tokenOf) {
  const problem = $("signin-problem"), buttons = /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("#signin-card button"));
  problem.textContent = "";
  for (const one of buttons) one.disabled = true;
  try {
    const token = await tokenOf();
    if (token) accepted(token, await getMe(token, new AbortController().signal));
  } catch (error) {
    const found = /** @type {Problem} */ (error);
    if (!found.kind) throw error;
    if (found.kind === "unauthorized") signOut(refused);
    else problem.textContent = `${problemTexts(found, "").title}. ${found.msg}`;
  } finally {
    for (const one of buttons) one.disabled = false;
  }
  problem.hidden = !problem.textContent;
  if (problem.textContent) $(field).focus();
}

function tokenSubmitted(/** @type {SubmitEvent} */ event) {
  event.preventDefault();
  now.issued = false;
  enter("token", t("tokenRefused"), async () => {
    const token = $("token").value.trim();
    if (/^tc_[0-9A-Za-z]{36}$/.test(token)) return token;
    $("signin-problem").textContent = t("tokenForm");
    return "";
  });
}

function passwordSubmitted(/** @type {SubmitEvent} */ event) {
  event.preventDefault();
  enter("password", t("passwordRefused"), async () => {
    const password = $("password").value;
    $("password").value = "";
    const token = await issueToken($("user").value.trim(), password, new AbortController().signal);
    now.issued = true;
    return token;
  });
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
