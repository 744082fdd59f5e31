// Asking the API. Whatever goes wrong becomes a Problem of a kind that has a picture of its own.

/**
 * @typedef {{kind: "unauthorized" | "forbidden" | "missing" | "throttled" | "invalid" | "offline" | "failed",
 *            word: string, msg: string, requestId: string, retryAfter: number, status: number}} Problem
 */

// "/twocloud/" as the browser sees it, behind the stage of a gateway too; the page is served with and without the slash
const BASE = location.pathname.replace(/\/?$/, "/");
const KINDS = { 401: "unauthorized", 403: "forbidden", 404: "missing", 429: "throttled", 400: "invalid" };
const PART = 4000;                          // servers of one request, where the whole is more than the platform carries
const PATIENCE_MS = 40_000;                 // the API itself answers within 25 s

/**
 * @param {Record<string, string>} parameters @param {string} token @param {AbortSignal} signal
 * @returns {Promise<{body: any, at: number, total: number}>}  throws a Problem, or an AbortError
 */
async function get(parameters, token, signal) {
  let response, body;
  try {
    response = await fetch(`${BASE}servers?${new URLSearchParams(parameters)}`, {
      headers: { Authorization: `Basic ${btoa(`${token}:`)}` }, cache: "no-store", redirect: "error",
      credentials: "omit",                  // keeps the browser's own password box away on a 401
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]),
    });
    body = await response.json();
  } catch (error) {
    if (signal.aborted) throw error;
    throw problem(response?.status ?? 0, { msg: response ? `HTTP ${response.status}` : "" });
  }
  if (response.status !== 200 || !Array.isArray(body?.vm_servers)) {
    throw problem(response.status, body ?? {}, response.headers.get("Retry-After"));
  }
  const at = Date.parse(response.headers.get("Date") ?? "") || Date.now();
  return { body, at, total: Number(response.headers.get("X-Total-Count") ?? NaN) };
}

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
 * The whole fleet of a tenant; where that is too long for one answer, in parts, which come from the lists that the
 * first of them made the API keep.
 * @param {string} tenant @param {string} token @param {number} maxAge  seconds @param {AbortSignal} signal
 * @param {Record<string, string>} [more]
 */
async function getFleet(tenant, token, maxAge, signal, more = {}) {
  const asked = { party: "all", tenant_id: tenant, region: "all", on_error: "partial", ...more };
  const aged = more.changed_since ? asked : { ...asked, max_age: String(maxAge) };
  try {
    const { body, at } = await get(aged, token, signal);
    return { body, at };
  } catch (error) {
    if (/** @type {Problem} */ (error).status !== 413) throw error;
  }
  const rows = [];
  for (let first = 1, lengths = ""; ; first += PART) {
    const age = more.changed_since ? {} : { max_age: String(first === 1 ? maxAge : Math.max(maxAge, 120)) };
    const part = await get({ ...asked, ...age, f: String(first), t: String(first + PART - 1) }, token, signal);
    const found = lengthsOf(part.body);
    if (lengths && found !== lengths) throw problem(200, { msg: "The lists changed while their parts were read." });
    lengths = found;
    rows.push(...part.body.vm_servers);
    if (part.body.vm_servers.length < PART) return { body: { ...part.body, vm_servers: rows }, at: part.at };
  }
}

/** How long each source's list is. A source that comes or goes between two parts moves all that follow it. @param {any} body */
const lengthsOf = (body) => JSON.stringify(body.sources.map((/** @type {any} */ one) => [one.party, one.region, one.count]));
