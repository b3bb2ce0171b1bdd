// Starts the page: tabs, the live connection, and what each part shows.

import { call } from "/static/api.js";
import { startDocument } from "/static/document.js";
import { byId, h, reconcile, setText } from "/static/dom.js";
import { bounded } from "/static/format.js";
import { Jobs } from "/static/jobs.js";
import { DeadLetters } from "/static/dead-letters.js";
import { say } from "/static/notice.js";
import { Pending } from "/static/pending.js";
import { Pipeline } from "/static/pipeline.js";
import { Plots, completeHour } from "/static/plots.js";
import { startSearch } from "/static/search.js";
import { Tabs } from "/static/tabs.js";

const HISTORY_SECONDS = 10;
const HEALTH_SECONDS = 15;

const pipeline = new Pipeline();
const plots = new Plots();
const lists = { jobs: new Jobs(), "dead-letters": new DeadLetters(), pending: new Pending() };
const tabs = new Tabs(document.querySelector("[role=tablist]"), refreshList);

startDocument();
startSearch();
byId("sign-out").addEventListener("click", async () => {
  await call("DELETE", "/session");
  location.reload();
});
listen();
repeat(showHistory, HISTORY_SECONDS);
repeat(showHealth, HEALTH_SECONDS);

/** Receive the state of the pipeline every two seconds, and refresh the list that is shown. */
function listen() {
  const events = new EventSource("/api/pipeline/events");
  events.addEventListener("overview", (event) => {
    const overview = JSON.parse(event.data);
    pipeline.show(overview);
    showDeadLetterCount(overview.dead_letters);
    live("live", "live");
    refreshList();
  });
  events.addEventListener("error", () => {
    live("lost", "reconnecting");
    if (events.readyState === EventSource.CLOSED) setTimeout(returnToServer, 2000);
  });
}

/** The browser closed the connection: the session ended, or ingest is unavailable. */
async function returnToServer() {
  try {
    await call("GET", "/api/pipeline"); // without a session this asks to sign in
    listen();
  } catch {
    setTimeout(returnToServer, 2000);
  }
}

async function refreshList() {
  try {
    await lists[tabs.selected]?.refresh();
  } catch (error) {
    say(error.message);
  }
}

async function showHistory() {
  const { minutes } = await call("GET", "/api/pipeline/history");
  const hour = completeHour(minutes);
  plots.show(hour);
  pipeline.showHistory(hour);
}

async function showHealth() {
  const { services } = await (await fetch("/health")).json();
  reconcile(byId("health"), Object.entries(services), ([name]) => name, ([name]) => {
    const state = h("span", { class: "unseen" });
    const item = h("li", {}, h("i", { class: "light" }), name, state);
    item.update = ([, text]) => {
      item.className = text === "healthy" ? "well" : "ill";
      item.title = text;
      setText(state, ` ${text}`);
    };
    return item;
  });
}

function showDeadLetterCount(deadLetters) {
  const badge = byId("dead-letters-count");
  badge.hidden = !deadLetters;
  setText(badge, bounded(deadLetters));
}

function live(state, text) {
  const place = byId("live");
  place.dataset.state = state;
  setText(place, text);
}

/** Run now and every so many seconds, also after an error; not while the page is hidden. */
async function repeat(action, seconds) {
  try {
    if (!document.hidden) await action();
  } catch {
    // the live line shows that ingest is unavailable
  }
  setTimeout(() => repeat(action, seconds), seconds * 1000);
}
