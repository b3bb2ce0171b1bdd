// Searching the index. The words of the query are marked in the results.

import { call } from "/static/api.js";
import { byId, h } from "/static/dom.js";
import { duration, plural } from "/static/format.js";

const LIMIT = 10;
const EXCERPT = 420; // characters of a chunk that are shown

export function startSearch() {
  const form = byId("search").querySelector("form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = byId("search-answer");
    try {
      const { query, mode } = Object.fromEntries(new FormData(form));
      const found = await call("POST", "/api/search", { query, mode, limit: LIMIT });
      answer.replaceChildren(...answerOf(found));
    } catch (error) {
      answer.replaceChildren(h("p", { class: "empty" }, error.message));
    }
  });
}

function answerOf(answer) {
  if (!answer.results.length) return [h("p", { class: "empty" }, "Nothing found.")];
  const degraded = answer.degraded ? " · degraded: a part of the search did not answer" : "";
  return [
    h("p", { class: "hint" },
      `${plural(answer.total, "page")} in ${duration(answer.took_ms)}, ${answer.mode}${degraded}`),
    h("ol", { class: "hits" }, answer.results.map(hit)),
  ];
}

function hit(result) {
  const headings = result.headings.join(" › ");
  return h("li", {},
    h("h3", {}, link(result.url, result.title || result.url)),
    h("p", { class: "url" },
      result.url, headings ? h("span", { class: "headings" }, headings) : null),
    h("p", { class: "text" }, ...excerpt(result.text, result.highlights)));
}

/** A link if the scheme is http or https: a crawl may contain any scheme. */
function link(url, text) {
  if (!/^https?:\/\//i.test(url)) return text;
  return h("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, text);
}

/** The text around the first highlight, its highlights marked. Highlights count characters, while
 * JavaScript strings count UTF-16 units. */
export function excerpt(text, highlights) {
  const characters = [...text];
  const first = highlights[0]?.[0] ?? 0;
  const start = first > EXCERPT / 2 ? first - Math.floor(EXCERPT / 4) : 0;
  const end = Math.min(characters.length, start + EXCERPT);
  const slice = (from, to) => characters.slice(from, to).join("");
  const parts = start ? ["… "] : [];
  let at = start;
  for (const [from, to] of highlights) {
    if (from < at || to > end) continue;
    parts.push(slice(at, from), h("mark", {}, slice(from, to)));
    at = to;
  }
  parts.push(slice(at, end), end < characters.length ? " …" : "");
  return parts;
}
