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
const TRIES = 3;                            // readings of a list in parts, of which another one took the place meanwhile
const PATIENCE_MS = 40_000;                 // the API itself answers within 25 s

let ahead = 0;                              // this machine's clock of the server's, by which ages go; milliseconds

/** The time by the server's clock, in milliseconds. */
const present = () => Date.now() - ahead;

/**
 * @param {string} path  with its query @param {string} holds  the key of the list that the answer must hold
 * @param {string} token @param {AbortSignal} signal
 * @returns {Promise<{body: any, at: number, list: string, total: number}>}  list: the id of the list; throws a Problem, or an AbortError
 */
async function get(path, holds, token, signal) {
  let response, body, arrived = 0;
  try {
    response = await fetch(BASE + path, {
      headers: { Authorization: `Basic ${btoa(`${token}:`)}` }, cache: "no-store", redirect: "error",
      credentials: "omit",                  // keeps the browser's own password box away on a 401
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]),
    });
    arrived = Date.now();
    body = await response.json();
  } catch (error) {
    if (signal.aborted) throw error;
    throw problem(response?.status ?? 0, { msg: response ? `HTTP ${response.status}` : "" });
  }
  if (response.status !== 200 || !Array.isArray(body?.[holds])) {
    throw problem(response.status, body ?? {}, response.headers.get("Retry-After"));
  }
  const date = Date.parse(response.headers.get("Date") ?? ""), at = date || Date.now();
  if (date) ahead = Math.abs(arrived - date) < 10_000 ? 0 : arrived - date;           // less can be the network's
  return { body, at, list: response.headers.get("X-List-Id") ?? "", total: Number(response.headers.get("X-Total-Count")) };
}

/** @param {Record<string, string>} parameters @param {string} token @param {AbortSignal} signal */
const getList = (parameters, token, signal) => get(`servers?${new URLSearchParams(parameters)}`, "vm_servers", token, signal);

/** What the token opens. @param {string} token @param {AbortSignal} signal @returns {Promise<Me>} */
const getMe = async (token, signal) => (await get("me", "tenants", token, signal)).body;

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
 */
async function getFleet(tenant, token, maxAge, signal, more = {}, again = () => {}) {
  const asked = { party: "all", tenant_id: tenant, region: "all", on_error: "partial", ...more };
  const aged = more.changed_since ? asked : { ...asked, max_age: String(maxAge) };
  try {
    const { body, at } = await getList(aged, token, signal);
    return { body, at };
  } catch (error) {
    if (/** @type {Problem} */ (error).status !== 413) throw error;
  }
  for (let tries = 1; ; tries += 1) {
    try {
      // what was too long for one answer has just been kept
      return await getParts(more.changed_since ? asked : { ...asked, max_age: String(Math.max(maxAge, 120)) }, token, signal);
    } catch (error) {
      if (/** @type {Problem} */ (error).status !== 409 || tries === TRIES) throw error;
      again();
    }
  }
}

/** @param {Record<string, string>} asked @param {string} token @param {AbortSignal} signal */
async function getParts(asked, token, signal) {
  const rows = [];
  for (let first = 1, lengths = "", list = ""; ; first += PART) {
    const named = list ? { list } : {};
    const part = await getList({ ...asked, ...named, f: String(first), t: String(first + PART - 1) }, token, signal);
    const found = lengthsOf(part.body);
    if (lengths && found !== lengths) throw problem(200, { msg: "The lists changed while their parts were read." });
    lengths = found;
    list ||= part.list;                     // none while a source gives nothing: then the lengths must do
    rows.push(...part.body.vm_servers);
    if (part.body.vm_servers.length < PART) return { body: { ...part.body, vm_servers: rows }, at: part.at };
  }
}

/** How long each source's list is. A source that comes or goes between two parts moves all that follow it. @param {any} body */
const lengthsOf = (body) => JSON.stringify(body.sources.map((/** @type {any} */ one) => [one.tenant_id, one.party, one.account, one.region, one.count]));
