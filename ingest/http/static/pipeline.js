// The pipeline from left to right: what waits, what every stage holds in each lane, what comes out.

import { byId, h, setText } from "/static/dom.js";
import { bounded, clock, count, duration, perSecond, plural } from "/static/format.js";
import { LANES, STAGES } from "/static/tables.js";

const FULL_BAR = 64; // messages; the mark at which a gate closes

class Card {
  /** `facts` are the names of the small figures, `lanes` those of the lanes that have a bar. */
  constructor(name, title, unit, facts, lanes) {
    this.number = h("strong", { class: "number" }, "–");
    this.facts = Object.fromEntries(facts.map((fact) => [fact, h("dd", {}, "–")]));
    this.lanes = Object.fromEntries(lanes.map((lane) => [lane, new LaneBar(lane)]));
    this.element = h("li", { class: `card stage ${name}`, "data-stage": name },
      h("h3", {}, h("i", { class: `key ${name}` }), title),
      h("p", { class: "depth" }, this.number, " ", h("span", { class: "unit" }, unit)),
      h("dl", { class: "facts" },
        facts.map((fact) => h("div", {}, h("dt", {}, fact), this.facts[fact]))),
      lanes.length
        ? h("ul", { class: "lanes" }, lanes.map((lane) => this.lanes[lane].element)) : null,
      this.waits = h("p", { class: "waits" }));
  }

  show(number, facts, lanes = {}) {
    setText(this.number, number);
    for (const [fact, text] of Object.entries(facts)) setText(this.facts[fact], text);
    for (const [lane, depth] of Object.entries(lanes)) this.lanes[lane].show(depth);
  }
}

class LaneBar {
  constructor(lane) {
    this.fill = h("span", { class: "fill" });
    this.number = h("span", { class: "count" }, "–");
    this.element = h("li", {}, h("span", { class: "lane" }, lane),
      h("span", { class: "track" }, this.fill), this.number);
  }

  show(depth) {
    setText(this.number, bounded(depth));
    const share = depth === null ? 0 : Math.min(1, depth / FULL_BAR);
    this.fill.style.setProperty("--share", depth ? Math.max(0.03, share) : 0);
  }
}

export class Pipeline {
  constructor() {
    this.waiting = new Card("waiting", "Waiting", "documents in Postgres", ["in stages"], LANES);
    this.stages = Object.fromEntries(STAGES.map(({ name, title }) => [
      name, new Card(name, title, "messages", ["rate", "oldest", "in flight", "workers"], LANES)]));
    this.done = new Card("done", "Searchable", "documents a minute",
      ["last hour", "failed", "failure rate", "dead letters"], []);
    byId("stages").replaceChildren(
      this.waiting.element, ...Object.values(this.stages).map((card) => card.element),
      this.done.element);
  }

  /** Show what the server saw last. */
  show({ streams, stages, backlog, dead_letters: deadLetters }) {
    const depth = streams ? total(streams.stages.flatMap((stage) => stage.lanes), "depth") : null;
    const waiting = backlog && total(LANES.map((lane) => ({ lane: backlog[lane] })), "lane");
    const inStages = depth === null ? "–" : plural(depth, "message");
    this.waiting.show(bounded(waiting), { "in stages": inStages }, backlog ?? {});
    for (const stage of streams?.stages ?? []) this.showStage(stage, stages?.[stage.stage]);
    this.done.show(this.done.number.textContent, { "dead letters": bounded(deadLetters) });
    this.done.element.classList.toggle("troubled", deadLetters > 0);
  }

  /** Show the sums of the last hour, by minute. */
  showHistory(minutes) {
    const last = minutes.at(-2) ?? { succeeded: 0 }; // the current minute is not over
    const current = minutes.at(-1) ?? { succeeded: 0 };
    const done = total(minutes, "succeeded");
    const failed = total(minutes, "failed");
    const share = done + failed ? (100 * failed) / (done + failed) : 0;
    this.done.show(count(Math.max(last.succeeded, current.succeeded)), {
      "last hour": count(done), failed: count(failed),
      "failure rate": `${share.toFixed(share && share < 10 ? 1 : 0)} %` });
  }

  showStage(stage, health) {
    const workers = health?.workers ?? null;
    const waits = health?.waits ?? [];
    const ages = stage.lanes.map((lane) => lane.oldest_age_ms).filter((age) => age !== null);
    const card = this.stages[stage.stage];
    card.show(count(total(stage.lanes, "depth")), {
      rate: perSecond(stage.rate_per_s),
      oldest: ages.length ? duration(Math.max(...ages)) : "–",
      "in flight": count(total(stage.lanes, "pending")),
      workers: count(workers),
    }, Object.fromEntries(stage.lanes.map((lane) => [lane.lane, lane.depth])));
    card.element.classList.toggle("flows", stage.rate_per_s > 0 && total(stage.lanes, "depth") > 0);
    setText(card.waits, waits.map(describe).join("; "));
    card.waits.title = waits.map((wait) => wait.reason).join("; ");
    card.element.classList.toggle("troubled", workers === 0 || waits.length > 0);
  }
}

const describe = ({ dependency, state, since }) => (state === "not_answering"
  ? `waiting for ${dependency} since ${clock(since)}`
  : `${dependency} ${state} since ${clock(since)}`);

const total = (rows, name) => rows.reduce((sum, row) => sum + row[name], 0);
