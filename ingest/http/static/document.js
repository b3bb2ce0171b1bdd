// Where is my page: the progress of its last version, stage by stage, and what search shows of it.

import { call, withQuery } from "/static/api.js";
import { byId, h } from "/static/dom.js";
import { count, duration, moment } from "/static/format.js";

export function startDocument() {
  const form = byId("document").querySelector("form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = byId("document-answer");
    try {
      const url = new FormData(form).get("url");
      const found = await call("GET", withQuery("/api/documents", { url }));
      answer.replaceChildren(documentCard(found));
    } catch (error) {
      answer.replaceChildren(h("p", { class: "empty" }, error.message));
    }
  });
}

function documentCard(found) {
  const facts = {
    "Canonical URL": found.canonical_url,
    "Searchable": found.live_version === null ? "no" : `yes, version ${found.live_version}`,
    "Chunks": count(found.chunks),
    "Document id": found.document_id,
  };
  return h("article", { class: "found" },
    h("h3", {}, h("span", { class: `pill ${found.state}` }, found.state), " ", found.url),
    found.last_error ? h("p", { class: "reason" }, found.last_error) : null,
    h("dl", { class: "facts wide" }, Object.entries(facts).map(([name, text]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, text ?? "–")))),
    h("ol", { class: "journey" }, (found.stages ?? []).map(stageStep)));
}

function stageStep(step) {
  const isOver = step.started_at && step.finished_at;
  const took = isOver ? Date.parse(step.finished_at) - Date.parse(step.started_at) : null;
  const present = step.started_at ? "in progress" : "not yet";
  return h("li", { class: step.finished_at ? "past" : step.started_at ? "present" : "future" },
    h("b", {}, h("i", { class: `key ${step.stage}` }), step.stage),
    h("span", {}, step.finished_at ? `done in ${duration(took)}` : present),
    step.started_at ? h("span", { class: "hint" }, moment(step.started_at)) : null,
    step.worker ? h("code", { class: "hint" }, step.worker) : null);
}
