// Asking the API. Whatever goes wrong becomes a Problem of a kind that has a picture of its own.

/**
 * @typedef {{kind: "unauthorized" | "forbidden" | "missing" | "throttled" | "invalid" | "offline" | "failed",
 *            word: string, msg: string, requestId: string, retryAfter: number, status: number}} Problem
 * @typedef {{tenants: string[], accounts: {tenant_id: string, party: string, account: string, regions: string[] | null,
 *            discovered_by: string | null}[]}} Me  what the token opens
 */

// "/twocloud/" as the browser sees it, behind the stage of a gateway too; the page is served with and without the slash
const BASE = location.pathname.replace(/\/?$/, "/");
const KINDS = { 401: "unauthorized", 403: "forbidden", 404: "missing", 429: "throttled", 400: "invalid" };
const PART = 4000;                          // servers of one request, where the whole is more than the platform carries
const STORED = "604800";                    // seconds: more than any snapshot that is served is old
const TRIES = 3;                            // readings of a list in parts, of which another one took the place meanwhile
const PATIENCE_MS = 40_000;                 // the API itself answers within 25 s
const TOKEN_SECONDS = 43_200;               // of a token for a password: the longest that the API issues

let ahead = 0;                              // this machine's clock of the server's, by which ages go; milliseconds

/** The time by the server's clock, in milliseconds. */
const present = () => Date.now() - ahead;

/**
 * One request. @param {string} path  with its query @param {string} credentials  a token and ":", or user:password
 * @param {AbortSignal} signal @param {RequestInit} [more] @param {Record<string, string>} [headers]
 * @returns {Promise<{body: any, response: Response}>}  throws a Problem, or an AbortError
 */
async function ask(path, credentials, signal, more = {}, headers = {}) {
  let response, body, arrived = 0;
  try {
    response = await fetch(BASE + path, {
      headers: { ...headers, Authorization: `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(credentials)))}` },
      cache: "no-store", redirect: "error",
      credentials: "omit",                  // keeps the browser's own password box away on a 401
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]), ...more,
    });
    arrived = Date.now();
    body = response.status === 204 ? {} : await response.json();
  } catch (error) {
    if (signal.aborted) throw error;
    throw problem(response?.status ?? 0, { msg: response ? `HTTP ${response.status}` : "" });
  }
  if (!response.ok) throw problem(response.status, body ?? {}, response.headers.get("Retry-After"));
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (date) ahead = Math.abs(arrived - date) < 10_000 ? 0 : arrived - date;           // less can be the network's
  return { body, response };
}

/**
 * @param {string} path  with its query @param {string} holds  the key of the list that the answer must hold
 * @param {string} token @param {AbortSignal} signal @param {boolean} [stored]  no cloud is to be asked
 * @returns {Promise<{body: any, at: number, list: string, total: number}>}  list: the id of the list
 */
async function get(path, holds, token, signal, stored = false) {
  const { body, response } = await ask(path, `${token}:`, signal, {}, stored ? { "Cache-Control": "only-if-cached" } : {});
  if (!Array.isArray(body?.[holds])) throw problem(response.status, body ?? {});
  const at = Date.parse(response.headers.get("Date") ?? "") || Date.now();
  return { body, at, list: response.headers.get("X-List-Id") ?? "", total: Number(response.headers.get("X-Total-Count")) };
}

/** @param {Record<string, string>} parameters @param {string} token @param {AbortSignal} signal @param {boolean} [stored] */
const getList = (parameters, token, signal, stored = false) =>
  get(`servers?${new URLSearchParams(parameters)}`, "vm_servers", token, signal, stored);

/** What the token opens. @param {string} token @param {AbortSignal} signal @returns {Promise<Me>} */
const getMe = async (token, signal) => (await get("me", "tenants", token, signal)).body;

/** What the clouds and their regions are called. @param {string} token @returns {Promise<typeof parties>} */
const getParties = async (token) => new Map((await get("parties", "parties", token, new AbortController().signal)).body.parties
  .map((/** @type {any} */ { name, title, regions, region_names: en, region_names_zh: zh }) => [name, { title, regions, names: { en: en ?? {}, zh: { ...en, ...zh } } }]));

