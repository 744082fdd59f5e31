// The API's reference, drawn from its own OpenAPI document.

const BASE = location.pathname.replace(/docs\/?$/, "");

/** @param {any} document_ @param {any} found  a thing, or a reference to where it stands */
const followed = (document_, found) =>
  (found?.$ref ? found.$ref.slice(2).split("/").reduce((/** @type {any} */ at, /** @type {string} */ name) => at[name], document_) : found);

const anchor = (/** @type {string} */ text) => text.replace(/[^A-Za-z0-9]+/g, "-");

/** A description's text, with what stands in backticks as code. @param {string} text */
const described = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));

/** What a schema allows, in few words. @param {any} schema @returns {(string | Node)[]} */
function typeSaid(schema) {
  if (!schema) return [];
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [h("a", { href: `#schema-${name}` }, name)];
  }
  const several = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (several) return several.flatMap((/** @type {any} */ one, /** @type {number} */ at) => [...(at ? [schema.allOf ? " and " : " or "] : []), ...typeSaid(one)]);
  if (schema.type === "array") return ["list of ", ...typeSaid(schema.items)];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  const kind = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type ?? "object";
  const limits = [["minimum", "≥"], ["maximum", "≤"], ["minLength", "length ≥"], ["maxLength", "length ≤"], ["pattern", "like"], ["format", "as"]]
    .filter(([name]) => schema[name] !== undefined && String(schema[name]).length < 60).map(([name, word]) => ` ${word} ${schema[name]}`);
  return [kind, ...limits];
}

/** The words that are allowed, folded away where there are many. @param {any} schema */
function wordsSaid(schema) {
  const words = schema?.enum ?? schema?.items?.enum;
  if (!words) return null;
  const codes = words.flatMap((/** @type {string} */ word) => [h("code", {}, String(word)), " "]);
  return words.length > 8 ? h("details", {}, h("summary", {}, `${words.length} words`), h("p", {}, ...codes)) : h("p", {}, ...codes);
}

/** @param {string[]} heads @param {any[][]} rows @param {string} label */
const grid = (heads, rows, label) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, h("caption", { class: "unseen" }, label),
  h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
  h("tbody", {}, ...rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), ...rest.map((cell) => h("td", {}, ...[cell].flat())))))));

/** @param {any} api @param {string} path @param {string} method @param {any} operation */
function operationSaid(api, path, method, operation) {
  const id = anchor(operation.operationId), name = `${method.toUpperCase()} ${path}`;
  const parameters = (operation.parameters ?? []).map((/** @type {any} */ found) => followed(api, found));
  const body = operation.requestBody?.content?.["application/json"];
  const security = operation.security ?? api.security;
  const answers = Object.entries(operation.responses).map(([status, found]) => [status, followed(api, found)]);
  return h("section", { class: "card operation", id },
    h("h2", {}, h("span", { class: `method ${method}` }, method.toUpperCase()), " ", h("code", {}, path)),
    h("p", {}, operation.summary), h("p", { class: "soft" }, security.length ? `Needs: ${security.map((/** @type {any} */ one) => Object.keys(one)[0]).join(" or ")}` : "Needs no token"),
    parameters.length > 0 && h("h3", {}, "Parameters"),
    parameters.length > 0 && grid(["Name", "Takes", "Meaning"], parameters.map((/** @type {any} */ one) => [
      h("span", {}, h("code", {}, one.name), one.required ? h("strong", { class: "must" }, " must") : "", one.in === "header" ? h("span", { class: "soft" }, " header") : ""),
      [...typeSaid(one.schema), wordsSaid(one.schema)].filter(Boolean), [...described(one.description ?? ""), one.example !== undefined ? h("p", { class: "soft" }, "for example ", h("code", {}, String(one.example))) : ""]]), `Parameters of ${name}`),
    body && h("h3", {}, "Body"), body && h("p", {}, ...typeSaid(body.schema)), body?.example && h("pre", { tabindex: 0 }, JSON.stringify(body.example, null, 1)),
    h("h3", {}, "Answers"), grid(["Status", "Meaning", "Body"], answers.map(([status, one]) => [h("code", {}, status), described(one.description ?? ""),
      Object.entries(one.content ?? {}).map(([type, { schema }]) => h("p", {}, h("code", {}, type), " ", ...typeSaid(schema)))]), `Answers of ${name}`),
    ...answers.flatMap(([, one]) => Object.values(one.content ?? {})).filter((one) => one.example).slice(0, 1).map((one) =>
      h("details", {}, h("summary", {}, "Example"), h("pre", { tabindex: 0 }, JSON.stringify(one.example, null, 1)))));
}

/** @param {string} name @param {any} schema */
function schemaSaid(name, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([field, one]) => [h("code", {}, field),
    [...typeSaid(one), wordsSaid(one)].filter(Boolean), described(one.description ?? "")]);
  return h("section", { class: "card operation", id: `schema-${name}` }, h("h2", {}, h("code", {}, name)), schema.description && h("p", {}, ...described(schema.description)),
    rows.length ? grid(["Field", "Type", "Meaning"], rows, `Fields of ${name}`) : h("p", {}, ...typeSaid(schema)));
}

/** @param {any} api */
function drawReference(api) {
  const operations = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
  const shown = operations.filter(({ method, path }) => method !== "head" || !api.paths[path].get);    // HEAD is GET without the body
  const schemas = Object.entries(api.components.schemas);
  $("main").replaceChildren(
    h("header", { class: "intro" }, h("h1", {}, api.info.title, " ", h("span", { class: "soft" }, api.info.version)), h("p", {}, api.info.description),
      h("p", {}, h("a", { href: `${BASE}openapi.json` }, "openapi.json"), " · ", h("a", { href: BASE }, "console"), h("span", { class: "soft" }, " · every GET takes HEAD too, for the same without the body"))),
    h("nav", { "aria-label": "Contents" }, h("h2", {}, "Operations"), h("ul", { class: "plain" }, ...shown.map(({ path, method, operation }) =>
      h("li", {}, h("a", { href: `#${anchor(operation.operationId)}` }, h("span", { class: `method ${method}` }, method.toUpperCase()), " ", h("code", {}, path.replace("/twocloud", "")))))),
    h("h2", {}, "Schemas"), h("ul", { class: "plain" }, ...schemas.map(([name]) => h("li", {}, h("a", { href: `#schema-${name}` }, name))))),
    h("div", { class: "body" }, ...shown.map(({ path, method, operation }) => operationSaid(api, path, method, operation)),
      ...schemas.map(([name, schema]) => schemaSaid(name, schema))));
  document.title = `${api.info.title} API ${api.info.version}`;
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const answer = await fetch(`${BASE}openapi.json`, { credentials: "omit" });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  drawReference(await answer.json());
} catch (error) {
  $("main").replaceChildren(h("p", { role: "alert" }, `openapi.json could not be read: ${error}. Load the page again.`));
}
