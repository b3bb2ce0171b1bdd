// The jobs, newest first, with their progress. An opened job shows the result of each document.

import { call, withQuery } from "/static/api.js";
import { byId, h, reconcile, setText } from "/static/dom.js";
import { ago, count, duration, moment, plural } from "/static/format.js";
import { act, say } from "/static/notice.js";

const PAGE = 25;
const RESULTS = 50;
const COLUMNS = ["#", "Page", "Result", "Stage", "Chunks", "Tries", "Time"];
const OPEN = new Set(["queued", "running"]);
const KINDS = {
  index_document_job: "document", index_document_batch_job: "batch", delete_document_job: "delete",
};

export class Jobs {
  constructor() {
    this.limit = PAGE;
    this.filter = byId("jobs").querySelector("form");
    this.filter.addEventListener("submit", (event) => event.preventDefault());
    this.filter.addEventListener("input", () => this.refresh());
    byId("jobs-more").addEventListener("click", () => {
      this.limit += PAGE;
      this.refresh();
    });
  }

  /** Read the list again. Throws ApiError. */
  async refresh() {
    const filter = Object.fromEntries(new FormData(this.filter));
    const path = withQuery("/api/jobs", { ...filter, limit: this.limit });
    const { jobs, next } = await call("GET", path);
    reconcile(byId("jobs-list"), jobs, (job) => job.job_id,
      (job) => jobRow(job, () => this.refresh()));
    byId("jobs-empty").hidden = jobs.length > 0;
    byId("jobs-more").hidden = next === null;
  }
}

function jobRow(job, refresh) {
  const status = h("span", { class: "pill" });
  const progress = h("span", { class: "progress" },
    ...["succeeded", "failed", "cancelled"].map((part) => h("span", { class: `part ${part}` })));
  const [figures, age, took] = ["figures", "age", "took"].map((name) => h("span", { class: name }));
  const source = job.crawl_id
    ? h("span", { class: "source" }, "crawl ", h("code", {}, job.crawl_id)) : KINDS[job.kind];
  const results = new Results(job, refresh);
  const details = h("details", {},
    h("summary", {}, status, h("code", { class: "id", title: job.job_id }, job.job_id.slice(0, 8)),
      h("span", { class: "what" }, source), h("span", { class: "lane-name" }, job.lane),
      progress, figures, age, took),
    results.element);
  details.addEventListener("toggle", () => results.open(details.open));
  const row = h("li", { class: "row job" }, details);
  row.update = (now) => {
    status.className = `pill ${now.status}`;
    setText(status, now.status);
    for (const part of progress.children)
      part.style.setProperty("--share", now[part.className.split(" ")[1]] / now.total);
    const ended = now.succeeded + now.failed + now.cancelled;
    const failed = now.failed ? `, ${count(now.failed)} failed` : "";
    setText(figures, `${count(ended)} / ${count(now.total)}${failed}`);
    setText(age, ago(now.created_at));
    age.title = moment(now.created_at);
    const ms = now.finished_at && Date.parse(now.finished_at) - Date.parse(now.created_at);
    setText(took, now.finished_at ? duration(ms) : "");
    results.update(now);
  };
  return row;
}

/** The details of an opened job: actions, and the results of its documents, live while it runs. */
class Results {
  constructor(job, refresh) {
    this.job = job;
    this.limit = RESULTS;
    this.body = h("tbody");
    this.more = h("button", { type: "button", class: "quiet more", hidden: true,
      onclick: () => this.longer() }, "More");
    this.retry = h("button", { type: "button",
      onclick: () => this.run(this.retry, () => this.retryFailed(refresh)) });
    this.cancel = h("button", { type: "button",
      onclick: () => this.run(this.cancel, () => this.cancelRest(refresh)) },
      "Cancel what has not started");
    this.element = h("div", { class: "opened" },
      h("p", { class: "bar" },
        h("code", { class: "full-id" }, job.job_id), this.retry, this.cancel),
      h("div", { class: "scroll", tabindex: "0", role: "region",
        "aria-label": `Results of job ${job.job_id.slice(0, 8)}` },
        h("table", {}, h("thead", {}, h("tr", {},
          COLUMNS.map((title) => h("th", { scope: "col" }, title)))), this.body)),
      this.more);
  }

  update(job) {
    this.job = job;
    setText(this.retry, `Retry ${plural(job.failed, "failed document")}`);
    this.retry.hidden = job.failed === 0;
    this.cancel.hidden = !OPEN.has(job.status);
    if (this.isOpen && OPEN.has(job.status) && !this.events) this.watch();
  }

  open(isOpen) {
    this.isOpen = isOpen;
    this.events?.close();
    this.events = null;
    if (!isOpen) return;
    this.read();
    if (OPEN.has(this.job.status)) this.watch();
  }

  watch() {
    const path = `/api/jobs/${this.job.job_id}/events?last_event_id=${this.job.total}`;
    this.events = new EventSource(path);
    this.events.addEventListener("progress", () => this.read());
    this.events.addEventListener("end", () => {
      this.events?.close();
      this.events = null;
      this.read();
    });
  }

  async read() {
    if (this.isReading) {
      this.isStale = true;
      return;
    }
    this.isReading = true;
    try {
      const page = await call("GET", `/api/jobs/${this.job.job_id}?limit=${this.limit}`);
      reconcile(this.body, page.results, (result) => result.position, resultRow);
      this.more.hidden = page.next === null;
    } catch (error) {
      say(error.message);
    }
    this.isReading = false;
    if (this.isStale) {
      this.isStale = false;
      setTimeout(() => this.read(), 500);
    }
  }

  longer() {
    this.limit = Math.min(1000, this.limit * 4);
    this.read();
  }

  run(button, action) {
    return act(button, action);
  }

  async retryFailed(refresh) {
    const { retried } = await call("POST", `/api/jobs/${this.job.job_id}/retry`);
    const none = "No document of this job can be retried";
    say(retried ? `${plural(retried, "document")} queued again` : none);
    await refresh();
  }

  async cancelRest(refresh) {
    const { cancelled } = await call("DELETE", `/api/jobs/${this.job.job_id}`);
    say(`${plural(cancelled, "document")} cancelled; documents in the streams continue`);
    await refresh();
  }
}

function resultRow(result) {
  const pill = h("span", { class: "pill" });
  const reason = h("span", { class: "reason" });
  const names = ["stage", "chunks", "attempts", "duration"];
  const cells = Object.fromEntries(names.map((name) => [name, h("td")]));
  const row = h("tr", {}, h("td", { class: "position" }, count(result.position)),
    h("th", { scope: "row", class: "url" }, result.url ?? "–"),
    h("td", { class: "outcome" }, pill, reason),
    ...Object.values(cells));
  row.update = (now) => {
    pill.className = `pill ${now.status}`;
    setText(pill, now.status);
    setText(reason, now.error ?? "");
    setText(cells.stage, now.stage);
    setText(cells.chunks, count(now.chunks));
    setText(cells.attempts, count(now.attempts));
    setText(cells.duration, duration(now.duration_ms));
  };
  return row;
}