/** A token for a user's name and password. @param {string} user @param {string} password @param {AbortSignal} signal @returns {Promise<string>} */
const issueToken = async (user, password, signal) =>
  (await ask("tokens", `${user}:${password}`, signal, { method: "POST", body: JSON.stringify({ duration: TOKEN_SECONDS }) })).body.token;

/** End a token that was issued here. @param {string} token */
const revokeToken = (token) => ask("tokens", `${token}:`, new AbortController().signal, { method: "DELETE", keepalive: true });

/** @param {number} status @param {any} body @param {string | null} [retryAfter] @returns {Problem} */
function problem(status, body, retryAfter = null) {
  const throttled = status === 429 || body.error === "party_throttled";
  return {
    kind: throttled ? "throttled" : status === 0 ? "offline" : KINDS[status] ?? "failed", status,
    word: body.error ?? "", msg: body.msg ?? "", requestId: body.request_id ?? "",
    retryAfter: Number(retryAfter) || (throttled ? 5 : 0),
  };
}

/**
 * The whole fleet of a tenant; where that is too long for one answer, in parts of one list. `again` is called if that list
 * went before its last part was read, and another one is read from its start.
 * @param {string} tenant @param {string} token @param {number} maxAge  seconds @param {AbortSignal} signal
 * @param {Record<string, string>} [more] @param {() => void} [again]
 * @param {{list?: string, parts?: boolean, progress?: (count: number) => void}} [known]  list: the id of the list that the
 *        caller holds, whose rows are not read again; parts: one answer was too short before; progress: of rows read so far
 * @returns {Promise<{body: any, at: number, list: string, parts: boolean, same: boolean}>}  same: the list is the one held,
 *        and the body has no rows
 */
async function getFleet(tenant, token, maxAge, signal, more = {}, again = () => {}, known = {}) {
  const asked = { party: "all", tenant_id: tenant, region: "all", on_error: "partial", ...more };
  const aged = more.changed_since ? asked : { ...asked, max_age: String(maxAge) };
  let least = maxAge;                       // in parts, what a first request has just stored is accepted
  if (!known.parts || maxAge === 0) {
    try {
      return { ...await getList(aged, token, signal), parts: false, same: false };
    } catch (error) {
      if (/** @type {Problem} */ (error).status !== 413) throw error;
      least = Math.max(maxAge, 120);
    }
  }
  for (let tries = 1; ; tries += 1) {
    try {
      return await getParts(more.changed_since ? asked : { ...asked, max_age: String(least) }, token, signal, known);
    } catch (error) {
      if (/** @type {Problem} */ (error).status !== 409 || tries === TRIES) throw error;
      again();
    }
  }
}

/** @param {Record<string, string>} asked @param {string} token @param {AbortSignal} signal
 * @param {{list?: string, progress?: (count: number) => void}} known */
async function getParts(asked, token, signal, { list: held = "", progress = () => {} }) {
  const rows = [];
  let whole = null;                         // the first part: it says how each source is
  for (let first = 1, lengths = "", list = ""; ; first += PART) {
    // The others come from what the first one stored: a cloud that failed is not asked again for each of them.
    const named = whole ? { ...(list && { list }), ...(asked.max_age && { max_age: STORED }) } : {};
    const part = await getList({ ...asked, ...named, f: String(first), t: String(first + PART - 1) }, token, signal, whole !== null);
    whole ??= part;
    if (first === 1 && held && part.list === held) return { ...part, body: { ...part.body, vm_servers: [] }, parts: true, same: true };
    const found = lengthsOf(part.body);
    if (lengths && found !== lengths) throw problem(200, { msg: "The lists changed while their parts were read." });
    lengths = found;
    list ||= part.list;                     // none while a source gives nothing: then the lengths must do
    for (const row of part.body.vm_servers) rows.push(row);
    progress(rows.length);
    if (part.body.vm_servers.length < PART) return { body: { ...whole.body, vm_servers: rows }, at: whole.at, list, parts: true, same: false };
  }
}

/** How long each source's list is. A source that comes or goes between two parts moves all that follow it. @param {any} body */
const lengthsOf = (body) => JSON.stringify(body.sources.map((/** @type {any} */ one) => [one.tenant_id, one.party, one.account, one.region, one.count]));
