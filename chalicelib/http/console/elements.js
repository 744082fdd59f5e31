// Making elements. Names and tags come from clouds and may be hostile: they become text, never markup.

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));

/**
 * An element. `on…` are listeners, true and false are present and absent attributes, the rest are attributes' values.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | number | null | undefined | false)} children
 */
function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "circle", "path", "title"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  for (const child of children) {
    if (child instanceof Node) made.append(child);
    else if (child !== null && child !== undefined && child !== false) made.append(String(child));
  }
  return made;
}

/** Text from outside: its direction stays its own, so that it cannot turn round what stands beside it. */
const bdi = (/** @type {string} */ text) => h("bdi", {}, text);

/** Signs that are not seen or turn text round, written out: they are how one name is made to look like another. */
function escaped(/** @type {string} */ text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}\p{Zl}\p{Zp}]|[^\S ]/gu,
    (sign) => `\\u{${(sign.codePointAt(0) ?? 0).toString(16)}}`);
}

/** A value that is an https address becomes a link that tells the other side nothing; all else is text.
 * @param {string} text @param {string} [words]  in place of the address */
function linked(text, words) {
  if (!/^https:\/\/[^\s/]+/.test(text)) return bdi(escaped(text));
  return h("a", { href: text, target: "_blank", rel: "noopener noreferrer" }, words ? `${words} ↗` : bdi(escaped(text)));
}
